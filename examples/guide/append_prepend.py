"""Append and prepend: for text and bytes, and their effect on JSON.

python examples/guide/append_prepend.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys

from couchbase import FMT_BYTES, FMT_JSON, FMT_UTF8, Couchbase
from couchbase.exceptions import ArgumentError, NotStoredError, ValueFormatError

KEY = "log"


def main(connection_string: str) -> None:
    """Let documents grow at both ends."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)

    try:
        cb.append(KEY, "first")
    except NotStoredError:
        print("append needs a document")

    cb.set(KEY, "two", format=FMT_UTF8)
    cb.append(KEY, ";three")
    cb.prepend(KEY, "one;")
    print("text:", cb.get(KEY).value)
    cb.append_multi({KEY: ";four"})
    print("text:", cb.get(KEY).value)

    cb.set(KEY, b"\x01", format=FMT_BYTES)
    cb.append(KEY, b"\x02", format=FMT_BYTES)
    print("bytes:", cb.get(KEY).value)

    try:
        cb.append(KEY, {"five": 5}, format=FMT_JSON)
    except ArgumentError:
        print("fragments are text or bytes, never JSON")

    # The server joins bytes and looks at nothing. A document that was JSON is still marked so, but
    # it cannot be read any more.
    cb.set(KEY, {"three": 3})
    cb.prepend(KEY, "NOT JSON")
    try:
        cb.get(KEY)
    except ValueFormatError as error:
        print("not readable:", type(error.inner_cause).__name__)
        print("the bytes are at hand:", error.objextra)
    print("and so they are here:", cb.get(KEY, no_format=True).value)
    # Nothing is lost: storing the right thing again repairs it.
    cb.set(KEY, {"three": 3})
    print("repaired:", cb.get(KEY).value)

    cb.delete(KEY)


if __name__ == "__main__":
    main(*sys.argv[1:])
