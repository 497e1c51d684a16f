"""Bypassing conversion: the bytes as they are stored, by no_format or data_passthrough.

python examples/guide/raw_values.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys

from couchbase import FMT_UTF8, Couchbase
from couchbase.exceptions import ValueFormatError

KEY = "raw"


def main(connection_string: str) -> None:
    """Read bytes where there is an object."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)
    cb.set(KEY, {"list": [1, 2, 3]})

    # For one call; keys and flags as usual.
    result = cb.get(KEY, no_format=True)
    print("no_format:", result.value, "flags", result.flags, "key", result.key)
    print("no_format, many:", cb.get_multi([KEY], no_format=True)[KEY].value)

    # For the connection, for example in a program that copies documents without parsing them.
    cb.data_passthrough = True
    print("data_passthrough:", cb.get(KEY).value)
    cb.set(KEY, "text", format=FMT_UTF8)
    print("data_passthrough, text:", cb.get(KEY).value)
    cb.data_passthrough = False
    print("converted again:", cb.get(KEY).value)

    # A way to what cannot be converted.
    cb.set(KEY, 1)
    cb.append(KEY, " and more")
    try:
        cb.get(KEY)
    except ValueFormatError:
        print("neither JSON:", cb.get(KEY, no_format=True).value)

    cb.delete(KEY)


if __name__ == "__main__":
    main(*sys.argv[1:])
