"""Servers with unknown statuses, and an error map that explains them: every driver."""

import json
from unittest import TestCase

from twisted.internet.defer import inlineCallbacks
from twisted.trial import unittest

from couchbase.connection import Connection
from couchbase.exceptions import (
    EINVAL,
    AuthError,
    CouchbaseError,
    NotFoundError,
    TemporaryFailError,
)
from couchbase.protocol.constants import Opcode
from gcouchbase import GConnection
from tests.gateway.test_behaviour import JSON, GatewayTestCase
from tests.gcouchbase.support import InGreenlets
from tests.servers.versions import FEATURES, VersionedNode
from txcouchbase.connection import Connection as TxConnection

ERRORS = {
    "7f00": {"name": "NOW", "desc": "come again", "attrs": ["temp", "retry-now"]},
    "7f01": {
        "name": "SPEC",
        "attrs": ["auto-retry"],
        "retry": {"strategy": "exponential", "interval": 2, "after": 1, "ceil": 8, "max-duration": 30},
    },
    "7f02": {"name": "STALE_STATE", "attrs": ["conn-state-invalidated", "retry-now"]},
    "7f03": {"name": "FORBIDDEN", "desc": "not today", "attrs": ["auth"]},
    "7f04": {"name": "ODD", "attrs": ["invalid-input"]},
    "7f05": {"name": "BROKEN", "attrs": ["conn-state-invalidated"]},
    "7f06": {"name": "MOVED", "attrs": ["fetch-config", "retry-now"]},
    "7f07": {"name": "FROZEN", "attrs": ["temp"]},
    "7f08": {
        "name": "PATIENT",
        "attrs": ["auto-retry"],
        "retry": {"strategy": "exponential", "interval": 2, "after": 1, "ceil": 8, "max-duration": 60_000},
    },
}
RETRIED = (0x7F00, 0x7F02, 0x7F06, 0x7F08)
SURFACED = (
    (0x7F03, AuthError, "FORBIDDEN (0x7f03): not today"),
    (0x7F04, CouchbaseError.rc_to_exctype(EINVAL), "ODD (0x7f04)"),
    (0x7F05, CouchbaseError, "BROKEN (0x7f05)"),
    (0x7F07, TemporaryFailError, "FROZEN (0x7f07)"),
    (0x7FFF, CouchbaseError, "0x7fff"),
)


class FailingNode(VersionedNode):
    """Answers the next ``count`` operations with ``status``."""

    def __init__(self, error_map=None):
        self.count = self.status = 0
        self.greeted = 0
        self.refusals = {}
        """Steps of the handshake that fail: by opcode, status and how often."""
        super().__init__(FEATURES["7.6"])
        self.error_map = (
            json.dumps({"version": 2, "errors": ERRORS}).encode() if error_map is None else error_map
        )

    def fail(self, status, count):
        """Fail the next operations."""
        self.status, self.count = status, count
        self.seen.clear()

    def _handle(self, peer, frame):
        self.greeted += frame.opcode == Opcode.HELLO
        status, count = self.refusals.get(frame.opcode, (0, 0))
        if count:
            self.refusals[frame.opcode] = status, count - 1
            peer.answer(frame, status)
        else:
            super()._handle(peer, frame)

    def script(self, peer, frame):
        """Carry an operation out, or fail it."""
        if self.count:
            self.count -= 1
            peer.answer(frame, self.status)
        else:
            super().script(peer, frame)


STEPS = (Opcode.SASL_AUTH, Opcode.SELECT_BUCKET, Opcode.GET_CLUSTER_CONFIG)
"""Steps of the handshake whose answers have a status."""


class FaceMixin:
    """A face whose operations block."""

    face = Connection

    def greet(self, step, status, count):
        """Connect to a node that fails a step of the handshake; returns the node and the connection."""
        node = FailingNode()
        self.addCleanup(node.stop)
        node.refusals[step] = status, count
        connection = self.face(bucket="b", connection_string=node.string, username="u", password="p")
        self.addCleanup(connection._close)
        return node, connection

    def test_handshake_retried(self):
        """A step of the handshake is repeated on the same connection, as the map says."""
        for step in STEPS:
            for status in (0x7F00, 0x7F01):
                node, cb = self.greet(step, status, 3)
                self.assertTrue(cb.set("k", 1).success)
                self.assertEqual((node.greeted, node.refusals[step][1]), (1, 0), hex(step))

    def test_handshake_refused(self):
        """One that is not to be repeated ends in the class and the words that the map chooses, at once."""
        for step in STEPS:
            for status, kind, words in SURFACED:
                if status == 0x7FFF:
                    # The map does not know it: refused credentials, or a node that is not ready.
                    kind = AuthError if step == Opcode.SASL_AUTH else TemporaryFailError
                with self.assertRaises(kind) as caught:
                    self.greet(step, status, 10**6)
                self.assertIn(words, str(caught.exception))
                self.assertEqual(caught.exception.status, status)

    def test_handshake_retried_within_bounds(self):
        """The map's ``max-duration`` ends the repetition: a temporary failure, which names the status."""
        for step in STEPS:
            with self.assertRaises(TemporaryFailError) as caught:
                self.greet(step, 0x7F01, 10**6)
            self.assertIn("SPEC (0x7f01)", str(caught.exception))

    def start(self, error_map=None):
        """Return a node, and a connection to it."""
        node = FailingNode(error_map)
        self.addCleanup(node.stop)
        connection = self.face(
            bucket="b", connection_string=node.string, username="u", password="p", timeout=30
        )
        self.addCleanup(connection._close)
        return node, connection

    def test_retried(self):
        """A status that may be retried according to the map is retried until it succeeds."""
        node, cb = self.start()
        for status in RETRIED:
            node.fail(status, 3)
            self.assertTrue(cb.set("k", 1).success, hex(status))
            self.assertEqual(len(node.seen), 4, hex(status))

    def test_connections_are_made_anew(self):
        """A connection whose state is invalid is not used again."""
        node, cb = self.start()
        before = node.greeted
        node.fail(0x7F02, 1)
        cb.set("k", 1)
        self.assertEqual(node.greeted, before + 1)
        node.fail(0x7F05, 1)
        self.assertRaises(CouchbaseError, cb.set, "k", 1)
        cb.set("k", 2)
        self.assertEqual(node.greeted, before + 2)

    def test_only_as_long_as_the_map_says(self):
        """After ``max-duration`` the error is the caller's: a temporary one, which names the status."""
        node, cb = self.start()
        node.fail(0x7F01, 10**6)
        with self.assertRaises(TemporaryFailError) as caught:
            cb.set("k", 1)
        self.assertIn("SPEC (0x7f01)", str(caught.exception))
        # Pauses of 1, 2, 4, 8 and 8 ms; one more would take them beyond 30. A busy machine has fewer.
        self.assertIn(len(node.seen), range(2, 7))
        self.assertFalse(caught.exception.ambiguous)

    def test_within_the_timeout(self):
        """The operation's timeout ends the repetition, with the status in the error."""
        node, cb = self.start()
        cb.timeout = 0.2
        node.fail(0x7F00, 10**6)
        with self.assertRaises(TemporaryFailError) as caught:
            cb.set("k", 1)
        self.assertIn("NOW (0x7f00): come again", str(caught.exception))

    def test_surfaced(self):
        """Others are errors at once; the attributes choose their class, the map their words."""
        node, cb = self.start()
        for status, kind, words in SURFACED:
            node.fail(status, 1)
            with self.assertRaises(kind) as caught:
                cb.set("k", 1)
            self.assertIn(words, str(caught.exception))
            self.assertEqual((caught.exception.status, len(node.seen)), (status, 1))

    def test_malformed_maps(self):
        """A map that makes no sense changes nothing."""
        for error_map in (b"", b"{", b"[]", b'{"errors":{"7f00":{"attrs":3,"retry":[]}}}', b"\xff" * 99):
            node, cb = self.start(error_map)
            self.assertTrue(cb.set("k", 1).success)
            self.assertRaises(NotFoundError, cb.get, "none")
            node.fail(0x7F00, 1)
            self.assertRaises(CouchbaseError, cb.set, "k", 1)


class BlockingErrorMapTests(FaceMixin, TestCase):
    """The blocking client."""


class GreenletErrorMapTests(InGreenlets, FaceMixin, TestCase):
    """The gevent client."""

    face = GConnection


class TwistedErrorMapTests(unittest.TestCase):
    """The Twisted client."""

    @inlineCallbacks
    def start(self):
        """Return a node, and a connection that is up."""
        node = FailingNode()
        self.addCleanup(node.stop)
        connection = TxConnection(bucket="b", connection_string=node.string, username="u", password="p")
        self.addCleanup(connection._close)
        yield connection.connect()
        connection.timeout = 30
        return node, connection

    @inlineCallbacks
    def test_handshake(self):
        """Its steps are repeated, or end in the class and the words that the map chooses."""
        for step in STEPS:
            for status, count, kind, words in (
                (0x7F00, 3, None, ""),
                (0x7F01, 10**6, TemporaryFailError, "SPEC (0x7f01)"),
                *((status, 10**6, kind, words) for status, kind, words in SURFACED[:-1]),
            ):
                node = FailingNode()
                self.addCleanup(node.stop)
                node.refusals[step] = status, count
                cb = TxConnection(bucket="b", connection_string=node.string, username="u", password="p")
                self.addCleanup(cb._close)
                if kind is None:
                    yield cb.connect()
                    self.assertEqual((node.greeted, node.refusals[step][1]), (1, 0), hex(step))
                else:
                    error = yield self.assertFailure(cb.connect(), kind)
                    self.assertIn(words, str(error))

    @inlineCallbacks
    def test_retried(self):
        """A status that may be retried according to the map is retried, if necessary on a new connection."""
        node, cb = yield self.start()
        for status in RETRIED:
            node.fail(status, 3)
            result = yield cb.set("k", 1)
            self.assertTrue(result.success)
            self.assertEqual(len(node.seen), 4, hex(status))

    @inlineCallbacks
    def test_connections_are_made_anew(self):
        """A connection whose state is invalid is not used again."""
        node, cb = yield self.start()
        before = node.greeted
        node.fail(0x7F05, 1)
        yield self.assertFailure(cb.set("k", 1), CouchbaseError)
        yield cb.set("k", 2)
        self.assertEqual(node.greeted, before + 1)

    @inlineCallbacks
    def test_only_as_long_as_the_map_says(self):
        """After ``max-duration`` the error is the caller's."""
        node, cb = yield self.start()
        node.fail(0x7F01, 10**6)
        error = yield self.assertFailure(cb.set("k", 1), TemporaryFailError)
        self.assertIn("SPEC (0x7f01)", str(error))
        self.assertIn(len(node.seen), range(2, 7))

    @inlineCallbacks
    def test_surfaced(self):
        """Others are errors at once."""
        node, cb = yield self.start()
        for status, kind, words in SURFACED:
            node.fail(status, 1)
            error = yield self.assertFailure(cb.set("k", 1), kind)
            self.assertIn(words, str(error))
            self.assertEqual((error.status, len(node.seen)), (status, 1))


class GatewayErrorMapTests(GatewayTestCase):
    """The gateway."""

    credentials = ("u", "p")

    def setUp(self):
        """Put it in front of a node that fails."""
        self.node = FailingNode()
        self.options = {"cluster": self.node.string}
        return super().setUp()

    @inlineCallbacks
    def tearDown(self):
        """Stop both."""
        yield super().tearDown()
        self.node.stop()

    @inlineCallbacks
    def test_put(self):
        """A status that may be repeated is; an error says whether the request may be sent again."""
        put = lambda: self.ask("PUT", "/v1/buckets/b/documents/k", b"1", **JSON)  # noqa: E731  # shorter than a function
        first = yield put()
        self.assertEqual(first.status, 200)
        self.node.fail(0x7F00, 2)
        stored = yield put()
        self.assertEqual((stored.status, self.node.count), (200, 0))
        for status, wanted in (
            (0x7F01, (503, "TemporarilyUnavailable", "safe")),
            (0x7F07, (503, "TemporarilyUnavailable", "safe")),
            (0x7F04, (400, "InvalidArgument", "never")),
            (0x7FFF, (500, "ServerError", "never")),
        ):
            self.node.fail(status, 10**6)
            answer = yield put()
            body = json.loads(answer.body)
            self.assertEqual((answer.status, body["code"], body["retry"]), wanted)
