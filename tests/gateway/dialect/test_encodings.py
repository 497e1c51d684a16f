"""``Accept-Encoding`` as the Data API reads it, and Snappy bodies."""

from __future__ import annotations

import cramjam
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import MAX_VALUE_BYTES
from gateway.dialect.encodings import choose, inflated, inflated_bytes, parse_accept_encoding
from gateway.dialect.errors import Refusal


class AcceptTests(SynchronousTestCase):
    """What a header leads to."""

    def chosen(self, value: bytes, size: int | None = 5000, *, is_document: bool = True) -> bytes | None:
        return choose(parse_accept_encoding(value), size, is_document=is_document)

    def test_snappy(self) -> None:
        """Only if identity is refused: the gateway holds no document compressed."""
        for value, expected in (
            (b"", None),
            (b"identity", None),
            (b"snappy", None),
            (b"snappy;q=0.5, identity;q=0.4", None),
            (b"*", None),
            (b"identity;q=0", None),
            (b"identity;q=0,snappy;q=0", None),
            (b"snappy, identity;q=0", b"snappy"),
            (b"identity; q=0, snappy; q=0.001", b"snappy"),
            (b"identity;q=0, *", b"snappy"),
            (b"*;q=0, snappy", b"snappy"),
            (b"snappy, *;q=0", b"snappy"),
            (b"*, identity;q=0", b"snappy"),
            (b"*;q=0", None),
            (b"snappy;q=0, *;q=0", None),
            (b"identity;q=-1, snappy;q=-0.5", b"snappy"),
            (b"SNAPPY, identity;q=0", None),
            (b"snappy, IDENTITY;q=0", None),
        ):
            for size in (1, 5000):
                self.assertEqual(self.chosen(value, size), expected, value)
            self.assertIsNone(self.chosen(value, is_document=False))

    def test_registered(self) -> None:
        """The heaviest that is named; not for small bodies, unless identity is refused."""
        for value, expected in (
            (b"gzip", b"gzip"),
            (b"GZIP", b"gzip"),
            (b"gzip, deflate", b"gzip"),
            (b"gzip, deflate, br, zstd", b"zstd"),
            (b"gzip, br", b"br"),
            (b"gzip;q=1, br;q=0.5", b"gzip"),
            (b"gzip;q=0", None),
            (b"gzip;q=0.4, identity;q=0.5", None),
            (b"gzip, identity", b"gzip"),
            (b"*, gzip;q=0.5", None),
            (b"deflate", None),
            (b"snappy, gzip", b"gzip"),
            (b"snappy, gzip, identity;q=0", b"snappy"),
            (b"snappy;q=0.5, gzip, identity;q=0", b"gzip"),
        ):
            self.assertEqual(self.chosen(value), expected, value)
            streamed = self.chosen(value, None, is_document=False)
            self.assertEqual(streamed, b"gzip" if b"snappy" in value else expected, value)
            if b"identity;q=0" not in value.replace(b"q=0.5", b""):
                self.assertIsNone(self.chosen(value, 1399), value)
        self.assertEqual(self.chosen(b"gzip, identity;q=0", 1), b"gzip")

    def test_malformed(self) -> None:
        """Each names the part; other numbers than those of RFC 9110 are taken, as in the Data API."""
        for value in (
            *(b"snappy;x=1", b"snappy;q=x", b"snappy;q=1;q=1", b";", b"snappy;q=", b"gzip;q= 1", b"gzip;Q=1"),
            *(b"a;q=1_0", b"a;q=1 2", b"a;", b"identity, gzip;level=1", b"a;q=0,5;x", b"a;q=\xb2"),
        ):
            with self.assertRaises(Refusal) as caught:
                parse_accept_encoding(value)
            self.assertIn("Accept-Encoding: part ", caught.exception.message)
        for value in (
            b",",
            b",,gzip",
            b"gzip;q=2",
            b"gzip;q=1e-1",
            b"gzip ; q=.5",
            b"x;q=inf",
            b"x;q=NaN",
            b"a b",
        ):
            parse_accept_encoding(value)


class InflateTests(SynchronousTestCase):
    """Bodies of documents."""

    def test_values(self) -> None:
        """What was compressed, of any size."""
        for value in (b"", b"x", b'{"a":1}' * 10_000):
            block = bytes(cramjam.snappy.compress_raw(value))
            self.assertEqual((inflated(block), inflated_bytes(block)), (value, len(value)))

    def test_no_blocks(self) -> None:
        """Empty, cut, with something behind, in another format, too long: 400 before anything is inflated."""
        block = bytes(cramjam.snappy.compress_raw(b"some text " * 100))
        for wrong in (
            b"",
            block[:-1],
            block + b"x",
            b'{"a":1}',
            b"\xff" * 9,
            bytes(cramjam.snappy.compress(b"x")),
        ):
            with self.assertRaises(Refusal) as caught:
                inflated(wrong)
            self.assertEqual(caught.exception.problem.code, "InvalidArgument", wrong)
        size = MAX_VALUE_BYTES + 1
        head = bytes((size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21))
        with self.assertRaises(Refusal) as caught:
            inflated(head + b"\0")
        self.assertIn(str(size), caught.exception.message)
