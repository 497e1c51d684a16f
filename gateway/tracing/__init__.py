"""OpenTelemetry spans of requests, and of the cluster operations that they lead to.

Needs the extra ``otel``; only ``--tracing`` loads these modules.
"""
