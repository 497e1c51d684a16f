"""Figures of all workers, those that have ended too: sums that never go back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from gateway.figures import Figures

__all__ = ["ANSWER_SECONDS", "Totals"]

ANSWER_SECONDS = 1.0
"""For a worker to tell its figures; after that its last ones count."""


class _Source(Protocol):
    figures: Figures

    def ask_figures(self) -> Deferred[None]:
        """Bring ``figures`` up to date."""


class Totals:
    """Asks workers for their figures, and adds them up.

    :param sources: those that are alive.
    """

    def __init__(self, clock: IReactorTime, sources: Iterable[_Source]) -> None:
        self._clock = clock
        self._sources = sources
        self._retired = Figures()
        self._waiting: list[Deferred[Figures]] = []
        self._is_asking = False

    def retire(self, source: _Source) -> None:
        """Keep what a worker has counted that is not among the sources any more."""
        self._retired.retire(source.figures)

    def total(self) -> Figures:
        """Return the sums of what was told last."""
        total = Figures()
        total.add(self._retired)
        for source in self._sources:
            total.add(source.figures)
        return total

    def gather(self) -> Deferred[Figures]:
        """Ask everyone, and return the sums.

        :returns: fires within :data:`ANSWER_SECONDS` or twice that: who asks while others are being
            answered waits for the next round, so what happened before the question is always in it.
        """
        waiting: Deferred[Figures] = Deferred()
        self._waiting.append(waiting)
        if not self._is_asking:
            self._ask()
        return waiting

    def _ask(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._is_asking = True
        told: Deferred[Any] = DeferredList([source.ask_figures() for source in self._sources])
        # Who does not answer in time may still do so later, which is nobody's loss.
        timer = self._clock.callLater(ANSWER_SECONDS, self._answer, waiting)

        def in_time(_: object) -> None:
            if timer.active():
                timer.cancel()
                self._answer(waiting)

        told.addCallback(in_time)

    def _answer(self, waiting: list[Deferred[Figures]]) -> None:
        self._is_asking = False
        total = self.total()
        for one in waiting:
            one.callback(total)
        if self._waiting and not self._is_asking:
            self._ask()
