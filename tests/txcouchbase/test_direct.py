"""Operations that notify a receiver of their end, against a real embedded node."""

from types import SimpleNamespace

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from couchbase.codec import Codec
from couchbase.commands import Commands
from couchbase.exceptions import (
    ArgumentError,
    ClientTemporaryFailError,
    CouchbaseError,
    KeyExistsError,
    NotFoundError,
    NotSupportedError,
    TimeoutError,
    ValueFormatError,
)
from couchbase.protocol import operations
from couchbase.protocol.keyspace import Keyspace
from couchbase.result import ExpiryResult, OperationResult, ValueResult
from couchbase.transcoder import RawTranscoder
from tests.txcouchbase.test_connection import NodeTestCase
from txcouchbase import direct as direct_module
from txcouchbase.calls import Call
from txcouchbase.collection import DirectCollection
from txcouchbase.connection import Connection, TxAsyncConnection
from txcouchbase.direct import Direct, PreparedStore


class Waiting:
    """A receiver with a Deferred."""

    def __init__(self, call):
        self.deferred = Deferred()
        call.receiver = self

    def succeeded(self, result):
        self.deferred.callback(result)

    def failed(self, error):
        self.deferred.errback(error)


def end(call):
    """Return a Deferred of how an operation ends."""
    return Waiting(call).deferred


class OwnCall(Call):
    """An operation that a program created."""

    def __init__(self, operation, key, value=b""):
        super().__init__(operation, key, key)
        self.value = value
        if value:
            self.extras = operations.store_extras(7, 0)
        self.deferred = Deferred()

    def succeed(self, result):
        if not self.done:
            self.done = True
            self.deferred.callback(result)

    def fail(self, error):
        if not self.done:
            self.done = True
            self.deferred.errback(error)


class OwnCallTests(NodeTestCase):
    """Operations that a program creates and passes to a connection."""

    @inlineCallbacks
    def test_start(self):
        """They wait for the connection, keep their order, and end with a result or an exception."""
        connection = self.open()
        calls = [
            OwnCall(operations.SET, b"k", b"1"),
            OwnCall(operations.ADD, b"k", b"2"),
            OwnCall(operations.GET, b"k"),
        ]
        for call in calls:
            connection.start(call)
        stored = yield calls[0].deferred
        yield self.assertFailure(calls[1].deferred, KeyExistsError)
        found = yield calls[2].deferred
        self.assertEqual((found.key, found.value, found.flags, found.cas), (b"k", b"1", 7, stored.cas))

    @inlineCallbacks
    def test_given_up(self):
        """An abandoned operation ends without a notification; one without an answer in time fails."""
        connection = self.open(timeout=0.2)
        yield connection.connect()
        given_up, told = OwnCall(operations.GET, b"k"), []
        given_up.deferred.addBoth(told.append)
        connection.start(given_up)
        given_up.abandon()
        connection._client.peers[next(iter(connection._client.peers))].protocol.dataReceived = lambda data: (
            None
        )
        late = OwnCall(operations.GET, b"k")
        connection.start(late)
        yield self.assertFailure(late.deferred, TimeoutError)
        self.assertEqual(told, [])

    @inlineCallbacks
    def test_on_a_closed_connection(self):
        """They fail."""
        connection = self.open()
        yield connection.connect()
        connection._close()
        call = OwnCall(operations.GET, b"k")
        connection.start(call)
        yield self.assertFailure(call.deferred, ClientTemporaryFailError)


class DirectTests(NodeTestCase):
    """Notifications of receivers."""

    @inlineCallbacks
    def test_results(self):
        """The results are the connection's; all kinds of operations exist."""
        direct = self.open().direct()
        stored = yield end(direct.set("k", {"a": 1}))
        self.assertIsInstance(stored, OperationResult)
        self.assertEqual(stored.key, "k")
        got = yield end(direct.get("k"))
        self.assertIsInstance(got, ValueResult)
        self.assertEqual((got.key, got.value, got.cas, got.flags), ("k", {"a": 1}, stored.cas, 0))
        counted = yield end(direct.incr("n", 2, initial=5))
        self.assertEqual(counted.value, 5)
        yield end(direct.touch("k", 1000))
        expiring = yield end(direct.get_with_expiry("k"))
        self.assertIsInstance(expiring, ExpiryResult)
        self.assertEqual(expiring.value, {"a": 1})
        self.assertGreater(expiring.expiry, 1_000_000)
        removed = yield end(direct.delete("k", cas=expiring.cas))
        self.assertTrue(removed.success)

    @inlineCallbacks
    def test_errors(self):
        """Exceptions of the server reach ``failed``; wrong arguments are raised."""
        direct = self.open().direct()
        missing = yield self.assertFailure(end(direct.get("missing")), NotFoundError)
        self.assertEqual((missing.key, missing.operation), ("missing", "get"))
        silent = yield end(direct.get("missing", quiet=True))
        self.assertFalse(silent.success)
        yield end(direct.set("k", 1))
        yield self.assertFailure(end(direct.add("k", 1)), KeyExistsError)
        self.assertRaises(ArgumentError, direct.get, "")
        self.assertRaises(ValueFormatError, direct.get, b"bytes")

    @inlineCallbacks
    def test_order_with_the_connections_own(self):
        """Operations of both kinds on one key take effect in the order given."""
        connection = self.open()
        yield connection.connect()
        direct = connection.direct()
        ends = [end(direct.set("k", 1)), connection.incr("k"), end(direct.incr("k")), connection.get("k")]
        for ended in ends:
            result = yield ended
        self.assertEqual(result.value, 3)

    @inlineCallbacks
    def test_before_the_connection_is_up(self):
        """Operations wait for the connection, also those of a TxAsyncConnection."""
        for cls in (Connection, TxAsyncConnection):
            connection = self.open(cls)
            self.assertFalse(connection.connected)
            result = yield end(connection.direct().set("k", 1))
            self.assertTrue(result.success)

    @inlineCallbacks
    def test_connection_is_kept(self):
        """The connection is kept alive without other references."""
        connection = Connection(
            bucket="default",
            username="Administrator",
            password="password",
            connection_string=self.node.connection_string,
        )
        yield connection.connect()
        direct, closed = connection.direct(), Deferred()
        connection.registerDeferred("_dtor", closed)
        del connection
        result = yield end(direct.set("k", 1))
        self.assertTrue(result.success)
        self.assertNoResult(closed)
        del direct
        yield closed

    @inlineCallbacks
    def test_abandoned(self):
        """No notification follows, whether it was sent or not; the connection still works."""
        connection = self.open()
        yield connection.connect()
        direct = connection.direct()
        told = []
        unsent = direct.set("unsent", 1)
        unsent.receiver = None
        unsent.abandon()
        sent = end(direct.set("sent", 1)).addBoth(told.append)
        call = direct.get("k")
        Waiting(call).deferred.addBoth(told.append)
        yield deferLater(reactor, 0)
        call.abandon()
        call.abandon()
        yield sent
        missing = yield connection.get("unsent", quiet=True)
        self.assertFalse(missing.success)
        self.assertEqual(len(told), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    @inlineCallbacks
    def test_abandoned_by_another_answer_of_its_chunk(self):
        """An answer that has arrived is not passed to an operation that was just abandoned."""
        connection = self.open()
        yield connection.connect()
        direct = connection.direct()
        told = []

        class Rival:
            def __init__(self, call):
                call.receiver = self
                self.other = None

            def succeeded(self, result):
                told.append(result.key)
                self.other.abandon()

        first, second = direct.set("first", 1), direct.set("second", 2)
        Rival(first).other = second
        Rival(second).other = first
        yield connection.get("second")
        self.assertEqual(told, ["first"])

    @inlineCallbacks
    def test_after_close(self):
        """The failure comes once the receiver is set, not before."""
        connection = self.open()
        yield connection.connect()
        direct = connection.direct()
        waiting = end(direct.get("given before"))
        connection._close()
        yield self.assertFailure(waiting, ClientTemporaryFailError)
        yield self.assertFailure(end(direct.get("k")), ClientTemporaryFailError)
        given_up = direct.get("k")
        given_up.receiver = None
        given_up.abandon()
        yield deferLater(reactor, 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    @inlineCallbacks
    def test_receivers_that_fail(self):
        """Their exceptions are logged, and so is a missing receiver; later answers arrive."""
        connection = self.open()
        yield connection.connect()
        direct = connection.direct()

        class Broken:
            def succeeded(self, result):
                raise KeyError(result.key)

            def failed(self, error):
                raise LookupError(error)

        direct.set("k", 1).receiver = Broken()
        direct.get("missing").receiver = Broken()
        direct.get("k")
        result = yield end(direct.get("k"))
        self.assertEqual(result.value, 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    @inlineCallbacks
    def test_settings(self):
        """Those of the connection count as they were; the timeout as it is."""
        connection = self.open(quiet=True, timeout=7)
        yield connection.connect()
        direct = connection.direct()
        connection.quiet = False
        connection.timeout = 3
        silent = yield end(direct.get("missing"))
        self.assertFalse(silent.success)
        yield self.assertFailure(end(connection.direct().get("missing")), NotFoundError)
        self.assertEqual(direct._driver.timeout, 3)

    @inlineCallbacks
    def test_raw(self):
        """Bytes pass as they are, with their flags; the expiry of a document is kept on demand."""
        connection = self.open(transcoder=RawTranscoder())
        yield connection.connect()
        direct = connection.direct()
        yield end(direct.set(b"k", b"\0\xff", ttl=1000, format=0x02000006))
        yield end(direct.set(b"k", b"\xff\0", format=0x02000007, preserve_expiry=True))
        result = yield end(direct.get_with_expiry(b"k"))
        self.assertEqual((result.key, result.value, result.flags), (b"k", b"\xff\0", 0x02000007))
        self.assertGreater(result.expiry, 1_000_000)
        replaced = yield end(direct.replace(b"k", b"", format=None))
        result = yield end(direct.get_with_expiry(b"k"))
        self.assertEqual((result.value, result.flags, result.expiry, result.cas), (b"", 0, 0, replaced.cas))
        for key in ("text", None, bytearray(b"k")):
            self.assertRaises(ValueFormatError, direct.get, key)
        for key in (b"", b"k" * 251):
            self.assertRaises(ArgumentError, direct.get, key)
        for value, flags in (("text", 0), (b"", -1), (b"", 2**32), (b"", "1")):
            self.assertRaises(ValueFormatError, direct.set, b"k", value, format=flags)
        longest = yield end(direct.set(b"k" * 250, b""))
        self.assertEqual(longest.key, b"k" * 250)

    @inlineCallbacks
    def test_copies(self):
        """Waiting for the copies of a document, also before the connection is up, and after it was closed."""
        connection = self.open()
        direct = connection.direct()
        yield self.assertFailure(end(direct.endure("k", 0, 0)), NotFoundError)
        stored = yield end(direct.set("k", 1))
        found = yield end(direct.endure("k", 0, 0, cas=stored.cas))
        self.assertEqual((type(found), found.key, found.cas), (OperationResult, "k", 0))
        yield self.assertFailure(end(direct.endure("k", 0, 0, cas=7)), KeyExistsError)
        # An ephemeral bucket has no disk.
        yield self.assertFailure(end(direct.endure("k", persist_to=1)), ArgumentError)
        connection._close()
        yield self.assertFailure(end(direct.endure("k", 0, 0)), ClientTemporaryFailError)

    def test_what_only_the_connection_does(self):
        """More than one operation on one document is refused at once."""
        direct = self.open().direct()
        for refused in (
            lambda: direct.get_multi(["k"]),
            lambda: direct.set_multi({"k": 1}),
            lambda: direct.rget("k"),
            lambda: direct.set("k", 1, persist_to=1),
            lambda: direct.observe("k"),
            lambda: direct.endure_multi(["k"], persist_to=1),
            lambda: direct.stats(),
        ):
            self.assertRaises(NotSupportedError, refused)


KEYS = st.one_of(st.binary(max_size=300), st.text(max_size=70), st.none())
FLAGS = st.integers(0, 2**32 - 1)
EXPIRIES = st.integers(0, 2**32 - 1)
STORE = {"ttl": EXPIRIES, "format": FLAGS}
KEPT = {"preserve_expiry": st.booleans()}
WAITS = {"durability_level": st.integers(0, 3), "persist_to": st.just(0), "replicate_to": st.just(0)}
OPTIONS = {
    "set": st.fixed_dictionaries({**STORE, **KEPT}, optional=WAITS),
    "replace": st.fixed_dictionaries({**STORE, **KEPT}, optional=WAITS),
    "add": st.fixed_dictionaries(STORE, optional=WAITS),
    "append": st.fixed_dictionaries({}, optional=WAITS),
    "prepend": st.fixed_dictionaries({}, optional=WAITS),
}
STORES = st.sampled_from(sorted(OPTIONS)).flatmap(lambda method: st.tuples(st.just(method), OPTIONS[method]))
VERSIONS = st.one_of(st.just(0), st.integers(-1, 2**64))


class Unsent(direct_module._Unsent):
    """Notes which requests are synchronous writes."""

    level_ms = 1234

    def submit_level(self, request):
        request.since = "level"
        return request


def outcome(operation):
    """Return all fields of the request that an operation makes, or the type of its error."""
    try:
        request = operation()
    except CouchbaseError as error:
        return type(error)
    slots = {slot for kind in type(request).__mro__ for slot in getattr(kind, "__slots__", ())}
    return {slot: getattr(request, slot, None) for slot in slots}


def direct_of(view, in_collection):
    """Return the direct operations of a connection, or of a collection, on which nothing is sent."""
    if not in_collection:
        return Direct(view, Unsent())
    view._keyspace = Keyspace("s", "c")
    view._driver = SimpleNamespace(direct=lambda together: Unsent())
    return DirectCollection(view, 1)


class SameReadTests(SynchronousTestCase):
    """Reads that make their request in one step."""

    @given(
        *(st.one_of(KEYS, st.text(max_size=9), st.none()), st.sampled_from([None, False, True])),
        *(st.booleans(), st.booleans(), st.booleans()),
    )
    @example(b"k", None, False, True, True)
    @example(b"k", None, False, True, False)
    def test_same_request(self, key, quiet, no_format, raw, in_collection):
        """The request is the one that the connection's method makes, and so is the kind of error."""
        view = Codec()
        view.quiet = True
        if raw:
            view.transcoder = RawTranscoder()
        direct = direct_of(view, in_collection)
        self.assertEqual(
            outcome(lambda: direct.get_with_expiry(key, quiet, no_format)),
            outcome(lambda: Commands.get_with_expiry(direct, key, quiet, no_format)),
        )


class PreparedStoreTests(SynchronousTestCase):
    """Stores whose arguments were prepared."""

    @given(STORES, KEYS, st.binary(max_size=9), VERSIONS, st.booleans())
    @example(("set", {"ttl": 0, "format": 7, "preserve_expiry": True}), b"k", b"v", 1, True)
    @example(("set", {"ttl": 9, "format": 7, "preserve_expiry": False}), b"k" * 62, b"v", 0, False)
    @example(("add", {"ttl": 0, "format": 0}), b"k" * 63, b"v", 0, False)
    @example(("append", {}), b"k", b"v", 2**64, True)
    @example(("append", {"durability_level": 1}), b"k", b"v", 0, True)
    @example(
        ("set", {"ttl": 0, "format": 7, "preserve_expiry": True, "durability_level": 2}), b"k", b"v", 1, False
    )
    @example(("replace", {"ttl": 0, "format": 7, "preserve_expiry": False}), b"", b"v", -1, False)
    @example(("replace", {"ttl": 0, "format": 7, "preserve_expiry": False}), b"k", b"v", -1, False)
    def test_same_request(self, store, key, value, cas, in_collection):
        """The request is the one that the method makes, and so is the kind of error."""
        method, options = store
        view = Codec()
        view.transcoder = RawTranscoder()
        direct = direct_of(view, in_collection)
        version = {} if method == "add" else {"cas": cas}
        prepared = PreparedStore(method, **options)
        self.assertEqual(
            outcome(lambda: direct.store(prepared, key, value, version.get("cas", 0))),
            outcome(lambda: getattr(direct, method)(key, value, **version, **options)),
        )

    def test_any_transcoder(self):
        """The value is stored as it is, also if the transcoder would convert it; only bytes are accepted."""
        direct = Direct(Codec(), direct_module._Unsent())
        request = direct.store(PreparedStore("set", format=7), "k", b"\xff")
        self.assertEqual((request.key, request.key_bytes, request.value), ("k", b"k", b"\xff"))
        self.assertEqual(request.extras, operations.store_extras(7, 0))
        for value in ("text", bytearray(b"v"), None):
            self.assertRaises(ValueFormatError, direct.store, PreparedStore("set"), "k", value)

    def test_refused(self):
        """Wrong arguments are refused when they are prepared, as is more than one operation."""
        self.assertRaises(ArgumentError, PreparedStore, "set", ttl=-1)
        self.assertRaises(ValueFormatError, PreparedStore, "set", format=-1)
        self.assertRaises(ArgumentError, PreparedStore, "set", durability_level=4)
        for options in ({"persist_to": 1}, {"replicate_to": 1}):
            self.assertRaises(NotSupportedError, PreparedStore, "set", **options)
