"""Two kinds of time: that of timers and deadlines, and that of the calendar."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["cancel_timer", "unix_time_of", "use_monotonic_clock"]


def use_monotonic_clock(reactor: IReactorTime) -> None:
    """Have a reactor's timers and deadlines keep a clock that is never set, back or forward.

    Twisted's own is that of the system: set back by an hour, it stops every timer for an hour. Timers
    that are set already stay right. From then on ``reactor.unix_time()`` is the Unix time, and
    ``reactor.seconds()`` is not.
    """
    clock: Any = reactor
    if not hasattr(clock, "unix_time"):
        ahead = clock.seconds() - time.monotonic()
        clock.unix_time = time.time
        clock.seconds = lambda: time.monotonic() + ahead


def unix_time_of(clock: IReactorTime) -> Callable[[], float]:
    """Return what tells the Unix time beside the timers of ``clock``.

    :param clock: a reactor, also one of :func:`use_monotonic_clock`; or a clock of a test, which keeps both.
    """
    told: Callable[[], float] = getattr(clock, "unix_time", None) or clock.seconds
    return told


def cancel_timer(timer: IDelayedCall | None) -> None:
    """Cancel a timer (``None``: there is none), unless it has fired or somebody else cancelled it.

    For what closes connections at the very end, also from a finalizer: a reactor that is being cleared, as by
    trial after each test, has cancelled all timers before.
    """
    if timer is not None and timer.active():
        timer.cancel()
