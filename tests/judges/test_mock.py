"""Against CouchbaseMock: old in what it offers, and written by the makers of the original SDK."""

import os
import subprocess
import sys
from unittest import TestCase

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.trial import unittest

from couchbase.connection import Connection
from couchbase.exceptions import (
    ArgumentError,
    HTTPError,
    KeyExistsError,
    NotFoundError,
    NotSupportedError,
    TemporaryFailError,
    TimeoutError,
)
from couchbase.user_constants import FMT_UTF8
from gcouchbase import GConnection
from tests.gateway.test_behaviour import JSON, GatewayTestCase
from tests.gcouchbase.support import InGreenlets
from tests.judges.mock import missing, shared
from txcouchbase import http
from txcouchbase.agentclient import AgentClient
from txcouchbase.connection import Connection as TxConnection
from txcouchbase.webclient import WebClient

D = "/v1/buckets/protected/documents/"


class OperationsMixin:
    """Operations of a face that blocks."""

    skip = missing()
    face = Connection
    nodes, replicas = 1, 0

    def setUp(self):
        super().setUp()
        if self.skip:
            self.skipTest(self.skip)
        self.mock = shared(self.nodes, self.replicas)
        self.cb = self.face(bucket="default", connection_string=self.mock.string, timeout=30)
        self.addCleanup(self.cb._close)
        self.cb.delete_multi(["k", "t", "n", "a"], quiet=True)

    def test_documents(self):
        """Every operation on documents, and its errors."""
        cb = self.cb
        cas = cb.add("k", {"a": 1}).cas
        self.assertEqual((cb.get("k").value, cb.get("k").cas), ({"a": 1}, cas))
        self.assertRaises(KeyExistsError, cb.add, "k", 1)
        self.assertRaises(KeyExistsError, cb.set, "k", 1, cas=cas + 1)
        cb.replace("k", 2, cas=cas)
        cb.set("t", "a", format=FMT_UTF8)
        cb.append("t", "b")
        cb.prepend("t", "c")
        self.assertEqual(cb.get("t").value, "cab")
        self.assertEqual(
            (cb.incr("n", initial=5).value, cb.incr("n", 2).value, cb.decr("n").value), (5, 7, 6)
        )
        cb.touch("k", ttl=100)
        self.assertEqual(cb.get("k", ttl=50).value, 2)
        cb.set_multi({f"m{n}": n for n in range(100)})
        self.assertEqual(cb.get_multi([f"m{n}" for n in range(100)])["m7"].value, 7)
        cb.delete("k")
        self.assertRaises(NotFoundError, cb.get, "k")

    def test_collections(self):
        """It has none: a named one is refused at once, the default one is used by either name."""
        cb, named = self.cb, self.cb.collection("c", "s")
        cb.set("k", 1)
        for call in (named.get, named.observe, named.delete):
            self.assertRaises(NotSupportedError, call, "k")
        self.assertRaises(NotSupportedError, named.get_multi, ["k"])
        self.assertEqual(cb.collection("_default").get("k").value, 1)
        self.assertEqual(cb.get("k").value, 1)

    def test_what_it_does_not_offer(self):
        """It is not sent; neighbouring operations are not affected; documents are still stored and read."""
        cb = self.cb
        for number in range(5):
            self.assertRaises(NotSupportedError, cb.set, "k", 1, durability_level=1)
            cb.set("a", number, preserve_expiry=True)
            found = cb.get_with_expiry("a")
            self.assertEqual((found.value, found.expiry), (number, 0))
        self.assertRaises(NotFoundError, cb.get_with_expiry, "k")
        self.assertRaises(NotFoundError, cb.replace, "k", 1, preserve_expiry=True)

    def test_locks(self):
        """A wrong unlock fails at once, though the mock calls it a temporary failure."""
        cb = self.cb
        cb.set("k", 1)
        locked = cb.lock("k", ttl=10)
        self.assertRaises(TemporaryFailError, cb.unlock, "k", locked.cas + 1)
        cb.unlock("k", locked.cas)
        self.assertRaises(TemporaryFailError, cb.unlock, "k", locked.cas)

    def test_copies(self):
        """Each copy is observed and waited for; more than there are is refused."""
        cb = self.cb
        cb.set("k", 1, persist_to=-1, replicate_to=-1)
        copies = cb.observe("k").value
        self.assertEqual(sorted(copy.from_master for copy in copies), [False] * self.replicas + [True])
        self.assertRaises(ArgumentError, cb.set, "k", 1, persist_to=self.replicas + 2)
        if self.replicas:
            self.assertEqual(cb.get("k", replica=True).value, 1)
            # It never persists a removal on replicas.
            cb._durability_timeout = 0.1
            with self.assertRaises(TimeoutError) as caught:
                cb.delete("k", persist_to=-1, replicate_to=-1)
            self.assertTrue(caught.exception.ambiguous)
            self.assertRaises(NotFoundError, cb.get, "k")

    def test_memcached_bucket(self):
        """A bucket without vbuckets is not supported, and that is said."""
        string = f"http://127.0.0.1:{self.mock.rest_port}"
        with self.assertRaises(NotSupportedError) as caught:
            self.face(bucket="cache", connection_string=string)
            if self.face is GConnection:
                raise AssertionError("it connected")
        self.assertIn("memcached", str(caught.exception))


class BlockingOneNodeTests(OperationsMixin, TestCase):
    """The blocking client, one node."""


class BlockingFourNodesTests(OperationsMixin, TestCase):
    """The blocking client, four nodes and two replicas."""

    nodes, replicas = 4, 2


class GreenletFourNodesTests(InGreenlets, OperationsMixin, TestCase):
    """The gevent client."""

    face = GConnection
    nodes, replicas = 4, 2


class TwistedTests(unittest.TestCase):
    """The Twisted client, four nodes and two replicas."""

    skip = missing()
    timeout = 120

    @inlineCallbacks
    def test_documents(self):
        """Operations, alone, together and in order."""
        string = shared(4, 2).string
        cb = TxConnection(bucket="default", connection_string=string, timeout=30)
        self.addCleanup(cb._close)
        yield cb.connect()
        yield cb.set_multi({f"x{n}": n for n in range(200)})
        found = yield gatherResults([cb.get(f"x{n}") for n in range(200)])
        self.assertEqual([result.value for result in found], list(range(200)))
        self.assertEqual(cb._client.problem, None)
        results = yield gatherResults(
            [
                cb.set("o", 1, preserve_expiry=True),
                cb.get("o"),
                cb.set("o", 2, preserve_expiry=True),
                cb.get_with_expiry("o"),
            ]
        )
        self.assertEqual([results[1].value, results[3].value], [1, 2])
        yield self.assertFailure(cb.set("o", 1, durability_level=1), NotSupportedError)
        self.assertEqual(len((yield cb.observe("o")).value), 3)

    @inlineCallbacks
    def test_views(self):
        """Design documents, queries and refusals, with either client for HTTP."""
        for client in (WebClient, AgentClient):
            self.patch(http, "_Client", client)
            cb = TxConnection(bucket="default", connection_string=shared(1, 0).string, timeout=30)
            self.addCleanup(lambda cb=cb: cb._http.close())
            self.addCleanup(cb._close)
            yield cb.set_multi({f"v{n}": {"kind": "v", "n": n} for n in range(50)})
            views = {
                "n": {"map": "function (doc, meta) { if (doc.kind == 'v') emit(doc.n, null); }"},
                "count": {
                    "map": "function (doc, meta) { if (doc.kind == 'v') emit(doc.n % 5, 1); }",
                    "reduce": "_count",
                },
            }
            yield cb.design_create("d", {"views": views}, use_devmode=False)
            for options, keys in (
                ({}, list(range(50))),
                ({"limit": 2, "descending": True}, [49, 48]),
                ({"keys": [7, 3]}, [3, 7]),
                # Sent as the body of a POST.
                ({"keys": list(range(40, 1000))}, list(range(40, 50))),
            ):
                view = yield cb.queryAll("d", "n", **options)
                self.assertEqual(sorted(row.key for row in view), sorted(keys))
                self.assertEqual({row.docid for row in view}, {f"v{key}" for key in keys})
            view = yield cb.queryAll("d", "count", group=True)
            self.assertEqual([(row.key, row.value) for row in view], [(n, 10) for n in range(5)])
            refused = yield self.assertFailure(cb.queryAll("d", "none"), HTTPError)
            self.assertEqual(refused.objextra.http_status, 404)
            status, _, body = yield cb.management_request("HEAD", "/pools/default")
            self.assertEqual((status, body), (200, b""))
            yield cb.design_delete("d", use_devmode=False)


class GatewayTests(GatewayTestCase):
    """The gateway, in front of one node."""

    skip = missing()
    credentials = ("protected", "secret")

    @inlineCallbacks
    def setUp(self):
        self.options = {"cluster": shared(1, 0).string_of("protected")}
        yield GatewayTestCase.setUp(self)

    @inlineCallbacks
    def test_documents(self):
        """Documents are stored, read, counted, locked and removed."""
        yield self.ask("DELETE", D + "g")
        stored = yield self.ask("PUT", D + "g", b"1", **JSON)
        self.assertEqual(stored.status, 200, stored.body)
        read = yield self.ask("GET", D + "g")
        self.assertEqual((read.status, read.body), (200, b"1"))
        refused = yield self.ask("PUT", D + "g", b"2", X_CB_DurabilityLevel="Majority", **JSON)
        self.assertEqual(refused.code(), (501, "NotSupported"))
        answers = yield gatherResults(
            [self.ask("PUT", f"{D}g{number}", b"%d" % number, **JSON) for number in range(50)]
        )
        self.assertEqual({answer.status for answer in answers}, {200})
        locked = yield self.ask("POST", D + "g/lock", b"{}")
        self.assertEqual(locked.status, 200)
        unlocked = yield self.ask("POST", D + "g/unlock", If_Match=locked.header("ETag"))
        self.assertEqual(unlocked.status, 200)
        self.assertEqual((yield self.ask("GET", D + "g/observe")).status, 200)
        removed = yield self.ask("DELETE", D + "g")
        self.assertEqual(removed.status, 200, removed.body)


class ProcessTests(TestCase):
    """The mock's process."""

    skip = missing()

    def test_nothing_is_left(self):
        """A shared mock has ended when the process that started it has."""
        program = "from tests.judges.mock import shared; print(shared(1, 0).pid)"
        text = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE).stdout
        self.assertRaises(ProcessLookupError, os.kill, int(text), 0)
