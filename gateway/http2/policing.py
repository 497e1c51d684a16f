"""Ends connections whose clients cause work without making progress.

Each frame costs some tens of microseconds, and clients can send many kinds of frames without end: resets
right after requests (CVE-2023-44487), PING, SETTINGS, empty DATA, windows opened byte by byte. Normal use
costs little of the allowance, and reading answers earns it back.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from h2.errors import ErrorCodes

from gateway.http2.allowance import Allowance
from gateway.http2.frames import (
    CONTINUATION,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    Frame,
    Misuse,
)

__all__ = ["Police"]

FRAMES, FRAMES_A_SECOND = 2000, 500
"""Allowed frames without progress: at once, and more per second."""

RESETS_A_STREAM, RESETS_A_SECOND = 2, 50
"""Allowed requests that are reset: at once, for each stream that may be open; and more per second."""

TINY_BYTES = 16
"""A DATA frame of up to this size in bytes counts as no progress, unless it ends its body."""

_HEADER_BYTES = 9
_A_PART = 64
_EARNING_BYTES = 512


class Police:
    """Watches one connection.

    :param max_streams: limit on open streams.
    :param now: the current time of the clock whose times are passed to the other methods.
    """

    def __init__(self, max_streams: int, now: float) -> None:
        self._frames = Allowance(FRAMES, FRAMES_A_SECOND, now)
        self._resets = Allowance(RESETS_A_STREAM * max_streams, RESETS_A_SECOND, now)

    def inspect(self, frames: Sequence[Frame], streams: Container[int], now: float) -> bytes:
        """Return the frames for h2, concatenated.

        GOAWAY is not among them: h2 would end the connection, but a client that sends it may still wait for
        answers.

        :param streams: the open streams.
        :raises Misuse: the allowance is exhausted.
        """
        cost = 0
        # The stream whose head is among these frames; usually its body follows.
        begun = 0
        parts = []
        for kind, flags, stream, data in frames:
            size = len(data) - _HEADER_BYTES
            if kind == HEADERS:
                begun = stream
            elif kind == DATA:
                is_open = stream == begun or stream in streams
                if not is_open or (size <= TINY_BYTES and not flags & END_STREAM):
                    cost += 1
            elif kind == GOAWAY:
                _check_goaway(stream, size)
                continue
            elif kind == CONTINUATION:
                cost += 1
            elif kind != RST_STREAM or not (stream == begun or stream in streams):
                cost += 1 + size // _A_PART
            parts.append(data)
        if cost and not self._frames.spend(cost, now):
            raise Misuse(ErrorCodes.ENHANCE_YOUR_CALM, "too many frames that make no progress")
        return b"".join(parts)

    def sent(self, size: int, *, is_last: bool) -> None:
        """Note that a part of an answer was sent, so that the client may open its windows again.

        :param is_last: whether nothing more of the answer had to wait.
        """
        self._frames.earn(2 if is_last else size / _EARNING_BYTES)

    def reset(self, now: float) -> None:
        """Note that a request was reset, by the client or because it was invalid.

        :raises Misuse: the allowance is exhausted.
        """
        if not self._resets.spend(1, now):
            raise Misuse(ErrorCodes.ENHANCE_YOUR_CALM, "too many requests are reset")


def _check_goaway(stream: int, size: int) -> None:
    if stream:
        raise Misuse(ErrorCodes.PROTOCOL_ERROR, "GOAWAY on a stream")
    if size < 8:
        raise Misuse(ErrorCodes.FRAME_SIZE_ERROR, "GOAWAY has fewer than 8 bytes")
