"""Couchbase for Twisted: Deferreds, or results with callbacks, on the SDK's protocol core."""

__version__ = "1.2.5"
