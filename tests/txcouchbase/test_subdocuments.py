"""Parts of documents on Twisted, against a node: with Deferreds, AsyncResults and receivers."""

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks

import couchbase.subdocument as SD
from couchbase.exceptions import (
    ArgumentError,
    KeyExistsError,
    NotFoundError,
    NotSupportedError,
    SubdocPathExistsError,
)
from couchbase.paths import PreparedLookup, PreparedMutation
from couchbase.result import MultiResult
from couchbase.subdocument import SubdocResult
from tests.txcouchbase.test_connection import NodeTestCase
from txcouchbase.connection import TxAsyncConnection


class Receiver:
    """Fires a Deferred with the outcome."""

    def __init__(self):
        self.done = Deferred()

    def succeeded(self, result):
        self.done.callback(result)

    def failed(self, error):
        self.done.errback(error)


class SubdocumentTests(NodeTestCase):
    """lookup_in and mutate_in."""

    @inlineCallbacks
    def test_deferreds(self):
        """Operations on one key keep their order, also before the connection is up, and with others."""
        connection = self.open()
        wrong = connection.lookup_in("k", SD.upsert("a", 1))
        results = yield gatherResults(
            [
                connection.set("k", {"n": 1}),
                connection.mutate_in("k", SD.counter("n", 5), SD.insert("list", [1])),
                connection.lookup_in("k", SD.get("n"), SD.count("list"), SD.exists("x")),
                connection.mutate_in("k", SD.remove("n"), durability_level=1),
                connection.get("k"),
            ]
        )
        self.assertEqual([type(one) for one in results[1:4]], [SubdocResult] * 3)
        self.assertEqual((results[1]["n"], list(results[2])), (6, [6, 1, False]))
        self.assertEqual((results[2].cas, results[4].value), (results[1].cas, {"list": [1]}))
        yield self.assertFailure(wrong, ArgumentError)
        self.assertRaises(ArgumentError, connection.lookup_in, "k", SD.upsert("a", 1))
        yield self.assertFailure(connection.lookup_in("missing", SD.get("a")), NotFoundError)
        error = yield self.assertFailure(
            connection.mutate_in("k", SD.insert("list", 1)), SubdocPathExistsError
        )
        self.assertEqual((error.path, error.path_index, error.key), ("list", 0, "k"))

    @inlineCallbacks
    def test_prepared(self):
        """Specs that are prepared once give the same results; wrong ones are refused when they are."""
        connection = self.open()
        yield connection.set_multi({"a": {"n": 1, "list": [1, 2]}, "b": {"n": 2}})
        specs = [SD.get("n"), SD.count("list"), SD.get("$document.exptime", xattr=True)]
        prepared = PreparedLookup(specs)
        for options in ({}, {"access_deleted": True}, {"quiet": True}):
            for key in ("a", "b"):
                plain, quick = yield gatherResults(
                    [connection.lookup_in(key, given, **options) for given in (specs, prepared)]
                )
                self.assertEqual((quick.entries, quick.cas, quick.key), (plain.entries, plain.cas, key))
        yield self.assertFailure(connection.lookup_in("missing", prepared), NotFoundError)
        missing = yield connection.lookup_in("missing", prepared, quiet=True)
        self.assertFalse(missing.success)
        for wrong in ([], [SD.upsert("a", 1)], [SD.get("a")] * 17, ["a"]):
            self.assertRaises(ArgumentError, PreparedLookup, wrong)

    @inlineCallbacks
    def test_prepared_mutation(self):
        """The same of mutations: one spec or several, of attributes as well, with every option."""
        connection = self.open()
        several = [SD.counter("n", 5), SD.upsert("at", 1, xattr=True), SD.array_append("list", 3)]
        alone = [SD.counter("n", 1)]
        for specs in (several, alone):
            prepared = PreparedMutation(specs)
            for options in (
                {},
                {"ttl": 60},
                {"preserve_expiry": True},
                {"durability_level": 1},
                {"store_semantics": SD.StoreSemantics.UPSERT},
            ):
                yield connection.set_multi(dict.fromkeys("ab", {"n": 1, "list": [1]}))
                plain = yield connection.mutate_in("a", specs, **options)
                quick = yield connection.mutate_in("b", prepared, **options)
                self.assertEqual((quick.entries, quick.key), (plain.entries, "b"))
                self.assertEqual(list(quick.answers), [(0, entry.data) for entry in plain.entries])
                for result in (plain, quick):
                    self.assertEqual(result[0], 1 + (5 if specs is several else 1))
                stored = yield connection.get_multi(["a", "b"])
                self.assertEqual(stored["a"].value, stored["b"].value)
        yield self.assertFailure(connection.mutate_in("b", PreparedMutation(alone), cas=1), KeyExistsError)
        yield self.assertFailure(connection.mutate_in("missing", PreparedMutation(alone)), NotFoundError)
        for wrong in ([], [SD.get("a")], [SD.upsert("a", 1)] * 17, ["a"]):
            self.assertRaises(ArgumentError, PreparedMutation, wrong)

    @inlineCallbacks
    def test_multi(self):
        """Many documents."""
        connection = self.open()
        yield connection.set_multi({"a": {"n": 1}, "b": {"n": 2}})
        done = yield connection.mutate_in_multi(["a", "b"], SD.counter("n", 10))
        self.assertEqual((type(done), done["a"]["n"], done["b"]["n"], done.all_ok), (MultiResult, 11, 12, 1))
        found = yield connection.lookup_in_multi({"a": SD.get("n"), "b": [SD.exists("n"), SD.get("n")]})
        self.assertEqual((list(found["a"]), list(found["b"])), ([11], [True, 12]))
        error = yield self.assertFailure(
            connection.mutate_in_multi({"a": SD.insert("n", 1), "b": SD.insert("m", 1)}),
            SubdocPathExistsError,
        )
        self.assertEqual([error.all_results[key].success for key in ("a", "b")], [False, True])

    @inlineCallbacks
    def test_copies(self):
        """Waiting for copies finds too few of them; nothing is changed then."""
        connection = self.open()
        yield connection.set("k", {})
        yield self.assertFailure(connection.mutate_in("k", SD.upsert("a", 1), replicate_to=1), ArgumentError)
        found = yield connection.lookup_in("k", SD.exists("a"))
        self.assertFalse(found[0])

    @inlineCallbacks
    def test_async_results(self):
        """Callbacks get the result."""
        connection = self.open(TxAsyncConnection)
        yield connection.connect()
        yield connection.defer(connection.set("k", {"n": 1}))
        changed = yield connection.defer(connection.mutate_in("k", SD.counter("n", 1)))
        found = yield connection.defer(connection.lookup_in_multi(["k"], SD.get("n")))
        self.assertEqual((changed["n"], found["k"]["n"]), (2, 2))

    @inlineCallbacks
    def test_receivers(self):
        """Single documents only."""
        connection = self.open()
        yield connection.connect()
        direct = connection.direct()
        direct.set("k", {"n": 1}).receiver = Receiver()
        for start, expected in (
            (lambda: direct.mutate_in("k", SD.counter("n", 2)), [3]),
            (lambda: direct.lookup_in("k", SD.get("n"), SD.exists("m")), [3, False]),
        ):
            call = start()
            call.receiver = receiver = Receiver()
            result = yield receiver.done
            self.assertEqual(list(result), expected)
        self.assertRaises(NotSupportedError, direct.lookup_in_multi, ["k"], SD.get("n"))
