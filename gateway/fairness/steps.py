"""Long computations in small steps, between which other requests are served."""

from __future__ import annotations

from collections.abc import Callable, Generator
from time import perf_counter
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator, TaskStopped

__all__ = ["AT_ONCE_BYTES", "StepRunner"]

LEAST_SECONDS = 0.0005
MOST_SECONDS = 0.004
"""Time in one reactor turn for all long computations together, give or take one step: as much as everything
else took in the turn before, within these bounds. So they get about half of the time while there is other
work."""

AT_ONCE_BYTES = 256 * 1024
"""Texts up to this size are parsed in one go, which takes 3 ms at most."""

_T = TypeVar("_T")


class StepRunner:
    """Runs generators that yield after steps of a few milliseconds; each has its share of every turn.

    :param clock: calls the next turn.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._cooperator = Cooperator(
            terminationPredicateFactory=self._turn, scheduler=lambda turn: clock.callLater(0, turn)
        )
        self._ended = perf_counter()

    def _turn(self) -> Callable[[], bool]:
        begun = perf_counter()
        end = begun + min(max(begun - self._ended, LEAST_SECONDS), MOST_SECONDS)

        def is_over() -> bool:
            # Called after each step.
            self._ended = now = perf_counter()
            return now >= end

        return is_over

    def run(self, steps: Generator[None, None, _T]) -> Deferred[_T]:
        """Run all steps; fires with the generator's result. Cancelling it ends the work."""
        outcome: list[_T] = []

        def stop(_: object) -> None:
            task.stop()
            steps.close()

        def run() -> Generator[None, None, None]:
            outcome.append((yield from steps))

        task = self._cooperator.cooperate(run())
        done: Deferred[_T] = Deferred(stop)

        def finished(_: object) -> None:
            done.callback(outcome[0])

        def failed(failure: Any) -> None:
            # A stopped task fails, too; then `done` is being cancelled, and reports that itself.
            if not failure.check(TaskStopped):
                done.errback(failure)

        task.whenDone().addCallbacks(finished, failed)
        return done
