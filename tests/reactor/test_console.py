"""Standard output of commands."""

from __future__ import annotations

import os
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from couchnode.service import main as couchnode
from gateway.access.keycommand import main as key
from gateway.commandline import main as couchgateway
from gateway.loader.command import main as load
from gateway.loader.exportcommand import main as export
from reactor.console import EXIT_PIPE, console

PRINTING = [
    *((couchgateway, [option]) for option in ("--help", "--version", "--example-config", "--print-config")),
    *((couchgateway, ["--completion", shell]) for shell in ("bash", "fish", "zsh")),
    *((couchnode, [option]) for option in ("--help", "--version")),
    *((main, ["--help"]) for main in (load, export, key)),
    (key, ["name"]),
]


def closed_pipe(*, buffered: bool) -> TextIOWrapper:
    """Return a stream whose reader is gone; without a buffer each write fails at once."""
    reading, writing = os.pipe()
    os.close(reading)
    return (
        open(writing, "w", encoding="utf-8")
        if buffered
        else TextIOWrapper(open(writing, "wb", buffering=0), "utf-8", write_through=True)
    )


class ClosedPipeTests(SynchronousTestCase):
    """The reader of a pipe ends before the command has printed everything, as ``head`` does."""

    def test_all_commands(self) -> None:
        """Each option that prints ends quietly, with the status of a program that SIGPIPE ends."""
        for main, arguments in PRINTING:
            for buffered in (True, False):
                errors = TextIOWrapper(BytesIO())
                self.patch(sys, "argv", ["command", *arguments])
                self.patch(sys, "stderr", errors)
                with closed_pipe(buffered=buffered) as output:
                    self.patch(sys, "stdout", output)
                    end = self.assertRaises(SystemExit, main)
                errors.seek(0)
                # argparse itself ignores that it cannot write, where that shows at once.
                expected = (EXIT_PIPE, 0) if main in (load, export, key) else (EXIT_PIPE,)
                self.assertIn(end.code, expected, (main, arguments, buffered))
                self.assertNotIn("rror", errors.read())

    def test_closed_standard_error(self) -> None:
        """The same for messages about wrong options."""
        self.patch(sys, "argv", ["command", "--wrong"])
        with closed_pipe(buffered=False) as errors:
            self.patch(sys, "stderr", errors)
            end = self.assertRaises(SystemExit, couchgateway)
        self.assertEqual(end.code, EXIT_PIPE)

    def test_process(self) -> None:
        """The interpreter has nothing to complain about at its end either."""
        program = str(Path(sys.executable).parent / "couchgateway")
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run([program, "--help"], stdout=writing, stderr=subprocess.PIPE, timeout=100)
        os.close(writing)
        self.assertEqual((done.returncode, done.stderr), (EXIT_PIPE, b""))


class EncodingTests(SynchronousTestCase):
    """Terminals that cannot show every character."""

    def test_escapes(self) -> None:
        """A character that the encoding lacks is printed as its escape."""
        output = TextIOWrapper(BytesIO(), "cp1252")
        self.patch(sys, "stdout", output)
        with console():
            print("café 東")
        output.seek(0)
        self.assertEqual(output.read(), "café \\u6771\n")

    def test_no_console(self) -> None:
        """A program without standard output, as on Windows without a console, works."""
        self.patch(sys, "stdout", None)
        with console():
            pass
