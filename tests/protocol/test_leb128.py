"""LEB128 numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.leb128 import MAX_BYTES, MAX_NUMBER, decode_leb128, encode_leb128

KNOWN = {
    0: "00",
    8: "08",
    0x7F: "7f",
    0x80: "80 01",
    0x555: "d5 0a",
    0x5555: "d5 aa 01",
    0xCAFEF00D: "8d e0 fb d7 0c",
    0xFFFFFFFF: "ff ff ff ff 0f",
}


class Leb128Tests(SynchronousTestCase):
    """Both directions, and invalid input."""

    def test_known_numbers(self) -> None:
        """The encodings that the server's documentation lists."""
        for number, text in KNOWN.items():
            self.assertEqual(encode_leb128(number), bytes.fromhex(text))
            self.assertEqual(decode_leb128(bytes.fromhex(text)), (number, len(bytes.fromhex(text))))

    @given(st.integers(0, MAX_NUMBER), st.binary(), st.binary(max_size=8))
    def test_there_and_back(self, number: int, before: bytes, after: bytes) -> None:
        """A number is read where it begins, whatever stands around it, and ends where the rest begins."""
        encoded = encode_leb128(number)
        self.assertLessEqual(len(encoded), MAX_BYTES)
        self.assertEqual(
            decode_leb128(before + encoded + after, len(before)), (number, len(before) + len(encoded))
        )

    @given(st.binary(max_size=8))
    def test_any_bytes(self, data: bytes) -> None:
        """What decodes is the one encoding of its number; anything else is refused as such."""
        try:
            number, end = decode_leb128(data)
        except ValueError as fault:
            self.assertIn("LEB128", str(fault))
        else:
            self.assertEqual(encode_leb128(number), data[:end])

    def test_no_numbers(self) -> None:
        """Empty, cut off, longer than it has to be, and more than 32 bits."""
        for text in ("", "80", "ffffffff", "8000", "ff8000", "ffffffff1f", "808080808000", "ffffffffff01"):
            self.assertRaises(ValueError, decode_leb128, bytes.fromhex(text))
        for number in (-1, MAX_NUMBER + 1):
            self.assertRaises(ValueError, encode_leb128, number)

    @given(st.integers(0, MAX_NUMBER), st.integers(0, MAX_NUMBER))
    def test_none_begins_with_another(self, one: int, other: int) -> None:
        """So keys of two collections never are the same."""
        if one != other:
            self.assertFalse(encode_leb128(one).startswith(encode_leb128(other)))
