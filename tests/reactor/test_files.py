"""Locks and durable renames."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from reactor.files import lock, sync_folder


class FileTests(SynchronousTestCase):
    """On this system; tests.tooling.test_otherplatforms has the other way of locking."""

    def test_lock(self) -> None:
        """One holder at a time, until it closes the file."""
        path = self.mktemp()
        with open(path, "a+") as first, open(path, "a+") as second:
            lock(first)
            self.assertRaises(OSError, lock, second)
            first.close()
            lock(second)

    def test_sync_folder(self) -> None:
        """A folder that is there; errors are not hidden."""
        folder = Path(self.mktemp())
        folder.mkdir()
        sync_folder(folder)
        self.assertRaises(FileNotFoundError, sync_folder, folder / "none")
