"""The log on standard output, with readers that read, hang, or are gone."""

from __future__ import annotations

import io
import os
import select
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.application.service import Application, Service
from twisted.logger import ILogObserver, Logger, textFileLogObserver
from twisted.trial.unittest import SynchronousTestCase

from reactor.standardoutput import PATIENCE_SECONDS, LogsItself, PlainObserver, StandardOutput


class PipeTests(SynchronousTestCase):
    """A pipe."""

    def setUp(self) -> None:
        self.reader, writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.stream = open(writer, "w", encoding="ascii")  # noqa: SIM115  # closed by the cleanup
        self.output = StandardOutput(self.stream)
        self.addCleanup(self.stream.close)
        self.addCleanup(self.end)
        self.waited = 0.0
        real = select.select

        def wait(reads: Any, writes: Any, others: Any, seconds: float) -> Any:
            found = real(reads, writes, others, 0)
            if not found[1]:
                self.waited += seconds
            return found

        self.patch(select, "select", wait)

    def end(self) -> None:
        """Close the reader's end."""
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1

    def read(self) -> bytes:
        """Return what has arrived."""
        found = b""
        while True:
            try:
                found += os.read(self.reader, 65536)
            except BlockingIOError:
                return found

    def test_encoding(self) -> None:
        """Characters that the encoding of the stream lacks are escaped."""
        self.output.write("caf\u00e9 \u20ac\n")
        self.assertEqual(self.read(), b"caf\\xe9 \\u20ac\n")

    def test_reader_hangs(self) -> None:
        """Lines are lost and counted, without a wait for each; then no line is cut or glued to another."""
        line = "x" * 999 + "\n"
        for _ in range(500):
            self.output.write(line)
        self.output.write("two\nlines\n")
        self.assertEqual(self.waited, PATIENCE_SECONDS)
        first = self.read()
        self.output.write("on\n")
        self.output.write("and on\n")
        lines = first.splitlines(keepends=True)
        whole = [one for one in lines if one == line.encode()]
        lost = 502 - len(whole)
        self.assertGreater(len(whole), 0)
        cut = lines[len(whole) :]
        self.assertLessEqual(len(cut), 1)
        self.assertEqual(
            self.read(),
            (b"\n" if cut else b"") + b"%d log entries could not be written\non\nand on\n" % lost,
        )

    def test_long_lines(self) -> None:
        """A line that fills the pipe waits once, and its rest is lost; the next one begins a line."""
        self.output.write("y" * 10**6 + "\n")
        self.assertLessEqual(self.waited, PATIENCE_SECONDS)
        found = self.read()
        self.assertEqual(found.strip(b"y"), b"")
        self.output.write("on\n")
        self.assertEqual(self.read(), b"\n1 log entries could not be written\non\n")

    def test_slow_reader(self) -> None:
        """A reader that makes room again and again delays a long line no longer than a short one."""
        now = 0.0
        waits: list[float] = []

        def wait(reads: Any, writes: list[int], others: Any, seconds: float) -> Any:
            nonlocal now
            waits.append(seconds)
            now += min(seconds, 0.75 * PATIENCE_SECONDS)
            return [], writes if seconds >= 0.75 * PATIENCE_SECONDS else [], []

        self.patch(select, "select", wait)
        output = StandardOutput(self.stream, lambda: now)
        output.write("y" * 20000 + "\n")
        self.assertEqual([round(seconds / PATIENCE_SECONDS, 3) for seconds in waits], [1, 0.25])
        self.assertEqual(self.read(), b"y" * 4096)

    def test_reader_is_gone(self) -> None:
        """Nothing is raised."""
        self.end()
        for _ in range(3):
            self.output.write("nobody reads this\n")


class OtherTests(SynchronousTestCase):
    """Other kinds of standard output."""

    def test_file(self) -> None:
        """Lines follow what was printed before."""
        path = Path(self.mktemp())
        with path.open("w", encoding="utf-8") as stream:
            stream.write("printed\n")
            StandardOutput(stream).write("logged \u20ac\n")
        self.assertEqual(path.read_text("utf-8"), "printed\nlogged \u20ac\n")

    def test_no_descriptor(self) -> None:
        """A program may have replaced it by an object of Python's."""
        stream = io.StringIO()
        StandardOutput(stream).write("logged\n")
        self.assertEqual(stream.getvalue(), "logged\n")

    def test_full_disk(self) -> None:
        """Lines are lost, without an error."""
        if not Path("/dev/full").exists():
            raise SkipTest("this system has no device that is always full")
        with open("/dev/full", "w", encoding="utf-8") as stream:
            output = StandardOutput(stream)
            for _ in range(3):
                output.write("lost\n")


class _Program(LogsItself, Service):
    """A service that writes its log itself."""


class ObserverTests(SynchronousTestCase):
    """The observer, and how twistd finds it."""

    def test_as_twistd(self) -> None:
        """The lines are those of twistd, with tracebacks."""
        ours, theirs = io.StringIO(), io.StringIO()
        plain, twistd = PlainObserver(ours.write), textFileLogObserver(theirs)

        def both(event: Any) -> None:
            plain(event)
            twistd(event)

        log = Logger("of the test", observer=both)  # type: ignore[arg-type]
        log.info("one {word}", word="line")
        log.info("two\nlines")
        log.info("")
        try:
            raise ValueError("for the log")
        except ValueError:
            log.failure("a traceback")
        self.assertIn("ValueError: for the log", ours.getvalue())
        self.assertEqual(ours.getvalue(), theirs.getvalue())

    def test_application(self) -> None:
        """twistd looks for it on the application."""
        for observer in (PlainObserver(io.StringIO().write), None):
            application, service = Application("test"), _Program()
            service.log_observer = observer
            service.setServiceParent(application)
            self.assertIs(application.getComponent(ILogObserver, None), observer)
