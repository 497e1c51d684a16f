"""The log as JSON: one object an event, whatever is in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import inlineCallbacks
from twisted.logger import Logger
from twisted.logger._legacy import publishToNewObserver
from twisted.python.failure import Failure
from twisted.python.log import textFromEventDict
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from gateway.commandline import Options
from gateway.jsonlog import JsonObserver
from gateway.logs import LogObserver, is_noise
from tests.gateway.workers.support import LOOPBACK, WorkersTestCase

MEMBERS = {"time", "level", "namespace", "message"}


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class ObserverTests(SynchronousTestCase):
    """The object of an event."""

    def setUp(self) -> None:
        self.lines: list[str] = []
        self.observer = JsonObserver(self.lines.append, is_noise)
        self.log = Logger(namespace="some.place", observer=self.observer)

    def entry(self) -> dict[str, Any]:
        """Return the object of the only event."""
        (line,) = self.lines
        self.assertRegex(line, r"\A[ -~]*\n\Z")
        return json.loads(line)  # type: ignore[no-any-return]

    def test_members(self) -> None:
        """Time, level, namespace, text, and the values in the text; no other values."""
        self.log.warn("{count} of {name}", count=3, name="x", password="secret", part=Unprintable())
        entry = self.entry()
        self.assertRegex(entry.pop("time"), r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
        self.assertEqual(
            entry,
            {"level": "warn", "namespace": "some.place", "message": "3 of x", "count": 3, "name": "x"},
        )

    def test_names_of_members(self) -> None:
        """A value cannot replace a member of the event."""
        self.log.info("{message} {time} {namespace}", message="m", time="t", namespace="n")
        entry = self.entry()
        self.assertEqual((entry["message"], entry["namespace"]), ("m t n", "some.place"))
        self.assertNotEqual(entry["time"], "t")

    def test_failure(self) -> None:
        """Its traceback is a member of its own; without the values of variables."""
        try:
            secret = "hunter" + "2"
            raise KeyError(len(secret))
        except KeyError:
            self.log.failure("request {id} failed", failure=Failure(captureVars=True), id="7")
        entry = self.entry()
        self.assertEqual((entry["message"], entry["id"]), ("request 7 failed", "7"))
        self.assertIn("test_jsonlog.py", entry["traceback"])
        self.assertRegex(entry["traceback"], r"KeyError: 7\Z")
        self.assertNotIn("hunter2", self.lines[0])

    def test_legacy(self) -> None:
        """Events of Twisted's old logging have their text; those of ports about themselves are left out."""
        for text in ("(TCP Port 8080 Closed)", "Server Shut Down."):
            event = {"message": (text,), "time": 0.0, "system": "-", "isError": 0}
            publishToNewObserver(self.observer, event, textFromEventDict)
        self.assertEqual(self.entry()["message"], "Server Shut Down.")

    def test_unprintable(self) -> None:
        """Values without a text, and templates that are none, do not lose the event."""
        self.log.info("{value}", value=Unprintable())
        self.log.info("{", value=1)
        self.assertEqual([set(json.loads(line)) for line in self.lines], [MEMBERS, MEMBERS])

    def test_alone(self) -> None:
        """A line that is an object already is not put into another one."""
        self.log.info("{line}", line='{"a": 1}', is_alone=True)
        self.assertEqual(self.lines, ['{"a": 1}\n'])

    def test_bounds(self) -> None:
        """An event has no more members and text than a reader can be expected to take."""
        many = {f"v{number}": "x" * 5000 for number in range(100)}
        self.log.info(" ".join("{" + name + "}" for name in many), **many)
        entry = self.entry()
        self.assertLess(len(entry), 40)
        self.assertLess(len(self.lines[0]), 2**18)

    @given(st.text(max_size=60))
    def test_any_text(self, text: str) -> None:
        """Every text is on one line of ASCII, and is read back."""
        self.lines.clear()
        self.log.info("{text}", text=text)
        if text:
            entry = self.entry()
            self.assertEqual((entry["message"], entry["text"]), (text, text))


class TextTests(SynchronousTestCase):
    """The other form."""

    @given(st.text(max_size=60))
    def test_forged_lines(self, text: str) -> None:
        """No value can begin a line, or control a terminal."""
        for has_time in (True, False):
            lines: list[str] = []
            Logger(namespace="some", observer=LogObserver(lines.append, has_time=has_time)).info(
                "{text}", text="x" + text
            )
            (line,) = lines
            self.assertNotRegex(line, r"\n[^\t]")
            self.assertNotRegex(line, "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")

    def test_shown(self) -> None:
        """Control characters are shown as escapes."""
        lines: list[str] = []
        Logger(namespace="some", observer=LogObserver(lines.append, has_time=False)).info(
            "{text}", text="a\x1b[2J\r\u2028b"
        )
        self.assertEqual(lines, ["[some#info] a\\x1b[2J\\x0d\\u2028b\n"])


class OptionTests(SynchronousTestCase):
    """``--log-format``."""

    def parse(self, *arguments: str, **twistd: object) -> Options:
        options = Options()
        options.parent = dict(twistd)  # type: ignore[assignment]
        options.parseOptions(["--ephemeral", *arguments])
        return options

    def test_chosen(self) -> None:
        """It decides the log observer, on standard output and in a file."""
        path = Path(self.mktemp()).absolute()
        options = self.parse("--log-format", "json", "--log-file", str(path))
        assert options.log_file is not None
        self.addCleanup(options.log_file.close)
        Logger(observer=options.log_observer).info("hello")  # type: ignore[arg-type]
        self.assertEqual(json.loads(path.read_text())["message"], "hello")
        for form, kind in (("json", JsonObserver), ("text", LogObserver)):
            options = self.parse("--log-format", form, nodaemon=1)
            self.assertIsInstance(options.log_observer, kind)

    def test_wrong(self) -> None:
        """Another word, and a log that twistd writes in its own form."""
        for arguments, twistd, words in (
            (["--log-format", "xml"], {"nodaemon": 1}, "not one of text, json"),
            (["--log-format", "json"], {}, "a daemon has no standard output"),
            (["--log-format", "json"], {"nodaemon": 1, "logfile": "x"}, "excludes twistd's --logfile"),
            (["--access-log-file", "x"], {}, "needs --access-log"),
            (
                ["--access-log", "--log-file", "x", "--access-log-file", "x"],
                {},
                "it is the file of --log-file",
            ),
            (["--access-log", "--access-log-file", "no/folder/x"], {}, "existing folder"),
            (["--access-log", "--access-log-format", "clf"], {}, "not one of extended, combined, json"),
        ):
            with self.assertRaises(UsageError) as caught:
                self.parse(*arguments, **twistd)
            self.assertIn(words, str(caught.exception))


class ProcessTests(WorkersTestCase):
    """Whole services."""

    @inlineCallbacks
    def log(self, *arguments: str) -> Any:
        """Return what a service logs while it serves a request."""
        self.running.start("--ephemeral", "--listen", LOOPBACK, "--access-log", *arguments)
        url = (yield self.running.logged(r"listens on (\S+?)[\"\n]"))[0]
        yield self.running.logged("Ready: ")
        yield self.fetch("GET", url + "/a%0Ab", headers={"X-Request-Id": ["id-1"]})
        yield self.running.logged("GET.*a%0Ab")
        self.running.signal("TERM")
        yield self.running.ended
        return self.running.log

    @inlineCallbacks
    def test_all_of_it(self) -> Any:
        """Each line from twistd's first to its last is an object, those of workers, too."""
        for workers in ((), ("--workers", "2")):
            log = yield self.log("--log-format", "json", "--access-log-format", "json", *workers)
            entries = [json.loads(line) for line in log.splitlines()]
            texts = [entry.get("message", "") for entry in entries]
            self.assertRegex(texts[0], "^twistd .* starting up")
            self.assertIn("Server Shut Down.", texts)
            (access,) = [entry for entry in entries if entry["namespace"] == "access"]
            self.assertEqual((access["target"], access["request_id"]), ("/a%0Ab", "id-1"))
            self.assertEqual(len([text for text in texts if "listens on" in text]), 1)
            self.running = type(self.running)()

    @inlineCallbacks
    def test_workers_lines(self) -> Any:
        """Lines of workers have the worker's number, in both forms."""
        log = yield self.log("--log-format", "json", "--workers", "2")
        found = [json.loads(line) for line in log.splitlines() if "a%0Ab" in line]
        self.assertEqual([(entry["worker"] in (1, 2), entry["level"]) for entry in found], [(True, "info")])
        self.assertIn('"GET /a%0Ab HTTP/1.1" 404', found[0]["message"])

    @inlineCallbacks
    def test_combined(self) -> Any:
        """Lines of the combined form stand alone, so that programs for them can read the log."""
        for workers in ((), ("--workers", "2")):
            log = yield self.log("--access-log-format", "combined", *workers)
            self.assertEqual(
                len(re.findall(r'(?m)^127\.0\.0\.1 - - \[[^]]*\] "GET /a%0Ab HTTP/1.1" 404 \d+ "-"', log)),
                1,
                log,
            )
            self.running = type(self.running)()

    @inlineCallbacks
    def test_file(self) -> Any:
        """The access log may have a file of its own, which all workers append to, and which may be moved."""
        path = Path(self.mktemp()).absolute()
        arguments = ("--access-log", "--access-log-file", str(path), "--access-log-format", "json")
        self.running.start("--ephemeral", "--listen", LOOPBACK, "--workers", "2", *arguments)
        url = (yield self.running.logged(r"listens on (\S+)"))[0]
        yield self.running.logged("Ready: ")
        for number in range(20):
            yield self.fetch("GET", f"{url}/number-{number}")
        old = path.with_suffix(".1")
        path.rename(old)
        last = 20
        while not path.exists():
            yield self.fetch("GET", f"{url}/number-{last}")
            last += 1
        self.running.signal("TERM")
        yield self.running.ended
        targets = [json.loads(line)["target"] for line in (old.read_text() + path.read_text()).splitlines()]
        self.assertEqual(sorted(targets), sorted(f"/number-{number}" for number in range(last)))
        self.assertNotIn("number-", self.running.log)
