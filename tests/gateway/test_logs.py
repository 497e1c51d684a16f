"""Destinations of the log: files that other programs rotate, and the journal."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.logger._legacy import publishToNewObserver
from twisted.python.log import textFromEventDict
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from gateway.commandline import Options
from gateway.logs import MOST_GATHERED, GatheredLines, LogFile, LogObserver, is_journal
from tests.gateway.workers.support import LOOPBACK, WorkersTestCase

TO_THE_JOURNAL = """
import os
status = os.fstat(1)
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
"""


class LogFileTests(SynchronousTestCase):
    """The file."""

    def setUp(self) -> None:
        self.now = 0.0
        self.path = Path(self.mktemp()).absolute()
        self.path.write_text("before\n")
        self.file = LogFile(str(self.path), lambda: self.now)
        self.addCleanup(self.file.close)

    def test_appends(self) -> None:
        """Existing content is kept; after a truncation the log continues at the start of the file, without a
        gap."""
        self.file.write("one\n")
        self.assertEqual(self.path.read_text(), "before\none\n")
        os.truncate(self.path, 0)
        self.file.write("two\n")
        self.assertEqual(self.path.read_bytes(), b"two\n")

    def test_moved(self) -> None:
        """After a rename the log continues in a new file within a second; nothing is lost."""
        old = self.path.with_suffix(".1")
        self.path.rename(old)
        self.file.write("one\n")
        self.now = 1.0
        self.file.write("two\n")
        self.assertEqual((old.read_text(), self.path.read_text()), ("before\none\n", "two\n"))
        self.path.unlink()
        self.now = 2.0
        self.file.write("three\n")
        self.assertEqual(self.path.read_text(), "three\n")

    def test_reopen(self) -> None:
        """When asked, at once."""
        self.path.rename(self.path.with_suffix(".1"))
        self.file.reopen()
        self.file.write("one\n")
        self.assertEqual(self.path.read_text(), "one\n")

    def test_cannot_be_reopened(self) -> None:
        """The log continues in the old file."""
        old = self.path.with_suffix(".1")
        self.path.rename(old)
        self.path.mkdir()
        self.file.reopen()
        self.now = 1.0
        self.file.write("one\n")
        self.assertEqual(old.read_text(), "before\none\n")

    def test_full_disk(self) -> None:
        """Lines that cannot be written are counted, and reported when there is room again."""
        if not os.path.exists("/dev/full"):
            self.skipTest("there is no /dev/full here")
        file = LogFile("/dev/full", lambda: 0.0)
        self.addCleanup(file.close)
        file.write("one\n")
        file.write("two\n")
        os.dup2(self.file._descriptor, file._descriptor)
        file.write("three\n")
        file.write("four\n")
        self.assertEqual(self.path.read_text(), "before\n2 log entries could not be written\nthree\nfour\n")

    def test_any_text(self) -> None:
        """Text that is no Unicode is shown, not a failure."""
        self.file.write("\ud800 ü\n")
        self.assertEqual(self.path.read_bytes(), b"before\n\\ud800 \xc3\xbc\n")


class GatheredLinesTests(SynchronousTestCase):
    """Lines that are written once a turn of the reactor."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.clock = Clock()
        self.lines = GatheredLines(LogFile(str(self.path), self.clock.seconds), self.clock)

    def test_together(self) -> None:
        """The lines of a turn come in their order at its end, and no timer is left."""
        for line in ("one", "two"):
            self.lines.write_line(line)
        self.assertEqual(self.path.read_text(), "")
        self.clock.advance(0)
        self.assertEqual(self.path.read_text(), "one\ntwo\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.lines.write_line("three")
        self.clock.advance(0)
        self.assertEqual(self.path.read_text(), "one\ntwo\nthree\n")
        self.lines.close()

    def test_bounded(self) -> None:
        """So many lines do not wait for the end of the turn, and each is written once."""
        expected = "".join(f"{number}\n" for number in range(MOST_GATHERED + 1))
        for number in range(MOST_GATHERED + 1):
            self.lines.write_line(str(number))
        self.assertEqual(len(self.path.read_text().splitlines()), MOST_GATHERED)
        self.lines.close()
        self.assertEqual(self.path.read_text(), expected)

    def test_close(self) -> None:
        """What was gathered is written at the end of the service; lines that come later are no failure."""
        self.lines.write_line("one")
        self.lines.close()
        self.assertEqual(self.path.read_text(), "one\n")
        self.lines.write_line("two")
        self.clock.advance(0)
        self.assertEqual(self.path.read_text(), "one\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_moved(self) -> None:
        """Lines that were gathered before a rename go to the new file within a second."""
        self.lines.write_line("one")
        self.clock.advance(1)
        self.lines.write_line("two")
        self.path.rename(self.path.with_suffix(".1"))
        self.clock.advance(1)
        self.assertEqual(self.path.read_text(), "two\n")
        self.lines.close()

    def test_lost_lines_are_counted(self) -> None:
        """Each line of a turn that cannot be written counts."""
        if not os.path.exists("/dev/full"):
            self.skipTest("there is no /dev/full here")
        file = LogFile("/dev/full", self.clock.seconds)
        lines = GatheredLines(file, self.clock)
        for line in ("one", "two", "three"):
            lines.write_line(line)
        self.clock.advance(0)
        os.dup2(self.lines._file._descriptor, file._descriptor)
        lines.write_line("four")
        lines.close()
        self.assertEqual(self.path.read_text(), "3 log entries could not be written\nfour\n")
        self.lines.close()


class ObserverTests(SynchronousTestCase):
    """Lines."""

    def test_lines(self) -> None:
        """With the time as Twisted writes it, or without; what has several lines is one entry."""
        for has_time, pattern in (
            (True, r"\A\d{4}-\d\d-\d\dT[0-9:]{8}[+-]\d{4} \[some#info\] one\n\ttwo\n\Z"),
            (False, r"\A\[some#info\] one\n\ttwo\n\Z"),
        ):
            lines: list[str] = []
            log = Logger(namespace="some", observer=LogObserver(lines.append, has_time=has_time))
            log.info("{text}", text="one\ntwo")
            self.assertRegex("".join(lines), pattern)

    def test_ports(self) -> None:
        """Messages of Twisted's ports and factories about themselves are dropped, similar ones of others are
        not."""
        lines: list[str] = []
        observer = LogObserver(lines.append)
        for text in (
            "ChannelFactory starting on 8080",
            "couchnode REST (TLS) starting on 11207",
            "(TCP Port 8080 Closed)",
            "Starting factory <some.Factory object at 0x7f95>",
            "Stopping factory <some.Factory object at 0x7f95>",
            "all is well",
        ):
            event = {"message": (text,), "time": 0.0, "system": "-", "isError": 0}
            publishToNewObserver(observer, event, textFromEventDict)
        Logger(namespace="some", observer=observer).info("it is starting on 8080")
        self.assertEqual(
            [line.split("] ")[1] for line in lines], ["all is well\n", "it is starting on 8080\n"]
        )

    def test_journal(self) -> None:
        """It is the journal's stream only if device and inode are those that systemd names."""
        status = os.fstat(0)
        stream = f"{status.st_dev}:{status.st_ino}"
        self.assertTrue(is_journal(0, {"JOURNAL_STREAM": stream}))
        for environment in ({}, {"JOURNAL_STREAM": ""}, {"JOURNAL_STREAM": stream + "0"}):
            self.assertFalse(is_journal(0, environment))
        self.assertFalse(is_journal(99999, {"JOURNAL_STREAM": stream}))


class OptionTests(SynchronousTestCase):
    """``--log-file``."""

    def parse(self, path: str, **twistd: str) -> Options:
        options = Options()
        options.parent = dict(twistd)  # type: ignore[assignment]
        options.parseOptions(["--ephemeral", "--log-file", path])
        return options

    def test_twistd_logs_there(self) -> None:
        """twistd uses it instead of its own file or standard output."""
        path = Path(self.mktemp()).absolute()
        options = self.parse(str(path), logfile="-")
        assert options.log_file is not None
        self.addCleanup(options.log_file.close)
        assert options.log_observer is not None
        Logger(observer=options.log_observer).info("hello")
        self.assertIn("hello", path.read_text())

    def test_twistd_decides(self) -> None:
        """twistd decides about a daemon's log without the option, and if it has its own; else the journal
        decides."""
        status = os.fstat(1)
        self.patch(os, "environ", {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        for twistd, ours in (
            ({"nodaemon": 1}, True),
            ({"nodaemon": 1, "logfile": "-"}, True),
            ({"nodaemon": 1, "logfile": "x.log"}, False),
            ({"nodaemon": 1, "syslog": 1}, False),
            ({"nodaemon": 0}, False),
        ):
            options = Options()
            options.parent = dict(twistd)  # type: ignore[assignment]
            options.parseOptions(["--ephemeral"])
            self.assertEqual(options.log_observer is not None, ours, twistd)

    def test_wrong(self) -> None:
        """A place where no file can be, or a second one."""
        for path, twistd, words in (
            ("no/such/folder/log", {}, "existing folder"),
            (".", {}, "existing folder"),
            ("log", {"logfile": "twistd.log"}, "excludes twistd's --logfile"),
            ("log", {"logger": "x.y"}, "excludes twistd's --logger"),
        ):
            with self.assertRaises(UsageError) as caught:
                self.parse(path, **twistd)
            self.assertIn(words, str(caught.exception))


class ProcessTests(WorkersTestCase):
    """Whole services."""

    @inlineCallbacks
    def until_in(self, path: Path, pattern: str, count: int = 1) -> Any:
        """Wait until a file holds something, and return its text."""

        def is_there() -> bool:
            self.assertFalse(self.running.ended.called, self.running.log)
            return path.exists() and len(re.findall(pattern, path.read_text())) >= count

        yield self.until(is_there)
        return path.read_text()

    @inlineCallbacks
    def check(self, *arguments: str) -> Any:
        """Rotate the log in both ways that logrotate knows, and see that every request is in it, once."""
        path = Path(self.mktemp()).absolute()
        self.running.start(
            "--ephemeral", "--listen", LOOPBACK, "--log-file", str(path), "--access-log", *arguments
        )
        text = yield self.until_in(path, "embedded node: ")
        text = yield self.until_in(path, r"listens on \S+\n")
        if arguments:
            text = yield self.until_in(path, r"worker \d+ is ready", 2)
        url = re.findall(r"listens on (\S+)", text)[0]
        found = re.findall(r"worker (\d+) is ready, process (\d+)", text)
        texts = []

        for number in range(3):
            yield self.fetch("GET", f"{url}/number-{number}")
            yield self.until_in(path, f"GET /number-{number} ")
            texts.append(path.read_text())
            if number == 0:
                path.rename(path.with_suffix(".1"))
                os.kill(self.running.pid, signal.SIGUSR1)
                yield self.until(path.exists)
            else:
                os.truncate(path, 0)
        self.running.signal("TERM")
        yield self.running.ended
        texts.append(path.read_text())
        whole = "".join(texts)
        self.assertNotIn("\0", whole)
        for number in range(3):
            self.assertEqual(whole.count(f"GET /number-{number} "), 1)
        self.assertIn("Server Shut Down.", texts[-1])
        self.assertEqual(self.running.log, "", "all of the log is in the file")
        return found

    @inlineCallbacks
    def test_one_process(self) -> Any:
        """A gateway in one process."""
        yield self.check()

    @inlineCallbacks
    def test_workers(self) -> Any:
        """With workers there is one file."""
        yield self.check("--workers", "2")

    @inlineCallbacks
    def test_no_line_for_nothing(self) -> Any:
        """Requests of every kind leave none, unless the access log is on."""
        self.running.start("--ephemeral", "--listen", LOOPBACK)
        url = (yield self.running.logged(r"listens on (\S+)"))[0]
        yield self.running.logged(r"Ready: .*\n")
        before = self.running.log
        bucket = url + "/v1/buckets/default"
        view = b'{"views": {"v": {"map": "function (doc, meta) { emit(meta.id); }"}}}'
        json = {"Content-Type": ["application/json"]}
        for method, path, options in (
            ("PUT", "/documents/a", {"data": b"1", "headers": json}),
            ("GET", "/documents/a", {}),
            ("GET", "/documents/none", {}),
            ("PUT", "/designs/d", {"data": view, "headers": json}),
            ("GET", "/designs", {}),
            ("GET", "/views/d/v?stale=false", {}),
            ("GET", "/views/d/none", {}),
        ):
            yield self.fetch(method, bucket + path, **options)
        self.assertEqual(self.running.log, before)
        yield self.stop()
        self.assertNotRegex(self.running.log, r"(Start|Stopp)ing factory")

    @inlineCallbacks
    def test_journal(self) -> Any:
        """Lines in the journal have no time."""
        self.running.start("--ephemeral", "--listen", LOOPBACK, prelude=TO_THE_JOURNAL)
        yield self.running.logged("embedded node: ")
        self.running.signal("TERM")
        yield self.running.ended
        self.assertNotRegex(self.running.log, r"(?m)^\d{4}-")
        self.assertRegex(self.running.log, r"(?m)^\[gateway\.service\.\w+#info\] couchgateway listens on")
        self.assertIn("Server Shut Down.", self.running.log)
