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
    TimeoutError,
)
from couchbase.protocol import collections, operations
from couchbase.protocol.call import Step
from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.frames import Frame, encode_response
from couchbase.protocol.hashing import vbucket_of
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace, KeyspaceState
from couchbase.protocol.leb128 import decode_leb128
from couchbase.protocol.operations import GET, SET
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
        self.assertIn("no node told the id of collection s.c", str(call.error))
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


def _stored(node: MemoryNode, frame: Frame) -> bytes:
    node.documents[frame.key] = frame.value
    return encode_response(frame.opcode, opaque=frame.opaque, cas=1)
