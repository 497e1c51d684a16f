"""The output of a stream: the queued parts of an answer, and the next frame."""

from __future__ import annotations

from collections import deque
from enum import Enum, IntEnum

from h2.errors import ErrorCodes

from gateway.http2.core import Core
from gateway.http2.frames import MAX_FRAME_BYTES

__all__ = ["Fields", "Outcome", "Output", "OutputPhase"]

Fields = list[tuple[bytes, bytes]]


class OutputPhase(IntEnum):
    """How much of an answer was written."""

    OPEN = 0
    """More of the answer is to be written."""
    ENDED = 1
    """The whole answer is written, and some of it waits to be sent."""
    SENT = 2


class Outcome(Enum):
    """The outcome of an attempt to send."""

    MORE = "more"
    """There is more to send."""
    EMPTY = "empty"
    """Everything written so far is sent."""
    BLOCKED = "blocked"
    """The client's window is used up."""
    COMPLETE = "complete"
    """The end of the answer is sent."""
    RESET = "reset"
    """The stream must be reset with :attr:`Output.code`."""


class Output:
    """The answer of one stream.

    :param number: the stream's identifier.
    """

    __slots__ = ("_fields", "_informs", "_number", "_queue", "code", "is_begun", "phase", "queued", "sent")

    def __init__(self, number: int) -> None:
        self._number = number
        self._queue: deque[bytes | memoryview] = deque()
        self._fields: Fields | None = None
        self._informs: list[int] = []
        self.phase = OutputPhase.OPEN
        self.is_begun = False
        """Whether the head was written."""
        self.code: ErrorCodes | None = None
        """Error code with which the stream ends after the queued parts."""
        self.queued = 0
        """Bytes of the body that wait to be sent."""
        self.sent = 0
        """Bytes of the body that were sent."""

    def inform(self, status: int) -> None:
        """Queue an informational answer."""
        self._informs.append(status)

    def begin(self, fields: Fields) -> None:
        """Queue the head."""
        self._fields = fields
        self.is_begun = True

    def write(self, data: bytes) -> None:
        """Queue a part of the body."""
        self._queue.append(data)
        self.queued += len(data)

    def drop(self) -> None:
        """Forget the queued parts."""
        self._queue.clear()
        self.queued = 0

    @property
    def has_something(self) -> bool:
        """Whether something waits to be sent."""
        return bool(
            self._queue
            or self._fields
            or self._informs
            or self.phase is OutputPhase.ENDED
            or self.code is not None
        )

    def send(self, core: Core) -> tuple[Outcome, int]:
        """Send one frame, or the head; returns the outcome, and the number of body bytes in that frame."""
        for status in self._informs:
            core.send_headers(self._number, [(b":status", b"%d" % status)])
        self._informs.clear()
        if self._fields is not None:
            fields, self._fields = self._fields, None
            ends = self._is_last
            core.send_headers(self._number, fields, end_stream=ends)
            return self._outcome(ends=ends), 0
        if self._queue:
            most = min(
                core.local_flow_control_window(self._number), core.max_outbound_frame_size, MAX_FRAME_BYTES
            )
            if most <= 0:
                return Outcome.BLOCKED, 0
            piece = self._take(most)
            ends = self._is_last
            core.send_data(self._number, piece, end_stream=ends)
            return self._outcome(ends=ends), len(piece)
        if self.phase is OutputPhase.ENDED:
            core.end_stream(self._number)
            return self._outcome(ends=True), 0
        return Outcome.EMPTY if self.code is None else Outcome.RESET, 0

    @property
    def _is_last(self) -> bool:
        """Whether the next frame ends the stream."""
        return self.phase is OutputPhase.ENDED and not self._queue

    def _outcome(self, *, ends: bool) -> Outcome:
        if ends:
            self.phase = OutputPhase.SENT
            return Outcome.COMPLETE
        return Outcome.MORE if self.has_something else Outcome.EMPTY

    def _take(self, most: int) -> bytes:
        """Take the next bytes of the body."""
        parts = []
        left = most
        while left and self._queue:
            part = self._queue.popleft()
            if len(part) > left:
                view = memoryview(part)
                self._queue.appendleft(view[left:])
                part = view[:left]
            parts.append(part)
            left -= len(part)
        self.queued -= most - left
        self.sent += most - left
        return b"".join(parts)
