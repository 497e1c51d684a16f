"""Length-prefixed frames: four bytes, big-endian, then the body. For processes that trust each other.

A body is bytes, or a Python value as :mod:`marshal` writes it, where both ends are the same interpreter.
This needs neither Twisted nor a socket: :class:`FrameBuffer` splits bytes received by any means.
"""

from __future__ import annotations

import marshal
from struct import Struct
from typing import Any

__all__ = ["LENGTH", "MAX_FRAME_BYTES", "FrameBuffer", "FramingError", "frame_of", "value_in"]

LENGTH = Struct(">I")
"""The head of each frame."""

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Longest accepted body in bytes. A batch of the largest documents fits."""


class FramingError(Exception):
    """The peer sent something other than a frame, or than the expected value; the connection is unusable."""


def frame_of(value: Any) -> bytes:
    """Return a frame with ``value``.

    :raises ValueError: :mod:`marshal` does not write values of this type.
    """
    body = marshal.dumps(value)
    return LENGTH.pack(len(body)) + body


def value_in(body: bytes) -> Any:
    """Return the value in a body.

    :raises FramingError: it does not hold a value.
    """
    try:
        return marshal.loads(body)
    except (ValueError, EOFError, TypeError) as error:
        raise FramingError(f"a frame of {len(body)} bytes does not contain a value: {error}") from error


class FrameBuffer:
    """Splits received bytes into the bodies of frames.

    :param max_frame_bytes: longest body that is accepted.
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max = max_frame_bytes
        self._buffer = bytearray()

    def __len__(self) -> int:
        """Return the number of bytes that :meth:`take` has not returned yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take bytes, of any number."""
        self._buffer += data

    @property
    def missing(self) -> int:
        """Least number of bytes still to come before :meth:`take` returns a body; 0 if it does now.

        :raises FramingError: as :meth:`take`.
        """
        held = len(self._buffer)
        if held < LENGTH.size:
            return LENGTH.size - held
        return max(0, self._length() - held)

    def take(self) -> bytes | None:
        """Return the oldest body that is complete, ``None`` if there is none yet.

        :raises FramingError: a frame claims to be longer than ``max_frame_bytes``; do not call this again.
        """
        buffer = self._buffer
        if len(buffer) < LENGTH.size:
            return None
        end = self._length()
        if len(buffer) < end:
            return None
        with memoryview(buffer) as whole, whole[LENGTH.size : end] as part:
            body = bytes(part)  # an existing view would keep the buffer from shrinking
        del buffer[:end]
        return body

    def _length(self) -> int:
        """Return the length of the first frame, head included."""
        (length,) = LENGTH.unpack_from(self._buffer)
        if length > self._max:
            raise FramingError(f"a frame of {length} bytes; at most {self._max} are accepted")
        return LENGTH.size + int(length)
