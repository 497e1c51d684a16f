"""``couchgateway-load``: lines in, batches out, failures by line, and no line twice after an interruption."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.batches.answers import success_line
from gateway.batches.lines import LineOperation, read_operation
from gateway.loader import command, file
from gateway.loader.client import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from gateway.loader.errors import LineError, LoadError
from gateway.loader.file import LINE_BYTES, Source
from gateway.loader.lines import Line, LineReader
from gateway.loader.loader import BATCH_BYTES, DOCUMENTS_PER_BATCH, Loader, read_answers
from gateway.loader.progress import Progress
from tests.gateway.support import Answer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def told(status: int, code: str, retry: str = "never") -> bytes:
    """Return one line of a gateway's answer to a batch: a failure."""
    error = {"code": code, "message": f"about {code}", "retry": retry}
    return json.dumps({"status": status, "error": error}).encode()


class Gateway:
    """Takes batches, reads their lines and answers like the real gateway, on command."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.bodies: list[bytes] = []
        self.held: list[tuple[bytes, Deferred[tuple[int, bytes]]]] = []
        self.hold = False
        self.designs: list[tuple[str, bytes]] = []
        self.design_answers: list[tuple[int, bytes]] = []
        self.whole: list[Callable[[bytes], tuple[int, bytes]]] = []
        """What to do with the next batches as a whole; after them each line is stored."""
        self.lines: dict[str, list[bytes]] = {}
        """Key -> answers to give before it is stored."""

    def post_batch(self, body: bytes) -> Deferred[tuple[int, bytes]]:
        """Take one batch."""
        self.bodies.append(body)
        waiting: Deferred[tuple[int, bytes]] = Deferred()
        self.held.append((body, waiting))
        if not self.hold:
            self.answer()
        return waiting

    def put_design(self, name: str, text: bytes) -> Deferred[tuple[int, bytes]]:
        """Take a design document."""
        self.designs.append((name, text))
        return succeed(self.design_answers.pop(0) if self.design_answers else (201, b"{}"))

    def answer(self, index: int = 0) -> None:
        """Answer one of the batches held."""
        body, waiting = self.held.pop(index)
        try:
            reply = self.whole.pop(0)(body) if self.whole else (200, self.store(body))
        except ConnectionRefusedError as error:
            waiting.errback(error)
        else:
            waiting.callback(reply)

    def store(self, body: bytes) -> bytes:
        """Store what may be stored; return the answers."""
        answers = []
        for line in body.splitlines():
            operation = LineOperation()
            read_operation(line, operation)
            assert operation.kind is not None and operation.raw_value is not None
            assert operation.name == "set"
            key = operation.key.decode()
            if self.lines.get(key):
                answers.append(self.lines[key].pop(0))
            else:
                self.documents[key] = json.loads(operation.raw_value)
                answers.append(success_line(len(answers), operation.key_json, operation.kind, Answer()))
        return b"".join(answer + b"\n" for answer in answers)


NOW = 1_700_000_000.0
READER = LineReader(seconds=lambda: NOW)


def read_line(number: int, data: bytes, key_field: str = "id", value_field: str = "doc") -> Line:
    """Read one line."""
    line = LineReader(key_field, value_field, seconds=lambda: NOW).read(number, data)
    assert line is not None
    return line


def refuse_connection(body: bytes) -> tuple[int, bytes]:
    """Be away."""
    raise ConnectionRefusedError()


def lines_of(*documents: tuple[str, Any]) -> list[tuple[int, bytes]]:
    """Return numbered lines as a source gives them."""
    return [
        (n, json.dumps({"id": key, "doc": value}).encode()) for n, (key, value) in enumerate(documents, 1)
    ]


class LoaderTests(SynchronousTestCase):
    """The loader against a gateway in memory, on a clock of the test."""

    def setUp(self) -> None:
        """Start from an empty gateway."""
        self.clock = Clock()
        self.gateway = Gateway()
        self.failures: list[tuple[int, str, str, str]] = []
        self.progress = Progress(Path(self.mktemp()), {"of": "this"})

    def loader(self, lines: list[tuple[int, bytes]], **options: Any) -> Loader:
        """Return a loader of these lines."""
        return Loader(
            iter(lines),
            READER,
            self.gateway,
            self.progress,
            lambda *failure: self.failures.append(failure),
            self.clock,
            jitter=lambda: 1.0,
            **options,
        )

    def run_through(self, loader: Loader) -> None:
        """Run a loader that needs no time."""
        self.assertIsNone(self.successResultOf(ensureDeferred(loader.run())))

    def test_everything_arrives(self) -> None:
        """Every line of a file of several batches is stored, and no progress file remains."""
        documents = [(f"k{n}", {"n": n}) for n in range(3 * DOCUMENTS_PER_BATCH + 7)]
        loader = self.loader(lines_of(*documents))
        self.run_through(loader)
        self.assertEqual(self.gateway.documents, dict(documents))
        self.assertEqual((loader.stored, loader.failed, loader.skipped), (len(documents), 0, 0))
        self.assertEqual(len(self.gateway.bodies), 4)
        self.assertEqual(self.progress.load(), 0)

    def test_empty_file(self) -> None:
        """A file without lines is loaded, and nothing is sent."""
        loader = self.loader([])
        self.run_through(loader)
        self.assertEqual((loader.stored, self.gateway.bodies), (0, []))

    def test_batches_are_bounded_in_bytes(self) -> None:
        """Large documents travel in smaller batches."""
        loader = self.loader(lines_of(*[(f"k{n}", "x" * (BATCH_BYTES // 3)) for n in range(6)]))
        self.run_through(loader)
        self.assertEqual([len(body.splitlines()) for body in self.gateway.bodies], [2, 2, 2])

    def test_refused_lines_are_reported_by_number(self) -> None:
        """A line that the gateway refuses is named with its code and message; the others are stored."""
        self.gateway.lines["b"] = [told(400, "InvalidArgument")]
        loader = self.loader(lines_of(("a", 1), ("b", 2), ("c", 3)))
        self.run_through(loader)
        self.assertEqual(self.failures, [(2, "b", "InvalidArgument", "about InvalidArgument")])
        self.assertEqual(self.gateway.documents, {"a": 1, "c": 3})
        self.assertEqual((loader.stored, loader.failed), (2, 1))

    def test_lines_that_are_no_documents_are_not_sent(self) -> None:
        """A broken line is reported by its number and costs only itself."""
        lines = lines_of(("a", 1), ("b", 2), ("c", 3))
        lines[1] = (2, b'{"id": "b", "doc": ')
        loader = self.loader(lines)
        self.run_through(loader)
        self.assertEqual([(number, code) for number, _, code, _ in self.failures], [(2, "InvalidLine")])
        self.assertEqual(self.gateway.documents, {"a": 1, "c": 3})

    def test_transient_failures_are_retried(self) -> None:
        """Only the line that failed for the moment goes out again, after a growing pause."""
        self.gateway.lines["b"] = [
            told(503, "TemporarilyUnavailable", "safe"),
            told(409, "DocumentLocked", "safe"),
        ]
        loader = self.loader(lines_of(("a", 1), ("b", 2)))
        finished = ensureDeferred(loader.run())
        self.assertEqual(self.gateway.documents, {"a": 1})
        self.clock.advance(FIRST_PAUSE_SECONDS)
        self.assertEqual(len(self.gateway.bodies), 2)
        self.clock.advance(FIRST_PAUSE_SECONDS)
        self.assertEqual(len(self.gateway.bodies), 2)
        self.clock.advance(FIRST_PAUSE_SECONDS)
        self.successResultOf(finished)
        self.assertEqual([len(body.splitlines()) for body in self.gateway.bodies], [2, 1, 1])
        self.assertEqual(self.gateway.documents, {"a": 1, "b": 2})

    def test_retries_are_bounded(self) -> None:
        """A line that fails for the moment again and again is reported with its last answer."""
        self.gateway.lines["a"] = [told(409, "DocumentLocked", "safe")] * 99
        loader = self.loader(lines_of(("a", 1)), attempts=3)
        finished = ensureDeferred(loader.run())
        self.clock.pump([LONGEST_PAUSE_SECONDS] * 5)
        self.successResultOf(finished)
        self.assertEqual(len(self.gateway.bodies), 3)
        self.assertEqual([failure[:3] for failure in self.failures], [(1, "a", "DocumentLocked")])

    def test_the_last_line_with_a_key_wins(self) -> None:
        """Batches that share a key wait for each other, although others overtake."""
        self.gateway.hold = True
        many = [(f"k{n}", n) for n in range(DOCUMENTS_PER_BATCH - 1)]
        loader = self.loader(lines_of(("same", 1), *many, ("same", 2), ("same", 3)))
        finished = ensureDeferred(loader.run())
        self.assertEqual(len(self.gateway.held), 1)
        self.gateway.answer()
        self.assertEqual(len(self.gateway.held), 1)
        self.gateway.answer()
        self.gateway.answer()
        self.successResultOf(finished)
        self.assertEqual(self.gateway.documents["same"], 3)
        self.assertEqual(len(self.gateway.bodies), 3)

    def test_two_batches_are_under_way(self) -> None:
        """Batches without a common key do not wait for each other; at most two are sent at a time."""
        self.gateway.hold = True
        self.loader_done = ensureDeferred(
            self.loader(lines_of(*[(f"k{n}", n) for n in range(4 * DOCUMENTS_PER_BATCH)])).run()
        )
        self.assertEqual(len(self.gateway.held), 2)
        self.gateway.answer(1)
        self.assertEqual(len(self.gateway.held), 2)
        while self.gateway.held:
            self.gateway.answer()
        self.successResultOf(self.loader_done)
        self.assertEqual(len(self.gateway.documents), 4 * DOCUMENTS_PER_BATCH)

    def test_a_lost_gateway_is_waited_for(self) -> None:
        """A batch that got no answer goes out again."""
        self.gateway.whole = [
            refuse_connection,
            lambda body: (503, b'{"code":"Overloaded","message":"busy"}'),
        ]
        finished = ensureDeferred(self.loader(lines_of(("a", 1))).run())
        self.clock.pump([LONGEST_PAUSE_SECONDS] * 2)
        self.successResultOf(finished)
        self.assertEqual((self.gateway.documents, self.failures), ({"a": 1}, []))

    def test_a_gateway_that_stays_away_stops_the_load(self) -> None:
        """After the last attempt the load stops, says why, and counts no line as failed."""
        self.gateway.whole = [refuse_connection] * 9
        finished = ensureDeferred(self.loader(lines_of(("a", 1)), attempts=2).run())
        self.clock.advance(LONGEST_PAUSE_SECONDS)
        error = self.failureResultOf(finished, LoadError).value
        self.assertIn("cannot be reached", str(error))
        self.assertEqual((self.failures, len(self.gateway.bodies)), ([], 2))

    def test_a_refused_batch_stops_the_load_at_once(self) -> None:
        """Wrong credentials or bucket: one attempt, and the gateway's own words."""
        self.gateway.whole = [lambda body: (404, b'{"code":"BucketNotFound","message":"no bucket b"}')]
        finished = ensureDeferred(self.loader(lines_of(("a", 1))).run())
        error = self.failureResultOf(finished, LoadError).value
        self.assertIn("404 BucketNotFound: no bucket b", str(error))

    def test_an_answer_cut_short_is_completed(self) -> None:
        """Lines that the answer does not reach go out again, those answered do not."""
        self.gateway.whole = [lambda body: (200, self.gateway.store(b"\n".join(body.splitlines()[:1])))]
        finished = ensureDeferred(self.loader(lines_of(("a", 1), ("b", 2))).run())
        self.clock.advance(FIRST_PAUSE_SECONDS)
        self.successResultOf(finished)
        self.assertEqual([len(body.splitlines()) for body in self.gateway.bodies], [2, 1])
        self.assertEqual(self.gateway.documents, {"a": 1, "b": 2})

    def test_an_interrupted_load_resumes(self) -> None:
        """A second run skips what the first has done, and sends the rest once."""
        lines = lines_of(*[(f"k{n}", n) for n in range(3 * DOCUMENTS_PER_BATCH)])
        self.gateway.hold = True
        first = self.loader(lines)
        interrupted = ensureDeferred(first.run())
        self.gateway.answer(1)
        first.save()  # as the shutdown of the reactor does; the first batch is not done, so nothing is
        self.assertEqual(self.progress.load(), 0)
        self.gateway.answer(0)
        first.save()
        self.assertEqual(self.progress.load(), 2 * DOCUMENTS_PER_BATCH)
        interrupted.addErrback(lambda failure: None)
        self.gateway.hold = False
        self.gateway.held.clear()
        self.gateway.bodies.clear()
        second = self.loader(lines)
        self.run_through(second)
        self.assertEqual((second.stored, second.skipped), (DOCUMENTS_PER_BATCH, 2 * DOCUMENTS_PER_BATCH))
        self.assertEqual(len(self.gateway.documents), len(lines))
        self.assertEqual(len(self.gateway.bodies), 1)

    def test_a_load_that_stopped_resumes(self) -> None:
        """Batches that were stored before the gateway disappeared are not sent again."""
        lines = lines_of(*[(f"k{n}", n) for n in range(2 * DOCUMENTS_PER_BATCH)])
        self.gateway.whole = [lambda body: (200, self.gateway.store(body)), lambda body: (401, b"no")]
        stopped = ensureDeferred(self.loader(lines, under_way=1).run())
        self.failureResultOf(stopped, LoadError)
        second = self.loader(lines)
        self.run_through(second)
        self.assertEqual(second.skipped, DOCUMENTS_PER_BATCH)
        self.assertEqual(len(self.gateway.documents), len(lines))

    def test_a_file_that_breaks_off_stops_the_load(self) -> None:
        """Lines before the break may be stored; none after it counts as done."""

        def lines() -> Any:
            yield from lines_of(("a", 1), ("b", 2))
            raise LoadError("cannot read it")

        loader = self.loader(lines())
        self.failureResultOf(ensureDeferred(loader.run()), LoadError)
        self.assertEqual(self.progress.load(), 0)


class LineTests(SynchronousTestCase):
    """One line of the file."""

    @given(st.text(), JSON, st.booleans())
    def test_any_document_is_taken_as_written(self, key: str, document: Any, ascii_only: bool) -> None:
        """The operation has the same key and document, and the document's own text."""
        text = json.dumps(document, ensure_ascii=ascii_only)
        line = f'{{"more": [1], "doc" : {text} ,"id":{json.dumps(key)}}}'
        found = (
            read_line(7, line.encode("utf-8", "surrogatepass")) if ascii_only else read_line(7, line.encode())
        )
        operation = json.loads(found.operation)
        self.assertEqual(operation, {"op": "set", "key": key, "value": document})
        self.assertIn(text.encode(), found.operation)
        self.assertEqual((found.number, found.key), (7, key))

    @given(st.binary(max_size=60))
    def test_any_bytes_are_a_line_or_an_error(self, data: bytes) -> None:
        """Nothing but LineError comes out of garbage."""
        try:
            read_line(1, data)
        except LineError:
            pass

    def test_collections(self) -> None:
        """A line may name the collection of its document, in whatever order; documents of two collections
        with one key are two."""
        line = b'{"collection": "c\\u0061", "id": "k", "scope": "s", "doc": 1}'
        read = read_line(1, line)
        self.assertEqual(read.operation, b'{"op":"set","scope":"s","collection":"ca","key":"k","value":1}')
        operation = LineOperation()
        read_operation(read.operation, operation)
        self.assertEqual((operation.members["scope"], operation.members["collection"]), ("s", "ca"))
        self.assertEqual(operation.key, b"k")
        places = {
            read_line(1, b'{"id":"k","doc":1%b}' % more).place
            for more in (b"", b',"scope":"s"', b',"collection":"s"')
        }
        self.assertEqual(len(places), 3)
        for wrong in (b"1", b"null", b"[]"):
            line = b'{"id":"k","doc":1,"scope":%b}' % wrong
            self.assertIn("'scope' is not a string", str(self.assertRaises(LineError, read_line, 1, line)))
        named = read_line(1, b'{"scope":"k","doc":1}', "scope")
        self.assertEqual((named.key, named.place), ("k", ""))

    def test_errors_of_exports(self) -> None:
        """Each malformed line of an export says what is wrong; one with the value's member is no export."""
        for more, words in (
            (b'"id":"a","export":1', "'export' is not an object"),
            (b'"id":"a","export":{}', "no member 'export.meta'"),
            (b'"id":"a","export":{"meta":[]}', "'export.meta' is not an object"),
            (b'"id":"a","export":{"meta":{}}', "'export' takes one of 'json' and 'base64'"),
            (b'"id":"a","export":{"meta":{},"json":1,"base64":""}', "'export' takes one of"),
            (b'"id":"a","export":{"meta":{},"json":1,"json":2}', "'json' is given twice"),
            (b'"id":"a","export":{"meta":{"flags":0},"json":1,"json":2}', "'json' is given twice"),
            (b'"id":"a","export":{"meta":{"flags":0},"json":1,"more":2}', "unknown member 'more'"),
            (b'"id":"a","export":{"meta":{"cas":1},"json":1}', "unknown member 'cas'"),
            (b'"id":"a","export":{"meta":{},"base64":1}', "'base64' is not a string"),
            (b'"id":"a","export":{"meta":{},"base64":"?"}', "'export.base64' is not base64"),
            (
                b'"id":"a","export":{"meta":{"flags":-1},"json":1}',
                "'export.meta.flags' is not a whole number",
            ),
            (b'"id":"a","export":{"meta":{"expiry":"x"},"json":1}', "'export.meta.expiry' is not a whole"),
            (b'"id":"a","export":{"meta":{"xattrs":[]},"json":1}', "'export.meta.xattrs' is not an object"),
            (b'"id":"a","export":{"meta":{"xattrs":{"a":1,"a":1}},"json":1}', "'a' is given twice"),
            (b'"export":{"meta":{},"json":1}', "expected one of 'id' and 'id_base64'"),
            (b'"id":"a","id_base64":"","export":{"meta":{},"json":1}', "expected one of 'id' and"),
            (b'"id":1,"export":{"meta":{},"json":1}', "'id' is not a string"),
            (b'"id_base64":"?","export":{"meta":{},"json":1}', "'id_base64' is not base64"),
            (b'"id":"a","scope":1,"export":{"meta":{},"json":1}', "'scope' is not a string"),
            (b'"id":"a","export":{"meta":{"flags":0},"json":x}', "not JSON"),
            (b'"id":"a","export":{"meta":{"flags":0},"json":1},"x":{}', "unknown member 'x'"),
        ):
            error = self.assertRaises(LineError, read_line, 1, b"{%b}" % more)
            self.assertIn(words, str(error), more)
        line = read_line(1, b'{"id":"a","export":{"meta":{}},"doc":1}')
        self.assertEqual(line.operation, b'{"op":"set","key":"a","value":1}')

    def test_lines_of_exports(self) -> None:
        """The usual form and any other of the same line become the same operation."""
        for place in (b"", b'"scope":"s","collection":"c",'):
            usual = b'{"id":"a",%b"export":{"meta":{"flags":7,"expiry":4000000000},"json":[1.0]}}' % place
            other = json.dumps(json.loads(usual)).encode()
            expected = b'{"op":"set",%b"key":"a","flags":7,"ttl":4000000000,"value":[1.0]}' % place
            self.assertEqual([read_line(1, line).operation for line in (usual, other)], [expected] * 2)
            over = LineReader(seconds=lambda: 4e9)
            self.assertEqual([over.read(1, line) for line in (usual, other)], [None, None])
            reader = LineReader(seconds=lambda: NOW, overridden=frozenset({"scope"}))
            kept = [reader.read(1, line) for line in (usual, other)]
            self.assertEqual(
                [line.place for line in kept if line], ['"collection":"c",' if place else ""] * 2
            )

    def test_numbers_keep_their_digits(self) -> None:
        """Neither large integers nor written zeros are rounded away."""
        line = b'{"id": "k", "doc": [12345678901234567890123, 1.50, 1e400]}'
        self.assertIn(b"[12345678901234567890123, 1.50, 1e400]", read_line(1, line).operation)

    def test_other_field_names(self) -> None:
        """Key and document may have other names."""
        self.assertEqual(
            json.loads(read_line(1, b'{"_id":"a","body":1}', "_id", "body").operation)["key"], "a"
        )

    def test_texts_that_other_parsers_refuse(self) -> None:
        """JSON is what the gateway takes for JSON."""
        for text in (b'{"s":"ab\\ud83d"}', b"[1e400]", b"1" * 5000):
            line = read_line(1, b'{"id":"a","doc":%b}' % text)
            self.assertEqual(line.operation, b'{"op":"set","key":"a","value":%b}' % text)

    def test_errors_say_what_is_wrong(self) -> None:
        """Each way to be no document has its own words."""
        for data, words in [
            (b"[1]", "not a JSON object"),
            (b'{"id": "a"}', "no member 'doc'"),
            (b'{"doc": 1}', "no member 'id'"),
            (b'{"id": 5, "doc": 1}', "'id' is not a string"),
            (b'{"id": "a", "doc": 1} x', "text after the value at byte 23"),
            (b'{"id": "a", "doc": 1', "ends too early"),
            (b'{"id": "a" "doc": 1}', "',' or the end of the open array or object is expected"),
            (b'{"id": "a", "doc": NaN}', "a value is expected"),
            (b'{"id": "a", 5: 1}', "a member's name is expected"),
            (b'{"id" "a"}', "':' is expected"),
            (b'{"id": "\x01", "doc": 1}', "control character"),
            (b'{"id": "\xff", "doc": 1}', "not UTF-8 at byte 9"),
            (b'{"id":"a","doc":' + b"[" * 100_000, "nested too deep"),
            (b'{"id":"a","doc":1,"doc":2}', "'doc' is given twice"),
            (b'{"id":"a","doc":"' + b"x" * LINE_BYTES + b'"}', "longer than"),
        ]:
            error = self.assertRaises(LineError, read_line, 1, data)
            self.assertIn(words.lower(), str(error).lower())


class FileTests(SynchronousTestCase):
    """Files on disk."""

    def written(self, data: bytes) -> Path:
        """Return a new file with this content."""
        path = Path(self.mktemp())
        path.write_bytes(data)
        return path

    def test_lines_are_numbered_as_an_editor_does(self) -> None:
        """Blank lines count but are skipped; the last line needs no line end; CRLF is also a line end."""
        for data in (b"a\n\n b\r\nc", gzip.compress(b"a\n\n b\r\nc")):
            source = Source(self.written(data))
            self.assertEqual(list(source.lines()), [(1, b"a"), (3, b" b"), (4, b"c")])
            self.assertEqual(source.position_bytes(), source.size_bytes)
            source.close()

    def test_an_overlong_line_costs_itself(self) -> None:
        """The rest of a line over the limit is skipped without being held, and the next one is whole."""
        source = Source(self.written(b"x" * (2 * LINE_BYTES + 99) + b"\nnext\n"))
        (first, head), (second, whole) = source.lines()
        source.close()
        self.assertEqual((first, second, whole), (1, 2, b"next"))
        self.assertTrue(LINE_BYTES < len(head) <= LINE_BYTES + file.READ_BYTES)

    def test_any_pieces(self) -> None:
        """However much is read at once, the lines are the same."""
        text = b"\xef\xbb\xbfa\n\r\n\n  \nbc\r\ndef\n\n g"
        for data in (text, text + b"\r\n"):
            for path in (self.written(data), self.written(gzip.compress(data))):
                for size in (1, 2, 3, 5, 7, 2**20):
                    self.patch(file, "READ_BYTES", size)
                    source = Source(path)
                    self.assertEqual(list(source.lines()), [(1, b"a"), (5, b"bc"), (6, b"def"), (8, b" g")])
                    source.close()

    def test_a_damaged_gzip_file_is_an_error(self) -> None:
        """A truncated or garbled file stops the load with the file's name."""
        data = gzip.compress(b"".join(b"%d\n" % n for n in range(9999)))
        for damaged in (data[:-20], data[:200] + b"\x00" * 50 + data[250:]):
            path = self.written(damaged)
            source = Source(path)
            error = self.assertRaises(LoadError, list, source.lines())
            source.close()
            self.assertIn(str(path), str(error))

    def test_a_missing_file_is_an_error(self) -> None:
        """It is named."""
        self.assertIn("no-such-file", str(self.assertRaises(LoadError, Source, Path("no-such-file"))))

    def test_progress_of_another_file_is_refused(self) -> None:
        """A note about another file or bucket is neither used nor overwritten."""
        path = Path(self.mktemp())
        Progress(path, {"bucket": "a"}).save(5)
        self.assertEqual(Progress(path, {"bucket": "a"}).load(), 5)
        self.assertRaises(LoadError, Progress(path, {"bucket": "b"}).load)
        path.write_text("no note")
        self.assertRaises(LoadError, Progress(path, {"bucket": "a"}).load)

    def test_no_progress_file(self) -> None:
        """Without a path nothing is kept."""
        progress = Progress(None, {})
        progress.save(3)
        progress.forget()
        self.assertEqual(progress.load(), 0)


class AnswerTests(SynchronousTestCase):
    """The gateway's answers to a batch."""

    def test_transient_follows_the_gateway(self) -> None:
        """The gateway says whether to retry; a set that may have happened is also repeated."""
        answers = read_answers(b"\n".join(told(503, "X", retry) for retry in ("never", "safe", "ambiguous")))
        self.assertEqual([answer.transient for answer in answers], [False, True, True])

    def test_something_else_is_no_answer(self) -> None:
        """A web server that is no gateway is found out."""
        for body in (b"<html>", b"[]", b'{"status": "x"}', b'{"status": 500}', b'{"status":500,"error":"x"}'):
            self.assertRaises(LoadError, read_answers, body)


class CommandTests(SynchronousTestCase):
    """The command line refuses what it cannot mean."""

    def refusal(self, *arguments: str) -> str:
        """Return what is said to wrong arguments."""
        words = io.StringIO()
        with contextlib.redirect_stderr(words):
            stopped = self.assertRaises(SystemExit, command.main, list(arguments))
        self.assertEqual(stopped.code, 2)
        return words.getvalue()

    def test_wrong_arguments_are_named(self) -> None:
        """The message names the option."""
        for arguments, words in [
            (["f"], "--bucket"),
            (["f", "--bucket", ""], "--bucket"),
            (["f", "--bucket", "b", "--url", "localhost:8080"], "--url"),
            (["f", "--bucket", "b", "--url", "http://h/?x=1"], "--url"),
            (["f", "--bucket", "b", "--user", "u"], "--password-file"),
            (["f", "--bucket", "b", "--scope", ""], "--scope"),
            (["f", "--bucket", "b", "--collection", ""], "--collection"),
            (["f", "--bucket", "b", "--password-file", "p"], "--user"),
        ]:
            self.assertIn(words, self.refusal(*arguments))
