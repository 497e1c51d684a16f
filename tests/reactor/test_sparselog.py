"""Log lines that clients cause are as many as help."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from reactor.sparselog import INTERVAL_SECONDS, LINES, SparseLog


class SparseLogTests(SynchronousTestCase):
    """The count of lines."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[Any] = []
        self.log = SparseLog(Logger(observer=self.events.append), self.clock.seconds)

    def lines(self) -> list[str]:
        """Return what was written since the last call."""
        lines = [formatEvent(event) for event in self.events]
        self.events.clear()
        return lines

    def test_ten_of_a_kind_in_a_minute(self) -> None:
        """The first ten are written; the first one of the next minute is preceded by how many were not."""
        for number in range(1000):
            self.log.info("refused {number}", number=number)
        self.assertEqual(self.lines(), [f"refused {number}" for number in range(LINES)])
        self.clock.advance(INTERVAL_SECONDS - 1)
        self.log.info("refused {number}", number=1000)
        self.assertEqual(self.lines(), [])
        self.clock.advance(1)
        self.log.info("refused {number}", number=1001)
        self.assertEqual(
            self.lines(), [f"{1001 - LINES} lines left out, like: refused {{number}}", "refused 1001"]
        )
        self.clock.advance(INTERVAL_SECONDS)
        self.log.info("refused {number}", number=1002)
        self.assertEqual(self.lines(), ["refused 1002"])

    def test_kinds_do_not_share(self) -> None:
        """One frequent kind leaves room for others, at every level."""
        for _ in range(100):
            self.log.debug("often")
        self.lines()
        for name in ("debug", "info", "warn", "error"):
            getattr(self.log, name)(name)
        self.log.failure("failure", Failure(ValueError()))
        levels = [LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical]
        self.assertEqual([event["log_level"] for event in self.events], levels)
