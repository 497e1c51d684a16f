"""Values that are compressed or carry attributes, which no HELLO of ours asked for: every face."""

import json
from unittest import TestCase

from twisted.internet.defer import inlineCallbacks
from twisted.trial import unittest

from couchbase.connection import Connection
from couchbase.exceptions import ProtocolError
from couchbase.protocol.constants import Opcode
from couchbase.transcoder import RawTranscoder
from gcouchbase import GConnection
from tests.couchbase.scripted import ScriptedNode
from tests.gateway.test_behaviour import GatewayTestCase
from tests.gcouchbase.support import InGreenlets
from txcouchbase.connection import Connection as TxConnection

KINDS = (
    (0x02, "0x02 (snappy)"),
    (0x04, "0x04 (xattr)"),
    (0x07, "0x07 (snappy, xattr)"),
    (0x08, "0x08 (unknown)"),
)
_READS = (Opcode.GET, Opcode.GAT, Opcode.GET_REPLICA, Opcode.GET_LOCKED)


class MarkingNode(ScriptedNode):
    """Answers with success and a datatype; :attr:`other` is a second one, with the replicas.

    :param framed: whether answers include the server's duration, which gives them flexible headers.
    """

    datatype = 0

    def __init__(self, framed=False, other=None):
        super().__init__()
        self.other = other
        if other is not None:
            self.rows, self.cluster = [[0, 1]], [self, other]
        self._framing = b"\x02\x00\x01" if framed else b""

    def script(self, peer, frame):
        """Answer."""
        reads = frame.opcode in _READS
        counts = frame.opcode in (Opcode.INCREMENT, Opcode.DECREMENT)
        peer.answer(
            frame,
            extras=bytes(4) if reads else b"",
            value=b"12345678" if reads or counts else b"",
            cas=1,
            datatype=MarkingNode.datatype,
            framing=self._framing,
        )


def operations(cb):
    """Return operations by SDK 1.2's name, and whether they write."""
    return (
        ("get", lambda: cb.get("k"), False),
        ("get", lambda: cb.get("k", no_format=True), False),
        ("get", lambda: cb.get("k", ttl=5), True),
        ("get", lambda: cb.get_multi(["k"]), False),
        ("lock", lambda: cb.lock("k", ttl=5), True),
        ("rget", lambda: cb.rget("k"), False),
        ("rget", lambda: cb.get("k", replica=True), False),
        ("rget", lambda: cb.rget("k", replica_index=0), False),
        ("rget", lambda: cb.rget_multi(["k"]), False),
        ("set", lambda: cb.set("k", 1), True),
        ("set", lambda: cb.set_multi({"k": 1}), True),
        ("delete", lambda: cb.delete("k"), True),
        ("incr", lambda: cb.incr("k"), True),
    )


class FaceMixin:
    """A face whose operations block."""

    face = Connection

    def check(self, node, name, writes, error, words):
        """It says what came from where in answer to what, and whether a write was done."""
        self.assertIsInstance(error, ProtocolError)
        port = node.other.port if name == "rget" else node.port
        self.assertIn(f"127.0.0.1:{port} answered {name} with datatype {words}", error.message)
        self.assertEqual((error.ambiguous, error.key), (writes, "k"))

    def test_refused(self):
        """By the fast path and by that of flexible headers, for all operations; JSON is accepted."""
        for framed in (False, True):
            other = MarkingNode(framed)
            self.addCleanup(other.stop)
            node = MarkingNode(framed, other)
            self.addCleanup(node.stop)
            for options in ({}, {"transcoder": RawTranscoder()}):
                cb = self.face(
                    bucket="b",
                    connection_string=node.string,
                    username="u",
                    password="p",
                    timeout=30,
                    **options,
                )
                self.addCleanup(cb._close)
                raw = "transcoder" in options
                for datatype, words in KINDS:
                    MarkingNode.datatype = datatype
                    for name, operation, writes in () if raw else operations(cb):
                        with self.assertRaises(ProtocolError) as caught:
                            operation()
                        self.check(node, name, writes, caught.exception, words)
                    with self.assertRaises(ProtocolError):
                        cb.get(b"k" if raw else "k")
                MarkingNode.datatype = 0x01
                self.assertEqual(cb.get(b"k" if raw else "k").value, b"12345678" if raw else 12345678)


class BlockingDatatypeTests(FaceMixin, TestCase):
    """The blocking client."""


class GreenletDatatypeTests(InGreenlets, FaceMixin, TestCase):
    """The gevent client."""

    face = GConnection


class TwistedDatatypeTests(FaceMixin, unittest.TestCase):
    """The Twisted client."""

    @inlineCallbacks
    def test_refused(self):
        """By the fast path and by that of flexible headers, for all operations; JSON is accepted."""
        for framed in (False, True):
            other = MarkingNode(framed)
            self.addCleanup(other.stop)
            node = MarkingNode(framed, other)
            self.addCleanup(node.stop)
            cb = TxConnection(
                bucket="b", connection_string=node.string, username="u", password="p", timeout=30
            )
            self.addCleanup(cb._close)
            yield cb.connect()
            for datatype, words in KINDS:
                MarkingNode.datatype = datatype
                for name, operation, writes in operations(cb):
                    error = yield self.assertFailure(operation(), ProtocolError)
                    self.check(node, name, writes, error, words)
            MarkingNode.datatype = 0x01
            result = yield cb.get("k")
            self.assertEqual(result.value, 12345678)


class GatewayDatatypeTests(GatewayTestCase):
    """The gateway."""

    credentials = ("u", "p")

    def setUp(self):
        """Put it in front of such a node."""
        self.node = MarkingNode()
        MarkingNode.datatype = 0x02
        self.options = {"cluster": self.node.string}
        return super().setUp()

    @inlineCallbacks
    def tearDown(self):
        """Stop both."""
        yield super().tearDown()
        self.node.stop()

    @inlineCallbacks
    def test_answers(self):
        """No compressed bytes for a document, and no success for an ambiguous write."""
        path = "/v1/buckets/b/documents/k"
        got = yield self.ask("GET", path)
        body = json.loads(got.body)
        self.assertEqual((got.status, body["exception"], body["retry"]), (503, "ProtocolError", "safe"))
        stored = yield self.ask("PUT", path, b"1")
        body = json.loads(stored.body)
        self.assertEqual(
            (stored.status, body["exception"], body["retry"]), (503, "ProtocolError", "ambiguous")
        )
