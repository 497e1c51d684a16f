"""Views of collections: the tests of the connection's key-value methods, in a collection, and their own."""

from unittest import skip

from couchbase.admin import Admin
from couchbase.exceptions import (
    ArgumentError,
    BucketNotFoundError,
    ClientTemporaryFailError,
    CollectionExistsError,
    CollectionNotFoundError,
    CouchbaseInputError,
    HTTPError,
    NetworkError,
    NotFoundError,
    ScopeExistsError,
    ScopeNotFoundError,
    TemporaryFailError,
)
from couchbase.transcoder import RawTranscoder
from couchbase.user_constants import FMT_UTF8
from tests.couchbase import test_connection_copies as copies
from tests.couchbase import test_connection_items as items
from tests.couchbase import test_connection_multi as multi
from tests.couchbase import test_connection_operations as operations
from tests.couchbase import test_connection_pipeline as pipeline
from tests.couchbase import test_connection_subdocuments as subdocuments
from tests.couchbase.support import ConnectionTestCase

_made = set()


@skip("looks at what only the connection has")
def of_the_connection(self):
    """A test that is for the connection alone."""


def administrator(node):
    """Return a session with a node's manager."""
    return Admin("Administrator", "password", host="127.0.0.1", port=node.rest_ports[0])


def make_collection(node):
    """Create the collection ``s.c`` of the bucket ``default``, once for each node."""
    if node not in _made:
        _made.add(node)
        admin = administrator(node)
        admin.scope_create("default", "s")
        admin.collection_create("default", "c", "s")


class InCollection:
    """Mixin that has tests of a connection use a view of a collection in its place."""

    def connect(self, *args, **keywords):
        make_collection(self.node)
        return super().connect(*args, **keywords).collection("c", "s")


class KeyValueTests(InCollection, operations.KeyValueTests):
    """Operations of one key."""


class FormatTests(InCollection, operations.FormatTests):
    """Formats and transcoders."""


class MultiTests(InCollection, multi.MultiTests):
    """Operations of many keys."""

    test_set_and_get = of_the_connection


class ItemTests(InCollection, items.ItemTests):
    """Items."""


class PipelineTests(InCollection, pipeline.PipelineTests):
    """Pipelines."""

    test_end_without_beginning = of_the_connection


class LookupTests(InCollection, subdocuments.LookupTests):
    """Reading parts of documents."""


class MutationTests(InCollection, subdocuments.MutationTests):
    """Changing parts of documents."""


class AttributeTests(InCollection, subdocuments.AttributeTests):
    """Extended attributes."""


class CopyTests(InCollection, copies.CopyTests):
    """Copies."""

    test_hook = test_context = test_not_in_time = of_the_connection

    def test_durability_context(self):
        """A context of the view or of the connection is for the mutations of both."""
        connection = self.cb.connection
        for owner in (self.cb, connection):
            with owner.durability(persist_to=1, replicate_to=-1):
                self.assertEqual(connection._dur_persist_to, 1)
                self.cb.set(self.key(), 1)
            self.assertEqual(connection._dur_persist_to, 0)
            states = [copy.flags for copy in self.cb.observe(self.key()).value if copy.from_master]
            self.assertEqual(states, [1])


class ViewTests(ConnectionTestCase):
    """What views are, beside their operations."""

    def setUp(self):
        super().setUp()
        make_collection(self.node)

    def test_same_key(self):
        """A key is a document of its own in each collection."""
        view, key = self.cb.collection("c", "s"), self.key()
        self.cb.set(key, "default")
        self.assertRaises(NotFoundError, view.get, key)
        view.set(key, "c")
        self.assertEqual((self.cb.get(key).value, view.get(key).value), ("default", "c"))
        view.delete(key)
        self.assertEqual(self.cb.get(key).value, "default")

    def test_pipeline(self):
        """A pipeline of the view or of the connection collects the operations of both."""
        view, key = self.cb.collection("c", "s"), self.key()
        for owner in (self.cb, view):
            pipeline = owner.pipeline()
            with pipeline:
                self.assertIsNone(view.set(key, 1))
                self.assertIsNone(self.cb.set(key, 2))
                view.get_multi([key])
                self.cb.get(key)
            self.assertEqual(pipeline.results[2][key].value, 1)
            self.assertEqual(pipeline.results[3].value, 2)

    def test_default_collection(self):
        """The default collection is the connection's, by any name."""
        key = self.key()
        for view in (self.cb.collection("_default"), self.cb.collection("_default", "_default")):
            self.cb.set(key, 1)
            self.assertEqual(view.get(key).value, 1)
            view.delete(key)
            self.assertRaises(NotFoundError, self.cb.get, key)

    def test_names(self):
        """What cannot be a name is refused before anything is sent."""
        for wrong in ("", "a b", "\u00e9", "a.b", "a/b", "x" * 252, None, b"c", 1):
            self.assertRaises(ArgumentError, self.cb.collection, wrong)
            if wrong is not None:
                self.assertRaises(ArgumentError, self.cb.collection, "c", wrong)
        self.cb.collection("a-Z_9%" + "x" * 245)

    def test_identity(self):
        """Views of one collection of one connection are equal; each says what it is."""
        view = self.cb.collection("c", "s")
        self.assertEqual((view.name, view.scope, view.bucket), ("c", "s", "default"))
        self.assertIs(view.connection, self.cb)
        self.assertEqual(view, self.cb.collection("c", "s"))
        self.assertEqual(len({view, self.cb.collection("c", "s"), self.cb.collection("c")}), 2)
        self.assertNotEqual(view, self.cb.collection("c"))
        self.assertNotEqual(view, self.connect().collection("c", "s"))
        self.assertNotEqual(view, "s.c")
        self.assertIn("couchbase.collection.Collection s.c of <", repr(view))

    def test_settings(self):
        """Settings are the connection's, also when they change there, until they are set on the view."""
        self.cb.quiet = True
        view, other = self.cb.collection("c", "s"), self.cb.collection("c", "s")
        self.assertFalse(view.get(self.key()).success)
        self.cb.quiet = False
        self.assertRaises(NotFoundError, view.get, self.key())
        view.quiet = True
        self.cb.quiet = False
        self.assertEqual((view.quiet, other.quiet, self.cb.quiet), (True, False, False))
        self.cb.default_format = FMT_UTF8
        view.set(self.key(), "text")
        self.assertEqual(view.get(self.key()).flags, FMT_UTF8)
        view.transcoder = RawTranscoder()
        self.assertIsNone(self.cb.transcoder)
        key = self.key().encode()
        view.set(key, b"raw", format=5)
        found = view.get(key)
        self.assertEqual((found.value, found.flags, found.key), (b"raw", 5, key))
        self.cb.data_passthrough = True
        self.assertTrue(other.data_passthrough)
        self.assertEqual(other.get(self.key()).value, b"raw")
        view.timeout = 17
        self.assertEqual((self.cb.timeout, other.timeout), (17, 17))

    def test_wrong_settings(self):
        """They are refused as the connection refuses them, and nothing changes."""
        view = self.cb.collection("c", "s")
        for name, wrong, kind in (("quiet", "x", TypeError), ("default_format", "x", ArgumentError)):
            self.assertRaises(kind, setattr, view, name, wrong)
        self.assertRaises(ValueError, setattr, view, "timeout", 0)

    def test_long_keys(self):
        """A key has 246 bytes at most, 250 in the default collection."""
        for view, most in ((self.cb.collection("c", "s"), 246), (self.cb.collection("_default"), 250)):
            view.set("k" * most, 1)
            self.assertEqual(view.get_multi(["k" * most])["k" * most].value, 1)
            for long in ("k" * (most + 1), "\U0001f600" * 62 + "k" * (most - 247)):
                for call in (view.get, view.observe, view.endure, view.delete):
                    error = self.failure(ArgumentError, call, long)
                    self.assertRegex(error.message, f"at most {most}|at most 250")
                self.failure(ArgumentError, view.get_multi, ["k", long])
                self.failure(ArgumentError, view.set_multi, {long: 1})

    def failure(self, kind, function, *arguments):
        """Return the exception that a call raises."""
        with self.assertRaises(kind) as raised:
            function(*arguments)
        return raised.exception


class MissingTests(ConnectionTestCase):
    """Collections and scopes that are missing, come, and go."""

    failure = ViewTests.failure

    def setUp(self):
        super().setUp()
        self.admin = administrator(self.node)
        self.scope = self.id().rpartition(".")[2]

    def test_missing(self):
        """The exception says what is missing, at once, for single and multi operations."""
        missing = self.cb.collection("c", self.scope)
        for call in (
            lambda: missing.get("k", quiet=True),
            lambda: missing.set("k", 1),
            lambda: missing.get_multi(["k", "l"], quiet=True),
            lambda: missing.observe("k"),
            lambda: missing.endure("k", persist_to=0, replicate_to=0),
            lambda: missing.incr("k"),
        ):
            error = self.failure(ScopeNotFoundError, call)
            self.assertIn(f"bucket 'default' has no scope '{self.scope}'", error.message)
            self.assertIsInstance(error, CouchbaseInputError)
        error = self.failure(CollectionNotFoundError, self.cb.collection("gone").get, "k")
        self.assertEqual(error.message, "bucket 'default' has no collection 'gone' in scope '_default'")
        results = self.failure(ScopeNotFoundError, missing.get_multi, ["k", "l"]).all_results
        self.assertEqual(set(results), {"k", "l"})

    def test_comes_and_goes(self):
        """The next operation knows: of a view that was there before, too."""
        view = self.cb.collection("c", self.scope)
        self.failure(ScopeNotFoundError, view.get, "k")
        self.admin.scope_create("default", self.scope)
        self.failure(CollectionNotFoundError, view.get, "k")
        for round_ in range(3):
            self.admin.collection_create("default", "c", self.scope)
            self.failure(NotFoundError, view.get, "k")
            view.set_multi({f"k{number}": round_ for number in range(20)})
            view.set("k", round_)
            self.admin.collection_drop("default", "c", self.scope)
            self.failure(CollectionNotFoundError, view.get_multi, ["k", "k1"])
        self.admin.scope_drop("default", self.scope)
        self.failure(ScopeNotFoundError, view.set, "k", 1)

    def test_bucket_made_anew(self):
        """Ids of a bucket that is gone mean nothing in the next one of its name."""
        name = "anew"

        def make(*collections):
            self.admin.bucket_create(name, ram_quota=100)
            for collection in collections:
                self.admin.collection_create(name, collection)

        make("a", "b")
        self.addCleanup(self.admin.bucket_delete, name)
        cb = self.connect(bucket=name)
        a, b = cb.collection("a"), cb.collection("b")
        a.set("k", "a")
        b.set("k", "b")
        self.admin.bucket_delete(name)
        make("b", "a")
        self.retried(lambda: a.set("k", "new a"))
        self.retried(lambda: b.set("k", "new b"))
        self.assertEqual((a.get("k").value, b.get("k").value), ("new a", "new b"))
        fresh = self.connect(bucket=name)
        self.assertEqual(fresh.collection("a").get("k").value, "new a")
        self.assertEqual(fresh.collection("b").get("k").value, "new b")

    @staticmethod
    def retried(operation):
        """Carry out an operation on a bucket that was made a moment ago."""
        for _ in range(100):
            try:
                operation()
            except (NetworkError, BucketNotFoundError, ClientTemporaryFailError, TemporaryFailError):
                continue
            return
        operation()


class AdminTests(ConnectionTestCase):
    """Scopes and collections by an administrator's session."""

    failure = ViewTests.failure

    def setUp(self):
        super().setUp()
        self.admin = administrator(self.node)
        self.scope = self.id().rpartition(".")[2]

    def test_manifest(self):
        """What was created is listed, with its limits."""
        created = self.admin.scope_create("default", self.scope)
        self.assertEqual((created.success, set(created.value)), (True, {"uid"}))
        self.admin.collection_create("default", "plain", self.scope)
        self.admin.collection_create("default", "short", self.scope, max_ttl=3600)
        found = self.admin.scopes("default")
        self.assertEqual({one.name for one in found.scope(self.scope).collections}, {"plain", "short"})
        short = found.collection("short", self.scope)
        self.assertEqual((short.name, short.scope, short.max_ttl), ("short", self.scope, 3600))
        self.assertEqual(found.collection("plain", self.scope).max_ttl, 0)
        self.assertEqual(found.collection("_default").uid, 0)
        self.assertIsNone(found.scope("none"))
        self.assertIsNone(found.collection("none"))
        self.assertIsNone(found.collection("plain", "none"))
        self.admin.collection_update("default", "short", self.scope, max_ttl=60)
        later = self.admin.scopes("default")
        self.assertEqual(later.collection("short", self.scope).max_ttl, 60)
        self.assertGreater(later.uid, found.uid)
        self.admin.collection_drop("default", "plain", self.scope)
        self.assertIsNone(self.admin.scopes("default").collection("plain", self.scope))
        self.admin.scope_drop("default", self.scope)
        self.assertIsNone(self.admin.scopes("default").scope(self.scope))

    def test_max_ttl(self):
        """Documents get the longest time to live."""
        self.admin.scope_create("default", self.scope)
        self.admin.collection_create("default", "c", self.scope, max_ttl=3600)
        view = self.cb.collection("c", self.scope)
        view.set("k", 1)
        self.assertGreater(view.get_with_expiry("k").expiry, 0)

    def test_refusals(self):
        """Each refusal has an exception that says what is wrong."""
        admin, scope = self.admin, self.scope
        admin.scope_create("default", scope)
        admin.collection_create("default", "c", scope)
        for kind, call in (
            (ScopeExistsError, lambda: admin.scope_create("default", scope)),
            (CollectionExistsError, lambda: admin.collection_create("default", "c", scope)),
            (ScopeNotFoundError, lambda: admin.scope_drop("default", "none")),
            (ScopeNotFoundError, lambda: admin.collection_create("default", "c", "none")),
            (CollectionNotFoundError, lambda: admin.collection_drop("default", "none", scope)),
            (CollectionNotFoundError, lambda: admin.collection_update("default", "none", scope, max_ttl=1)),
            (BucketNotFoundError, lambda: admin.scopes("none")),
            (BucketNotFoundError, lambda: admin.scope_create("none", "s")),
            (HTTPError, lambda: admin.scope_create("default", "_x")),
            (HTTPError, lambda: admin.scope_drop("default", "_default")),
            (ArgumentError, lambda: admin.scope_create("default", "a b")),
            (ArgumentError, lambda: admin.scope_create("", "a")),
            (ArgumentError, lambda: admin.collection_create("default", "x", scope, max_ttl=-2)),
            (ArgumentError, lambda: admin.collection_create("default", "x", scope, max_ttl=True)),
            (ArgumentError, lambda: admin.collection_create("default", "x", scope, max_ttl=2**31)),
        ):
            self.failure(kind, call)
        self.assertTrue(issubclass(ScopeExistsError, HTTPError))
