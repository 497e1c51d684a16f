"""The life of a connection object, and its members in common with the blocking one."""

import gc
import weakref
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

import couchbase
from couchbase.asynchronous import Async
from couchbase.asynchronous.view import AsyncViewBase
from couchbase.exceptions import (
    ArgumentError,
    BucketNotFoundError,
    ClientTemporaryFailError,
    CouchbaseError,
    NotFoundError,
    NotStoredError,
    ObjectDestroyedError,
    PipelineError,
    ValueFormatError,
)
from couchbase.items import Item, ItemOptionDict, ItemSequence
from couchbase.user_constants import LOCKMODE_EXC, LOCKMODE_NONE
from couchbase.views.iterator import View
from tests.txcouchbase.test_connection import NodeTestCase
from txcouchbase.connection import Connection, ConnectionEventQueue, TxAsyncConnection, TxEventQueue

MULTI = (
    *("set", "get", "add", "append", "prepend", "replace", "delete", "incr", "decr", "touch", "lock"),
    *("unlock", "arithmetic", "endure", "observe", "rget"),
)


def registered(connection, event):
    """Return a Deferred for an event."""
    deferred = Deferred()
    connection.registerDeferred(event, deferred)
    return deferred


class QueueTests(TestCase):
    """Queues of Deferreds."""

    @inlineCallbacks
    def test_success(self):
        """Deferreds fire with None, later ones in the next turn."""
        for kind in (TxEventQueue, ConnectionEventQueue):
            queue = kind()
            first, second = Deferred(), Deferred()
            queue.schedule(first)
            queue(None)
            self.assertIsNone(self.successResultOf(first))
            queue.schedule(second)
            self.assertNoResult(second)
            self.assertIsNone((yield second))

    @inlineCallbacks
    def test_failure(self):
        """They fail with the exception, also later ones."""
        queue = ConnectionEventQueue()
        first, second = Deferred(), Deferred()
        queue.schedule(first)
        queue(KeyError("k"))
        self.failureResultOf(first, KeyError)
        queue.schedule(second)
        yield self.assertFailure(second, KeyError)


class ConnectTests(NodeTestCase):
    """``'connect'``."""

    @inlineCallbacks
    def test_connected(self):
        """Every Deferred fires, those that come later in the next turn."""
        connection = self.open()
        told = []
        connection._conncb = told.append
        self.assertFalse(connection.connected)
        waiting = [connection.connect(), registered(connection, "connect")]
        for deferred in waiting:
            self.assertIsNone((yield deferred))
        self.assertTrue(connection.connected)
        self.assertEqual(told, [None])
        late = connection.connect()
        self.assertNoResult(late)
        self.assertIsNone((yield late))
        self.assertRaises(ValueError, connection.registerDeferred, "disconnect", Deferred())

    @inlineCallbacks
    def test_failed(self):
        """Every Deferred fails with the exception, also those of waiting operations."""
        connection = self.open(bucket="nope")
        told = []
        connection._conncb = told.append
        waiting = connection.get("key")
        yield self.assertFailure(connection.connect(), BucketNotFoundError)
        yield self.assertFailure(waiting, BucketNotFoundError)
        yield self.assertFailure(connection.connect(), BucketNotFoundError)
        self.assertIsInstance(told[0], BucketNotFoundError)
        self.assertEqual(len(told), 1)
        self.assertEqual([code for code, _ in connection.errors()], [0x19])
        self.assertEqual(connection.errors(), ())

    @inlineCallbacks
    def test_arguments_before(self):
        """Wrong arguments fail the Deferred before the connection is up, and are raised after."""
        connection = self.open()
        yield self.assertFailure(connection.get(5), ValueFormatError)
        yield self.assertFailure(connection.set("k", 1, ttl="x"), ArgumentError)
        yield self.assertFailure(connection.setMulti([]), ArgumentError)
        yield self.assertFailure(connection.get_multi(None), ArgumentError)
        yield self.assertFailure(connection.stats(5), ArgumentError)
        kept = connection.get
        yield connection.connect()
        for get in (connection.get, kept):
            self.assertRaises(ValueFormatError, get, 5)
        self.assertRaises(ArgumentError, connection.setMulti, [])
        self.assertRaises(ArgumentError, connection.stats, 5)
        # The way to the methods is the shortest again.
        self.assertEqual([name for name in MULTI if name in vars(connection)], [])

    @inlineCallbacks
    def test_all_kinds_before(self):
        """Operations that many nodes take part in wait for the connection, as others do."""
        connection = self.open()
        stored = connection.set("key", 1)
        given = [stored, connection.stats(), connection.observe("key"), connection.get_multi(["key"])]
        _, stats, observed, found = yield gatherResults(given)
        self.assertEqual(len(stats["curr_items"]), 1)
        self.assertEqual(len(observed.value), 1)
        self.assertEqual(found["key"].value, 1)
        refused = self.open(bucket="nope")
        yield self.assertFailure(refused.stats(), BucketNotFoundError)

    @inlineCallbacks
    def test_results_need_the_connection(self):
        """Operations that return AsyncResults are refused before the connection is up, and done after."""
        connection = self.open(TxAsyncConnection)
        for early in (
            lambda: connection.set("key", 1),
            lambda: connection.get_multi(["key"]),
            lambda: connection.set("key", 1, persist_to=1),
            lambda: connection.rget("key"),
            lambda: connection.observe("key"),
            lambda: connection.endure("key", persist_to=1, replicate_to=0),
            connection.stats,
        ):
            error = self.assertRaises(ClientTemporaryFailError, early)
            self.assertEqual(error.rc, 0x1B)
        yield connection.connect()
        stored = yield connection.defer(connection.set("key", 1))
        self.assertTrue(stored.success)
        nowhere = self.open(TxAsyncConnection, bucket="nope")
        yield self.assertFailure(nowhere.connect(), BucketNotFoundError)
        self.assertRaises(ClientTemporaryFailError, nowhere.get, "key")

    @inlineCallbacks
    def test_arguments_of_results(self):
        """AsyncResults have no such way: the call raises."""
        connection = self.open(TxAsyncConnection)
        self.assertRaises(ValueFormatError, connection.get, 5)
        yield connection.connect()

    def test_constructor(self):
        """Positional arguments are a TypeError, unknown ones an ArgumentError."""
        for cls in (Connection, TxAsyncConnection):
            self.assertRaises(TypeError, cls, "default")
            self.assertRaises(ArgumentError, cls, bucket="default", nonsense=1)
            self.assertRaises(ArgumentError, cls, bucket="default", config_cache=5)
        connection = self.open(lockmode=LOCKMODE_EXC, unlock_gil=True, _cntl={0x00: 400_000}, conncache="map")
        warned = [one["message"] for one in self.flushWarnings()]
        self.assertEqual(warned, ["conncache is now named config_cache"])
        self.assertFalse(Path("map").exists())
        self.assertEqual((connection.lockmode, connection.unlock_gil), (LOCKMODE_NONE, 0))
        self.assertEqual(connection.timeout, 0.4)
        return connection.connect()


class DestroyedTests(NodeTestCase):
    """``'_dtor'``, and what happens to waiters for an object that is collected."""

    def make(self, cls=Connection):
        return cls(
            bucket="default",
            connection_string=self.node.connection_string,
            username="Administrator",
            password="password",
        )

    @inlineCallbacks
    def test_before_connecting(self):
        """Waiters for the connection are notified that the object was destroyed."""
        for cls in (Connection, TxAsyncConnection):
            connection = self.make(cls)
            connecting, destroyed = connection.connect(), registered(connection, "_dtor")
            gone = weakref.ref(connection)
            del connection
            gc.collect()
            self.assertIsNone(gone())
            self.assertNoResult(destroyed)
            yield self.assertFailure(connecting, ObjectDestroyedError)
            self.assertIsNone((yield destroyed))

    @inlineCallbacks
    def test_before_connecting_and_nobody_waits(self):
        """A Deferred of connect() that nobody has any more is no unhandled error; one with callbacks and no
        errback is one, and one that is held fails for whoever adds an errback later."""
        for cls in (Connection, TxAsyncConnection):
            connection = self.make(cls)
            destroyed = registered(connection, "_dtor")
            connection.connect()
            passed = []
            connection.connect().addCallback(passed.append)
            held = connection.connect()
            del connection
            gc.collect()
            yield destroyed
            gc.collect()
            self.assertEqual(len(self.flushLoggedErrors(ObjectDestroyedError)), 1)
            self.assertEqual(passed, [])
            yield self.assertFailure(held, ObjectDestroyedError)

    @inlineCallbacks
    def test_connected(self):
        """Without any help of the collector, the sockets are closed when the Deferred fires."""
        connection = self.make()
        destroyed = registered(connection, "_dtor")
        yield connection.connect()
        yield connection.set("key", 1)
        client = connection._client
        gc.disable()
        self.addCleanup(gc.enable)
        del connection
        self.assertIsNone((yield destroyed))
        self.assertTrue(client.closed)

    @inlineCallbacks
    def test_operations_keep_it(self):
        """Started operations finish; then the object is collected."""
        connection = self.make()
        yield connection.set("key", 1)
        destroyed = registered(connection, "_dtor")
        found = connection.get("key")
        query = connection.queryAll("nothing", "there")
        del connection
        self.assertEqual((yield found).value, 1)
        yield self.assertFailure(query, CouchbaseError)
        gc.collect()
        self.assertIsNone((yield destroyed))

    @inlineCallbacks
    def test_closed(self):
        """Closing is not destroying."""
        connection = self.open()
        destroyed = registered(connection, "_dtor")
        yield connection.connect()
        connection._close()
        for _ in range(10):
            yield deferLater(reactor, 0)
        self.assertNoResult(destroyed)


class SharedTests(NodeTestCase):
    """Members of the blocking connection that exist here, too."""

    replicas = 0

    @inlineCallbacks
    def setUp(self):
        yield super().setUp()
        self.cb = self.open()
        yield self.cb.connect()

    def test_kind(self):
        """Both are Async, and so Connections of the SDK."""
        for cls in (Connection, TxAsyncConnection):
            self.assertTrue(issubclass(cls, Async))
            self.assertTrue(issubclass(cls, couchbase.Connection))
        self.assertEqual(
            repr(self.cb),
            f"<couchbase.connection.Connection bucket=default, nodes={self.cb.server_nodes} "
            f"at 0x{id(self.cb):x}>",
        )

    def test_pipeline(self):
        """PipelineError on entry, and nothing else changes."""
        with self.assertRaises(PipelineError), self.cb.pipeline():
            self.fail("entered")
        return self.cb.set("key", 1)

    def test_settings(self):
        """By number, and what the map says of a key."""
        self.assertEqual(self.open(timeout=2.5)._cntl(0x00), 2_500_000)
        self.cb._cntl(0x12, 1_000_000)
        self.assertEqual(self.cb._client.bootstrap_timeout, 1.0)
        self.assertEqual(self.cb._cntl(0x30, value_type="str"), "default")
        self.assertEqual(self.cb._vbmap("key")[1], 0)
        self.assertGreaterEqual(self.cb.lcb_version()[1], 0x020301)
        self.assertEqual((self.cb.errors(), self.cb.configured_replica_count), ((), 0))

    @inlineCallbacks
    def test_mapping(self):
        """``cb[key]`` gives a Deferred."""
        self.cb["key"] = [1]
        self.assertEqual((yield self.cb["key"]).value, [1])
        del self.cb["key"]
        yield self.assertFailure(self.cb["key"], NotFoundError)

    def test_names(self):
        """Every multi operation has its two names."""
        for name in MULTI:
            for form in (name, f"{name}_multi", f"{name}Multi"):
                self.assertTrue(callable(getattr(self.cb, form)), form)

    def test_query(self):
        """``itercls`` must be for callbacks; a plain view cannot be iterated."""
        self.assertRaises(TypeError, self.cb.query, "d", "v")
        self.assertRaises(ArgumentError, self.cb.query, "d", "v", itercls=View)
        view = self.cb.query("d", "v", itercls=AsyncViewBase, use_devmode=True)
        self.assertEqual((view.design, view.streaming), ("dev_d", True))
        self.assertRaises(NotImplementedError, iter, View(self.cb, "d", "v"))

    @inlineCallbacks
    def test_items(self):
        """Multi operations fill items."""
        item, other = Item("one", {"n": 1}), Item("other", "a")
        stored = yield self.cb.set_multi(ItemSequence([item, other]))
        self.assertIs(stored["one"], item)
        self.assertNotEqual(item.cas, 0)
        yield self.cb.set("one", {"n": 2})
        yield self.cb.getMulti(ItemSequence([item]))
        self.assertEqual(item.value, {"n": 2})
        refused = ItemOptionDict()
        refused.add(other, fragment="b", format=couchbase.FMT_UTF8)
        other.cas = 0
        with self.assertRaises(CouchbaseError):
            yield self.cb.set_multi(refused)
        yield self.cb.set("other", "a", format=couchbase.FMT_UTF8)
        other.value = "a"
        fragments = ItemOptionDict()
        fragments.add(other, fragment="b")
        yield self.cb.append_items(fragments)
        self.assertEqual((other.value, (yield self.cb.get("other")).value), ("ab", "ab"))
        lost = Item("lost", "x")
        fragments.add(lost, fragment="y")
        yield self.assertFailure(self.cb.prepend_items(fragments), NotStoredError)
        self.assertEqual((lost.value, other.value), ("x", "bab"))
        self.assertRaises(ArgumentError, self.cb.append_items, [other])
        missing = Item("missing")
        failure = yield self.assertFailure(self.cb.get_multi(ItemSequence([missing])), NotFoundError)
        self.assertIs(failure.all_results["missing"], missing)
        self.assertEqual(missing.rc, 0x0D)
        endured = yield self.cb.endure_multi(ItemSequence([item]), persist_to=0, replicate_to=0)
        self.assertIs(endured["one"], item)


class DurabilityTests(NodeTestCase):
    """Durability contexts."""

    nodes = 2
    replicas = 1

    @inlineCallbacks
    def test_context(self):
        """Its requirements are those of the mutations given inside."""
        for cls in (Connection, TxAsyncConnection):
            cb = self.open(cls)
            yield cb.connect()
            waited = []
            cb._dur_testhook = lambda result, waited=waited: waited.append(result.key)
            with cb.durability(persist_to=0, replicate_to=1, timeout=5):
                inside = [cb.set("a", 1), cb.set_multi({"b": 1, "c": 2}), cb.incr("n", initial=1)]
            given = [*inside, cb.set("d", 1)]
            if cls is TxAsyncConnection:
                given = [cb.defer(one) for one in given]
            yield gatherResults(given)
            self.assertEqual(sorted(waited), ["a", "b", "c"])
            with cb.durability(replicate_to=1, persist_to=0):
                observed = cb.observe("a")
            yield observed if cls is Connection else cb.defer(observed)


class ReprTests(SynchronousTestCase):
    """Exported names."""

    def test_exports(self):
        """The names of SDK 1.2."""
        import txcouchbase.connection as module

        names = ("Connection", "TxAsyncConnection", "BatchedView", "TxEventQueue", "ConnectionEventQueue")
        self.assertEqual(set(module.__all__), set(names))
