"""Scans on Twisted, against two nodes."""

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.task import deferLater

from couchbase.exceptions import ArgumentError, BucketNotFoundError, CollectionNotFoundError
from couchbase.result import ObserveInfo
from couchbase.scan import PrefixScan, RangeScan
from couchnode.cluster.definition import BucketDefinition
from tests.txcouchbase.test_connection import NodeTestCase


class ScanTests(NodeTestCase):
    """``scan``."""

    nodes = 2

    @inlineCallbacks
    def setUp(self):
        yield super().setUp()
        self.connection = self.open()
        yield self.connection.set_multi({f"k{n:03}": n for n in range(100)})

    @inlineCallbacks
    def test_pages(self):
        """Pages come as Deferreds, also of a connection that is not up yet; an empty list is the end."""
        scan = self.open().scan()
        found = {}
        while True:
            page = yield scan.next_page()
            if not page:
                break
            found.update((row.key, row.value) for row in page)
        self.assertEqual(found, {f"k{n:03}": n for n in range(100)})
        self.assertIsNone(scan.cursor)
        self.assertEqual((yield scan.next_page()), [])
        yield scan.close()

    def test_async_iterator(self):
        """In a coroutine, rows come one by one."""

        async def keys():
            return sorted([row.key async for row in self.connection.scan(PrefixScan("k05"), ids_only=True)])

        done = Deferred.fromCoroutine(keys())
        return done.addCallback(self.assertEqual, [f"k05{n}" for n in range(10)])

    @inlineCallbacks
    def test_cursor(self):
        """A scan that is left can be gone on with."""
        scan = self.connection.scan(ids_only=True)
        first = yield scan.next_page()
        yield scan.close()
        self.assertEqual((yield scan.next_page()), [])
        rest = self.connection.scan(ids_only=True, after=scan.cursor)
        keys = [row.key for row in first]
        while True:
            page = yield rest.next_page()
            if not page:
                break
            keys += [row.key for row in page]
        self.assertEqual(sorted(keys), [f"k{n:03}" for n in range(100)])

    @inlineCallbacks
    def test_failures(self):
        """Bad arguments raise at once, a collection that is not there fails the page."""
        self.assertRaises(ArgumentError, self.connection.scan, "k")
        missing = self.connection.collection("none").scan(RangeScan())
        yield self.assertFailure(missing.next_page(), CollectionNotFoundError)

    @inlineCallbacks
    def test_cancelled(self):
        """Whenever a page is cancelled, the servers end its scans, and the next page loses no row."""
        open_ = [node.buckets["default"].scans for node in self.node.cluster.nodes]
        stopped = 0
        for moment in range(12):
            scan = self.connection.scan(ids_only=True)
            scan.expect(20)
            found = yield scan.next_page()
            while True:
                page = scan.next_page()
                for _ in range(moment):
                    # Each turn of the reactor is another moment.
                    yield deferLater(reactor, 0)
                page.cancel()
                rows = yield page.addErrback(lambda failure: failure.trap(CancelledError) and None)
                if rows is None:
                    until = reactor.seconds() + 10
                    while any(map(len, open_)):
                        self.assertLess(reactor.seconds(), until)
                        yield deferLater(reactor, 0.001)
                    stopped += 1
                    rows = yield scan.next_page()
                if not rows:
                    break
                found += rows
            self.assertEqual(sorted(row.key for row in found), [f"k{n:03}" for n in range(100)], moment)
        self.assertGreater(stopped, 12)


class GoneTests(NodeTestCase):
    """A bucket that is deleted while a client is connected."""

    nodes = 2
    replicas = 1

    @inlineCallbacks
    def test_at_once(self):
        """What asks several nodes fails at once, like an operation on one document."""
        connection = self.open()
        scan = connection.scan(ids_only=True)
        yield connection.set_multi({f"k{n:03}": n for n in range(100)})
        self.assertTrue((yield scan.next_page()))
        yield self.node.cluster.delete_bucket("default")
        began = reactor.seconds()
        for ask in (
            scan.next_page,
            lambda: connection.observe("k001"),
            lambda: connection.observe_multi(["k001", "k002"]),
            lambda: connection.endure("k001", persist_to=0, replicate_to=1),
            lambda: connection.endure_multi(["k001", "k002"], persist_to=0, replicate_to=1),
            connection.stats,
            connection.collection("c").scan().next_page,
            lambda: connection.get("k001"),
        ):
            error = yield self.assertFailure(ask(), BucketNotFoundError)
            self.assertIn("does not exist", str(error))
        # Attempts to connect are 5 seconds apart at most, timeouts are 30 and 75.
        self.assertLess(reactor.seconds() - began, 15)
        yield scan.close()

    @inlineCallbacks
    def test_made_anew(self):
        """A bucket of the same name serves at once: a refusal that is over is not believed."""
        connection = self.open()
        yield connection.set("k", 1)
        yield self.node.cluster.delete_bucket("default")
        yield self.assertFailure(connection.observe("k"), BucketNotFoundError)
        yield self.node.cluster.create_bucket(BucketDefinition("default", replica_number=1))
        (seen,) = {type(info) for info in (yield connection.observe("k")).value}
        self.assertIs(seen, ObserveInfo)
