"""Cuts received bytes into frames of HTTP/2 (RFC 9113 4.1), and enforces limits that the ``h2`` library
lacks.

Only the nine bytes before a frame's content are read here; everything else is left to h2.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from h2.errors import ErrorCodes

from gateway.http.opening import PREFACE

__all__ = [
    "CONTINUATION",
    "DATA",
    "END_STREAM",
    "GOAWAY",
    "HEADERS",
    "MAX_FRAME_BYTES",
    "PING",
    "PUSH_PROMISE",
    "RST_STREAM",
    "SETTINGS",
    "WINDOW_UPDATE",
    "Frame",
    "FrameCutter",
    "Misuse",
    "goaway",
    "rst_stream",
]

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM = 0x1
END_HEADERS = 0x4

MAX_FRAME_BYTES = 2**14
"""Largest content of a frame in bytes, which is the smallest limit that the protocol allows."""

MAX_CONTINUATIONS = 16
"""Largest number of frames that may continue a head: even empty ones cause work."""

_HEADER = struct.Struct(">HBBBL")
_HEADER_BYTES = 9
_STREAM_BITS = 2**31 - 1
_GOAWAY = struct.Struct(">HBBBLLL")
_RST_STREAM = struct.Struct(">HBBBLL")
_MAX_REASON = 200


class Misuse(Exception):
    """The client violates the protocol, or uses it to cause work; the connection must end.

    :param code: the error code, for the client's program.
    :param text: the reason, for the program's author.
    """

    def __init__(self, code: ErrorCodes, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Frame(NamedTuple):
    """One frame."""

    kind: int
    flags: int
    stream: int
    """0 for the connection as a whole."""
    data: bytes
    """The whole frame, with the nine bytes before its content."""


def goaway(last_stream: int, code: ErrorCodes, reason: str = "") -> bytes:
    """Return a frame that ends a connection.

    :param last_stream: number of the last stream; later ones were not, and will not be, served.
    """
    text = reason.encode("utf-8")[:_MAX_REASON]
    size = 8 + len(text)
    return _GOAWAY.pack(size >> 8, size & 0xFF, GOAWAY, 0, 0, last_stream, code) + text


def rst_stream(stream: int, code: ErrorCodes) -> bytes:
    """Return a frame that ends a stream."""
    return _RST_STREAM.pack(0, 4, RST_STREAM, 0, stream, code)


class FrameCutter:
    """Cuts a client's bytes into frames, after the preface.

    :param max_block: limit on the encoded size of one head in bytes, over all of its frames.
    """

    def __init__(self, max_block: int) -> None:
        self._max_block = max_block
        self._buffer = b""
        self._preface = PREFACE
        self._is_first = True
        # Bytes and frames of the head that is not complete yet; no bytes if there is none.
        self._block_bytes = 0
        self._block_frames = 0

    def receive(self, data: bytes) -> None:
        """Take received bytes.

        :raises Misuse: the connection does not begin with the preface.
        """
        self._buffer += data
        expected = self._preface
        if expected:
            size = min(len(expected), len(self._buffer))
            if self._buffer[:size] != expected[:size]:
                raise Misuse(ErrorCodes.PROTOCOL_ERROR, "the connection does not begin with HTTP/2's preface")
            self._preface, self._buffer = expected[size:], self._buffer[size:]

    def take(self, most: int) -> list[Frame]:
        """Return the next complete frames.

        :param most: number of frames.
        :raises Misuse: a frame is too large, or not allowed at this point.
        """
        found: list[Frame] = []
        buffer = self._buffer
        start, end = 0, len(buffer)
        while end - start >= _HEADER_BYTES and len(found) < most:
            high, low, kind, flags, stream = _HEADER.unpack_from(buffer, start)
            size = high << 8 | low
            if size > MAX_FRAME_BYTES:
                raise Misuse(
                    ErrorCodes.FRAME_SIZE_ERROR,
                    f"a frame has {size} bytes; at most {MAX_FRAME_BYTES} are accepted",
                )
            if self._is_first:
                if kind != SETTINGS or flags & 1:
                    raise Misuse(ErrorCodes.PROTOCOL_ERROR, "the first frame is not SETTINGS")
                self._is_first = False
            behind = start + _HEADER_BYTES + size
            if behind > end:
                break
            self._follow_block(kind, flags, size)
            found.append(Frame(kind, flags, stream & _STREAM_BITS, buffer[start:behind]))
            start = behind
        if start:
            self._buffer = buffer[start:]
        return found

    def _follow_block(self, kind: int, flags: int, size: int) -> None:
        if self._block_bytes and kind != CONTINUATION:
            raise Misuse(ErrorCodes.PROTOCOL_ERROR, "a frame other than CONTINUATION within a head")
        if kind == HEADERS:
            self._block_bytes, self._block_frames = 0, 0
        elif kind != CONTINUATION:
            return
        self._block_bytes += size + _HEADER_BYTES
        self._block_frames += 1
        if self._block_bytes > self._max_block or self._block_frames > MAX_CONTINUATIONS + 1:
            raise Misuse(
                ErrorCodes.ENHANCE_YOUR_CALM,
                f"a head has more than {self._max_block} bytes, or more than {MAX_CONTINUATIONS} "
                "CONTINUATION frames",
            )
        if flags & END_HEADERS:
            self._block_bytes = 0

    @property
    def has_frame(self) -> bool:
        """Whether a complete frame is waiting."""
        if len(self._buffer) < _HEADER_BYTES:
            return False
        high, low, *_ = _HEADER.unpack_from(self._buffer)
        return len(self._buffer) >= _HEADER_BYTES + (high << 8 | low)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that were not taken yet."""
        return len(self._buffer)

    @property
    def awaits_head(self) -> bool:
        """Whether the rest of the preface, of a head, or of any frame except DATA is still to arrive."""
        begun = self._buffer
        return (
            bool(self._preface or self._block_bytes or self._is_first)
            or (len(begun) > 3 and begun[3] != DATA)
        )  # fmt: skip
