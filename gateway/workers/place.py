"""A worker's place, and for how long it stays empty after one has ended."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred

from gateway.figures import Figures

__all__ = ["Backoff", "IWorker", "Place"]


class Backoff:
    """Pauses before something that does not last is tried again, in seconds: 0.1, doubling, up to 5."""

    FIRST = 0.1
    LONGEST = 5.0
    SETTLED = 10.0
    """Who lived for so long has a short pause again."""

    def __init__(self) -> None:
        self._next = self.FIRST

    def pause_after(self, lived: float) -> float:
        """Return the pause after it lived for ``lived`` seconds."""
        if lived >= self.SETTLED:
            self._next = self.FIRST
        pause = self._next
        self._next = min(pause * 2, self.LONGEST)
        return pause


class IWorker(Protocol):
    """What a fleet wants of a worker; see :class:`gateway.workers.child.Child`."""

    number: int
    started_at: float
    ready: Deferred[None]
    closed: Deferred[None]
    ended: Deferred[str]
    is_ready: bool
    figures: Figures

    @property
    def pid(self) -> int | None:
        """Its process, if that is alive."""

    def send(self, kind: str, **members: object) -> None:
        """Send a message."""

    def ask_figures(self) -> Deferred[None]:
        """Bring ``figures`` up to date."""

    def kill(self) -> None:
        """End it at once."""


class Place:
    """One of N places: who is there, and who will be.

    :ivar worker: serves, or will by itself.
    :ivar coming: will take its place when it is ready.
    :ivar timer: will put one there.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: IWorker | None = None
        self.coming: IWorker | None = None
        self.backoff = Backoff()
        self.timer: Any = None

    def forget_timer(self) -> None:
        """Put nobody there later."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self.timer = None
