"""Answers that wait for slow clients, whatever those do: the count is right, and 0 when all are gone."""

from __future__ import annotations

import random
import socket
import ssl
from pathlib import Path
from typing import Any

from h2.settings import SettingCodes
from twisted.internet.defer import inlineCallbacks

from gateway.limits import Limits
from reactor.tls.strings import tls_endpoint
from tests.certificates import self_signed
from tests.gateway.http.securetransport import contexts
from tests.gateway.http.test_backpressure import BackPressureTestCase, Endless, reactor
from tests.gateway.http2.app import SocketTestCase
from tests.gateway.http2.peer import Client

RUNS = 6
STEPS = 40
ENDS = (b"", b"Connection: close\r\n")


class SequenceTests(BackPressureTestCase):
    """Clients of HTTP/1.1 that send, read, and leave in any order."""

    limits = Limits(max_buffered=2**21)

    @inlineCallbacks
    def test_any_order(self) -> Any:
        """Pipelined requests, endless answers, clients that stop sending, reset or close: the sum is never
        negative, and belongs to connections that exist."""
        unread = self.application.unread_answers
        for seed in range(RUNS):
            chosen = random.Random(seed)
            clients: list[socket.socket] = []
            for _ in range(STEPS):
                if not clients or chosen.random() < 0.2:
                    clients.append(self.client())
                client = chosen.choice(clients)
                yield self.step(chosen, client, clients)
                self.clock.advance(chosen.choice((0, 0, 1)))
                self.assertGreaterEqual(unread.used, 0)
                self.assertLessEqual(set(unread._sizes), self.factory.channels)
                self.assertEqual(unread.used, sum(unread._sizes.values()))
            for client in clients:
                client.close()
            while self.factory.channels:
                # Their deadlines pass: an endless answer keeps its connection until then.
                self.clock.advance(1)
                yield self.turns(1)
            self.assertEqual((unread.used, unread._sizes), (0, {}), seed)

    @inlineCallbacks
    def step(self, chosen: random.Random, client: socket.socket, clients: list[socket.socket]) -> Any:
        """Do something with a client."""
        kind = chosen.choice(("ask", "ask", "endless", "read", "half", "reset", "close", "garbage", "leave"))
        try:
            if kind in ("ask", "endless", "garbage"):
                # Each endless answer has a producer of its own.
                count = 1 if kind == "endless" else chosen.randint(1, 60)
                self.app.endless = Endless()
                path = b"/endless" if kind == "endless" else b"/large"
                last = b"?\r\n\r\n" if kind == "garbage" else b""
                head = b"GET %b HTTP/1.1\r\nHost: h\r\n%b\r\n" % (path, chosen.choice(ENDS))
                yield self.send(client, head * count + last)
            elif kind == "read":
                client.recv(chosen.choice((1000, 2**20)))
            elif kind == "half":
                client.shutdown(socket.SHUT_WR)
            elif kind == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
                clients.remove(client)
            elif kind == "close":
                client.close()
                clients.remove(client)
            elif kind == "leave":
                for channel in list(self.factory.channels)[:1]:
                    channel.leave()
        except OSError:
            # The server has closed it, or there is nothing to read.
            pass
        yield self.turns(2)


class SecureSequenceTests(SequenceTests):
    """The same over TLS."""

    @inlineCallbacks
    def setUp(self) -> Any:
        yield super().setUp()
        yield self.port.stopListening()
        file = self.mktemp()
        Path(file).write_bytes(self_signed())
        endpoint = tls_endpoint(reactor, f"ssl:0:privateKey={file}:interface=127.0.0.1")
        assert endpoint is not None
        self.port = yield endpoint.listen(self.factory)

    @inlineCallbacks
    def step(self, chosen: random.Random, client: socket.socket, clients: list[socket.socket]) -> Any:
        """Do something with a client, after its handshake."""
        if not isinstance(client, ssl.SSLSocket):
            plain = client
            client = contexts()[1].wrap_socket(plain, do_handshake_on_connect=False)
            clients[clients.index(plain)] = client
            self.clients.append(client)
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    yield self.turns(1)
        yield super().step(chosen, client, clients)


class StreamSequenceTests(SocketTestCase):
    """Clients of HTTP/2 that do the same with streams."""

    limits = Limits(max_buffered=2**21)

    @inlineCallbacks
    def test_any_order(self) -> Any:
        """Streams that are reset midway, windows that open a little, connections that are cut."""
        unread = self.served.application.unread_answers
        others = set(self.served.factory.channels)
        for seed in range(RUNS):
            chosen = random.Random(seed)
            mine: list[Any] = []
            for _ in range(STEPS):
                if not mine or chosen.random() < 0.1:
                    settings = {SettingCodes.INITIAL_WINDOW_SIZE: chosen.choice((0, 2**16 - 1, 2**24))}
                    mine.append((yield self.connect(Client(settings, acknowledges=False))))
                client = chosen.choice(mine)
                if client.is_lost:
                    mine.remove(client)
                    continue
                self.step(chosen, client)
                yield self.turns(2)
                self.served.clock.advance(chosen.choice((0, 0, 1)))
                self.assertGreaterEqual(unread.used, 0)
                self.assertLessEqual(set(unread._sizes), self.served.factory.channels)
                self.assertEqual(unread.used, sum(unread._sizes.values()))
            for client in mine:
                client.transport.abortConnection()
            while not self.served.factory.channels <= others:
                # One that has closed its half, or waits for the rest of a body, is found by the sweep.
                yield self.pass_seconds(1)
            self.assertEqual((unread.used, unread._sizes), (0, {}), seed)

    def step(self, chosen: random.Random, client: Any) -> None:
        """Do something with a client."""
        kind = chosen.choice(
            ("ask", "ask", "produce", "reset", "window", "all", "pause", "resume", "abort", "close", "leave")
        )
        streams = list(client.streams)
        try:
            if kind == "ask":
                client.request("GET", f"/size/{chosen.choice((1, 1000, 60000, 250000))}")
            elif kind == "produce":
                client.request("GET", "/produce")
                for produced in self.handlers.produced[-1:]:
                    produced.sink.write(b"x" * 50_000)
            elif kind == "reset" and streams:
                client.h2.reset_stream(chosen.choice(streams))
            elif kind == "window" and streams:
                client.h2.increment_flow_control_window(chosen.choice((1, 70_000)), chosen.choice(streams))
            elif kind == "all":
                client.h2.increment_flow_control_window(2**20)
            elif kind == "pause":
                client.transport.pauseProducing()
            elif kind == "resume":
                client.transport.resumeProducing()
            elif kind == "abort":
                client.transport.abortConnection()
            elif kind == "close":
                client.transport.loseConnection()
            else:
                for channel in list(self.served.factory.channels):
                    if channel.streams:
                        channel.leave()
                        break
        except Exception:  # noqa: BLE001  # h2 refuses what a stream that has ended cannot do
            pass
        client.flush()
