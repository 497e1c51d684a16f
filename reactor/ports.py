"""Twisted's listening ports while the system has no descriptor or memory for another connection.

Twisted closes waiting connections with the help of a spare descriptor, and logs three lines for each. If the
spare one is gone (another thread was faster), or the system itself has no more, it logs a line and tries
again at once, as long as a connection waits: it uses all of a core, and fills the log.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from zope.interface import implementer

from reactor.descriptors import descriptor_limit
from reactor.sparselog import SparseLog

__all__ = ["PAUSE_SECONDS", "PortGuard", "logged_in"]

PAUSE_SECONDS = 0.5
"""Pause before a port tries again to accept."""

_EXHAUSTED = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")


def logged_in(log: Logger, clock: IReactorTime) -> Callable[[str, int], None]:
    """Return a function for :class:`PortGuard` that logs one line a minute."""
    sparse = SparseLog(log, clock.seconds, lines=1)

    def exhausted(error: str, count: int) -> None:
        sparse.warn(
            "clients are refused: {error}; the limit is {limit} file descriptors: raise the limit (systemd: "
            "LimitNOFILE=65536; shell: ulimit -n)",
            error=error,
            limit=descriptor_limit(),
        )

    return exhausted


@implementer(ILogObserver)
class PortGuard:
    """Takes the log of a port: reports refused connections, and lets the port pause if it cannot accept.

    :param exhausted: called with the reason and the number of closed connections, 0 if they stay in the
        backlog.
    """

    def __init__(self, clock: IReactorTime, exhausted: Callable[[str, int], object]) -> None:
        self._clock = clock
        self._exhausted = exhausted
        self._port: Any = None

    def __call__(self, event: LogEvent) -> None:
        """Take a log event."""
        text = event.get("log_format") or ""
        if text.startswith("EMFILE recovery: Closed socket"):
            self._exhausted("no file descriptor is left", 1)
        elif text.startswith("Could not accept new connection"):
            # Others concern one client, which has left.
            if event.get("acceptError") in _EXHAUSTED:
                self._exhausted(f"accept failed with {event['acceptError']}", 0)
                self._pause()
        elif "EMFILE" not in text:
            globalLogPublisher(event)

    def attach(self, port: IListeningPort) -> None:
        """Guard a port, if it is one of Twisted's own ports."""
        if hasattr(port, "_logger"):
            self._port = port
            port._logger = Logger(namespace="twisted.internet.tcp.Port", observer=self)

    def _pause(self) -> None:
        if self._port is not None and self._listens():
            self._port.stopReading()
            self._clock.callLater(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._listens():
            _reserve()
            self._port.startReading()

    def _listens(self) -> bool:
        return bool(self._port.connected and not self._port.disconnecting)


def _reserve() -> None:
    """Get Twisted's spare descriptor back, which it does not do itself."""
    spare = getattr(tcp, "_reservedFD", None)
    if spare is None or spare.available():
        return
    try:
        # Twisted would log a traceback for each attempt that fails.
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return
    spare.reserve()
