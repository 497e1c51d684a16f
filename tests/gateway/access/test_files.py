"""Files that say who may call are read up to a limit, and reading them never blocks."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from gateway.access.files import read_file
from gateway.access.jwks import WrongKeySet, read_key_set
from gateway.access.keys import WrongKeys, read_keys
from gateway.access.rules import WrongRules, read_rules

READERS = ((read_keys, WrongKeys), (read_rules, WrongRules), (read_key_set, WrongKeySet))


class FileTests(SynchronousTestCase):
    """:func:`gateway.access.files.read_file`, and what uses it."""

    def test_limit(self) -> None:
        """A file of the limit is read whole, one byte more is refused."""
        path = self.mktemp()
        Path(path).write_bytes(b"x" * 100)
        self.assertEqual(read_file(path, 100), b"x" * 100)
        error = self.assertRaises(ValueError, read_file, path, 99)
        self.assertEqual(str(error), "it has more than 99 bytes")

    def test_no_files(self) -> None:
        """A path without a regular file is refused at once, with the path and the reason."""
        folder = Path(self.mktemp())
        folder.mkdir()
        loop = folder / "loop"
        loop.symlink_to("loop")
        for read, wrong in READERS:
            for path, why in (
                (str(folder), "s a directory"),
                (str(folder / "none"), "No such file"),
                (str(loop), "symbolic links"),
                ("a\0b", "null"),
                ("x" * 300, "too long"),
            ):
                error = self.assertRaises(wrong, read, path)
                self.assertTrue(str(error).startswith(f"{path}: "), error)
                self.assertIn(why, str(error))

    def test_pipes_and_devices(self) -> None:
        """A pipe without a writer does not block, and a device without an end is not read."""
        if not hasattr(os, "mkfifo"):
            raise SkipTest("there are no named pipes")
        pipe = self.mktemp()
        os.mkfifo(pipe)
        for read, wrong in READERS:
            for path in (pipe, "/dev/zero"):
                error = self.assertRaises(wrong, read, path)
                self.assertEqual(str(error), f"{path}: it is not a regular file")
