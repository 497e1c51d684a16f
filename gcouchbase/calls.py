"""The operations of greenlets, and what wakes a greenlet when its operations are over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from couchbase.blocking.calls import BlockingCall, WaitGroup
from gcouchbase.loop import Loop


class GCall(BlockingCall):
    """One running operation of a greenlet."""

    __slots__ = ("began", "greenlet", "limit")

    group: Any
    """Is notified of the end: :class:`Woken` for an operation that a greenlet waits for alone, else a
    :class:`GWaitGroup`."""
    began: float
    limit: float
    """Time at which it times out. ``deadline`` is that of the last operation that was sent with it."""
    greenlet: Any
    """Who waits for it alone; ``None`` if the greenlet no longer waits. Set before it is queued."""

    @property
    def calls(self) -> Sequence[GCall]:
        """The operations that its greenlet waits for, like :attr:`GWaitGroup.calls`."""
        return (self,)

    def succeed(self, result: object) -> None:
        """End with a result."""
        if not self.done:
            self.done = True
            self.result = result
            self.error = None
            self.group.over(self)
            if self.ended is not None:
                self.ended(self)

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        if not self.done:
            self.done = True
            self.result = None
            self.error = error
            self.group.over(self)
            if self.ended is not None:
                self.ended(self)


class GWaitGroup(WaitGroup):
    """The calls that one greenlet waits for together; it is woken when the last is over."""

    __slots__ = ("began", "calls", "greenlet", "limit", "woken")

    def __init__(self, calls: Sequence[GCall], began: float, limit: float, woken: Woken) -> None:
        super().__init__(len(calls))
        self.calls = calls
        self.began = began
        self.limit = limit
        self.greenlet: Any = None
        self.woken = woken

    @property
    def done(self) -> bool:
        """Whether all are over."""
        return not self.remaining

    def over(self, call: GCall) -> None:
        """Take note of the end of one of them."""
        self.remaining -= 1
        if not self.remaining:
            self.woken.over(self)


class Woken(deque[Any]):
    """Operations, and groups, that are over, and whose greenlets have not run since.

    They do not run immediately: the rest of the received bytes comes first, and then all of them, so that
    the operations that they start are sent together.

    :param wake: switches to the greenlets; called once the hub has handled what it is handling now.
    """

    def __init__(self, loop: Loop, wake: Callable[[], None]) -> None:
        super().__init__()
        self._loop = loop
        self._wake = wake

    def over(self, waiter: GCall | GWaitGroup) -> None:
        """Take note of an operation or a group that is over."""
        if not self:
            self._loop.run_callback(self._wake)
        self.append(waiter)
