"""Signals that would end a service without an orderly stop.

SIGHUP: "read your settings again" to a service, "the terminal is gone" to a program started in one. SIGUSR1:
"the log file was moved".
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from reactor.kinds import IReactor

__all__ = ["HangUp"]


class HangUp:
    """Calls back on SIGHUP, or stops the reactor if the terminal that it was started in has gone. SIGUSR1 is
    only logged, unless something else has a use for it.

    :param is_terminal: returns whether standard input is a terminal that still exists.
    """

    _log = Logger()

    def __init__(self, reactor: IReactor, is_terminal: Callable[[], bool] | None = None) -> None:
        self._reactor = reactor
        self._is_terminal = is_terminal or _has_terminal
        self._reload: Callable[[], None] | None = None
        self._had_terminal = False
        self._before: Any = None
        self._has_usr1 = False

    def start(self, reload: Callable[[], None]) -> None:
        """Call ``reload`` on each signal from now on. Call this in the main thread."""
        self._reload = reload
        self._had_terminal = self._is_terminal()
        if hasattr(signal, "SIGHUP"):
            self._before = signal.signal(signal.SIGHUP, self._signalled)
        # Else twistd reopens its log file, or the gateway its own.
        if hasattr(signal, "SIGUSR1") and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
            signal.signal(signal.SIGUSR1, self._no_file)
            self._has_usr1 = True

    def stop(self) -> None:
        """Restore the signals' previous handlers. Call this last: until the data is on the disk, neither of
        them may end the process."""
        if self._reload is not None:
            self._reload = None
            if hasattr(signal, "SIGHUP"):
                signal.signal(signal.SIGHUP, self._before)
        if self._has_usr1:
            self._has_usr1 = False
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)

    def _signalled(self, number: int, frame: object) -> None:
        # A signal arrives between any two instructions, so the rest waits for the reactor.
        self._reactor.callFromThread(self._hung_up)

    def _no_file(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._tell_no_file)

    def _tell_no_file(self) -> None:
        self._log.info("SIGUSR1: this process has no log file to open again")

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
