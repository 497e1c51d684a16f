"""The data directory: one owner, a cluster.json that is always whole, and clear words otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from couchnode.cluster.metadata import DataDirectory, DataDirectoryError


class DataDirectoryTests(SynchronousTestCase):
    """Everything on a real directory."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def open(self) -> DataDirectory:
        """Open the directory; it is let go of after the test."""
        directory = DataDirectory(self.path)
        self.addCleanup(directory.close)
        return directory

    def test_what_was_saved_is_loaded(self) -> None:
        """A new directory has nothing; then what was saved last."""
        directory = self.open()
        self.assertIsNone(directory.load())
        directory.save({"rev": 1, "name": "é"})
        directory.save({"rev": 2})
        directory.close()
        loaded = self.open().load()
        self.assertIsNotNone(loaded)
        self.assertEqual(loaded["rev"], 2)
        self.assertNotIn("name", loaded)

    def test_nobody_else_may_read(self) -> None:
        """The directory and the file with the keys are their owner's alone."""
        self.open().save({})
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o700)
        self.assertEqual((self.path / "cluster.json").stat().st_mode & 0o777, 0o600)

    def test_a_crash_while_saving_leaves_the_old_file(self) -> None:
        """Whichever step of a save fails, what was there before is loaded."""
        directory = self.open()
        directory.save({"rev": 1})
        for step in ("os.fsync", "os.replace"):
            with mock.patch(
                f"couchnode.cluster.metadata.{step}", side_effect=OSError(28, "No space left on device")
            ):
                error = self.assertRaises(DataDirectoryError, directory.save, {"rev": 2})
            self.assertIn("No space left on device", str(error))
            self.assertIn(str(self.path), str(error))
            self.assertEqual(directory.load()["rev"], 1)
        directory.save({"rev": 3})
        self.assertEqual(directory.load()["rev"], 3)

    def test_second_owner_in_this_process_is_refused(self) -> None:
        """The message names the directory, and the process that has it."""
        self.open()
        error = self.assertRaises(DataDirectoryError, DataDirectory, self.path)
        self.assertIn(
            f"{self.path.absolute()} is in use by another process (process {os.getpid()})", str(error)
        )

    def test_second_process_is_refused_until_the_first_is_killed(self) -> None:
        """A process that holds the directory keeps others out, and being killed lets them in."""
        code = (
            "import sys; from couchnode.cluster.metadata import DataDirectory; "
            "d = DataDirectory(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
        )
        root = str(Path(__file__).resolve().parents[3])
        holder = subprocess.Popen(
            [sys.executable, "-c", code, str(self.path.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
        )
        self.addCleanup(holder.communicate)
        self.addCleanup(holder.kill)
        self.assertEqual(holder.stdout.readline(), b"open\n")
        error = self.assertRaises(DataDirectoryError, DataDirectory, self.path)
        self.assertIn(f"(process {holder.pid})", str(error))
        holder.kill()
        holder.wait()
        self.open()

    def test_unusable_places(self) -> None:
        """A parent that is missing or a file in the way: an error that names the place."""
        self.path.write_text("a file")
        for place in (self.path, self.path.parent / "no" / "such"):
            error = self.assertRaises(DataDirectoryError, DataDirectory, place)
            self.assertIn(str(place.absolute()), str(error))

    def test_damaged_or_foreign_metadata_is_refused(self) -> None:
        """Half a file, something else, or a later format: refused, and left as it was."""
        directory = self.open()
        file = self.path / "cluster.json"
        for text, reason in [
            ('{"format": 1, "no', "is damaged"),
            ("[]", "has format None"),
            (json.dumps({"format": 2}), "has format 2; this version of couchnode reads 1"),
        ]:
            file.write_text(text)
            error = self.assertRaises(DataDirectoryError, directory.load)
            self.assertIn(reason, str(error))
            self.assertIn(str(file), str(error))
            self.assertEqual(file.read_text(), text)

    def test_documents_without_metadata_are_not_ignored(self) -> None:
        """Bucket files without cluster.json: refused, rather than starting afresh beside them."""
        directory = self.open()
        directory.store_path("node0", "beer", make=True).write_bytes(b"")
        error = self.assertRaises(DataDirectoryError, directory.load)
        self.assertIn("holds documents (node0/beer.sqlite) but no cluster.json", str(error))
