"""Files that are read again when they change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from gateway.access.watched import LOOK_SECONDS, WatchedFile, Watcher


def number_in(path: str) -> int:
    """Return the number that a file consists of."""
    try:
        return int(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ValueError(str(error)) from error


class WatchedTests(SynchronousTestCase):
    """One file, on a clock."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_text("1", "utf-8")
        self.clock = Clock()
        self.file = WatchedFile(str(self.path), number_in)
        self.changes: list[int] = []
        self.file.on_change = lambda: self.changes.append(self.file.value)
        self.reads = 0

        def run(read: Callable[[], Any]) -> Deferred[Any]:
            self.reads += 1
            return execute(read)

        self.watcher = Watcher(self.clock, run)
        self.watcher.files.append(self.file)
        self.watcher.start()
        self.addCleanup(self.watcher.stop)

    def change(self, text: str) -> None:
        """Replace the file, as editors and deployments do."""
        other = self.path.with_suffix(".new")
        other.write_text(text, "utf-8")
        other.replace(self.path)

    def test_change(self) -> None:
        """A change is noticed within two seconds, and the file is read once for it."""
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual((self.reads, self.changes), (0, []))
        self.change("2")
        self.clock.advance(LOOK_SECONDS)
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual((self.reads, self.changes), (1, [2]))

    def test_invalid(self) -> None:
        """An invalid file, or none, leaves the old value in effect, and is logged once."""
        for spoil in (lambda: self.change("x"), self.path.unlink):
            spoil()
            with capturedLogs() as events:
                self.clock.advance(LOOK_SECONDS)
                self.clock.advance(LOOK_SECONDS)
            logged = [one for one in events if one["log_level"] is LogLevel.error]
            self.assertEqual((len(logged), self.file.value, self.changes), (1, 1, []))
        self.change("3")
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.changes, [3])

    def test_stop(self) -> None:
        """After the stop nothing is looked at."""
        self.watcher.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_invalid_at_the_start(self) -> None:
        """Then the error goes to whoever starts, also if there is no other value to begin with."""

        def refuse(path: str) -> int:
            raise ValueError("no other value")

        self.change("x")
        self.assertRaises(ValueError, WatchedFile, str(self.path), number_in)
        error = self.assertRaises(ValueError, WatchedFile, str(self.path), number_in, refuse)
        self.assertIn("invalid literal", str(error))

    def test_another_value_at_the_start(self) -> None:
        """An invalid file begins with the other value, which is logged, and is read when it changes."""
        self.change("x")
        with capturedLogs() as events:
            file = WatchedFile(str(self.path), number_in, lambda path: 7)
        (event,) = events
        self.assertEqual((event["log_level"], file.value), (LogLevel.error, 7))
        self.assertIn("invalid literal", str(event["error"]))
        self.watcher.files[:] = [file]
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual((self.reads, file.value), (0, 7))
        self.change("8")
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual((self.reads, file.value), (1, 8))
