"""Sends the frames of a connection: one frame of each stream in turn, while the client reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.http.counted import CountedRequest
from gateway.http2.core import Core

if TYPE_CHECKING:
    from gateway.http2.stream import Stream

__all__ = ["FRAMES_A_TURN", "Sender"]

FRAMES_A_TURN = 64
"""Largest number of frames that one connection sends or reads in one reactor turn, so that others get their
turn."""

_FRAMES_A_WRITE = 4


class Sender:
    """Sends what the streams of a connection have to send.

    :param write: sends bytes, immediately if none are waiting.
    """

    def __init__(self, core: Core, write: Callable[[bytes], object]) -> None:
        self._core = core
        self._write = write
        # Streams with something to send, in order.
        self._ready: dict[Stream, None] = {}
        # Requests whose answers are complete, but not yet accepted by the kernel.
        self._unsent: list[CountedRequest] = []
        self.is_stalled = False
        """Whether the kernel has no room."""

    @property
    def has_ready(self) -> bool:
        """Whether some stream can send."""
        return bool(self._ready)

    def wake(self, stream: Stream) -> None:
        """Note that a stream has something to send."""
        self._ready[stream] = None

    def forget(self, stream: Stream) -> None:
        """Note that a stream has ended."""
        self._ready.pop(stream, None)

    def complete(self, request: CountedRequest) -> None:
        """Count a request as soon as the kernel has its answer."""
        self._unsent.append(request)

    def flush(self) -> None:
        """Send the frames of one turn."""
        ready = self._ready
        for number in range(1, FRAMES_A_TURN + 1):
            if not ready or self.is_stalled:
                break
            stream = next(iter(ready))
            del ready[stream]
            if stream.send_some(self._core):
                ready[stream] = None
            if not number % _FRAMES_A_WRITE:
                # The kernel may have no room for more.
                self.write()
        self.write()
        if not self.is_stalled:
            self.count_sent()

    def write(self, more: bytes = b"") -> None:
        """Send the frames that h2 has made.

        :param more: a further frame, not made by h2.
        """
        data = self._core.data_to_send() + more
        if data:
            self._write(data)

    def count_sent(self) -> None:
        """Count the requests whose answers the kernel has."""
        unsent, self._unsent = self._unsent, []
        for request in unsent:
            request.all_sent()

    def count_lost(self) -> None:
        """Count the requests whose answers are lost with the connection."""
        unsent, self._unsent = self._unsent, []
        for request in unsent:
            request.unsent()
