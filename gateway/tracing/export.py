"""The export of spans, configured by the standard ``OTEL_*`` environment variables."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any
from uuid import uuid4

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Tracer
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel

from couchbase.protocol.version import VERSION
from reactor.kinds import IReactor
from reactor.sparselog import SparseLog

__all__ = ["STOP_SECONDS", "Export", "check"]

STOP_SECONDS = 5.0
"""Timeout for sending spans at shutdown, in seconds."""

_GROUP = "opentelemetry_traces_exporter"
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


def check(environment: Mapping[str, str]) -> None:
    """Find the exporters that the environment names.

    :raises ValueError: one of them does not exist, or is not installed.
    """
    _exporters(environment)


def _exporters(environment: Mapping[str, str]) -> list[Callable[[], SpanExporter]]:
    found: list[Callable[[], SpanExporter]] = []
    for one in (environment.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        name = one.strip()
        if name == "none":
            continue
        entry = name
        if name == "otlp":
            protocol = (
                environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
                or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
                or "http/protobuf"
            )
            entry = _PROTOCOLS.get(protocol, "")
            if not entry:
                raise ValueError(
                    f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not one of {', '.join(_PROTOCOLS)}"
                )
        known = list(entry_points(group=_GROUP, name=entry))
        if not known:
            raise ValueError(
                f"OTEL_TRACES_EXPORTER: no installed package has the exporter {entry!r}; "
                "pip install opentelemetry-exporter-otlp-proto-http for OTLP over HTTP, -grpc for gRPC"
            )
        found.append(known[0].load())
    return found


class Export:
    """The library's tracer provider, and the thread that sends the recorded spans.

    Start it in the process that serves requests: the thread does not survive a fork. At most
    ``OTEL_BSP_MAX_QUEUE_SIZE`` spans (2048 by default) wait for the thread; further ones are dropped.
    """

    log = Logger()

    def __init__(self, reactor: IReactor, environment: Mapping[str, str]) -> None:
        self._reactor = reactor
        self._handler = _LibraryLog(reactor, self.log)
        self._exporters = _exporters(environment)
        self.provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)

    def start(self) -> None:
        """Begin to send spans."""
        self._handler.begin()
        for exporter in self._exporters:
            self.provider.add_span_processor(BatchSpanProcessor(exporter()))

    @property
    def tracer(self) -> Tracer:
        """The tracer of the gateway."""
        return self.provider.get_tracer("couchgateway", VERSION)

    def stop(self) -> Deferred[None]:
        """Send the remaining spans, in a thread; fires when they are sent, at the latest after
        :data:`STOP_SECONDS`."""
        stopped: Deferred[None] = Deferred()

        def finish() -> None:
            if not stopped.called:
                late.cancel()
                stopped.callback(None)

        def give_up() -> None:
            self.log.warn("spans were not sent within {seconds:g} s, and are lost", seconds=STOP_SECONDS)
            stopped.callback(None)

        def shut_down() -> None:
            try:
                self.provider.shutdown()
            finally:
                self._reactor.callFromThread(finish)

        late = self._reactor.callLater(STOP_SECONDS, give_up)
        # Not a thread of the reactor's pool, for which the process would wait.
        threading.Thread(target=shut_down, name="spans", daemon=True).start()
        return stopped.addCallback(lambda _: self._handler.end())


def _resource() -> Resource:
    """Return the resource attributes in the environment, with defaults for missing ones."""
    found = Resource.create()
    given = found.attributes
    defaults = {"service.version": VERSION, "service.instance.id": str(uuid4())}
    more: dict[str, Any] = {name: value for name, value in defaults.items() if name not in given}
    if str(given.get("service.name", "unknown_service")).startswith("unknown_service"):
        more["service.name"] = "couchgateway"
    return found.merge(Resource(more))


class _LibraryLog(logging.Handler):
    """Passes the library's warnings to the log, from any thread and at a limited rate."""

    def __init__(self, reactor: IReactor, log: Logger) -> None:
        super().__init__(logging.WARNING)
        self._reactor = reactor
        self._log = SparseLog(log, reactor.seconds)
        self._logger = logging.getLogger("opentelemetry")
        self._waiting = 0

    def begin(self) -> None:
        """Begin to receive the library's log records."""
        self._logger.addHandler(self)
        self._logger.propagate = False

    def end(self) -> None:
        """Stop receiving log records."""
        self._logger.removeHandler(self)
        self._logger.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on; drop it if many are waiting for the reactor."""
        if self._waiting < 100:
            self._waiting += 1
            self._reactor.callFromThread(self._write, record.levelno, record.getMessage()[:1000])

    def _write(self, level: int, text: str) -> None:
        self._waiting -= 1
        self._log.emit(
            LogLevel.error if level >= logging.ERROR else LogLevel.warn, "OpenTelemetry: {words}", words=text
        )
