"""Commands on parts of large documents, done in a thread with the effects that they have at once, and work
that is done in pieces."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from struct import pack
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThreadPool
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol import jsontext
from couchbase.protocol.constants import Datatype, Feature, Opcode, Status
from couchnode.data.item import LONG_BYTES, StatusError
from couchnode.kv.aside import LARGE_BYTES, InTurn, then, work_aside, work_in_turns
from couchnode.kv.commands.table import dispatch
from tests.couchnode.data.test_replication import one_turn
from tests.couchnode.kv.subdocs import (
    ADD,
    COUNTER,
    FAILED,
    GET,
    LOOKUP,
    MUTATE,
    SUCCESS,
    UPSERT,
    SubdocCase,
    X,
    change,
    spec,
)
from tests.couchnode.kv.test_rangescans import documents_in
from tests.couchnode.nodes import ServedNode

Steps = Generator[Deferred[Any], Any, None]
LARGE = json.dumps({"n": 1, "filling": ["x" * 100] * (LARGE_BYTES // 100), "last": 2}).encode()
KEPT_TRIES = 99


class AsideTests(SynchronousTestCase):
    """Where work is done."""

    def test_small_or_without_threads(self) -> None:
        """Little work is done at once, and all work where the clock has no threads."""
        self.assertEqual(work_aside(Clock(), 10 * LARGE_BYTES, lambda: 5), 5)
        self.assertEqual(then(3, lambda three: three + 1), 4)

    def test_in_turns(self) -> None:
        """Each piece of work after the first one is done in a turn of its own."""
        clock, done = Clock(), []

        def work(pieces: int, fails: bool = False) -> Generator[None, None, int]:
            for piece in range(pieces):
                done.append(piece)
                yield
            if fails:
                raise StatusError(Status.EINVAL)
            return 5

        self.assertEqual(work_in_turns(clock, work(0)), 5)
        with self.assertRaises(StatusError):
            work_in_turns(clock, work(0, fails=True))
        for fails in (False, True):
            done.clear()
            result = work_in_turns(clock, work(3, fails))
            self.assertIsInstance(result, InTurn)
            for count in (1, 2, 3):
                self.assertEqual(done, list(range(count)))
                self.assertNoResult(result)
                one_turn(clock)
            if fails:
                self.assertEqual(self.failureResultOf(result, StatusError).value.status, Status.EINVAL)
            else:
                self.assertEqual(self.successResultOf(result), 5)
        self.assertEqual(clock.getDelayedCalls(), [])


class Threads(ServedNode):
    """Over a socket, in threads."""

    @inlineCallbacks
    def test_in_the_order_of_a_connection(self) -> Steps:
        """Requests sent at once see each other's effects, whether they are about large documents or not."""
        aside = mock.patch("couchnode.kv.aside.deferToThreadPool", wraps=deferToThreadPool)
        threads = aside.start()
        self.addCleanup(aside.stop)
        client = yield self.connect()
        yield client.hello(Feature.XERROR, Feature.XATTR)
        client.send(Opcode.SET, key=b"k", value=LARGE, extras=bytes(8))
        requests: list[tuple[int, dict[str, Any]]] = [
            (MUTATE, {"value": change(COUNTER, b"n", b"1") + change(UPSERT, b"new", b"[1]")}),
            (LOOKUP, {"value": spec(GET, b"last") + spec(GET, b"n") + spec(GET, b"new[0]")}),
            (UPSERT, {"extras": pack(">HB", 4, 0), "value": b"last7"}),
            (Opcode.SUBDOC_GET, {"extras": pack(">HB", 4, 0), "value": b"last"}),
            (MUTATE, {"value": change(UPSERT, b"u", b"1", X) + change(ADD, b"n", b"1")}),
            (Opcode.SUBDOC_GET, {"extras": pack(">HB", 4, 0), "value": b"none"}),
            (Opcode.GET, {}),
        ]
        for opcode, parts in requests:
            client.send(opcode, key=b"k", **parts)
        answers = []
        for _ in range(len(requests) + 1):
            answers.append((yield client.next_answer()))
        _, mutated, found, single, got, failed, missing, whole = answers
        self.assertEqual((mutated.specific, mutated.value), (SUCCESS, pack(">BHI", 0, 0, 1) + b"2"))
        values = b"".join(pack(">HI", 0, 1) + value for value in (b"2", b"2", b"1"))
        self.assertEqual((found.specific, found.value, found.cas), (SUCCESS, values, mutated.cas))
        self.assertEqual((single.specific, got.value), (SUCCESS, b"7"))
        self.assertEqual(
            (failed.specific, failed.value), (FAILED, pack(">BH", 1, Status.SUBDOC_PATH_EEXISTS))
        )
        self.assertEqual(missing.specific, Status.SUBDOC_PATH_ENOENT)
        expected = {**json.loads(LARGE), "n": 2, "new": [1], "last": 7}
        self.assertEqual((json.loads(whole.value), whole.cas), (expected, single.cas))
        self.assertEqual(threads.call_count, len(requests) - 1)

    @inlineCallbacks
    def test_several_paths(self) -> Steps:
        """A document is large sooner for several operations, each of which reads all of it."""
        aside = mock.patch("couchnode.kv.aside.deferToThreadPool", wraps=deferToThreadPool)
        threads = aside.start()
        self.addCleanup(aside.stop)
        client = yield self.connect()
        yield client.hello(Feature.XERROR, Feature.XATTR)
        document = json.dumps({"filling": ["x" * 100] * (LARGE_BYTES // 400), "n": 2}).encode()
        yield client.ask(Opcode.SET, key=b"k", value=document, extras=bytes(8))
        for count in (1, 2, 8):
            found = yield client.ask(LOOKUP, key=b"k", value=spec(GET, b"n") * count)
            self.assertEqual((found.specific, found.value), (SUCCESS, (pack(">HI", 0, 1) + b"2") * count))
            changed = yield client.ask(MUTATE, key=b"k", value=change(UPSERT, b"n", b"2") * count)
            self.assertEqual((changed.specific, changed.value), (SUCCESS, b""))
            self.assertEqual(threads.call_count, 2 * (count == 8), count)

    @inlineCallbacks
    def test_datatype_of_a_long_value(self) -> Steps:
        """It is found in a thread, once for each version, when a connection needs it; what came behind in the
        connection waits for it."""
        aside = mock.patch("couchnode.kv.aside.deferToThreadPool", wraps=deferToThreadPool)
        threads = aside.start()
        self.addCleanup(aside.stop)
        parsed = mock.patch("couchnode.data.item.parse_json", side_effect=AssertionError)
        parsed.start()
        self.addCleanup(parsed.stop)
        plain = yield self.connect()
        client = yield self.connect()
        yield client.hello(Feature.XERROR, Feature.JSON, Feature.XATTR, Feature.SNAPPY_EVERYWHERE)
        reads: tuple[tuple[int, dict[str, Any]], ...] = (
            (Opcode.GET, {}),
            (Opcode.GETQ, {}),
            (Opcode.GETK, {}),
            (Opcode.GETEX, {}),
            (Opcode.GAT, {"extras": pack(">I", 2**31)}),
            (Opcode.GET_LOCKED, {}),
            (Opcode.GET_META, {"extras": b"\2"}),
        )
        text = b"[" + b"[1,2]," * (LONG_BYTES // 6 + 2) + b"3]"
        for count, (opcode, parts) in enumerate(reads, 1):
            key = b"k%d" % count
            for value, datatype in ((text, Datatype.JSON), (text[:-1], Datatype.RAW)):
                threads.reset_mock()
                yield client.ask(Opcode.SET, key=key, value=value, extras=bytes(8))
                self.assertEqual((yield plain.ask(Opcode.GET, key=key)).datatype, 0)
                self.assertEqual(threads.call_count, 0)
                with mock.patch.object(jsontext, "check", wraps=jsontext.check) as checks:
                    client.send(opcode, key=key, **parts)
                    client.send(Opcode.GET, key=key)
                    client.send(Opcode.NOOP)
                    first = yield client.next_answer()
                    second = yield client.next_answer()
                    self.assertEqual((yield client.next_answer()).opcode, Opcode.NOOP)
                found = first.value if opcode != Opcode.GET_META else second.value
                said = first.datatype if opcode != Opcode.GET_META else first.extras[-1]
                self.assertEqual(
                    (first.specific, found, said, second.datatype), (0, value, datatype, datatype)
                )
                self.assertEqual((threads.call_count, checks.call_count), (1, 1), Opcode(opcode).name)
                if opcode == Opcode.GET_LOCKED:
                    yield client.ask(Opcode.UNLOCK, key=key, cas=first.cas)

    @inlineCallbacks
    def test_datatypes_of_long_values_in_a_scan(self) -> Steps:
        """A page ends before such a document, which is the first one of the next page."""
        aside = mock.patch("couchnode.kv.aside.deferToThreadPool", wraps=deferToThreadPool)
        threads = aside.start()
        self.addCleanup(aside.stop)
        client = yield self.connect()
        yield client.hello(Feature.XERROR, Feature.JSON)
        text = b"%b1" % (b" " * LONG_BYTES)
        for key in (b"b", b"c"):
            yield client.ask(Opcode.SET, key=key, value=text, extras=bytes(8))
        random = yield client.ask(Opcode.GET_RANDOM_KEY)
        self.assertEqual((random.value, random.datatype, threads.call_count), (text, Datatype.JSON, 1))
        for key, value in ((b"a", b"1"), (b"b", text), (b"c", text)):
            yield client.ask(Opcode.SET, key=key, value=value, extras=bytes(8))
        threads.reset_mock()
        scan = yield client.ask(Opcode.RANGE_SCAN_CREATE, value=b"{}", datatype=1)
        pages = []
        status = Status.RANGE_SCAN_MORE
        while status == Status.RANGE_SCAN_MORE:
            answer = yield client.ask(Opcode.RANGE_SCAN_CONTINUE, extras=scan.value + bytes(12))
            status = Status(answer.specific)
            pages.append([(entry[-2], entry[4]) for entry in documents_in(answer.value)])
        self.assertEqual(pages, [[(b"a", 1)], [(b"b", 1)], [(b"c", 1)]])
        self.assertEqual((status, threads.call_count), (Status.RANGE_SCAN_COMPLETE, 2))

    @inlineCallbacks
    def test_two_connections(self) -> Steps:
        """Changes of one document by two clients at once are all there."""
        clients = []
        for _ in range(2):
            clients.append((yield self.connect()))
        yield clients[0].ask(Opcode.SET, key=b"k", value=LARGE, extras=bytes(8))
        for _ in range(20):
            for client in clients:
                client.send(MUTATE, key=b"k", value=change(COUNTER, b"n", b"1"))
        for client in clients:
            for _ in range(20):
                self.assertEqual((yield client.next_answer()).specific, SUCCESS)
        found = yield clients[0].ask(Opcode.GET, key=b"k")
        self.assertEqual(json.loads(found.value)["n"], 41)


class Races(SubdocCase):
    """What happens to a document during the work on it."""

    def setUp(self) -> None:
        """Hold back all work on large documents."""
        super().setUp()
        self.held: list[tuple[Callable[[], Any], InTurn[Any]]] = []

        def hold(clock: Any, size: int, work: Callable[[], Any]) -> Any:
            if size < LARGE_BYTES:
                return work()
            self.held.append((work, InTurn()))
            return self.held[-1][1]

        patch = mock.patch("couchnode.kv.commands.subdocument.work_aside", hold)
        patch.start()
        self.addCleanup(patch.stop)
        self.set(value=LARGE)

    def begin(self, *changes: bytes, **parts: Any) -> Any:
        """Begin a mutation, which gets no further than its work."""
        answer = dispatch(self.session, self.frame(MUTATE, key=b"k", value=b"".join(changes), **parts))
        self.assertIsInstance(answer, InTurn)
        return answer

    def work(self) -> None:
        """Do what is held back, as a thread does."""
        work, done = self.held.pop(0)
        try:
            result = work()
        except StatusError as refusal:
            done.errback(refusal)
        else:
            done.callback(result)

    def test_begun_anew(self) -> None:
        """A change by another client is not lost."""
        answer = self.begin(change(COUNTER, b"n", b"1"))
        self.set(value=LARGE.replace(b'"n": 1', b'"n": 41'))
        self.work()
        self.assertNoResult(answer)
        self.work()
        frame = self.decode(answer)[0]
        self.assertEqual((frame.specific, frame.value[7:]), (SUCCESS, b"42"))
        self.assertEqual(json.loads(self.body() or b"")["n"], 42)

    def test_only_so_often(self) -> None:
        """A document that changes all the time is given up."""
        answer = self.begin(change(COUNTER, b"n", b"1"))
        for _ in range(KEPT_TRIES):
            self.set(value=LARGE)
            self.work()
            self.assertNoResult(answer)
        self.set(value=LARGE)
        self.work()
        self.assertEqual(self.decode(answer)[0].specific, Status.ETMPFAIL)

    def test_with_cas(self) -> None:
        """With the CAS of what has been replaced, the mutation is refused."""
        stored = self.ask(Opcode.GET, key=b"k")
        answer = self.begin(change(COUNTER, b"n", b"1"), cas=stored.cas)
        self.set(value=LARGE)
        self.work()
        self.assertEqual(self.decode(answer)[0].specific, Status.KEY_EEXISTS)

    def test_gone(self) -> None:
        """A document that is deleted meanwhile is missing, one that is locked is locked."""
        answer = self.begin(change(COUNTER, b"n", b"1"))
        self.ask(Opcode.GET_LOCKED, key=b"k")
        self.work()
        self.assertEqual(self.decode(answer)[0].specific, Status.LOCKED)
        self.clock.advance(60)
        answer = self.begin(change(COUNTER, b"n", b"1"))
        self.ask(Opcode.DELETE, key=b"k")
        self.work()
        self.assertEqual(self.decode(answer)[0].specific, Status.KEY_ENOENT)

    def test_vbucket_and_bucket(self) -> None:
        """A vbucket that has moved is not this node's, a closed bucket is closed."""
        answer = self.begin(change(COUNTER, b"n", b"1"))
        other = self.begin(change(COUNTER, b"n", b"1"))
        self.bucket.set_topology(["replica"] * 4)
        self.work()
        self.assertEqual(self.decode(answer)[0].specific, Status.NOT_MY_VBUCKET)
        self.bucket.close().addErrback(lambda _: None)
        self.work()
        self.assertEqual(self.decode(other)[0].specific, Status.ETMPFAIL)

    def test_failures(self) -> None:
        """A path that fails is named, as for small documents."""
        answer = self.begin(change(UPSERT, b"a", b"1"), change(ADD, b"n", b"1"))
        self.work()
        frame = self.decode(answer)[0]
        self.assertEqual((frame.specific, frame.value), (FAILED, pack(">BH", 1, Status.SUBDOC_PATH_EEXISTS)))
