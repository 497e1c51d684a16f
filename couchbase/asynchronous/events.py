"""One-time events, and their waiters."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any


class EventQueue:
    """The waiters for one event. A driver overrides the four hooks, which do nothing here."""

    def __init__(self) -> None:
        self._waiting: deque[Any] = deque()
        self.called = False
        """Whether the event has happened."""

    # ---- to be overridden ------------------------------------------------------------------------

    def fire_async(self, event: Any) -> None:
        """Notify a late waiter, after this returns."""

    def call_single_success(self, event: Any, *args: object, **kwargs: object) -> None:
        """Notify a waiter that the event happened."""

    def call_single_failure(self, event: Any, *args: object, **kwargs: object) -> None:
        """Notify a waiter that the event failed; called while the exception is being handled."""

    def maybe_raise(self, *args: Any, **kwargs: Any) -> None:
        """Raise the failure that the call's arguments describe, if any."""

    # ---- the queue -------------------------------------------------------------------------------

    def schedule(self, event: Any) -> None:
        """Add a waiter; if the event has happened already, :meth:`fire_async` notifies it."""
        if self.called:
            self.fire_async(event)
        else:
            self._waiting.append(event)

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._waiting)

    def __bool__(self) -> bool:
        return True

    def __call__(self, *args: object, **kwargs: object) -> None:
        """Mark the event as happened, and notify all waiters in their order."""
        self.called = True
        try:
            self.maybe_raise(*args, **kwargs)
        except Exception:  # noqa: BLE001  # passed to the waiters
            while self._waiting:
                self.call_single_failure(self._waiting.popleft(), *args, **kwargs)
        else:
            while self._waiting:
                self.call_single_success(self._waiting.popleft(), *args, **kwargs)
