"""A limit on the bytes under way; who has to wait is served in order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

__all__ = ["Window"]


class Window:
    """Limits the bytes under way at a time; further operations wait in a queue.

    :param limit: in bytes. A single larger operation passes when nothing else is in use.
    :param too_late: makes the exception for a caller that has waited too long.
    """

    def __init__(
        self, limit: int, clock: IReactorTime, too_late: Callable[[], Exception] = TimeoutError
    ) -> None:
        self.limit = limit
        self.used = 0
        self._clock = clock
        self._too_late = too_late
        # Waiting operations in order -> what to call when it is their turn.
        self._line: OrderedDict[object, Callable[[], None]] = OrderedDict()
        self._is_calling = False

    def __len__(self) -> int:
        """Return the number of waiting callers."""
        return len(self._line)

    @property
    def has_room(self) -> bool:
        """Whether an operation may begin now without overtaking another."""
        return not self._line and self.used < self.limit

    def adjust(self, difference: int) -> None:
        """Change the bytes under way. A large operation may take them beyond the limit."""
        self.used += difference
        if difference < 0:
            self._call()

    def queue(self, who: object, call: Callable[[], None]) -> None:
        """Call when there is room and all who came before had their turn; ``who`` waits only once."""
        self._line.setdefault(who, call)

    def leave(self, who: object) -> None:
        """Leave the queue."""
        self._line.pop(who, None)

    def _call(self) -> None:
        if self._is_calling:
            return
        self._is_calling = True
        try:
            while self._line and self.used < self.limit:
                _, call = self._line.popitem(last=False)
                call()
        finally:
            self._is_calling = False

    def take(self, size: int) -> bool:
        """Reserve room for an operation, if it may begin now; returns whether it may."""
        if self._line or self.used >= self.limit:
            return False
        self.used += size
        return True

    def enter(self, size: int, seconds: float | None) -> Deferred[None]:
        """Wait for room for an operation, and reserve it; release it with :meth:`adjust`.

        :param size: in bytes.
        :param seconds: longest wait; ``None`` for no limit.
        :returns: fires when it may begin; fails with the exception of ``too_late`` if that took too long.
            Nothing is reserved then, or after a cancellation.
        """
        if self.take(size):
            return succeed(None)
        entered: Deferred[None] = Deferred(lambda _: give_up())

        def give_up() -> None:
            self.leave(entered)
            if timer is not None and timer.active():
                timer.cancel()

        def late() -> None:
            self.leave(entered)
            entered.errback(self._too_late())

        def begin() -> None:
            if timer is not None:
                timer.cancel()
            self.used += size
            entered.callback(None)

        timer = None if seconds is None else self._clock.callLater(seconds, late)
        self.queue(entered, begin)
        return entered
