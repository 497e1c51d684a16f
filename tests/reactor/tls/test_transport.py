"""A TLS connection in memory: writes, back-pressure and closing."""

from __future__ import annotations

import ssl
import sys
import tracemalloc
from types import FrameType
from typing import Any

from hypothesis import given, settings
from hypothesis.strategies import binary, integers, lists
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, TimeoutError
from twisted.internet.interfaces import IHalfCloseableProtocol, INegotiated, IPushProducer, ISSLTransport
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from reactor.gate import waiting_bytes
from reactor.tls.factory import LIMITS
from reactor.tls.layer import peer_certificate
from reactor.tls.pieces import PIECE_BYTES, TURN_BYTES
from reactor.tls.transport import Phase
from reactor.writer import writer_to
from tests import tries
from tests.reactor.tls.wire import Files, Log, Wire, own_client, own_server, transport_of, twisted_client

LARGE = bytes(range(256)) * 2**14
"""4 MiB."""


@implementer(IHalfCloseableProtocol)
class HalfLog(Log):
    """Also notes half closes."""

    def readConnectionLost(self) -> None:
        self.events.append("read lost")

    def writeConnectionLost(self) -> None:
        self.events.append("write lost")


class PairTestCase(SynchronousTestCase):
    """Our client and our server on one stream."""

    def setUp(self) -> None:
        """Make a certificate."""
        self.clock = Clock()
        self.files = Files.make(self.mktemp())

    def connect(self, *, settled: bool = True, **server: Any) -> None:
        """Open a connection."""
        self.server = own_server(self.clock, self.files, **server)
        self.client = own_client(self.clock, self.files.pem)
        self.wire = Wire(self.clock, self.client.below, self.server.below)
        self.near, self.far = self.wire.ends
        if settled:
            self.wire.settle()
            self.assertIs(transport_of(self.server).phase, Phase.OPEN)


class SendingTests(PairTestCase):
    """From the protocol above to the peer."""

    def test_interfaces(self) -> None:
        """It is what its interfaces say."""
        self.connect()
        for interface in (ISSLTransport, INegotiated, IPushProducer):
            verifyObject(interface, self.server.below)

    def test_together(self) -> None:
        """All that is written in one turn of the reactor leaves in one piece, also from within
        dataReceived."""
        self.connect()
        before = self.far.writes
        for _ in range(100):
            self.server.below.write(b"abc")
        self.server.below.writeSequence([b"d", b"e"])
        self.assertEqual(self.far.writes, before)
        self.clock.advance(0)
        self.assertEqual(self.far.writes, before + 1)
        self.wire.settle()
        self.assertEqual(self.client.above.data, b"abc" * 100 + b"de")
        before = self.far.writes
        send = writer_to(self.server.below)
        self.server.above.on_data = lambda data: [send(b"x") for _ in range(50)] and None
        self.client.below.write(b"?")
        self.wire.settle()
        self.assertEqual(self.far.writes, before + 1)
        self.assertEqual(self.client.above.data[-51:], b"e" + b"x" * 50)

    def test_now(self) -> None:
        """What :func:`reactor.writer.writer_to` returns sends in this turn, behind what waits; it returns
        how much the stream has not taken."""
        self.connect()
        send = writer_to(self.server.below)
        before = self.far.writes
        self.server.below.write(b"first")
        send(b"second")
        self.assertEqual(self.far.writes, before + 1)
        self.assertEqual(send(b""), 0)
        self.far.out.clear()
        # Twisted's own streams tell what they have left; this one leaves everything.
        self.assertEqual(send(b"abc"), len(self.far.out))

    @settings(max_examples=tries(50), deadline=None)
    @given(
        parts=lists(binary(min_size=1, max_size=200) | integers(1, 100_000).map(bytes), max_size=12),
        size=integers(1, 2**17),
    )
    def test_any_parts(self, parts: list[bytes], size: int) -> None:
        """Parts of any sizes arrive in order and whole, carried in pieces of any size."""
        self.connect()
        send = writer_to(self.server.below)
        for number, part in enumerate(parts):
            (send if number % 3 else self.server.below.write)(part)
            if number % 4 == 0:
                self.wire.move(1, size)
        self.wire.settle(max(size, 1000))
        self.assertTrue(self.client.above.data == b"".join(parts))

    def test_a_peer_that_does_not_read(self) -> None:
        """Little of a large write is encrypted until the peer reads, and the producer pauses; then the rest
        is sent, and the producer resumes."""
        self.connect()
        self.server.below.registerProducer(self.server.above, True)
        self.server.below.write(LARGE)
        self.clock.pump([0] * 20)
        self.assertEqual(self.server.above.events[-1], "pause")
        self.assertLess(len(self.far.out), 2 * PIECE_BYTES + 2000)
        # One piece fills the stream's buffer, and is the last one.
        self.assertGreater(transport_of(self.server).queued_bytes, len(LARGE) - 2 * PIECE_BYTES - 1)
        self.wire.settle()
        self.assertEqual(self.server.above.events[-2:], ["pause", "resume"])
        self.assertTrue(self.client.above.data == LARGE)

    def test_no_turn_is_long(self) -> None:
        """A stream that takes everything gets a megabyte in a turn of the reactor."""
        self.connect()
        self.far.most = 2**30
        self.server.below.write(LARGE)
        self.assertLess(len(self.far.out), TURN_BYTES + 50_000)
        turns = 0
        while transport_of(self.server).queued_bytes:
            before = len(self.far.out)
            (call,) = self.clock.getDelayedCalls()
            self.clock.calls.remove(call)
            call.func()
            self.assertLess(len(self.far.out) - before, TURN_BYTES + 50_000)
            turns += 1
        self.assertEqual(turns, len(LARGE) // TURN_BYTES - 1)

    def test_pull_producer(self) -> None:
        """A producer that has to be asked is asked until it unregisters, as fast as the peer reads."""
        self.connect()
        below = self.server.below

        class Puller:
            left = 40

            def resumeProducing(self) -> None:
                self.left -= 1
                below.write(bytes(10_000))
                if not self.left:
                    below.unregisterProducer()
                    below.loseConnection()

            def stopProducing(self) -> None:
                """Do nothing."""

        from twisted.internet import task

        steps: list[Any] = []
        cooperator = task.Cooperator(scheduler=lambda call: steps.append(call) or _Call())
        self.patch(task, "_theCooperator", cooperator)
        below.registerProducer(Puller(), False)
        while steps:
            steps.pop()()
            self.wire.settle()
        self.assertEqual(len(self.client.above.data), 400_000)
        self.assertIs(self.client.above.events[-1], ConnectionDone)

    def test_types(self) -> None:
        """Text and numbers are no bytes; other kinds of bytes are copied when they are written."""
        self.connect()
        for wrong in ("text", 5, None):
            self.assertRaises(TypeError, self.server.below.write, wrong)
        given = bytearray(b"abc")
        self.server.below.write(given)
        given[:] = b"xyz"
        self.wire.settle()
        self.assertEqual(self.client.above.data, b"abc")

    def test_waiting_bytes(self) -> None:
        """What waits above the encryption counts as not sent."""
        self.connect()
        self.assertEqual(waiting_bytes(self.server.below), 0)

    def test_one_producer(self) -> None:
        """A second producer is refused; on a connection that has ended it is stopped."""
        self.connect()
        self.server.below.registerProducer(self.server.above, True)
        self.assertRaises(RuntimeError, self.server.below.registerProducer, Log(), True)
        self.client.below.abortConnection()
        late = Log()
        self.client.below.registerProducer(late, True)
        self.assertEqual(late.events, ["stop"])


class _Call:
    def cancel(self) -> None:
        """Do nothing."""


class BudgetTests(PairTestCase):
    """What a small request and its answer cost, in calls, which no busy machine changes."""

    def test_calls(self) -> None:
        """Two functions to receive and one to send, and eight calls of C functions in all."""
        self.connect()
        send = writer_to(self.server.below)
        self.client.below.write(bytes(100))
        self.clock.advance(0)
        data = bytes(self.near.out)
        functions: list[str] = []
        in_c: list[str] = []

        def note(frame: FrameType, event: str, called: Any) -> None:
            if "reactor/tls/" in frame.f_code.co_filename and "tests" not in frame.f_code.co_filename:
                if event == "call":
                    functions.append(frame.f_code.co_name)
                elif event == "c_call":
                    in_c.append(called.__name__)

        sys.setprofile(note)
        try:
            self.server.below.dataReceived(data)
            send(bytes(1000))
        finally:
            sys.setprofile(None)
        self.assertEqual(functions, ["dataReceived", "_deliver", "write_now"])
        self.assertLessEqual(len(in_c), 8, in_c)
        self.wire.settle()
        self.assertEqual((self.server.above.data, self.client.above.data), (bytes(100), bytes(1000)))


class ReadingTests(PairTestCase):
    """From the peer to the protocol above."""

    def test_pause(self) -> None:
        """While reading is paused the stream is not read, and goes on when it is resumed."""
        self.connect()
        self.server.below.pauseProducing()
        self.assertFalse(self.far.reads)
        self.client.below.write(LARGE)
        self.wire.settle()
        self.assertEqual(self.server.above.data, b"")
        self.server.below.resumeProducing()
        self.wire.settle()
        self.assertTrue(self.server.above.data == LARGE)

    def test_pause_during_the_handshake(self) -> None:
        """The handshake goes on; data waits."""
        self.connect(settled=False)
        self.server.below.pauseProducing()
        self.client.below.write(b"early")
        self.wire.settle(3)
        self.assertIs(transport_of(self.server).phase, Phase.OPEN)
        self.assertFalse(self.far.reads)
        self.server.below.resumeProducing()
        self.wire.settle()
        self.assertEqual(self.server.above.data, b"early")

    def test_byte_at_a_time(self) -> None:
        """Handshake and data come in single bytes."""
        self.connect(settled=False)
        self.client.below.write(b"hello" * 10)
        self.wire.settle(1)
        self.assertEqual(self.server.above.data, b"hello" * 10)

    def test_idle_connections_are_small(self) -> None:
        """After megabytes in both directions a connection keeps only small buffers."""
        self.connect()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        self.client.below.write(LARGE)
        self.server.below.write(LARGE)
        self.wire.settle()
        for party in (self.client, self.server):
            party.above.events.clear()
        self.assertLess(tracemalloc.get_traced_memory()[0] - before, 2**17)


class EndTests(PairTestCase):
    """How a connection ends."""

    def ends(self) -> list[Any]:
        """Return why both ends were lost."""
        return [party.above.events[-1] for party in (self.client, self.server)]

    def test_close(self) -> None:
        """What was written arrives, then both ends learn of an orderly end; later writes are dropped."""
        self.connect()
        self.server.below.write(LARGE)
        self.server.below.loseConnection()
        self.server.below.write(b"too late")
        self.wire.settle()
        self.assertTrue(self.client.above.data == LARGE)
        self.assertEqual(self.ends(), [ConnectionDone] * 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_peer_reads_on_after_its_end(self) -> None:
        """What was written before the peer's close_notify came is sent behind it, too."""
        self.connect()
        self.server.below.write(LARGE)
        self.client.below.loseConnection()
        self.wire.settle()
        self.assertTrue(self.client.above.data == LARGE)
        self.assertEqual(self.ends(), [ConnectionDone] * 2)

    def test_producer_writes_on(self) -> None:
        """After loseConnection a producer may still write until it unregisters."""
        self.connect()
        self.server.below.registerProducer(self.server.above, True)
        self.server.below.loseConnection()
        self.server.below.write(b"rest")
        self.wire.settle()
        self.assertIs(transport_of(self.server).phase, Phase.ENDING)
        self.server.below.unregisterProducer()
        self.wire.settle()
        self.assertEqual(self.client.above.data, b"rest")
        self.assertEqual(self.ends(), [ConnectionDone] * 2)

    def test_truncation(self) -> None:
        """A stream that ends without close_notify is a lost connection, not an orderly end."""
        self.connect()
        self.client.below.write(b"a part")
        self.wire.settle()
        self.wire.cut(0)
        self.assertEqual(self.ends(), [ConnectionLost] * 2)

    def test_abort(self) -> None:
        """Nothing is sent any more, above all no close_notify: the peer sees that it was cut."""
        self.connect()
        self.server.below.write(b"part")
        self.server.below.abortConnection()
        self.assertEqual(bytes(self.far.out), b"")
        self.wire.settle()
        self.assertEqual(self.ends(), [ConnectionLost, ConnectionAborted])
        self.server.below.abortConnection()
        self.server.below.loseConnection()

    def test_silent_peer(self) -> None:
        """A peer that does not answer our close_notify is not waited for after the time, even if reading was
        paused: it may still read what was sent. After the same time again it is cut."""
        self.connect()
        self.server.below.pauseProducing()
        self.server.below.loseConnection()
        self.assertTrue(self.far.reads)
        self.clock.advance(LIMITS.closing_seconds - 1)
        self.assertFalse(self.far.is_closing)
        self.clock.advance(1)
        self.assertEqual((self.far.is_closing, self.far.is_cut), (True, False))
        self.clock.advance(LIMITS.closing_seconds)
        self.assertTrue(self.far.is_cut)

    def test_silent_peer_that_reads(self) -> None:
        """Once everything was sent and the connection is closed, nothing is left to wait for."""
        self.connect()
        self.server.below.loseConnection()
        self.clock.advance(LIMITS.closing_seconds)
        self.wire.cut(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_half_close(self) -> None:
        """After loseWriteConnection everything of the peer is still delivered; loseConnection then closes at
        once."""
        self.connect(above=HalfLog())
        self.server.below.write(b"last")
        self.server.below.loseWriteConnection()
        self.assertEqual(self.server.above.events[-1], "write lost")
        self.client.below.write(b"more")
        self.wire.move(0)
        self.clock.advance(0)
        self.wire.move(0)
        self.assertEqual(self.server.above.data, b"more")
        self.server.below.loseConnection()
        self.assertTrue(self.far.is_closing)

    def test_close_within_data(self) -> None:
        """An answer and the close from within dataReceived leave together."""
        self.connect()

        def answer(data: bytes) -> None:
            self.server.below.write(b"answer")
            self.server.below.loseConnection()

        self.server.above.on_data = answer
        self.client.below.write(b"?")
        self.clock.advance(0)
        before = self.far.writes
        self.wire.move(0)
        self.assertEqual(self.far.writes, before + 1)
        self.wire.settle()
        self.assertEqual((self.client.above.data, self.ends()), (b"answer", [ConnectionDone] * 2))

    def test_failing_protocol(self) -> None:
        """What dataReceived raises is the stream's to handle; what handshakeCompleted raises ends the
        connection, and is logged."""
        self.connect()
        self.server.above.on_data = lambda data: 1 // 0  # type: ignore[assignment,return-value]
        self.client.below.write(b"?")
        self.clock.advance(0)
        self.assertRaises(ZeroDivisionError, self.wire.move, 0)
        self.connect(settled=False)
        self.patch(self.server.above, "handshakeCompleted", lambda: 1 // 0)
        self.wire.settle()
        self.assertEqual(self.ends(), [ConnectionLost, ZeroDivisionError])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class PeerTests(PairTestCase):
    """What is known of the peer."""

    def test_certificate(self) -> None:
        """The client sees the server's, the server none; Twisted's transports give the same by the helper."""
        self.connect()
        found = peer_certificate(self.client.below)
        assert found is not None
        self.assertEqual(found.subject.rfc4514_string(), "CN=couchgateway test")
        self.assertIsNone(peer_certificate(self.server.below))
        self.assertIsNone(peer_certificate(object()))
        other = twisted_client(self.clock, self.files.pem)
        server = own_server(self.clock, self.files)
        Wire(self.clock, other.below, server.below).settle()
        self.assertEqual(peer_certificate(other.below), found)

    def test_protocols(self) -> None:
        """The server's first protocol that the client offers is used; without a common one there is none."""
        for offered, served, agreed in (
            ([b"h2", b"http/1.1"], [b"http/1.1", b"h2"], b"http/1.1"),
            ([b"http/1.1"], [b"h2", b"http/1.1"], b"http/1.1"),
            ([b"h2"], [b"http/1.1"], None),
            (None, [b"h2"], None),
            ([b"h2"], None, None),
        ):
            server = own_server(self.clock, self.files, served)
            client = own_client(self.clock, self.files.pem, offered)
            self.assertIsNone(server.below.negotiatedProtocol)
            Wire(self.clock, client.below, server.below).settle()
            for party in (client, server):
                self.assertEqual(party.below.negotiatedProtocol, agreed)
                self.assertEqual(party.above.events, ["made", "handshake"])


class LimitTests(PairTestCase):
    """The handshake has little time, and little room."""

    def test_time(self) -> None:
        """A handshake that takes too long is cut, however steadily its bytes come."""
        self.connect(settled=False)
        for _ in range(int(LIMITS.handshake_seconds) - 1):
            self.wire.move(0, 1)
            self.clock.advance(1)
        self.assertIs(transport_of(self.server).phase, Phase.SHAKING)
        self.clock.advance(1)
        self.wire.settle()
        self.assertIs(self.server.above.events[-1], TimeoutError)
        self.assertIn("30 s", str(self.server.above.reason.value))

    def test_no_time_after_it(self) -> None:
        """An open connection may be idle forever."""
        self.connect()
        self.clock.advance(10**6)
        self.assertIs(transport_of(self.server).phase, Phase.OPEN)

    def test_bytes(self) -> None:
        """A handshake that is too long is cut, however slowly it comes."""
        self.connect(settled=False, limits=LIMITS._replace(handshake_bytes=300))
        self.wire.settle(10)
        self.assertIs(self.server.above.events[-1], ssl.SSLError)
        self.assertIn("300 bytes", str(self.server.above.reason.value))

    def test_answers_of_tls(self) -> None:
        """What TLS itself has to answer waits for a peer that does not read, and is sent when it does; a peer
        that asks for more than 64 KiB of that is cut."""
        for size, is_cut in ((1000, False), (PIECE_BYTES + 1, True)):
            self.connect()
            self.server.below.write(LARGE)
            self.clock.advance(0)
            waiting = len(self.far.out)
            self.client.below.write(b"?")
            self.clock.advance(0)
            # As OpenSSL does while it reads; no peer of these tests can make it.
            transport_of(self.server)._outgoing.write(bytes(size))
            self.wire.move(0)
            self.assertEqual(self.far.is_cut, is_cut)
            self.assertEqual(len(self.far.out), 0 if is_cut else waiting)
            self.assertEqual(self.server.above.data, b"?")

    def test_data_behind_the_handshake_is_not_of_it(self) -> None:
        """A client that sends megabytes with the end of its handshake is within the limit."""
        self.connect(settled=False, limits=LIMITS._replace(handshake_bytes=2**16))
        self.client.below.write(LARGE)
        self.wire.settle()
        self.assertTrue(self.server.above.data == LARGE)
