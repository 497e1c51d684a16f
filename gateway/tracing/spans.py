"""A span for each request, and one for its operations at the cluster.

Attributes follow OpenTelemetry's stable semantic conventions for HTTP servers and for database clients. Spans
are started late: a request's span when something needs its context or when the request is over, the
operations' span only when the request is over. Both have the times at which their work began and ended. So a
request that is not sampled costs only the sampler's decision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)
from zope.interface import implementer

from gateway.clients.accesslog import without_secrets
from gateway.clients.address import client_address
from gateway.clients.proxies import TrustedProxies
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.tracecontext import TraceContext, continue_trace, trace_of
from gateway.interfaces import IGatewayPlugin
from gateway.tracing.record import Record

__all__ = ["Tracing"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"})
_LONGEST = 4096
_SHORTER = 512
_NO_CONTEXT = Context()
_CLIENT_LEFT = 499


@implementer(IGatewayPlugin)
class Tracing:
    """Makes the spans.

    :param tracer: a tracer of the OpenTelemetry API.
    :param trusted: proxies trusted to report the client's address.
    """

    name = "tracing"
    on_request = on_operation = None

    def __init__(self, tracer: Tracer, trusted: TrustedProxies) -> None:
        self._tracer = tracer
        self._trusted = trusted
        self._gateway: Any = None

    def attach(self, gateway: Any) -> None:
        """Trace the requests of a gateway from now on."""
        self._gateway = gateway
        gateway.begin_trace = self.begin
        for resource in gateway.resources:
            if hasattr(resource, "connected"):
                # Only this object is changed: without tracing, requests cost nothing more.
                vars(resource)["connected"] = self._timed(resource.connected)

    def routes(self, app: object) -> None:
        """Declare no routes."""

    # ---- the request's span ----------------------------------------------------------------------

    def begin(self, request: Request) -> TraceContext:
        """Begin the span of a request, and return its context, which continues the caller's trace."""
        given = continue_trace(request)
        context = _NO_CONTEXT
        if not given.is_new:
            remote = SpanContext(
                int(given.trace_id, 16),
                int(given.parent_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(given.flags),
                trace_state=TraceState.from_header([given.state] if given.state else []),
            )
            context = set_span_in_context(NonRecordingSpan(remote), _NO_CONTEXT)
        gateway = self._gateway
        offset = gateway.unix_time() - gateway.seconds()
        endpoint = request.endpoint
        method = request.method if request.method in _METHODS else "HTTP"
        span = self._tracer.start_span(
            method if endpoint is None else f"{method} {_route(request)}",
            context,
            SpanKind.SERVER,
            _of_request(request),
            start_time=int((request.started + offset) * 1e9),
        )
        own = span.get_span_context()
        if not own.is_valid:
            # The library is switched off (OTEL_SDK_DISABLED).
            return given
        request.record = Record(span, gateway.seconds, offset) if span.is_recording() else None
        state = own.trace_state.to_header()
        return TraceContext(
            f"{own.trace_id:032x}", f"{own.span_id:016x}", int(own.trace_flags) & 1, state, given.is_new
        )

    def on_response(self, request: Request, response: Response, seconds: float) -> None:
        """Note the end of the operations if the answer is already complete."""
        record: Record | None = request.record
        if record is not None and isinstance(response.body, bytes):
            record.end()

    def on_end(self, request: Request, status: int, seconds: float) -> None:
        """End the spans of a request that is over."""
        trace_of(request)
        record: Record | None = request.record
        if record is None:
            return
        span = record.span
        now = self._gateway.seconds()
        self._end_request(span, request, status)
        if record.begun is not None:
            self._operations(record, status, now)
        span.end(record.nanoseconds(now))

    def _end_request(self, span: Span, request: Request, status: int) -> None:
        attributes: dict[str, Any] = {
            "client.address": client_address(request, self._trusted),
            "couchgateway.request_id": request.id,
            "http.request.body.size": request.received_bytes,
            "http.response.body.size": request.sent_bytes,
        }
        agent = request.headers.get(b"user-agent")
        if isinstance(agent, bytes):
            attributes["user_agent.original"] = _text(agent, _SHORTER)
        if status != _CLIENT_LEFT:
            attributes["http.response.status_code"] = status
        if request.cut:
            attributes["couchgateway.cut"] = request.cut
        if request.failure_code:
            attributes["couchgateway.error"] = request.failure_code
        is_failure = status >= 500 or request.cut == "gateway"
        if is_failure or request.cut:
            attributes["error.type"] = request.failure_code or f"cut_by_{request.cut}"
        span.set_attributes(attributes)
        if is_failure:
            span.set_status(Status(StatusCode.ERROR))

    # ---- the span of its operations --------------------------------------------------------------

    def _timed(self, connected: Callable[..., Any]) -> Callable[..., Any]:
        """Return a ``BucketResource.connected`` that notes when the connection is used."""

        def timed(request: Request, act: Callable[[Any, Request, Any], Any], plan: Any) -> Any:
            outer = request.outer or request
            trace_of(outer)
            record: Record | None = outer.record
            if record is None:
                return connected(request, act, plan)
            request.record = record
            # Until there is a connection, this is the time of the attempt to open it.
            record.begin(request)

            def begin(connection: Any, request: Request, plan: Any) -> Any:
                record.begin(request)
                return act(connection, request, plan)

            try:
                return connected(request, begin, plan)
            except BaseException:
                # The request was refused before the cluster was used, or its body is read first.
                record.begun = None
                raise

        return timed

    def _operations(self, record: Record, status: int, now: float) -> None:
        request = record.request
        assert record.begun is not None and request is not None
        bucket = request.parameters.get("bucket", b"").decode("utf-8", "replace")
        name, attributes = _of_operations(record, request)
        attributes["db.system.name"] = "couchbase"
        attributes["db.operation.name"] = name
        target = bucket
        if bucket:
            attributes["db.namespace"] = bucket
        if "collection" in request.parameters:
            names = [request.parameters[part].decode("utf-8", "replace") for part in ("scope", "collection")]
            attributes["db.collection.name"] = target = ".".join(names)
        service = request.parameters.get("service")
        if service is not None:
            attributes["couchbase.service"] = _text(service, _SHORTER)
        if request.failure_code:
            attributes["error.type"] = request.failure_code
        span = self._tracer.start_span(
            f"{name} {target}".rstrip(),
            set_span_in_context(record.span, _NO_CONTEXT),
            SpanKind.CLIENT,
            attributes,
            start_time=record.nanoseconds(record.begun),
        )
        if status >= 500 and request.failure_code:
            span.set_status(Status(StatusCode.ERROR))
        span.end(record.nanoseconds(now if record.ended is None else record.ended))


def _of_request(request: Request) -> dict[str, Any]:
    """Return the attributes that a sampler may use for its decision."""
    attributes: dict[str, Any] = {
        "http.request.method": request.method,
        "url.path": _text(request.path, _LONGEST),
        "url.scheme": "https" if request.is_encrypted else "http",
        "network.protocol.version": _version(request),
    }
    if request.method not in _METHODS:
        attributes["http.request.method"] = "_OTHER"
        attributes["http.request.method_original"] = _text(request.method.encode("latin-1"), _SHORTER)
    if request.query_string:
        attributes["url.query"] = _text(without_secrets(request.query_string), _LONGEST)
    if request.endpoint is not None:
        attributes["http.route"] = _route(request)
    host = request.headers.get(b"host")
    if isinstance(host, bytes):
        name, colon, port = host.decode("latin-1").rpartition(":")
        if not colon or not port.isdecimal():
            name, port = host.decode("latin-1"), ""
        attributes["server.address"] = name[:_SHORTER]
        if port:
            attributes["server.port"] = int(port)
    return attributes


def _version(request: Request) -> str:
    """Return the HTTP version in the conventions' format: ``2``, not ``2.0``."""
    version: bytes = getattr(request, "http_version", b"1.1")
    return "2" if version == b"2.0" else version.decode("ascii")


def _route(request: Request) -> str:
    """Return the route in the form of OpenAPI: ``/v1/buckets/{bucket}``."""
    assert request.endpoint is not None
    paths = request.endpoint.paths
    if len(paths) > 1:
        # The routes of one endpoint differ in their parameters, or in the version prefix.
        names = set(request.parameters)
        version = request.path[: request.path.find(b"/", 1)].decode("latin-1")
        fitting = [path for path in paths if path.count("<") == len(names)] or list(paths)
        paths = tuple(path for path in fitting if path.startswith(version + "/")) or tuple(fitting)
    return paths[0].replace("<", "{").replace(">", "}")


def _of_operations(record: Record, request: Request) -> tuple[str, dict[str, Any]]:
    """Return the name of a request's operations at the cluster, and their attributes."""
    counts = record.counts
    endpoint = request.endpoint
    name = request.operation or ("" if endpoint is None else endpoint.operation) or "query"
    if name == "open" and endpoint is not None and not request.failure_code:
        # The endpoint uses the cluster, not a bucket.
        name = endpoint.name
    if not counts:
        return name, {}
    attributes: dict[str, Any] = {
        f"couchgateway.batch.{operation}.{outcome}": number for (operation, outcome), number in counts.items()
    }
    attributes["db.operation.batch.size"] = sum(counts.values())
    operations = {operation for operation, _ in counts}
    return f"BATCH {operations.pop()}" if len(operations) == 1 else "BATCH", attributes


def _text(value: bytes, longest: int) -> str:
    return value[:longest].decode("utf-8", "backslashreplace")
