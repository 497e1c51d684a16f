"""Content types and flags.

The top byte of a document's flags is the "common flags" format of every Couchbase SDK since 2;
SDK 1.2 uses the lowest three bits instead. Unknown or private formats are sniffed.
"""

from __future__ import annotations

from gateway.jsontools import is_json

__all__ = ["BINARY", "FLAGS_OF_TYPE", "JSON", "TEXT", "content_type", "format_of"]

JSON = b"application/json"
TEXT = b"text/plain"
BINARY = b"application/octet-stream"

FLAGS_JSON = 0x02000000
FLAGS_BINARY = 0x03000000
FLAGS_TEXT = 0x04000000

FLAGS_OF_TYPE = {JSON: FLAGS_JSON, TEXT: FLAGS_TEXT, BINARY: FLAGS_BINARY}
"""Content type of a request, exactly as written -> flags; any other type gives 0 (Data API)."""

_COMMON = {2: JSON, 3: BINARY, 4: TEXT}

# FMT_PICKLE, FMT_BYTES, FMT_UTF8 of SDK 1.2. A pickle stays opaque: it is never opened here.
_LEGACY = {1: BINARY, 2: BINARY, 4: TEXT}


def format_of(flags: int) -> bytes | None:
    """Return the content type that flags declare, ``None`` if they declare none."""
    common = _COMMON.get(flags >> 24)
    if common is not None:
        return common
    return _LEGACY.get(flags)


def content_type(flags: int, value: bytes) -> bytes:
    """Return the content type of a stored value: by its flags, else by looking at it."""
    declared = format_of(flags)
    if declared is not None:
        return declared
    if is_json(value):
        return JSON
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return BINARY
    return TEXT
