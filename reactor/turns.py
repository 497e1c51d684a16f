"""One long task in each turn of the reactor, so that others are served between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

__all__ = ["OneByOne"]


class OneByOne:
    """Runs tasks one by one, each in a turn of the reactor of its own."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        """Return the number of waiting calls."""
        return len(self._waiting)

    def add(self, call: Callable[[], None]) -> None:
        """Call a function in a later turn, after all added before; its exceptions are logged."""
        self._waiting.append(call)
        if len(self._waiting) == 1:
            self._clock.callLater(0, self._next)

    def _next(self) -> None:
        try:
            self._waiting[0]()
        except Exception:  # noqa: BLE001  # the others wait for it
            self._log.failure("a function in a separate turn failed")
        self._waiting.popleft()
        if self._waiting:
            self._clock.callLater(0, self._next)
