"""The answers of one connection on their way to the transport, and those that have to wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from couchnode.kv.phases import Flow

LARGE_BYTES = 2**18
"""Larger answers are written in pieces of this size, in bytes."""

_LOST = Flow.LOST  # each look-up of an enumeration's member is slow


class Place:
    """The place of one answer in the order; the answer is ``None`` until it is known."""

    __slots__ = ("answer",)

    def __init__(self, answer: bytes | None = None) -> None:
        self.answer = answer


class Output:
    """Writes answers in order, as long as the transport accepts them.

    Small answers go to the transport at once, even if it is full: they were made before that was known. Large
    answers are passed to the transport one piece at a time; the rest waits here.

    :param on_held: called with each change of the number of bytes that a full transport holds.
    :ivar flow: see :class:`Flow`; LOST until :meth:`open`.
    :ivar unsent: the unwritten parts of large answers, and the answers behind them.
    """

    def __init__(self, on_held: Callable[[int], None]) -> None:
        self.flow = Flow.LOST
        self.unsent: deque[memoryview] = deque()
        self._transmit: Callable[[bytes], int]
        self._on_held = on_held
        self._held = 0

    def open(self, transmit: Callable[[bytes], int]) -> None:
        """Write with ``transmit`` from now on: bytes -> number of bytes left in the transport's buffer."""
        self._transmit = transmit
        self.flow = Flow.OPEN

    def pause(self) -> None:
        """The transport is full."""
        if self.flow is Flow.OPEN:
            self.flow = Flow.FULL

    def resume(self) -> None:
        """The transport is empty again: continue writing."""
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
        """Write an answer after all earlier ones."""
        if self.unsent:
            self.unsent.append(memoryview(data))
        else:
            self._send(data)

    def write_all(self, answers: Sequence[bytes], size: int) -> None:
        """Write answers, which have at most so many bytes together, after all earlier ones."""
        if size > LARGE_BYTES:
            self.write_in_pieces(answers)
        elif not self.unsent:
            # Not write(), because the call would cost a lone request more than this line.
            self._send(b"".join(answers))
        elif answers:
            self.unsent.append(memoryview(b"".join(answers)))

    def write_in_pieces(self, answers: Sequence[bytes]) -> None:
        """Write answers with large values piece by piece, so that no reactor turn copies a whole one."""
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
        if not data or self.flow is _LOST:
            return
        left = self._transmit(data)
        if left and self.flow is Flow.FULL:
            self._held += left
            self._on_held(left)

    def _release(self) -> None:
        held, self._held = self._held, 0
        if held:
            self._on_held(-held)
