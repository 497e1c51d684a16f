"""Views of collections on Twisted: with Deferreds, AsyncResults and receivers; and their management."""

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks

from couchbase.exceptions import (
    ArgumentError,
    BucketNotFoundError,
    CollectionExistsError,
    CollectionNotFoundError,
    HTTPError,
    NotFoundError,
    NotSupportedError,
    ScopeExistsError,
    ScopeNotFoundError,
)
from couchbase.protocol.constants import Feature
from couchbase.result import MultiResult
from couchbase.transcoder import RawTranscoder
from tests.txcouchbase.memory import MemoryNode, MemoryTestCase
from tests.txcouchbase.test_connection import NodeTestCase
from txcouchbase.connection import Connection, TxAsyncConnection
from txcouchbase.scopes import ScopeManager


class Receiver:
    """Passes the end of a direct operation on."""

    def __init__(self):
        self.ended = Deferred()
        self.succeeded, self.failed = self.ended.callback, self.ended.errback


class CollectionCase(NodeTestCase):
    """A node with the collection ``s.c``."""

    @inlineCallbacks
    def setUp(self):
        yield super().setUp()
        self.manager = ScopeManager(self.open())
        yield self.manager.scope_create("s")
        yield self.manager.collection_create("c", "s")


class DeferredTests(CollectionCase):
    """Operations that return Deferreds."""

    nodes = 2
    replicas = 1

    @inlineCallbacks
    def test_every_kind(self):
        """Each kind of operation is for the collection, and leaves the default one alone."""
        connection = self.open()
        view = connection.collection("c", "s")
        # Before the connection is up, and before the id is known.
        yield gatherResults([connection.set("k", "default"), view.set("k", "c")])
        values = yield gatherResults([connection.get("k"), view.get("k")])
        self.assertEqual([found.value for found in values], ["default", "c"])
        yield view.set_multi({f"k{number}": number for number in range(30)})
        found = yield view.getMulti([f"k{number}" for number in range(30)])
        self.assertIs(type(found), MultiResult)
        self.assertEqual([found[f"k{number}"].value for number in range(30)], list(range(30)))
        yield self.assertFailure(connection.get("k1"), NotFoundError)
        yield view.set("d", 1, replicate_to=1)
        yield view.endure("d", persist_to=0, replicate_to=1)
        copies = yield view.observe("d")
        self.assertEqual(len(copies.value), 2)
        replica = yield view.rget("d")
        self.assertEqual(replica.value, 1)
        replicas = yield view.rget_multi(["d"], replica_index=0)
        self.assertEqual(replicas["d"].value, 1)
        yield view.set("d", 2, durability_level=1)
        counted = yield view.incr("n", initial=4)
        self.assertEqual(counted.value, 4)
        locked = yield view.lock("d")
        yield view.unlock("d", locked.cas)
        yield view.touch("d", 100)
        expiring = yield view.get_with_expiry("d")
        self.assertGreater(expiring.expiry, 0)
        yield view.delete("d")
        yield self.assertFailure(view.get("d"), NotFoundError)
        self.assertEqual((yield connection.get("k")).value, "default")

    @inlineCallbacks
    def test_many_at_once(self):
        """Operations of one turn, in several collections, each end with their own."""
        yield self.manager.collection_create("d", "s")
        connection = self.open()
        views = [connection, connection.collection("c", "s"), connection.collection("d", "s")]
        yield gatherResults([views[n % 3].set(f"k{n // 3}", n) for n in range(300)])
        found = yield gatherResults([views[n % 3].get(f"k{n // 3}") for n in range(300)])
        self.assertEqual([one.value for one in found], list(range(300)))

    @inlineCallbacks
    def test_missing(self):
        """It fails the Deferred, at once, of single and multi operations, before and after."""
        connection = self.open()
        for view, kind in (
            (connection.collection("x", "s"), CollectionNotFoundError),
            (connection.collection("c", "x"), ScopeNotFoundError),
        ):
            for method, arguments, options in (
                (view.get, ("k",), {}),
                (view.get_multi, (["a", "b"],), {}),
                (view.observe, ("k",), {}),
                (view.rget, ("k",), {"replica_index": 0}),
                (view.set, ("k", 1), {"durability_level": 1}),
            ):
                yield self.assertFailure(method(*arguments, **options), kind)
        yield self.manager.collection_create("x", "s")
        yield connection.collection("x", "s").set("k", 1)
        yield self.manager.collection_drop("x", "s")
        yield self.assertFailure(connection.collection("x", "s").get("k"), CollectionNotFoundError)

    @inlineCallbacks
    def test_wrong_arguments(self):
        """They fail the Deferred while the connection is not up, and raise afterwards."""
        connection = self.open()
        view = connection.collection("c", "s")
        early = view.get("k" * 247)
        self.assertIsInstance(early, Deferred)
        yield self.assertFailure(early, ArgumentError)
        yield connection.connect()
        self.assertRaises(ArgumentError, view.get, "k" * 247)
        self.assertRaises(ArgumentError, connection.collection, "a b")
        self.assertIn("txcouchbase.collection.DeferredCollection s.c of <", repr(view))
        self.assertEqual(view, connection.collection("c", "s"))

    @inlineCallbacks
    def test_direct(self):
        """Operations that report to a receiver."""
        connection = self.open(transcoder=RawTranscoder())
        direct = connection.collection("c", "s").direct()
        for begin, wanted in (
            (lambda: direct.set(b"k", b"1", format=5), None),
            (lambda: direct.get_with_expiry(b"k"), b"1"),
        ):
            receiver = Receiver()
            begin().receiver = receiver
            result = yield receiver.ended
            self.assertEqual(getattr(result, "value", None), wanted)
        yield self.assertFailure(connection.get(b"k"), NotFoundError)
        missing, receiver = connection.collection("c", "x").direct(), Receiver()
        missing.get(b"k").receiver = receiver
        yield self.assertFailure(receiver.ended, ScopeNotFoundError)
        self.assertRaises(ArgumentError, direct.get, b"k" * 247)

    @inlineCallbacks
    def test_closed(self):
        """Operations that wait for an id fail when the connection is closed, and none is forgotten."""
        connection = self.open()
        yield connection.connect()
        waiting = connection.collection("c", "s").get("k")
        self.assertEqual(waiting.called, 0)
        connection._close()
        failure = yield self.assertFailure(waiting, Exception)
        self.assertIn("closed", str(failure))
        self.assertEqual(list(connection._client.collections.waiting()), [])


class AsyncTests(CollectionCase):
    """Operations that return AsyncResults."""

    @inlineCallbacks
    def test_operations(self):
        """They pass results to callbacks, and errors to errbacks."""
        connection = self.open(TxAsyncConnection)
        yield connection.connect()
        view = connection.collection("c", "s")
        yield connection.defer(view.set("k", 1))
        found = yield connection.defer(view.get("k"))
        self.assertEqual(found.value, 1)
        many = yield connection.defer(view.getMulti(["k"]))
        self.assertEqual(many["k"].value, 1)
        yield self.assertFailure(connection.defer(connection.get("k")), NotFoundError)
        missing = connection.collection("x", "s")
        yield self.assertFailure(connection.defer(missing.get("k")), CollectionNotFoundError)


class ManagerTests(CollectionCase):
    """Scopes and collections of the connection's bucket."""

    @inlineCallbacks
    def test_manifest(self):
        """What is created is listed."""
        manager = self.manager
        yield manager.collection_create("short", "s", max_ttl=60)
        yield manager.collection_update("short", "s", max_ttl=90)
        found = yield manager.scopes()
        self.assertEqual(found.collection("short", "s").max_ttl, 90)
        yield manager.collection_drop("short", "s")
        yield manager.scope_drop("s")
        found = yield manager.scopes()
        self.assertEqual([scope.name for scope in found.scopes], ["_default"])

    @inlineCallbacks
    def test_refusals(self):
        """Each has an exception of its own."""
        manager = self.manager
        for kind, begun in (
            (ScopeExistsError, manager.scope_create("s")),
            (CollectionExistsError, manager.collection_create("c", "s")),
            (ScopeNotFoundError, manager.scope_drop("x")),
            (CollectionNotFoundError, manager.collection_drop("x", "s")),
            (ScopeNotFoundError, manager.collection_create("c", "x")),
            (HTTPError, manager.scope_create("_x")),
        ):
            yield self.assertFailure(begun, kind)
        self.assertRaises(ArgumentError, manager.scope_create, "a b")
        other = self.open()
        other._bucket = "none"
        yield self.assertFailure(ScopeManager(other).scopes(), BucketNotFoundError)


class OldNode(MemoryNode):
    """A node without collections."""

    def answer(self, frame):
        if frame.opcode == 0x1F:
            codes = [frame.value[at : at + 2] for at in range(0, len(frame.value), 2)]
            asked = int(Feature.COLLECTIONS).to_bytes(2, "big")
            frame = frame._replace(value=b"".join(code for code in codes if code != asked))
        return super().answer(frame)


class OldServerTests(MemoryTestCase):
    """A server without collections."""

    node_type = OldNode

    def test_named(self):
        """A named collection is refused at once, and the default one is used as before: keys are bare."""
        connection = self.connect(Connection)
        self.failureResultOf(self.carried_out(connection.collection("c").get("k")), NotSupportedError)
        self.assertEqual(self.node.seen, [])
        for view in (connection, connection.collection("_default")):
            self.successResultOf(self.carried_out(view.set("k", 1)))
        self.assertEqual([frame.key for frame in self.node.seen], [b"k", b"k"])

    def carried_out(self, begun):
        """Return what was begun when it is over."""
        for _ in range(3):
            self.carry_out()
        return begun
