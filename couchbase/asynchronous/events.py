"""Things that happen once, and those who wait for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any


class EventQueue:
    """Those who wait for one event; a driver overrides the four hooks, which do nothing here."""

    def __init__(self) -> None:
        self._waiting: deque[Any] = deque()
        self.called = False
        """Whether it happened."""

    # ---- to be overridden ------------------------------------------------------------------------

    def fire_async(self, event: Any) -> None:
        """Tell somebody who comes when it has happened already; not before this returns."""

    def call_single_success(self, event: Any, *args: Any, **kwargs: Any) -> None:
        """Tell one who waited that it happened."""

    def call_single_failure(self, event: Any, *args: Any, **kwargs: Any) -> None:
        """Tell one who waited that it failed; called where the exception is being handled."""

    def maybe_raise(self, *args: Any, **kwargs: Any) -> None:
        """Raise what the arguments of the call stand for, if that is a failure."""

    # ---- the queue -------------------------------------------------------------------------------

    def schedule(self, event: Any) -> None:
        """Add one who waits; if it has happened, have :meth:`fire_async` tell."""
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

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """It happens: tell all who wait, in their order."""
        self.called = True
        try:
            self.maybe_raise(*args, **kwargs)
        except Exception:  # noqa: BLE001  # those who wait are told
            while self._waiting:
                self.call_single_failure(self._waiting.popleft(), *args, **kwargs)
        else:
            while self._waiting:
                self.call_single_success(self._waiting.popleft(), *args, **kwargs)
