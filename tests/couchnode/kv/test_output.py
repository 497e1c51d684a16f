"""Answers on their way to the transport: in order, large ones in pieces, and counted while the client does
not read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchnode.kv.output import LARGE_BYTES, Output
from couchnode.kv.phases import Flow


class OutputTests(SynchronousTestCase):
    """An output over a list."""

    def setUp(self) -> None:
        self.sent: list[bytes] = []
        self.held: list[int] = []
        self.output = Output(self.held.append)
        self.output.open(self.transmit)

    def transmit(self, data: bytes) -> int:
        """Take all of it; answers that come while the transport is full remain there."""
        self.sent.append(data)
        return len(data) if self.output.flow is Flow.FULL else 0

    @given(st.lists(st.tuples(st.integers(0, 3 * LARGE_BYTES), st.booleans(), st.booleans()), max_size=6))
    def test_order(self, answers: list[tuple[int, bool, bool]]) -> None:
        """Whatever is large, whenever the transport is full: all bytes leave in order, in bounded pieces."""
        self.setUp()
        whole = [bytes([at + 1]) * size for at, (size, _, _) in enumerate(answers)]
        for data, (_, full, together) in zip(whole, answers, strict=True):
            if full:
                self.output.pause()
            if together:
                self.output.write_all([data[:100], data[100:]] if data else [], len(data))
            elif len(data) > LARGE_BYTES:
                self.output.write_in_pieces([data])
            else:
                self.output.write(data)
            if not full:
                self.output.resume()
        self.output.resume()
        self.assertEqual(b"".join(self.sent), b"".join(whole))
        self.assertLessEqual(max(map(len, self.sent), default=0), LARGE_BYTES)
        self.assertEqual(sum(self.held), 0)
        self.assertFalse(self.output.unsent)

    def test_full(self) -> None:
        """Bytes given to a full transport are counted until it is empty; pieces of large answers wait
        here."""
        self.output.pause()
        self.output.write(b"four")
        self.assertEqual(self.held, [4])
        self.output.write_in_pieces([b"x" * LARGE_BYTES])
        self.assertEqual(self.sent, [b"four"])
        self.output.resume()
        self.assertEqual(self.held, [4, -4])
        self.assertEqual(b"".join(self.sent), b"four" + b"x" * LARGE_BYTES)

    def test_lost(self) -> None:
        """Before the connection exists, and after its end, writing does nothing."""
        self.output.pause()
        self.output.write(b"held")
        self.output.lose()
        self.output.write(b"late")
        self.output.resume()
        self.output.pause()
        self.assertEqual((self.sent, self.held), ([b"held"], [4, -4]))
        self.assertIs(self.output.flow, Flow.LOST)
        Output(self.held.append).write(b"early")
