"""A custom transcoder: values compressed with zlib, and the result of an exception inside it.

python examples/guide/custom_transcoder.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
import zlib
from typing import Any

from couchbase import FMT_UTF8, Couchbase
from couchbase.exceptions import ValueFormatError
from couchbase.transcoder import Transcoder

KEY = "poem"
FLAG_COMPRESSED = 0x80


class ZlibTranscoder(Transcoder):
    """Compresses what gets smaller by it, and says so by a bit of the flags."""

    def encode_value(self, value: Any, format: Any) -> tuple[bytes, int]:
        """Return bytes and flags."""
        encoded, flags = super().encode_value(value, format)
        compressed = zlib.compress(encoded, 9)
        if len(compressed) < len(encoded):
            return compressed, flags | FLAG_COMPRESSED
        return encoded, flags

    def decode_value(self, value: bytes, flags: int) -> Any:
        """Return the value as it was."""
        if flags & FLAG_COMPRESSED:
            value = zlib.decompress(value)
            flags &= ~FLAG_COMPRESSED
        return super().decode_value(value, flags)


class TeamTranscoder(Transcoder):
    """Puts the team before each key on the way out, and takes it away on the way back."""

    def encode_key(self, key: Any) -> bytes:
        """Return the key as the server knows it."""
        return b"blue:" + super().encode_key(key)

    def decode_key(self, key: bytes) -> Any:
        """Return the key as the program knows it."""
        return super().decode_key(key)[len("blue:") :]


def main(connection_string: str) -> None:
    """Store through transcoders."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string, transcoder=ZlibTranscoder())
    plain = Couchbase.connect(bucket="default", connection_string=connection_string)

    poem = {"verses": ["row, row, row your boat"] * 100}
    cb.set(KEY, poem)
    print("equal:", cb.get(KEY).value == poem)
    print("compressed:", bool(cb.get(KEY).flags & FLAG_COMPRESSED))
    print("smaller:", len(plain.get(KEY, no_format=True).value) < 200)
    cb.set(KEY, "short", format=FMT_UTF8)
    print("short:", cb.get(KEY).value, "- compressed:", bool(cb.get(KEY).flags & FLAG_COMPRESSED))

    # Values that were stored without it are still readable.
    plain.set(KEY, {"not": "compressed"})
    print("stored by others:", cb.get(KEY).value)

    # A transcoder's exception arrives as a ValueFormatError with its cause.
    cb.set(KEY, poem)
    plain.prepend(KEY, "damage")
    try:
        cb.get(KEY)
    except ValueFormatError as error:
        print("damaged, says zlib:", isinstance(error.inner_cause, zlib.error))

    # It can be changed at any time, and None removes it.
    cb.transcoder = TeamTranscoder()
    cb.set("captain", "Ann")
    print("key for this program:", cb.get("captain").key)
    print("key for others:", plain.get("blue:captain").key)
    cb.delete("captain")
    cb.transcoder = None
    cb.delete(KEY)


if __name__ == "__main__":
    main(*sys.argv[1:])
