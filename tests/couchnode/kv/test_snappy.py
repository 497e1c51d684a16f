"""Values that clients compress: stored uncompressed, or refused before anything is changed."""

from __future__ import annotations

import os
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import MAX_VALUE_BYTES, Datatype, Feature, Opcode, Status
from couchnode.data.item import StatusError
from couchnode.kv import snappy
from couchnode.kv.commands import handshake
from couchnode.kv.snappy import MAX_INFLATED_BYTES, inflate
from tests.couchnode.kv.test_commands import CommandCase, Steps
from tests.couchnode.nodes import ServedNode

FORTY = bytes.fromhex("28 00 61 9a 01 00")
"""Forty times ``a``, compressed, as the format's description has it."""

BOTH = int(Datatype.JSON | Datatype.SNAPPY)

MISSING = None if snappy.FEATURES else "cramjam is not installed"


def compress(value: bytes) -> bytes:
    """Return ``value`` as one block."""
    import cramjam  # not at the top: a platform without it skips the tests

    return bytes(cramjam.snappy.compress_raw(value))


def head(size: int) -> bytes:
    """Return the head of a block that announces ``size`` bytes."""
    out = bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((*out, size))


class InflateTests(SynchronousTestCase):
    """The codec."""

    skip = MISSING

    def test_example(self) -> None:
        """A block by hand is what it should be."""
        self.assertEqual(inflate(FORTY), b"a" * 40)

    @given(st.binary(max_size=5000))
    def test_round_trip(self, value: bytes) -> None:
        """Whatever was compressed comes out."""
        self.assertEqual(inflate(compress(value)), value)

    @given(st.binary(max_size=60))
    def test_any_bytes(self, data: bytes) -> None:
        """Anything else is refused with a status, and with no other error."""
        try:
            inflate(data)
        except StatusError as error:
            self.assertIn(error.status, (Status.EINVAL, Status.E2BIG))

    def test_bombs(self) -> None:
        """A block that announces too much is refused before memory is allocated for it, whatever follows."""
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for size, status, text in (
            (MAX_INFLATED_BYTES + 1, Status.EINVAL, "Inflated data is too big"),
            (2**32 - 1, Status.EINVAL, "Inflated data is too big"),
            (MAX_INFLATED_BYTES, Status.E2BIG, ""),
            (MAX_VALUE_BYTES + 1, Status.E2BIG, ""),
        ):
            error = self.assertRaises(StatusError, inflate, head(size) + b"\0a" + b"\xfe\1\0" * 1000)
            self.assertEqual((error.status, error.context), (status, text))
        self.assertLess(tracemalloc.get_traced_memory()[1], 2**20)
        for data in (b"", b"\x80", b"\xff" * 5, b"\xff" * 9):
            error = self.assertRaises(StatusError, inflate, data)
            self.assertEqual((error.status, error.context), (Status.EINVAL, "Failed to inflate payload"))

    def test_longest(self) -> None:
        """A value of the largest size that a document may have passes."""
        self.assertEqual(len(inflate(compress(bytes(MAX_VALUE_BYTES)))), MAX_VALUE_BYTES)


class SnappyCommands(CommandCase):
    """Commands with the feature."""

    skip = MISSING

    features = (Feature.XERROR, Feature.JSON, Feature.SNAPPY)

    def test_each_store(self) -> None:
        """Stores and concatenations take compressed values; what is stored and read is the plain text."""
        extras = bytes(8)
        for opcode, parts, stored in (
            (Opcode.SET, {"extras": extras}, b"[1]"),
            (Opcode.REPLACE, {"extras": extras}, b"[1]"),
            (Opcode.APPEND, {}, b"[1][1]"),
            (Opcode.PREPEND, {}, b"[1][1][1]"),
        ):
            self.assertStatus(
                Status.SUCCESS, opcode, key=b"k", value=compress(b"[1]"), datatype=BOTH, **parts
            )
            found = self.ask(Opcode.GET, key=b"k")
            json = int(Datatype.JSON) if stored == b"[1]" else 0
            self.assertEqual((found.value, found.datatype), (stored, json))
        self.assertStatus(
            Status.SUCCESS, Opcode.ADD, key=b"n", value=compress(b"x"), datatype=2, extras=extras
        )
        self.assertEqual(self.all(Opcode.SETQ, key=b"q", value=FORTY, datatype=2, extras=extras), [])
        self.assertEqual(self.ask(Opcode.GET, key=b"q").value, b"a" * 40)

    def test_bad_blocks_change_nothing(self) -> None:
        """A block that is truncated, or too long for a document, is refused; the document is unchanged."""
        self.set()
        for value, status in (
            (FORTY[:-1], Status.EINVAL),
            (b"", Status.EINVAL),
            (head(MAX_VALUE_BYTES + 1) + b"\0a", Status.E2BIG),
        ):
            answer = self.ask(Opcode.SET, key=b"k", value=value, datatype=2, extras=bytes(8))
            self.assertEqual(answer.specific, status)
        self.assertEqual(self.ask(Opcode.GET, key=b"k").value, b"v")

    def test_other_commands(self) -> None:
        """Commands that store no whole value refuse the bit."""
        self.set()
        for opcode, parts in (
            (Opcode.GET, {}),
            (Opcode.DELETE, {}),
            (Opcode.TOUCH, {"extras": bytes(4)}),
            (Opcode.SUBDOC_DICT_UPSERT, {"extras": b"\0\1\0", "value": b"a" + FORTY}),
            (Opcode.SUBDOC_MULTI_MUTATION, {"value": FORTY}),
        ):
            self.assertStatus(Status.EINVAL, opcode, key=b"k", datatype=2, **parts)

    def test_without_the_feature(self) -> None:
        """The bit is refused on a connection that did not negotiate it; also with SNAPPY_EVERYWHERE."""
        self.ask(Opcode.HELLO, value=b"\0\7\0\x0b")
        parts = {"key": b"k", "value": FORTY, "datatype": 2, "extras": bytes(8)}
        self.assertStatus(Status.EINVAL, Opcode.SET, **parts)
        self.assertEqual(self.ask(Opcode.HELLO, value=b"\0\7\0\x0b\0\x13").value, b"\0\7\0\x0b\0\x13")
        self.assertStatus(Status.SUCCESS, Opcode.SET, **parts)

    def test_without_the_library(self) -> None:
        """A node without the library grants neither feature, so clients never compress."""
        self.patch(handshake, "FEATURES", handshake.FEATURES - snappy.FEATURES)
        self.patch(snappy, "FEATURES", frozenset())
        self.assertEqual(self.ask(Opcode.HELLO, value=b"\0\7\0\x0a\0\x0b\0\x13").value, b"\0\7\0\x0b")
        self.assertStatus(Status.EINVAL, Opcode.SET, key=b"k", value=FORTY, datatype=2, extras=bytes(8))


class Served(ServedNode):
    """Over a socket."""

    skip = MISSING

    @inlineCallbacks
    def test_a_pipeline(self) -> Steps:
        """Compressed and plain requests in one chunk are answered in order, and read back as they were."""
        client = yield self.connect()
        yield client.hello(Feature.XERROR, Feature.SNAPPY, Feature.JSON)
        values = [b"", b"plain", b'{"a":1}' * 100, os.urandom(300), b"z" * 70_000]
        for number, value in enumerate(values):
            client.send(Opcode.SET, key=b"c%d" % number, value=compress(value), datatype=2, extras=bytes(8))
            client.send(Opcode.SET, key=b"p%d" % number, value=value, extras=bytes(8))
            client.send(Opcode.GET, key=b"c%d" % number)
        for value in values:
            for _ in range(2):
                self.assertEqual((yield client.next_answer()).specific, Status.SUCCESS)
            answer = yield client.next_answer()
            self.assertEqual((answer.value, answer.datatype & 2), (value, 0))
