"""Clocks: for timers and deadlines, for calendar time, and for durations."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["cancel_timer", "stopwatch_of", "unix_time_of", "use_monotonic_clock"]


def use_monotonic_clock(reactor: IReactorTime) -> None:
    """Make a reactor's timers and deadlines use a monotonic clock.

    Twisted uses the system's clock: if that is set back by an hour, every timer stops for an hour. Timers
    that are already set keep their delay. From then on ``reactor.unix_time()`` is the Unix time, and
    ``reactor.seconds()`` is not.
    """
    clock: Any = reactor
    if not hasattr(clock, "unix_time"):
        ahead = clock.seconds() - time.monotonic()
        clock.unix_time = time.time
        clock.stopwatch = monotonic = time.monotonic
        clock.seconds = lambda: monotonic() + ahead


def unix_time_of(clock: IReactorTime) -> Callable[[], float]:
    """Return a function for the Unix time that goes with the timers of ``clock``.

    :param clock: a reactor, also one of :func:`use_monotonic_clock`; or a test's clock, which is both.
    """
    unix_time: Callable[[], float] = getattr(clock, "unix_time", None) or clock.seconds
    return unix_time


def stopwatch_of(clock: IReactorTime) -> Callable[[], float]:
    """Return a function for measuring durations: the times that it returns, in seconds, can only be compared
    with each other.

    For what is measured for each request: with :func:`use_monotonic_clock`, ``clock.seconds`` is a Python
    function, and this one is not.

    :param clock: a reactor, or a test's clock.
    """
    stopwatch: Callable[[], float] = getattr(clock, "stopwatch", None) or clock.seconds
    return stopwatch


def cancel_timer(timer: IDelayedCall | None) -> None:
    """Cancel a timer (``None`` for none), unless it has fired or was cancelled already.

    For code that closes connections at shutdown or from a finalizer: a reactor that is being cleared, as by
    trial after each test, has already cancelled all timers.
    """
    if timer is not None and timer.active():
        timer.cancel()
