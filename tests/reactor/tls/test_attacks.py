"""Peers with bad intentions, or bad luck: what they send costs little, and ends only their own connection."""

from __future__ import annotations

import ssl
from typing import Any

from hypothesis import given, settings
from hypothesis.strategies import binary, integers, lists, sampled_from, tuples
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reactor.tls.contexts import client_context, server_context
from reactor.tls.factory import LIMITS, ClientSide, ServerSide, TlsFactory
from reactor.tls.handshakes import TURN_SECONDS, Handshakes
from reactor.tls.transport import Phase
from tests import tries
from tests.reactor.tls.wire import (
    NAME,
    End,
    Files,
    Log,
    Side,
    Wire,
    factory_of,
    own_client,
    own_server,
    transport_of,
)

PLACES = integers(0, 2000)

ENDS = (ssl.SSLError, ConnectionLost, ConnectionDone)


def hello_of(files: Files) -> bytes:
    """Return the first bytes of a client."""
    outgoing = ssl.MemoryBIO()
    session = client_context(files.pem.decode()).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME)
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


class StrangerTests(SynchronousTestCase):
    """Bytes that no TLS peer sends."""

    def setUp(self) -> None:
        """Make a certificate."""
        self.clock = Clock()
        self.files = Files.make(self.mktemp())

    def feed(self, *parts: bytes) -> tuple[Side, End]:
        """Return a server, and its stream, that got these bytes, then the end of the stream."""
        server = own_server(self.clock, self.files)
        end = End(server.below)
        server.below.makeConnection(end)
        for part in parts:
            server.below.dataReceived(part)
        if not end.is_lost:
            end.lose(ConnectionDone())
        self.clock.advance(0)
        return server, end

    @settings(max_examples=tries(200), deadline=None)
    @given(parts=lists(binary(min_size=1, max_size=300), max_size=5))
    def test_garbage(self, parts: list[bytes]) -> None:
        """Nothing of it reaches the protocol above, which is notified of the end once."""
        server, _ = self.feed(*parts)
        self.assertEqual(server.above.events[0], "made")
        self.assertEqual(len(server.above.events), 2)
        self.assertTrue(issubclass(server.above.events[1], ENDS))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @settings(max_examples=tries(200), deadline=None)
    @given(changes=lists(tuples(PLACES, integers(0, 255)), min_size=1, max_size=5), cut=integers(0, 600))
    def test_broken_hello(self, changes: list[tuple[int, int]], cut: int) -> None:
        """A hello with wrong bytes, or cut short, in one piece or in two."""
        hello = bytearray(hello_of(self.files))
        for place, value in changes:
            hello[place % len(hello)] = value
        server, _ = self.feed(*[part for part in (bytes(hello[:cut]), bytes(hello[cut:])) if part])
        self.assertTrue(issubclass(server.above.events[-1], ENDS))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_protocols(self) -> None:
        """Each of the well-known kinds ends the handshake at once, with an alert or without."""
        ssl_2 = b"\x80\x2e\x01\x03\x01" + bytes(60)
        for first in (b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", bytes(64), b"\xff" * 64, ssl_2):
            server, end = self.feed(first)
            self.assertIs(server.above.events[-1], ssl.SSLError, first)
            self.assertTrue(end.is_closing)
            self.assertLess(len(end.out), 50)

    @settings(max_examples=tries(100), deadline=None)
    @given(place=integers(0, 5000), value=integers(1, 255), who=sampled_from([0, 1]))
    def test_changed_on_the_way(self, place: int, value: int, who: int) -> None:
        """One changed byte of an open connection ends it, and nothing changed is delivered."""
        client, server = own_client(self.clock, self.files.pem), own_server(self.clock, self.files)
        wire = Wire(self.clock, client.below, server.below)
        wire.settle()
        receiver = (server, client)[who]
        (client, server)[who].below.write(bytes(4000))
        self.clock.advance(0)
        out = wire.ends[who].out
        out[place % len(out)] ^= value
        wire.settle()
        self.assertEqual(receiver.above.data.strip(b"\0"), b"")
        if len(receiver.above.data) < 4000 and not wire.ends[1 - who].is_lost:
            # It waits for the rest of a record that claims to be longer.
            wire.cut(who)
        self.assertTrue(receiver.above.data == bytes(4000) or issubclass(receiver.above.events[-1], ENDS))
        for call in self.clock.getDelayedCalls():
            call.cancel()


class RenegotiationTests(SynchronousTestCase):
    """Clients that want to begin again."""

    def setUp(self) -> None:
        """Connect a client of pyOpenSSL, which can ask for that, to our server."""
        self.clock = Clock()
        self.files = Files.make(self.mktemp())

    def connect(self, method: int) -> SSL.Connection:
        """Shake hands."""
        self.server = own_server(self.clock, self.files)
        self.end = End(self.server.below)
        client = SSL.Connection(SSL.Context(method), None)
        client.set_connect_state()
        self.server.below.makeConnection(self.end)
        self.client = client
        self.carry(client.do_handshake)
        self.assertIs(transport_of(self.server).phase, Phase.OPEN)
        return client

    def carry(self, action: Any = None) -> None:
        """Carry bytes both ways until nothing more comes."""
        for _ in range(6):
            if action is not None:
                try:
                    action()
                except SSL.WantReadError:
                    pass
            try:
                self.server.below.dataReceived(self.client.bio_read(2**16))
            except SSL.WantReadError:
                pass
            self.clock.advance(0)
            if self.end.out:
                self.client.bio_write(bytes(self.end.out))
                self.end.out.clear()

    def test_refused(self) -> None:
        """TLS 1.2: a second handshake is refused, with a warning, and data goes on or the client gives up."""
        client = self.connect(SSL.TLSv1_2_METHOD)
        self.assertTrue(client.renegotiate())
        failed: list[Any] = []

        def again() -> None:
            try:
                client.do_handshake()
            except SSL.WantReadError:
                raise
            except SSL.Error as error:
                failed.append(error)

        self.carry(again)
        self.assertIn("no renegotiation", str(failed[:1]))
        self.assertEqual(self.server.above.events[:2], ["made", "handshake"])
        self.assertEqual(self.server.above.events.count("handshake"), 1)


class FloodTests(SynchronousTestCase):
    """Many handshakes at once."""

    def test_turns(self) -> None:
        """Steps run at once while the turn has time, then in later turns, in order; each turn has its
        time."""
        clock, now, done = Clock(), [0.0], []

        def step(number: int) -> None:
            now[0] += 2**-8  # 3.9 ms
            done.append(number)

        queue = Handshakes(clock, lambda: now[0])
        for number in range(20):
            queue.add(lambda number=number: step(number))
        self.assertEqual((done, len(queue)), ([0, 1, 2], 17))
        for turn in range(2, 7):
            self.turn(clock)
            self.assertEqual(done, list(range(3 * turn)))
        for _ in range(2):
            self.turn(clock)
        self.assertEqual(done, list(range(20)))
        self.assertEqual((len(queue), clock.getDelayedCalls()), (0, []))
        queue.add(lambda: step(99))
        self.assertEqual(done[-1], 99)

    def turn(self, clock: Clock) -> None:
        """Let one turn of a reactor pass."""
        for call in clock.getDelayedCalls():
            if call.getTime() <= clock.seconds():
                clock.calls.remove(call)
                call.func()

    def test_many_clients(self) -> None:
        """All of a hundred clients that come in one turn are served in the end, an open connection is served
        between them, and a client that went away meanwhile costs nothing."""
        clock, files = Clock(), Files.make(self.mktemp())
        context = server_context(files.path, files.path)
        logs: list[Log] = []

        def above() -> Log:
            logs.append(Log())
            return logs[-1]

        wrapped = factory_of(Log(), None)
        wrapped.buildProtocol = lambda addr: above()  # type: ignore[method-assign]
        server = TlsFactory(ServerSide(lambda names: context), wrapped, clock)
        now = [0.0]

        def seconds() -> float:
            now[0] += TURN_SECONDS / 10
            return now[0]

        server.handshakes = Handshakes(clock, seconds)
        trust = client_context(files.pem.decode())
        wires = []
        for _ in range(100):
            client = TlsFactory(ClientSide(trust, NAME, {}), factory_of(Log(), None), clock)
            wires.append(Wire(clock, client.buildProtocol(None), server.buildProtocol(None)))
        for wire in wires:
            wire.move(0)
        self.assertGreater(len(server.handshakes), 80)
        # Reading is paused until it is their turn, so that they cannot send more meanwhile.
        self.assertFalse(wires[-1].ends[1].reads)
        wires[50].cut(0)
        turns = 0
        while any("handshake" not in log.events for number, log in enumerate(logs) if number != 50):
            self.turn(clock)
            for wire in wires:
                wire.move(0)
                wire.move(1)
            turns += 1
            self.assertLess(turns, 100)
        self.assertGreater(turns, 20)
        self.assertEqual(logs[50].events, ["made", ConnectionLost])

    def test_half_handshakes(self) -> None:
        """Clients that stop after their hello are gone after the time, and nothing of them stays."""
        clock, files = Clock(), Files.make(self.mktemp())
        context = server_context(files.path, files.path)
        server = TlsFactory(ServerSide(lambda names: context), factory_of(Log(), None), clock)
        hello = hello_of(files)
        ends = []
        for _ in range(50):
            below = server.buildProtocol(None)
            assert below is not None
            ends.append(End(below))
            below.makeConnection(ends[-1])
            below.dataReceived(hello)
            clock.advance(0)
        self.assertEqual(len(server.transports), 50)
        clock.advance(LIMITS.handshake_seconds)
        for end in ends:
            self.assertTrue(end.is_cut)
            end.lose(ConnectionLost())
        self.assertEqual((len(server.transports), clock.getDelayedCalls()), (0, []))
