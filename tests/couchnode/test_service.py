"""``twistd couchnode``: options are checked before anything starts; the process itself runs and ends."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from twisted.application.service import IServiceMaker
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.frames import encode_frame_infos
from couchbase.protocol.hashing import vbucket_of
from couchnode.service import NodeService, Options, makeService
from tests.couchnode.nodes import Client
from tests.tooling.forking import spawn

Steps = Generator[Deferred[Any], Any, Any]
ROOT = Path(__file__).resolve().parents[2]


class OptionsTests(SynchronousTestCase):
    """The command line."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.password_file = self.directory / "password"
        self.password_file.write_text("s3cret\nsecond line\n")
        self.password_file.chmod(0o600)

    def options(self, *arguments: str) -> Options:
        """Parse a command line."""
        options = Options()
        options.parseOptions([str(argument) for argument in arguments])
        return options

    def test_defaults(self) -> None:
        """The well-known ports on loopback, one node, and an open bucket ``default``."""
        options = self.options("--ephemeral")
        self.assertEqual(
            (options["rest-port"], options["kv-port"], options["host"]), (8091, 11210, "127.0.0.1")
        )
        self.assertEqual((options["nodes"], options["replicas"], options["ram-quota"]), (None, 0, 256))
        self.assertEqual(options["buckets"], [("default", None)])
        self.assertIsNone(options["data"])

    def test_everything(self) -> None:
        """Each option arrives where it belongs."""
        sample = self.directory / "sample.jsonl"
        sample.write_text("")
        options = self.options(
            *("--rest-port", "9000", "--kv-port", "0", "--host", "::1", "--data", self.directory / "data"),
            *("--nodes", "3", "--replicas", "2", "--ram-quota", "100", "--sample", sample),
            *("--user", "root", "--password-file", self.password_file),
            *("--bucket", "beer:pass:word", "--bucket", "open"),
        )
        self.assertEqual((options["nodes"], options["replicas"], options["kv-port"]), (3, 2, 0))
        self.assertEqual(options["password"], "s3cret")
        self.assertEqual(options["buckets"], [("beer", "pass:word"), ("open", None)])
        self.assertEqual(options["data"], (self.directory / "data").absolute())
        self.assertIsInstance(makeService(options), NodeService)
        self.assertFalse((self.directory / "data").exists())

    def test_open_buckets(self) -> None:
        """Off unless asked for aloud."""
        self.assertFalse(self.options("--ephemeral")["open-buckets"])
        self.assertTrue(self.options("--ephemeral", "--open-buckets")["open-buckets"])

    def test_each_refusal_names_its_option(self) -> None:
        """Whatever is wrong with a command line, the message begins with the option and says why."""
        file = self.password_file
        empty = self.directory / "empty"
        empty.write_text("\n")
        user = ("--user", "root", "--password-file", file)
        for arguments, text in [
            ((), "--data DIR (to keep documents) or --ephemeral"),
            (("--ephemeral", "--data", self.directory), "--ephemeral and --data exclude each other"),
            (("--data", file), "is not a directory"),
            (("--data", self.directory / "a" / "b"), "its parent directory does not exist"),
            (("--data", "x" * 300 + "/d"), "its parent directory does not exist"),
            (("--rest-port", "x"), "--rest-port x: a whole number is expected"),
            (("--kv-port", "65536"), "--kv-port 65536: a port is from 0 to 65535"),
            (("--views-port", "x"), "--views-port x: a whole number is expected"),
            (
                ("--ephemeral", "--views-port", "8091"),
                "--views-port 8091: port 8091 is also used",
            ),
            (("--nodes", "0"), "--nodes 0: the number of nodes is from 1 to 16"),
            (("--nodes", "17"), "--nodes 17: the number of nodes is from 1 to 16"),
            (("--replicas", "4"), "--replicas 4: the number of replicas is from 0 to 3"),
            (("--ram-quota", "99"), "--ram-quota 99: the quota in MiB is from 100"),
            (
                ("--ephemeral", "--kv-port", "8092", "--nodes", "2"),
                "--kv-port 8092: port 8092 is also used for --rest-port",
            ),
            (
                ("--ephemeral", "--kv-port", "65535", "--nodes", "2"),
                "--kv-port 65535: 2 nodes would need port 65536",
            ),
            (("--ephemeral", "--host", "example.org"), "--host example.org: an IP address is expected"),
            (("--ephemeral", "--host", "0.0.0.0"), "--host 0.0.0.0: beyond this machine an administrator"),
            (("--ephemeral", "--host", "0.0.0.0", *user), "--host 0.0.0.0: name the buckets"),
            (("--ephemeral", "--user", "root"), "--user: --password-file is missing"),
            (("--ephemeral", "--password-file", file), "--password-file: whose?"),
            (("--ephemeral", "--user", "", "--password-file", file), "--user: a user name must not be empty"),
            (
                ("--ephemeral", "--user", "root", "--password-file", "/no/such"),
                "--password-file /no/such: cannot be read",
            ),
            (("--ephemeral", "--user", "root", "--password-file", empty), "its first line is empty"),
            (("--ephemeral", "--bucket", "a b"), "--bucket 'a b': Bucket name can only contain"),
            (("--ephemeral", "--bucket", ""), "Bucket name needs to be specified"),
            (("--ephemeral", "--bucket", "a", "--bucket", "A:x"), "--bucket A: given twice"),
            (("--ephemeral", "--bucket", "a:" + "x" * 1025), "--bucket a: a password has at most 1024 bytes"),
            (("--ephemeral", "--bucket", "root", *user), "--user root: a bucket has that name"),
            (("--ephemeral", "--sample", "/no/such.jsonl"), "--sample /no/such.jsonl: there is no such file"),
            (("--ephemeral", "--sample", "x" * 300), "xxx: there is no such file"),
            (("--ephemeral", "stray"), "couchnode takes options only, not 'stray'"),
        ]:
            error = self.assertRaises(UsageError, self.options, *arguments)
            self.assertIn(text, str(error), arguments)

    def test_passwords_are_not_in_messages(self) -> None:
        """A bucket option that is refused does not print the password that came with it."""
        error = self.assertRaises(UsageError, self.options, "--ephemeral", "--bucket", "a b:s3cret")
        self.assertNotIn("s3cret", str(error))
        user = ("--user", "root", "--password-file", self.password_file)
        options = self.options("--ephemeral", *user, "--bucket", "beer:s3cret")
        self.assertNotIn("s3cret", f"{options!r} {options}")

    def test_log(self) -> None:
        """The node writes the log on standard output; twistd writes any other log, and that of a daemon."""
        for twistd, ours in (
            ({"nodaemon": 1}, True),
            ({"nodaemon": 1, "logfile": "-"}, True),
            ({"nodaemon": 1, "logfile": "x.log"}, False),
            ({"nodaemon": 1, "syslog": 1}, False),
            ({"nodaemon": 1, "logger": "x.y"}, False),
            ({"nodaemon": 0}, False),
            (None, False),
        ):
            options = Options()
            options.parent = twistd  # type: ignore[assignment]
            options.parseOptions(["--ephemeral"])
            self.assertEqual(makeService(options).log_observer is not None, ours, twistd)

    def test_plugin(self) -> None:
        """twistd finds the command."""
        self.assertIn("couchnode", [plugin.tapname for plugin in getPlugins(IServiceMaker)])


class Twistd(ProcessProtocol):
    """A twistd process: its output, and its end."""

    def __init__(self) -> None:
        self.output = ""
        self.ended: Deferred[int] = Deferred()
        self._waiting: list[tuple[str, Deferred[re.Match[str]]]] = []

    def said(self, pattern: str) -> Deferred[re.Match[str]]:
        """Fire when the output matches."""
        waiter: Deferred[re.Match[str]] = Deferred()
        self._waiting.append((pattern, waiter))
        self._look()
        return waiter

    def outReceived(self, data: bytes) -> None:
        """Collect output."""
        self.output += data.decode("utf-8", "replace")
        self._look()

    errReceived = outReceived

    def _look(self) -> None:
        for entry in list(self._waiting):
            match = re.search(entry[0], self.output)
            if match:
                self._waiting.remove(entry)
                entry[1].callback(match)

    def processEnded(self, reason: Failure) -> None:
        """Report the exit status (negative: a signal), and fail the remaining waiters."""
        status = 0 if reason.check(ProcessDone) else reason.value.exitCode or -reason.value.signal
        for pattern, waiter in self._waiting:
            waiter.errback(AssertionError(f"ended without {pattern!r}: {self.output}"))
        self.ended.callback(status)


class ProcessCase(TestCase):
    """Tests with the real command, in a separate process."""

    timeout = 120

    def run_twistd(self, *arguments: str, output: int | str = "r") -> Twistd:
        """Start ``twistd couchnode``; it is killed after the test if it still runs.

        :param output: its standard output; read by the protocol unless it is a descriptor.
        """
        protocol = Twistd()
        code = "from twisted.scripts.twistd import run; run()"
        process = spawn(
            protocol,
            ["-c", code, "-n", "--pidfile=", "couchnode", *arguments],
            {**os.environ, "PYTHONPATH": str(ROOT)},
            descriptors={0: "w", 1: output, 2: "r"},
        )
        protocol.transport = process

        def end() -> Deferred[int]:
            if process.pid:
                process.signalProcess("KILL")
            return protocol.ended

        self.addCleanup(end)
        return protocol

    @inlineCallbacks
    def connect(self, port: int) -> Steps:
        """Connect to a key-value port; the connection is cut after the test."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        client = yield connectProtocol(endpoint, Client())

        def leave() -> Deferred[None] | None:
            client.transport.abortConnection()
            return None if client.is_lost else client.lost

        self.addCleanup(leave)
        return client


class ProcessTests(ProcessCase):
    """The command serves, keeps its documents, and ends."""

    @inlineCallbacks
    def test_runs_and_keeps_its_documents(self) -> Steps:
        """It says its ports, loads the sample, ends in order at a signal, and starts again where it was."""
        directory = Path(self.mktemp()).absolute()
        sample = Path(self.mktemp())
        sample.write_text('{"id": "a", "doc": 1}\n{"id": "b", "doc": 2}\n')
        ports = ("--rest-port", "0", "--kv-port", "0", "--data", str(directory))
        first = self.run_twistd(*ports, "--nodes", "2", "--replicas", "1", "--sample", str(sample.absolute()))
        yield first.said("REST on http")
        self.assertIn("2 documents added to default", first.output)
        self.assertRegex(
            first.output, r"key-value on couchbase://127\.0\.0\.1:\d+,127\.0\.0\.1:\d+, REST on http"
        )
        first.transport.signalProcess("TERM")
        # twistd ends in order, and then by the signal that it was sent.
        self.assertEqual((yield first.ended), -signal.SIGTERM)
        self.assertIn("Server Shut Down", first.output)
        self.assertNotIn("Traceback", first.output)
        second = self.run_twistd(*ports)
        match = yield second.said(r"REST on (http://127\.0\.0\.1:\d+)")
        body = yield deferToThread(
            lambda: urlopen(match[1] + "/pools/default/buckets/default", timeout=10).read()
        )
        bucket = json.loads(body)
        self.assertEqual(bucket["basicStats"]["itemCount"], 2)
        self.assertEqual(len(bucket["nodes"]), 2)

    @inlineCallbacks
    def test_durable_writes_survive_a_kill(self) -> Steps:
        """Killed without warning, it opens again with every write that was acknowledged as on disk."""
        options = ("--rest-port", "0", "--kv-port", "0", "--data", str(Path(self.mktemp()).absolute()))
        first = self.run_twistd(*options)
        client = yield self.connect(int((yield first.said(r"couchbase://127\.0\.0\.1:(\d+)"))[1]))
        to_disk = encode_frame_infos([(1, b"\x02")])  # majority, and persisted by the active copy
        keys = [b"key-%d" % number for number in range(100)]
        for key in keys:
            vbucket = vbucket_of(key, 1024)
            client.send(Opcode.SET, key=key, value=key, extras=bytes(8), vbucket=vbucket, framing=to_disk)
        for _ in keys:
            answer = yield client.next_answer()
            self.assertEqual(answer.specific, Status.SUCCESS)
        first.transport.signalProcess("KILL")
        yield first.ended
        yield client.lost
        second = self.run_twistd(*options)
        client = yield self.connect(int((yield second.said(r"couchbase://127\.0\.0\.1:(\d+)"))[1]))
        for key in keys:
            answer = yield client.ask(Opcode.GET, key=key, vbucket=vbucket_of(key, 1024))
            self.assertEqual((answer.specific, answer.value), (Status.SUCCESS, key))

    @inlineCallbacks
    def test_signals_that_do_not_end_it(self) -> Steps:
        """SIGHUP and SIGUSR1 are logged, and lose nothing that is not on disk yet; SIGTERM, even twice, ends
        it in order."""
        options = ("--rest-port", "0", "--kv-port", "0", "--data", str(Path(self.mktemp()).absolute()))
        node = self.run_twistd(*options)
        client = yield self.connect(int((yield node.said(r"couchbase://127\.0\.0\.1:(\d+)"))[1]))
        node.transport.signalProcess("HUP")
        yield node.said("SIGHUP: there are no certificates to read again")
        node.transport.signalProcess(signal.SIGUSR1)
        yield node.said("SIGUSR1: this process has no log file")
        answer = yield client.ask(
            Opcode.SET, key=b"k", value=b"v", extras=bytes(8), vbucket=vbucket_of(b"k", 1024)
        )
        self.assertEqual(answer.specific, Status.SUCCESS)
        node.transport.signalProcess("TERM")
        node.transport.signalProcess("TERM")
        self.assertEqual((yield node.ended), -signal.SIGTERM)
        self.assertNotIn("Traceback", node.output)
        again = self.run_twistd(*options)
        client = yield self.connect(int((yield again.said(r"couchbase://127\.0\.0\.1:(\d+)"))[1]))
        answer = yield client.ask(Opcode.GET, key=b"k", vbucket=vbucket_of(b"k", 1024))
        self.assertEqual(answer.value, b"v")

    @inlineCallbacks
    def test_loss_at_the_stop(self) -> Steps:
        """A stop that cannot write everything to disk ends with status 1, in spite of the signal."""
        place = Path(self.mktemp()).absolute()
        node = self.run_twistd("--rest-port", "0", "--kv-port", "0", "--data", str(place))
        client = yield self.connect(int((yield node.said(r"couchbase://127\.0\.0\.1:(\d+)"))[1]))
        (place / "node0" / "default.sqlite").unlink()
        answer = yield client.ask(
            Opcode.SET, key=b"k", value=b"v", extras=bytes(8), vbucket=vbucket_of(b"k", 1024)
        )
        self.assertEqual(answer.specific, Status.SUCCESS)
        node.transport.signalProcess("TERM")
        self.assertEqual((yield node.ended), 1)
        self.assertIn("bucket default was not closed cleanly", node.output)
        self.assertIn("Server Shut Down", node.output)

    @inlineCallbacks
    def test_output_is_not_read(self) -> Steps:
        """A full pipe behind its standard output does not stop it; the lines that are lost are counted."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.set_blocking(writer, False)
        try:
            while os.write(writer, bytes(4096)):
                pass
        except BlockingIOError:
            os.set_blocking(writer, True)
        place = Path(self.mktemp()).absolute()
        ports = ("--rest-port", "0", "--kv-port", "0")
        node = self.run_twistd(*ports, "--data", str(place), output=writer)
        os.close(writer)
        while not (place / "cluster.json").exists():
            yield deferLater(reactor, 0.02)
        # The reader goes on.
        output = os.read(reader, 2**20)
        os.set_blocking(reader, False)
        node.transport.signalProcess("TERM")
        while not output.endswith(b"Server Shut Down.\n"):
            try:
                output += os.read(reader, 65536)
            except BlockingIOError:
                yield deferLater(reactor, 0.02)
        self.assertEqual((yield node.ended), -signal.SIGTERM)
        self.assertRegex(output, rb"\n?[1-9]\d* log entries could not be written\n")

    @inlineCallbacks
    def test_cannot_start(self) -> Steps:
        """The reason for a failed start is one line in the log, without a traceback, and exit status 1."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "cluster.json").write_text("{")
        process = self.run_twistd("--rest-port", "0", "--kv-port", "0", "--data", str(directory.absolute()))
        self.assertEqual((yield process.ended), 1)
        self.assertEqual(len(re.findall("cannot start: .*cluster.json is damaged", process.output)), 1)
        self.assertNotIn("Traceback", process.output)
