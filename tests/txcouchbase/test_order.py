"""Operations on one key take effect in the order in which they were started, whatever their durability."""

import json
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import DeferredList, gatherResults, inlineCallbacks

from couchbase.exceptions import CouchbaseError, KeyExistsError, NotFoundError, TimeoutError
from couchbase.protocol.constants import FrameInfo, Opcode, Status
from couchbase.protocol.dispatch import Dispatcher
from couchbase.protocol.frames import decode_frame_infos, encode_response
from couchbase.protocol.operations import mutation_framing
from gateway.batches.fastpath import fast_slot
from tests import tries
from tests.gateway.batches.test_fastpath import FORMS, PLACES
from tests.gateway.test_behaviour import JSON, D, GatewayTestCase
from tests.txcouchbase.memory import MemoryNode, MemoryTestCase, without_prefix
from tests.txcouchbase.test_connection import NodeTestCase
from txcouchbase.connection import Connection, TxAsyncConnection

KEYS = ("a", "b")
MISSING = "missing"


class Receiver:
    """Keeps the end of a direct operation."""

    def __init__(self, ends, index):
        self.ends, self.index = ends, index

    def succeeded(self, result):
        self.ends[self.index] = result.value if hasattr(result, "value") else None

    def failed(self, error):
        self.ends[self.index] = type(error)


class Slots:
    """Stands for a batch: starts its usual lines, and keeps how they ended."""

    def __init__(self):
        self.outcomes = []

    def start(self, connection, line):
        """Start what a line says; returns its slot."""
        return self.begin(connection, fast_slot(line, PLACES, FORMS))

    def begin(self, connection, slot):
        """Start a slot, and return it."""
        slot.batch, slot.index, slot.held = self, 0, 0
        connection.start(slot)
        return slot

    def slot_done(self, slot, answer_bytes, outcome):
        self.outcomes.append(outcome)


class PreparingNode(MemoryNode):
    """Keeps documents; a synchronous write takes effect, and is answered, at the next chance only."""

    def __init__(self, port, nodes):
        super().__init__(port, nodes)
        self.documents = {}
        self.prepared = {}
        self.refusals = 0

    def answers(self):
        """Decide what was prepared before, then carry out what was written."""
        prepared, self.prepared = self.prepared, {}
        out = [self._store(frame) for frame in prepared.values()]
        data = b"".join(self.transport.writes)
        self.transport.writes.clear()
        out += [self.answer(without_prefix(frame)) for frame in self.reader.feed(data)]
        return b"".join(out)

    def answer(self, frame):
        """Return the answer to one request, nothing for a write that is prepared."""
        if frame.opcode in (
            Opcode.HELLO,
            Opcode.GET_CLUSTER_CONFIG,
            Opcode.SELECT_BUCKET,
            Opcode.GET_ERROR_MAP,
        ):
            return super().answer(frame)
        self.seen.append(frame)
        if self.refusals:
            self.refusals -= 1
            return encode_response(frame.opcode, Status.ETMPFAIL, opaque=frame.opaque)
        if frame.opcode == Opcode.GET:
            found = self.documents.get(frame.key)
            if found is None:
                return encode_response(frame.opcode, Status.KEY_ENOENT, opaque=frame.opaque)
            return encode_response(frame.opcode, opaque=frame.opaque, cas=1, extras=bytes(4), value=found)
        if frame.key in self.prepared:
            return encode_response(frame.opcode, Status.SYNC_WRITE_IN_PROGRESS, opaque=frame.opaque)
        if FrameInfo.DURABILITY in dict(decode_frame_infos(frame.framing)):
            self.prepared[frame.key] = frame
            return b""
        return self._store(frame)

    def _store(self, frame):
        there = frame.key in self.documents
        if frame.opcode == Opcode.DELETE:
            status = 0 if there else Status.KEY_ENOENT
            self.documents.pop(frame.key, None)
        elif frame.opcode == Opcode.ADD and there:
            status = Status.KEY_EEXISTS
        else:
            status = 0
            self.documents[frame.key] = frame.value
        return encode_response(frame.opcode, status, opaque=frame.opaque, cas=0 if status else 1)


def expected(sequence):
    """Return what each operation of a sequence ends with if they are carried out one after the other."""
    documents = {}
    ends = []
    for number, (kind, key, _) in enumerate(sequence):
        if kind == "get":
            ends.append(documents.get(key, NotFoundError))
        elif kind == "delete":
            ends.append(None if documents.pop(key, MISSING) is not MISSING else NotFoundError)
        elif kind == "add" and key in documents:
            ends.append(KeyExistsError)
        else:
            documents[key] = number
            ends.append(None)
    return ends


def give(target, kind, key, number, level):
    """Start an operation."""
    if kind == "get":
        return target.get(key)
    levels = {"durability_level": level}
    return target.delete(key, **levels) if kind == "delete" else getattr(target, kind)(key, number, **levels)


SEQUENCES = st.lists(
    st.tuples(
        st.sampled_from(("get", "set", "add", "delete")),
        st.sampled_from(KEYS),
        st.sampled_from((0, 0, 1, 3)),
    ),
    max_size=14,
)


class OrderTests(MemoryTestCase):
    """Against a node in memory whose synchronous writes take a while."""

    def connect(self, cls, **options):
        """Return a connection that is up."""
        from tests.txcouchbase import memory

        self.patch(memory, "MemoryNode", PreparingNode)
        return super().connect(cls, **options)

    def outcome(self, deferred):
        """Return what an operation ended with."""
        ends = []
        deferred.addBoth(ends.append)
        (end,) = ends
        if hasattr(end, "value") and isinstance(end.value, CouchbaseError):
            for kind in (NotFoundError, KeyExistsError):
                if isinstance(end.value, kind):
                    return kind
            return end.value
        return getattr(end, "value", None)

    def settle(self, condition):
        """Turn until something is true."""
        for _ in range(200):
            if condition():
                return
            self.clock.advance(0.001)
            for node in self.nodes.values():
                if node.transport.writes or node.prepared:
                    node.protocol.dataReceived(node.answers())
        self.fail("it does not end")

    @settings(max_examples=tries(150), deadline=None)
    @given(SEQUENCES, st.lists(st.booleans(), min_size=14, max_size=14))
    def test_deferreds(self, sequence, turns):
        """Each operation sees what those before it did, given together or in several turns."""
        connection = self.connect(Connection)
        given_ = []
        for number, ((kind, key, level), turn) in enumerate(zip(sequence, turns, strict=False)):
            given_.append(give(connection, kind, key, number, level))
            if turn:
                self.carry_out()
        self.settle(lambda: all(deferred.called for deferred in given_))
        self.assertEqual([self.outcome(deferred) for deferred in given_], expected(sequence))
        self.assertEqual(connection._client._parked, {})
        connection._close()

    @settings(max_examples=tries(80), deadline=None)
    @given(SEQUENCES)
    def test_direct(self, sequence):
        """The same of operations without Deferreds."""
        connection = self.connect(Connection)
        direct = connection.direct(together=3)
        ends = {}
        for number, (kind, key, level) in enumerate(sequence):
            give(direct, kind, key, number, level).receiver = Receiver(ends, number)
        self.settle(lambda: len(ends) == len(sequence))
        for number, wanted in enumerate(expected(sequence)):
            found = ends[number]
            if isinstance(wanted, type):
                self.assertTrue(issubclass(found, wanted))
            else:
                self.assertEqual(found, wanted)
        self.assertEqual(connection._client._parked, {})
        connection._close()

    def test_behind_a_temporary_failure(self):
        """A synchronous write waits for an operation that was sent before and is put off."""
        connection = self.connect(Connection)
        self.node.refusals = 1
        first = connection.set("k", 1)
        given_ = [
            first,
            connection.set("k", 2, durability_level=1),
            connection.get("k"),
            connection.set("k", 3),
        ]
        self.settle(lambda: all(deferred.called for deferred in given_))
        self.assertEqual([self.outcome(deferred) for deferred in given_], [None, None, 2, None])
        self.assertEqual([frame.value for frame in self.node.seen], [b"1", b"1", b"2", b"", b"3"])
        connection._close()

    def test_put_off_in_order(self):
        """Several operations that are put off together, and a later one, keep their order."""
        connection = self.connect(Connection)
        self.node.refusals = 2
        given_ = [connection.set("k", 1), connection.set("k", 2)]
        self.clock.advance(0)
        answers = self.node.answers()
        self.node.protocol.dataReceived(answers[:24])
        given_.append(connection.set("k", 3))
        self.clock.advance(0)
        self.node.protocol.dataReceived(answers[24:])
        self.settle(lambda: all(deferred.called for deferred in given_))
        self.assertEqual([frame.value for frame in self.node.seen], [b"1", b"2", b"1", b"2", b"3"])
        connection._close()

    def test_batch_behind_a_temporary_failure(self):
        """A usual line of a batch that was put off releases its key when it ends."""
        connection = self.connect(Connection)
        slots = Slots()
        self.node.refusals = 1
        first = slots.start(connection, b'{"op":"set","key":"k","value":1}')
        durable = connection.set("k", 2, durability_level=1)
        behind = slots.start(connection, b'{"op":"get","key":"k"}')
        self.settle(lambda: durable.called and first.answer and behind.answer)
        self.assertEqual(slots.outcomes, ["ok", "ok"])
        self.assertEqual(json.loads(behind.answer)["value"], 2)
        self.assertEqual(connection._client._parked, {})
        # Alone, and with several after it that are also put off.
        self.node.refusals = 3
        lines = [b'{"op":"set","key":"k","value":%d}' % number for number in (3, 4)]
        several = [slots.start(connection, line) for line in (*lines, b'{"op":"get","key":"k"}')]
        self.settle(lambda: all(slot.answer for slot in several))
        self.assertEqual(json.loads(several[2].answer)["value"], 4)
        self.assertEqual(connection._client._parked, {})
        last = slots.start(connection, b'{"op":"delete","key":"k"}')
        self.settle(lambda: last.answer)
        self.assertEqual(slots.outcomes, ["ok"] * 6)
        connection._close()

    def test_started_synchronous_write(self):
        """Operations after a write passed to start() wait for it, and it waits for those before."""
        connection = self.connect(Connection)
        slots = Slots()
        before = slots.start(connection, b'{"op":"set","key":"k","value":1}')
        durable = fast_slot(b'{"op":"set","key":"k","value":2}', PLACES, FORMS)
        durable.framing = mutation_framing(1, 0, preserve_expiry=False)
        slots.begin(connection, durable)
        behind = slots.start(connection, b'{"op":"get","key":"k"}')
        last = slots.start(connection, b'{"op":"set","key":"k","value":3}')
        self.settle(lambda: all(slot.answer for slot in (before, durable, behind, last)))
        self.assertEqual(slots.outcomes, ["ok"] * 4)
        self.assertEqual(json.loads(behind.answer)["value"], 2)
        self.assertEqual(self.node.documents[b"k"], b"3")
        self.assertEqual(connection._client._parked, {})
        connection._close()

    def test_many_on_one_key(self):
        """Synchronous writes that wait for each other are looked at a few times each, however many wait."""
        connection = self.connect(Connection)
        looked_at = Counter()
        submit = Dispatcher.submit

        def counting(cluster, call):
            looked_at[call] += 1
            submit(cluster, call)

        self.patch(Dispatcher, "submit", counting)
        writes = [connection.set("k", number, durability_level=1) for number in range(40)]
        last = connection.get("k")
        self.settle(lambda: last.called)
        self.assertEqual(self.successResultOf(last).value, 39)
        self.assertTrue(all(self.successResultOf(write).success for write in writes))
        self.assertLessEqual(max(looked_at.values()), 3)
        self.assertEqual(connection._client._parked, {})
        connection._close()

    def test_other_keys(self):
        """Other keys do not wait."""
        connection = self.connect(Connection)
        durable = connection.set("k", 1, durability_level=1)
        others = [connection.set(f"other-{number}", 1) for number in range(50)]
        self.carry_out()
        self.assertFalse(durable.called)
        self.assertTrue(all(deferred.called for deferred in others))
        self.settle(lambda: durable.called)
        connection._close()

    def test_given_up(self):
        """A write that is cancelled or times out releases the operations behind it."""
        connection = self.connect(Connection, timeout=1.0)
        stuck = connection.set("k", 1, durability_level=1)
        waiting = [connection.get("k"), connection.set("k", 2), connection.get("k")]
        waiting[0].addErrback(lambda failure: None)
        waiting[0].cancel()
        stuck.addErrback(lambda failure: None)
        self.clock.advance(0)
        stuck.cancel()
        self.node.transport.writes.clear()
        self.settle(lambda: all(deferred.called for deferred in waiting))
        self.assertEqual(self.outcome(waiting[2]), 2)
        stuck = connection.set("k", 3, durability_level=1)
        self.clock.advance(0)
        behind = connection.get("k")
        for _ in range(30):
            self.clock.advance(0.05)
        self.failureResultOf(stuck, TimeoutError)
        self.failureResultOf(behind, TimeoutError)
        self.assertEqual(connection._client._parked, {})
        connection._close()

    def test_async_results(self):
        """The same for TxAsyncConnection."""
        connection = self.connect(TxAsyncConnection)
        ends = []
        for result in (connection.set("k", 1, durability_level=1), connection.get("k")):
            result.set_callbacks(lambda result: ends.append(getattr(result, "value", None)), lambda *_: None)
        self.settle(lambda: len(ends) == 2)
        self.assertEqual(ends, [None, 1])
        connection._close()


class ThreeNodesTests(NodeTestCase):
    """Real nodes, real replicas."""

    nodes = 3
    replicas = 1

    @inlineCallbacks
    def test_sequences(self):
        """Random sequences end as they would one after the other."""
        connection = self.open()
        source = random.Random(7)
        for _ in range(25):
            sequence = [
                (source.choice(("get", "set", "add", "delete")), source.choice(KEYS), source.choice((0, 1)))
                for _ in range(12)
            ]
            found = yield DeferredList(
                [give(connection, kind, key, n, level) for n, (kind, key, level) in enumerate(sequence)],
                consumeErrors=True,
            )
            for wanted, (succeeded, result) in zip(expected(sequence), found, strict=True):
                if succeeded:
                    self.assertEqual(getattr(result, "value", None), wanted, sequence)
                else:
                    self.assertIsInstance(result.value, wanted, sequence)
            self.assertEqual(connection._client._parked, {})
            yield connection.delete_multi(KEYS, quiet=True)


class TwoReplicasTests(ThreeNodesTests):
    """Two replicas."""

    replicas = 2


class GatewayOrderTests(GatewayTestCase):
    """A batch, over real nodes with a replica."""

    options = {"ephemeral": True, "nodes": "3", "replicas": "1"}

    @inlineCallbacks
    def test_batch(self):
        """Reads behind writes with a durability level see what was written."""
        lines = b"".join(
            b'{"op":"set","key":"%b","value":%d,"durabilityLevel":"Majority"}\n{"op":"get","key":"%b"}\n'
            b'{"op":"set","key":"%b","value":%d}\n{"op":"get","key":"%b"}\n' % (key, n, key, key, -n, key)
            for n in range(1, 10)
            for key in (b"a", b"b")
        )
        answer = yield self.ask(
            "POST", "/v1/buckets/default/batch", lines, Content_Type="application/x-ndjson"
        )
        answers = sorted(map(json.loads, answer.body.splitlines()), key=lambda line: line["index"])
        values = [line["value"] for line in answers if "value" in line]
        self.assertEqual(values, [value for n in range(1, 10) for _ in "ab" for value in (n, -n)])

    @inlineCallbacks
    def test_single_requests(self):
        """Requests side by side: each durable write is answered, and the last one read."""
        answers = yield gatherResults(
            [
                self.ask("PUT", D + "k", b"%d" % number, X_CB_DurabilityLevel="Majority", **JSON)
                for number in range(20)
            ]
        )
        self.assertEqual({answer.status for answer in answers}, {200})
