"""Handshakes take turns: a flood of them must not keep the reactor from its other work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

__all__ = ["TURN_SECONDS", "Handshakes"]

TURN_SECONDS = 0.01
"""Time for handshakes in one turn of the reactor. One step takes 0.1 to 2 ms, by the kind of key."""


class Handshakes:
    """Runs the steps of handshakes: at once while a turn's time for them lasts, else in later turns, in
    order.

    :param clock: the reactor.
    :param seconds: returns the time, to measure with.
    """

    def __init__(self, clock: IReactorTime, seconds: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds = seconds
        self._used = 0.0
        self._is_counting = False
        self._waiting: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        """Return the number of steps that wait."""
        return len(self._waiting)

    def add(self, step: Callable[[], None]) -> None:
        """Run a step, now or later. It must not raise."""
        if not self._is_counting:
            self._is_counting = True
            self._clock.callLater(0, self._next_turn)
        if self._waiting or self._used >= TURN_SECONDS:
            self._waiting.append(step)
        else:
            self._run(step)

    def _run(self, step: Callable[[], None]) -> None:
        begun = self._seconds()
        step()
        self._used += self._seconds() - begun

    def _next_turn(self) -> None:
        self._used = 0.0
        self._is_counting = bool(self._waiting)
        if self._waiting:
            self._clock.callLater(0, self._next_turn)
        while self._waiting and self._used < TURN_SECONDS:
            self._run(self._waiting.popleft())
