"""The REST interface over a socket: the answers of each path, by caller, and the refusals."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Generator
from typing import Any
from urllib.parse import urlencode

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from couchnode.rest import edge as httpedge
from couchnode.service import EmbeddedNode

Steps = Generator[Deferred[Any], Any, Any]
ADMIN = ("Administrator", "password")
BUCKETS = "/pools/default/buckets"


class Exchange(Protocol):
    """One connection, spoken by hand: sends bytes, collects what comes."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Collect."""
        self.data += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Note the end."""
        self.lost = True
        self.closed.callback(None)


class Answer:
    """A parsed response."""

    def __init__(self, data: bytes) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        self.status = int(first.split()[1])
        self.headers = {
            name.lower().decode(): value.strip().decode()
            for name, _, value in (line.partition(b":") for line in lines)
        }
        self.body = body

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class RestCase(TestCase):
    """A node in memory with an administrator, a bucket ``default`` that has no password, and ``private``;
    closed to strangers unless ``open_buckets``."""

    timeout = 120
    nodes = 1
    replicas = 0
    buckets: list[tuple[str, str | None]] = [("default", None), ("private", "pw")]
    open_buckets = False

    @inlineCallbacks
    def setUp(self) -> Steps:
        self.exchanges: list[Exchange] = []
        self.node = EmbeddedNode(
            None,
            nodes=self.nodes,
            replicas=self.replicas,
            users=[ADMIN],
            buckets=self.buckets,
            quota_bytes=2**27,
            open_buckets=self.open_buckets,
        )
        yield self.node.start()
        self.cluster = self.node.cluster

    @inlineCallbacks
    def tearDown(self) -> Steps:
        yield self.node.stop()
        for exchange in self.exchanges:
            if not exchange.lost:
                exchange.transport.abortConnection()
                yield exchange.closed

    @inlineCallbacks
    def connect(self, node: int = 0) -> Steps:
        """Open a connection to a node's REST port."""
        port = self.cluster.nodes[node].address.rest_port
        exchange = yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Exchange())
        self.exchanges.append(exchange)
        return exchange

    @inlineCallbacks
    def ask(
        self,
        path: str,
        method: str = "GET",
        auth: tuple[str, str] | None = ADMIN,
        form: dict[str, str] | bytes | None = None,
        node: int = 0,
        headers: str = "",
    ) -> Steps:
        """Send one request on a new connection and return the answer."""
        exchange = yield self.connect(node)
        body = form if isinstance(form, bytes) else urlencode(form or {}).encode()
        exchange.transport.write(head(method, path, auth, headers, len(body)) + body)
        yield exchange.closed
        return Answer(exchange.data)


def head(method: str, path: str, auth: tuple[str, str] | None, headers: str = "", length: int = 0) -> bytes:
    """Return the head of a request after which the connection closes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", "Connection: close"]
    if auth is not None:
        lines.append("Authorization: Basic " + b64encode(":".join(auth).encode()).decode())
    return "\r\n".join([*lines, headers] if headers else lines).encode() + b"\r\n\r\n"


class ReadTests(RestCase):
    """Requests that read."""

    nodes = 2
    replicas = 1

    @inlineCallbacks
    def test_discovery(self) -> Steps:
        """From / to /pools to the pool to the bucket, each link works, and the answers name the caller."""
        self.assertEqual((yield self.ask("/")).status, 200)
        pools = (yield self.ask("/pools", auth=("private", "pw"))).json
        self.assertFalse(pools["isAdminCreds"])
        self.assertTrue((yield self.ask("/pools")).json["isAdminCreds"])
        pool = (yield self.ask(pools["pools"][0]["uri"])).json
        self.assertEqual([node["status"] for node in pool["nodes"]], ["healthy", "healthy"])
        self.assertEqual(pool["storageTotals"]["ram"]["quotaTotal"], 2 * 2 * 2**27)
        listed = (yield self.ask(pool["buckets"]["uri"])).json
        self.assertEqual([bucket["name"] for bucket in listed], ["default", "private"])
        self.assertEqual((yield self.ask(listed[0]["uri"])).json["uuid"], listed[0]["uuid"])
        terse = yield self.ask(pool["buckets"]["terseBucketsBase"] + "default")
        self.assertEqual(terse.json["uuid"], listed[0]["uuid"])

    @inlineCallbacks
    def test_each_node_answers_for_itself(self) -> Steps:
        """All nodes give the same map and revision; thisNode is the one that was asked."""
        answers = []
        for index in range(2):
            answers.append((yield self.ask("/pools/default/b/default", node=index)).json)
        self.assertEqual(answers[0]["vBucketServerMap"], answers[1]["vBucketServerMap"])
        self.assertEqual(answers[0]["rev"], answers[1]["rev"])
        for index, answer in enumerate(answers):
            self.assertEqual(
                [entry.get("thisNode", False) for entry in answer["nodesExt"]], [index == 0, index == 1]
            )
            self.assertEqual(
                answer["vBucketServerMap"]["serverList"], [f"127.0.0.1:{port}" for port in self.node.kv_ports]
            )

    @inlineCallbacks
    def test_cluster_level(self) -> Steps:
        """nodeServices has nodes and ports, and no bucket."""
        document = (yield self.ask("/pools/default/nodeServices")).json
        self.assertNotIn("name", document)
        self.assertEqual([entry["services"]["kv"] for entry in document["nodesExt"]], self.node.kv_ports)

    @inlineCallbacks
    def test_parts_of_a_bucket(self) -> Steps:
        """Its nodes, statistics, scopes, and a random key once there is one."""
        nodes = (yield self.ask(f"{BUCKETS}/default/nodes")).json
        self.assertEqual(len(nodes["servers"]), 2)
        empty = yield self.ask(f"{BUCKETS}/default/localRandomKey")
        self.assertEqual((empty.status, empty.json["ok"]), (404, False))
        vbid = next(i for i, row in enumerate(self.cluster.bucket("default").rows) if row[0] == 0)
        self.cluster.nodes[0].buckets["default"].vbuckets[vbid].store(0, b"\0k", b"v")
        found = yield self.ask(f"{BUCKETS}/default/localRandomKey")
        self.assertEqual((found.status, found.json), (200, {"ok": True, "key": "k"}))
        samples = (yield self.ask(f"{BUCKETS}/default/stats")).json["op"]["samples"]
        self.assertEqual(samples["curr_items"], [1])
        bucket = (yield self.ask(f"{BUCKETS}/default")).json
        self.assertEqual(bucket["basicStats"]["itemCount"], 1)
        scopes = (yield self.ask(f"{BUCKETS}/default/scopes")).json
        self.assertEqual([scope["name"] for scope in scopes["scopes"]], ["_default"])
        self.assertEqual((yield self.ask("/settings/viewUpdateDaemon")).json["updateInterval"], 5000)

    @inlineCallbacks
    def test_unknown_things(self) -> Steps:
        """Paths and buckets that do not exist: 404 with the words that clients look for."""
        for path in (
            "/nothing",
            "/pools/other",
            f"{BUCKETS}/nope",
            "/pools/default/b/nope",
            "/pools/default/bs/nope",
        ):
            answer = yield self.ask(path)
            self.assertEqual((answer.status, answer.body), (404, b"Requested resource not found."), path)
        answer = yield self.ask("/pools", method="PUT")
        self.assertEqual((answer.status, answer.headers["allow"]), (405, "GET, HEAD"))
        for path, method in (("/nothing", "GET"), ("/pools", "PUT")):
            answer = yield self.ask(path, method=method, auth=(ADMIN[0], "wrong"))
            self.assertEqual((answer.status, "www-authenticate" in answer.headers), (401, True), path)
        stale = yield self.ask(f"{BUCKETS}/default?bucket_uuid=0")
        self.assertEqual((stale.status, stale.body), (404, b"Bucket uuid does not match the requested."))

    @inlineCallbacks
    def test_odd_requests_of_the_official_client(self) -> Steps:
        """An empty Connection header keeps the connection; lower-case names and a lone ``?`` do no harm."""
        exchange = yield self.connect()
        for _ in range(2):
            exchange.data = b""
            exchange.transport.write(
                b"GET /pools? HTTP/1.1\r\nhost: localhost\r\nconnection:\r\nauthorization: Basic "
                + b64encode(":".join(ADMIN).encode())
                + b"\r\n\r\n"
            )
            while b"}]}" not in exchange.data:
                yield deferLater(reactor, 0.005)
            self.assertEqual(Answer(exchange.data).status, 200)
        self.assertFalse(exchange.lost)


class RightsTests(RestCase):
    """Access if buckets without a password are open."""

    open_buckets = True

    @inlineCallbacks
    def test_table_of_rights(self) -> Steps:
        """Administrators have access to everything, bucket users to their bucket, anonymous callers to the
        open one."""
        bucket, wrong, stranger = ("private", "pw"), ("private", "wrong"), ("ghost", "pw")
        wrong_open = ("default", "wrong")
        for path, expected in {
            "/": {None: 200, wrong: 401},
            "/pools": {None: 200, wrong: 401, stranger: 401},
            "/pools/default": {None: 200, ADMIN: 200, bucket: 200, wrong: 401, stranger: 401},
            BUCKETS: {None: 200, ADMIN: 200, bucket: 200, wrong: 401},
            "/pools/default/nodeServices": {None: 200, bucket: 200, wrong: 401},
            "/pools/default/b/default": {None: 200, ADMIN: 200, bucket: 200, wrong_open: 401},
            "/pools/default/b/private": {
                None: 401,
                ADMIN: 200,
                bucket: 200,
                wrong: 401,
                ("default", ""): 403,
            },
            f"{BUCKETS}/private": {None: 401, bucket: 200},
            f"{BUCKETS}/private/stats": {None: 401, bucket: 200},
            "/pools/default/b/nope": {None: 401, bucket: 403, ADMIN: 404},
            "/settings/viewUpdateDaemon": {None: 401, bucket: 403, ADMIN: 200},
        }.items():
            for auth, status in expected.items():
                answer = yield self.ask(path, auth=auth)
                self.assertEqual(answer.status, status, (path, auth))
                self.assertEqual(
                    answer.headers.get("www-authenticate"),
                    'Basic realm="Couchbase Server Admin / REST"' if status == 401 else None,
                )

    @inlineCallbacks
    def test_administration_is_for_administrators(self) -> Steps:
        """Every change: 401 without credentials, 403 with a bucket's, and nothing happens; but a bucket's
        own user may flush it, like users with the role bucket_full_access."""
        for method, path in [
            ("POST", BUCKETS),
            ("POST", f"{BUCKETS}/private"),
            ("POST", f"{BUCKETS}/private/controller/doFlush"),
            ("DELETE", f"{BUCKETS}/private"),
        ]:
            form = {"name": "made", "ramQuotaMB": "100"}
            self.assertEqual((yield self.ask(path, method, None, form)).status, 401)
            answer = yield self.ask(path, method, ("private", "pw"), form)
            if path.endswith("doFlush"):
                self.assertEqual(answer.status, 200)
                continue
            self.assertEqual(answer.status, 403)
            self.assertIn("permissions", answer.json)
        self.assertEqual(sorted(self.cluster.buckets), ["default", "private"])

    @inlineCallbacks
    def test_lists_show_what_one_may_use(self) -> Steps:
        """Anonymous callers see the open bucket, a bucket user also the user's own, the administrator all."""
        for auth, names in [
            (None, ["default"]),
            (("private", "pw"), ["default", "private"]),
            (ADMIN, ["default", "private"]),
        ]:
            listed = (yield self.ask(BUCKETS, auth=auth)).json
            self.assertEqual([bucket["name"] for bucket in listed], names)

    @inlineCallbacks
    def test_malformed_credentials(self) -> Steps:
        """Anything but one well-formed Basic header is refused as wrong credentials are."""
        for value in (
            "Bearer x",
            "Basic",
            "Basic !!!",
            "Basic " + b64encode(b"nocolon").decode(),
            "Basic /////w==",
        ):
            answer = yield self.ask("/pools", auth=None, headers=f"Authorization: {value}")
            self.assertEqual((answer.status, answer.body), (401, b""), value)
        answer = yield self.ask("/pools", headers="Authorization: Basic eA==")
        self.assertEqual(answer.status, 401)

    @inlineCallbacks
    def test_without_an_open_bucket_nobody_gets_in(self) -> Steps:
        """Once ``default`` has a password, lists and nodes need credentials."""
        yield self.cluster.set_bucket_password("default", "pw")
        for path in ("/pools/default", BUCKETS, "/pools/default/nodeServices", "/pools/default/b/default"):
            self.assertEqual((yield self.ask(path, auth=None)).status, 401, path)
        self.assertEqual((yield self.ask("/pools/default/b/default", auth=("default", "pw"))).status, 200)


class AdministrationTests(RestCase):
    """Buckets come and go."""

    @inlineCallbacks
    def test_life_of_a_bucket(self) -> Steps:
        """Create 202, edit 200, flush 200, delete 200, each with an empty body, and then it is gone."""
        made = yield self.ask(
            BUCKETS, "POST", form={"name": "a%b", "ramQuotaMB": "100", "replicaNumber": "0"}
        )
        self.assertEqual((made.status, made.body), (202, b""))
        path = f"{BUCKETS}/a%25b"
        self.assertEqual((yield self.ask(path)).json["quota"]["rawRAM"], 100 * 2**20)
        refused = yield self.ask(f"{path}/controller/doFlush", "POST")
        self.assertEqual((refused.status, refused.json), (400, {"_": "Flush is disabled for the bucket"}))
        # The official client begins such a body with an ampersand.
        edited = yield self.ask(path, "POST", form=b"&flushEnabled=1&ramQuotaMB=120")
        self.assertEqual((edited.status, edited.body), (200, b""))
        bucket = (yield self.ask(path)).json
        self.assertEqual(bucket["quota"]["rawRAM"], 120 * 2**20)
        self.assertIn("flush", bucket["controllers"])
        self.assertEqual((yield self.ask(bucket["controllers"]["flush"], "POST")).status, 200)
        gone = yield self.ask(path, "DELETE")
        self.assertEqual((gone.status, gone.body), (200, b""))
        for method in ("GET", "POST", "DELETE"):
            answer = yield self.ask(path, method)
            self.assertEqual((answer.status, answer.body), (404, b"Requested resource not found."))
        self.assertEqual((yield self.ask(f"{path}/controller/doFlush", "POST")).status, 404)

    @inlineCallbacks
    def test_bucket_with_a_password_has_a_user(self) -> Steps:
        """saslPassword makes a login named like the bucket."""
        form = {"name": "old", "ramQuotaMB": "100", "authType": "sasl", "saslPassword": "pw"}
        yield self.ask(BUCKETS, "POST", form=form)
        self.assertEqual((yield self.ask("/pools/default/b/old", auth=("old", "pw"))).status, 200)
        self.assertEqual((yield self.ask("/pools/default/b/old", auth=("old", ""))).status, 401)

    @inlineCallbacks
    def test_bad_fields_are_named(self) -> Steps:
        """400, with the text for each field under its name."""
        for form, errors in [
            ({"name": "default", "ramQuotaMB": "100"}, {"name": "Bucket with given name already exists"}),
            ({"ramQuotaMB": "100"}, {"name": "Bucket name needs to be specified"}),
            ({"name": "x", "ramQuotaMB": "1"}, {"ramQuotaMB": "RAM quota cannot be less than 100 MiB"}),
            (b"name=x&name=y&ramQuotaMB=100", {"name": "is given more than once, with different values"}),
        ]:
            answer = yield self.ask(BUCKETS, "POST", form=form)
            self.assertEqual((answer.status, answer.json), (400, {"errors": errors, "summaries": {}}))
        for body in (b'{"name": "x"}', b"\xff=1", b"name", b"&".join(b"f%d=1" % i for i in range(101))):
            answer = yield self.ask(BUCKETS, "POST", form=body)
            self.assertEqual(answer.status, 400, body[:20])
            self.assertIn("the body must be a form", answer.json["errors"]["_"])

    @inlineCallbacks
    def test_a_field_may_be_repeated_with_one_value(self) -> Steps:
        """The Go client sends maxTTL twice; only different values are refused, and change nothing."""
        path = f"{BUCKETS}/default"
        answer = yield self.ask(path, "POST", form=b"maxTTL=10&maxTTL=10")
        self.assertEqual(answer.status, 200)
        answer = yield self.ask(path, "POST", form=b"maxTTL=11&maxTTL=12")
        self.assertEqual(answer.status, 400)
        self.assertEqual((yield self.ask(path)).json["maxTTL"], 10)

    @inlineCallbacks
    def test_two_at_a_time(self) -> Steps:
        """If two requests create one name, one succeeds and the other is refused because it exists."""
        form = {"name": "race", "ramQuotaMB": "100"}
        answers = yield DeferredList([self.ask(BUCKETS, "POST", form=form) for _ in range(2)])
        self.assertEqual(sorted(answer.status for _, answer in answers), [202, 400])

    @inlineCallbacks
    def test_a_fault_of_ours_is_logged_not_shown(self) -> Steps:
        """An unexpected error is a 500 without a traceback, and a line in the log."""
        self.patch(self.cluster, "flush_bucket", lambda name: 1 / 0)
        answer = yield self.ask(f"{BUCKETS}/default/controller/doFlush", "POST")
        self.assertEqual(
            (answer.status, answer.json), (500, ["Internal server error: unexpected server error"])
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class StreamTests(RestCase):
    """Responses that do not end."""

    @inlineCallbacks
    def documents(self, exchange: Exchange, count: int) -> Steps:
        """Wait until that many documents have come, and return them."""
        for _ in range(2000):
            documents = unchunked(exchange.data).split(b"\n\n\n\n")
            if len(documents) > count:
                return [json.loads(document) for document in documents[:count]]
            yield deferLater(reactor, 0.005)
        raise AssertionError(f"{count} documents did not come: {exchange.data[-500:]!r}")

    @inlineCallbacks
    def open(self, path: str, auth: tuple[str, str] | None = ADMIN) -> Steps:
        """Open a stream."""
        exchange = yield self.connect()
        exchange.transport.write(head("GET", path, auth).replace(b"Connection: close\r\n", b""))
        return exchange

    @inlineCallbacks
    def test_bucket_streams(self) -> Steps:
        """One document at once, one more with each change of that bucket; the end when it is deleted."""
        for base in ("/pools/default/bs/", "/pools/default/bucketsStreaming/"):
            form = {"name": "made", "ramQuotaMB": "100"}
            yield self.ask(BUCKETS, "POST", form=form)
            exchange = yield self.open(base + "made")
            (first,) = yield self.documents(exchange, 1)
            self.assertEqual(first["name"], "made")
            yield self.ask(
                f"{BUCKETS}/default", "POST", form={"flushEnabled": "0"}
            )  # another bucket's change
            yield self.ask(f"{BUCKETS}/made", "POST", form={"replicaNumber": "0"})
            _, second = yield self.documents(exchange, 2)
            self.assertGreater(second["rev"], first["rev"])
            self.assertEqual(second["vBucketServerMap"]["numReplicas"], 0)
            yield self.ask(f"{BUCKETS}/made", "DELETE")
            while not exchange.data.endswith(b"0\r\n\r\n"):
                yield deferLater(reactor, 0.005)
            self.assertEqual(unchunked(exchange.data).count(b"\n\n\n\n"), 2)

    @inlineCallbacks
    def test_cluster_streams(self) -> Steps:
        """The pool is sent again when buckets change; the node list has no reason to be."""
        pool = yield self.open("/poolsStreaming/default")
        nodes = yield self.open("/pools/default/nodeServicesStreaming")
        yield self.documents(pool, 1)
        yield self.documents(nodes, 1)
        yield self.ask(BUCKETS, "POST", form={"name": "made", "ramQuotaMB": "100"})
        first, second = yield self.documents(pool, 2)
        self.assertGreater(
            second["storageTotals"]["ram"]["quotaTotal"], first["storageTotals"]["ram"]["quotaTotal"]
        )
        self.assertEqual(unchunked(nodes.data).count(b"\n\n\n\n"), 1)

    @inlineCallbacks
    def test_one_document_for_many_streams(self) -> Steps:
        """A change costs one document for all streams of a kind and a caller, however many there are."""
        form = {"name": "made", "ramQuotaMB": "100"}
        yield self.ask(BUCKETS, "POST", form=form)
        paths = ["/pools/default/bucketsStreaming/made", "/poolsStreaming/default"]
        streams = []
        for path in paths * 5:
            stream = yield self.open(path)
            yield self.documents(stream, 1)
            streams.append(stream)
        counted: list[str | None] = []
        reports = self.cluster.reports
        nodes = reports.nodes

        def count(bucket: str | None = None, placeholder: str = "") -> Any:
            counted.append(bucket)
            return nodes(bucket, placeholder)

        self.patch(reports, "nodes", count)
        yield self.ask(f"{BUCKETS}/made", "POST", form={"replicaNumber": "0", "ramQuotaMB": "120"})
        for stream in streams:
            _, second = yield self.documents(stream, 2)
            self.assertIsInstance(second, dict)
        self.assertEqual(sorted(map(str, counted)), ["None", "made"])

    @inlineCallbacks
    def test_streams_need_rights_too(self) -> Steps:
        """No stream of a bucket without credentials for it."""
        self.assertEqual((yield self.ask("/pools/default/bs/private", auth=None)).status, 401)
        self.assertEqual(
            (yield self.ask("/pools/default/bucketsStreaming/private", auth=("default", ""))).status, 401
        )

    @inlineCallbacks
    def test_lost_reader_is_forgotten(self) -> Steps:
        """When a reader disconnects, nothing of its stream remains."""
        exchange = yield self.open("/pools/default/bs/default")
        yield self.documents(exchange, 1)
        api = self.node._listeners[0].api
        self.assertEqual(len(api._streams), 1)
        exchange.transport.abortConnection()
        while api._streams:
            yield deferLater(reactor, 0.005)

    @inlineCallbacks
    def test_stopping_ends_streams(self) -> Steps:
        """A node that stops ends its streams in order."""
        exchange = yield self.open("/pools/default/bs/default")
        yield self.documents(exchange, 1)
        yield self.node.stop()
        yield exchange.closed
        self.assertTrue(exchange.data.endswith(b"0\r\n\r\n"))


class LimitTests(RestCase):
    """Limits on requests."""

    @inlineCallbacks
    def test_long_bodies(self) -> Steps:
        """A body over the limit is refused with 413, announced or chunked, before it is buffered."""
        announced = yield self.connect()
        announced.transport.write(head("POST", BUCKETS, ADMIN, length=httpedge.MAX_BODY_BYTES + 1))
        yield announced.closed
        chunked = yield self.connect()
        chunked.transport.write(
            head("POST", BUCKETS, ADMIN).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        )
        piece = 0x40000
        for _ in range(httpedge.MAX_BODY_BYTES // piece + 1):
            chunked.transport.write(b"%x\r\n" % piece + b"x" * piece + b"\r\n")
        yield chunked.closed
        for exchange in (announced, chunked):
            answer = Answer(exchange.data)
            self.assertEqual(answer.status, 413)
            self.assertIn(str(httpedge.MAX_BODY_BYTES), answer.json["errors"]["_"])

    @inlineCallbacks
    def test_long_heads(self) -> Steps:
        """A head that does not end is refused, with many lines or with one."""
        many = yield self.connect()
        many.transport.write(
            b"GET /pools HTTP/1.1\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 450
        )
        yield many.closed
        self.assertEqual(many.data.split()[1], b"400")
        one = yield self.connect()
        one.transport.write(b"GET /pools HTTP/1.1\r\nX: " + b"x" * 20000)
        yield one.closed
        self.assertEqual(one.data, b"")

    @inlineCallbacks
    def test_too_many_connections(self) -> Steps:
        """Beyond the limit connections are closed; when one goes there is room again."""
        self.patch(httpedge, "MAX_CONNECTIONS", 1)
        first = yield self.connect()
        first.transport.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while b"401" not in first.data:
            yield deferLater(reactor, 0.005)
        second = yield self.connect()
        yield second.closed
        self.assertEqual(second.data, b"")
        first.transport.loseConnection()
        yield first.closed
        while self.node._listeners[0].site.protocols:
            yield deferLater(reactor, 0.005)
        self.assertEqual((yield self.ask("/")).status, 200)


def unchunked(data: bytes) -> bytes:
    """Return the body so far of a chunked response that is still coming."""
    _, _, rest = data.partition(b"\r\n\r\n")
    body = b""
    while True:
        size, end, rest = rest.partition(b"\r\n")
        if not end or not size or int(size, 16) == 0:
            return body
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
