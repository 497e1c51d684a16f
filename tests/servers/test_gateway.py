"""The gateway in front of servers from 5.0 to 8."""

import json
import time

from twisted.internet.defer import gatherResults, inlineCallbacks

from tests.gateway.test_behaviour import JSON, GatewayTestCase
from tests.servers.test_srv import NameServer
from tests.servers.versions import BOTH, FEATURES, MOCK, VATTRS, VersionedNode

D = "/v1/buckets/b/documents/"


class BehindNode(GatewayTestCase):
    """A gateway in front of a scripted node."""

    credentials = ("u", "p")
    node = None

    def setUp(self):
        """Nothing runs before a test chooses its server."""

    @inlineCallbacks
    def tearDown(self):
        """Stop what a failed test left."""
        if self.node is not None:
            yield self.end(self.node)

    @inlineCallbacks
    def behind(self, features, **options):
        """Start a node, and a gateway in front of it."""
        node = self.node = VersionedNode(features, **options)
        self.options = {"cluster": node.string}
        yield GatewayTestCase.setUp(self)
        return node

    @inlineCallbacks
    def end(self, node):
        """Stop both."""
        self.node = None
        yield GatewayTestCase.tearDown(self)
        node.stop()
        self.assertEqual(node.violations, [])


class VersionTests(BehindNode):
    """Documents, alone and in batches."""

    @inlineCallbacks
    def test_readme(self):
        """PUT and GET as in the README work on every version, and a plain PUT keeps the expiry."""
        for version, features in FEATURES.items():
            node = yield self.behind(features, vattrs=VATTRS.get(version, BOTH))
            stored = yield self.ask("PUT", D + "k", b"1", Expires="300s", **JSON)
            self.assertEqual(stored.status, 200, version)
            moment = node.expire_at(b"k")
            self.assertGreater(moment, time.time())
            stored = yield self.ask("PUT", D + "k", b"2", **JSON)
            self.assertEqual((stored.status, node.expire_at(b"k")), (200, moment), version)
            read = yield self.ask("GET", D + "k")
            self.assertEqual((read.status, read.body), (200, b"2"), version)
            self.assertTrue(read.header("Expires"), version)
            replaced = yield self.ask("PUT", D + "k", b"3", If_Match=stored.header("ETag"), **JSON)
            self.assertEqual((replaced.status, node.expire_at(b"k")), (200, moment), version)
            yield self.end(node)

    @inlineCallbacks
    def test_batch(self):
        """The lines of a batch, too, and in order."""
        for features in FEATURES.values():
            node = yield self.behind(features)
            node.put(b"k", b"0", expiry=int(time.time()) + 999)
            lines = b"".join(
                b'{"op":"set","key":"k","value":%d}\n{"op":"get","key":"k"}\n' % number for number in range(5)
            )
            answer = yield self.ask("POST", "/v1/buckets/b/batch", lines, Content_Type="application/x-ndjson")
            answers = [json.loads(line) for line in answer.body.splitlines()]
            values = {line["index"]: line.get("value") for line in answers}
            self.assertEqual([values[n] for n in range(1, 10, 2)], [0, 1, 2, 3, 4])
            self.assertGreater(node.expire_at(b"k"), 0)
            yield self.end(node)

    @inlineCallbacks
    def test_durability(self):
        """A level that the server does not know is 501, names what is missing, and does not affect others."""
        node = yield self.behind(FEATURES["6.0"])
        answers = yield gatherResults(
            [
                self.ask("PUT", f"{D}k{number}", b"1", **JSON, **headers)
                for number in range(10)
                for headers in ({}, {"X_CB_DurabilityLevel": "Majority"})
            ]
        )
        self.assertEqual([answer.status for answer in answers], [200, 501] * 10)
        self.assertEqual(answers[1].code(), (501, "NotSupported"))
        self.assertIn("Couchbase Server 6.5", answers[1].json()["message"])
        yield self.end(node)

    @inlineCallbacks
    def test_without_virtual_attributes(self):
        """If no expiry can be read, documents are still stored and read."""
        node = yield self.behind(MOCK, vattrs=())
        for number in range(3):
            stored = yield self.ask("PUT", D + "k", b"%d" % number, **JSON)
            read = yield self.ask("GET", D + "k")
            self.assertEqual((stored.status, read.status, read.body), (200, 200, b"%d" % number))
            self.assertEqual(read.header("Expires"), None)
        yield self.end(node)


class OtherClusterTests(BehindNode):
    """Buckets that are not served, and clusters by name."""

    @inlineCallbacks
    def test_memcached_bucket(self):
        """A memcached bucket is 501 NotSupported, which is not worth another try."""
        node = VersionedNode(FEATURES["7.6"])
        node.config = lambda: json.dumps({"name": "b", "nodeLocator": "ketama", "nodes": []}).encode()
        self.node, self.options = node, {"cluster": node.string}
        yield GatewayTestCase.setUp(self)
        for method, body in (("GET", b""), ("PUT", b"1")):
            answer = yield self.ask(method, D + "k", body, **(JSON if body else {}))
            problem = json.loads(answer.body)
            self.assertEqual(
                (answer.status, problem["code"], problem["retry"]), (501, "NotSupported", "never")
            )
            self.assertIn("memcached", problem["message"])
        yield self.end(node)

    @inlineCallbacks
    def test_cluster_by_name(self):
        """A cluster that is known to DNS alone is served, and ready."""
        node = VersionedNode(FEATURES["7.6"])
        names = NameServer([(0, 0, node.port, "127.0.0.1")])
        self.addCleanup(names.stop)
        self.node = node
        self.options = {"cluster": f"couchbase://cluster.test?nameserver=127.0.0.1:{names.port}"}
        yield GatewayTestCase.setUp(self)
        stored = yield self.ask("PUT", D + "k", b"1", **JSON)
        self.assertEqual((stored.status, node.documents[b"k"].value), (200, b"1"))
        ready = yield self.ask("GET", "/ready")
        self.assertEqual(ready.status, 200, ready.body)
        yield self.end(node)
