"""Spans of requests and operations, as the library's exporter receives them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import NoOpTracer, SpanKind, StatusCode
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from gateway.clients.proxies import TrustedProxies
from gateway.http.tracecontext import forwarded, trace_of
from gateway.plugins.metrics import Metrics
from gateway.resources.documents import Documents
from gateway.tracing.record import MOST_COUNTS, Record
from gateway.tracing.spans import Tracing
from tests import tries
from tests.gateway.support import NOW, Answer, Site, basic, error, passthrough, raw_request

DOCUMENT = "/v1/buckets/b/documents/k"
COLLECTED = "/v1/buckets/b/scopes/s/collections/c/documents/k"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Traces:
    """A gateway in memory whose spans are kept.

    :param answers: those of the cluster.
    """

    def __init__(
        self, answers: dict[str, Any] | None = None, sampler: Sampler = ALWAYS_ON, **options: Any
    ) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        tracing = Tracing(provider.get_tracer("t"), TrustedProxies())
        answers = {"get_with_expiry": Answer(b"{}"), "set": Answer(), **(answers or {})}
        self.site = Site(answers, plugins=[Metrics(), tracing], **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, the request's last."""
        return list(self.exporter.get_finished_spans())

    def one(self, method: str, path: str, body: bytes = b"", headers: Any = None) -> list[ReadableSpan]:
        """Return the spans of a request."""
        self.exporter.clear()
        self.site.request(method, path, body, headers)
        return self.spans


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    """Return a span's attributes."""
    return dict(span.attributes or {})


class RequestTests(SynchronousTestCase):
    """The span of a request."""

    def test_attributes(self) -> None:
        """They are those of the conventions for HTTP servers."""
        traces = Traces()
        headers = {"User-Agent": "curl/8", "X-Request-Id": "id-1"}
        request = traces.one("GET", DOCUMENT + "?project=a", headers=headers)[-1]
        self.assertEqual((request.name, request.kind), ("GET " + ROUTE, SpanKind.SERVER))
        self.assertEqual(
            attributes_of(request),
            {
                "http.request.method": "GET",
                "http.route": ROUTE,
                "http.response.status_code": 200,
                "http.request.body.size": 0,
                "http.response.body.size": 4,
                "url.path": DOCUMENT,
                "url.query": "project=a",
                "url.scheme": "http",
                "server.address": "localhost",
                "client.address": "192.168.1.1",
                "network.protocol.version": "1.1",
                "user_agent.original": "curl/8",
                "couchgateway.request_id": "id-1",
            },
        )
        self.assertEqual(request.status.status_code, StatusCode.UNSET)

    def test_secrets_in_the_query(self) -> None:
        """They are not in the span."""
        request = Traces().one("GET", DOCUMENT + "?access_token=s3cret")[-1]
        self.assertEqual(attributes_of(request)["url.query"], "access_token=-")

    def test_times(self) -> None:
        """It begins with the headers, and ends with the answer; its operation lies in between."""
        waiting: Deferred[Any] = Deferred()
        traces = Traces({"get_with_expiry": lambda *_: waiting})
        client = traces.site.client()
        traces.site.send(client, raw_request("GET", DOCUMENT))
        traces.site.clock.advance(2)
        waiting.callback(Answer(b"{}"))
        traces.site.clock.advance(0)
        operation, request = traces.spans
        for span in (operation, request):
            assert span.start_time is not None and span.end_time is not None
            # The system's clock stands still in these tests, and does not count.
            self.assertEqual(span.start_time, int(NOW * 1e9))
            self.assertEqual((span.end_time - span.start_time) / 1e9, 2)

    def test_routes(self) -> None:
        """Names have the route, which is one of few, never a path that a client made up."""
        traces = Traces({"get_with_expiry": Answer(b"{}")})
        for method, path, name in (
            ("GET", DOCUMENT, f"GET {ROUTE}"),
            ("HEAD", DOCUMENT, f"HEAD {ROUTE}"),
            ("GET", COLLECTED, f"GET {IN_COLLECTION}"),
            ("GET", "/v1.alpha/buckets/b/documents/k", "GET " + ROUTE.replace("v1", "v1.alpha")),
            ("GET", "/health", "GET /health"),
            ("GET", "/made/up", "GET"),
            ("BREW", "/made/up", "HTTP"),
        ):  # fmt: skip
            request = traces.one(method, path)[-1]
            self.assertEqual(request.name, name)
        self.assertEqual(attributes_of(request)["http.request.method"], "_OTHER")
        self.assertEqual(attributes_of(request)["http.request.method_original"], "BREW")

    def test_failures(self) -> None:
        """Only the gateway's own failures make a span an error; every code is shown."""
        for answer, code, is_error in (
            (error(0x0D), 404, False),
            (error(0x17), 504, True),
            (ValueError("a bug"), 500, True),
        ):
            traces = Traces({"get_with_expiry": answer})
            request = traces.one("GET", DOCUMENT)[-1]
            shown = attributes_of(request)
            self.assertEqual(shown["http.response.status_code"], code, shown)
            self.assertEqual("error.type" in shown, is_error)
            self.assertEqual(request.status.status_code is StatusCode.ERROR, is_error)
            self.assertTrue(shown["couchgateway.error"])
        self.flushLoggedErrors(ValueError)

    def test_client_left(self) -> None:
        """A client that leaves gets no status, and is no error of the gateway."""
        traces = Traces({"get_with_expiry": lambda *_: Deferred()})
        client = traces.site.client()
        traces.site.send(client, raw_request("GET", DOCUMENT))
        client.loseConnection()
        request = traces.spans[-1]
        shown = attributes_of(request)
        self.assertNotIn("http.response.status_code", shown)
        self.assertEqual((shown["couchgateway.cut"], shown["error.type"]), ("client", "RequestCanceled"))
        self.assertEqual(request.status.status_code, StatusCode.UNSET)

    def test_no_request(self) -> None:
        """Input that is no request has a span, too."""
        traces = Traces()
        traces.site.send(traces.site.client(), b"nonsense\r\n\r\n")
        (request,) = traces.spans
        self.assertEqual((request.name, attributes_of(request)["http.response.status_code"]), ("HTTP", 400))

    def test_no_secrets(self) -> None:
        """Neither credentials nor documents are in spans."""
        traces = Traces(authorizer=passthrough())
        spans = traces.one("PUT", DOCUMENT, b'"confidential"', {**basic("jane", "hunter2"), **JSON})
        self.assertEqual(len(spans), 2)
        text = json.dumps([span.to_json() for span in spans])
        for secret in ("hunter2", basic("jane", "hunter2")["Authorization"][6:], "confidential"):
            self.assertNotIn(secret, text)

    @settings(max_examples=tries(30))
    @given(st.binary(max_size=30), st.binary(max_size=30))
    def test_any_bytes(self, path: bytes, agent: bytes) -> None:
        """Whatever a client sends, it is traced and answered."""
        traces = TRACES
        traces.exporter.clear()
        data = b"GET /" + path + b" HTTP/1.1\r\nHost: " + path + b"\r\nUser-Agent: " + agent + b"\r\n\r\n"
        client = traces.site.client()
        traces.site.send(client, data)
        if b"HTTP/1.1 " in client.value():
            self.assertGreater(len(traces.spans), 0)


ROUTE = "/v1/buckets/{bucket}/documents/{key}"
IN_COLLECTION = "/v1/buckets/{bucket}/scopes/{scope}/collections/{collection}/documents/{key}"
JSON = {"Content-Type": "application/json"}


class OperationTests(SynchronousTestCase):
    """The span of what is asked of the cluster."""

    def test_attributes(self) -> None:
        """They are those of the conventions for databases; the span belongs to that of the request."""
        operation, request = Traces().one("GET", DOCUMENT)
        self.assertEqual((operation.name, operation.kind), ("get b", SpanKind.CLIENT))
        self.assertEqual(
            attributes_of(operation),
            {"db.system.name": "couchbase", "db.operation.name": "get", "db.namespace": "b"},
        )
        assert operation.parent is not None
        self.assertEqual(operation.parent, request.context)

    def test_collections(self) -> None:
        """Scope and collection are the database's collection."""
        operation, _ = Traces().one("PUT", COLLECTED, b"1", JSON)
        self.assertEqual(operation.name, "set s.c")
        self.assertEqual(attributes_of(operation)["db.collection.name"], "s.c")

    def test_refined(self) -> None:
        """The name is that of the operation which was carried out."""
        replica = {"rget": Answer(b"{}")}
        for path, method, headers, name in (
            (DOCUMENT + "?replica=any", "GET", {}, "get_replica"),
            (DOCUMENT, "PUT", {"If-Match": '"1"', **JSON}, "replace"),
        ):
            spans = Traces({**replica, "replace": Answer()}).one(
                method, path, b"1" if "P" in method else b"", headers
            )
            self.assertEqual(attributes_of(spans[0])["db.operation.name"], name)

    def test_failures(self) -> None:
        """A failure is named; that a document is missing is no error of the database."""
        for answer, code, is_error in (
            (error(0x0D), "DocumentNotFound", False),
            (error(0x17), "DeadlineExceeded", True),
        ):
            operation, _ = Traces({"get_with_expiry": answer}).one("GET", DOCUMENT)
            self.assertEqual(attributes_of(operation)["error.type"], code)
            self.assertEqual(operation.status.status_code is StatusCode.ERROR, is_error)
        operation, _ = Traces({"connect": error(2)}, authorizer=passthrough()).one(
            "GET", DOCUMENT, headers=basic("a", "b")
        )
        self.assertEqual((operation.name, attributes_of(operation)["error.type"]), ("open b", "InvalidAuth"))

    def test_of_the_cluster(self) -> None:
        """Requests to the cluster's manager, without a bucket, have spans named after endpoints."""
        answer = (200, {}, b"[]")
        spans = Traces({"management_request": answer}).one("GET", "/v1/buckets")
        self.assertEqual([span.name for span in spans], ["list_buckets", "GET /v1/buckets"])
        self.assertNotIn("db.namespace", attributes_of(spans[0]))

    def test_refused_before(self) -> None:
        """A request that is refused before the cluster is asked has no such span."""
        for headers, path in (({}, DOCUMENT), ({"If-Match": "x y", **basic("a", "b")}, DOCUMENT + "?no=1")):
            spans = Traces(authorizer=passthrough()).one("GET", path, headers=headers)
            self.assertEqual([span.kind for span in spans], [SpanKind.SERVER])
        self.assertEqual(len(Traces().one("GET", "/health")), 1)

    def test_body_that_arrives_later(self) -> None:
        """The time that a body takes to arrive is not the cluster's."""
        traces = Traces()
        client = traces.site.client()
        request = raw_request("PUT", DOCUMENT, b"x" * 100_000, JSON)
        traces.site.send(client, request[:500])
        traces.site.clock.advance(3)
        traces.site.send(client, request[500:])
        operation, whole = traces.spans
        for span, seconds in ((operation, 0), (whole, 3)):
            assert span.start_time is not None and span.end_time is not None
            self.assertEqual(round((span.end_time - span.start_time) / 1e9), seconds)

    def test_batch(self) -> None:
        """A batch of any length is one span, with a count for each operation and outcome."""
        answers = {"get": error(0x0D), "touch": Answer(), "set": Answer()}
        lines = b"".join(b'{"op":"get","key":"k%d","timeout":"1s"}\n' % number for number in range(300))
        operation, request = Traces(answers).one("POST", "/v1/buckets/b/batch", lines)
        self.assertEqual(operation.name, "BATCH get b")
        self.assertEqual(attributes_of(operation)["db.operation.batch.size"], 300)
        self.assertEqual(attributes_of(operation)["couchgateway.batch.get.DocumentNotFound"], 300)
        lines += b'{"op":"touch","key":"k","ttl":1}\n{"op":"fly","key":"k"}\n'
        operation, request = Traces(answers).one("POST", "/v1/buckets/b/batch", lines)
        shown = attributes_of(operation)
        self.assertEqual((operation.name, shown["db.operation.batch.size"]), ("BATCH b", 302))
        self.assertEqual(shown["couchgateway.batch.touch.ok"], 1)
        self.assertEqual(shown["couchgateway.batch.batch.InvalidArgument"], 1)

    def test_counts_are_bounded(self) -> None:
        """However many kinds of outcomes there were."""
        record = Record(None, lambda: 0.0)
        told: list[tuple[str, str, int]] = []
        count = record.counting(lambda *counted: told.append(counted))
        for number in range(3 * MOST_COUNTS):
            count("get", f"Code{number}", 2)
        self.assertEqual(len(record.counts), MOST_COUNTS + 1)
        self.assertEqual(sum(record.counts.values()), 6 * MOST_COUNTS)
        self.assertEqual(len(told), 3 * MOST_COUNTS)


class ContextTests(SynchronousTestCase):
    """Traces that begin elsewhere, or are not sampled."""

    def test_continued(self) -> None:
        """The request's span is a child of the caller's, and the parent of what is forwarded."""
        traces = Traces()
        seen: list[dict[str, str]] = []
        self.patch(
            Documents, "_get", lambda self, connection, request, wanted: seen.append(forwarded(request))
        )
        request = traces.one("GET", DOCUMENT, headers={**SAMPLED, "tracestate": "a=1,b=2"})[-1]
        self.flushLoggedErrors(TypeError)
        assert request.context is not None and request.parent is not None
        self.assertEqual(f"{request.context.trace_id:032x}", TRACE)
        self.assertEqual(f"{request.parent.span_id:016x}", PARENT)
        self.assertTrue(request.parent.is_remote)
        self.assertEqual(request.context.trace_state.to_header(), "a=1,b=2")
        (headers,) = seen
        span = f"{request.context.span_id:016x}"
        self.assertEqual(headers, {"traceparent": f"00-{TRACE}-{span}-01", "tracestate": "a=1,b=2"})

    def test_new(self) -> None:
        """Without a valid context a trace begins here, and the log has its id."""
        for headers in ({}, {"traceparent": f"00-{TRACE}-{PARENT}-1"}):
            ids: list[str] = []
            traces = Traces()
            traces.site.gateway.end_hooks.append(
                lambda request, *_, ids=ids: ids.append(trace_of(request).trace_id)
            )
            operation, request = traces.one("GET", DOCUMENT, headers=headers)
            assert request.context is not None and operation.context is not None
            self.assertEqual((request.parent, ids), (None, [f"{request.context.trace_id:032x}"]))
            self.assertEqual(operation.context.trace_id, request.context.trace_id)
            self.assertNotEqual(ids, [TRACE])

    def test_sampling(self) -> None:
        """The caller's decision counts; without one, the sampler's; what is forwarded says which."""
        ratio = ParentBased(TraceIdRatioBased(0))
        for sampler, flags, count in (
            (ParentBased(ALWAYS_ON), "01", 2),
            (ParentBased(ALWAYS_ON), "00", 0),
            (ParentBased(ALWAYS_ON), None, 2),
            (ratio, "01", 2),
            (ratio, None, 0),
            (ALWAYS_OFF, "01", 0),
        ):
            traces = Traces(sampler=sampler)
            sent: list[str] = []
            traces.site.gateway.end_hooks.append(
                lambda request, *_, sent=sent: sent.append(forwarded(request)["traceparent"])
            )
            headers = {} if flags is None else {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}
            self.assertEqual(len(traces.one("GET", DOCUMENT, headers=headers)), count, (sampler, flags))
            self.assertEqual(sent[0][-2:], "01" if count else "00")
            self.assertEqual(TRACE in sent[0], flags is not None)

    def test_switched_off(self) -> None:
        """A library that is switched off leaves the caller's context as it is."""
        site = Site({"get_with_expiry": Answer(b"{}")}, plugins=[Tracing(NoOpTracer(), TrustedProxies())])
        sent: list[str] = []
        site.gateway.end_hooks.append(lambda request, *_: sent.append(forwarded(request)["traceparent"]))
        self.assertEqual(site.request("GET", DOCUMENT, headers=SAMPLED).status, 200)
        self.assertEqual(site.request("GET", DOCUMENT).status, 200)
        self.assertEqual(sent[0], SAMPLED["traceparent"])
        self.assertRegex(sent[1], r"\A00-[0-9a-f]{32}-[0-9a-f]{16}-00\Z")

    def test_off(self) -> None:
        """Without tracing nothing of it is in the way of a request."""
        site = Site({"get_with_expiry": Answer(b"{}")})
        self.assertEqual(site.request("GET", DOCUMENT, headers=SAMPLED).status, 200)
        for resource in site.gateway.resources:
            self.assertNotIn("connected", vars(resource))


TRACES = Traces()
