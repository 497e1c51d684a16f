"""Every operation of the blocking, the gevent and the Twisted client against servers from 5.0 to 8."""

import threading
import time
from unittest import TestCase

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.trial import unittest

from couchbase.connection import Connection
from couchbase.exceptions import KeyExistsError, NotFoundError, NotSupportedError, TemporaryFailError
from couchbase.protocol.constants import Opcode, Status
from couchbase.user_constants import FMT_UTF8
from gcouchbase import GConnection
from tests.gcouchbase.support import InGreenlets
from tests.servers.versions import BOTH, FEATURES, MOCK, VATTRS, VersionedNode
from txcouchbase.connection import Connection as TxConnection

KEY = b"k"
DURABLE = {"6.6", "7.0", "7.6", "8.0"}


def soon():
    """Return an expiry that does not come while the test runs."""
    return int(time.time()) + 3600


class VersionMixin:
    """Tests of a face whose operations block."""

    face = Connection

    def open(self, node):
        """Return a connection to a node."""
        connection = self.face(bucket="b", connection_string=node.string, username="u", password="p")
        self.addCleanup(connection._close)
        return connection

    def start(self, features, **options):
        """Return a running node."""
        node = VersionedNode(features, **options)
        self.addCleanup(node.stop)
        return node

    def every(self):
        """Yield each version's name, a node and a connection."""
        for version, features in FEATURES.items():
            with self.subTest(server=version):
                node = self.start(features, vattrs=VATTRS.get(version, BOTH))
                yield version, node, self.open(node)
                self.assertEqual(node.violations, [])

    def test_the_expiry_stays(self):
        """``preserve_expiry`` keeps a document's expiry on every version, and a new document has none."""
        for _, node, cb in self.every():
            moment = soon()
            node.put(KEY, b"1", expiry=moment)
            cb.set("k", 2, preserve_expiry=True)
            self.assertEqual((node.documents[KEY].value, node.expire_at(KEY)), (b"2", moment))
            cas = cb.replace("k", 3, preserve_expiry=True).cas
            self.assertEqual((node.documents[KEY].value, node.expire_at(KEY)), (b"3", moment))
            cb.set("k", 4, cas=cas, preserve_expiry=True)
            self.assertEqual(node.expire_at(KEY), moment)
            cb.set("new", 1, preserve_expiry=True)
            self.assertEqual(node.expire_at(b"new"), 0)
            self.assertRaises(KeyExistsError, cb.set, "k", 5, cas=cas, preserve_expiry=True)
            self.assertRaises(NotFoundError, cb.replace, "none", 5, preserve_expiry=True)
            self.assertEqual(node.documents[KEY].value, b"4")

    def test_reading_with_the_expiry(self):
        """Value, flags and expiry come from every version."""
        for _, node, cb in self.every():
            moment = soon()
            node.put(KEY, b'"v"', expiry=moment)
            found = cb.get_with_expiry("k")
            self.assertEqual((found.value, found.expiry), ("v", moment))
            self.assertRaises(NotFoundError, cb.get_with_expiry, "none")

    def test_plain_operations(self):
        """Operations as old as the protocol work everywhere."""
        for _, node, cb in self.every():
            cas = cb.add("k", {"a": 1}).cas
            self.assertEqual(cb.get("k").cas, cas)
            self.assertRaises(KeyExistsError, cb.add, "k", 1)
            cb.set("t", "a", format=FMT_UTF8)
            cb.append("t", "b")
            cb.prepend("t", "c")
            self.assertEqual(cb.get("t").value, "cab")
            self.assertEqual(cb.incr("n", initial=5).value, 5)
            self.assertEqual(cb.decr("n", 2).value, 3)
            cb.touch("k", ttl=100)
            self.assertGreater(node.expire_at(KEY), 0)
            locked = cb.lock("k", ttl=10)
            self.assertRaises(KeyExistsError, cb.set, "k", 1, preserve_expiry=True)
            cb.unlock("k", locked.cas)
            self.assertTrue(cb.observe("k").value)
            cb.set("k", 1, persist_to=1)
            cb.delete("k")
            self.assertRaises(NotFoundError, cb.get, "k")

    def test_durable_writes(self):
        """A server without synchronous writes is not sent one: NotSupportedError names what it lacks."""
        for version, node, cb in self.every():
            node.put(KEY, b"1")
            if version in DURABLE:
                self.assertTrue(cb.set("k", 2, durability_level=1, preserve_expiry=True).success)
                continue
            for write in (
                lambda cb=cb: cb.set("k", 2, durability_level=1),
                lambda cb=cb: cb.set("k", 2, durability_level=3, preserve_expiry=True),
                lambda cb=cb: cb.delete("k", durability_level=2),
                lambda cb=cb: cb.incr("k", durability_level=1),
            ):
                with self.assertRaises(NotSupportedError) as caught:
                    write()
                self.assertIn("Couchbase Server 6.5", str(caught.exception))
                self.assertFalse(caught.exception.ambiguous)
            self.assertEqual((node.seen, node.documents[KEY].value), ([], b"1"))

    def test_a_writer_in_between(self):
        """A document that others change between reading its expiry and storing it gets the new expiry."""
        node = self.start(FEATURES["6.0"])
        cb = self.open(node)
        moments = [soon() + n for n in range(3)]
        node.put(KEY, b"1", expiry=1 + soon())

        def come_between(key):
            if moments:
                node.put(key, b"other", expiry=moments.pop())

        last = moments[0]
        node.before_store = come_between
        cb.set("k", 2, preserve_expiry=True)
        self.assertEqual((node.documents[KEY].value, node.expire_at(KEY)), (b"2", last))
        node.before_store = lambda key: node.put(key, b"other")
        with self.assertRaises(TemporaryFailError):
            cb.set("k", 3, preserve_expiry=True)
        self.assertEqual(node.documents[KEY].value, b"other")

    def test_one_that_comes_and_goes(self):
        """A document that appears or vanishes in between is stored as what it is then."""
        node = self.start(FEATURES["6.0"])
        cb = self.open(node)
        moment = soon()
        acts = [lambda key: node.put(key, b"other", expiry=moment), lambda key: node.documents.clear()]
        node.before_store = lambda key: acts and acts.pop(0)(key)
        cb.set("k", 2, preserve_expiry=True)
        self.assertEqual((node.documents[KEY].value, node.expire_at(KEY)), (b"2", 0))

    def test_without_virtual_attributes(self):
        """A server that does not know them is asked once, and still returns documents."""
        for features in (MOCK, FEATURES["6.0"], FEATURES["7.6"]):
            node = self.start(features, vattrs=())
            cb = self.open(node)
            node.put(KEY, b"7", expiry=soon())
            for _ in range(3):
                found = cb.get_with_expiry("k")
                self.assertEqual((found.value, found.expiry), (7, 0))
            lookups = [frame for frame in node.seen if frame.opcode == Opcode.SUBDOC_MULTI_LOOKUP]
            self.assertEqual(len(lookups), 1)
            cb.set("k", 8, preserve_expiry=True)
            cb.set("k", 9, preserve_expiry=True)
            self.assertEqual(node.documents[KEY].value, b"9")
            self.assertEqual(node.violations, [])

    def test_expiry_without_flags(self):
        """Before 5.5 the expiry is read separately; document and expiry are of one version."""
        node = self.start(FEATURES["5.0"], vattrs=VATTRS["5.0"])
        cb = self.open(node)
        moment = soon()
        node.put(KEY, b'"v"', expiry=moment, flags=FMT_UTF8)
        found = cb.get_with_expiry("k")
        self.assertEqual((found.value, found.flags, found.expiry), ('"v"', FMT_UTF8, moment))
        self.assertFalse(cb.get_with_expiry("none", quiet=True).success)
        self.assertRaises(NotFoundError, cb.get_with_expiry, "none")
        changes = [lambda: node.put(KEY, b"2", expiry=moment + 1)]
        node.before_lookup = lambda key: changes and changes.pop(0)()
        found = cb.get_with_expiry("k")
        self.assertEqual((found.value, found.expiry), (2, moment + 1))
        changes.append(node.documents.clear)
        self.assertRaises(NotFoundError, cb.get_with_expiry, "k")
        self.assertEqual((changes, cb._cluster._parked), ([], {}))
        node.put(KEY, b"0", expiry=moment)
        node.before_lookup = lambda key: node.put(key, b"1", expiry=moment)
        self.assertEqual(cb.get_with_expiry("k").expiry, moment)

    def test_odd_refusals(self):
        """A lookup whose answer makes no sense, or that is refused later, leaves the document to be read."""
        for answer in (b"\0\xc0\0\0\0", b"", b"\0\xc0\0\0\0\0" * 3):
            node = self.start(FEATURES["5.0"], vattrs=VATTRS["5.0"])
            cb = self.open(node)
            node.put(KEY, b"1", expiry=soon())
            script = node.script

            def odd(peer, frame, answer=answer, script=script):
                if frame.opcode == Opcode.SUBDOC_MULTI_LOOKUP:
                    peer.answer(frame, Status.SUBDOC_MULTI_PATH_FAILURE, value=answer)
                else:
                    script(peer, frame)

            node.script = odd
            self.assertEqual((cb.get_with_expiry("k").value, cb.get_with_expiry("k").expiry), (1, 0))
        node = self.start(FEATURES["5.0"], vattrs=VATTRS["5.0"])
        cb = self.open(node)
        node.put(KEY, b"1", expiry=soon())
        self.assertTrue(cb.get_with_expiry("k").expiry)
        node.vattrs = ()
        for _ in range(2):
            self.assertEqual((cb.get_with_expiry("k").value, cb.get_with_expiry("k").expiry), (1, 0))

    def test_without_attributes(self):
        """If HELLO grants none, no lookup is sent."""
        node = self.start(frozenset())
        cb = self.open(node)
        cb.set("k", 1, preserve_expiry=True)
        self.assertEqual(cb.get_with_expiry("k").value, 1)
        self.assertEqual((node.violations, [frame.opcode for frame in node.seen]), ([], [0x01, 0x00]))

    def test_together(self):
        """Two threads that store with the expiry kept lose neither a write nor the expiry."""
        node = self.start(FEATURES["6.0"])
        moment = soon()
        node.put(b"n", b"0", expiry=moment)
        failed = []

        def store(cb):
            try:
                for number in range(20):
                    while True:
                        try:
                            cb.set("n", number, preserve_expiry=True)
                        except TemporaryFailError:
                            # Others were faster sixteen times, as may happen on a busy machine.
                            continue
                        break
            except Exception as error:  # noqa: BLE001  # told below
                failed.append(error)

        connections = [self.open(node) for _ in range(2)]
        threads = [threading.Thread(target=store, args=(cb,)) for cb in connections]
        if self.face is GConnection:
            store(connections[0])
        else:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        self.assertEqual((failed, node.expire_at(b"n")), ([], moment))


class BlockingVersionTests(VersionMixin, TestCase):
    """The blocking client."""

    def test_first_on_a_node(self):
        """An operation of several steps also works as the first one on a node."""
        first, second = self.start(FEATURES["6.0"]), self.start(FEATURES["6.0"])
        for node in (first, second):
            node.cluster, node.rows = [first, second], [[0], [1]]
        cb = self.open(first)
        for number in range(8):
            cb.set(f"k{number}", number, preserve_expiry=True)
        self.assertEqual(len(first.documents) + len(second.documents), 8)

    def test_neighbours(self):
        """In a pipeline, an operation that the server cannot do leaves the others alone."""
        node = self.start(FEATURES["5.0"])
        cb = self.open(node)
        pipeline = cb.pipeline()
        with self.assertRaises(NotSupportedError), pipeline:
            cb.set("a", 1)
            cb.set("b", 1, durability_level=1)
            cb.set("a", 2, preserve_expiry=True)
            cb.set("a", 3)
        self.assertEqual(sorted(node.documents), [b"a"])
        self.assertEqual(node.documents[b"a"].value, b"3")
        self.assertEqual((node.violations, cb._cluster._parked), ([], {}))


class GreenletVersionTests(InGreenlets, VersionMixin, TestCase):
    """The gevent client."""

    face = GConnection


class TwistedVersionTests(unittest.TestCase):
    """The Twisted client, by Deferreds and without."""

    def start(self, features, **options):
        """Return a running node."""
        node = VersionedNode(features, **options)
        self.addCleanup(node.stop)
        return node

    @inlineCallbacks
    def open(self, node):
        """Return a connection that is up."""
        connection = TxConnection(bucket="b", connection_string=node.string, username="u", password="p")
        self.addCleanup(connection._close)
        yield connection.connect()
        return connection

    @inlineCallbacks
    def test_the_expiry_stays(self):
        """``preserve_expiry`` keeps a document's expiry on every version."""
        for version, features in FEATURES.items():
            node = self.start(features, vattrs=VATTRS.get(version, BOTH))
            cb = yield self.open(node)
            moment = soon()
            node.put(KEY, b"1", expiry=moment)
            yield cb.set("k", 2, preserve_expiry=True)
            self.assertEqual((node.documents[KEY].value, node.expire_at(KEY)), (b"2", moment), version)
            found = yield cb.get_with_expiry("k")
            self.assertEqual((found.value, found.expiry), (2, moment), version)
            yield cb.set("new", 1, preserve_expiry=True)
            self.assertEqual(node.expire_at(b"new"), 0)
            yield self.assertFailure(cb.replace("none", 5, preserve_expiry=True), NotFoundError)
            if version in DURABLE:
                yield cb.set("k", 3, preserve_expiry=True, durability_level=1)
                self.assertEqual(node.expire_at(KEY), moment)
            else:
                error = yield self.assertFailure(cb.set("k", 3, durability_level=1), NotSupportedError)
                self.assertFalse(error.ambiguous)
            self.assertEqual(node.violations, [])

    @inlineCallbacks
    def test_first_on_a_node(self):
        """An operation of several steps also works while a node's connection is still being made."""
        first, second = self.start(FEATURES["6.0"]), self.start(FEATURES["6.0"])
        for node in (first, second):
            node.cluster, node.rows = [first, second], [[0], [1]]
        cb = yield self.open(first)
        yield gatherResults([cb.set(f"k{number}", number, preserve_expiry=True) for number in range(8)])
        self.assertTrue(first.documents and second.documents)
        self.assertEqual(len(first.documents) + len(second.documents), 8)

    @inlineCallbacks
    def test_in_order(self):
        """Operations on one key take effect in the order in which they are given, kept expiry or not."""
        node = self.start(FEATURES["5.0"])
        cb = yield self.open(node)
        results = yield gatherResults(
            [
                cb.set("k", 1, preserve_expiry=True),
                cb.get("k"),
                cb.set("k", 2, preserve_expiry=True),
                cb.set("k", 3),
                cb.get("k"),
                cb.delete("k"),
                cb.add("k", 4),
                cb.set("k", 5, preserve_expiry=True),
                cb.get_with_expiry("k"),
            ]
        )
        self.assertEqual([results[1].value, results[4].value, results[8].value], [1, 3, 5])
        self.assertEqual(cb._client._parked, {})

    @inlineCallbacks
    def test_given_up(self):
        """A cancelled store releases the operations behind it, and its steps are dropped."""
        node = self.start(FEATURES["5.0"])
        cb = yield self.open(node)
        node.script, script = lambda peer, frame: None, node.script
        stuck = cb.set("k", 1, preserve_expiry=True)
        behind = cb.set("k", 2)
        cb._turn.drain()
        node.script = script
        stuck.addErrback(lambda failure: None)
        stuck.cancel()
        yield behind
        self.assertEqual(node.documents[KEY].value, b"2")
        (link,) = cb._client.peers.values()
        self.assertEqual((link.protocol.conversation.pending, cb._client._parked), ({}, {}))

    @inlineCallbacks
    def test_without_virtual_attributes(self):
        """A server that does not know them is asked once, however many ask together later."""
        node = self.start(FEATURES["7.6"], vattrs=())
        cb = yield self.open(node)
        node.put(KEY, b"7")
        for _ in range(3):
            found = yield cb.get_with_expiry("k")
            self.assertEqual((found.value, found.expiry), (7, 0))
        self.assertEqual(len([frame for frame in node.seen if frame.opcode == 0xD0]), 1)
