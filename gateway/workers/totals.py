"""Metrics of all workers, including those that have ended: the totals never decrease."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from gateway.metricvalues import MetricValues

__all__ = ["ANSWER_SECONDS", "Totals"]

ANSWER_SECONDS = 1.0
"""Timeout for a worker to send its metrics, in seconds; after it, the metrics that it sent last are used."""


class _Source(Protocol):
    metrics: MetricValues

    def ask_metrics(self) -> Deferred[None]:
        """Update ``metrics``."""


class Totals:
    """Collects the workers' metrics, and adds them up.

    :param sources: the live workers.
    """

    def __init__(self, clock: IReactorTime, sources: Iterable[_Source]) -> None:
        self._clock = clock
        self._sources = sources
        self._retired = MetricValues()
        self._waiting: list[Deferred[MetricValues]] = []
        self._is_asking = False

    def retire(self, source: _Source) -> None:
        """Keep the metrics of a worker that is no longer among the sources."""
        self._retired.retire(source.metrics)

    def total(self) -> MetricValues:
        """Return the totals of the metrics that were sent last."""
        total = MetricValues()
        total.add(self._retired)
        for source in self._sources:
            total.add(source.metrics)
        return total

    def gather(self) -> Deferred[MetricValues]:
        """Ask all workers, and return the totals.

        :returns: fires within twice :data:`ANSWER_SECONDS`: a request during a round is answered by the next
            round, so that the answer includes everything counted before the request.
        """
        waiting: Deferred[MetricValues] = Deferred()
        self._waiting.append(waiting)
        if not self._is_asking:
            self._ask()
        return waiting

    def _ask(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._is_asking = True
        told: Deferred[Any] = DeferredList([source.ask_metrics() for source in self._sources])
        # A worker that misses the timeout may still answer later, which does no harm.
        timer = self._clock.callLater(ANSWER_SECONDS, self._answer, waiting)

        def in_time(_: object) -> None:
            if timer.active():
                timer.cancel()
                self._answer(waiting)

        told.addCallback(in_time)

    def _answer(self, waiting: list[Deferred[MetricValues]]) -> None:
        self._is_asking = False
        total = self.total()
        for one in waiting:
            one.callback(total)
        if self._waiting and not self._is_asking:
            self._ask()
