"""The export of spans: to a receiver of OTLP, to none, and from every process."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from gateway.commandline import Options
from gateway.tracing import export
from gateway.tracing.export import Export, check
from tests.gateway.workers.support import DOCUMENT, LOOPBACK, WorkersTestCase

reactor: Any = installed

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = {"traceparent": [f"00-{TRACE}-b7ad6b7169203331-01"]}


class Receiver(Resource):
    """Takes OTLP over HTTP."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[tuple[dict[str, str], Any]] = []
        """Each span with the attributes of its resource."""
        self.paths: set[bytes] = set()
        self.keys: set[bytes | None] = set()

    def render_POST(self, request: Any) -> bytes:
        """Take an export request."""
        self.paths.add(request.path)
        self.keys.add(request.getHeader("api-key"))
        message = ExportTraceServiceRequest.FromString(request.content.read())
        for resource in message.resource_spans:
            attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(attributes, span) for span in scope.spans]
        request.setHeader("Content-Type", "application/x-protobuf")
        return b""


class Mute(Protocol):
    """Takes everything, and answers nothing."""


class ProcessTests(WorkersTestCase):
    """``twistd couchgateway --tracing``."""

    @inlineCallbacks
    def receiver(self, factory: Factory) -> Any:
        """Return the URL of a receiver."""
        port = yield reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    @inlineCallbacks
    def run_with(self, endpoint: str, *arguments: str, **environment: str) -> Any:
        """Serve a document, and stop."""
        given = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        self.patch(os, "environ", {**given, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **environment})
        self.running.start("--ephemeral", "--listen", LOOPBACK, "--tracing", *arguments)
        url = (yield self.running.logged(r"listens on (\S+)"))[0]
        yield self.running.logged("Ready: ")
        status, _, _ = yield self.fetch("GET", url + DOCUMENT + "none", headers=SAMPLED)
        self.assertEqual(status, 404)
        self.running.signal("TERM")
        yield self.running.ended

    @inlineCallbacks
    def test_received(self) -> Any:
        """Spans arrive at a receiver, at the latest with the stop, from one process and from workers; the
        standard variables set up what they say of the program, and how they are sent."""
        for workers in ((), ("--workers", "2")):
            receiver = Receiver()
            url = yield self.receiver(Site(receiver))
            yield self.run_with(
                url,
                *workers,
                OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
                OTEL_EXPORTER_OTLP_HEADERS="api-key=key-1",
            )
            mine = [(resource, span) for resource, span in receiver.spans if span.trace_id.hex() == TRACE]
            self.assertEqual(
                sorted(span.name for _, span in mine),
                ["GET /v1/buckets/{bucket}/documents/{key}", "get default"],
                self.running.log,
            )
            for resource, _ in mine:
                self.assertEqual(resource["service.name"], "couchgateway")
                self.assertEqual(resource["deployment.environment.name"], "test")
                self.assertTrue(resource["service.version"] and resource["service.instance.id"])
            self.assertEqual((receiver.paths, receiver.keys), ({b"/v1/traces"}, {"key-1"}))
            self.running = type(self.running)()

    @inlineCallbacks
    def test_names(self) -> Any:
        """The service's name is that of the environment; a sampler may drop everything."""
        receiver = Receiver()
        url = yield self.receiver(Site(receiver))
        yield self.run_with(url, OTEL_SERVICE_NAME="shop")
        self.assertEqual({resource["service.name"] for resource, _ in receiver.spans}, {"shop"})
        receiver.spans.clear()
        self.running = type(self.running)()
        yield self.run_with(url, OTEL_TRACES_SAMPLER="always_off")
        self.assertEqual(receiver.spans, [])

    @inlineCallbacks
    def test_no_receiver(self) -> Any:
        """Requests are served, and the service stops, if nobody listens; the log says so, briefly."""
        port = yield reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        url = f"http://127.0.0.1:{port.getHost().port}"
        yield port.stopListening()
        yield self.run_with(url)
        self.assertIn("Server Shut Down.", self.running.log)
        self.assertLess(len(re.findall("OpenTelemetry: ", self.running.log)), 25)

    @inlineCallbacks
    def test_mute_receiver(self) -> Any:
        """The stop waits for a receiver that does not answer, but not long."""
        url = yield self.receiver(Factory.forProtocol(Mute))
        yield self.run_with(url)
        self.assertIn("spans were not sent within 5 s", self.running.log)
        self.assertIn("Server Shut Down.", self.running.log)


class Blocked(SpanExporter):
    """An exporter that waits for a test."""

    made: list[Blocked]

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.spans = 0
        self.made.append(self)

    def export(self, spans: Any) -> SpanExportResult:
        """Take spans when the test says so."""
        self.go_on.wait(60)
        self.spans += len(spans)
        return SpanExportResult.SUCCESS


class QueueTests(TestCase):
    """Spans that wait to be sent."""

    timeout = 120

    @inlineCallbacks
    def test_bounded(self) -> Any:
        """More spans than the queue has room for are dropped; who makes them does not wait."""
        Blocked.made = []
        self.patch(export, "_exporters", lambda environment: [Blocked])
        sending = Export(reactor, {})
        sending.start()
        for _ in range(5000):
            sending.tracer.start_span("s").end()
        (exporter,) = Blocked.made
        self.assertEqual(exporter.spans, 0)
        exporter.go_on.set()
        yield sending.stop()
        # The queue, and what the thread had taken from it.
        self.assertGreaterEqual(exporter.spans, 2048)
        self.assertLessEqual(exporter.spans, 2048 + 512)


class LogTests(SynchronousTestCase):
    """What the library has to say."""

    def test_rate(self) -> None:
        """Its warnings are in the log, ten of a kind in a minute, however many threads say it."""
        lines: list[str] = []
        log = Logger(observer=lambda event: lines.append(event["log_format"].format(**event)))

        class Threads(Clock):
            def callFromThread(self, call: Any, *arguments: Any) -> None:
                self.callLater(0, call, *arguments)

        clock: Any = Threads()
        handler = export._LibraryLog(clock, log)
        handler.begin()
        self.addCleanup(handler.end)
        for number in range(5000):
            logging.getLogger("opentelemetry.sdk.trace").warning("no. %d", number)
        clock.advance(0)
        self.assertEqual(lines, [f"OpenTelemetry: no. {number}" for number in range(10)])
        handler.end()
        self.assertTrue(logging.getLogger("opentelemetry").propagate)


class OptionTests(SynchronousTestCase):
    """``--tracing``."""

    def refused(self, environment: dict[str, str]) -> str:
        """Return why a command line is refused."""
        self.patch(os, "environ", environment)
        with self.assertRaises(UsageError) as caught:
            Options().parseOptions(["--ephemeral", "--tracing"])
        return str(caught.exception)

    def test_exporters(self) -> None:
        """Those of installed packages, by the names of the standard variables."""
        for environment in (
            {},
            {"OTEL_TRACES_EXPORTER": "otlp"},
            {"OTEL_TRACES_EXPORTER": "none"},
            {"OTEL_TRACES_EXPORTER": "otlp,console"},
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "x", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
        ):
            check(environment)
        for environment, words in (
            ({"OTEL_TRACES_EXPORTER": "carrier-pigeon"}, "no installed package has the exporter"),
            ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "'http/json' is not one of http/protobuf, grpc"),
        ):
            self.assertIn(words, self.refused(environment))

    def test_not_installed(self) -> None:
        """Without the library the message says how to get it."""
        for name in list(sys.modules):
            if name.startswith(("opentelemetry", "gateway.tracing.")):
                self.patch_module(name)
        self.assertIn("pip install 'couchgateway[otel]'", self.refused({}))

    def patch_module(self, name: str) -> None:
        """Make a module impossible to import until the end of the test."""
        module = sys.modules[name]
        self.addCleanup(sys.modules.__setitem__, name, module)
        sys.modules[name] = None  # type: ignore[assignment]

    def test_fires_once(self) -> None:
        """The stop is over when the export is, and late answers do no harm."""

        class Threads(Clock):
            def callFromThread(self, call: Any, *arguments: Any) -> None:
                calls.append(call)
                called.set()

        calls: list[Any] = []
        ended, called = threading.Event(), threading.Event()
        self.patch(export, "_exporters", lambda environment: [])
        clock: Any = Threads()
        sending = Export(clock, {})
        self.patch(sending.provider, "shutdown", ended.wait)
        sending.start()
        stopped: Deferred[None] = sending.stop()
        self.assertNoResult(stopped)
        clock.advance(export.STOP_SECONDS)
        self.successResultOf(stopped)
        ended.set()
        self.assertTrue(called.wait(60))
        calls[0]()
        self.assertEqual(clock.getDelayedCalls(), [])
