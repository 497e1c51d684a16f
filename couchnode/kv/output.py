"""The answers of one connection on their way to the transport, and what of them waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from couchnode.kv.phases import Flow

LARGE_BYTES = 2**18
"""Answers that are larger are written in pieces of this size."""


class Output:
    """Writes answers in order, as long as the transport takes them.

    Small answers go to the transport at once, also while it is full: they were made before that was known. It
    gets large ones a piece at a time; the rest waits here.

    :param on_held: called with each change of the number of bytes that a full transport was given.
    :ivar flow: see :class:`Flow`; LOST until :meth:`open`.
    :ivar unsent: what the transport has not taken of large answers, and the answers behind them.
    """

    def __init__(self, on_held: Callable[[int], None]) -> None:
        self.flow = Flow.LOST
        self.unsent: deque[memoryview] = deque()
        self._transmit: Callable[[bytes], int]
        self._on_held = on_held
        self._held = 0

    def open(self, transmit: Callable[[bytes], int]) -> None:
        """Write with ``transmit`` from now: bytes -> how many are left to the transport."""
        self._transmit = transmit
        self.flow = Flow.OPEN

    def pause(self) -> None:
        """The transport is full."""
        if self.flow is Flow.OPEN:
            self.flow = Flow.FULL

    def resume(self) -> None:
        """The transport is empty again: write on."""
        if self.flow is Flow.FULL:
            self.flow = Flow.OPEN
        self._release()
        self._write_on()

    def lose(self) -> None:
        """Forget everything: the connection is gone."""
        self.flow = Flow.LOST
        self.unsent.clear()
        self._release()

    def write(self, data: bytes) -> None:
        """Write something behind everything before it."""
        if self.unsent:
            self.unsent.append(memoryview(data))
        else:
            self._send(data)

    def write_in_pieces(self, answers: Sequence[bytes]) -> None:
        """Write answers with large values, so that no turn of the reactor copies all of one."""
        small: list[bytes] = []
        for data in answers:
            if len(data) < LARGE_BYTES:
                small.append(data)
                continue
            self.unsent.append(memoryview(b"".join(small)))
            self.unsent.append(memoryview(data))
            small.clear()
        self.unsent.append(memoryview(b"".join(small)))
        self._write_on()

    def _write_on(self) -> None:
        unsent = self.unsent
        while unsent and self.flow is Flow.OPEN:
            piece = unsent.popleft()
            if len(piece) > LARGE_BYTES:
                unsent.appendleft(piece[LARGE_BYTES:])
                piece = piece[:LARGE_BYTES]
            self._send(bytes(piece))

    def _send(self, data: bytes) -> None:
        if not data or self.flow is Flow.LOST:
            return
        left = self._transmit(data)
        if left and self.flow is Flow.FULL:
            self._held += left
            self._on_held(left)

    def _release(self) -> None:
        held, self._held = self._held, 0
        if held:
            self._on_held(-held)
