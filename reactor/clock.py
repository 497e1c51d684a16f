"""Two kinds of time: that of timers and deadlines, and that of the calendar."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["unix_time_of", "use_monotonic_clock"]


def use_monotonic_clock(reactor: Any) -> None:
    """Have a reactor's timers and deadlines keep a clock that is never set, back or forward.

    Twisted's own is that of the system: set back by an hour, it stops every timer for an hour. Timers
    that are set already stay right. From then on ``reactor.unix_time()`` is the Unix time, and
    ``reactor.seconds()`` is not.
    """
    if not hasattr(reactor, "unix_time"):
        ahead = reactor.seconds() - time.monotonic()
        reactor.unix_time = time.time
        reactor.seconds = lambda: time.monotonic() + ahead


def unix_time_of(clock: Any) -> Callable[[], float]:
    """Return what tells the Unix time beside the timers of ``clock``.

    :param clock: a reactor, also one of :func:`use_monotonic_clock`; or a clock of a test, which keeps both.
    """
    told: Callable[[], float] = getattr(clock, "unix_time", None) or clock.seconds
    return told
