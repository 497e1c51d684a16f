"""Stored values as members of a JSON answer: JSON as stored, other values as text or base64."""

from __future__ import annotations

from base64 import b64encode
from codecs import getincrementaldecoder
from collections.abc import Generator
from typing import NamedTuple

from couchbase.protocol.jsontext import NotJson, check
from gateway.dialect.contenttypes import JSON, TEXT, format_of
from gateway.dialect.jsontools import dumps, fast_loads, is_json

__all__ = ["BATCH", "VIEW", "MemberNames", "value_member", "value_member_steps"]

_PIECE_BYTES = 96 * 1024
"""Divisible by three, so that base64 can be encoded piece by piece."""


class MemberNames(NamedTuple):
    """The possible names of a member, each as JSON with its colon."""

    json: bytes
    text: bytes | None
    """Name for text; ``None`` to send text as base64, too."""
    base64: bytes = b'"base64":'


BATCH = MemberNames(b'"value":', b'"text":')
VIEW = MemberNames(b'"json":', None)


def value_member(names: MemberNames, flags: int, value: bytes) -> bytes:
    """Return the JSON member for a value."""
    declared = format_of(flags)
    if declared in (JSON, None) and is_json(value):
        # find() searches bytes much faster than "in".
        if value.find(b"\n") >= 0 or value.find(b"\r") >= 0:
            value = _without_line_ends(value)
        return names.json + value
    if names.text is not None and declared in (TEXT, JSON, None):
        try:
            return names.text + dumps(value.decode("utf-8"))
        except UnicodeDecodeError:
            pass
    return names.base64 + b'"' + b64encode(value) + b'"'


def _without_line_ends(piece: bytes) -> bytes:
    # In JSON, a newline is only whitespace; in the answer it would end the line.
    return piece.replace(b"\n", b" ").replace(b"\r", b" ")


def value_member_steps(names: MemberNames, flags: int, value: bytes) -> Generator[None, None, bytes]:
    """Return the same for a long value; yields after each step of work."""
    declared = format_of(flags)
    starts = range(0, len(value), _PIECE_BYTES)
    if declared in (JSON, None):
        try:
            yield from check(value, fast_loads)
        except NotJson:
            pass
        else:
            pieces = [names.json]
            for at in starts:
                pieces.append(_without_line_ends(value[at : at + _PIECE_BYTES]))
                yield
            return b"".join(pieces)
    if names.text is not None and declared in (TEXT, JSON, None):
        decoder = getincrementaldecoder("utf-8")()
        pieces = [names.text, b'"']
        try:
            for at in starts:
                text = decoder.decode(value[at : at + _PIECE_BYTES], at == starts[-1])
                pieces.append(dumps(text)[1:-1])
                yield
            return b"".join([*pieces, b'"'])
        except UnicodeDecodeError:
            pass
    pieces = [names.base64, b'"']
    for at in starts:
        pieces.append(b64encode(value[at : at + _PIECE_BYTES]))
        yield
    return b"".join([*pieces, b'"'])
