"""Answers that say how long they took: their form, and when connections get them."""

from __future__ import annotations

from struct import pack
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.frames import FrameReader, decode_frame_infos, encode_response
from couchnode.kv.durations import add_durations, encode_duration, with_duration
from tests.couchnode.kv.test_commands import Steps
from tests.couchnode.nodes import ServedNode

SET_EXTRAS = bytes(8)


def micros(framing: bytes) -> float:
    """Return the duration in framing extras, in microseconds."""
    ((number, data),) = decode_frame_infos(framing)
    assert number == 0 and len(data) == 2
    return float(int.from_bytes(data, "big") ** 1.74 / 2)


class FormTests(SynchronousTestCase):
    """Frames and numbers."""

    @given(st.floats(0, 100))
    def test_numbers(self, seconds: float) -> None:
        """A duration is kept within six percent, and short ones within 3 microseconds."""
        found = micros(encode_duration(seconds))
        self.assertLessEqual(abs(found - seconds * 1e6), max(seconds * 1e6 * 0.06, 3))

    def test_ends(self) -> None:
        """None is below 0, or above what the field holds."""
        self.assertEqual(encode_duration(-1), b"\2\0\0")
        self.assertEqual(encode_duration(1e9), b"\2\xff\xff")
        self.assertEqual(encode_duration(0.000335), b"\2" + pack(">H", 42))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([0x00, 0x01, 0xD1]),
                st.binary(max_size=20),
                st.binary(max_size=250),
                st.binary(max_size=40),
                st.integers(0, 2**32 - 1),
                st.integers(0, 2**64 - 1),
            ),
            max_size=5,
        )
    )
    def test_frames(self, answers: list[tuple[Any, ...]]) -> None:
        """Every other part stays as it is; what has a duration already is not changed."""
        data = b"".join(
            encode_response(opcode, 0, extras=extras, key=key, value=value, opaque=opaque, cas=cas)
            for opcode, extras, key, value, opaque, cas in answers
        )
        timed = with_duration(data, encode_duration(0.001))
        found = FrameReader().feed(timed)
        parts = [(one.opcode, one.extras, one.key, one.value, one.opaque, one.cas) for one in found]
        self.assertEqual(parts, answers)
        self.assertTrue(all(abs(micros(one.framing) - 1000) < 30 for one in found))
        self.assertEqual(with_duration(timed, encode_duration(5)), timed)

    def test_hello(self) -> None:
        """The answer to HELLO has none."""
        answer = encode_response(Opcode.HELLO, 0, value=b"\0\x0f")
        out = [answer, encode_response(Opcode.NOOP, 0)]
        add_durations(out, [], 1.0)
        self.assertEqual(out[0][: len(answer)], answer)
        (_, noop) = FrameReader().feed(out[0])
        self.assertLess(abs(micros(noop.framing) - 500_000), 30_000)
        add_durations([], [], 1.0)


class Served(ServedNode):
    """Over a socket."""

    @inlineCallbacks
    def test_answers(self) -> Steps:
        """Hits and misses, the usual commands and others have a duration after HELLO has granted it, and none
        before, or after it was taken back."""
        client = yield self.connect()
        plain = yield client.ask(Opcode.SET, key=b"k", value=b"v", extras=SET_EXTRAS)
        self.assertEqual(plain.framing, b"")
        granted = yield client.hello(Feature.XERROR, Feature.MUTATION_SEQNO, Feature.TRACING)
        self.assertEqual((granted.framing, granted.value[-2:]), (b"", pack(">H", Feature.TRACING)))
        asked = [
            client.ask(Opcode.GET, key=b"k"),
            client.ask(Opcode.GET, key=b"none"),
            client.ask(Opcode.SET, key=b"k", value=b"w", extras=SET_EXTRAS),
            client.ask(Opcode.NOOP),
            client.ask(0xEE),
        ]
        answers = yield gatherResults(asked)
        statuses = [one.specific for one in answers]
        self.assertEqual(statuses, [0, Status.KEY_ENOENT, 0, 0, Status.UNKNOWN_COMMAND])
        self.assertEqual((answers[0].value, len(answers[2].extras)), (b"v", 16))
        for answer in answers:
            self.assertLess(micros(answer.framing), 60e6)
        yield client.hello(Feature.XERROR)
        plain = yield client.ask(Opcode.NOOP)
        self.assertEqual(plain.framing, b"")
