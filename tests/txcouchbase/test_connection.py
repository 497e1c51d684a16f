"""Connections against a real embedded node, over loopback sockets."""

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks, maybeDeferred
from twisted.trial.unittest import TestCase

import couchbase.subdocument as SD
from couchbase import exceptions
from couchbase.exceptions import (
    ArgumentError,
    AuthError,
    BucketNotFoundError,
    ClientTemporaryFailError,
    CouchbaseDataError,
    DeltaBadvalError,
    KeyExistsError,
    NetworkError,
    NotFoundError,
    NotStoredError,
    TemporaryFailError,
    ValueFormatError,
)
from couchbase.result import AsyncResult, MultiResult
from couchbase.transcoder import Transcoder
from couchbase.user_constants import FMT_BYTES, FMT_PICKLE, FMT_UTF8, OBS_FOUND, OBS_NOTFOUND
from couchnode.embedded import EmbeddedNode
from txcouchbase.connection import Connection, TxAsyncConnection


class NodeTestCase(TestCase):
    """Starts an ephemeral node, and closes what a test connects."""

    nodes = 1
    replicas = 0

    @inlineCallbacks
    def setUp(self):
        self.node = EmbeddedNode(
            None,
            nodes=self.nodes,
            replicas=self.replicas,
            users=[("Administrator", "password")],
            buckets=[("default", None), ("secret", "hush"), ("beer", None)],
            open_buckets=True,
        )
        self.addCleanup(self.node.stop)
        yield self.node.start()

    def open(self, cls=Connection, **options):
        # Patient: the node shares this process, and the machine may be busy.
        keywords = {"bucket": "default", "username": "Administrator", "password": "password", "timeout": 30}
        keywords.update(options)
        connection = cls(connection_string=self.node.connection_string, **keywords)
        self.addCleanup(connection._close)
        return connection


class DeferredTests(NodeTestCase):
    """Operations that return Deferreds."""

    @inlineCallbacks
    def test_operations_before_the_connection_is_up(self):
        """They wait for it and take effect in the order given."""
        connection = self.open()
        self.assertFalse(connection.connected)
        results = yield gatherResults(
            [connection.set("k", 1), connection.incr("k", 4), connection.get("k"), connection.delete("k")]
        )
        self.assertEqual(results[2].value, 5)
        self.assertTrue(connection.connected)

    @inlineCallbacks
    def test_values_and_formats(self):
        """Every format comes back as it went, by its flags."""
        connection = self.open()
        for value, format in (
            ({"a": "\u00e9"}, None),
            ("text", FMT_UTF8),
            (b"\0\xff", FMT_BYTES),
            ({1}, FMT_PICKLE),
        ):
            yield connection.set("k", value, format=format)
            result = yield connection.get("k")
            self.assertEqual((result.value, result.key, result.success), (value, "k", True))
        raw = yield connection.get("k", no_format=True)
        self.assertIsInstance(raw.value, bytes)

    @inlineCallbacks
    def test_cas(self):
        """A CAS guards set, replace and delete; the error carries key, rc and all_results."""
        connection = self.open()
        first = yield connection.set("k", 1)
        second = yield connection.set("k", 2, cas=first.cas)
        self.assertNotEqual(first.cas, second.cas)
        for operation in (
            lambda: connection.set("k", 3, cas=first.cas),
            lambda: connection.replace("k", 3, cas=first.cas),
            lambda: connection.delete("k", cas=first.cas),
            lambda: connection.add("k", 3),
        ):
            error = yield self.assertFailure(operation(), KeyExistsError)
            self.assertIsInstance(error, CouchbaseDataError)
            self.assertEqual((error.key, error.rc), ("k", exceptions.KEY_EEXISTS))
            self.assertEqual(error.all_results["k"].rc, error.rc)
        yield connection.delete("k", cas=second.cas)

    @inlineCallbacks
    def test_missing(self):
        """Missing documents are errors, or with quiet results."""
        connection = self.open()
        yield self.assertFailure(connection.get("k"), NotFoundError)
        yield self.assertFailure(connection.replace("k", 1), NotFoundError)
        yield self.assertFailure(connection.append("k", "x"), NotStoredError)
        yield self.assertFailure(connection.touch("k", 5), NotFoundError)
        yield self.assertFailure(connection.incr("k"), NotFoundError)
        quiet = yield connection.get("k", quiet=True)
        self.assertEqual((quiet.rc, quiet.value, quiet.success), (exceptions.KEY_ENOENT, None, False))
        connection.quiet = True
        self.assertFalse((yield connection.delete("k")).success)

    @inlineCallbacks
    def test_append_prepend(self):
        """Fragments go to both ends."""
        connection = self.open()
        yield connection.set("k", "b", format=FMT_UTF8)
        yield connection.append("k", "c")
        yield connection.prepend("k", "a")
        self.assertEqual((yield connection.get("k")).value, "abc")

    @inlineCallbacks
    def test_counters(self):
        """Created with initial, stop at 0, and refuse a value that is not a number."""
        connection = self.open()
        self.assertEqual((yield connection.incr("n", initial=5)).value, 5)
        self.assertEqual((yield connection.incr("n", -2)).value, 3)
        self.assertEqual((yield connection.decr("n", 10)).value, 0)
        yield connection.set("s", "x")
        yield self.assertFailure(connection.incr("s"), DeltaBadvalError)

    @inlineCallbacks
    def test_locks(self):
        """Only the holder's CAS stores or unlocks."""
        connection = self.open()
        yield connection.set("k", 1)
        locked = yield connection.lock("k", ttl=10)
        yield self.assertFailure(connection.set("k", 2), KeyExistsError)
        yield self.assertFailure(connection.lock("k", ttl=10), TemporaryFailError)
        yield self.assertFailure(connection.unlock("k", locked.cas + 1), TemporaryFailError)
        yield connection.unlock("k", locked.cas)
        yield connection.set("k", 2)

    @inlineCallbacks
    def test_expiry(self):
        """A relative expiry is shown as a Unix time; touch clears it."""
        connection = self.open()
        yield connection.set("k", 1, ttl=1000)
        result = yield connection.get_with_expiry("k")
        self.assertLess(abs(result.expiry - (reactor.seconds() + 1000)), 30)
        self.assertEqual(result.value, 1)
        yield connection.set("k", 2, preserve_expiry=True)
        self.assertEqual((yield connection.get_with_expiry("k")).expiry, result.expiry)
        yield connection.touch("k", 0)
        self.assertEqual((yield connection.get_with_expiry("k")).expiry, 0)
        yield connection.get("k", ttl=2000)
        self.assertGreater((yield connection.get_with_expiry("k")).expiry, result.expiry)

    @inlineCallbacks
    def test_multi(self):
        """One MultiResult; a failure includes every result, also the successful ones."""
        connection = self.open()
        stored = yield connection.set_multi({f"k{i}": i for i in range(50)})
        self.assertIsInstance(stored, MultiResult)
        self.assertTrue(stored.all_ok)
        got = yield connection.getMulti([f"k{i}" for i in range(50)])
        self.assertEqual({key: result.value for key, result in got.items()}, {f"k{i}": i for i in range(50)})
        error = yield self.assertFailure(connection.get_multi(["k1", "nope"]), NotFoundError)
        self.assertEqual(error.key, "nope")
        self.assertEqual(error.all_results["k1"].value, 1)
        quiet = yield connection.get_multi(["k1", "nope"], quiet=True)
        self.assertFalse(quiet.all_ok)
        yield connection.delete_multi(stored)

    @inlineCallbacks
    def test_mutation_tokens(self):
        """Mutations name their place in the vbucket's history, which only grows."""
        connection = self.open()
        first = (yield connection.set("k", 1)).mutation_token
        second = (yield connection.append("k", "2")).mutation_token
        self.assertEqual((first.vbucket, first.uuid), (second.vbucket, second.uuid))
        self.assertEqual(second.seqno, first.seqno + 1)

    @inlineCallbacks
    def test_observe_and_endure(self):
        """An ephemeral node has everything in memory and nothing on disk."""
        connection = self.open()
        stored = yield connection.set("k", 1)
        (seen,) = (yield connection.observe("k")).value
        self.assertEqual((seen.flags, seen.from_master, seen.cas), (OBS_FOUND, 1, stored.cas))
        self.assertEqual((yield connection.observe("nope")).value[0].flags, OBS_NOTFOUND)
        yield connection.endure("k", persist_to=0, replicate_to=0)
        yield self.assertFailure(connection.endure("nope", 0, 0), NotFoundError)
        error = yield self.assertFailure(connection.endure("k", persist_to=1, timeout=0.03), ArgumentError)
        self.assertEqual(error.rc, exceptions.DURABILITY_ETOOMANY)

    @inlineCallbacks
    def test_keys_of_a_transcoder(self):
        """Results of endure and observe carry what it decodes; what cannot be hashed is refused at once."""

        class Joining(Transcoder):
            decoded = tuple

            def encode_key(self, key):
                return "/".join(key).encode()

            def decode_key(self, key):
                return self.decoded(key.decode().split("/"))

        connection = self.open(transcoder=Joining())
        given, key = ["a", "b"], ("a", "b")
        yield connection.set(given, 1)
        wanted = {"persist_to": 0, "replicate_to": 0}
        for single, multi, options in (
            (connection.observe, connection.observe_multi, {}),
            (connection.endure, connection.endure_multi, wanted),
        ):
            self.assertEqual((yield single(given, **options)).key, key)
            found = yield multi([given], **options)
            self.assertEqual({of: result.key for of, result in found.items()}, {key: key})
            self.patch(Joining, "decoded", list)
            self.assertRaises(ValueFormatError, single, given, **options)
            self.assertRaises(ValueFormatError, multi, [given, key], **options)
            self.patch(Joining, "decoded", tuple)

    @inlineCallbacks
    def test_more_copies_than_the_cluster_has(self):
        """Refused before anything is sent, also when given before the connection is up."""
        connection = self.open()
        yield self.assertFailure(connection.set("k", 1, persist_to=2), ArgumentError)
        yield self.assertFailure(connection.set("k", 1, replicate_to=1), ArgumentError)
        yield self.assertFailure(connection.get("k"), NotFoundError)

    @inlineCallbacks
    def test_cancelled(self):
        """Cancelling leaves nothing behind in the driver."""
        connection = self.open()
        early = connection.get("k")
        early.cancel()
        yield self.assertFailure(early, CancelledError)
        yield connection.connect()
        operations = [connection.set("a", 1), connection.get_multi(["b", "c"])]
        for operation in operations:
            operation.cancel()
            yield self.assertFailure(operation, CancelledError)
        for link in connection._client.peers.values():
            self.assertEqual(link.protocol.conversation.pending, {})
        yield connection.set("k", 1)

    @inlineCallbacks
    def test_wrong_arguments(self):
        """Each is refused with an error that says what was expected."""
        connection = self.open()
        yield connection.connect()
        for error, operation in (
            (ArgumentError, lambda: connection.get("")),
            (ArgumentError, lambda: connection.get("k" * 251)),
            (ValueFormatError, lambda: connection.get(b"k")),
            (ArgumentError, lambda: connection.set("k", 1, ttl=-1)),
            (ArgumentError, lambda: connection.set("k", 1, cas="x")),
            (ValueFormatError, lambda: connection.set("k", object())),
            (ArgumentError, lambda: connection.lock("k", ttl="15")),
            (ArgumentError, lambda: connection.unlock("k", 0)),
            (ArgumentError, lambda: connection.get_multi("abc")),
            (ArgumentError, lambda: connection.get_multi([])),
            (ArgumentError, lambda: connection.incr("k", "1")),
            (ArgumentError, lambda: connection.append("k", {}, format=0)),
        ):
            raised = self.assertRaises(error, operation)
            self.assertTrue(raised.message)

    @inlineCallbacks
    def test_after_close(self):
        """Operations fail at once; a second close does nothing."""
        connection = self.open()
        yield connection.connect()
        connection._close()
        connection._close()
        self.assertTrue(connection.closed)
        yield self.assertFailure(connection.get("k"), ClientTemporaryFailError)

    @inlineCallbacks
    def test_stats(self):
        """Statistics come by name and node."""
        connection = self.open()
        yield connection.connect()
        partly = yield connection.stats(["memory", "no-such-group"])
        self.assertEqual((partly.refused, "mem_used" in partly), ({"no-such-group": 1}, True))
        stats = yield connection.stats()
        (by_node,) = [set(values) for name, values in stats.items() if name == "bucket"]
        self.assertEqual(by_node, {f"127.0.0.1:{self.node.kv_ports[0]}"})

    @inlineCallbacks
    def test_management(self):
        """The cluster manager is asked with the connection's credentials."""
        connection = self.open(bucket=None)
        status, headers, body = yield connection.management_request("GET", "/pools/default/buckets")
        self.assertEqual(status, 200)
        self.assertIn("json", headers["content-type"])
        self.assertIn(b'"default"', body)


class ConnectTests(NodeTestCase):
    """Connecting, and how it fails."""

    @inlineCallbacks
    def test_wrong_password(self):
        """Refused credentials fail what waited, and connect(), with AuthError."""
        connection = self.open(password="wrong")
        waiting = connection.get("k")
        yield self.assertFailure(connection.connect(), AuthError)
        yield self.assertFailure(waiting, AuthError)

    @inlineCallbacks
    def test_no_such_bucket(self):
        """An unknown bucket is BucketNotFoundError."""
        yield self.assertFailure(self.open(bucket="nope").connect(), BucketNotFoundError)

    @inlineCallbacks
    def test_no_such_bucket_without_an_administrator(self):
        """Such a node says so to who names the bucket alone; one with an administrator hides it."""
        bare = EmbeddedNode(None, buckets=[("default", None), ("secret", "hush")])
        self.addCleanup(bare.stop)
        yield bare.start()
        for node, bucket, error in (
            (bare, "nope", BucketNotFoundError),
            (bare, "secret", AuthError),
            (self.node, "nope", AuthError),
        ):
            _, _, port = node.rest_urls[0].rpartition(":")
            for place in (
                {"host": "127.0.0.1", "port": int(port)},
                {"connection_string": node.connection_string},
            ):
                for cls in (Connection, TxAsyncConnection):
                    connection = cls(bucket=bucket, **place)
                    self.addCleanup(connection._close)
                    yield self.assertFailure(connection.connect(), error)

    @inlineCallbacks
    def test_bucket_password(self):
        """The bucket's name and password open it, as before RBAC."""
        connection = self.open(bucket="secret", username=None, password="hush")
        yield connection.set("k", 1)
        yield self.assertFailure(self.open(bucket="secret", password=None).connect(), AuthError)

    @inlineCallbacks
    def test_without_credentials(self):
        """A bucket without a password needs none."""
        yield self.open(username=None, password=None).set("k", 1)

    @inlineCallbacks
    def test_nobody_listens(self):
        """A refused connection is a NetworkError; a second seed that answers makes good."""
        connection = Connection(bucket="default", connection_string="couchbase://127.0.0.1:1")
        yield self.assertFailure(connection.connect(), NetworkError)
        connection._close()
        two = f"couchbase://127.0.0.1:1,127.0.0.1:{self.node.kv_ports[0]}"
        second = Connection(bucket="default", connection_string=two)
        self.addCleanup(second._close)
        yield second.set("k", 1)

    @inlineCallbacks
    def test_http_streaming(self):
        """With http:// the map comes from the cluster manager's stream."""
        url = self.node.rest_urls[0]
        connection = Connection(
            bucket="default", connection_string=url, username="Administrator", password="password"
        )
        self.addCleanup(connection._close)
        yield connection.set("k", 1)
        self.assertEqual((yield connection.get("k")).value, 1)

    def test_events(self):
        """Unknown events are refused."""
        self.assertRaises(ValueError, self.open().registerDeferred, "nope", Deferred())


class AsyncTests(NodeTestCase):
    """Operations that return AsyncResults."""

    @inlineCallbacks
    def test_callbacks(self):
        """A single operation calls back with its Result, a multi one with the AsyncResult."""
        connection = self.open(TxAsyncConnection)
        yield connection.connect()
        pending = connection.set("k", 1)
        self.assertIsInstance(pending, AsyncResult)
        self.assertEqual(pending.remaining, 1)
        result = yield connection.defer(pending)
        self.assertEqual((result.key, pending["k"], pending.remaining), ("k", result, 0))
        many = connection.get_multi(["k"])
        self.assertIs((yield connection.defer(many)), many)

    @inlineCallbacks
    def test_errback(self):
        """errback gets the AsyncResult and the exception, whose all_results is that object."""
        connection = self.open(TxAsyncConnection)
        yield connection.connect()
        pending, heard = connection.get("nope"), Deferred()
        pending.set_callbacks(None, lambda *args: heard.callback(args))
        answer, kind, error, _ = yield heard
        self.assertIs(answer, pending)
        self.assertIs(error.all_results, pending)
        self.assertTrue(issubclass(kind, NotFoundError))


class ThreeNodesTests(NodeTestCase):
    """Routing and replicas on three nodes."""

    nodes = 3
    replicas = 1

    @inlineCallbacks
    def test_keys_go_to_their_nodes(self):
        """All nodes get a share, and every key comes back."""
        connection = self.open()
        values = {f"key-{i}": i for i in range(300)}
        yield connection.set_multi(values)
        got = yield connection.get_multi(values)
        self.assertEqual({key: result.value for key, result in got.items()}, values)
        stats = yield connection.stats()
        counts = stats["curr_items"]
        self.assertEqual(sum(counts.values()), 300)
        self.assertEqual(len([count for count in counts.values() if count > 50]), 3)

    @inlineCallbacks
    def test_paths_of_replicas(self):
        """Parts of documents are read from the replica that is named, or from any."""
        connection = self.open()
        yield connection.set("k", {"a": [1, 2]}, replicate_to=1)
        for replica in (0, "any"):
            found = yield connection.lookup_in("k", SD.get("a[1]"), SD.exists("b"), replica=replica)
            self.assertEqual(list(found), [2, False])
            found = yield connection.lookup_in_multi(["k"], SD.count("a"), replica=replica)
            self.assertEqual(found["k"][0], 2)
            yield self.assertFailure(connection.lookup_in("x", SD.get("a"), replica=replica), NotFoundError)
        error = yield self.assertFailure(
            connection.lookup_in("k", SD.get("a"), replica=7), exceptions.CouchbaseError
        )
        self.assertEqual(error.rc, exceptions.NO_MATCHING_SERVER)

    @inlineCallbacks
    def test_replicas(self):
        """replicate_to waits for the copy, which rget reads; more is refused."""
        connection = self.open()
        stored = yield connection.set("k", "v", replicate_to=-1)
        self.assertEqual((yield connection.rget("k")).value, "v")
        self.assertEqual((yield connection.get("k", replica=True)).cas, stored.cas)
        self.assertEqual((yield connection.rget("k", replica_index=0)).value, "v")
        error = yield self.assertFailure(connection.rget("k", replica_index=1), exceptions.CouchbaseError)
        self.assertEqual(error.rc, exceptions.NO_MATCHING_SERVER)
        yield self.assertFailure(connection.rget("nope"), NotFoundError)
        self.assertEqual(len((yield connection.observe("k")).value), 2)
        yield connection.delete("k", replicate_to=1)
        self.assertEqual(connection.configured_replica_count, 1)

    @inlineCallbacks
    def test_moving_keys_while_operations_flow(self):
        """Every vbucket moves to another node, and no operation is lost or fails."""
        connection = self.open()
        yield connection.set_multi({f"key-{i}": 0 for i in range(60)})
        before = connection._client.map
        flowing = [connection.incr(f"key-{i % 60}") for i in range(300)]
        # The replica of each vbucket becomes its active node.
        rows = [(replica, active) for active, replica in before.rows]
        moving = maybeDeferred(self.node.cluster.apply_map, "default", rows)
        flowing += [connection.incr(f"key-{i % 60}") for i in range(300)]
        yield moving
        flowing += [connection.incr(f"key-{i % 60}") for i in range(300)]
        yield gatherResults(flowing)
        got = yield connection.get_multi([f"key-{i}" for i in range(60)])
        self.assertEqual({result.value for result in got.values()}, {15})
        self.assertTrue(connection._client.map.supersedes(before))
        self.assertEqual(connection._client.map.rows, tuple(rows))


class AsyncFailureTests(NodeTestCase):
    """AsyncResults that fail inside the call that starts them."""

    @inlineCallbacks
    def test_failures_at_once_wait_for_the_errback(self):
        """A closed connection, or more copies than there are, still reach an errback set afterwards."""
        connection = self.open(TxAsyncConnection)
        yield connection.connect()
        yield self.assertFailure(connection.defer(connection.set("k", 1, persist_to=2)), ArgumentError)
        stored = connection.set("k", 1, persist_to=0)
        read = connection.get("k")
        yield connection.defer(stored)
        self.assertEqual((yield connection.defer(read)).value, 1)
        connection._close()
        yield self.assertFailure(connection.defer(connection.get("k")), ClientTemporaryFailError)


class OpenBucketTests(NodeTestCase):
    """A bucket without a password, by another name than ``default``."""

    @inlineCallbacks
    def test_no_password(self):
        """Its own user with an empty password opens it, as in the blocking client; the port may be text."""
        for password in (None, ""):
            (url, *_) = self.node.rest_urls
            connection = Connection(
                bucket="beer", host="127.0.0.1", port=url.rsplit(":", 1)[1], password=password
            )
            self.addCleanup(connection._close)
            yield connection.set("k", 1)
            self.assertEqual((yield connection.get("k")).value, 1)


class UnheldTests(NodeTestCase):
    """Programs that keep only the Deferred of an operation."""

    def options(self):
        return {
            "bucket": "default",
            "connection_string": self.node.connection_string,
            "username": "Administrator",
            "password": "password",
        }

    @inlineCallbacks
    def test_operations_keep_their_connection(self):
        """Operations end although the program dropped the connection; afterwards it is closed."""

        def store(key):
            return Connection(**self.options()).set(key, 1)

        def store_many(keys):
            connection = Connection(**self.options())
            return connection.set_multi(dict.fromkeys(keys, 2))

        yield store("a")
        yield store_many(["b", "c"])
        self.assertEqual((yield Connection(**self.options()).get("c")).value, 2)
        self.assertTrue((yield Connection(**self.options()).observe("c")).value)
        gone = Deferred()
        connection = Connection(**self.options())
        connection.registerDeferred("_dtor", gone)
        yield connection.connect()
        pending = connection.set("d", 4)
        del connection
        yield pending
        yield gone

    @inlineCallbacks
    def test_errors(self):
        """Invalid arguments fail the Deferred, also of a connection that the program dropped."""
        yield self.assertFailure(Connection(**self.options()).get(5.5), ValueFormatError)
        connection = Connection(**self.options())
        self.assertIsInstance(connection, Connection)
        yield connection.connect()
        self.assertIs(type(connection), Connection)
        connection._close()
