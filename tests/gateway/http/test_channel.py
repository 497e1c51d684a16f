"""The HTTP channel: limits, timeouts, back-pressure, hang-ups, and malformed input."""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPullProducer
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from gateway.dialect.errors import PROBLEMS
from gateway.http.factory import QUIET_SECONDS
from gateway.http.request import Request
from gateway.http.response import REASONS, BodySink, Response, json_response
from gateway.http.routing import endpoint, mount
from gateway.interfaces import IGatewayPlugin
from gateway.limits import Limits
from gateway.plugins.metrics import Metrics
from tests.gateway.support import Answer, HalfClosing, Site, in_every_split, raw_request, read_reply

DOCUMENT = "/v1/buckets/b/documents/k"


class Stalling:
    """A body that a test produces."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.sink: BodySink | None = None

    def start(self, sink: BodySink) -> None:
        self.sink = sink

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def cancel(self) -> None:
        self.told.append("cancel")


class Reader:
    """Collects a streamed body."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.told: list[str] = []

    def body_received(self, data: bytes) -> None:
        self.parts.append(data)

    def body_finished(self) -> None:
        self.told.append("finished")

    def body_lost(self) -> None:
        self.told.append("lost")


@implementer(IPullProducer)
class Pulled:
    """Has nothing to write until the last request for data."""

    def __init__(self, request: Any, times: int) -> None:
        self.request = request
        self.times = times
        self.asked = 0
        self.done: Deferred[None] = Deferred()

    def resumeProducing(self) -> None:
        self.asked += 1
        if self.asked == self.times:
            self.request.write(b"late")
            self.request.unregisterProducer()
            self.done.callback(None)

    def stopProducing(self) -> None:
        """Nothing is to be stopped."""


@implementer(IGatewayPlugin)
class TestPlugin:
    """Routes of every kind."""

    name = "test"

    def __init__(self) -> None:
        self.producer = Stalling()
        self.reader = Reader()
        self.stream: Any = None
        self.begun: Deferred[Response] | None = None
        self.operations: list[tuple[str, str, int]] = []
        self.ended: list[tuple[str, bytes, int, str]] = []

    def attach(self, gateway: Any) -> None:
        self.gateway = gateway

    def routes(self, app: Klein) -> None:
        mount(app, self, self.gateway.run_under_klein)

        @app.route("/plain/<int:number>")
        def plain(request: Any, number: int) -> bytes:
            request.setHeader(b"X-Plain", b"yes")
            return b"number %d" % (100 // number)

        @app.route("/waiting/<int:number>")
        def waiting(request: Any, number: int) -> Deferred[bytes]:
            return Deferred(lambda _: setattr(self, "cancelled", True))

        @app.route("/begun/<int:number>")
        def begun(request: Any, number: int) -> Deferred[bytes]:
            request.write(b"begun")
            return Deferred()

        @app.route("/pulled/<int:number>")
        def pulled(request: Any, number: int) -> Deferred[None]:
            self.pulled = Pulled(request, number)
            request.registerProducer(self.pulled, False)
            return self.pulled.done

    def on_request(self, request: Request) -> Response | None:
        if request.header_values(b"X-Short-Cut"):
            return json_response("short cut")
        return None

    def on_response(self, request: Request, response: Response, seconds: float) -> None:
        response.headers = [*response.headers, (b"X-Seen", b"%d" % response.status)]

    def on_end(self, request: Request, status: int, seconds: float) -> None:
        self.ended.append((request.method, request.path, status, request.cut))

    def on_operation(self, operation: str, outcome: str, count: int) -> None:
        self.operations.append((operation, outcome, count))

    @endpoint("produce", "GET", "/produce")
    def produce(self, request: Request) -> Response:
        return Response(200, [(b"Content-Type", b"text/plain")], self.producer)

    @endpoint("take", "POST", "/take", streamed=True)
    def take(self, request: Request) -> Deferred[Response]:
        self.stream = request.stream
        self.begun = Deferred()
        return self.begun

    @endpoint("injection", "GET", "/injection")
    def injection(self, request: Request) -> Response:
        return Response(200, [(b"X-Evil", b"a\r\nSet-Cookie: b")])

    @endpoint("injection_while_producing", "GET", "/injection/produced")
    def injection_while_producing(self, request: Request) -> Response:
        return Response(200, [(b"X-Evil", b"a\r\nSet-Cookie: b")], self.producer)

    @endpoint("returns", "GET", "/returns/<what>")
    def returns(self, request: Request) -> Any:
        class Special(Response):
            """A plugin's own code."""

        made = {b"none": None, b"text": "text", b"special": Special(200, [], b"special")}
        what = request.parameters["what"]
        return succeed(made[what[6:]]) if what.startswith(b"later-") else made[what]

    @endpoint("empty", "GET", "/empty")
    def empty(self, request: Request) -> Response:
        return Response(204, [], self.producer)

    @endpoint("converted", "POST", "/converted/<int:number>", streamed=True)
    def converted(self, request: Request) -> Deferred[Response]:
        assert request.stream is not None
        request.stream.deliver_to(self.reader)
        return succeed(json_response([request.parameters["number"].decode(), request.id != ""]))


class WebTestCase(SynchronousTestCase):
    """Has a site with a plugin."""

    def setUp(self) -> None:
        self.plugin = TestPlugin()
        self.site = Site({"get_with_expiry": Answer(b"{}")}, plugins=[self.plugin])


class ConnectionTests(WebTestCase):
    """Connections and requests on them."""

    def test_own_attributes(self) -> None:
        """A request adds no attribute to its connection: CPython would make a dictionary for it.

        Nor does the class have values for ``phase`` and ``input``: if it has a value of an enumeration,
        CPython 3.11 is slow to read that of the instance."""
        channel = self.site.client().protocol
        before = set(vars(channel))
        self.site.send(channel.transport, raw_request("GET", DOCUMENT))
        self.assertEqual(vars(channel).keys() - before, set())
        for kind in type(channel).__mro__:
            self.assertNotIn("phase", vars(kind))
            self.assertNotIn("input", vars(kind))

    def test_keep_alive_and_pipelining(self) -> None:
        """Several requests in one segment are answered in order on one connection."""
        client = self.site.client()
        self.site.send(
            client, raw_request("GET", DOCUMENT) + raw_request("GET", "/no") + raw_request("GET", "/health")
        )
        rest, statuses = client.value(), []
        while rest:
            reply, rest = read_reply(rest)
            statuses.append(reply.status)
        self.assertEqual(statuses, [200, 404, 200])
        self.assertTrue(client.connected)

    def test_byte_by_byte(self) -> None:
        """A request may arrive in any pieces."""
        client = self.site.client()
        for byte in raw_request("PUT", "/take2", b"abc"):
            self.site.send(client, bytes([byte]))
        self.assertEqual(read_reply(client.value())[0].status, 404)

    def test_cut_anywhere(self) -> None:
        """Also into two, be the first three bytes long, as the sign for "no end yet" plus four is."""
        for parts in in_every_split(raw_request("GET", "/health")):
            client = self.site.client()
            for part in parts:
                self.site.send(client, part)
            self.assertEqual(read_reply(client.value())[0].status, 200, parts)

    def test_connection_close_and_http_1_0(self) -> None:
        """If the client asks for it, the connection is closed after the answer."""
        for data in (
            raw_request("GET", DOCUMENT, headers={"Connection": "close"}),
            b"GET /health HTTP/1.0\r\n\r\n",
        ):
            client = self.site.client()
            self.site.send(client, data)
            reply = read_reply(client.value())[0]
            self.assertEqual((reply.status, reply.header("Connection")), (200, "close"))
            self.assertFalse(client.connected)

    def test_close_where_it_means_nothing(self) -> None:
        """In a trailer, or to a proxy: the next request on the connection is served as any other."""
        last = b"0\r\nConnection: close\r\n\r\n"
        chunked = (
            f"PUT {DOCUMENT} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n".encode()
            + last
        )
        self.site.answers["set"] = Answer()
        for data in (chunked, raw_request("GET", "/no", headers={"Proxy-Connection": "close"})):
            client = self.site.client()
            self.site.send(client, data + raw_request("GET", "/health"))
            rest = read_reply(client.value())[1]
            self.assertEqual(read_reply(rest)[0].status, 200)
            self.assertTrue(client.connected)

    def test_empty_lines(self) -> None:
        """Before a request they are passed over, however many, at no more cost than other bytes."""
        client = self.site.client()
        for _ in range(200):
            self.site.send(client, b"\r\n" * 2**15)
        for byte in b"\r\n\r\n" + raw_request("GET", "/health"):
            self.site.send(client, bytes([byte]))
        self.assertEqual(read_reply(client.value())[0].status, 200)

    def test_request_id_is_taken_over(self) -> None:
        """A well-formed X-Request-Id of the client is used; another is not."""
        self.assertEqual(
            self.site.request("GET", "/no", headers={"X-Request-Id": "abc-1"}).json()["requestId"], "abc-1"
        )
        self.assertNotEqual(
            self.site.request("GET", "/no", headers={"X-Request-Id": "<>"}).header("X-Request-Id"), "<>"
        )

    def test_head(self) -> None:
        """HEAD returns the length and sends no body."""
        client = self.site.client()
        self.site.send(client, raw_request("HEAD", DOCUMENT) + raw_request("HEAD", "/no"))
        reply, rest = read_reply(client.value(), "HEAD")
        self.assertEqual((reply.status, reply.header("Content-Length")), (200, "2"))
        self.assertEqual(read_reply(rest, "HEAD")[0].status, 404)
        self.assertEqual(read_reply(rest, "HEAD")[1], b"")

    def test_absolute_form(self) -> None:
        """A request target may be a whole URL."""
        self.assertEqual(self.site.request("GET", "http://host/health").status, 200)
        self.assertEqual(self.site.request("OPTIONS", "*").status, 204)

    def test_a_proxys_check(self) -> None:
        """The request of HAProxy's default health check."""
        client = self.site.client()
        self.site.send(client, b"OPTIONS / HTTP/1.0\r\n\r\n")
        self.assertEqual(read_reply(client.value())[0].status, 204)
        self.assertEqual(self.site.request("OPTIONS", "/").header("Allow"), "GET, HEAD, OPTIONS")

    def test_every_status_has_its_reason(self) -> None:
        """Status lines have the reasons of RFC 9110 and 6585, for every status that an error may have."""
        for status in {problem.status for problem in PROBLEMS.values()} | {200, 201, 204, 304}:
            self.assertIn(status, REASONS)
        self.assertEqual(
            self.site.factory.head(431)[:46], b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
        )
        self.assertEqual(self.site.factory.head(413)[:32], b"HTTP/1.1 413 Content Too Large\r\n")

    def test_client_limit(self) -> None:
        """More connections than allowed are not accepted."""
        site = Site(limits=Limits(max_clients=1))
        site.client()
        self.assertIsNone(site.factory.buildProtocol(None))

    def test_hang_up_cancels(self) -> None:
        """The handler's Deferred is cancelled when the client disconnects, and nothing is written."""
        cancelled: list[Any] = []
        site = Site({"get_with_expiry": lambda key: Deferred(cancelled.append)})
        client = site.client()
        site.send(client, raw_request("GET", DOCUMENT))
        client.loseConnection()
        self.assertEqual((len(cancelled), client.value()), (1, b""))


class ClosingTests(WebTestCase):
    """Between the decision to close and the end of the connection."""

    def closing(self, data: bytes) -> Any:
        client = self.site.client()
        client.closes_at_once = False
        self.site.send(client, data)
        self.assertTrue(client.disconnecting)
        client.clear()
        return client

    def test_nothing_is_served(self) -> None:
        """Bytes after a refused request, or after the last one, are not parsed."""
        for data in (b"nonsense\r\n\r\n", raw_request("GET", "/health", headers={"Connection": "close"})):
            client = self.closing(data)
            self.site.send(client, raw_request("GET", DOCUMENT))
            self.site.send(client, raw_request("GET", DOCUMENT) * 2)
            self.assertEqual((client.value(), self.site.calls), (b"", []))

    def test_nothing_is_kept(self) -> None:
        """An answer that was cut leaves its request running; bytes after it are not kept."""
        client = self.site.client()
        client.closes_at_once = False
        self.site.send(client, raw_request("GET", "/produce"))
        assert self.plugin.producer.sink is not None
        self.plugin.producer.sink.abort()
        for _ in range(10):
            self.site.send(client, b"x" * 65536)
        self.assertEqual(client.protocol._unread, b"")


class MalformedTests(WebTestCase):
    """Malformed HTTP."""

    def test_answers(self) -> None:
        """Each gets a JSON error with a request id, and a closed connection."""
        for data in (
            b"nonsense\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"PUT " + DOCUMENT.encode() + b" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        ):
            client = self.site.client()
            self.site.send(client, data)
            reply, rest = read_reply(client.value())
            self.assertEqual((reply.status, reply.json()["code"]), (400, "InvalidArgument"), data)
            self.assertEqual(reply.json()["requestId"], reply.header("X-Request-Id"))
            self.assertFalse(client.connected)
            self.assertEqual(rest, b"")

    def test_targets(self) -> None:
        """Invalid escapes, control bytes and bytes that are not UTF-8 in a path are named."""
        for path in (
            b"/v1/buckets/b/documents/%zz",
            b"/v1/buckets/b/documents/a\x00b",
            b"/v1/buckets/b/documents/%ff",
        ):
            reply = self.site.request("GET", path)
            self.assertEqual((reply.status, reply.json()["code"]), (400, "InvalidArgument"), path)

    def test_header_injection(self) -> None:
        """A header value of ours with a line end is not sent: it is a bug, and ends the connection."""
        client = self.site.client()
        self.site.send(client, raw_request("GET", "/injection"))
        self.assertEqual((client.value(), client.aborted), (b"", True))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_header_injection_while_producing(self) -> None:
        """The body of such an answer is abandoned."""
        client = self.site.client()
        self.site.send(client, raw_request("GET", "/injection/produced"))
        self.assertEqual((client.value(), client.aborted), (b"", True))
        self.assertEqual(self.plugin.producer.told, ["cancel"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_no_response(self) -> None:
        """A handler that returns something else is a bug, which is logged; a subclass of Response is
        accepted."""
        for what, status in (("none", 500), ("text", 500), ("special", 200)):
            for when in ("", "later-"):
                self.assertEqual(self.site.request("GET", f"/returns/{when}{what}").status, status, what)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 4)
        self.assertEqual(self.site.gateway.under_way, 0)


class BodyTests(WebTestCase):
    """Limits of bodies."""

    def test_too_large_is_told_before_it_is_read(self) -> None:
        """By Content-Length alone; the client gets no 100 (Continue)."""
        client = HalfClosing()
        self.site.client(client)
        head = (
            f"PUT {DOCUMENT} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {10**12}\r\n\r\n"
        )
        self.site.send(client, head.encode())
        reply, rest = read_reply(client.value())
        self.assertEqual((reply.status, reply.header("Connection"), rest), (413, "close", b""))
        self.assertEqual((client.connected, client.half_closed), (True, True))

    def test_too_large_chunked(self) -> None:
        """Counted as it arrives."""
        site = Site(limits=Limits(max_body=10))
        client = site.client()
        site.send(
            client, f"PUT {DOCUMENT} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        site.send(client, b"8\r\n12345678\r\n")
        self.assertEqual(client.value(), b"")
        site.send(client, b"8\r\n12345678\r\n")
        self.assertEqual(read_reply(client.value())[0].status, 413)

    def test_little_is_drained(self) -> None:
        """After a small refused body the connection can be used again."""
        site = Site(limits=Limits(max_body=10))
        client = site.client()
        site.send(client, raw_request("PUT", DOCUMENT, b"x" * 1000) + raw_request("GET", "/health"))
        reply, rest = read_reply(client.value())
        self.assertEqual((reply.status, read_reply(rest)[0].status), (413, 200))

    def test_too_long_extensions_and_trailers(self) -> None:
        """Refused in whatever pieces they come, and also if bytes of the body are strewn in."""
        site = Site({"set": Answer()}, limits=Limits(max_headers=2048))
        head = f"PUT {DOCUMENT} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        for body in (
            b"1;" + b"e" * 3000 + b"\r\nx\r\n0\r\n\r\n",
            b"1\r\nx\r\n0\r\nT: " + b"e" * 3000 + b"\r\n\r\n",
            b"1\r\nx\r\n0\r\n" + b"T: e\r\n" * 700 + b"\r\n",
            (b"1;" + b"e" * 150 + b"\r\nx\r\n") * 20 + b"0\r\n\r\n",
        ):
            for size in (len(body), 500, 1):
                client = site.client()
                site.send(client, head)
                for start in range(0, len(body), size):
                    site.send(client, body[start : start + size])
                reply = read_reply(client.value())[0]
                self.assertEqual((reply.status, reply.json()["code"]), (431, "HeadersTooLarge"), (body, size))
                self.assertEqual(site.calls, [])

    def test_small_chunks(self) -> None:
        """A body may come in chunks of one byte each, and may consist of ends of messages."""
        site = Site({"set": Answer()})
        head = f"PUT {DOCUMENT} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        for body, chunk in ((b"x" * 10000, 1), (b"\r\n" * 40000, 80000), (b"0\r\n\r\n" * 200, 7)):
            chunks = [body[start : start + chunk] for start in range(0, len(body), chunk)]
            coded = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks) + b"0\r\n\r\n"
            for size in (len(coded), 1000, 3):
                client = site.client()
                site.send(client, head)
                for start in range(0, len(coded), size):
                    site.send(client, coded[start : start + size])
                self.assertEqual(read_reply(client.value())[0].status, 200)
                self.assertEqual(site.calls[-1][1][1], body)

    def test_exactly_the_limit(self) -> None:
        """A body of exactly the limit is taken, by either coding."""
        site = Site({"set": Answer()}, limits=Limits(max_body=4))
        self.assertEqual(site.request("PUT", DOCUMENT, b"1234").status, 200)
        chunked = (
            f"PUT {DOCUMENT} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n0\r\n\r\n"
        )
        client = site.client()
        site.send(client, chunked.encode())
        self.assertEqual(read_reply(client.value())[0].status, 200)
        self.assertEqual([call[1][1] for call in site.calls], [b"1234", b"1234"])

    def test_room_is_given_back(self) -> None:
        """Buffered bodies count while they are held, and no longer; also after a disconnect."""
        site = Site({"set": Answer()}, limits=Limits(max_buffered=10))
        first = site.client()
        site.send(first, raw_request("PUT", DOCUMENT, b"x" * 8)[:-2])
        self.assertEqual(site.request("PUT", DOCUMENT, b"y" * 8).status, 503)
        first.loseConnection()
        self.assertEqual(site.request("PUT", DOCUMENT, b"y" * 8).status, 200)
        self.assertEqual(site.gateway.budget.used, 0)

    def test_refused_route_does_not_wait_for_its_body(self) -> None:
        """A 404 is sent before the body came."""
        client = self.site.client()
        self.site.send(client, b"POST /no HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
        self.assertEqual(read_reply(client.value())[0].status, 404)

    def test_100_continue(self) -> None:
        """A body that is wanted is requested."""
        client = self.site.client()
        head = f"PUT {DOCUMENT} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        self.site.send(client, head.encode())
        self.assertEqual(client.value(), b"HTTP/1.1 100 Continue\r\n\r\n")

    def test_100_continue_is_for_http_1_1(self) -> None:
        """A client of HTTP/1.0 cannot mean it."""
        client = self.site.client()
        self.site.send(
            client, f"PUT {DOCUMENT} HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n".encode()
        )
        self.assertEqual(client.value(), b"")

    def test_refused_without_100_continue(self) -> None:
        """The connection ends: the next bytes may be the body, which must not be taken for a request."""
        site = Site(limits=Limits(max_body=2))
        headers = "Host: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        for path, status in (("/no", 404), (DOCUMENT, 413)):
            client = site.client()
            site.send(client, f"PUT {path} HTTP/1.1\r\n{headers}".encode())
            reply, rest = read_reply(client.value())
            self.assertEqual((reply.status, reply.header("Connection"), rest), (status, "close", b""))
            client.clear()
            site.send(client, raw_request("GET", "/health"))
            self.assertEqual((client.value(), client.connected), (b"", False))


class StreamTests(WebTestCase):
    """Bodies handed over as they arrive, and bodies produced."""

    def begin(self) -> Any:
        client = self.site.client()
        self.site.send(
            client, b"POST /take HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        return client

    def test_parts_arrive_as_sent(self) -> None:
        """Also those that came before the reader; the end is reported once."""
        client = self.begin()
        self.plugin.stream.deliver_to(self.plugin.reader)
        self.site.send(client, b"2\r\nde\r\n")
        self.assertEqual(self.plugin.reader.parts, [b"abc", b"de"])
        self.site.send(client, b"0\r\n\r\n")
        self.assertEqual(self.plugin.reader.told, ["finished"])

    def test_early_parts_are_bounded(self) -> None:
        """Without a reader the client is held back; it continues when there is one."""
        client = self.begin()
        self.site.send(client, b"20000\r\n" + b"x" * 0x20000 + b"\r\n")
        self.assertEqual(client.producerState, "paused")
        self.plugin.stream.deliver_to(self.plugin.reader)
        self.assertEqual(client.producerState, "producing")

    def test_pause_while_early_parts_are_delivered(self) -> None:
        """A reader that has enough of what came before it is not given more."""
        client = self.begin()
        self.site.send(client, b"20000\r\n" + b"x" * 0x20000 + b"\r\n")
        reader = self.plugin.reader
        reader.body_received = lambda data: self.plugin.stream.pause()  # type: ignore[method-assign]
        self.plugin.stream.deliver_to(reader)
        self.assertEqual(client.producerState, "paused")
        self.plugin.stream.resume()
        self.assertEqual(client.producerState, "producing")

    def test_pause_survives_an_emptied_send_buffer(self) -> None:
        """An event that resumes writing must not resume a paused body."""
        client = self.begin()
        self.plugin.stream.deliver_to(self.plugin.reader)
        self.plugin.stream.pause()
        client.protocol.pauseProducing()
        client.protocol.resumeProducing()
        self.assertEqual(client.producerState, "paused")
        self.plugin.stream.resume()
        self.assertEqual(client.producerState, "producing")

    def test_paused_body_has_no_deadline(self) -> None:
        """A client that we hold back is not too slow."""
        client = self.begin()
        self.plugin.stream.deliver_to(self.plugin.reader)
        self.plugin.stream.pause()
        self.site.clock.pump([10] * 100)
        self.assertTrue(client.connected)
        self.plugin.stream.resume()
        self.site.clock.pump([10] * 20)
        self.assertFalse(client.connected)
        self.assertEqual(self.plugin.reader.told, ["lost"])

    def test_hang_up(self) -> None:
        """The reader is notified."""
        client = self.begin()
        self.plugin.stream.deliver_to(self.plugin.reader)
        client.loseConnection()
        self.assertEqual(self.plugin.reader.told, ["lost"])

    def test_answer_before_the_end(self) -> None:
        """An answer may be complete before the body; the connection can be used after it."""
        client = self.begin()
        self.plugin.stream.deliver_to(self.plugin.reader)
        assert self.plugin.begun is not None
        self.plugin.begun.callback(Response(200, [], b"early"))
        self.assertEqual(read_reply(client.value())[0].body, b"early")
        client.clear()
        self.site.send(client, b"2\r\nde\r\n0\r\n\r\n" + raw_request("GET", "/health"))
        self.assertEqual(read_reply(client.value())[0].status, 200)

    def test_produced_body(self) -> None:
        """Chunked, with pause and resume passed on, and the connection kept."""
        client = self.site.client()
        self.site.send(client, raw_request("GET", "/produce"))
        sink = self.plugin.producer.sink
        assert sink is not None
        sink.write(b"one")
        client.protocol.pauseProducing()
        client.protocol.resumeProducing()
        sink.write(b"two")
        sink.finish()
        self.assertEqual(self.plugin.producer.told, ["pause", "resume"])
        self.assertEqual(read_reply(client.value())[0].body, b"onetwo")
        self.assertTrue(client.connected)

    def test_produced_body_for_http_1_0(self) -> None:
        """Ended by closing the connection."""
        client = self.site.client()
        self.site.send(client, b"GET /produce HTTP/1.0\r\n\r\n")
        assert self.plugin.producer.sink is not None
        self.plugin.producer.sink.write(b"one")
        self.plugin.producer.sink.finish()
        self.assertTrue(client.value().endswith(b"\r\n\r\none"))
        self.assertFalse(client.connected)

    def test_produced_body_cut(self) -> None:
        """A body that cannot be completed ends without its last chunk."""
        client = self.site.client()
        self.site.send(client, raw_request("GET", "/produce"))
        assert self.plugin.producer.sink is not None
        self.plugin.producer.sink.abort()
        self.assertEqual((client.protocol, client.aborted), (None, False))
        self.assertNotIn(b"\r\n0\r\n", client.value())

    def test_produced_body_of_an_answer_without_one(self) -> None:
        """A 204 announces no body, and what would have made it is cancelled."""
        client = self.site.client()
        self.site.send(client, raw_request("GET", "/empty") + raw_request("GET", "/health"))
        reply, rest = read_reply(client.value())
        self.assertEqual((reply.status, reply.header("Transfer-Encoding")), (204, None))
        self.assertEqual((self.plugin.producer.told, read_reply(rest)[0].status), (["cancel"], 200))

    def test_produced_body_hang_up_and_head(self) -> None:
        """Cancelled when the client leaves, and when only the head is wanted."""
        client = self.site.client()
        self.site.send(client, raw_request("GET", "/produce"))
        client.loseConnection()
        self.site.request("HEAD", "/produce")
        self.assertEqual(self.plugin.producer.told, ["cancel", "cancel"])

    def test_stalled_client_is_dropped(self) -> None:
        """A client that does not read its answer for a minute is disconnected."""
        client = self.site.client()
        self.site.send(client, raw_request("GET", "/produce"))
        client.protocol.pauseProducing()
        self.site.clock.pump([1] * 62)
        self.assertTrue(client.aborted)


class TimeoutTests(WebTestCase):
    """Deadlines of the wire."""

    def test_slow_headers(self) -> None:
        """A header that trickles in does not push its deadline back."""
        client = self.site.client()
        for _ in range(12):
            self.site.send(client, b"GET / HTTP/1.1\r\n"[:1])
            self.site.clock.advance(1)
        self.assertEqual(read_reply(client.value())[0].status, 408)
        self.assertFalse(client.connected)

    def test_slow_body(self) -> None:
        """Neither does a body."""
        client = self.site.client()
        self.site.send(client, f"PUT {DOCUMENT} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n".encode())
        for _ in range(125):
            self.site.send(client, b"x")
            self.site.clock.advance(1)
        self.assertEqual(read_reply(client.value())[0].status, 408)

    def test_end_that_fails(self) -> None:
        """A failure at the end of one connection does not affect the end of another."""
        client, other = self.site.client(), self.site.client()
        for one in (client, other):
            self.site.send(one, b"POST /take HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n")
            self.plugin.begun._canceller = lambda _: 1 // 0  # type: ignore[union-attr]
        self.site.clock.pump([1] * 125)
        self.assertEqual((client.connected, other.connected), (False, False))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_idle(self) -> None:
        """An idle connection is closed silently; one with a running request is not."""
        site = Site({"get_with_expiry": lambda key: Deferred()})
        idle, busy = site.client(), site.client()
        site.send(idle, raw_request("GET", "/health"))
        site.send(busy, raw_request("GET", DOCUMENT))
        idle.clear()
        site.clock.pump([1] * 62)
        self.assertEqual((idle.connected, idle.value(), busy.connected), (False, b"", True))


class StopTests(WebTestCase):
    """A graceful end."""

    def test_requests_under_way_finish(self) -> None:
        """Idle connections close, the others after their answer."""
        waiting: Deferred[Any] = Deferred()
        site = Site({"get_with_expiry": lambda key: waiting})
        idle, busy = site.client(), site.client()
        site.send(busy, raw_request("GET", DOCUMENT))
        stopped = site.factory.stop()
        site.clock.advance(QUIET_SECONDS)
        self.assertEqual((idle.connected, busy.connected), (False, True))
        self.assertNoResult(stopped)
        waiting.callback(Answer(b"{}"))
        self.assertEqual(read_reply(busy.value())[0].header("Connection"), "close")
        self.successResultOf(stopped)
        self.assertIsNone(site.factory.buildProtocol(None))
        self.assertEqual(site.clock.getDelayedCalls(), [])

    def test_grace_ends(self) -> None:
        """Requests that do not finish in time are cut off."""
        site = Site({"get_with_expiry": lambda key: Deferred()})
        busy = site.client()
        site.send(busy, raw_request("GET", DOCUMENT))
        stopped = site.factory.stop()
        site.clock.advance(11)
        self.successResultOf(stopped)
        self.assertTrue(busy.aborted)


class KleinTests(WebTestCase):
    """Routes that only Klein understands."""

    def test_plain_klein_handler(self) -> None:
        """A plugin may use Klein as anywhere else, converters included."""
        reply = self.site.request("GET", "/plain/2")
        self.assertEqual((reply.status, reply.body, reply.header("X-Plain")), (200, b"number 50", "yes"))
        self.assertEqual(self.site.request("GET", "/plain/x").json()["code"], "RouteNotFound")

    def test_plain_klein_handler_that_fails(self) -> None:
        """Its failure is a 500 like any other: JSON, an id, no traceback; the connection can be used
        again."""
        client = self.site.client()
        self.site.send(client, raw_request("GET", "/plain/0") + raw_request("GET", "/health"))
        reply, rest = read_reply(client.value())
        self.assertEqual((reply.status, reply.json()["code"]), (500, "Internal"))
        reply, rest = read_reply(rest)
        self.assertEqual((reply.status, reply.header("Content-Type")), (200, "application/json"))
        self.assertEqual(rest, b"", "a request has one answer")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_plugins_see_klein_handlers(self) -> None:
        """Their requests can be answered before them, their answers changed; they are counted, once."""
        reply = self.site.request("GET", "/plain/2", headers={"X-Short-Cut": "1"})
        self.assertEqual(reply.json(), "short cut")
        for path, seen in (("/plain/2", "200"), ("/plain/0", "500")):
            reply = self.site.request("GET", path)
            self.assertEqual(reply.headers["x-seen"], [seen])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.site.gateway.under_way, 0)

    def test_hang_up_before_klein_answers(self) -> None:
        """The request is no longer running."""
        client = self.site.client()
        self.site.send(client, raw_request("GET", "/waiting/1"))
        self.assertEqual(self.site.gateway.under_way, 1)
        client.loseConnection()
        self.assertEqual(self.site.gateway.under_way, 0)
        self.assertTrue(self.plugin.cancelled)

    def test_hang_up_while_klein_answers(self) -> None:
        """A request that was counted when its answer began is not counted again."""
        client = self.site.client()
        self.site.send(client, raw_request("GET", "/begun/1"))
        self.assertEqual(self.site.gateway.under_way, 0)
        client.loseConnection()
        self.assertEqual(self.site.gateway.under_way, 0)

    def test_pull_producer(self) -> None:
        """It is asked once a turn, though it may have nothing yet, and not while the client reads slowly."""
        client = self.site.client()
        client.protocol.dataReceived(raw_request("GET", "/pulled/3"))
        producer = self.plugin.pulled
        self.assertEqual(producer.asked, 1)
        client.protocol.pauseProducing()
        self.site.clock.pump([0] * 3)
        self.assertEqual(producer.asked, 1)
        client.protocol.resumeProducing()
        self.assertEqual(producer.asked, 2)
        self.site.clock.advance(0)
        self.assertEqual(producer.asked, 3)
        self.assertEqual(read_reply(client.value())[0].body, b"late")
        self.assertEqual(self.site.gateway.under_way, 0)

    def test_endpoint_under_a_converter(self) -> None:
        """The gateway's own kind of handler works there too, body and all; it is counted once."""
        reply = self.site.request("POST", "/converted/5", b"body")
        self.assertEqual(reply.json(), ["5", True])
        self.assertEqual(reply.headers["x-seen"], ["200"])
        self.assertEqual(self.site.gateway.under_way, 0)
        self.assertEqual((self.plugin.reader.parts, self.plugin.reader.told), ([b"body"], ["finished"]))

    def test_keys_with_slashes(self) -> None:
        """An encoded slash is part of the key, never a separator."""
        self.site.request("GET", "/v1/buckets/b/documents/a%2Fappend%25")
        self.assertEqual(self.site.calls[-1][1], (b"a/append%",))
        self.assertEqual(self.site.request("GET", "/v1/buckets/b/documents/a/b").status, 404)


class PluginTests(WebTestCase):
    """Hooks."""

    def test_interface(self) -> None:
        """Plugins offer what the interface says."""
        verifyObject(IGatewayPlugin, self.plugin)

    def test_hooks(self) -> None:
        """A request can be answered, an answer changed, an operation counted."""
        self.assertEqual(self.site.request("GET", DOCUMENT, headers={"X-Short-Cut": "1"}).json(), "short cut")
        self.assertEqual(self.site.request("GET", "/no").header("X-Seen"), "404")
        self.site.request("GET", DOCUMENT)
        self.assertEqual(self.plugin.operations, [("get", "ok", 1)])

    def test_failing_hooks(self) -> None:
        """A hook that fails during an answer is logged; the answer is sent nevertheless."""
        waiting: list[Deferred[Any]] = []

        def read(key: bytes) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        def fail(*args: object) -> None:
            raise LookupError

        plugin = TestPlugin()
        plugin.on_operation = plugin.on_response = fail  # type: ignore[method-assign,assignment]
        site = Site({"get_with_expiry": read}, plugins=[plugin])
        for outcome, status in ((Answer(b"{}"), 200), (Failure(ZeroDivisionError()), 500)):
            client = site.client()
            site.send(client, raw_request("GET", DOCUMENT))
            waiting.pop().callback(outcome)
            self.assertEqual(read_reply(client.value())[0].status, status)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 4)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(site.gateway.under_way, 0)

    def test_metrics(self) -> None:
        """Requests by route, method and status; operations by outcome; connections."""
        site = Site({"get_with_expiry": Answer(b"{}")}, plugins=[Metrics()])
        client = site.client()
        site.send(client, raw_request("GET", DOCUMENT) * 3 + raw_request("BREW", "/pot"))
        text = site.request("GET", "/metrics").body.decode()
        for line in (
            'couchgateway_requests_total{method="GET",route="get_document",status="200"} 3.0',
            'couchgateway_requests_total{method="other",route="none",status="404"} 1.0',
            'couchgateway_operations_total{operation="get",outcome="ok"} 3.0',
            'couchgateway_request_seconds_count{route="get_document"} 3.0',
            "couchgateway_client_connections 2.0",
            "couchgateway_cluster_connections 1.0",
        ):
            self.assertIn(line, text)
