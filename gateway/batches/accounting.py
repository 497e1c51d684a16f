"""Accounts for a batch's bytes and operations; only this module updates budget and window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.http.limits import Budget
from gateway.operations.kind import Kind
from reactor.window import Window

__all__ = ["Account", "Held"]

# Number of reads that are started while the size of the documents is unknown; the first answer decides how
# many more may start.
_FIRST_READS = 4


class Held(Protocol):
    """A running operation, or its answer."""

    held: int
    """Its estimated size, in bytes."""

    def cancel(self, gone: Callable[[], None]) -> None:
        """Cancel the operation; ``gone`` is called when none of its requests is in flight any more."""


class Account:
    """The counters of one batch. Only its methods change them.

    :ivar held: bytes of all running operations, and of answers that are not written yet.
    :ivar ready: bytes of these answers.
    :ivar operations: number of both.
    :ivar reads: number of running reads.
    :ivar value_bytes: estimated size of a document that is being read.
    :param most: bytes that the batch may hold.
    :param budget: shared by all requests.
    :param window: shared by all large operations on the same connection.
    """

    def __init__(self, most: int, budget: Budget, window: Window) -> None:
        self.held = self.ready = self.operations = self.reads = 0
        self.value_bytes = most // _FIRST_READS
        self._knows_size = False
        self._most = most
        self._budget = budget
        self._window = window
        self._charged = 0
        self._taken = 0

    @property
    def is_over(self) -> bool:
        """Whether the running reads may return more bytes than the batch may hold."""
        return self.reads * self.value_bytes > self._most

    def hold(self, slot: Held, size: int, kind: Kind | None) -> None:
        """Note an operation that is started.

        :param size: size of its text, in bytes.
        :param kind: the operation's row; ``None`` if it is not known yet.
        """
        if kind is not None and kind.is_read:
            # Use the size of earlier documents as the estimate, until this one arrives.
            size += self.value_bytes
            self.reads += 1
        slot.held = size
        self.held += size
        self.operations += 1

    def expect(self, slot: Held, size: int) -> None:
        """Note that an operation that is already held is a read, which adds ``size`` bytes."""
        self.reads += 1
        self.held += size
        slot.held += size

    def answered(self, slot: Held, size: int, *, is_read: bool) -> bool:
        """Note an answer; return whether the running reads turned out to be larger than allowed."""
        is_over = False
        if is_read:
            self.reads -= 1
            # The estimate grows at once and shrinks slowly: sixteen small documents outweigh a large one.
            known = self.value_bytes
            if size > known:
                self.value_bytes = size
                is_over = self.reads * size > self._most
            elif self._knows_size:
                self.value_bytes = known - (known - size) // 16
            else:
                self.value_bytes, self._knows_size = size, True
        self.held += size - slot.held
        self.ready += size
        slot.held = size
        return is_over

    def grow(self, size: int) -> bool:
        """Raise the estimate to ``size`` bytes; return the same as :meth:`answered`."""
        if size <= self.value_bytes:
            return False
        self.value_bytes = size
        return self.is_over

    def take_back(self, slot: Held) -> None:
        """Cancel a read that will be repeated."""
        self.give_up(slot)
        self.held -= slot.held
        self.reads -= 1
        self.operations -= 1

    def give_up(self, slot: Held) -> None:
        """Cancel an operation; if it was sent, it stays in the window until its answer arrives."""
        size = self.value_bytes
        self._window.adjust(size)
        slot.cancel(lambda: self._window.adjust(-size))

    def written(self, size: int, operations: int) -> None:
        """Note that ``operations`` answers with ``size`` bytes in total were written."""
        self.held -= size
        self.ready -= size
        self.operations -= operations

    def settle(self, unread: int) -> None:
        """Report the changes to budget and window.

        :param unread: bytes of operations that are not complete yet.
        """
        held = self.held + unread
        self._budget.adjust(held - self._charged)
        self._charged = held
        taken = max(self.held - self.ready, self.reads * self.value_bytes)
        if taken != self._taken:
            # Set first: the call below may start operations of this batch, too.
            more, self._taken = taken - self._taken, taken
            self._window.adjust(more)

    def close(self) -> None:
        """Release everything."""
        self.held = self.ready = self.operations = self.reads = 0
        self._budget.adjust(-self._charged)
        self._charged = 0
        self._window.adjust(-self._taken)
        self._taken = 0
