"""Encodings: text in keys and in values.

python examples/guide/text_encodings.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys

from couchbase import FMT_BYTES, FMT_UTF8, Couchbase
from couchbase.exceptions import ArgumentError, ValueFormatError

KEY = "Straße:Jelačićeva"


def main(connection_string: str) -> None:
    """Store text in several alphabets."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)

    # Keys are str, and UTF-8 on the way to the server.
    cb.set(KEY, "Zagreb")
    print("key:", ascii(cb.get(KEY).key))
    for key in (KEY.encode(), 42, None):
        try:
            cb.set(key, "value")
        except ValueFormatError:
            print("not a key:", type(key).__name__)
    try:
        cb.set("", "value")
    except ArgumentError:
        print("not a key: empty text")

    # JSON keeps text as it is, not as \u escapes.
    cb.set(KEY, ["Ελλάδα", "日本", "🍺"])
    print("JSON as stored:", ascii(cb.get(KEY, no_format=True).value))
    print("JSON as read:", ascii(cb.get(KEY).value))

    # Plain text has its own format, without the quotes of JSON ...
    cb.set(KEY, "žutý kůň", format=FMT_UTF8)
    print("UTF-8 as stored:", ascii(cb.get(KEY, no_format=True).value))
    print("UTF-8 as read:", ascii(cb.get(KEY).value))

    # ... and text in any other encoding is bytes, whose encoding is for the program to know.
    cb.set(KEY, "žutý kůň".encode("iso-8859-2"), format=FMT_BYTES)
    print("Latin 2:", ascii(cb.get(KEY).value.decode("iso-8859-2")))
    try:
        cb.set(KEY, "žutý kůň".encode("iso-8859-2"), format=FMT_UTF8)
    except ValueFormatError:
        print("bytes are not FMT_UTF8")

    cb.delete(KEY)


if __name__ == "__main__":
    main(*sys.argv[1:])
