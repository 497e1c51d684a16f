"""Locks on a server that answers "temporary failure" to whatever a lock forbids, with extended statuses."""

import json
from unittest import TestCase

from twisted.internet.defer import inlineCallbacks
from twisted.trial import unittest

from couchbase.connection import Connection
from couchbase.exceptions import TemporaryFailError
from couchbase.items import Item, ItemOptionDict
from couchbase.protocol.constants import Opcode, Status
from gcouchbase import GConnection
from tests.gateway.test_behaviour import GatewayTestCase
from tests.gcouchbase.support import InGreenlets
from tests.servers.versions import FEATURES, VersionedNode
from txcouchbase.connection import Connection as TxConnection

D = "/v1/buckets/b/documents/"
CALM_SECONDS = 300
"""Longer than any test: a status that is retried until the timeout would never end."""


class LockingNode(VersionedNode):
    """Like CouchbaseMock: it does not know LOCKED and NOT_LOCKED."""

    def __init__(self):
        super().__init__(FEATURES["6.6"])
        self.put(b"k", b"1")
        self.put(b"l", b"2")

    def script(self, peer, frame):
        """Carry an operation out."""
        answer = peer.answer

        def plainly(frame, status=0, **fields):
            answer(frame, Status.ETMPFAIL if status == Status.LOCKED else status, **fields)

        peer.answer = plainly
        try:
            super().script(peer, frame)
        finally:
            peer.answer = answer

    def requests(self, opcode):
        """Return the extras of the operations that came, and forget them."""
        found = [frame.extras for frame in self.seen if frame.opcode == opcode]
        self.seen.clear()
        return found


class FaceMixin:
    """A face whose operations block."""

    face = Connection

    def start(self):
        """Return a node, and a connection to it."""
        node = LockingNode()
        self.addCleanup(node.stop)
        connection = self.face(
            bucket="b", connection_string=node.string, username="u", password="p", timeout=CALM_SECONDS
        )
        self.addCleanup(connection._close)
        return node, connection

    def test_refused_at_once(self):
        """A second lock, and an unlock of what is not locked, are sent once and fail."""
        node, cb = self.start()
        locked = cb.lock("k", ttl=10)
        node.seen.clear()
        self.assertRaises(TemporaryFailError, cb.lock, "k", ttl=10)
        self.assertEqual(len(node.requests(Opcode.GET_LOCKED)), 1)
        self.assertRaises(TemporaryFailError, cb.lock_multi, ["k", "l"], ttl=10)
        self.assertEqual(len(node.requests(Opcode.GET_LOCKED)), 2)
        self.assertRaises(TemporaryFailError, cb.unlock, "k", locked.cas + 1)
        cb.unlock("k", locked.cas)
        self.assertRaises(TemporaryFailError, cb.unlock, "k", locked.cas)
        self.assertEqual(len(node.requests(Opcode.UNLOCK)), 3)

    def test_without_ttl(self):
        """The server's default, for one document and for many, however it is given."""
        node, cb = self.start()
        for ttl in ((), (0,), (None,)):
            cb.unlock("k", cb.lock("k", *ttl).cas)
            self.assertEqual(node.requests(Opcode.GET_LOCKED), [bytes(4)], ttl)
        items = ItemOptionDict()
        items.add(Item("k"), ttl=9)
        items.add(Item("l"))
        for keys, wanted in (
            (["k", "l"], [0, 0]),
            ({"k": 9, "l": 0}, [9, 0]),
            ({"k": {}, "l": {"ttl": 9}}, [0, 9]),
            (items, [9, 0]),
        ):
            cb.unlock_multi(cb.lock_multi(keys))
            wire = [seconds.to_bytes(4, "big") for seconds in wanted]
            self.assertEqual(node.requests(Opcode.GET_LOCKED), wire, keys)


class BlockingLockTests(FaceMixin, TestCase):
    """The blocking client."""


class GreenletLockTests(InGreenlets, FaceMixin, TestCase):
    """The gevent client."""

    face = GConnection


class TwistedLockTests(unittest.TestCase):
    """The Twisted client."""

    @inlineCallbacks
    def start(self):
        """Return a node, and a connection that is up."""
        node = LockingNode()
        self.addCleanup(node.stop)
        cb = TxConnection(
            bucket="b", connection_string=node.string, username="u", password="p", timeout=CALM_SECONDS
        )
        self.addCleanup(cb._close)
        yield cb.connect()
        return node, cb

    @inlineCallbacks
    def test_refused_at_once(self):
        """A second lock, and an unlock of what is not locked, are sent once and fail."""
        node, cb = yield self.start()
        locked = yield cb.lock("k", ttl=10)
        node.seen.clear()
        yield self.assertFailure(cb.lock("k", ttl=10), TemporaryFailError)
        yield self.assertFailure(cb.lock_multi(["k", "l"], ttl=10), TemporaryFailError)
        self.assertEqual(len(node.requests(Opcode.GET_LOCKED)), 3)
        yield self.assertFailure(cb.unlock("k", locked.cas + 1), TemporaryFailError)
        yield cb.unlock("k", locked.cas)
        yield self.assertFailure(cb.unlock("k", locked.cas), TemporaryFailError)
        self.assertEqual(len(node.requests(Opcode.UNLOCK)), 3)

    @inlineCallbacks
    def test_without_ttl(self):
        """The server's default, for one document and for many."""
        node, cb = yield self.start()
        locked = yield cb.lock("k")
        yield cb.unlock("k", locked.cas)
        yield cb.lock_multi(["k", "l"])
        self.assertEqual(node.requests(Opcode.GET_LOCKED), [bytes(4)] * 3)


class GatewayLockTests(GatewayTestCase):
    """The gateway."""

    credentials = ("u", "p")

    def setUp(self):
        """Put it in front of such a server."""
        self.node = LockingNode()
        self.options = {"cluster": self.node.string}
        return super().setUp()

    @inlineCallbacks
    def tearDown(self):
        """Stop both."""
        yield super().tearDown()
        self.node.stop()

    @inlineCallbacks
    def test_codes(self):
        """The documented codes, after one attempt; a lock needs no body."""
        locked = yield self.ask("POST", D + "k/lock")
        self.assertEqual(locked.status, 200)
        self.assertEqual(self.node.requests(Opcode.GET_LOCKED), [(15).to_bytes(4, "big")])
        again = yield self.ask("POST", D + "k/lock", b"{}")
        self.assertEqual((again.status, json.loads(again.body)["code"]), (409, "DocumentLocked"))
        unlocked = yield self.ask("POST", D + "k/unlock", If_Match=locked.header("ETag"))
        self.assertEqual(unlocked.status, 200)
        twice = yield self.ask("POST", D + "k/unlock", If_Match=locked.header("ETag"))
        self.assertEqual((twice.status, json.loads(twice.body)["code"]), (400, "DocumentNotLocked"))
        self.assertEqual(len(self.node.requests(Opcode.UNLOCK)), 2)
