"""The phase before the stop, in which load balancers notice that this gateway is leaving."""

from __future__ import annotations

import signal
import threading
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from reactor.kinds import IReactor

__all__ = ["ShutdownDelay"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ShutdownDelay:
    """Waits between the stop signal and the actual stop.

    :param seconds: length of the wait in seconds; 0 for none.
    :param watch_signals: whether another SIGTERM or SIGINT ends the wait; set it in a program whose signals
        the reactor handles.
    """

    log = Logger()

    def __init__(self, reactor: IReactor, seconds: float, *, watch_signals: bool = False) -> None:
        self.seconds = seconds
        self._reactor = reactor
        self._watch_signals = watch_signals
        self._over: Deferred[None] | None = None
        self._timer: Any = None

    def wait(self) -> Deferred[None]:
        """Begin the wait; fires when the time is over, or :meth:`end` was called."""
        over: Deferred[None] = Deferred()
        self._over = over
        self._timer = self._reactor.callLater(self.seconds, self.end)
        self.log.info(
            "stopping in {seconds:g} s: /ready is 503, requests are still served", seconds=self.seconds
        )
        if self._watch_signals and threading.current_thread() is threading.main_thread():
            # The reactor's own handlers would try to stop it again, which is an error, so these handlers stay
            # installed to the end.
            for number in _SIGNALS:
                signal.signal(number, self._signalled)
        return over

    def end(self) -> None:
        """End the wait now."""
        over, self._over = self._over, None
        if over is not None:
            if self._timer.active():
                self._timer.cancel()
                self.log.info("stopping at once")
            over.callback(None)

    def _signalled(self, number: int, frame: object) -> None:
        # A signal arrives between any two instructions, so the rest waits for the reactor.
        self._reactor.callFromThread(self.end)
