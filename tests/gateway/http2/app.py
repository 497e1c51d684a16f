"""An application whose handlers tests command, served over HTTP/2 in memory and on loopback."""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from gateway.http import Application, ChannelFactory, Request, Response, endpoint, json_response, mount
from gateway.http.application import Guard
from gateway.http.refusal import no_route
from gateway.http.response import BodySink
from gateway.http2 import HTTP2
from gateway.limits import Limits
from reactor.gate import Gate
from tests.gateway.http2.peer import Client, Wire

reactor: Any = installed_reactor


class Produced:
    """A body that a test produces."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.sink: BodySink | None = None

    def start(self, sink: BodySink) -> None:
        self.sink = sink

    def write(self, data: bytes) -> None:
        assert self.sink is not None
        self.sink.write(data)

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def cancel(self) -> None:
        self.told.append("cancel")


class Taker:
    """Reads a streamed body as a test wants."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.body = b""
        self.told: list[str] = []

    def body_received(self, data: bytes) -> None:
        self.body += data

    def body_finished(self) -> None:
        self.told.append("finished")

    def body_lost(self) -> None:
        self.told.append("lost")


class Handlers:
    """Handlers of every kind."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.waiting: list[Deferred[Response]] = []
        self.cancelled = 0
        self.takers: list[Taker] = []
        self.produced: list[Produced] = []

    def told(self, request: Request, body: bytes) -> Response:
        seen = {
            "method": request.method,
            "path": request.path.decode(),
            "query": request.query_string.decode(),
            "headers": {
                name.decode(): [one.decode("latin-1") for one in request.header_values(name)]
                for name in request.headers
            },
            "body": body.decode("latin-1"),
        }
        self.seen.append(seen)
        return json_response(seen)

    def told_nothing(self) -> Response:
        return Response(200, [], b"")

    @endpoint("get", "GET", "/echo")
    def get(self, request: Request) -> Response:
        return self.told(request, request.body())

    @endpoint("put", "PUT", "/echo")
    def put(self, request: Request) -> Response:
        return self.told(request, request.body())

    @endpoint("empty", "DELETE", "/echo")
    def empty(self, request: Request) -> Response:
        return Response(204, [(b"X-One", b"1")])

    @endpoint("size", "GET", "/size/<size>")
    def size(self, request: Request) -> Response:
        return Response(200, [], b"x" * int(request.parameters["size"]))

    @endpoint("wait", "GET", "/wait")
    def wait(self, request: Request) -> Deferred[Response]:
        def cancelled(_: object) -> None:
            self.cancelled += 1

        self.waiting.append(Deferred(cancelled))
        return self.waiting[-1]

    @endpoint("take", "POST", "/take", streamed=True)
    def take(self, request: Request) -> Deferred[Response]:
        taker = Taker(request.stream)
        self.takers.append(taker)
        if request.stream is not None:
            request.stream.deliver_to(taker)
        return self.wait(request)

    @endpoint("produce", "GET", "/produce")
    def produce(self, request: Request) -> Response:
        self.produced.append(Produced())
        return Response(200, [(b"Content-Type", b"text/plain")], self.produced[-1])

    @endpoint("forged", "GET", "/forged")
    def forged(self, request: Request) -> Response:
        return Response(200, [(b"X-Forged", b"a\r\nSet-Cookie: b")])

    @endpoint("broken", "GET", "/broken")
    def broken(self, request: Request) -> Response:
        raise RuntimeError("a bug")


class Served:
    """The application behind a factory."""

    def __init__(self, limits: Limits | None = None, guard: Guard | None = None, gate: Any = None) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.ended: list[tuple[str, int, str]] = []
        app = Klein()

        @app.route("/plain/<int:number>")
        def plain(request: Any, number: int) -> bytes:
            request.setHeader(b"X-Plain", b"yes")
            return b"number %d" % (100 // number)

        self.application = Application(
            app,
            self.clock,
            now=self.clock.seconds,
            limits=limits or Limits(),
            guard=guard,
            end_hooks=[
                lambda request, status, _: self.ended.append((request.path.decode(), status, request.cut))
            ],
        )
        self.application.missing_route = no_route
        self.handlers = Handlers()
        mount(app, self.handlers, self.application.run_under_klein)
        self.application.routes_are_complete()
        self.factory = ChannelFactory(self.application, self.clock, gate, HTTP2)
        self.factory.startFactory()


class MemoryTestCase(SynchronousTestCase):
    """Clients in memory."""

    limits = Limits()

    def setUp(self) -> None:
        self.serve()

    def serve(self, guard: Guard | None = None) -> None:
        self.served = Served(self.limits, guard)
        self.handlers = self.served.handlers
        self.wire = self.connect()
        self.client = self.wire.client

    def connect(self, client: Client | None = None) -> Wire:
        return Wire(self.served.factory, self.served.clock, client)

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass, with a sweep in each second."""
        for _ in range(int(seconds)):
            self.served.clock.advance(1)
            self.wire.pump()


class SocketTestCase(TestCase):
    """Clients on loopback, of a server whose deadlines a clock of the test keeps."""

    timeout = 120
    limits = Limits()

    @inlineCallbacks
    def setUp(self) -> Any:
        self.served = Served(self.limits, gate=Gate(reactor))
        self.handlers = self.served.handlers
        self.port = reactor.listenTCP(0, self.served.factory, interface="127.0.0.1")
        self.clients: list[Any] = []
        self.client = yield self.connect(self.make())

    make: Any = Client
    """Makes the first client."""

    @inlineCallbacks
    def connect(self, client: Client | None = None) -> Any:
        made = client or Client()
        yield self.connect_any(made)
        yield self.until(lambda: bool(made.events))
        return made

    @inlineCallbacks
    def connect_any(self, client: Any) -> Any:
        """Connect a client that may not speak the protocol."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        yield connectProtocol(endpoint, client)
        self.clients.append(client)

    @inlineCallbacks
    def tearDown(self) -> Any:
        for client in self.clients:
            client.transport.abortConnection()
            if not client.is_lost:
                yield client.lost
        yield self.until(lambda: not self.served.factory.channels)
        yield self.port.stopListening()
        yield self.served.factory.stop()

    @inlineCallbacks
    def until(self, condition: Any) -> Any:
        """Wait, while no time passes."""
        while not condition():
            self.served.clock.advance(0)
            yield deferLater(reactor, 0)

    @inlineCallbacks
    def turns(self, count: int = 5) -> Any:
        """Let the reactor turn, while no time passes."""
        for _ in range(count):
            self.served.clock.advance(0)
            yield deferLater(reactor, 0)

    @inlineCallbacks
    def pass_seconds(self, seconds: int) -> Any:
        """Let time pass, with a sweep in each second."""
        for _ in range(seconds):
            self.served.clock.advance(1)
            yield self.turns(2)

    @inlineCallbacks
    def ask(self, path: str = "/echo", client: Client | None = None) -> Any:
        """Return what was received for a GET."""
        client = client or self.client
        number = client.request("GET", path)
        yield self.until(lambda: client.streams[number].is_over or client.is_lost)
        return client.streams[number]

    @inlineCallbacks
    def others_are_served(self) -> Any:
        """Check that another client gets its answer."""
        other = yield self.connect()
        answer = yield self.ask(client=other)
        self.assertEqual(answer.status, 200)
