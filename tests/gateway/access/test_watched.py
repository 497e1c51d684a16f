"""Files that are read again when they change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from gateway.access.files import ReadFile
from gateway.access.watched import LOOK_SECONDS, WatchedFile, Watcher


def number_in(path: str, read: ReadFile) -> int:
    """Return the number that a file consists of, or that the file has which it names after an ``@``."""
    text = read(path, 100).decode()
    return number_in(str(Path(path).parent / text[1:]), read) if text.startswith("@") else int(text)


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

    def errors(self) -> list[Any]:
        """Let time pass for two checks, and return the errors that are logged."""
        with capturedLogs() as events:
            self.clock.advance(LOOK_SECONDS)
            self.clock.advance(LOOK_SECONDS)
        return [one for one in events if one["log_level"] is LogLevel.error]

    def test_named_file(self) -> None:
        """A change of a file that the file names counts as one of the file, also after an invalid one; one of
        a file that it named before does not."""
        named = self.path.with_name("named")
        named.write_text("5", "utf-8")
        self.change("@named")
        self.assertEqual(self.errors(), [])
        with capturedLogs() as events:
            named.write_text("66", "utf-8")
            self.clock.advance(LOOK_SECONDS)
            self.clock.advance(LOOK_SECONDS)
        (event,) = events
        self.assertEqual((self.reads, self.changes, event["path"]), (2, [5, 66], str(named)))
        for spoil in (lambda: named.write_text("x", "utf-8"), named.unlink):
            spoil()
            (event,) = self.errors()
            self.assertEqual((event["changed"], event["path"]), (str(named), str(self.path)))
            self.assertIn("named has changed, and", formatEvent(event))
            self.assertEqual(self.file.value, 66)
        named.write_text("7", "utf-8")
        self.assertEqual((self.errors(), self.changes), ([], [5, 66, 7]))
        self.change("8")
        self.assertEqual(self.errors(), [])
        named.write_text("9999", "utf-8")
        self.assertEqual((self.errors(), self.reads, self.changes), ([], 6, [5, 66, 7, 8]))

    def test_symbolic_link(self) -> None:
        """A secret of Kubernetes is a link to a file in a folder that a second link names, which is
        replaced."""
        folder = self.path.parent
        for name in ("old", "new"):
            (folder / name).mkdir()
            (folder / name / "n").write_text(str(len(name) + (name == "new")), "utf-8")
        link, data = self.path.with_name("n"), self.path.with_name("data")
        data.symlink_to("old")
        link.symlink_to("data/n")
        self.change("@n")
        self.assertEqual((self.errors(), self.file.value), ([], 3))
        other = self.path.with_name("other")
        other.symlink_to("new")
        other.replace(data)
        self.assertEqual((self.errors(), self.file.value), ([], 4))

    def test_changed_during_a_read(self) -> None:
        """A file that changes while it is read, or while one that it names is, is read again."""
        named = self.path.with_name("named")
        named.write_text("1", "utf-8")
        later = ["@named", "22", "333"]

        def parse(path: str, read: ReadFile) -> int:
            number = number_in(path, read)
            if later:
                # The file is read before its new content is there.
                (self.path if later[0].startswith("@") else named).write_text(later.pop(0), "utf-8")
            return number

        file = WatchedFile(str(self.path), parse)
        self.watcher.files[:] = [file]
        found = []
        for _ in range(5):
            self.clock.advance(LOOK_SECONDS)
            found.append((file.value, self.reads))
        self.assertEqual(found, [(1, 1), (22, 2), (333, 3), (333, 3), (333, 3)])

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
