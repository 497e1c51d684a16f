"""Clients that send too fast, read too slowly or leave, over real sockets behind a gate."""

from __future__ import annotations

import socket
import sys
from typing import Any

from klein import Klein
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from gateway.http import Application, ChannelFactory, Gate, Request, Response, endpoint, mount
from gateway.http.factory import QUIET_SECONDS
from gateway.http.refusal import no_route
from gateway.limits import Limits

reactor: Any = installed_reactor

BODY = b"x" * 100_000
PART = b"p" * 20_000


class Endless:
    """A body of many parts, written until it is stopped."""

    def __init__(self) -> None:
        self.written = 0
        self.is_paused = False
        self.is_cancelled = False
        self.sink: Any = None

    def start(self, sink: Any) -> None:
        self.sink = sink
        self._write()

    def _write(self) -> None:
        while not self.is_paused and not self.is_cancelled and self.written < 2**26:
            self.written += len(PART)
            self.sink.write(PART)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        self._write()

    def cancel(self) -> None:
        self.is_cancelled = True


class Taker:
    """Takes a streamed body, and holds its sender back at once."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.size = 0
        self.told: list[str] = []

    def body_received(self, data: bytes) -> None:
        self.size += len(data)
        self.stream.pause()

    def body_finished(self) -> None:
        self.told.append("finished")

    def body_lost(self) -> None:
        self.told.append("lost")


class App:
    """Handlers for clients that behave badly."""

    def __init__(self) -> None:
        self.served = 0
        self.endless = Endless()
        self.taker: Taker | None = None
        self.waiting: list[Deferred[Response]] = []
        self.cancelled = 0

    @endpoint("large", "GET", "/large")
    def large(self, request: Request) -> Response:
        self.served += 1
        return Response(200, [], BODY)

    @endpoint("produce", "GET", "/endless")
    def produce(self, request: Request) -> Response:
        return Response(200, [], self.endless)

    @endpoint("take", "POST", "/take", streamed=True)
    def take(self, request: Request) -> Deferred[Response]:
        self.taker = Taker(request.stream)
        assert request.stream is not None
        request.stream.deliver_to(self.taker)
        return self.wait(request)

    @endpoint("wait", "PUT", "/wait")
    def wait(self, request: Request) -> Deferred[Response]:
        def cancelled(_: object) -> None:
            self.cancelled += 1

        self.waiting.append(Deferred(cancelled))
        return self.waiting[-1]


class BackPressureTestCase(TestCase):
    """A server on a loopback port, whose deadlines a clock of the test keeps."""

    limits = Limits()

    @inlineCallbacks
    def setUp(self) -> Any:
        self.clock = Clock()
        app = Klein()
        self.application = Application(app, self.clock, limits=self.limits)
        self.application.missing_route = no_route
        self.app = App()
        mount(app, self.app, self.application.run_under_klein)
        self.application.routes_are_complete()
        self.factory = ChannelFactory(self.application, self.clock, Gate(reactor))
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1", backlog=2000)
        self.clients: list[socket.socket] = []
        yield self.turns(1)

    @inlineCallbacks
    def tearDown(self) -> Any:
        for client in self.clients:
            client.close()
        yield self.port.stopListening()
        stopped = self.factory.stop()
        self.clock.advance(60)
        yield stopped
        yield self.turns(3)

    def client(self) -> socket.socket:
        """Return a client that reads and writes only on command, with small buffers."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        client.connect(("127.0.0.1", self.port.getHost().port))
        client.setblocking(False)
        self.clients.append(client)
        return client

    @inlineCallbacks
    def turns(self, count: int) -> Any:
        for _ in range(count):
            yield deferLater(reactor, 0)

    @inlineCallbacks
    def until(self, happened: Any) -> Any:
        """Turn the reactor until something has happened; fails if it does not."""
        for _ in range(20000):
            if happened():
                return
            yield deferLater(reactor, 0)
        self.fail("it did not happen")

    @inlineCallbacks
    def send(self, client: socket.socket, data: bytes) -> Any:
        """Send as much as the server takes; returns how much that was."""
        sent = stuck = 0
        while sent < len(data) and stuck < 50:
            try:
                sent += client.send(data[sent : sent + 65536])
                stuck = 0
            except BlockingIOError:
                stuck += 1
            yield deferLater(reactor, 0)
        return sent

    @inlineCallbacks
    def receive(self, client: socket.socket, size: int) -> Any:
        """Read that many bytes."""
        got = bytearray()

        def read() -> bool:
            try:
                data = client.recv(2**20)
            except BlockingIOError:
                return False
            got.extend(data)
            return len(got) >= size or not data

        yield self.until(read)
        return bytes(got)

    @property
    def channel(self) -> Any:
        (channel,) = self.factory.channels
        return channel

    def held(self) -> int:
        """Return the bytes that the server holds for its only client."""
        channel = self.channel
        transport = channel.transport
        waiting = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        return len(channel._unread) + len(channel._head) + waiting

    @inlineCallbacks
    def check_alive(self) -> Any:
        """Another client is served."""
        other = self.client()
        yield self.send(other, b"GET /no HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        got = yield self.receive(other, 12)
        self.assertTrue(got.startswith(b"HTTP/1.1 404"), got)
        other.close()
        yield self.until(lambda: len(self.factory.channels) == 1)


class SlowTests(BackPressureTestCase):
    """Slow readers."""

    @inlineCallbacks
    def test_pipeline_that_is_never_read(self) -> Any:
        """Answers to thousands of requests do not pile up in memory: this client has to wait, and no
        other."""
        client = self.client()
        request = b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n"
        sent = yield self.send(client, request * 100_000)
        self.assertLess(sent, len(request) * 100_000)
        served = self.app.served
        self.assertLess(served, 200)
        self.assertLess(self.held(), 2**17 + 2 * len(BODY))
        yield self.check_alive()
        self.assertEqual(self.app.served, served)

    @inlineCallbacks
    def test_pipeline_goes_on(self) -> Any:
        """When it reads, it gets every answer."""
        client = self.client()
        request = b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n"
        yield self.send(client, request * 100)
        got = yield self.receive(client, 100 * len(BODY))
        self.assertGreater(len(got), 100 * len(BODY))
        yield self.until(lambda: self.app.served == 100)

    @inlineCallbacks
    def test_produced_body(self) -> Any:
        """A producer is paused, continues when the client has caught up, and is stopped when it
        disconnects."""
        client = self.client()
        yield self.send(client, b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
        endless = self.app.endless
        yield self.until(lambda: endless.is_paused)
        self.assertLess(endless.written, 2**24)
        self.assertLess(self.held(), 2**17)
        yield self.check_alive()
        written = endless.written
        yield self.receive(client, written)
        self.assertGreater(endless.written, written)
        client.close()
        yield self.until(lambda: not self.factory.channels)
        self.assertTrue(endless.is_cancelled)
        self.assertEqual(self.application.under_way, 0)

    @inlineCallbacks
    def test_stalled_client_is_dropped(self) -> Any:
        """A client that has not read for a minute is disconnected."""
        client = self.client()
        yield self.send(client, b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
        yield self.until(lambda: self.app.endless.is_paused)
        self.clock.pump([1] * int(self.limits.stall_seconds - 1))
        yield self.turns(3)
        self.assertEqual(len(self.factory.channels), 1)
        self.clock.pump([1] * 3)
        yield self.until(lambda: not self.factory.channels)
        self.assertTrue(self.app.endless.is_cancelled)

    @inlineCallbacks
    def slow_reader(self, head: bytes) -> Any:
        """Ask for a body that takes several minutes to read, and check that it arrives whole."""
        self.patch(sys.modules[__name__], "BODY", b"x" * 19_000_000)
        client = self.client()
        yield self.send(client, head)
        got = 0
        for _ in range(20):
            # So much in 30 seconds.
            data = yield self.receive(client, 300_000)
            got += len(data)
            yield self.turns(5)
            self.clock.pump([1] * 30)
            self.assertEqual(len(self.factory.channels), 1)
        while got < len(BODY):
            data = yield self.receive(client, 1)
            self.assertTrue(data)
            got += len(data)

    def test_slow_reader(self) -> Any:
        """A slow reader gets everything, however long it takes."""
        return self.slow_reader(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")

    def test_slow_reader_of_the_last_answer(self) -> Any:
        """So does the reader of an answer that closes the connection."""
        return self.slow_reader(b"GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")


class FastTests(BackPressureTestCase):
    """Clients that send faster than the gateway reads."""

    @inlineCallbacks
    def test_streamed_body(self) -> Any:
        """A reader that pauses holds its sender back; one that resumes gets more."""
        client = self.client()
        size = 2**26
        yield self.send(client, b"POST /take HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
        yield self.until(lambda: self.app.taker is not None)
        taker = self.app.taker
        assert taker is not None
        sent = yield self.send(client, b"b" * size)
        self.assertLess(sent, size)
        self.assertLessEqual(taker.size, 2**17)
        self.assertLess(self.held(), 2**17)
        yield self.check_alive()
        before = taker.size
        taker.stream.resume()
        yield self.until(lambda: taker.size > before)
        client.close()
        taker.stream.resume()
        yield self.until(lambda: taker.stream.resume() or taker.told)
        self.assertEqual(taker.told, ["lost"])
        self.assertEqual((self.app.cancelled, self.application.under_way), (1, 0))


class HangUpTests(BackPressureTestCase):
    """Clients that disconnect."""

    @inlineCallbacks
    def check(self, data: bytes, *, budget: int = 0, under_way: int = 0) -> Any:
        client = self.client()
        yield self.send(client, data)
        yield self.until(lambda: self.factory.channels and self.application.under_way == under_way)
        yield self.until(lambda: self.application.budget.used == budget)
        client.close()
        # Whether a client with a running request has only closed its half shows in the next seconds.
        yield self.until(lambda: self.clock.advance(0.1) or not self.factory.channels)
        self.assertEqual((self.application.under_way, self.application.budget.used), (0, 0))

    @inlineCallbacks
    def test_in_each_phase(self) -> Any:
        """Running requests are cancelled, and the room for their bodies is released."""
        yield self.check(b"")
        yield self.check(b"PUT /wait HTTP/1.1\r\nHo")
        yield self.check(b"PUT /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345", budget=10)
        yield self.check(
            b"PUT /wait HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", budget=5
        )
        self.assertEqual(self.app.waiting, [])
        yield self.check(
            b"PUT /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n12345", budget=5, under_way=1
        )
        self.assertEqual(self.app.cancelled, 1)
        yield self.check(b"POST /take HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", under_way=1)
        self.assertEqual(self.app.cancelled, 2)
        yield self.check(b"POST /no HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")


class ManyTests(BackPressureTestCase):
    """Hundreds of connections."""

    @inlineCallbacks
    def test_idle_connections_and_the_end(self) -> Any:
        """They are closed when the service stops; a running request finishes first."""
        for number in range(400):
            self.client()
            if number % 50 == 0:
                yield self.turns(2)
        yield self.until(lambda: len(self.factory.channels) == 400)
        busy = self.clients[7]
        yield self.send(busy, b"PUT /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx")
        yield self.until(lambda: self.app.waiting)
        stopped = self.factory.stop()
        self.clock.advance(QUIET_SECONDS)
        yield self.until(lambda: len(self.factory.channels) == 1)
        self.assertNoResult(stopped)
        self.app.waiting.pop().callback(Response(200, [], b"done"))
        got = yield self.receive(busy, 1)
        busy.close()
        yield stopped
        self.assertIn(b"Connection: close\r\n", got)
        self.assertTrue(got.endswith(b"done"))
