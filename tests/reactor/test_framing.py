"""Frames with a length in front: cut right however they arrive, and refused when they cannot be."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reactor.framing import LENGTH, MAX_FRAME_BYTES, FrameBuffer, FramingError, frame_of, value_in

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=20) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=8,
)


def all_of(buffer: FrameBuffer) -> list[bytes]:
    """Take every body that is complete."""
    bodies = []
    while (body := buffer.take()) is not None:
        bodies.append(body)
    return bodies


# The types of marshal that are followed by a number of members in four bytes, with and without its flag.
CONTAINER = re.compile(rb"([(\[<>\xa8\xdb\xbc\xbe])(.).{3}", re.DOTALL)


class FrameTests(SynchronousTestCase):
    """Both directions."""

    @given(st.lists(VALUES, max_size=5), st.data())
    def test_round_trip(self, values: list[object], data: st.DataObject) -> None:
        """Messages that one end frames arrive at the other, in order, in any pieces; nothing remains."""
        stream = b"".join(frame_of(value) for value in values)
        buffer = FrameBuffer()
        taken = []
        at = 0
        while at < len(stream):
            size = data.draw(st.integers(1, len(stream) - at))
            buffer.feed(stream[at : at + size])
            at += size
            taken += [value_in(body) for body in all_of(buffer)]
        self.assertEqual(taken, values)
        self.assertEqual(len(buffer), 0)

    def test_every_split(self) -> None:
        """Three frames, one of them empty, cut once at each place and byte by byte."""
        bodies = [b"first", b"", b"x" * 300]
        stream = b"".join(LENGTH.pack(len(body)) + body for body in bodies)
        splits = [[stream[:at], stream[at:]] for at in range(len(stream) + 1)]
        splits.append([stream[at : at + 1] for at in range(len(stream))])
        for pieces in splits:
            buffer = FrameBuffer()
            taken = []
            for piece in pieces:
                buffer.feed(piece)
                taken += all_of(buffer)
            self.assertEqual(taken, bodies)

    def test_missing(self) -> None:
        """``missing`` counts down to the end of the head, then to the end of the body."""
        buffer = FrameBuffer()
        stream = LENGTH.pack(3) + b"abc"
        counted = [buffer.missing]
        for at in range(len(stream)):
            buffer.feed(stream[at : at + 1])
            counted.append(buffer.missing)
        self.assertEqual(counted, [4, 3, 2, 1, 3, 2, 1, 0])
        self.assertEqual(buffer.take(), b"abc")
        self.assertEqual(buffer.missing, 4)

    def test_too_long(self) -> None:
        """A head that claims more than the limit is refused before any of the body is waited for."""
        buffer = FrameBuffer(10)
        buffer.feed(LENGTH.pack(10) + b"0123456789" + LENGTH.pack(11))
        self.assertEqual(buffer.take(), b"0123456789")
        with self.assertRaisesRegex(FramingError, "a frame of 11 bytes; at most 10"):
            buffer.take()
        with self.assertRaises(FramingError):
            buffer.missing  # noqa: B018  # a property that raises
        largest = FrameBuffer()
        largest.feed(LENGTH.pack(MAX_FRAME_BYTES + 1))
        self.assertRaises(FramingError, largest.take)

    @given(st.binary(max_size=40))
    def test_no_value(self, body: bytes) -> None:
        """Any body is a value or a ``FramingError``, nothing else."""
        try:
            # marshal allocates a container at its announced size, here at most 255.
            value_in(CONTAINER.sub(rb"\1\2\0\0\0", body))
        except FramingError as error:
            self.assertIn("does not contain a value", str(error))

    def test_unwritable(self) -> None:
        """A value that marshal cannot write is the sender's error, before a byte is sent."""
        self.assertRaises(ValueError, frame_of, object())
