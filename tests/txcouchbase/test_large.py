"""Large values: sent and received so that no turn of the reactor is long, with the time that they take."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from couchbase.exceptions import NetworkError, TimeoutError
from couchbase.protocol.constants import Opcode
from couchbase.protocol.frames import encode_response
from couchbase.transcoder import RawTranscoder
from tests.txcouchbase.memory import MemoryTestCase
from txcouchbase.connection import Connection
from txcouchbase.node import LARGE_BYTES

MIB = 2**20
PIECE = 65536


class LargeTests(MemoryTestCase):
    """A connection to a scripted node in memory."""

    def open(self) -> Connection:
        connection = self.connect(Connection, transcoder=RawTranscoder())
        connection._client.least_rate = MIB
        self.node.transport.pauseProducing = self.node.transport.resumeProducing = lambda: None
        return connection

    def answer(self, value: bytes) -> list[bytes]:
        """Return the answer to the one request in flight, in pieces."""
        (frame,) = self.node.reader.feed(b"".join(self.node.transport.writes))
        self.node.transport.writes.clear()
        data = encode_response(Opcode.GET, opaque=frame.opaque, extras=bytes(4), value=value, cas=1)
        return [data[at : at + PIECE] for at in range(0, len(data), PIECE)]

    def test_an_answer(self) -> None:
        """It is joined in one turn and decoded in the next; the bytes after it are not lost."""
        connection = self.open()
        value = bytes(range(256)) * (8 * MIB // 256)
        read = connection.get(b"k")
        self.clock.advance(0)
        for piece in self.answer(value):
            self.node.protocol.dataReceived(piece)
        self.assertNoResult(read)
        self.node.protocol.dataReceived(b"")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(read).value, value)
        again = connection.get(b"k")
        self.clock.advance(0)
        for piece in self.answer(b"small"):
            self.node.protocol.dataReceived(piece)
        self.assertEqual(self.successResultOf(again).value, b"small")

    def test_time_for_an_answer(self) -> None:
        """Waiting operations get the time that a large answer before them takes at the least rate, and no
        more."""
        connection = self.open()
        read = connection.get(b"k")
        self.clock.advance(0)
        pieces = self.answer(b"x" * 8 * MIB)
        self.node.protocol.dataReceived(pieces[0])
        behind = connection.get(b"other")
        self.clock.advance(0)
        self.clock.pump([0.1] * 100)
        self.assertNoResult(read)
        self.clock.pump([0.1] * 10)
        self.failureResultOf(read, TimeoutError)
        self.failureResultOf(behind, TimeoutError)

    def test_time_for_a_value(self) -> None:
        """A large value is given the time it takes at the least rate; a small one beside it is not."""
        connection = self.open()
        small, large = connection.set(b"a", b"x"), connection.set(b"b", b"x" * 8 * MIB)
        self.clock.advance(0)
        self.clock.pump([0.1] * 27)
        self.failureResultOf(small, TimeoutError)
        self.assertNoResult(large)
        self.clock.pump([0.1] * 82)
        self.failureResultOf(large, TimeoutError)

    def test_lost_before_it_is_decoded(self) -> None:
        """The operation fails, and no timer is left."""
        connection = self.open()
        read = connection.get(b"k")
        self.clock.advance(0)
        for piece in self.answer(b"x" * MIB):
            self.node.protocol.dataReceived(piece)
        self.node.protocol.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(read, NetworkError)
        self.clock.advance(0)

    def test_a_value(self) -> None:
        """It leaves in pieces, each when the node has taken the one before; what is given meanwhile comes
        behind."""
        connection = self.open()
        protocol, transport = self.node.protocol, self.node.transport
        sizes: list[int] = []
        write = transport.write

        def full(data: bytes) -> None:
            sizes.append(len(data))
            write(data)
            protocol.pauseProducing()

        transport.write = full
        value = bytes(range(256)) * (MIB // 256)
        stored: list[Any] = [connection.set(b"large", value), connection.set(b"next", b"1")]
        self.clock.advance(0)
        stored.append(connection.set(b"later", b"2"))
        self.clock.advance(0)
        self.assertEqual(len(sizes), 1)
        for _ in range(10):
            protocol.resumeProducing()
            self.clock.advance(0)
        self.assertLessEqual(max(sizes), LARGE_BYTES)
        transport.write = write
        protocol.dataReceived(self.node.answers())
        self.assertEqual([frame.key for frame in self.node.seen], [b"large", b"next", b"later"])
        self.assertTrue(self.node.seen[0].value == value)
        for one in stored:
            self.successResultOf(one)
