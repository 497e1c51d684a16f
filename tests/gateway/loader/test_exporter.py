"""Exports whose gateway fails, or that are killed, and lines of any documents."""

from __future__ import annotations

import gzip
import json
import signal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, inlineCallbacks
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from couchbase.protocol.scanpages import Document
from gateway.batches.lines import LineOperation, read_operation
from gateway.dialect.values import VIEW, value_member
from gateway.loader.arguments import parse_export
from gateway.loader.client import Client
from gateway.loader.errors import LoadError
from gateway.loader.exporter import Exporter
from gateway.loader.exportlines import line_of, place_members
from gateway.loader.lines import LineReader
from gateway.loader.output import Output
from gateway.loader.progress import Note
from gateway.views.listing import document_row, fits_line
from tests.tooling.forking import spawn

PLACE = ("_default", "_default")
DOCUMENTS = 40


def row(number: int) -> bytes:
    """Return one row of the listing."""
    name = b'"id":"k%d"' % number
    return b'{%b,"doc":{"meta":{%b,"cas":"00","flags":2},"json":%d}}\n' % (name, name, number)


def line(number: int) -> bytes:
    """Return the line for a row."""
    return b'{"id":"k%d","export":{"meta":{"flags":2},"json":%d}}\n' % (number, number)


LINES = b"".join(line(number) for number in range(DOCUMENTS))


class Listing(Protocol):
    """A gateway that lists forty documents, ten a part, whose cursors are numbers."""

    def __init__(self, failures: list[str], asked: list[int]) -> None:
        self.failures = failures
        self.asked = asked
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        """Take requests, one at a time."""
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, self.data = self.data.partition(b"\r\n\r\n")
            query = parse_qs(head.split()[1].partition(b"?")[2].decode())
            self.answer(int(query.get("cursor", ["0"])[0]))

    def answer(self, start: int) -> None:
        """Answer a listing from there on, as the next failure says."""
        self.asked.append(start)
        failure = self.failures.pop(0) if self.failures else ""
        transport: Any = self.transport
        if failure == "503":
            transport.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
            return
        transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for first in range(start, DOCUMENTS, 10):
            rows = b"".join(row(number) for number in range(first, first + 10))
            cursor = b'{"cursor":"%d"}\n' % (first + 10)
            if failure == "cut":
                self.chunk(rows + cursor + row(first + 10)[:20])
                transport.loseConnection()
                return
            if failure in ("safe", "never"):
                error = {"code": "Unavailable", "reason": "it is away", "retry": failure}
                self.chunk(rows + cursor + json.dumps({"error": error}).encode() + b"\n")
                transport.loseConnection()
                return
            self.chunk(rows + cursor)
            if failure == "hang":
                return
        self.chunk(b'{"cursor":null}\n')
        transport.write(b"0\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        """Send one piece of the body."""
        assert self.transport is not None
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))


class FailureTests(TestCase):
    """A scripted gateway behind a real socket."""

    timeout = 120

    def setUp(self) -> None:
        """Start the gateway."""
        self.failures: list[str] = []
        self.asked: list[int] = []
        factory = Factory.forProtocol(lambda: Listing(self.failures, self.asked))  # type: ignore[arg-type]
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        folder = Path(self.mktemp())
        folder.mkdir()
        self.file = folder / "export.jsonl"

    @property
    def arguments(self) -> list[str]:
        """Return the program's arguments."""
        url = f"http://127.0.0.1:{self.port.getHost().port}"
        return [str(self.file), "--bucket", "default", "--url", url, "--collection", "_default"]

    def export(self) -> Any:
        """Write a new file; its progress is noted after each part."""
        client = Client(parse_export(self.arguments), reactor)
        self.addCleanup(client.close)
        output = Output(self.file)
        self.addCleanup(output.close)
        note = Note(self.file.with_name("note"), {})
        exporter = Exporter(client, output, note, reactor, jitter=lambda: -1.0, attempts=3)
        return ensureDeferred(exporter.write(PLACE))

    @inlineCallbacks
    def test_temporary_failures(self) -> Any:
        """Each continues after the last whole part; no line is missing, or there twice."""
        self.failures[:] = ["503", "cut", "safe", "cut"]
        yield self.export()
        self.assertEqual(self.file.read_bytes(), LINES)
        self.assertEqual(self.asked, [0, 0, 10, 20, 30])

    @inlineCallbacks
    def test_lasting_failures(self) -> Any:
        """They stop the export, with words; what was whole is written."""
        self.failures[:] = ["503"] * 3
        stopped = yield self.assertFailure(self.export(), LoadError)
        self.assertIn("gave up after 3 attempts", str(stopped))
        self.failures[:] = ["never"]
        stopped = yield self.assertFailure(self.export(), LoadError)
        self.assertIn("the listing failed: Unavailable: it is away", str(stopped))
        self.assertEqual(self.file.read_bytes(), b"".join(line(number) for number in range(10)))

    @inlineCallbacks
    def test_killed(self) -> Any:
        """After ``kill -9`` the same command completes the file, plain or compressed, whatever was written
        after the last note."""
        for name in ("export.jsonl", "export.jsonl.gz"):
            self.file = self.file.with_name(name)
            note = self.file.with_name(name + ".progress")
            self.failures[:] = ["cut", "hang"]
            self.asked.clear()
            program = Program(self.arguments)
            while len(self.asked) < 2:
                yield deferLater(reactor, 0.02, lambda: None)
            program.transport.signalProcess("KILL")
            self.assertEqual((yield program.ended), -signal.SIGKILL)
            with open(self.file, "ab") as file:
                file.write(b'{"id":"half')
            self.assertEqual(json.loads(note.read_bytes())["cursor"], "10")
            yield Program(self.arguments).ended.addCallback(self.assertEqual, 0)
            data = self.file.read_bytes()
            self.assertEqual(gzip.decompress(data) if name.endswith(".gz") else data, LINES)
            self.assertEqual(self.asked, [0, 10, 10])
            self.assertFalse(note.exists())

    @inlineCallbacks
    def test_a_file_that_was_cut(self) -> Any:
        """A file shorter than noted is not continued."""
        self.failures[:] = ["never"]
        self.assertEqual((yield Program(self.arguments).ended), 2)
        self.file.write_bytes(b"")
        self.assertEqual((yield Program(self.arguments).ended), 2)
        self.assertEqual((yield Program([*self.arguments, "--restart"]).ended), 0)
        self.assertEqual(self.file.read_bytes(), LINES)


class Program(ProcessProtocol):
    """``couchgateway-export`` as a process, or other code."""

    def __init__(
        self, arguments: list[str], code: str = "from gateway.loader.exportcommand import main; main()"
    ) -> None:
        self.ended: Deferred[int] = Deferred()
        spawn(self, ["-c", code, *arguments])

    def processEnded(self, reason: Any) -> None:
        """Note its status."""
        reason.trap(ProcessDone, ProcessTerminated)
        killed = reason.value.signal
        self.ended.callback(-killed if killed else reason.value.exitCode)


KEYS = st.binary(min_size=1, max_size=20) | st.text(min_size=1, max_size=8).map(
    lambda text: text.encode("utf-8", "replace")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
VALUES = st.binary(max_size=40) | st.tuples(JSON, st.sampled_from([None, 1])).map(
    lambda made: json.dumps(made[0], indent=made[1]).encode()
)


class LineTests(SynchronousTestCase):
    """From a document to a row, a line, and the operations that restore it."""

    @given(
        KEYS,
        VALUES,
        st.sampled_from([0, 1, 0x02000000, 0x03000000, 0x04000000, 2**32 - 1]),
        st.sampled_from([0, 1_700_000_001, 2**32 - 1]),
        st.dictionaries(st.text("abc_", min_size=1, max_size=15), JSON, max_size=20),
        st.sampled_from([PLACE, ("s", "c%-_")]),
    )
    def test_any_document(
        self, key: bytes, value: bytes, flags: int, expiry: int, attributes: dict[str, Any], place: Any
    ) -> None:
        """The operations have the same key, bytes, flags, expiry, attributes and collection."""
        written = json.dumps(attributes).encode() if attributes else b""
        shown = flags if fits_line(value) else 0x03000000
        listed = document_row(
            Document(key, value, flags, expiry, 7, 0, written), value_member(VIEW, shown, value)
        )
        made = line_of(listed, place_members(*place))
        assert made is not None and b"\n" not in made
        read = LineReader(seconds=lambda: 1_700_000_000.0).read(1, made)
        assert read is not None
        first, *more = self.operations(read.operation)
        self.assertEqual(read.operation_count, 1 + len(more))
        self.assertEqual((first.key, *first.value(), first.members["ttl"]), (key, value, flags, expiry))
        names = ("_default", "_default")
        for operation in (first, *more):
            found = tuple(operation.members.get(name, "_default") for name in ("scope", "collection"))
            self.assertEqual((operation.key, found), (key, place if place != PLACE else names))
        specs = [spec for operation in more for spec in operation.members["operations"]]
        restored = {spec.members["path"]: json.loads(spec.values[0]) for spec in specs}
        self.assertEqual(restored, attributes)

    def operations(self, text: bytes) -> list[LineOperation]:
        """Return what the gateway reads."""
        found = []
        for part in text.split(b"\n"):
            operation = LineOperation()
            read_operation(part, operation)
            found.append(operation)
        return found

    def test_other_rows(self) -> None:
        """Rows that are no documents are not taken for one."""
        of_two = b'{"id":"a","doc":{"meta":{"id":"b","cas":"0","flags":0},"json":1}}'
        for other in (b'{"id":"a"}', b'{"cursor":null}', of_two, b""):
            self.assertIsNone(line_of(other, b""))
