"""The fast path of a batch's usual lines: which lines take it, that the result is the same, and its cost."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from couchbase.collection import InCollection
from couchbase.commands import Commands
from couchbase.driver import Driver
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace
from couchbase.protocol.request import Request
from couchbase.transcoder import RawTranscoder
from gateway.batches.batch import Batch, BatchContext
from gateway.batches.fastpath import FastSlot, Places, fast_slot
from gateway.batches.lines import LineOperation, read_operation, start
from gateway.dialect.places import DEFAULT_PLACE
from gateway.fairness.steps import StepRunner
from gateway.http.limits import Budget
from gateway.limits import Limits
from reactor.window import Window
from tests import work
from tests.gateway.support import Answer, error
from txcouchbase.calls import Call
from txcouchbase.connection import Connection

USUAL = (
    b'{"op":"get","key":"k"}',
    b'{"op": "get", "key": "k"}',
    b'{"op":"get","key":"k"} \r',
    b'{"op":"delete","key":"a key, with ~ and \x7b"}',
    b'{"op":"set","key":"k","value":{"a":[1,{"value":2}]}}',
    b'{"op": "set", "key": "k", "value": "x"}',
    b'{"op":"add","key":"k","value": 1.50 }\r',
    b'{"op":"replace","key":"k","value":null}',
    b'{"op":"set","key":"%b","value":1}' % (b"x" * 250),
    b'{"op":"get","key":"%b"}' % ("é" * 125).encode(),
    b'{"op":"get","key":"%b"}' % "\x7f\x85\u2028\U0001f600".encode(),
    b'{"op":"get","scope":"s","collection":"c","key":"k"}',
    b'{"op": "get", "scope": "s_1-%", "key": "k"}',
    b'{"op":"get","collection":"_c","key":"k"}',
    b'{"op":"set","scope":"_default","collection":"_default","key":"%b","value":1}' % (b"x" * 250),
    b'{"op":"set","scope":"s","collection":"%b","key":"%b","value":1}' % (b"c" * 251, b"x" * 246),
)
UNUSUAL = (
    b'{"op":"get","scope":"s","collection":"c","key":"%b"}' % (b"x" * 247),
    b'{"op":"get","scope":"","key":"k"}',
    b'{"op":"get","scope":"a b","key":"k"}',
    b'{"op":"get","scope":"%b","key":"k"}' % (b"s" * 252),
    b'{"op":"get","scope":1,"key":"k"}',
    b'{"op":"get","collection":"c","scope":"s","key":"k"}',
    b'{"op":"get","key":"k","scope":"s"}',
    '{"op":"get","scope":"\u00e9","key":"k"}'.encode(),
    b'{"op":"get","scope":"s","scope":"t","key":"k"}',
    b"",
    b"{}",
    b"nonsense",
    b'{"op":"incr","key":"k"}',
    b'{"op":"get","key":""}',
    b'{"op":"get","key":"%b"}' % (b"x" * 251),
    b'{"op":"get","key":"\\u0041"}',
    b'{"op":"get","key":"\xe9"}',
    b'{"op":"get","key":"\xed\xa0\x80"}',
    b'{"op":"get","key":"%b"}' % ("é" * 126).encode(),
    b'{"op":"get","key":"a\x01"}',
    b'{"op":"get","key":"k","ttl":5}',
    b'{"op":"get","key":"k"}}',
    b'{"op":"get","key":"k"}x',
    b'{"op":"get","key":"k"}\x0b',
    b'{"op":"get","key":"k","value":1}',
    b'{"op":"set","key":"k"}',
    b'{"op":"set","key":"k","value":}',
    b'{"op":"set","key":"k","value":1',
    b'{"op":"set","key":"k","value":nan}',
    b'{"op":"set","key":"k","value":"\xff"}',
    b'{"op":"set","key":"k","value":1,"ttl":5}',
    b'{"op":"set","key":"k","value":1,"value":2}',
    b'{"op":"set","key":"k","text":"x"}',
    b'{"key":"k","op":"get"}',
)


class RecordingDriver(Driver):
    """Keeps the requests."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []

    def submit(self, request: Any, durability: Any = None) -> Deferred[Any]:
        self.requests.append(request)
        return Deferred()


class Recorder(Commands):
    """Takes the requests that a driver would carry out."""

    _request_type = Request

    def __init__(self) -> None:
        self.transcoder = RawTranscoder()
        self._driver = RecordingDriver()
        self.requests = self._driver.requests

    def within(self, scope: str, collection: str) -> Recorder:
        """Return the same, for the documents of a collection."""
        return CollectionRecorder(self, find(scope, collection))


class CollectionRecorder(InCollection, Recorder):
    """The same for the documents of a collection."""

    def __init__(self, recorder: Recorder, keyspace: Keyspace) -> None:
        self._enter(keyspace)
        super().__init__()
        self._driver = recorder._driver


_found: dict[tuple[str, str], Keyspace] = {DEFAULT_PLACE: DEFAULT_KEYSPACE}


def find(scope: str, collection: str) -> Keyspace:
    """Return the keyspace of a collection: one for each."""
    return _found.setdefault((scope, collection), Keyspace(scope, collection))


FIELDS = (
    "operation",
    "key",
    "key_bytes",
    "extras",
    "value",
    "framing",
    "cas",
    "quiet",
    "replica",
    "decode_value",
    "keyspace",
)

PLACES = Places(find, DEFAULT_PLACE)


class LineTests(SynchronousTestCase):
    """From a line to a request."""

    def both(self, line: bytes) -> tuple[FastSlot | None, LineOperation, Request]:
        """Return what the short way and the long one make of a line."""
        recorder, operation = Recorder(), LineOperation()
        read_operation(line, operation)
        assert operation.kind is not None
        start(recorder, operation, 0.0)
        return fast_slot(line, PLACES), operation, recorder.requests[0]

    def check(self, line: bytes) -> None:
        slot, operation, request = self.both(line)
        assert slot is not None
        for name in FIELDS:
            self.assertEqual(getattr(slot, name), getattr(request, name), (name, line))
        self.assertEqual((slot.key_json, slot.kind), (operation.key_json, operation.kind), line)

    def test_what_is_usual(self) -> None:
        """Usual lines become the request that the long way makes of them."""
        for line in USUAL:
            self.check(line)

    def test_flags_and_expiry(self) -> None:
        """Flags and expiry together, in this order, are usual."""
        for more in (b'"flags":0,"ttl":0', b'"flags": 999999999, "ttl": 60', b'"flags":7,"ttl":3999999999'):
            for name in (b"set", b"add", b"replace"):
                self.check(b'{"op":"%b","key":"k",%b,"value":{"a": 1}}' % (name, more))
        for more in (
            b'"flags":7',
            b'"ttl":7',
            b'"ttl":7,"flags":7',
            b'"flags":07,"ttl":1',
            b'"flags":-1,"ttl":1',
        ):
            self.assertIsNone(fast_slot(b'{"op":"set","key":"k",%b,"value":1}' % more, PLACES))

    def test_what_is_not(self) -> None:
        """Other lines, right or wrong, are left to the long way."""
        for line in UNUSUAL:
            self.assertIsNone(fast_slot(line, PLACES), line)

    @given(
        st.sampled_from(("get", "set", "add", "replace", "delete", "append")),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=6) | st.just("k"),
        st.one_of(st.integers(), st.text(max_size=5), st.lists(st.text(max_size=3), max_size=3), st.none()),
        st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")]),
        st.booleans(),
    )
    def test_any_line(
        self, name: str, key: str, value: Any, separators: tuple[str, str], as_is: bool
    ) -> None:
        """A line that is recognised is read in the same way by the other."""
        members = {"op": name, "key": key}
        if name not in ("get", "delete"):
            members["value"] = value
        line = json.dumps(members, separators=separators, ensure_ascii=as_is).encode()
        if fast_slot(line, PLACES) is not None:
            self.check(line)

    @given(st.binary(max_size=30), st.sampled_from(USUAL), st.integers(0, 60))
    def test_arbitrary_bytes(self, some: bytes, line: bytes, at: int) -> None:
        """Nothing is recognised that the long way would refuse."""
        changed = line[:at] + some + line[at + len(some) :]
        if fast_slot(changed, PLACES) is not None:
            self.check(changed)


class DirectConnection(Connection):
    """A connection, as a batch sees it, that answers on command."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.broken: BaseException | None = None

    def keyspace(self, scope: str, collection: str) -> Keyspace:
        """Return a collection."""
        return find(scope, collection)

    def start(self, call: Call) -> None:
        """Take note of an operation."""
        if self.broken is not None:
            raise self.broken
        self.calls.append(call)

    def end(self, outcome: Any) -> None:
        """End all of them."""
        calls, self.calls = self.calls, []
        for call in calls:
            call.fail(outcome) if isinstance(outcome, BaseException) else call.succeed(outcome)


class Stream:
    """A body, and a client."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.finished = False

    def deliver_to(self, reader: Any) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def write(self, data: bytes) -> None:
        self.data.append(data)

    def finish(self) -> None:
        self.finished = True


class FastPathCase(SynchronousTestCase):
    """A batch on such a connection."""

    def setUp(self) -> None:
        """Begin it."""
        self.connection = DirectConnection()
        self.clock = Clock()
        self.window = Window(2**30, self.clock)
        self.counted: list[tuple[str, str, int]] = []
        self.bugs: list[Failure] = []
        self.stream = Stream()
        self.ended = 0
        self.batch = Batch(
            self.connection,
            self.window,
            BatchContext(
                self.clock,
                lambda: 0.0,
                Limits(),
                Budget(2**30),
                StepRunner(self.clock),
                lambda *counted: self.counted.append(counted),
                self.bugs.append,
            ),
            None,
            lambda form: None,
            self.count_end,
        )
        self.batch.read(self.stream)
        self.batch.start(self.stream)

    def count_end(self) -> None:
        """Note that the batch gave its connection back."""
        self.ended += 1

    def answers(self) -> list[dict[str, Any]]:
        """Let a turn pass; returns the answers so far."""
        self.clock.pump([0] * 3)
        return [json.loads(line) for line in b"".join(self.stream.data).splitlines()]


class SlotTests(FastPathCase):
    """Ends of such operations."""

    def test_success(self) -> None:
        """Results become answers, in the order of the lines, and are counted by name."""
        self.batch.body_received(b'{"op":"set","key":"a","value":1}\n{"op":"get","key":"b"}\n')
        first, second = self.connection.calls
        second.succeed(Answer(b'{"n": 1}', cas=5))
        self.assertEqual(self.answers(), [])
        first.succeed(Answer(cas=0x1234))
        self.assertEqual(
            self.answers(),
            [
                {"index": 0, "key": "a", "status": 200, "cas": "00001234"},
                {
                    "index": 1,
                    "key": "b",
                    "status": 200,
                    "cas": "00000005",
                    "flags": 33554432,
                    "value": {"n": 1},
                },
            ],
        )
        self.batch.body_finished()
        self.answers()
        self.assertEqual((self.stream.finished, self.ended), (True, 1))
        self.assertEqual(self.counted, [("get", "ok", 1), ("set", "ok", 1)])

    def test_failure(self) -> None:
        """Errors become answers by the one table of errors; what comes later is ignored."""
        self.batch.body_received(b'{"op":"add","key":"a","value":1}\n')
        (call,) = self.connection.calls
        call.fail(error(exceptions.KEY_EEXISTS))
        call.fail(error(exceptions.ENOMEM))
        call.succeed(Answer())
        (told,) = self.answers()
        self.assertEqual((told["status"], told["error"]["code"]), (409, "DocumentExists"))
        self.assertEqual(self.counted, [("add", "DocumentExists", 1)])

    def test_bugs(self) -> None:
        """An unexpected exception costs one line, whether it happens at the start or at the end."""
        self.batch.body_received(b'{"op":"get","key":"a"}\n')
        self.connection.end(Answer(None, flags=0x04000000))
        self.connection.broken = ZeroDivisionError("secret")
        self.batch.body_received(b'{"op":"get","key":"b"}\n')
        self.assertEqual([told["status"] for told in self.answers()], [500, 500])
        self.assertEqual([type(bug.value) for bug in self.bugs], [TypeError, ZeroDivisionError])

    def test_cancel(self) -> None:
        """When the client disconnects, running operations are cancelled and leave the connection's table."""
        self.batch.body_received(b'{"op":"get","key":"a"}\n')
        (call,) = self.connection.calls
        call.pending, call.opaque, call.deadline = {7: call}, 7, 1.0
        table = call.pending
        self.batch.cancel()
        self.assertEqual((call.done, self.ended), (True, 1))
        call.succeed(Answer(b"{}"))
        self.assertGreater(self.window.used, 0)
        (heir,) = table.values()
        self.assertIsNot(heir, call)
        heir.succeed(Answer(b"{}"))
        self.assertEqual(self.window.used, 0)
        self.assertEqual(self.answers(), [])


class Work(FastPathCase):
    """The work for one document in calls, which do not depend on the machine."""

    def calls(self, line: bytes, outcome: Any) -> float:
        """Return how many functions, of Python and of C, one more line of a batch costs the gateway."""
        # The first answer determines how many reads may run.
        self.batch.body_received(line)
        self.connection.end(outcome)
        self.clock.pump([0] * 3)
        counts = []
        for lines in (100, 900):
            data = line * lines

            def run(data: bytes = data) -> None:
                self.batch.body_received(data)
                self.connection.end(outcome)
                self.clock.advance(0)

            counts.append(work.calls(run))
        return (counts[1] - counts[0]) / 800

    def test_calls_a_document(self) -> None:
        """From the body to the driver, and from its result to the answer."""
        for most, line, outcome in (
            (33, b'{"op":"set","key":"k","value":{"text":"%b"}}\n' % (b"x" * 1000), Answer()),
            (35, b'{"op":"get","key":"k"}\n', Answer(b'{"text":"%b"}' % (b"x" * 1000))),
        ):
            self.assertLessEqual(self.calls(line, outcome), most, line[:20])
