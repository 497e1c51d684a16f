"""The server's duration in answers, for connections that asked for it (HELLO feature Tracing)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from struct import Struct
from typing import Protocol

from couchbase.protocol.constants import HEADER_BYTES, Magic, Opcode

_HEAD = Struct(">BBHBBHI")
_BODY = Struct(">I")
_DURATION = Struct(">BH")
_RESPONSE, _ALT_RESPONSE, _HELLO = int(Magic.RESPONSE), int(Magic.ALT_RESPONSE), int(Opcode.HELLO)
_ID_AND_LENGTH = 0x02
_MOST = 0xFFFF
_EXPONENT = 1 / 1.74


def encode_duration(seconds: float) -> bytes:
    """Return the frame info for a duration, whose precision falls with its size; at most 2 minutes."""
    encoded = round((seconds * 2e6) ** _EXPONENT) if seconds > 0 else 0
    return _DURATION.pack(_ID_AND_LENGTH, min(encoded, _MOST))


class Place(Protocol):
    """The place of an answer."""

    answer: bytes | None


def add_durations(out: list[bytes], places: Collection[Place], seconds: float) -> None:
    """Add the server's duration to answers; answers that have one already are unchanged.

    :param out: complete answers, in any pieces.
    :param places: answers that may still be pending.
    :param seconds: duration of all of them together.
    """
    answers = b"".join(out)
    count = sum(1 for _ in _frames(answers)) + len(places)
    info = encode_duration(seconds / count) if count else b""
    if out:
        out[:] = [with_duration(answers, info)]
    for place in places:
        if place.answer is not None:
            place.answer = with_duration(place.answer, info)


def with_duration(answers: bytes, info: bytes) -> bytes:
    """Return answers with a duration in each, except in the answer to HELLO.

    :param answers: whole frames.
    :param info: the result of :func:`encode_duration`.
    """
    parts: list[bytes] = []
    size = len(info)
    for at, end in _frames(answers):
        magic, opcode, key, extras, datatype, status, body = _HEAD.unpack_from(answers, at)
        if magic != _RESPONSE or opcode == _HELLO or key > 0xFF:
            parts.append(answers[at:end])
        else:
            parts += (
                _HEAD.pack(_ALT_RESPONSE, opcode, size << 8 | key, extras, datatype, status, size + body),
                answers[at + _HEAD.size : at + HEADER_BYTES],
                info,
                answers[at + HEADER_BYTES : end],
            )
    return b"".join(parts)


def _frames(answers: bytes) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each frame."""
    at = 0
    while at < len(answers):
        (body,) = _BODY.unpack_from(answers, at + _HEAD.size - _BODY.size)
        end = at + HEADER_BYTES + body
        yield at, end
        at = end
