"""Content types and flags.

The top byte of a document's flags is the "common flags" format of every Couchbase SDK since 2; SDK 1.2 uses
the lowest three bits instead. For unknown or private formats, the content type is derived from the value
itself.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Generator

from couchbase.protocol.jsontext import STEP_BYTES, NotJson, check
from gateway.dialect.errors import bad_request
from gateway.dialect.jsontools import fast_loads, is_json

__all__ = [
    "BINARY",
    "FLAGS_OF_TYPE",
    "JSON",
    "TEXT",
    "charset_of",
    "check_charset",
    "content_type",
    "flags_of",
    "format_of",
    "media_type",
    "sniffing",
]

JSON = b"application/json"
TEXT = b"text/plain"
BINARY = b"application/octet-stream"

FLAGS_JSON = 0x02000000
FLAGS_BINARY = 0x03000000
FLAGS_TEXT = 0x04000000

FLAGS_OF_TYPE = {JSON: FLAGS_JSON, TEXT: FLAGS_TEXT, BINARY: FLAGS_BINARY}
"""Content type of a request in its usual spelling -> flags; see :func:`flags_of` for other spellings."""

_UTF_8 = frozenset({b"", b"utf-8", b"utf8", b"us-ascii"})

_COMMON = {2: JSON, 3: BINARY, 4: TEXT}

# FMT_PICKLE, FMT_BYTES, FMT_UTF8 of SDK 1.2. A pickle stays opaque: the gateway never loads it.
_LEGACY = {1: BINARY, 2: BINARY, 4: TEXT}


def format_of(flags: int) -> bytes | None:
    """Return the content type declared by flags, ``None`` if there is none."""
    common = _COMMON.get(flags >> 24)
    if common is not None:
        return common
    return _LEGACY.get(flags)


def media_type(declared: bytes) -> bytes:
    """Return the type of a ``Content-Type``, in lower case and without parameters."""
    return declared.partition(b";")[0].strip().lower()


def charset_of(declared: bytes) -> bytes:
    """Return the charset of a ``Content-Type``, in lower case; empty if it names none."""
    for parameter in declared.split(b";")[1:]:
        name, _, value = parameter.partition(b"=")
        if name.strip().lower() == b"charset":
            return value.strip().strip(b'"').lower()
    return b""


def flags_of(declared: bytes) -> int:
    """Return the flags to store with a value of that ``Content-Type``, in any case and with any parameters.

    0 for types without a format in the SDKs, and for text in a charset other than UTF-8, which an SDK would
    misread.
    """
    kind = media_type(declared)
    if kind == TEXT and charset_of(declared) not in _UTF_8:
        return 0
    return FLAGS_OF_TYPE.get(kind, 0)


def check_charset(declared: bytes) -> None:
    """Refuse JSON that is not in UTF-8; raises Refusal (400)."""
    charset = charset_of(declared)
    if charset not in _UTF_8:
        shown = charset[:40].decode("latin-1")
        raise bad_request(f"Content-Type: the charset {shown!r} is not supported; send JSON in UTF-8")


def sniffing(value: bytes) -> Generator[None, None, bytes]:
    """Derive the content type from a value without format flags; yields after each step of work."""
    try:
        yield from check(value, fast_loads)
        return JSON
    except NotJson:
        pass
    decoder = getincrementaldecoder("utf-8")()
    try:
        for at in range(0, len(value), STEP_BYTES):
            decoder.decode(value[at : at + STEP_BYTES])
            yield
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return BINARY
    return TEXT


def content_type(flags: int, value: bytes) -> bytes:
    """Return the content type of a stored value: from its flags, else from the value itself."""
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
