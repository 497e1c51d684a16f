"""Long computations in small steps, between which other requests are served."""

from __future__ import annotations

from collections.abc import Callable, Generator
from time import perf_counter
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator, TaskStopped

__all__ = ["AT_ONCE_BYTES", "SHORT_BYTES", "StepRunner", "is_dense", "is_long"]

LEAST_SECONDS = 0.0005
MOST_SECONDS = 0.004
"""Bounds in seconds on the time that all long computations together get in one reactor turn, within one step:
as much as everything else took in the previous turn. So they get about half of the time while there is other
work."""

AT_ONCE_BYTES = 256 * 1024
"""Texts up to this size in bytes are parsed in one step; it takes 3 ms if they have few parts."""

SHORT_BYTES = 16 * 1024
"""Texts up to this size in bytes are parsed in one step, however many parts they have."""

_MOST_COMMAS = 4000

_T = TypeVar("_T")


def is_long(text: bytes) -> bool:
    """Return whether a text must be taken apart in steps: it is long, or has thousands of parts."""
    return len(text) > AT_ONCE_BYTES or is_dense(text)


def is_dense(text: bytes) -> bool:
    """Return whether a text has thousands of parts."""
    return len(text) > SHORT_BYTES and text.count(b",") > _MOST_COMMAS


class StepRunner:
    """Runs generators that yield after steps of a few milliseconds; each gets its share of every turn.

    :param clock: schedules the next turn.
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
            # A stopped task fails, too; in that case `done` was cancelled, and reports that itself.
            if not failure.check(TaskStopped):
                done.errback(failure)

        task.whenDone().addCallbacks(finished, failed)
        return done
