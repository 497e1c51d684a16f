"""Formats: JSON, text, bytes, pickles, and the choice by type.

Reading a pickle runs what is in it: never read pickles from a bucket that others can write to. The end shows
how a program refuses them.

python examples/guide/formats.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
from datetime import date
from typing import Any, NoReturn

from couchbase import (
    FMT_AUTO,
    FMT_BYTES,
    FMT_JSON,
    FMT_PICKLE,
    FMT_UTF8,
    Couchbase,
    set_json_converters,
    set_pickle_converters,
)
from couchbase.exceptions import ValueFormatError
from couchbase.transcoder import NoPickleTranscoder

KEY = "formatted"
NAMES = {FMT_JSON: "FMT_JSON", FMT_PICKLE: "FMT_PICKLE", FMT_BYTES: "FMT_BYTES", FMT_UTF8: "FMT_UTF8"}

FITTING: dict[int, Any] = {
    FMT_JSON: {"a": [1, None, True]},
    FMT_UTF8: "plain text",
    FMT_BYTES: b"\x00\xff",
    FMT_PICKLE: {date(2013, 12, 24): {1, 2}},
}
UNFIT: dict[int, Any] = {FMT_JSON: {1, 2}, FMT_UTF8: b"bytes", FMT_BYTES: "text", FMT_PICKLE: lambda: 1}
BY_TYPE: list[Any] = ["text", b"bytes", [1, 2], {"a": 1}, None, 5, 2.5, date(2013, 12, 24)]


def no_pickles(data: object) -> NoReturn:
    """Take the place of pickle."""
    raise ValueError("this program does not use pickles")


def main(connection_string: str) -> None:
    """Store values in every format."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)

    for format, value in FITTING.items():
        cb.set(KEY, value, format=format)
        result = cb.get(KEY)
        print(NAMES[format], "->", result.value, "flags", result.flags)

    # A value that a format cannot hold is refused before anything is sent.
    for format, value in UNFIT.items():
        try:
            cb.set(KEY, value, format=format)
        except ValueFormatError:
            print(NAMES[format], "does not take a", type(value).__name__)

    # FMT_AUTO looks at the type of each value; a number is no document for it, and is pickled.
    cb.default_format = FMT_AUTO
    for value in BY_TYPE:
        cb.set(KEY, value)
        result = cb.get(KEY)
        print("FMT_AUTO:", repr(value), "as", NAMES[result.flags], "equal:", result.value == value)

    # Refuse pickles on one connection ...
    wary = Couchbase.connect(
        bucket="default", connection_string=connection_string, transcoder=NoPickleTranscoder
    )
    try:
        wary.get(KEY)
    except ValueFormatError:
        print("pickle refused by the transcoder")
    # ... or for all: the converters apply to every connection of a program.
    before = set_pickle_converters(no_pickles, no_pickles)
    try:
        cb.get(KEY)
    except ValueFormatError as error:
        print("pickle refused:", error.inner_cause)
    set_pickle_converters(*before)
    before = set_json_converters(lambda value: b"[]", lambda text: f"JSON of {len(text)} characters")
    cb.set(KEY, {"any": "thing"}, format=FMT_JSON)
    print("JSON converters:", cb.get(KEY).value)
    set_json_converters(*before)

    cb.delete(KEY)


if __name__ == "__main__":
    main(*sys.argv[1:])
