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
from couchbase.protocol import operations
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace
from couchbase.protocol.request import Request
from couchbase.transcoder import RawTranscoder
from gateway.batches.batch import Batch
from gateway.batches.context import BatchContext
from gateway.batches.fastpath import FastSlot, Places, fast_slot
from gateway.batches.forms import MOST_BYTES, MOST_FORMS, Forms
from gateway.batches.lines import LineOperation, read_operation, start
from gateway.dialect.places import DEFAULT_PLACE
from gateway.fairness.steps import StepRunner
from gateway.http.limits import Budget
from gateway.limits import Limits
from gateway.operations.table import OPERATIONS
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
OPTIONS = (
    b'{"op":"incr","key":"k"}',
    b'{"op":"incr","key":"k","delta":5,"initial":7,"ttl":60}',
    b'{"op": "decr", "key": "k", "delta": 18446744073709551615}',
    b'{"op":"touch","key":"k","ttl":60}',
    b'{"op":"lock","key":"k","lockTime":20}',
    b'{"op":"lock","key":"k"}',
    b'{"op":"unlock","key":"k","cas":"18d2f3a4c5e6"}',
    b'{"op":"append","key":"k","text":"more"}',
    b'{"op":"append","key":"k","text":"value","cas":"5"}',
    b'{"op":"append","key":"k","text":"\\n\\u00e9 \xc3\xa9"}',
    b'{"op":"set","key":"k","text":"","ttl":5}',
    b'{"op":"prepend","key":"k","base64":"AAH/"}',
    b'{"op":"set","key":"k","text":"x"}',
    b'{"op":"add","key":"k","base64":"AAH/","flags":5}',
    b'{"op":"delete","key":"k","cas":"01"}',
    b'{"op":"delete","cas":"01","key":"k"}',
    b'{"op":"set","key":"k","cas":"01","value":1}',
    b'{"op":"set","key":"k","flags":1, "cas": "FF", "expires":"1h","value":1}',
    b'{"op":"replace","key":"k","expires":"90s","cas":"a1","value":[]}',
    b'{"op":"set","key":"k","expires":"8760h","value":1}',
    b'{"op":"set","key":"k","expires":"Wed, 21 Oct 2026 07:28:00 GMT","value":1}',
    b'{"op":"set","key":"k","expires":"0","value":1}',
    b'{"op":"set","key":"k","ttl":5,"value":1}',
    b'{"op":"set","key":"k","ttl":7,"flags":7,"value":1}',
    b'{"op":"set","key":"k","flags":null,"value":1}',
    b'{"op":"set","key":"k","durabilityLevel":"None","value":1}',
    b'{"op":"set","key":"k","durabilityLevel":"Majority","value":1}',
    b'{"op":"set","key":"k","durabilityLevel":"PersistToMajority","ttl":9,"cas":"9","value":1}',
    b'{"op":"delete","key":"k","durabilityLevel":"MajorityAndPersistOnMaster"}',
    b'{"op":"set","key":"k","persistTo":0,"value":1}',
    b'{"op":"set","key":"k","value":1,"ttl":5}',
    b'{"op": "set", "key": "k", "value": {"a": 1, "ttl": 7}, "ttl": 5, "cas": "9"}',
    b'{"op":"set","key":"k","value":"x,y","durabilityLevel":"Majority"} ',
    b'{"op":"set","key":"k","flags":2,"value":[1,2],"expires":"1h"}',
    b'{"op":"get","key":"k","ttl":5}',
    b'{"op":"get","key":"k","expires":"1h"}',
    b'{"op":"get","collection":"c","scope":"s","key":"k"}',
    b'{"op":"get","key":"k","scope":"s"}',
    b'{"op":"set","key":"k","scope":"s","collection":"c","value":1}',
    b'{"key":"k","op":"get"}',
    b'{"key":"k","op":"set","value":1}',
    b'{"op":"lookup_in","key":"k","operations":[{"operation":"Get","path":"n"}]}',
    b'{"op":"lookup_in","key":"k","operations":[{"operation":"Exists","path":"\\u0041"}],"accessDeleted":true}',
    b'{"op":"mutate_in","key":"k","operations":[{"operation":"DictSet","path":"n","value":{"key":"v"}}]}',
    b'{"op":"mutate_in","key":"k","cas":"3","operations":[{"operation":"Replace","path":"n","value":{"cas":"7"}}]}',
    b'{"op":"mutate_in","key":"k","storeSemantic":"Insert","operations":'
    b'[{"operation":"DictSet","path":"n","value":{"a":1, "cas":"7"}}]}',
    b'{"op":"mutate_in","key":"k","preserveExpiry":true,"operations":[{"operation":"Counter","path":"n","value":1}]}',
)
UNUSUAL = (
    b'{"op":"get","scope":"s","collection":"c","key":"%b"}' % (b"x" * 247),
    b'{"op":"get_replica","key":"k"}',
    b'{"op":"set","key":"k","persistTo":1,"value":1}',
    b'{"op":"incr","key":"k","replicateTo":-1}',
    b'{"op":"set","key":"k","durabilityLevel":"Majority","persistTo":1,"value":1}',
    b'{"op":"set","key":"k","durabilityLevel":"majority","value":1}',
    b'{"op":"set","key":"k","durabilityLevel":1,"value":1}',
    b'{"op":"set","key":"k","cas":"0","value":1}',
    b'{"op":"set","key":"k","cas":"0001","cas":"02","value":1}',
    b'{"op":"set","key":"k","cas":"11111111111111111","value":1}',
    b'{"op":"set","key":"k","cas":1,"value":1}',
    b'{"op":"add","key":"k","cas":"1","value":1}',
    b'{"op":"set","key":"k","expires":"soon","value":1}',
    b'{"op":"set","key":"k","expires":"1h","ttl":1,"value":1}',
    b'{"op":"set","key":"k","flags":07,"ttl":1,"value":1}',
    b'{"op":"set","key":"k","flags":-1,"ttl":1,"value":1}',
    b'{"op":"set","key":"k","key":"j","value":1}',
    b'{"op":"set","key":"k","key_base64":"aw==","value":1}',
    b'{"op":"set","value":{"key":"j"},"key":"k"}',
    b'{"op":"set","value":1,"key":"k"}',
    b'{"op":"set","text":{"key":"j","value":1}}',
    b'{"op":"set","ttl":{"key":"j"},"key":"k","value":1}',
    b'{"op":"set","key":"k","timeout":2,"value":1}',
    b'{"op":"set","key":"k","timeout":"0s","value":1}',
    b'{"op":"unlock","key":"k"}',
    b'{"op":"append","key":"k","value":1}',
    b'{"op":"append","key":"k","text":""}',
    b'{"op":"append","key":"k","text":"a","text":"b"}',
    b'{"op":"append","key":"k","text":"a","base64":"AAH/"}',
    b'{"op":"set","key":"k","text":"a","value":1}',
    b'{"op":"get","key":"k","cas":"1"}',
    b'{"op":"lookup_in","key":"k","operations":[{"operation":"Get","path":"n"}',
    b'{"op":"lookup_in","key":"k","operations":[{"operation":"DictSet","path":"n","value":1}]}',
    b'{"op":"get","scope":"","key":"k"}',
    b'{"op":"get","scope":"a b","key":"k"}',
    b'{"op":"get","scope":"%b","key":"k"}' % (b"s" * 252),
    b'{"op":"get","scope":1,"key":"k"}',
    '{"op":"get","scope":"\u00e9","key":"k"}'.encode(),
    b'{"op":"get","scope":"s","scope":"t","key":"k"}',
    b"",
    b"{}",
    b"nonsense",
    b'{"op":"get","key":""}',
    b'{"op":"get","key":"%b"}' % (b"x" * 251),
    b'{"op":"get","key":"\\u0041"}',
    b'{"op":"get","key":"\xe9"}',
    b'{"op":"get","key":"\xed\xa0\x80"}',
    b'{"op":"get","key":"%b"}' % ("é" * 126).encode(),
    b'{"op":"get","key":"a\x01"}',
    b'{"op":"get","key":"k"}}',
    b'{"op":"get","key":"k"}x',
    b'{"op":"get","key":"k"}\x0b',
    b'{"op":"get","key":"k","value":1}',
    b'{"op":"set","key":"k"}',
    b'{"op":"set","key":"k","value":}',
    b'{"op":"set","key":"k","value":1',
    b'{"op":"set","key":"k","value":nan}',
    b'{"op":"set","key":"k","value":"\xff"}',
    b'{"op":"set","key":"k","value":1,"value":2}',
    b'{"op":"set","key":"k","value":1,"ttl":5,"ttl":5}',
    b'{"op":"set","key":"k","ttl":5,"value":1,"ttl":5}',
    b'{"op":"set","key":"k","value":{"a":1,"ttl":5}',
    b'{"op":"set","key":"k","value":{"a":1},"ttl":5',
    b'{"op":"set","key":"k","value":{"a":1},"ttl":5}}',
    b'{"op":"set","key":"k","value":{"a":1},"key":"j"}',
    b'{"op":"set","key":"k","value":,"ttl":5}',
    b'{"op":"set","key":"k","value":1,"ttl":{}}',
)


MEMBERS: list[tuple[str, Any]] = [
    *((name, "1f") for name in ("cas", "text", "durabilityLevel", "expires", "scope", "base64")),
    *(
        (name, number)
        for name in ("ttl", "flags", "delta", "initial", "persistTo")
        for number in (0, 1, 60, -1)
    ),
    *(("expires", text) for text in ("1h", "1000h", "0", "Wed, 21 Oct 2026 07:28:00 GMT")),
    *(("durabilityLevel", level) for level in ("None", "Majority")),
    *(("value", value) for value in (None, 1, "x", {"key": "k", "value": 1, "cas": "1"}, [{"op": "get"}])),
    ("scope", "s"),
    ("collection", "c"),
    ("collection", "not a name"),
    ("operations", [{"operation": "Get", "path": "n"}]),
    ("operations", [{"operation": "DictSet", "path": "n", "value": {"value": 1, "cas": "1f"}}]),
    ("preserveExpiry", True),
    ("returnContent", True),
    ("lockTime", 10),
    ("key_base64", "aw=="),
    ("unknown", False),
]
"""Members of lines, right ones and wrong ones."""


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
NOW = 1_700_000_000.5
FORMS = Forms(lambda: NOW)


class LineTests(SynchronousTestCase):
    """From a line to a request."""

    def both(self, line: bytes) -> tuple[FastSlot | None, LineOperation, Request]:
        """Return what the short way and the long one make of a line."""
        recorder, operation = Recorder(), LineOperation()
        read_operation(line, operation)
        assert operation.kind is not None
        start(recorder, operation, NOW)
        return fast_slot(line, PLACES, FORMS), operation, recorder.requests[0]

    def check(self, line: bytes) -> None:
        slot, operation, request = self.both(line)
        assert slot is not None
        for name in FIELDS:
            self.assertEqual(getattr(slot, name), getattr(request, name), (name, line))
        specs, wanted = (getattr(one, "specs", None) for one in (slot, request))
        self.assertEqual(specs and specs.given, wanted and wanted.given, line)
        form = slot.form
        self.assertEqual(
            (slot.key_json, slot.kind, form.name, form.cas_given, form.durable, form.seconds),
            (
                *(operation.key_json, operation.kind, operation.operation),
                *(operation.cas_given, operation.durable, None),
            ),
            line,
        )

    def test_what_is_usual(self) -> None:
        """Usual lines become the request that the long way makes of them."""
        for line in USUAL:
            self.check(line)

    def test_options(self) -> None:
        """Lines with other members become the same requests, the first one and those that follow it."""
        for line in OPTIONS:
            for key in (b'"k"', b'"another"', b'"third"'):
                other = line.replace(b'"key":"k"', b'"key":' + key)
                self.check(other)
                self.check(other.replace(b'"cas":"', b'"cas":"7').replace(b'"text":"', b'"text":"a } b'))

    def test_flags_and_expiry(self) -> None:
        """So do those that store, whatever they are called."""
        for more in (b'"flags":0,"ttl":0', b'"flags": 999999999, "ttl": 60', b'"flags":7,"ttl":3999999999'):
            for name in (b"set", b"add", b"replace"):
                self.check(b'{"op":"%b","key":"k",%b,"value":{"a": 1}}' % (name, more))

    def test_time(self) -> None:
        """A long duration counts from the time of its line, not from that of an earlier one."""
        now = [1_700_000_000.9]
        forms = Forms(lambda: now[0])
        line = b'{"op":"touch","key":"k","expires":"1000h"}'
        seen = []
        for moment in (1_700_000_000.9, 1_700_000_000.99, 1_700_000_001.0, 1_700_000_777.0):
            now[0] = moment
            slot = fast_slot(line, PLACES, forms)
            assert slot is not None
            seen.append(int.from_bytes(slot.extras, "big") - 3_600_000)
        self.assertEqual(seen, [1_700_000_000, 1_700_000_000, 1_700_000_001, 1_700_000_777])

    def test_limits(self) -> None:
        """Time limits are the operation's timeout; a durability level gets nine tenths of it."""
        for more, seconds, level_ms in (
            (b'"timeout":"500ms"', 0.5, None),
            (b'"timeout":"3"', 3.0, None),
            (b'"durabilityLevel":"Majority","timeout":"500ms"', 0.5, 450),
            (b'"durabilityLevel":"Majority","durabilityTimeout":"900ms"', 1.0, 900),
            (b'"durabilityLevel":"Majority","durabilityTimeout":"900ms","timeout":"500ms"', 0.5, 450),
            (b'"durabilityLevel":"Majority"', None, 2250),
        ):
            for _ in range(2):
                slot = fast_slot(b'{"op":"set","key":"k",%b,"value":1}' % more, PLACES, FORMS)
                assert slot is not None
                self.assertEqual(slot.form.seconds, seconds, more)
                if level_ms is not None:
                    self.assertEqual(slot.framing, operations.mutation_framing(1, level_ms, True), more)

    def test_timeout_of_connections(self) -> None:
        """If the connections' timeout changes, so does the time for a durability level."""
        forms = Forms(lambda: NOW)
        for seconds, level_ms in ((2.5, 2250), (10.0, 9000), (2.5, 2250)):
            forms.follow(seconds)
            slot = fast_slot(b'{"op":"delete","key":"k","durabilityLevel":"Majority"}', PLACES, forms)
            assert slot is not None
            self.assertEqual(slot.framing, operations.mutation_framing(1, level_ms, False))

    def test_bounds(self) -> None:
        """However many different members lines have, few are remembered, and none that are long."""
        forms = Forms(lambda: NOW)
        for number in range(3000):
            for line in (
                b'{"op":"get","key":"k","ttl":%d}' % (number + 1),
                b'{"op":"touch","key":"k","expires":"%dh"}' % (number + 1000),
                b'{"op":"set","key":"k","persistTo":1,"ttl":%d,"value":1}' % (number + 1),
                b'{"op":"append","key":"k","text":"%d"}' % number,
            ):
                fast_slot(line, PLACES, forms)
        paths = b",".join([b'{"operation":"Get","path":"%b"}' % (b"p" * 500)] * 3)
        fast_slot(b'{"op":"lookup_in","key":"k","operations":[%b]}' % paths, PLACES, forms)
        known = forms.known, forms._passing, forms._general
        self.assertLessEqual(max(map(len, known)), MOST_FORMS)
        self.assertLessEqual(max(len(members) for some in known for members in some), MOST_BYTES)
        self.assertFalse([members for some in known for members in some if b"text" in members])

    def test_what_is_not(self) -> None:
        """Other lines, right or wrong, are left to the long way."""
        for line in UNUSUAL:
            for _ in range(2):
                self.assertIsNone(fast_slot(line, PLACES, FORMS), line)

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
        if fast_slot(line, PLACES, FORMS) is not None:
            self.check(line)

    @given(
        st.sampled_from(sorted(OPERATIONS)),
        st.lists(st.sampled_from(MEMBERS), max_size=6, unique_by=lambda member: member[0]),
        st.lists(st.sampled_from(("a", "b c", "\u00e9", "}", "\\", "x" * 240)), min_size=2, max_size=3),
        st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")]),
        st.randoms(use_true_random=False),
    )
    def test_any_members(
        self, name: str, members: list[tuple[str, Any]], keys: list[str], separators: Any, order: Any
    ) -> None:
        """Members of any kind and in any order are taken as the other way takes them, or left to it."""
        names = ["op", "key", *(member for member, _ in members)]
        order.shuffle(names)
        for key in keys:
            given = dict(members, op=name, key=key)
            line = json.dumps({name: given[name] for name in names}, separators=separators).encode()
            if fast_slot(line, PLACES, FORMS) is not None:
                self.check(line)

    @given(st.binary(max_size=30), st.sampled_from(USUAL + OPTIONS), st.integers(0, 60))
    def test_arbitrary_bytes(self, some: bytes, line: bytes, at: int) -> None:
        """Nothing is recognised that the long way would refuse."""
        changed = line[:at] + some + line[at + len(some) :]
        if fast_slot(changed, PLACES, FORMS) is not None:
            self.check(changed)


class DirectConnection(Connection):
    """A connection, as a batch sees it, that answers on command."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.broken: BaseException | None = None

    def keyspace(self, scope: str, collection: str) -> Keyspace:
        """Return a collection."""
        return find(scope, collection)

    timeout = 2.5

    def start(self, call: Call, seconds: float | None = None) -> None:
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
                Forms(lambda: 0.0),
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
        value = b'{"text":"%b"}' % (b"x" * 1000)
        wide = value.replace(b"x", b"y")
        for most, line, outcome in (
            (31, b'{"op":"set","key":"k","value":%b}\n' % value, Answer()),
            (35, b'{"op":"get","key":"k"}\n', Answer(value)),
            (33, b'{"op":"set","key":"k","flags":7,"ttl":60,"expires":null,"value":%b}\n' % value, Answer()),
            (33, b'{"op":"set","key":"k","expires":"1h","timeout":"2s","value":%b}\n' % value, Answer()),
            (33, b'{"op":"set","key":"k","durabilityLevel":"Majority","value":%b}\n' % value, Answer()),
            (43, b'{"op":"set","key":"k","cas":"1f","ttl":60,"value":%b}\n' % value, Answer()),
            (41, b'{"op":"append","key":"k","text":"more"}\n', Answer()),
            (43, b'{"op":"get","scope":"s","collection":"c","key":"k"}\n', Answer(wide)),
            (31, b'{"op":"incr","key":"k","delta":2}\n', Answer(3)),
            (31, b'{"op":"touch","key":"k","expires":"1h"}\n', Answer()),
            (39, b'{"op":"lock","key":"k","lockTime":5}\n', Answer(value)),
        ):
            self.assertLessEqual(self.calls(line, outcome), most, line[:40])
