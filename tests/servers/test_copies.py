"""Copies of a document: errors if they do not arrive, cannot be observed, or cannot exist."""

import json
from unittest import TestCase

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.trial import unittest

from couchbase import exceptions
from couchbase.connection import Connection
from couchbase.exceptions import (
    ArgumentError,
    AuthError,
    CouchbaseError,
    KeyExistsError,
    NotSupportedError,
    TemporaryFailError,
    TimeoutError,
)
from couchbase.protocol.constants import ObserveState, Opcode, Status
from gcouchbase import GConnection
from tests.couchbase.scripted import ScriptedNode
from tests.gateway.test_behaviour import JSON, D, GatewayTestCase
from tests.gcouchbase.support import InGreenlets
from tests.servers.versions import FEATURES, VersionedNode
from txcouchbase.connection import Connection as TxConnection

SHORT = 0.05
BATCH = "/v1/buckets/default/batch"


class Slow(VersionedNode):
    """A node on which nothing reaches a disk; what OBSERVE says can be changed."""

    said = None
    """Called with the frame before OBSERVE is answered; returns a status to answer with, or ``None``."""
    state = ObserveState.FOUND

    def script(self, peer, frame):
        if frame.opcode != Opcode.OBSERVE:
            super().script(peer, frame)
            return
        status = self.said(frame) if self.said is not None else None
        if status is not None:
            peer.answer(frame, status)
            return
        answer = bytearray(self._observe(frame)["value"])
        size = len(frame.value)
        if answer[size] == ObserveState.PERSISTED:
            answer[size] = self.state
        peer.answer(frame, value=bytes(answer))


class CopiesMixin:
    """For a face whose operations block."""

    face = Connection

    def setUp(self):
        super().setUp()
        self.node = Slow(FEATURES["7.6"])
        self.addCleanup(self.node.stop)
        self.cb = self.face(bucket="b", connection_string=self.node.string, username="u", password="p")
        self.addCleanup(self.cb._close)
        self.cb._durability_timeout = SHORT
        self.cb._durability_interval = 0.001

    def failure(self, kind, function, *args, **keywords):
        """Return the exception that a call raises."""
        with self.assertRaises(kind) as caught:
            function(*args, **keywords)
        return caught.exception

    def test_in_doubt(self):
        """A write that was done and did not reach its copies in time is ambiguous, of each kind."""
        for name, write in (
            ("set", lambda: self.cb.set("k", 1, persist_to=1)),
            ("append", lambda: self.cb.append("t", "x", persist_to=1)),
            ("set", lambda: self.cb.set_multi({"k": 1}, persist_to=1)),
        ):
            self.node.put(b"t", b"x")
            error = self.failure(TimeoutError, write)
            self.assertEqual((error.rc, error.operation), (exceptions.ETIMEDOUT, name))
            self.assertTrue(error.ambiguous)
            self.assertEqual(next(iter(error.all_results.values())).rc, exceptions.ETIMEDOUT)
        self.node.put(b"k", b"1")
        self.node.said = lambda frame: Status.ETMPFAIL
        self.assertTrue(self.failure(TimeoutError, self.cb.delete, "k", persist_to=1).ambiguous)
        self.node.said = None
        error = self.failure(TimeoutError, self.cb.endure, "t", persist_to=1, replicate_to=0, timeout=SHORT)
        self.assertFalse(error.ambiguous)

    def test_overtaken(self):
        """A write that was done and then replaced is reported so; its code is that of SDK 1.2."""
        self.node.said = lambda frame: self.node.put(b"k", b"other")
        for write, words in (
            (lambda: self.cb.set("k", 1, persist_to=1), "stored, then overtaken by another write"),
            (lambda: self.cb.delete("k", persist_to=1), "removed, then overtaken by another write"),
        ):
            self.node.put(b"k", b"1")
            error = self.failure(KeyExistsError, write)
            self.assertEqual((error.rc, error.status, error.ambiguous), (exceptions.KEY_EEXISTS, None, True))
            self.assertIn(words, error.message)
        error = self.failure(
            KeyExistsError, self.cb.endure, "k", cas=5, persist_to=1, replicate_to=0, timeout=SHORT
        )
        self.assertFalse(error.ambiguous)

    def test_unknown_to_the_server(self):
        """A server that does not know OBSERVE is recognised by its first answer."""
        for status, kind in (
            (Status.UNKNOWN_COMMAND, NotSupportedError),
            (Status.NOT_SUPPORTED, NotSupportedError),
            (Status.EACCESS, AuthError),
        ):
            self.node.said = lambda frame, status=status: status
            error = self.failure(kind, self.cb.observe, "k")
            self.assertFalse(error.ambiguous)
            self.assertIn(f"127.0.0.1:{self.node.port}", error.message)
            self.failure(kind, self.cb.endure, "k", persist_to=1, replicate_to=0)
            del self.node.seen[:]
            error = self.failure(kind, self.cb.set, "k", 1, persist_to=1)
            self.assertEqual((error.ambiguous, error.key, error.operation), (True, "k", "set"))
            self.assertTrue(error.result.cas)
            self.assertEqual([frame.opcode for frame in self.node.seen], [Opcode.SET, Opcode.OBSERVE])
            self.assertTrue(self.failure(kind, self.cb.set_multi, {"k": 1}, persist_to=1).ambiguous)

    def test_observed_later(self):
        """A node that cannot tell yet is asked again."""
        answers = [Status.ETMPFAIL, Status.NOT_MY_VBUCKET]
        self.node.said = lambda frame: answers.pop() if answers else None
        self.node.put(b"k", b"1")
        (copy,) = self.cb.observe("k").value
        self.assertEqual((copy.flags, copy.from_master), (ObserveState.FOUND, True))

    def test_no_answer(self):
        """A copy whose node gives no answer is an error that names the node, never left out."""
        self.node.said = lambda frame: Status.ETMPFAIL
        error = self.failure(CouchbaseError, self.cb.observe, "k")
        self.assertIn(f"1 of 1 copies could not be asked: 127.0.0.1:{self.node.port}", error.message)
        self.assertEqual(error.result.value, [])

    def test_unlock(self):
        """An unlock is not repeated: the document is not locked, or with another CAS."""
        self.node.put(b"k", b"1")
        error = self.failure(TemporaryFailError, self.cb.unlock, "k", 5)
        self.assertEqual([frame.opcode for frame in self.node.seen], [Opcode.UNLOCK])
        self.assertFalse(error.ambiguous)

    def test_access(self):
        """A missing permission is not reported as a wrong password."""
        self.node.script = lambda peer, frame: peer.answer(frame, Status.EACCESS)
        error = self.failure(AuthError, self.cb.get, "k")
        self.assertIn("the user lacks the permission; the server answered EACCESS", str(error))

    def test_no_disk(self):
        """Persistence asked of a bucket without a disk is refused before anything is sent."""
        config = json.loads(ScriptedNode.config(self.node))
        for marks, persistent in (
            ({"bucketType": "ephemeral"}, False),
            ({"bucketCapabilities": ["durableWrite", "xattr"]}, False),
            ({"bucketCapabilities": ["couchapi", "xattr"]}, True),
            ({"bucketCapabilities": ["nonDedupedHistory", "xattr"]}, True),
            ({"bucketCapabilities": ["touch"]}, True),
            ({"bucketType": "membase", "bucketCapabilities": ["xattr"]}, True),
            ({}, True),
        ):
            text = json.dumps({**config, **marks}).encode()
            self.node.config = lambda text=text: text
            cb = self.face(bucket="b", connection_string=self.node.string, username="u", password="p")
            self.addCleanup(cb._close)
            cb._durability_timeout = SHORT
            self.node.state = ObserveState.PERSISTED
            del self.node.seen[:]
            for call in (
                lambda cb=cb: cb.set("k", 1, persist_to=1),
                lambda cb=cb: cb.set("k", 1, persist_to=-1),
                lambda cb=cb: cb.set_multi({"k": 1}, persist_to=1),
                lambda cb=cb: cb.endure("k", persist_to=-1, replicate_to=0),
            ):
                if persistent:
                    call()
                    continue
                error = self.failure(ArgumentError, call)
                self.assertEqual(error.rc, exceptions.DURABILITY_ETOOMANY)
                self.assertIn("no disk", error.message)
            self.assertEqual(bool(self.node.seen), persistent, marks)
            cb.set("k", 1)


class BlockingCopiesTests(CopiesMixin, TestCase):
    """The blocking client."""


class GreenletCopiesTests(InGreenlets, CopiesMixin, TestCase):
    """The gevent client."""

    face = GConnection


class TwistedCopiesTests(unittest.TestCase):
    """The Twisted client."""

    @inlineCallbacks
    def setUp(self):
        self.node = Slow(FEATURES["7.6"])
        self.addCleanup(self.node.stop)
        self.cb = TxConnection(bucket="b", connection_string=self.node.string)
        self.addCleanup(self.cb._close)
        self.cb._durability_timeout = SHORT
        self.cb._durability_interval = 0.001
        yield self.cb.connect()

    @inlineCallbacks
    def test_in_doubt(self):
        """A write that did not reach its copies in time is ambiguous, alone and among others."""
        error = yield self.assertFailure(self.cb.set("k", 1, persist_to=1), TimeoutError)
        self.assertTrue(error.ambiguous)
        self.assertEqual((error.result.rc, bool(error.result.cas)), (exceptions.ETIMEDOUT, True))
        error = yield self.assertFailure(self.cb.set_multi({"k": 1}, persist_to=1), TimeoutError)
        self.assertTrue(error.ambiguous)
        endured = self.cb.endure("k", persist_to=1, replicate_to=0, timeout=SHORT)
        error = yield self.assertFailure(endured, TimeoutError)
        self.assertFalse(error.ambiguous)

    @inlineCallbacks
    def test_overtaken(self):
        """A write that was done and overtaken says so."""
        self.node.said = lambda frame: self.node.put(b"k", b"other")
        error = yield self.assertFailure(self.cb.set("k", 1, persist_to=1), KeyExistsError)
        self.assertEqual((error.status, error.ambiguous), (None, True))
        self.assertIn("stored, then overtaken by another write", error.message)

    @inlineCallbacks
    def test_unknown_to_the_server(self):
        """NotSupportedError at the first answer; after a write that was done it is ambiguous."""
        self.node.said = lambda frame: Status.UNKNOWN_COMMAND
        error = yield self.assertFailure(self.cb.observe("k"), NotSupportedError)
        self.assertFalse(error.ambiguous)
        error = yield self.assertFailure(self.cb.set("k", 1, persist_to=1), NotSupportedError)
        self.assertEqual((error.ambiguous, error.key, error.operation), (True, "k", "set"))

    @inlineCallbacks
    def test_observe_connects(self):
        """A node whose connection is not up is connected and asked; one that is gone is named."""
        self.node.put(b"k", b"1")
        for _ in range(3):
            (link,) = self.cb._client.peers.values()
            lost = link.protocol.lost
            self.node.cut()
            yield lost
            found = yield self.cb.observe("k")
            self.assertEqual([copy.from_master for copy in found.value], [True])
        (link,) = self.cb._client.peers.values()
        lost = link.protocol.lost
        self.node.stop()
        yield lost
        error = yield self.assertFailure(self.cb.observe("k"), CouchbaseError)
        self.assertIn(f"1 of 1 copies could not be asked: 127.0.0.1:{self.node.port}", error.message)
        self.assertEqual(link._waiters, [])


class GatewayCopiesTests(GatewayTestCase):
    """The gateway with two nodes that keep nothing on disk."""

    options = {"ephemeral": True, "nodes": "2", "replicas": "1"}

    @inlineCallbacks
    def test_no_disk(self):
        """Persistence is refused at once, and nothing is stored."""
        for value in ("1", "2", "-1"):
            answer = yield self.ask("PUT", D + "e", b"1", X_CB_PersistTo=value, **JSON)
            self.assertEqual(answer.code(), (400, "DurabilityImpossible"))
            self.assertIn("no disk", answer.json()["message"])
        answer = yield self.ask("POST", D + "e/endure", b'{"persistTo":1,"timeout":"1s"}')
        self.assertEqual(answer.code(), (400, "DurabilityImpossible"))
        answer = yield self.ask("PUT", D + "e", b"1", X_CB_DurabilityLevel="PersistToMajority", **JSON)
        self.assertEqual(answer.code(), (400, "DurabilityImpossible"))
        self.assertIn("no disk to persist to", answer.json()["message"])
        lines = b'{"op":"set","key":"e","value":1,"persistTo":1}\n{"op":"get","key":"e"}\n'
        answer = yield self.ask(
            "POST", "/v1/buckets/default/batch", lines, Content_Type="application/x-ndjson"
        )
        answers = sorted(map(json.loads, answer.body.splitlines()), key=lambda line: line["index"])
        self.assertEqual(
            [line["error"]["code"] for line in answers], ["DurabilityImpossible", "DocumentNotFound"]
        )

    @inlineCallbacks
    def test_overtaken(self):
        """Writers of one document that wait for copies: done, or in doubt, never a false condition."""
        answers = yield gatherResults(
            [self.ask("PUT", D + "conc", b"%d" % n, X_CB_ReplicateTo="1", **JSON) for n in range(30)]
        )
        for answer in answers:
            if answer.status != 200:
                self.assertEqual(answer.code(), (408, "DurabilityAmbiguous"))
                self.assertEqual(answer.json()["retry"], "ambiguous")
                self.assertIn("overtaken by another write", answer.json()["message"])
        lines = b"".join(b'{"op":"set","key":"b","value":%d,"replicateTo":1}\n' % n for n in range(20))
        answer = yield self.ask(
            "POST", "/v1/buckets/default/batch", lines, Content_Type="application/x-ndjson"
        )
        for line in map(json.loads, answer.body.splitlines()):
            if "error" in line:
                self.assertEqual(line["error"]["code"], "DurabilityAmbiguous")
                self.assertEqual(line["error"]["retry"], "ambiguous")
