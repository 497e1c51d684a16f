"""A worker's slot, and the pause before a worker is restarted."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred

from gateway.metricvalues import MetricValues

__all__ = ["Backoff", "IWorker", "WorkerSlot"]


class Backoff:
    """Pauses before a restart, in seconds: 0.1, doubling, up to 5."""

    FIRST = 0.1
    LONGEST = 5.0
    SETTLED = 10.0
    """Lifetime of a worker in seconds after which pauses start again with the first one."""

    def __init__(self) -> None:
        self._next = self.FIRST

    def pause_after(self, lived: float) -> float:
        """Return the pause after a worker lived for ``lived`` seconds."""
        if lived >= self.SETTLED:
            self._next = self.FIRST
        pause = self._next
        self._next = min(pause * 2, self.LONGEST)
        return pause


class IWorker(Protocol):
    """A worker's interface to its fleet; see :class:`gateway.workers.child.Child`."""

    number: int
    started_at: float
    ready: Deferred[None]
    closed: Deferred[None]
    ended: Deferred[str]
    is_ready: bool
    metrics: MetricValues

    @property
    def pid(self) -> int | None:
        """Its process id, ``None`` if it has ended."""

    def send(self, kind: str, **members: object) -> None:
        """Send a message."""

    def ask_metrics(self) -> Deferred[None]:
        """Bring ``metrics`` up to date."""

    def kill(self) -> None:
        """End the process at once."""


class WorkerSlot:
    """One of N slots: its worker, and the worker that will replace it.

    :ivar worker: the worker that serves, or will serve when it is ready.
    :ivar coming: the worker that will replace ``worker`` when it is ready.
    :ivar timer: the timer that will start a worker.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: IWorker | None = None
        self.coming: IWorker | None = None
        self.backoff = Backoff()
        self.timer: Any = None

    def forget_timer(self) -> None:
        """Cancel the timer that would start a worker."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self.timer = None
