"""Frames: splits a byte stream into frames, and builds frames.

A frame is a 24-byte header and a body of framing extras, extras, key and value, in that order. Two header
layouts exist: the classic one with a two-byte key length, and the flexible one (magic 0x08 and 0x18) whose
first length byte counts the framing extras. This module knows no opcodes and reads no sockets.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

from couchbase.protocol.constants import (
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    REQUEST_MAGICS,
    RESPONSE_MAGICS,
    Magic,
)
from couchbase.protocol.strangers import looks_like

HEADER = Struct(">BBHBBHIIQ")
"""magic, opcode, key length, extras length, datatype, vbucket or status, body length, opaque, CAS"""

_ALTERNATE = frozenset({Magic.ALT_REQUEST, Magic.ALT_RESPONSE})
_NIBBLE_ESCAPE = 15


class FrameError(Exception):
    """The peer sent bytes that are not a valid frame, or a frame cannot be built from these arguments."""


class Frame(NamedTuple):
    """One frame as it crossed the wire.

    ``specific`` is the vbucket id of a request and the status of a response. ``framing`` holds the framing
    extras undecoded (see :func:`decode_frame_infos`). ``opaque`` and ``cas`` are unsigned integers, in
    network byte order in the header.
    """

    magic: int
    opcode: int
    specific: int
    datatype: int
    opaque: int
    cas: int
    framing: bytes
    extras: bytes
    key: bytes
    value: bytes


class FrameReader:
    """Splits received bytes, in pieces of any size, into frames.

    :param max_frame_bytes: largest frame accepted, header included. A header that claims more is
        a violation before any of its body is buffered, so at most one frame of this size is held.
    :param magics: first bytes that may open a frame; the default accepts both directions.
    """

    __slots__ = ("_chunks", "_have", "_magics", "_max_body", "_need", "violation")

    violation: FrameError | None
    """Why the stream cannot continue, or ``None``. The frames before the violation have been returned. The
    start of the next frame is unknown, so handle the returned frames and close the connection."""

    def __init__(
        self,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        magics: Iterable[int] = REQUEST_MAGICS | RESPONSE_MAGICS,
    ) -> None:
        self._max_body = max_frame_bytes - HEADER_BYTES
        self._magics = frozenset(map(int, magics))
        self._chunks: list[bytes] = []
        self._have = 0
        # Number of bytes that another attempt needs. Without it, a large value that arrives in small pieces
        # would be joined again for each piece.
        self._need = HEADER_BYTES
        self.violation = None

    @property
    def buffered_bytes(self) -> int:
        """Number of held bytes of an incomplete frame."""
        return self._have

    def feed(self, data: bytes) -> list[Frame]:
        """Take one chunk of any size; return the completed frames, oldest first.

        After a violation every further call returns an empty list.
        """
        if self.violation is not None:
            return []
        if self._have:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._have = 0
        size = len(data)
        frames: list[Frame] = []
        start = 0
        need = HEADER_BYTES
        unpack, make, magics = HEADER.unpack_from, tuple.__new__, self._magics
        while size - start >= HEADER_BYTES:
            magic, opcode, key_length, extras_length, datatype, specific, body, opaque, cas = unpack(
                data, start
            )
            if magic not in magics:
                self._refuse(data[start:])
                return frames
            framing_length = 0
            if magic in _ALTERNATE:
                framing_length = key_length >> 8
                key_length &= 0xFF
            if body > self._max_body:
                self._violate(f"a body of {body} bytes is over the limit of {self._max_body}")
                return frames
            at = start + HEADER_BYTES
            end = at + body
            extras_at = at + framing_length
            key_at = extras_at + extras_length
            value_at = key_at + key_length
            if value_at > end:
                self._violate(
                    f"lengths of framing extras ({framing_length}), extras ({extras_length}) and "
                    f"key ({key_length}) exceed the body of {body} bytes"
                )
                return frames
            if end > size:
                need = HEADER_BYTES + body
                break
            frames.append(
                make(
                    Frame,
                    (
                        magic,
                        opcode,
                        specific,
                        datatype,
                        opaque,
                        cas,
                        data[at:extras_at],
                        data[extras_at:key_at],
                        data[key_at:value_at],
                        data[value_at:end],
                    ),
                )
            )
            start = end
        if start < size:
            if data[start] not in magics:
                # Do not wait for the rest of the header: a peer of another protocol may never send it.
                self._refuse(data[start:])
                return frames
            # data[start:] copies, so the (perhaps much larger) chunk can be freed.
            self._chunks.append(data[start:] if start else data)
            self._have = size - start
            self._need = need
        return frames

    def _refuse(self, data: bytes) -> None:
        name = looks_like(data)
        hint = f": it looks like {name}" if name else ""
        self._violate(f"0x{data[0]:02x} cannot open a frame here{hint}")

    def _violate(self, reason: str) -> None:
        self.violation = FrameError(reason)


# Many parameters: the fields of a frame.
def encode_request(
    opcode: int,
    *,
    key: bytes = b"",
    extras: bytes = b"",
    value: bytes = b"",
    vbucket: int = 0,
    opaque: int = 0,
    cas: int = 0,
    datatype: int = 0,
    framing: bytes = b"",
    magic: int | None = None,
) -> bytes:
    """Build a request frame.

    :param framing: encoded framing extras (:func:`encode_frame_infos`); when not empty the frame
        gets the flexible header.
    :param magic: first byte, for server-initiated requests; chosen from ``framing`` by default.
    :raises FrameError: a part is too long for its length field.
    """
    if magic is None:
        magic = Magic.ALT_REQUEST if framing else Magic.REQUEST
    return _encode(magic, opcode, vbucket, key, extras, value, opaque, cas, datatype, framing)


# Many parameters: the fields of a frame.
def encode_response(
    opcode: int,
    status: int = 0,
    *,
    key: bytes = b"",
    extras: bytes = b"",
    value: bytes = b"",
    opaque: int = 0,
    cas: int = 0,
    datatype: int = 0,
    framing: bytes = b"",
) -> bytes:
    """Build a response frame; with ``framing`` it gets the flexible header.

    :raises FrameError: a part is too long for its length field.
    """
    magic = Magic.ALT_RESPONSE if framing else Magic.RESPONSE
    return _encode(magic, opcode, status, key, extras, value, opaque, cas, datatype, framing)


# Many parameters: the fields of a frame.
def _encode(
    magic: int,
    opcode: int,
    specific: int,
    key: bytes,
    extras: bytes,
    value: bytes,
    opaque: int,
    cas: int,
    datatype: int,
    framing: bytes,
) -> bytes:
    key_length, extras_length, framing_length = len(key), len(extras), len(framing)
    if extras_length > 0xFF:
        raise FrameError(f"extras of {extras_length} bytes do not fit a one-byte length")
    lengths = key_length
    if magic in _ALTERNATE:
        if framing_length > 0xFF or key_length > 0xFF:
            raise FrameError("framing extras and key of a flexible frame have one-byte lengths")
        lengths = framing_length << 8 | key_length
    elif framing:
        raise FrameError("framing extras need a flexible frame (magic 0x08 or 0x18)")
    elif key_length > 0xFFFF:
        raise FrameError(f"a key of {key_length} bytes does not fit a two-byte length")
    body = framing_length + extras_length + key_length + len(value)
    header = HEADER.pack(magic, opcode, lengths, extras_length, datatype, specific, body, opaque, cas)
    return b"".join((header, framing, extras, key, value))


def encode_frame_infos(infos: Iterable[tuple[int, bytes]]) -> bytes:
    """Encode ``(id, payload)`` pairs as framing extras.

    Identifiers and lengths of 15 and above use the escape byte (nibble 15, then value - 15).

    :raises FrameError: an id or a length is above 270.
    """
    out = bytearray()
    for identifier, payload in infos:
        size = len(payload)
        if not 0 <= identifier <= _NIBBLE_ESCAPE + 0xFF or size > _NIBBLE_ESCAPE + 0xFF:
            raise FrameError(f"frame info {identifier} of {size} bytes cannot be encoded")
        out.append(min(identifier, _NIBBLE_ESCAPE) << 4 | min(size, _NIBBLE_ESCAPE))
        if identifier >= _NIBBLE_ESCAPE:
            out.append(identifier - _NIBBLE_ESCAPE)
        if size >= _NIBBLE_ESCAPE:
            out.append(size - _NIBBLE_ESCAPE)
        out += payload
    return bytes(out)


def decode_frame_infos(framing: bytes) -> list[tuple[int, bytes]]:
    """Decode framing extras into ``(id, payload)`` pairs, in order.

    :raises FrameError: an object runs past the end.
    """
    infos: list[tuple[int, bytes]] = []
    at, end = 0, len(framing)
    while at < end:
        identifier, size = framing[at] >> 4, framing[at] & 0x0F
        at += 1
        if identifier == _NIBBLE_ESCAPE:
            if at >= end:
                raise FrameError("framing extras end inside an identifier")
            identifier += framing[at]
            at += 1
        if size == _NIBBLE_ESCAPE:
            if at >= end:
                raise FrameError("framing extras end inside a length")
            size += framing[at]
            at += 1
        if at + size > end:
            raise FrameError(f"frame info {identifier} of {size} bytes runs past the framing extras")
        infos.append((identifier, framing[at : at + size]))
        at += size
    return infos
