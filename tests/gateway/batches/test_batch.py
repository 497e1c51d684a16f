"""Batches: requests and answers of each operation, order, limits, and invalid lines."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from couchbase.protocol.constants import Opcode
from couchbase.protocol.pathresults import PathResult
from couchbase.protocol.subdocument import Spec
from couchbase.subdocument import StoreSemantics
from gateway.batches.lines import DenseLine, _read_members
from gateway.dialect.errors import Refusal
from gateway.limits import Limits
from gateway.operations.table import OPERATIONS
from tests import tries
from tests.gateway.resources.test_documents import path_results
from tests.gateway.support import Answer, Reply, Site, basic, error, passthrough, read_reply

BATCH = "/v1/buckets/b/batch"


def lines_of(reply: Reply) -> list[dict[str, Any]]:
    """Parse an answer of lines."""
    return [json.loads(line) for line in reply.body.splitlines()]


def post(site: Site, *operations: Any, **headers: str) -> Reply:
    """Send operations, one a line; bytes go as they are."""
    body = b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in operations)
    return site.request("POST", BATCH, body, headers)


class OperationTests(SynchronousTestCase):
    """Each operation: JSON in, a call of the driver, JSON out."""

    def one(self, operation: Any, answers: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """Run one operation; returns its answer and the first call."""
        site = Site(answers)
        reply = post(site, operation)
        return lines_of(reply)[0], site.calls[0] if site.calls else None

    def test_calls(self) -> None:
        """Members become the driver's arguments."""
        stored = {"cas": 0, "ttl": 0, "format": 33554432, "preserve_expiry": True}
        for operation, call in (
            ({"op": "get"}, ("get", (), {})),
            ({"op": "get", "ttl": 5}, ("get", (), {"ttl": 5})),
            ({"op": "get_replica"}, ("rget", (), {"replica_index": None})),
            ({"op": "get_replica", "replica": 0}, ("rget", (), {"replica_index": 0})),
            ({"op": "set", "value": [1]}, ("set", (b"[1]",), stored)),
            ({"op": "set", "text": "é"}, ("set", ("é".encode(),), {**stored, "format": 67108864})),
            ({"op": "set", "base64": "AP8="}, ("set", (b"\0\xff",), {**stored, "format": 50331648})),
            ({"op": "set", "value": 1, "flags": 9}, ("set", (b"1",), {**stored, "format": 9})),
            (
                {"op": "set", "value": 1, "expires": "0"},
                ("set", (b"1",), {**stored, "preserve_expiry": False}),
            ),
            (
                {"op": "set", "value": 1, "cas": "FF", "ttl": 60},
                ("set", (b"1",), {**stored, "cas": 255, "ttl": 60, "preserve_expiry": False}),
            ),
            ({"op": "add", "value": 1}, ("add", (b"1",), {"ttl": 0, "format": 33554432})),
            ({"op": "replace", "value": 1, "cas": "1"}, ("replace", (b"1",), {**stored, "cas": 1})),
            ({"op": "append", "text": "x", "cas": "1"}, ("append", (b"x",), {"cas": 1})),
            ({"op": "prepend", "base64": "AA=="}, ("prepend", (b"\0",), {"cas": 0})),
            (
                {"op": "delete", "persistTo": -1},
                ("delete", (), {"cas": 0, "persist_to": -1, "replicate_to": 0, "durability_level": 0}),
            ),
            (
                {"op": "delete", "durabilityLevel": "Majority"},
                ("delete", (), {"cas": 0, "persist_to": 0, "replicate_to": 0, "durability_level": 1}),
            ),
            ({"op": "incr"}, ("incr", (), {"amount": 1, "initial": None, "ttl": 0})),
            (
                {"op": "decr", "delta": 2, "initial": 9, "ttl": 3},
                ("decr", (), {"amount": 2, "initial": 9, "ttl": 3}),
            ),
            ({"op": "touch", "expires": "90s"}, ("touch", (), {"ttl": 90})),
            ({"op": "lock"}, ("lock", (), {"ttl": 15})),
            ({"op": "unlock", "cas": "a"}, ("unlock", (10,), {})),
            ({"op": "observe"}, ("observe", (), {})),
            ({"op": "observe", "masterOnly": True}, ("observe", (), {"master_only": True})),
            ({"op": "observe", "masterOnly": False}, ("observe", (), {})),
            (
                {"op": "endure", "timeout": "2s", "interval": "250ms"},
                (
                    "endure",
                    (),
                    {
                        "persist_to": -1,
                        "replicate_to": -1,
                        "cas": 0,
                        "check_removed": False,
                        "timeout": 2.0,
                        "interval": 0.25,
                    },
                ),
            ),
            (
                {"op": "lookup_in", "operations": [{"operation": "Get", "path": "a"}]},
                ("lookup_in", ([Spec(Opcode.SUBDOC_GET, 0, b"a")],), {"access_deleted": False}),
            ),
            (
                {
                    "op": "mutate_in",
                    "cas": "a",
                    "operations": [{"operation": "DictSet", "path": "a", "value": [1]}],
                },
                (
                    "mutate_in",
                    ([Spec(Opcode.SUBDOC_DICT_UPSERT, 0, b"a", b"[1]")],),
                    {
                        "cas": 10,
                        "ttl": 0,
                        "preserve_expiry": False,
                        "store_semantics": StoreSemantics.REPLACE,
                        "access_deleted": False,
                    },
                ),
            ),
        ):
            answers = dict.fromkeys(
                ("get", "rget", "set", "add", "replace", "append", "prepend", "delete", "touch", "lock"),
                Answer(b"{}"),
            )
            answers |= {"unlock": Answer(), "endure": Answer(), "incr": Answer(5), "decr": Answer(5)}
            answers["observe"] = Answer([])
            answers |= dict.fromkeys(
                ("lookup_in", "mutate_in"), path_results(PathResult(b"a", False, 0, 0, b"1"))
            )
            told, asked = self.one({"key": "k", **operation}, answers)
            self.assertEqual((told["index"], told["key"], told["status"]), (0, "k", 200), told)
            self.assertEqual(asked, (call[0], (b"k", *call[1]), call[2]), operation)

    def test_every_operation_is_tried_above(self) -> None:
        """And their names are those that are published."""
        names = (
            "get get_replica set add replace append prepend delete incr decr touch lock unlock observe "
            "endure lookup_in mutate_in"
        )
        self.assertEqual(" ".join(OPERATIONS), names)

    def test_values(self) -> None:
        """JSON as JSON, byte for byte except line ends; text as text; everything else as base64."""
        for flags, value, member, expected in (
            (33554432, b'{"a": 1.00}', "value", {"a": 1.0}),
            (33554432, b'{\n"a":\r\n1}', "value", {"a": 1}),
            (0, b"12345678901234567890123", "value", 12345678901234567890123),
            (33554432, b"broken{", "text", "broken{"),
            (67108864, b"{}", "text", "{}"),
            (4, "\u2028\n".encode(), "text", "\u2028\n"),
            (0, b"\xff", "base64", "/w=="),
            (50331648, b"{}", "base64", "e30="),
            (1, b"cposix\nsystem", "base64", b64encode(b"cposix\nsystem").decode()),
            (67108864, b"\xff", "base64", "/w=="),
        ):
            told, _ = self.one({"op": "get", "key": "k"}, {"get": Answer(value, flags=flags)})
            self.assertEqual(told.get(member), expected, (flags, value))
            self.assertEqual((told["cas"], told["flags"]), ("00001234", flags))

    def test_numbers_keep_their_digits(self) -> None:
        """The value's text is stored, not a reprint of it; in either form of the line."""
        for line in (
            b'{"op":"set","key":"k","value":{"n":1.000, "big":123456789012345678901234567890}}',
            b'{"op":"set","value":{"n":1.000, "big":123456789012345678901234567890},"key":"k"}',
            b'{"op":"set","key":"k","value" : {"n":1.000, "big":123456789012345678901234567890} } ',
        ):
            _, asked = self.one(line, {"set": Answer()})
            self.assertEqual(asked[1][1], b'{"n":1.000, "big":123456789012345678901234567890}')

    @given(
        st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=4), max_size=3),
        st.integers() | st.text() | st.lists(st.text(max_size=3), max_size=3),
        st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]),
        st.booleans(),
    )
    def test_any_value_is_cut_out_right(
        self, others: dict[str, Any], value: Any, separators: tuple[str, str], last: bool
    ) -> None:
        """Wherever "value" stands, and whatever looks like it elsewhere."""
        others.pop("value", None)
        nested = {"x": {"value": 1}, "y": '"value":2'}
        members = {**nested, **others, "value": value} if last else {"value": value, **others, **nested}
        line = json.dumps(members, separators=separators).encode()
        read, text = _read_members(line)
        assert text is not None
        self.assertEqual(json.loads(text), value)
        self.assertEqual(read.keys(), members.keys())

    def test_a_member_given_twice(self) -> None:
        """It is refused, in whatever form: a filter in front may have read the other one."""
        for line in (
            b'{"value":1,"value":2}',
            b'{"value" :1,"op":"set","value":2}',
            b'{"\\u0076alue":1,"x":3,"value":2}',
            b'{"op":"get","op":"delete","key":"x"}',
            b'{"op":"set","key":"a:b","key":"c","value":1}',
            b'{"op":"set","\\u006fp":"add","key":"c","value":1}',
            b'{"op":"touch","key":"x","ttl":1,"ttl":2}',
            b'{"op":"get","key":"x","y":{"z":1,"z":2}}',
        ):
            with self.assertRaises(Refusal, msg=line) as caught:
                _read_members(line)
            self.assertIn("twice", caught.exception.message)

    def test_thousands_of_members(self) -> None:
        """A line with so many parts is not read at once: that would take long, and ten seconds if the last
        name is repeated."""
        many = b",".join(b'"m%d":1' % number for number in range(5000))
        for line in (
            b'{"value":1,%b,"m4999":1}' % many,
            b'{"op":"get","key":"k",%b}' % many,
            b'{"op":"mutate_in","key":"k","operations":[%b]}' % b",".join([b'{"path":"a"}'] * 5000),
        ):
            self.assertRaises(DenseLine, _read_members, line)
        document = b"{%b}" % many
        self.assertEqual(_read_members(b'{"op":"set","key":"k","value":%b}' % document)[1], document)

    def test_a_document_may_repeat_names(self) -> None:
        """The gateway does not check the content of a value: its text is stored unchanged."""
        text = b'{"a":1,"a":2}'
        for line in (b'{"op":"set","key":"a:b","value":%b}', b'{"value":%b,"op":"set","key":"k"}'):
            self.assertEqual(_read_members(line % text)[1], text)
        self.assertEqual(_read_members(b'{"\\u0076alue":1,"x":3}')[1], b"1")

    @given(st.binary(max_size=40))
    def test_arbitrary_lines(self, line: bytes) -> None:
        """Members, or a refusal."""
        for data in (line, b'{"value":' + line):
            try:
                self.assertIsInstance(_read_members(data)[0], dict)
            except Refusal as refusal:
                self.assertEqual(refusal.problem.status, 400)

    def test_refused(self) -> None:
        """Each error is named, and nothing reaches the cluster."""
        for operation, words in (
            (b"nonsense", "not JSON"),
            (b"\xff", "not JSON"),
            (b"1", "JSON object"),
            ({"key": "k"}, "op: expected one of get"),
            ({"op": "got", "key": "k"}, "op: expected one of get"),
            ({"op": ["get"], "key": "k"}, "op: expected"),
            ({"op": "get"}, "key: expected a string"),
            ({"op": "get", "key": 1}, "key: expected a string"),
            ({"op": "get", "key": ""}, "0 bytes"),
            ({"op": "get", "key": "é" * 126}, "252 bytes"),
            (
                {"op": "get", "key": "k", "valeu": 1},
                "'valeu'; get takes collection, expires, key, key_base64, op, scope, timeout, ttl",
            ),
            ({"op": "get", "key": "k", "ttl": 0}, "use touch"),
            ({"op": "get_replica", "key": "k", "replica": 1}, "has 1 replicas"),
            ({"op": "get_replica", "key": "k", "replica": "x"}, "replica"),
            ({"op": "set", "key": "k"}, "one of value"),
            ({"op": "set", "key": "k", "value": 1, "text": "x"}, "one of value"),
            ({"op": "set", "key": "k", "text": 1}, "text: expected a string"),
            ({"op": "set", "key": "k", "base64": "?"}, "base64"),
            ({"op": "set", "key": "k", "value": 1, "flags": -1}, "flags"),
            ({"op": "set", "key": "k", "value": 1, "cas": 5}, "cas"),
            ({"op": "set", "key": "k", "value": 1, "cas": "0"}, "cas"),
            ({"op": "set", "key": "k", "value": 1, "ttl": "5"}, "ttl"),
            ({"op": "set", "key": "k", "value": 1, "expires": 5}, "expires"),
            ({"op": "set", "key": "k", "value": 1, "expires": "x"}, "Expires"),
            ({"op": "set", "key": "k", "value": 1, "expires": "1s", "ttl": 1}, "give one"),
            ({"op": "set", "key": "k", "value": 1, "persistTo": 9}, "persistTo"),
            ({"op": "set", "key": "k", "value": 1, "durabilityLevel": "x"}, "DurabilityLevel"),
            ({"op": "set", "key": "k", "value": 1, "durabilityLevel": 1}, "durabilityLevel"),
            ({"op": "append", "key": "k"}, "text (a string)"),
            ({"op": "append", "key": "k", "text": ""}, "empty"),
            ({"op": "incr", "key": "k", "delta": 1.5}, "delta"),
            ({"op": "incr", "key": "k", "delta": -1}, "decr subtracts it"),
            ({"op": "decr", "key": "k", "delta": -(2**70)}, "incr adds it"),
            ({"op": "observe", "key": "k", "masterOnly": 1}, "masterOnly"),
            ({"op": "endure", "key": "k", "interval": 1}, "interval"),
            ({"op": "endure", "key": "k", "interval": "0s"}, "interval"),
            ({"op": "incr", "key": "k", "initial": -1}, "initial"),
            ({"op": "incr", "key": "k", "ttl": 1}, "initial"),
            ({"op": "touch", "key": "k"}, "ttl or expires"),
            ({"op": "lock", "key": "k", "lockTime": "x"}, "lockTime"),
            ({"op": "unlock", "key": "k"}, "cas is missing"),
            ({"op": "endure", "key": "k", "timeout": 1}, "timeout"),
            ({"op": "endure", "key": "k", "checkRemoved": 1}, "checkRemoved"),
            (b'{"op":"get","key":"\\ud800"}', ""),
        ):
            told, asked = self.one(operation, {"get": Answer(b"{}")})
            self.assertEqual((told["status"], told["error"]["code"]), (400, "InvalidArgument"), told)
            self.assertIn(words, told["error"]["message"])
            self.assertIsNone(asked)


class FormTests(SynchronousTestCase):
    """Lines and arrays, in and out."""

    def test_forms(self) -> None:
        """The answer has the form of the body, unless Accept names one."""
        site = Site({"get": Answer(b"{}")})
        get = b'{"op":"get","key":"k"}'
        for body, accept, is_array in (
            (get + b"\n" + get, None, False),
            (b"[" + get + b"," + get + b"]", None, True),
            (get + b"\n" + get, "application/json", True),
            (b"[" + get + b"," + get + b"]", "application/x-ndjson", False),
            (b"[" + get + b"," + get + b"]", "*/*", True),
        ):
            reply = site.request("POST", BATCH, body, {"Accept": accept} if accept else {})
            told = json.loads(reply.body) if is_array else lines_of(reply)
            self.assertEqual([one["index"] for one in told], [0, 1])
            self.assertEqual(
                reply.header("Content-Type"), "application/json" if is_array else "application/x-ndjson"
            )

    def test_nothing(self) -> None:
        """An empty array is no error, no body is."""
        site = Site()
        self.assertEqual(site.request("POST", BATCH, b" [ ] ").json(), [])
        self.assertEqual(site.request("POST", BATCH, b"\n\n").body, b"")
        self.assertEqual(site.request("POST", BATCH).status, 400)

    def test_broken_array(self) -> None:
        """The operations before it are answered, then there is an error, then nothing."""
        site = Site({"get": Answer(b"{}")})
        reply = site.request("POST", BATCH, b'[{"op":"get","key":"a"}')
        self.assertEqual([one["status"] for one in reply.json()], [400])
        self.assertIn("ends before", reply.json()[0]["error"]["message"])
        reply = site.request("POST", BATCH, b'[{"op":"get","key":"a"},')
        self.assertEqual([one["status"] for one in reply.json()], [200, 400])

    def test_whole_request_refused(self) -> None:
        """Credentials, bucket and query are looked at before any operation."""
        site = Site({"connect": error(exceptions.BUCKET_ENOENT)}, authorizer=passthrough())
        line = {"op": "get", "key": "k"}
        self.assertEqual(post(site, line).status, 401)
        self.assertEqual(post(site, line, **basic("u", "p")).json()["code"], "BucketNotFound")
        self.assertEqual(site.request("POST", BATCH + "?x=1", b"{}").status, 400)
        encoded = site.request("POST", BATCH, b"{}", {"Content-Encoding": "gzip", **basic("u", "p")})
        self.assertEqual(encoded.status, 400)

    def test_one_bad_line(self) -> None:
        """Fails alone; also one over the limit."""
        site = Site({"get": Answer(b"{}")}, limits=Limits(max_line=100))
        good = {"op": "get", "key": "k"}
        told = lines_of(post(site, good, b"nonsense", b"x" * 200, good))
        self.assertEqual([one["status"] for one in told], [200, 400, 400, 200])
        self.assertEqual([one["index"] for one in told], [0, 1, 2, 3])
        self.assertIn("more than 100 bytes", told[2]["error"]["message"])

    def test_failures_of_the_cluster(self) -> None:
        """Each operation has its own."""
        outcomes = [succeed(Answer(b"1")), error(exceptions.KEY_ENOENT), error(exceptions.ETMPFAIL)]
        site = Site({"get": lambda key: _outcome(outcomes[int(key)])})
        told = lines_of(post(site, *({"op": "get", "key": str(n)} for n in range(3))))
        self.assertEqual([one["status"] for one in told], [200, 404, 503])
        self.assertEqual(told[2]["error"]["retry"], "safe")

    def test_a_bug_costs_one_line(self) -> None:
        """An unforeseen failure is logged, and answered without its words."""
        site = Site({"get": ZeroDivisionError("secret"), "set": Answer()})
        told = lines_of(post(site, {"op": "get", "key": "k"}, {"op": "set", "key": "k", "value": 1}))
        self.assertEqual([one["status"] for one in told], [500, 200])
        self.assertNotIn("secret", json.dumps(told))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


def _outcome(outcome: Any) -> Deferred[Any]:
    if isinstance(outcome, Exception):
        failed: Deferred[Any] = Deferred()
        failed.errback(outcome)
        return failed
    return outcome  # type: ignore[no-any-return]


class Held:
    """A cluster that answers when a test says so."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []
        self.cancelled = 0

    def get(self, key: bytes) -> Deferred[Any]:
        deferred: Deferred[Any] = Deferred(self._cancel)
        self.waiting.append(deferred)
        return deferred

    def _cancel(self, deferred: Deferred[Any]) -> None:
        self.cancelled += 1

    def answer(self, position: int, size: int = 2) -> None:
        self.waiting[position].callback(Answer(b'"%b"' % (b"x" * (size - 2))))


class StreamingTests(SynchronousTestCase):
    """Order, bounds and back-pressure."""

    def begin(self, limits: Limits | None = None) -> tuple[Site, Held, Any]:
        held = Held()
        site = Site({"get": held.get}, limits=limits)
        client = site.client()
        site.send(client, f"POST {BATCH} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        return site, held, client

    def send(self, site: Site, client: Any, count: int) -> None:
        data = b'{"op":"get","key":"k"}\n' * count
        site.send(client, b"%x\r\n%b\r\n" % (len(data), data))

    def test_answers_before_the_end_in_order(self) -> None:
        """An operation starts as soon as its line has arrived, and is answered after those before it."""
        site, held, client = self.begin()
        self.send(site, client, 3)
        self.assertEqual(len(held.waiting), 3)
        held.answer(1)
        site.clock.pump([0] * 3)
        self.assertNotIn(b'"index"', client.value())
        held.answer(0)
        site.clock.pump([0] * 3)
        self.assertEqual(client.value().count(b'"index"'), 2)
        site.send(client, b"0\r\n\r\n")
        held.answer(2)
        site.clock.pump([0] * 3)
        told = lines_of(read_reply(client.value())[0])
        self.assertEqual([one["index"] for one in told], [0, 1, 2])
        self.assertTrue(client.connected)

    def test_answers_of_a_turn_leave_together(self) -> None:
        """One chunk for all that finished in a reactor turn."""
        site, held, client = self.begin()
        self.send(site, client, 1)
        held.answer(0)
        site.clock.pump([0] * 3)
        self.send(site, client, 50)
        client.clear()
        for position in range(50):
            held.answer(position + 1)
        site.clock.pump([0] * 3)
        size = int(client.value().split(b"\r\n", 1)[0], 16)
        self.assertEqual(len(client.value()), size + len(b"%x" % size) + 4)

    def test_window(self) -> None:
        """At most the allowed number of operations runs; meanwhile nothing more is read."""
        site, held, client = self.begin(Limits(batch_operations=4))
        self.send(site, client, 10)
        self.assertEqual((len(held.waiting), client.producerState), (4, "paused"))
        for position in range(4):
            held.answer(position)
        site.clock.pump([0] * 3)
        self.assertEqual((len(held.waiting), client.producerState), (8, "paused"))
        for position in range(4, 8):
            held.answer(position)
        site.clock.pump([0] * 3)
        self.assertEqual((len(held.waiting), client.producerState), (10, "producing"))

    def test_large_documents_narrow_the_window(self) -> None:
        """The size of the documents read so far is assumed for those that have not arrived yet."""
        site, held, client = self.begin(Limits(batch_bytes=100_000))
        self.send(site, client, 200)
        first = len(held.waiting)
        self.assertEqual(first, 4, "reads while nothing is known")
        for position in range(first):
            held.answer(position, 50_000)
        site.clock.pump([0] * 3)
        self.assertTrue(1 <= len(held.waiting) - first <= 4, len(held.waiting) - first)

    def test_all_batches_share_a_budget(self) -> None:
        """When the budget is used up, large operations are refused and small ones run one by one."""
        site, held, client = self.begin(Limits(max_buffered=200_000))
        _, other = site, site.client()
        site.send(other, f"POST {BATCH} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        large = b'{"op":"get","key":"k","x":"' + b"x" * 150_000
        site.send(other, b"%x\r\n%b\r\n" % (len(large), large))
        site.send(client, b"%x\r\n%b\r\n" % (len(large), large))
        self.assertLess(site.gateway.budget.used, 200_000)
        site.send(client, b'2\r\n"}\r\n1\r\n\n\r\n')
        told = client.value()
        self.assertIn(b'"status":503', told)
        self.send(site, client, 3)
        self.assertTrue(held.waiting)
        client.loseConnection()
        other.loseConnection()
        self.assertEqual(site.gateway.budget.used, 0)

    def test_slow_reader(self) -> None:
        """If a client does not read, no more operations start, and no more of its body is read."""
        site, held, client = self.begin(Limits(batch_operations=4))
        self.send(site, client, 4)
        client.protocol.pauseProducing()
        client.clear()
        for position in range(4):
            held.answer(position)
        self.send(site, client, 4)
        self.assertEqual((client.value(), len(held.waiting), client.producerState), (b"", 4, "paused"))
        client.protocol.resumeProducing()
        site.clock.pump([0] * 3)
        self.assertEqual((client.value().count(b'"index"'), len(held.waiting)), (4, 8))

    def test_hang_up(self) -> None:
        """Cancels running operations, releases the connection, and leaves no timer."""
        site, held, client = self.begin()
        self.send(site, client, 5)
        held.answer(0)
        client.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(held.cancelled, 3)
        self.assertEqual((site.pool._leases, site.gateway.budget.used), ({}, 0))
        site.factory._sweeper.stop()
        self.assertEqual(site.clock.getDelayedCalls(), [])

    def test_hang_up_before_the_first_operation(self) -> None:
        """Also then nothing is left behind."""
        site, _, client = self.begin()
        self.assertEqual(len(site.pool._leases), 1)
        client.loseConnection()
        self.assertEqual((site.pool._leases, site.gateway.under_way), ({}, 0))

    def test_lease_is_given_back(self) -> None:
        """At the end of a batch, whatever the results of its operations."""
        site = Site({"get": error(exceptions.KEY_ENOENT)})
        post(site, {"op": "get", "key": "k"})
        self.assertEqual(site.pool._leases, {})

    @settings(max_examples=tries(20), deadline=None)
    @given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 6), st.integers(1, 200), st.randoms())
    def test_any_order_of_completion(self, keys: list[int], window: int, piece: int, random: Any) -> None:
        """However the body is cut and whichever operation ends first, answers come in order, each once."""
        site, held, client = self.begin(Limits(batch_operations=window))
        body = b"".join(b'{"op":"get","key":"%d"}\n' % key for key in keys)
        pieces = [body[at : at + piece] for at in range(0, len(body), piece)]
        data = [b"%x\r\n%b\r\n" % (len(part), part) for part in pieces] + [b"0\r\n\r\n"]
        open_ = set()
        seen = 0
        while data or seen < len(held.waiting) or open_:
            open_ |= set(range(seen, len(held.waiting)))
            seen = len(held.waiting)
            self.assertLessEqual(len(open_), window)
            if data and (client.producerState != "paused" or not open_):
                site.send(client, data.pop(0))
            elif open_:
                position = random.choice(sorted(open_))
                open_.discard(position)
                held.answer(position)
                site.clock.pump([0] * 3)
        told = lines_of(read_reply(client.value())[0])
        self.assertEqual(
            [(one["index"], one["key"]) for one in told], [(n, str(k)) for n, k in enumerate(keys)]
        )


class CountTests(SynchronousTestCase):
    """Metrics of batches."""

    def test_operations_are_counted(self) -> None:
        """By name and outcome."""
        counted: list[tuple[str, str, int]] = []

        class Counting:
            name = "counting"
            on_request = on_response = None

            def attach(self, gateway: Any) -> None: ...

            def routes(self, app: Any) -> None: ...

            def on_operation(self, *arguments: Any) -> None:
                counted.append(arguments)

        site = Site({"get": Answer(b"{}"), "set": error(exceptions.ENOMEM)}, plugins=[Counting()])
        get, store = {"op": "get", "key": "k"}, {"op": "set", "key": "k", "value": 1}
        post(site, get, get, store, b"nonsense")
        self.assertEqual(
            counted, [("get", "ok", 2), ("set", "OutOfMemory", 1), ("batch", "InvalidArgument", 1)]
        )
