"""SIGHUP: "read your settings again" to a service, "the terminal is gone" to a program started in one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from reactor.kinds import IReactor

__all__ = ["HangUp"]


class HangUp:
    """Calls back on SIGHUP, or stops the reactor if the terminal that it was started in has gone.

    :param is_terminal: returns whether standard input is a terminal that still exists.
    """

    _log = Logger()

    def __init__(self, reactor: IReactor, is_terminal: Callable[[], bool] | None = None) -> None:
        self._reactor = reactor
        self._is_terminal = is_terminal or _has_terminal
        self._reload: Callable[[], None] | None = None
        self._had_terminal = False
        self._before: Any = None

    def start(self, reload: Callable[[], None]) -> None:
        """Call ``reload`` on each signal from now on. Call this in the main thread."""
        self._reload = reload
        self._had_terminal = self._is_terminal()
        if hasattr(signal, "SIGHUP"):
            self._before = signal.signal(signal.SIGHUP, self._signalled)

    def stop(self) -> None:
        """Restore the signal's previous handler."""
        if self._reload is not None:
            self._reload = None
            if hasattr(signal, "SIGHUP"):
                signal.signal(signal.SIGHUP, self._before)

    def _signalled(self, number: int, frame: object) -> None:
        # A signal arrives between any two instructions, so the rest waits for the reactor.
        self._reactor.callFromThread(self._hung_up)

    def _hung_up(self) -> None:
        if self._reload is None:
            return
        if self._had_terminal and not self._is_terminal():
            self._log.info("SIGHUP: the terminal is gone, so this stops")
            self._reactor.stop()
        else:
            self._reload()


def _has_terminal() -> bool:
    return os.isatty(0)
