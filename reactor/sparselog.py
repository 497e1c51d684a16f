"""Rate limit for log lines that clients cause."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

LINES = 10
"""Largest number of lines of one kind in one interval."""

INTERVAL_SECONDS = 60.0


class SparseLog:
    """Writes the first lines of each kind in a minute, by default ten; the next line after that minute
    reports how many were left out.

    A kind is a format string, so there are only as many kinds as places that log.

    :param seconds: returns the time.
    :param lines: largest number of lines of one kind in a minute.
    """

    def __init__(self, log: Logger, seconds: Callable[[], float], lines: int = LINES) -> None:
        self._log = log
        self._seconds = seconds
        self._lines = lines
        # Format -> [start of its interval, lines in it, lines left out].
        self._kinds: dict[str, list[float]] = {}

    def admits(self, kind: str) -> bool:
        """Count one line of that kind, and return whether to write it."""
        now = self._seconds()
        known = self._kinds.get(kind)
        if known is None or now - known[0] >= INTERVAL_SECONDS:
            if known is not None and known[2]:
                self._log.info("{count} lines left out, like: {kind}", count=int(known[2]), kind=kind)
            self._kinds[kind] = [now, 1, 0]
            return True
        if known[1] < self._lines:
            known[1] += 1
            return True
        known[2] += 1
        return False

    def emit(self, level: LogLevel, text: str, **values: object) -> None:
        """Write a line of the kind ``text``, a format, if there is room for it."""
        if self.admits(text):
            self._log.emit(level, text, **values)

    def debug(self, text: str, **values: object) -> None:
        """Write a line at this level."""
        self.emit(LogLevel.debug, text, **values)

    def info(self, text: str, **values: object) -> None:
        """Write a line at this level."""
        self.emit(LogLevel.info, text, **values)

    def warn(self, text: str, **values: object) -> None:
        """Write a line at this level."""
        self.emit(LogLevel.warn, text, **values)

    def error(self, text: str, **values: object) -> None:
        """Write a line at this level."""
        self.emit(LogLevel.error, text, **values)

    def failure(self, text: str, failure: Failure, **values: object) -> None:
        """Write a line and a traceback."""
        if self.admits(text):
            self._log.failure(text, failure, LogLevel.critical, **values)
