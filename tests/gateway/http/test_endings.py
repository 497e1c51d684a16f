"""Ends of requests: each request is counted once, with its actual end."""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from gateway.http import (
    Application,
    ChannelFactory,
    Request,
    Response,
    endpoint,
    json_response,
    mount,
)
from gateway.http import clientconnection as connection_module
from gateway.limits import Limits
from reactor.gate import Gate
from tests.gateway.support import Transport, raw_request, read_reply

reactor: Any = installed


class Stream:
    """A body of several parts."""

    def __init__(self) -> None:
        self.sink: Any = None

    def start(self, sink: Any) -> None:
        self.sink = sink
        sink.write(b"begun")

    def pause(self) -> None:
        """It writes when a test does."""

    def resume(self) -> None:
        """It writes when a test does."""

    def cancel(self) -> None:
        self.sink = None


class Reader:
    """Takes a streamed body."""

    def body_received(self, data: bytes) -> None:
        """Take nothing."""

    def body_finished(self) -> None:
        """Wait for nothing."""

    def body_lost(self) -> None:
        """Miss nothing."""


class Site:
    """A site with answers of every kind, and what it counts."""

    def __init__(self, clock: Any, gate: Gate | None = None, size: int = 10) -> None:
        self.ended: list[tuple[Any, ...]] = []
        self.stream = Stream()
        self.waiting: Deferred[Response] = Deferred()
        self.size = size
        self.klein: Any = None
        self.taken: Any = None
        app = Klein()
        self.application = Application(
            app,
            clock,
            limits=Limits(idle_seconds=5, body_seconds=3, header_seconds=3, max_body=1000, grace_seconds=2),
            end_hooks=[self.on_end],
        )
        mount(app, self, self.application.run_under_klein)

        @app.route("/klein/<int:number>")
        def klein(request: Any, number: int) -> Deferred[bytes]:
            self.klein = request
            request.write(b"begun")
            return Deferred(lambda _: None)

        self.application.routes_are_complete()
        self.factory = ChannelFactory(self.application, clock, gate)

    def on_end(self, request: Request, status: int, seconds: float) -> None:
        self.ended.append(
            (
                request.method,
                request.path.decode(),
                status,
                request.cut,
                request.received_bytes,
                request.sent_bytes,
                round(seconds, 3),
            )
        )

    @endpoint("short", "GET", "/short")
    def short(self, request: Request) -> Response:
        return Response(200, [], b"x" * self.size)

    @endpoint("put", "PUT", "/put")
    def put(self, request: Request) -> Response:
        return json_response(len(request.body()))

    @endpoint("wait", "GET", "/wait")
    def wait(self, request: Request) -> Deferred[Response]:
        return self.waiting

    @endpoint("stream", "GET", "/stream")
    def streams(self, request: Request) -> Response:
        return Response(200, [], self.stream)

    @endpoint("take", "POST", "/take", streamed=True)
    def take(self, request: Request) -> Response:
        assert request.stream is not None
        self.taken = request.stream
        self.taken.deliver_to(Reader())
        return Response(200, [], self.stream)


class EndingTests(SynchronousTestCase):
    """In memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.site = Site(self.clock)
        self.site.factory.startFactory()

    def client(self, data: bytes = b"") -> Transport:
        """Return a client that has sent something."""
        transport = Transport()
        transport.protocol = self.site.factory.buildProtocol(None)
        transport.protocol.makeConnection(transport)
        if data:
            transport.protocol.dataReceived(data)
        return transport

    def test_complete(self) -> None:
        """An answer whose bytes are available at once ends with its request."""
        self.client(raw_request("GET", "/short"))
        self.client(raw_request("PUT", "/put", b"12345"))
        self.assertEqual(
            self.site.ended,
            [("GET", "/short", 200, "", 0, 10, 0.0), ("PUT", "/put", 200, "", 5, 1, 0.0)],
        )

    def test_order(self) -> None:
        """Requests of a pipeline are reported in order, also if the first one takes time."""
        self.client(raw_request("GET", "/wait") + raw_request("GET", "/short"))
        self.clock.advance(1)
        self.site.waiting.callback(json_response(1))
        self.assertEqual(
            self.site.ended, [("GET", "/wait", 200, "", 0, 1, 1.0), ("GET", "/short", 200, "", 0, 10, 0.0)]
        )

    def test_head(self) -> None:
        """An answer to HEAD has no body."""
        self.client(b"HEAD /short HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(self.site.ended, [("HEAD", "/short", 200, "", 0, 0, 0.0)])

    def test_upload_broken_off(self) -> None:
        """Neither a body of known length nor chunks may vanish without a trace."""
        head = b"PUT /put HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n0123456789"
        chunked = b"PUT /put HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n"
        for data, size in ((head, 10), (chunked, 5)):
            client = self.client(data)
            self.assertEqual(self.site.ended, [])
            self.clock.advance(1)
            client.loseConnection()
            self.assertEqual(self.site.ended, [("PUT", "/put", 499, "client", size, 0, 1.0)])
            self.assertEqual(self.site.application.under_way, 0)
            self.assertEqual(self.site.application.budget.used, 0)
            self.site.ended.clear()

    def test_upload_too_slow(self) -> None:
        """A body that does not arrive in time is a 408 of its own path, once."""
        self.client(b"PUT /put HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n0123456789")
        self.clock.pump([1] * 5)
        self.assertEqual([one[:5] for one in self.site.ended], [("PUT", "/put", 408, "", 10)])
        self.assertEqual(self.site.application.under_way, 0)

    def test_broken_chunks(self) -> None:
        """A body that cannot be parsed is a 400 of its own path, once."""
        self.client(b"PUT /put HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")
        self.assertEqual([one[:4] for one in self.site.ended], [("PUT", "/put", 400, "")])

    def test_refused(self) -> None:
        """A request refused before its body has come is over with its answer; hanging up then is no cut."""
        client = self.client(b"PUT /put HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n0123456789")
        client.loseConnection()
        self.assertEqual([one[:4] for one in self.site.ended], [("PUT", "/put", 413, "")])

    def test_hang_up_before_the_answer(self) -> None:
        """A client that does not wait for the answer is counted with 499 when it disconnects."""
        client = self.client(raw_request("GET", "/wait"))
        self.clock.advance(2)
        client.loseConnection()
        self.assertEqual(self.site.ended, [("GET", "/wait", 499, "client", 0, 0, 2.0)])
        self.assertEqual(self.site.application.under_way, 0)

    def test_stream(self) -> None:
        """A produced body is over with its last part, not with its first."""
        client = self.client(raw_request("GET", "/stream"))
        self.clock.advance(3)
        self.assertEqual(self.site.ended, [])
        self.site.stream.sink.write(b"and done")
        self.site.stream.sink.finish()
        self.assertEqual(self.site.ended, [("GET", "/stream", 200, "", 0, 13, 3.0)])
        self.assertEqual(read_reply(client.value())[0].body, b"begunand done")

    def test_stream_cut_by_the_client(self) -> None:
        """Then it is a 499, with the time that it took."""
        client = self.client(raw_request("GET", "/stream"))
        self.clock.advance(3)
        client.loseConnection()
        self.assertEqual(self.site.ended, [("GET", "/stream", 499, "client", 0, 5, 3.0)])

    def test_stream_cut_by_the_gateway(self) -> None:
        """An answer that cannot be completed keeps its status, and is reported as cut."""
        self.client(raw_request("GET", "/stream"))
        self.site.stream.sink.abort()
        self.assertEqual(self.site.ended, [("GET", "/stream", 200, "gateway", 0, 5, 0.0)])

    def test_streamed_upload_cut(self) -> None:
        """A client that leaves in the middle of both bodies."""
        client = self.client(b"POST /take HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n0123456789")
        client.loseConnection()
        self.assertEqual(self.site.ended, [("POST", "/take", 499, "client", 10, 5, 0.0)])

    def test_end_of_an_upload_that_waits(self) -> None:
        """An upload whose handler had no room, and whose answer was given up, does not keep a connection: its
        client, who neither reads nor closes, has as long as any other."""
        client = self.client(b"POST /take HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n0123456789")
        client.closes_at_once = False
        self.patch(connection_module, "unsent_bytes", lambda transport: 10)
        (channel,) = self.site.factory.channels
        self.site.taken.pause()
        self.site.stream.sink.abort()
        self.clock.pump([1] * 59)
        self.assertEqual((client.aborted, self.site.factory.channels), (False, {channel}))
        self.clock.pump([1] * 3)
        self.assertEqual((client.aborted, self.site.factory.channels), (True, set()))

    def test_grace_ends(self) -> None:
        """Requests that do not finish before the stop are cut by the gateway."""
        self.client(raw_request("GET", "/stream"))
        self.site.factory.stop()
        self.clock.advance(2)
        self.assertEqual(self.site.ended, [("GET", "/stream", 200, "gateway", 0, 5, 2.0)])

    def test_klein(self) -> None:
        """An answer that a Klein handler writes itself ends when the handler finishes it, or when it is
        cut."""
        self.client(raw_request("GET", "/klein/1"))
        self.clock.advance(1)
        self.assertEqual(self.site.ended, [])
        self.site.klein.finish()
        client = self.client(raw_request("GET", "/klein/2"))
        client.loseConnection()
        self.assertEqual(
            self.site.ended,
            [("GET", "/klein/1", 200, "", 0, 5, 1.0), ("GET", "/klein/2", 499, "client", 0, 5, 0.0)],
        )

    def test_failing_hook(self) -> None:
        """A failing hook does not affect the answer, on any path."""

        def fail(*arguments: object) -> None:
            raise LookupError

        self.site.application.end_hooks.append(fail)
        for path in ("/short", "/none"):
            self.assertIn(
                b" 200 " if path == "/short" else b" 404 ", self.client(raw_request("GET", path)).value()
            )
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 2)


class Half(Protocol):
    """A client that reads nothing after the beginning of an answer."""

    def connectionMade(self) -> None:
        self.begun: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.transport.pauseProducing()  # type: ignore[union-attr]
        if not self.begun.called:
            self.begun.callback(None)


class UnsentTests(TestCase):
    """Over sockets: an answer that waits in buffers is not over."""

    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Any:
        self.site = Site(reactor, Gate(reactor), size=32 * 2**20)
        self.port = reactor.listenTCP(0, self.site.factory, interface="127.0.0.1")
        endpoint_ = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        self.client = yield connectProtocol(endpoint_, Half())
        self.client.transport.write(b"GET /short HTTP/1.1\r\nHost: h\r\n\r\n")
        yield self.client.begun

    @inlineCallbacks
    def tearDown(self) -> Any:
        self.client.transport.abortConnection()
        yield self.until(lambda: not self.site.factory.channels)
        yield self.port.stopListening()
        yield self.site.factory.stop()

    @inlineCallbacks
    def until(self, is_so: Any) -> Any:
        """Wait for a condition without a notification; the test's timeout limits it."""
        while not is_so():
            yield deferLater(reactor, 0.01)

    @inlineCallbacks
    def test_cut(self) -> Any:
        """A large document whose reader hangs up in the middle is a 499."""
        self.assertEqual(self.site.ended, [])
        self.client.transport.abortConnection()
        yield self.until(lambda: self.site.ended)
        self.assertEqual([one[2:4] for one in self.site.ended], [(499, "client")])

    @inlineCallbacks
    def test_read(self) -> Any:
        """One whose reader continues is a 200, once it is sent."""
        self.client.dataReceived = lambda data: None
        self.client.transport.resumeProducing()
        yield self.until(lambda: self.site.ended)
        self.assertEqual([one[2:4] for one in self.site.ended], [(200, "")])
