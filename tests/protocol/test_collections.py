"""Collections in the core: ids of their names, and operations that wait for them. No sockets, no time."""

from __future__ import annotations

import json
import struct
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.exceptions import (
    AuthError,
    ClientTemporaryFailError,
    CollectionNotFoundError,
    CouchbaseError,
    NetworkError,
    NotFoundError,
    NotSupportedError,
    ProtocolError,
    ScopeNotFoundError,
    TemporaryFailError,
    TimeoutError,
)
from couchbase.protocol import collections, operations
from couchbase.protocol.call import Step
from couchbase.protocol.clustermap import ClusterMap, NodeAddress
from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.durability import check_requirement, endure_plan
from couchbase.protocol.frames import Frame, FrameReader, encode_response
from couchbase.protocol.hashing import vbucket_of
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace, KeyspaceState
from couchbase.protocol.leb128 import decode_leb128
from couchbase.protocol.observation import observe_plan, observe_value
from couchbase.protocol.operations import GET, SET
from couchbase.protocol.plans import Ask, Pause
from tests.protocol.memory_driver import VBUCKETS, MemoryCluster, MemoryNode, MemoryPeer, step


class Manifest:
    """The collections of a bucket, as all its nodes may know them."""

    def __init__(self, uid: int, **ids: int) -> None:
        self.uid = uid
        self.ids = {name.replace("__", "."): number for name, number in ids.items()}


class CollectionNode(MemoryNode):
    """A node with collections and a manifest."""

    def __init__(self, port: int, manifest: Manifest) -> None:
        super().__init__(port)
        self.features = (*self.features, Feature.COLLECTIONS)
        self.manifest = manifest
        self.questions: list[bytes] = []
        self.uuid: str | None = "u1"

    def answer(self, frame: Frame) -> bytes:
        scripted = self.script(frame)
        if scripted is not None:
            return scripted
        if frame.opcode == Opcode.GET_COLLECTION_ID:
            self.questions.append(frame.value)
            name = frame.value.decode()
            if name in self.manifest.ids:
                extras = struct.pack(">QI", self.manifest.uid, self.manifest.ids[name])
                return encode_response(frame.opcode, opaque=frame.opaque, extras=extras)
            scopes = {one.split(".")[0] for one in self.manifest.ids}
            known = name.split(".")[0] in scopes
            return self.unknown(frame, Status.UNKNOWN_COLLECTION if known else Status.UNKNOWN_SCOPE)
        if frame.opcode in (Opcode.GET, Opcode.SET):
            number, _ = decode_leb128(frame.key)
            if number and number not in self.manifest.ids.values():
                return self.unknown(frame, Status.UNKNOWN_COLLECTION)
        return super().answer(frame)

    def unknown(self, frame: Frame, status: int) -> bytes:
        """Return the answer to a request for a collection, or scope, that is not in the manifest."""
        context = json.dumps({"manifest_uid": f"{self.manifest.uid:x}", "error": {"context": "none"}})
        return encode_response(frame.opcode, status, opaque=frame.opaque, value=context.encode())

    def config(self) -> bytes:
        config = json.loads(super().config())
        if self.uuid is not None:
            config["uuid"] = self.uuid
        return json.dumps(config).encode()


def cluster_of(count: int, manifest: Manifest) -> tuple[MemoryCluster, list[CollectionNode]]:
    """Return a connected driver, and the nodes of its cluster, with one manifest."""
    nodes = [CollectionNode(11210 + 2 * index, manifest) for index in range(count)]
    for node in nodes:
        node.cluster = list(nodes)
        node.rows = [[vbucket % count] for vbucket in range(VBUCKETS)]
    cluster = MemoryCluster(list(nodes))
    cluster.deliver()
    for peer in list(cluster.peers.values()):
        peer.connect()
    cluster.deliver()
    return cluster, nodes


def key_of(node: int, count: int) -> bytes:
    """Return a key whose vbucket is on a node of so many."""
    return next(key for key in (b"k%d" % n for n in range(1000)) if vbucket_of(key, VBUCKETS) % count == node)


def within(keyspace: Keyspace, operation: Any = GET, key: bytes = b"k", value: bytes = b"") -> Step:
    """Return an operation in a collection."""
    call = step(operation, key, value)
    call.keyspace = keyspace
    return call


def peer_of(cluster: MemoryCluster, node: MemoryNode) -> MemoryPeer:
    """Return the driver's end of the connection to a node."""
    peer: MemoryPeer = cluster.peers[node.host, node.port]
    return peer


def settle(cluster: MemoryCluster, *calls: Step, seconds: float = 3.0) -> None:
    """Carry bytes, and let time pass, until the operations are over."""
    cluster.deliver()
    for _ in range(int(seconds / 0.01)):
        if all(call.done for call in calls):
            return
        cluster.advance(0.01)
        cluster.deliver()


class IdsTests(SynchronousTestCase):
    """Sources of ids, and how long they are used."""

    def setUp(self) -> None:
        self.manifest = Manifest(2, s__c=0x555, s__d=9, _default__e=8)
        self.cluster, (self.node,) = cluster_of(1, self.manifest)

    def keyspace(self, scope: str = "s", name: str = "c") -> Keyspace:
        """Return a collection of the driver's."""
        return self.cluster.collections.keyspace(scope, name)

    def put(self, keyspace: Keyspace, value: bytes = b"1", key: bytes = b"k") -> Step:
        """Store a document, and return the operation when it is over."""
        call = within(keyspace, SET, key, value)
        self.cluster.give([call])
        settle(self.cluster, call)
        return call

    def test_prefixes(self) -> None:
        """Keys begin with the id of their collection; the default collection's with 0, without a question."""
        for keyspace, prefix in (
            (DEFAULT_KEYSPACE, b"\0"),
            (self.keyspace(), b"\xd5\x0a"),
            (self.keyspace("_default", "e"), b"\x08"),
        ):
            call = self.put(keyspace)
            self.assertIsNone(call.error)
            self.assertEqual(self.node.executed[-1].key, prefix + b"k")
            self.assertEqual(self.node.executed[-1].specific, vbucket_of(b"k", VBUCKETS))
        self.assertEqual(self.node.questions, [b"s.c", b"_default.e"])
        self.assertIs(self.keyspace("_default", "_default"), DEFAULT_KEYSPACE)

    def test_one_question(self) -> None:
        """Many operations wait for one answer, keep their order, and none asks again later."""
        keyspace = self.keyspace()
        calls = [within(keyspace, SET, b"k", b"%d" % number) for number in range(50)]
        self.cluster.give(calls[:30])
        for call in calls[30:]:
            call.deadline = 2.5
            self.cluster.submit(call)
        settle(self.cluster, *calls)
        self.assertEqual(self.node.questions, [b"s.c"])
        self.assertEqual([frame.value for frame in self.node.executed], [call.value for call in calls])
        self.assertIsNone(self.put(keyspace).error)
        self.assertEqual(self.node.questions, [b"s.c"])

    def test_collections_together(self) -> None:
        """Operations in several collections, given at once, go to their own, in the order of each."""
        keyspaces = [DEFAULT_KEYSPACE, self.keyspace(), self.keyspace("s", "d")]
        for _ in range(2):
            self.node.executed.clear()
            calls = [
                within(keyspaces[number % 3], SET, b"k%d" % (number % 4), b"%d" % number)
                for number in range(24)
            ]
            self.cluster.give(calls)
            settle(self.cluster, *calls)
            self.assertEqual([call.error for call in calls], [None] * 24)
            for keyspace in keyspaces:
                mine = [
                    (frame.key[len(keyspace.prefix) :], frame.value)
                    for frame in self.node.executed
                    if frame.key.startswith(keyspace.prefix)
                ]
                wanted = [(call.key_bytes, call.value) for call in calls if call.keyspace is keyspace]
                self.assertEqual(mine, wanted)

    def test_missing(self) -> None:
        """A key in a missing collection, or scope, fails at once, with a specific exception."""
        for scope, name, expected, words in (
            ("s", "gone", CollectionNotFoundError, "bucket 'b' has no collection 'gone' in scope 's'"),
            ("none", "c", ScopeNotFoundError, "bucket 'b' has no scope 'none'"),
        ):
            call = within(self.keyspace(scope, name))
            self.cluster.give([call])
            self.cluster.deliver()
            error = call.error
            self.assertIsInstance(error, expected)
            assert isinstance(error, CouchbaseError)
            self.assertEqual((error.message, error.key, error.operation), (words, b"k", "get"))
            self.assertEqual((error.context, error.ambiguous), ("none", False))
            self.assertNotIsInstance(error, NotFoundError)
        self.assertEqual(self.node.executed, [])
        self.assertEqual(self.cluster.now, 0.0)

    def test_missing_is_asked_for_again(self) -> None:
        """A collection that was missing is found by the next operation after it was created."""
        keyspace = self.keyspace("s", "new")
        self.assertIsInstance(self.put(keyspace).error, CollectionNotFoundError)
        self.manifest.ids["s.new"] = 20
        self.manifest.uid += 1
        self.assertIsNone(self.put(keyspace).error)

    def test_outdated(self) -> None:
        """A collection that was dropped and created again is found again by the same operation."""
        keyspace = self.keyspace()
        self.put(keyspace)
        self.manifest.uid, self.manifest.ids["s.c"] = 4, 0x80
        calls = [within(keyspace, SET, b"k", b"%d" % number) for number in range(3)]
        self.cluster.give(calls)
        settle(self.cluster, *calls)
        self.assertEqual([call.error for call in calls], [None] * 3)
        self.assertEqual(self.node.questions, [b"s.c"] * 2)
        self.assertEqual([frame.key for frame in self.node.executed[1:]], [b"\x80\x01k"] * 3)
        self.assertEqual([frame.value for frame in self.node.executed[1:]], [b"0", b"1", b"2"])

    def test_dropped(self) -> None:
        """An operation in a collection that is gone asks once, and fails at once."""
        keyspace = self.keyspace()
        self.put(keyspace)
        del self.manifest.ids["s.c"]
        self.manifest.uid = 3
        call = within(keyspace)
        self.cluster.give([call])
        self.cluster.deliver()
        self.assertIsInstance(call.error, CollectionNotFoundError)
        self.assertEqual(self.node.questions, [b"s.c"] * 2)
        self.assertEqual(self.cluster.now, 0.0)

    def test_never_known(self) -> None:
        """A node that gives an id and then does not know it is asked twice, no more."""
        keyspace = self.keyspace()
        self.node.script = lambda frame: (
            self.node.unknown(frame, Status.UNKNOWN_COLLECTION) if frame.opcode == Opcode.SET else None
        )
        self.assertIsInstance(self.put(keyspace).error, CollectionNotFoundError)
        self.assertEqual(self.node.questions, [b"s.c"] * 2)
        self.assertEqual(self.cluster.now, 0.0)

    def test_default_collection_dropped(self) -> None:
        """The default collection can be dropped, for good."""
        self.node.script = lambda frame: (
            self.node.unknown(frame, Status.UNKNOWN_COLLECTION) if frame.opcode == Opcode.GET else None
        )
        call = step(GET, b"k")
        self.cluster.give([call])
        self.cluster.deliver()
        self.assertIsInstance(call.error, CollectionNotFoundError)
        self.assertEqual(self.node.questions, [])

    def test_refused_questions(self) -> None:
        """A question that fails otherwise is the failure of those that wait for its answer."""
        for status, expected in (
            (Status.EACCESS, AuthError),
            (Status.UNKNOWN_COMMAND, NotSupportedError),
            (Status.NOT_SUPPORTED, NotSupportedError),
        ):
            keyspace = self.keyspace("s", f"c{int(status)}")
            self.node.script = lambda frame, status=status: (  # type: ignore[misc]
                encode_response(frame.opcode, status, opaque=frame.opaque)
                if frame.opcode == Opcode.GET_COLLECTION_ID
                else None
            )
            calls = [within(keyspace), within(keyspace, key=b"other")]
            self.cluster.give(calls)
            self.cluster.deliver()
            for call in calls:
                self.assertIsInstance(call.error, expected)
                self.assertEqual(call.error.key, call.key)  # type: ignore[union-attr]
        self.node.script = lambda frame: None

    def test_busy_node(self) -> None:
        """A node that is busy is asked again."""
        refusals = [Status.ETMPFAIL, Status.EBUSY]
        self.node.script = lambda frame: (
            encode_response(frame.opcode, refusals.pop(), opaque=frame.opaque)
            if frame.opcode == Opcode.GET_COLLECTION_ID and refusals
            else None
        )
        self.assertIsNone(self.put(self.keyspace()).error)
        self.assertEqual(self.node.questions, [b"s.c"])

    @given(st.binary(max_size=20).filter(lambda extras: len(extras) != 12))
    def test_malformed_ids(self, extras: bytes) -> None:
        """An answer with anything but an id breaks the protocol, and leaves the connection in use."""
        self.setUp()
        self.node.script = lambda frame: (
            encode_response(frame.opcode, opaque=frame.opaque, extras=extras)
            if frame.opcode == Opcode.GET_COLLECTION_ID
            else None
        )
        self.assertIsInstance(self.put(self.keyspace()).error, ProtocolError)
        self.node.script = lambda frame: None
        self.assertIsNone(self.put(self.keyspace()).error)

    @example(b'{"manifest_uid":"-1"}')
    @given(
        st.binary(max_size=60)
        | st.text(max_size=20).map(lambda text: f'{{"manifest_uid":"{text}"}}'.encode())
    )
    def test_any_context(self, context: bytes) -> None:
        """Whatever comes with the refusal, the collection is missing."""
        self.setUp()
        self.node.script = lambda frame: (
            encode_response(frame.opcode, Status.UNKNOWN_COLLECTION, opaque=frame.opaque, value=context)
            if frame.opcode == Opcode.GET_COLLECTION_ID
            else None
        )
        call = within(self.keyspace())
        self.cluster.give([call])
        self.cluster.deliver()
        self.assertIsInstance(call.error, CollectionNotFoundError)

    def test_too_many(self) -> None:
        """A bounded number of operations waits for an id; those given up make room."""
        self.cluster.most_pending = 3
        self.node.script = lambda frame: b"" if frame.opcode == Opcode.GET_COLLECTION_ID else None
        keyspace = self.keyspace()
        calls = [within(keyspace) for _ in range(5)]
        self.cluster.give(calls[:3])
        self.cluster.give(calls[3:4])
        self.assertIsInstance(calls[3].error, ClientTemporaryFailError)
        calls[0].abandon()
        self.cluster.give(calls[4:])
        self.assertIsNone(calls[4].error)
        self.assertEqual(list(self.cluster.collections.waiting()), [calls[1], calls[2], calls[4]])

    def test_time_is_up(self) -> None:
        """An operation whose id never comes fails in its time, and says what it waited for."""
        self.node.script = lambda frame: b"" if frame.opcode == Opcode.GET_COLLECTION_ID else None
        call = within(self.keyspace(), SET)
        self.cluster.give([call])
        self.cluster.deliver()
        self.cluster.now = 3.0
        self.cluster.time_out(call)
        self.assertIsInstance(call.error, TimeoutError)
        self.assertIn("no node returned the id of collection s.c", str(call.error))
        self.assertFalse(call.error.ambiguous)  # type: ignore[union-attr]
        self.assertEqual(list(self.cluster.collections.waiting()), [])

    def test_bounded_memory(self) -> None:
        """Ids of the collections used last are kept, and those in use."""
        held = self.keyspace()
        self.put(held)
        for number in range(collections.MOST_KEYSPACES + 10):
            self.keyspace("s", f"other{number}")
        self.assertIs(self.keyspace(), held)
        self.assertEqual(held.state, KeyspaceState.KNOWN)
        self.assertLessEqual(len(self.cluster.collections._kept), collections.MOST_KEYSPACES)


class BucketTests(SynchronousTestCase):
    """A bucket that is dropped, and created again under its name, has other collections."""

    def setUp(self) -> None:
        self.manifest = Manifest(7, s__a=8, s__b=9)
        self.cluster, (self.node,) = cluster_of(1, self.manifest)
        self.a = self.cluster.collections.keyspace("s", "a")
        self.b = self.cluster.collections.keyspace("s", "b")

    def put(self, keyspace: Keyspace, value: bytes) -> Step:
        """Store a document."""
        call = within(keyspace, SET, b"k", value)
        self.cluster.give([call])
        settle(self.cluster, call)
        return call

    def recreate(self) -> None:
        """Recreate the bucket, with its collections created in the other order."""
        self.manifest.uid, self.manifest.ids = 2, {"s.b": 8, "s.a": 9}
        self.node.uuid = None if self.node.uuid is None else "u2"
        self.node.rev += 1
        self.node.documents.clear()
        peer_of(self.cluster, self.node).lose(OSError("the bucket is gone"))

    def test_other_ids(self) -> None:
        """No operation uses an id of the deleted bucket, whether or not nodes distinguish buckets."""
        for uuid in ("u1", None):
            self.setUp()
            self.node.uuid = uuid
            self.put(self.a, b"1")
            self.put(self.b, b"2")
            self.recreate()
            calls = [within(self.a, SET, b"k", b"3"), within(self.b, SET, b"k", b"4")]
            self.cluster.give(calls)
            peer_of(self.cluster, self.node).connect()
            settle(self.cluster, *calls)
            self.assertEqual([call.error for call in calls], [None, None])
            self.assertEqual(self.node.documents, {b"\x08k": b"4", b"\x09k": b"3"})

    def test_older_manifest(self) -> None:
        """A collection that the new bucket lacks is missing at once: its manifests start again."""
        self.put(self.a, b"1")
        self.recreate()
        del self.manifest.ids["s.a"]
        peer_of(self.cluster, self.node).connect()
        self.cluster.deliver()
        call = within(self.a)
        self.cluster.give([call])
        self.cluster.deliver()
        self.assertIsInstance(call.error, CollectionNotFoundError)

    def test_same_bucket(self) -> None:
        """A new connection to the same bucket asks nothing again."""
        self.put(self.a, b"1")
        peer_of(self.cluster, self.node).lose(OSError("cut"))
        self.assertIsNone(self.put(self.a, b"2").error)
        self.assertEqual(self.node.questions, [b"s.a"])


class NodesTests(SynchronousTestCase):
    """Several nodes, whose manifests may differ for a moment."""

    def setUp(self) -> None:
        self.cluster, self.nodes = cluster_of(2, Manifest(2, s__c=8))
        self.keyspace = self.cluster.collections.keyspace("s", "c")

    def test_one_question_of_all_nodes(self) -> None:
        """One node is asked, on behalf of operations for all."""
        calls = [within(self.keyspace, SET, key_of(node, 2), b"1") for node in (0, 1, 0)]
        self.cluster.give(calls)
        settle(self.cluster, *calls)
        self.assertEqual([call.error for call in calls], [None] * 3)
        self.assertEqual(self.nodes[0].questions + self.nodes[1].questions, [b"s.c"])

    def test_node_behind(self) -> None:
        """A node that does not know a new collection yet is asked again until it does."""
        new = Manifest(3, s__c=8, s__new=9)
        self.nodes[0].manifest = new
        keyspace = self.cluster.collections.keyspace("s", "new")
        first = within(keyspace, SET, key_of(0, 2), b"1")
        self.cluster.give([first])
        settle(self.cluster, first)
        calls = [within(keyspace, SET, key_of(1, 2), b"%d" % number) for number in range(3)]
        self.cluster.give(calls)
        for _ in range(20):
            self.cluster.advance(0.01)
            self.cluster.deliver()
        self.assertEqual([call.done for call in calls], [False] * 3)
        self.nodes[1].manifest = new
        settle(self.cluster, *calls)
        self.assertEqual([call.error for call in calls], [None] * 3)
        self.assertEqual([frame.value for frame in self.nodes[1].executed], [b"0", b"1", b"2"])
        self.assertEqual(self.cluster._parked, {})

    def test_node_behind_for_good(self) -> None:
        """If it never does, the operation's time is up."""
        self.nodes[0].manifest = Manifest(3, s__c=8, s__new=9)
        keyspace = self.cluster.collections.keyspace("s", "new")
        calls = [within(keyspace, SET, key_of(node, 2), b"1") for node in (0, 1)]
        self.cluster.give(calls[:1])
        settle(self.cluster, calls[0])
        self.cluster.give(calls[1:])
        settle(self.cluster, calls[1], seconds=2.0)
        self.assertFalse(calls[1].done)
        self.cluster.now = 10.0
        self.cluster.time_out(calls[1])
        self.assertIsInstance(calls[1].error, TimeoutError)

    def test_asked_node_behind(self) -> None:
        """A node with an older manifest is asked for the id again, not trusted."""
        self.nodes[0].manifest = Manifest(3, s__c=8, s__new=9)
        calls = [within(self.keyspace, SET, key_of(0, 2), b"1")]
        self.cluster.give(calls)
        settle(self.cluster, *calls)
        self.assertEqual(self.cluster.collections.newest, 3)
        call = within(self.cluster.collections.keyspace("s", "new"), SET, key_of(1, 2), b"1")
        self.cluster.give([call])
        self.cluster.deliver()
        self.assertFalse(call.done)
        self.nodes[1].manifest = self.nodes[0].manifest
        settle(self.cluster, call)
        self.assertIsNone(call.error)

    def test_node_without_collections(self) -> None:
        """An older node serves the default collection, and says of others what it lacks."""
        old = self.nodes[1]
        old.features = tuple(one for one in old.features if one != Feature.COLLECTIONS)
        old.script = lambda frame: MemoryNode.answer(old, frame) if frame.opcode == Opcode.SET else None
        peer_of(self.cluster, old).lose(OSError("replaced"))
        peer_of(self.cluster, old).connect()
        self.cluster.deliver()
        key = key_of(1, 2)
        calls = [
            step(SET, key, b"1"),
            within(self.keyspace, SET, key, b"2"),
            within(self.keyspace, SET, key_of(0, 2), b"3"),
        ]
        self.cluster.give(calls)
        old.script = lambda frame: None if frame.opcode != Opcode.SET else _stored(old, frame)
        settle(self.cluster, *calls)
        self.assertEqual([calls[0].error, calls[2].error], [None, None])
        self.assertIsInstance(calls[1].error, NotSupportedError)
        self.assertIn("127.0.0.1:11212 does not offer collections", str(calls[1].error))
        self.assertEqual(old.documents, {key: b"1"})

    def test_lost_while_asked(self) -> None:
        """The question is repeated over the next connection; nothing was sent, so nothing is ambiguous."""
        call = within(self.keyspace, SET, key_of(0, 2), b"1")
        self.cluster.give([call])
        peer_of(self.cluster, self.nodes[0]).lose(OSError("cut"))
        self.assertFalse(call.done)
        settle(self.cluster, call)
        self.assertIsNone(call.error)

    def test_lost_after_it_was_sent(self) -> None:
        """An operation that was sent and not answered may have been executed."""
        first = within(self.keyspace, SET, key_of(0, 2), b"1")
        self.cluster.give([first])
        settle(self.cluster, first)
        call = within(self.keyspace, SET, key_of(0, 2), b"2")
        self.cluster.give([call])
        peer_of(self.cluster, self.nodes[0]).lose(OSError("cut"))
        self.assertIsInstance(call.error, NetworkError)
        self.assertTrue(call.error.ambiguous)  # type: ignore[union-attr]

    def test_given_up(self) -> None:
        """An operation that is cancelled while it waits is not sent."""
        calls = [within(self.keyspace, SET, key_of(0, 2), b"%d" % number) for number in range(2)]
        gone = []
        self.cluster.give(calls)
        calls[0].give_up(lambda: gone.append(True))
        settle(self.cluster, calls[1])
        self.assertEqual(gone, [True])
        self.assertEqual([frame.value for frame in self.nodes[0].executed], [b"1"])

    def test_synchronous_writes(self) -> None:
        """Operations on a key keep their order around a synchronous write while the id is unknown."""
        key = key_of(0, 2)
        before, durable, behind = (within(self.keyspace, SET, key, value) for value in (b"1", b"2", b"3"))
        other = step(SET, key, b"4")
        durable.framing = operations.mutation_framing(1, 1000, False)
        for call in (before, durable, behind, other):
            call.deadline = 2.5
            self.cluster.submit(call)
        settle(self.cluster, before, durable, behind, other)
        self.assertEqual([call.error for call in (before, durable, behind, other)], [None] * 4)
        mine = [frame.value for frame in self.nodes[0].executed if frame.key == b"\x08" + key]
        self.assertEqual(mine, [b"1", b"2", b"3"])
        self.assertEqual(self.cluster._parked, {})

    def test_same_key_elsewhere(self) -> None:
        """An operation does not wait for one on the same key of another collection."""
        key = key_of(0, 2)
        refusals = [True]
        self.nodes[0].script = lambda frame: (
            encode_response(frame.opcode, Status.ETMPFAIL, opaque=frame.opaque)
            if refusals and frame.opcode == Opcode.SET and frame.key[:1] == b"\0"
            else None
        )
        stuck = step(SET, key, b"1")
        self.cluster.give([stuck])
        self.cluster.deliver()
        self.assertTrue(self.cluster._parked)
        free = within(self.keyspace, SET, key, b"2")
        self.cluster.give([free])
        self.cluster.deliver()
        self.assertTrue(free.done)
        self.assertFalse(stuck.done)
        refusals.clear()
        settle(self.cluster, stuck)
        self.assertIsNone(stuck.error)


class OldBucketTests(SynchronousTestCase):
    """Buckets and servers without collections."""

    def test_memcached_bucket(self) -> None:
        """A bucket that is refused for its lack of collections is opened without them."""
        node = CollectionNode(11210, Manifest(0))
        node.cluster = [node]
        hellos: list[bool] = []

        def script(frame: Frame) -> bytes | None:
            if frame.opcode == Opcode.HELLO:
                asked = [frame.value[at : at + 2] for at in range(0, len(frame.value), 2)]
                hellos.append(int(Feature.COLLECTIONS).to_bytes(2, "big") in asked)
                granted = [int(code).to_bytes(2, "big") for code in node.features]
                value = b"".join(code for code in asked if code in granted)
                return encode_response(frame.opcode, opaque=frame.opaque, value=value)
            if frame.opcode == Opcode.SELECT_BUCKET and hellos[-1]:
                return encode_response(frame.opcode, Status.NOT_SUPPORTED, opaque=frame.opaque)
            return _stored(node, frame) if frame.opcode == Opcode.SET else None

        node.script = script
        cluster = MemoryCluster([node])
        cluster.deliver()
        self.assertEqual(hellos, [True, False])
        named = within(cluster.collections.keyspace("s", "c"), SET, b"k", b"1")
        default = step(SET, b"k", b"2")
        cluster.give([named, default])
        settle(cluster, named, default)
        self.assertIsInstance(named.error, NotSupportedError)
        self.assertIsNone(default.error)
        self.assertEqual(node.documents, {b"k": b"2"})

    def test_other_refusals(self) -> None:
        """A bucket that cannot be opened either way is refused, once."""
        node = CollectionNode(11210, Manifest(0))
        node.cluster = [node]
        hellos: set[int] = set()

        def script(frame: Frame) -> bytes | None:
            if frame.opcode == Opcode.HELLO:
                hellos.add(frame.opaque)
            if frame.opcode == Opcode.SELECT_BUCKET:
                return encode_response(frame.opcode, Status.NOT_SUPPORTED, opaque=frame.opaque)
            return None

        node.script = script
        node.features = tuple(one for one in node.features if one != Feature.COLLECTIONS)
        cluster = MemoryCluster([node])
        peer = peer_of(cluster, node)
        for _ in range(2):
            peer.flush()
            peer.receive(node.exchange(peer))
        self.assertEqual(len(hellos), 1)
        self.assertIsInstance(peer.last_error, TemporaryFailError)


class CopiesTests(SynchronousTestCase):
    """Questions for copies (OBSERVE) of documents in a collection."""

    def setUp(self) -> None:
        nodes = [NodeAddress(f"n{index}", 1) for index in range(2)]
        self.map = ClusterMap(nodes=nodes, rows=[(0, 1)] * 4, replicas=1, rev=1, name="b")
        self.keyspace = Keyspace("s", "c")
        self.now = 0.0

    def id_answer(self, number: int = 0x80, manifest: int = 3) -> Frame:
        """Return an answer with the id of the collection."""
        return response(Opcode.GET_COLLECTION_ID, extras=struct.pack(">QI", manifest, number))

    def seen(self, asked: Ask, prefix: bytes = b"\0") -> list[Frame]:
        """Return answers that all keys are there, with the keys as they were asked for."""
        frames = []
        for _, _, fields in asked.questions:
            value, at, out = fields["value"](prefix), 0, b""
            while at < len(value):
                end = at + 4 + int.from_bytes(value[at + 2 : at + 4], "big")
                out += value[at:end] + b"\1" + (7).to_bytes(8, "big")
                at = end
            frames.append(response(Opcode.OBSERVE, value=out))
        return frames

    def outcome(self, plan: Any, answer: Any) -> Any:
        """Return what a plan returns after its last answer."""
        with self.assertRaises(StopIteration) as done:
            plan.send(answer)
        return done.exception.value

    def test_default_collection(self) -> None:
        """Keys have the prefix that the connection has, and results have the keys as they were given."""
        for prefix in (b"\0", b""):
            plan = observe_plan(lambda: self.map, [b"k", b"\0k"], False)
            asked = next(plan)
            entries = [(self.map.vbucket(key), key) for key in (b"k", b"\0k")]
            self.assertEqual(asked.questions[0][2]["value"](prefix), observe_value(entries, prefix))
            found = self.outcome(plan, self.seen(asked, prefix))
            self.assertEqual({key: len(copies.seen) for key, copies in found.items()}, {b"k": 2, b"\0k": 2})

    def test_named_collection(self) -> None:
        """The id is asked for first, of the next node if one does not answer."""
        plan = observe_plan(lambda: self.map, [b"k"], False, self.keyspace)
        first = next(plan)
        self.assertEqual(first.questions, [(0, Opcode.GET_COLLECTION_ID, {"value": b"s.c"})])
        second = plan.send([None])
        self.assertEqual(second.questions[0][0], 1)
        asked = plan.send([self.id_answer()])
        value = asked.questions[0][2]["value"](b"\0")
        self.assertEqual(value[4:], b"\x80\x01k")
        self.assertEqual(asked.questions[0][2]["value"](b""), b"")
        found = self.outcome(plan, self.seen(asked))
        self.assertEqual(len(found[b"k"].seen), 2)

    def test_missing(self) -> None:
        """What is missing is raised; a server without collections, too."""
        for status, kind in (
            (Status.UNKNOWN_COLLECTION, CollectionNotFoundError),
            (Status.UNKNOWN_SCOPE, ScopeNotFoundError),
            (Status.UNKNOWN_COMMAND, NotSupportedError),
            (Status.EACCESS, AuthError),
        ):
            plan = observe_plan(lambda: self.map, [b"k"], False, self.keyspace)
            next(plan)
            self.assertRaises(kind, plan.send, [response(Opcode.GET_COLLECTION_ID, status)])

    def test_outdated(self) -> None:
        """An id that a node does not know any more is asked for again; a node that is behind is not
        believed."""
        self.keyspace.learn(8, 5)
        requirement = check_requirement(self.map, 0, 1)
        plan = endure_plan(
            lambda: self.map, lambda: self.now, {b"k": 7}, requirement, timeout=5, interval=1,
            keyspace=self.keyspace,
        )  # fmt: skip
        asked = next(plan)
        behind = response(Opcode.OBSERVE, Status.UNKNOWN_COLLECTION, value=b'{"manifest_uid":"4"}')
        self.assertIsInstance(plan.send([*self.seen(asked)[:1], behind]), Pause)
        asked = plan.send(None)
        self.assertEqual(asked.questions[0][1], Opcode.OBSERVE)
        gone = response(Opcode.OBSERVE, Status.UNKNOWN_COLLECTION, value=b'{"manifest_uid":"6"}')
        self.assertIsInstance(plan.send([gone, gone]), Pause)
        again = plan.send(None)
        self.assertEqual(again.questions[0][1], Opcode.GET_COLLECTION_ID)
        asked = plan.send([self.id_answer(9, 6)])
        self.assertEqual(self.outcome(plan, self.seen(asked)), {b"k": 0})


def response(opcode: int, status: int = 0, **parts: Any) -> Frame:
    """Return a response."""
    (frame,) = FrameReader().feed(encode_response(opcode, status, **parts))
    return frame


def _stored(node: MemoryNode, frame: Frame) -> bytes:
    node.documents[frame.key] = frame.value
    return encode_response(frame.opcode, opaque=frame.opaque, cas=1)
