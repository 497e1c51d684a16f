"""The whole way, over sockets: HTTP, the driver, an embedded node in the same process."""

from __future__ import annotations

import json
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from couchbase.protocol.version import VERSION
from couchnode.kv.session import Session
from gateway.plugins.metrics import Metrics
from gateway.service import GatewayService
from gateway.settings import Settings, resolve
from txcouchbase.webclient import WebClient

LISTEN = "tcp:0:interface=127.0.0.1"


class Answered:
    """One answer, read whole."""

    def __init__(self, response: Any, body: bytes) -> None:
        self.status: int = response.code
        self.body = body
        self._headers = response.headers

    def header(self, name: str) -> str | None:
        values = self._headers.getRawHeaders(name)
        return values[0] if values else None

    @property
    def names(self) -> set[str]:
        return {name.decode().lower() for name, values in self._headers.getAllRawHeaders() if any(values)}

    def json(self) -> Any:
        return json.loads(self.body)

    def code(self) -> tuple[int, str]:
        return self.status, self.json()["code"]


class GatewayTestCase(TestCase):
    """Runs a gateway with its embedded node.

    ``options`` are those of the command line.
    """

    timeout = 120
    options: dict[str, Any] = {"ephemeral": True}
    credentials: tuple[str, str] | None = None

    def plugins(self) -> list[Any]:
        return [Metrics()]

    def settings(self, **changes: Any) -> Settings:
        # Patient: on a busy machine the node in this process may take its time.
        return resolve({"listen": [LISTEN], "timeout": "30", **self.options, **changes}, {})

    @inlineCallbacks
    def setUp(self) -> Any:
        self.http = HTTPConnectionPool(reactor)
        self.client = treq.client.HTTPClient(Agent(reactor, pool=self.http))
        self.service = yield self.begin(self.settings())

    @inlineCallbacks
    def begin(self, settings: Settings) -> Any:
        service = GatewayService(settings, self.plugins())
        service.privilegedStartService()
        service.startService()
        yield service.started
        return service

    @inlineCallbacks
    def tearDown(self) -> Any:
        yield self.http.closeCachedConnections()
        yield self.service.stopService()

    @property
    def url(self) -> str:
        return self.service.urls[0]  # type: ignore[no-any-return]

    @inlineCallbacks
    def ask(self, method: str, path: str, body: bytes = b"", auth: Any = None, **headers: str) -> Any:
        """Send a request; header names have underscores for hyphens."""
        response = yield self.client.request(
            method,
            self.url + path,
            data=body,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            auth=auth or self.credentials,
        )
        content = yield response.content()
        return Answered(response, content)

    def pause(self, seconds: float) -> Deferred[None]:
        """Let the reactor turn; used in loops that wait for something, never for a time."""
        return deferLater(reactor, seconds, lambda: None)


D = "/v1/buckets/default/documents/"
JSON = {"Content_Type": "application/json"}


class DocumentTests(GatewayTestCase):
    """Documents on a real node."""

    @inlineCallbacks
    def test_life_of_a_document(self) -> Any:
        """Create, read, replace by version, remove: with the codes for each way it can fail."""
        created = yield self.ask("POST", D + "a", b'{"n": 1.0}', **JSON)
        self.assertEqual(created.status, 200)
        self.assertRegex(created.header("X-CB-MutationToken"), r"^default:\d+:[0-9a-f]{8,}:\d+$")
        again = yield self.ask("POST", D + "a", b"{}")
        self.assertEqual(again.code(), (409, "DocumentExists"))
        read = yield self.ask("GET", D + "a")
        self.assertEqual((read.body, read.header("Content-Type")), (b'{"n": 1.0}', "application/json"))
        self.assertEqual(read.header("ETag"), created.header("ETag"))
        self.assertIsNone(read.header("Expires"))
        unchanged = yield self.ask("GET", D + "a", If_None_Match=read.header("ETag"))
        self.assertEqual(unchanged.status, 304)
        put = yield self.ask("PUT", D + "a", b"2", If_Match=f'"{read.header("ETag")}"')
        self.assertEqual(put.status, 200)
        stale = yield self.ask("PUT", D + "a", b"3", If_Match=read.header("ETag"))
        self.assertEqual(stale.code(), (409, "CasMismatch"))
        stale = yield self.ask("DELETE", D + "a", If_Match=read.header("ETag"))
        self.assertEqual(stale.code(), (409, "CasMismatch"))
        gone = yield self.ask("DELETE", D + "a")
        self.assertEqual(gone.status, 200)
        self.assertNotIn(gone.header("ETag"), (None, put.header("ETag")))
        for method, headers in (("GET", {}), ("DELETE", {}), ("PUT", {"If_Match": "*"})):
            missing = yield self.ask(method, D + "a", **headers)
            self.assertEqual(missing.code(), (404, "DocumentNotFound"))
            self.assertEqual((missing.json()["rc"], missing.json()["exception"]), (13, "NotFoundError"))

    @inlineCallbacks
    def test_any_bytes_under_any_key(self) -> Any:
        """Keys with slashes, percent signs and zeros; values of any bytes; the full path means the same."""
        for key, value in (
            ("a%2Fb%25%00c", b"\x00\xff"),
            ("%C3%A9" * 125, b""),
            ("k+%20", b"x" * 1_000_000),
        ):
            stored = yield self.ask("PUT", D + key, value, Content_Type="application/octet-stream")
            self.assertEqual(stored.status, 200)
            full = "/v1/buckets/default/scopes/_default/collections/_default/documents/"
            read = yield self.ask("GET", full + key)
            self.assertEqual(
                (read.body == value, read.header("Content-Type")), (True, "application/octet-stream")
            )
            self.assertEqual(read.header("X-CB-Flags"), "50331648")

    @inlineCallbacks
    def test_no_replicas(self) -> Any:
        """A bucket without replicas refuses the request for one: to repeat it would not help."""
        yield self.ask("PUT", D + "a", b"1")
        for which in ("any", "0", "2"):
            answer = yield self.ask("GET", D + f"a?replica={which}")
            self.assertEqual((answer.code(), answer.json()["retry"]), ((400, "InvalidArgument"), "never"))
            self.assertIn("the bucket has no replicas", answer.json()["message"])
        line = b'{"op":"get_replica","key":"a"}\n'
        answer = yield self.ask("POST", "/v1/buckets/default/batch", line)
        self.assertEqual((answer.json()["status"], answer.json()["error"]["retry"]), (400, "never"))

    @inlineCallbacks
    def test_expiry(self) -> Any:
        """Told by GET, kept by a PUT that does not speak of it, cleared by 0, set by touch."""
        yield self.ask("PUT", D + "e", b"1", Expires="1h")
        first = yield self.ask("GET", D + "e")
        self.assertIsNotNone(first.header("Expires"))
        yield self.ask("PUT", D + "e", b"2")
        kept = yield self.ask("GET", D + "e")
        self.assertEqual(kept.header("Expires"), first.header("Expires"))
        yield self.ask("PUT", D + "e", b"3", Expires="0")
        cleared = yield self.ask("GET", D + "e")
        self.assertIsNone(cleared.header("Expires"))
        touched = yield self.ask(
            "POST", D + "e/touch", b'{"expiry":"2030-01-01T00:00:00Z","returnContent":true}'
        )
        self.assertEqual((touched.status, touched.body), (200, b"3"))
        dated = yield self.ask("GET", D + "e")
        self.assertEqual(dated.header("Expires"), "Tue, 01 Jan 2030 00:00:00 GMT")
        cleared = yield self.ask("POST", D + "e/touch", b'{"expiry":""}')
        self.assertEqual(cleared.status, 204)
        dated = yield self.ask("GET", D + "e")
        self.assertIsNone(dated.header("Expires"))
        past = yield self.ask("PUT", D + "e", b"4", Expires="Thu, 01 Jan 1970 00:00:01 GMT")
        self.assertEqual(past.status, 200)
        gone = yield self.ask("GET", D + "e")
        self.assertEqual(gone.code(), (404, "DocumentNotFound"))

    @inlineCallbacks
    def test_append_and_prepend(self) -> Any:
        """Around an existing value; not without one."""
        missing = yield self.ask("POST", D + "t/append", b"x")
        self.assertEqual(missing.code(), (404, "DocumentNotFound"))
        yield self.ask("PUT", D + "t", b"b", Content_Type="text/plain")
        yield self.ask("POST", D + "t/append", b"c")
        last = yield self.ask("POST", D + "t/prepend", b"a")
        read = yield self.ask("GET", D + "t")
        self.assertEqual((read.body, read.header("Content-Type")), (b"abc", "text/plain"))
        self.assertEqual(read.header("ETag"), last.header("ETag"))
        stale = yield self.ask("POST", D + "t/append", b"x", If_Match="1")
        self.assertEqual(stale.code(), (409, "CasMismatch"))

    @inlineCallbacks
    def test_counters(self) -> Any:
        """Created with initial, up, down to 0, and around."""
        missing = yield self.ask("POST", D + "n/increment")
        self.assertEqual(missing.code(), (404, "DocumentNotFound"))
        for what, body, number in (
            ("increment", b'{"initial":18446744073709551614}', b"18446744073709551614"),
            ("increment", b"", b"18446744073709551615"),
            ("increment", b"", b"0"),
            ("increment", b'{"delta":5}', b"5"),
            ("decrement", b'{"delta":7}', b"0"),
        ):
            headers = JSON if body else {}
            counted = yield self.ask("POST", f"{D}n/{what}", body, **headers)
            self.assertEqual((counted.status, counted.body), (200, number))
            self.assertIsNotNone(counted.header("ETag"))
        yield self.ask("PUT", D + "n", b"text")
        wrong = yield self.ask("POST", D + "n/increment")
        self.assertEqual(wrong.code(), (400, "DocumentNotNumeric"))

    @inlineCallbacks
    def test_locks(self) -> Any:
        """The holder's CAS writes and unlocks; no other client can."""
        missing = yield self.ask("POST", D + "l/lock", b"{}")
        self.assertEqual(missing.code(), (404, "DocumentNotFound"))
        yield self.ask("PUT", D + "l", b"1")
        not_locked = yield self.ask("POST", D + "l/unlock", If_Match="1")
        self.assertEqual(not_locked.code(), (400, "DocumentNotLocked"))
        locked = yield self.ask("POST", D + "l/lock", b'{"lockTime":20}')
        self.assertEqual((locked.status, locked.body), (200, b"1"))
        for method, path, body, headers, expected in (
            ("POST", "/lock", b"{}", {}, (409, "DocumentLocked")),
            ("PUT", "", b"2", {}, (409, "DocumentLocked")),
            ("DELETE", "", b"", {}, (409, "DocumentLocked")),
            ("POST", "/append", b"2", {}, (409, "DocumentLocked")),
            ("POST", "/increment", b"", {}, (409, "DocumentLocked")),
            ("POST", "/touch", b'{"expiry":"1h"}', {}, (409, "DocumentLocked")),
            ("POST", "", b"2", {}, (409, "DocumentExists")),
            ("POST", "/unlock", b"", {"If_Match": "1"}, (409, "CasMismatch")),
        ):
            refused = yield self.ask(method, D + "l" + path, body, **headers)
            self.assertEqual(refused.code(), expected, (method, path))
        read = yield self.ask("GET", D + "l")
        self.assertEqual((read.status, read.header("ETag")), (200, "ffffffffffffffff"))
        unlocked = yield self.ask("POST", D + "l/unlock", If_Match=locked.header("ETag"))
        self.assertEqual(unlocked.status, 200)
        locked = yield self.ask("POST", D + "l/lock", b"{}")
        written = yield self.ask("PUT", D + "l", b"3", If_Match=locked.header("ETag"))
        self.assertEqual(written.status, 200)
        free = yield self.ask("PUT", D + "l", b"4")
        self.assertEqual(free.status, 200)

    @inlineCallbacks
    def test_projection_and_head(self) -> Any:
        """Parts of a document; the size of the whole."""
        yield self.ask("PUT", D + "p", b'{"a":{"b":[1,2.50]},"c":0}', **JSON)
        part = yield self.ask("GET", D + "p?project=a.b[1],c")
        self.assertEqual(part.body, b'{"a":{"b":[2.50]},"c":0}')
        head = yield self.ask("HEAD", D + "p")
        self.assertEqual((head.status, head.body, head.header("Content-Length")), (200, b"", "26"))

    @inlineCallbacks
    def test_counters_whose_copies_cannot_be(self) -> Any:
        """They are refused before anything is counted, by headers and in batches."""
        yield self.ask("PUT", D + "n", b"5", **JSON)
        for wanted in ({"X_CB_PersistTo": "1"}, {"X_CB_PersistTo": "-1"}, {"X_CB_ReplicateTo": "1"}):
            for key, body in (("n", b"{}"), ("none", b'{"initial":1}')):
                for way in ("increment", "decrement"):
                    refused = yield self.ask("POST", f"{D}{key}/{way}", body, **wanted, **JSON)
                    self.assertEqual(refused.code(), (400, "DurabilityImpossible"))
        for member in (
            b'"persistTo":1',
            b'"persistTo":-1',
            b'"replicateTo":1',
            b'"replicateTo":1,"initial":1',
        ):
            for way in (b"incr", b"decr"):
                line = b'{"op":"%b","key":"%b",%b}' % (way, b"none" if b"init" in member else b"n", member)
                refused = yield self.ask("POST", D.replace("documents/", "batch"), line)
                self.assertIn(b'"DurabilityImpossible"', refused.body)
        kept = yield self.ask("GET", D + "n")
        self.assertEqual(kept.body, b"5")
        none = yield self.ask("GET", D + "none")
        self.assertEqual(none.status, 404)

    @inlineCallbacks
    def test_limits_of_the_node(self) -> Any:
        """A value of 20 MiB is stored; what grows beyond it, or cannot be persisted, has its code."""
        full = b"x" * (20 * 2**20)
        stored = yield self.ask("PUT", D + "big", full)
        self.assertEqual(stored.status, 200)
        grown = yield self.ask("POST", D + "big/append", b"x")
        self.assertEqual(grown.code(), (400, "ValueTooLarge"))
        more = yield self.ask("PUT", D + "big", full + b"x")
        self.assertEqual(more.code(), (413, "InvalidArgument"))
        copies = yield self.ask("PUT", D + "c", b"1", X_CB_ReplicateTo="1")
        self.assertEqual(copies.code(), (400, "DurabilityImpossible"))
        level = yield self.ask("PUT", D + "c", b"1", X_CB_DurabilityLevel="PersistToMajority")
        self.assertEqual(level.code(), (400, "DurabilityImpossible"))
        majority = yield self.ask("PUT", D + "c", b"1", X_CB_DurabilityLevel="Majority")
        self.assertEqual(majority.status, 200)


class BucketTests(GatewayTestCase):
    """Resources other than documents."""

    @inlineCallbacks
    def test_bucket_resources(self) -> Any:
        """Identity, list, statistics, readiness, metrics."""
        yield self.ask("PUT", D + "k", b"1")
        identity = yield self.ask("GET", "/v1/callerIdentity")
        self.assertEqual(identity.json(), {"user": "Administrator"})
        listed = yield self.ask("GET", "/v1/buckets")
        self.assertEqual([bucket["name"] for bucket in listed.json()["buckets"]], ["default"])
        stats = yield self.ask("GET", "/v1/buckets/default/stats")
        self.assertEqual(sum(stats.json()["stats"]["curr_items"].values()), 1)
        for group, names in (
            ("nonsense", ["nonsense"]),
            ("memory,nonsense", ["nonsense"]),
            ("odd,memory,more", ["odd", "more"]),
        ):
            refused = yield self.ask("GET", f"/v1/buckets/default/stats?group={group}")
            self.assertEqual(refused.code(), (400, "InvalidArgument"))
            named = refused.json()["message"].partition("named ")[2]
            self.assertEqual(named, ", ".join(map(repr, names)))
        known = yield self.ask("GET", "/v1/buckets/default/stats?group=memory,vbucket")
        self.assertEqual(known.status, 200)
        unknown = yield self.ask("GET", "/v1/buckets/nobody/stats")
        self.assertEqual(unknown.code(), (404, "BucketNotFound"))
        ready = yield self.ask("GET", "/ready")
        self.assertEqual(ready.json(), {"status": "ready"})
        metrics = yield self.ask("GET", "/metrics")
        self.assertIn(b'couchgateway_operations_total{operation="set",outcome="ok"} 1.0', metrics.body)

    @inlineCallbacks
    def test_batch(self) -> Any:
        """Mixed operations, each answered at its position, those on one key in order."""
        operations = [
            {"op": "set", "key": "a", "value": {"n": [1, None]}},
            {"op": "get", "key": "a"},
            {"op": "add", "key": "a", "value": 1},
            {"op": "incr", "key": "n", "initial": 5},
            {"op": "incr", "key": "n"},
            {"op": "set", "key": "t", "text": "x"},
            {"op": "append", "key": "t", "text": "y"},
            {"op": "get", "key": "t"},
            {"op": "set", "key": "b", "base64": "AP8="},
            {"op": "get", "key": "b"},
            {"op": "lock", "key": "a"},
            {"op": "set", "key": "a", "value": 2},
            {"op": "observe", "key": "a"},
            {"op": "delete", "key": "t"},
            {"op": "get", "key": "t"},
        ]
        body = b"\n".join(json.dumps(operation).encode() for operation in operations)
        answered = yield self.ask("POST", "/v1/buckets/default/batch", body)
        told = [json.loads(line) for line in answered.body.splitlines()]
        self.assertEqual([one["index"] for one in told], list(range(len(operations))))
        self.assertEqual(
            [one["status"] for one in told],
            [200, 200, 409, 200, 200, 200, 200, 200, 200, 200, 200, 409, 200, 200, 404],
        )
        self.assertEqual(told[1]["value"], {"n": [1, None]})
        self.assertEqual(told[4]["value"], 6)
        self.assertEqual(told[7]["text"], "xy")
        self.assertEqual(told[9]["base64"], "AP8=")
        self.assertEqual(told[11]["error"]["code"], "DocumentLocked")
        self.assertEqual(told[12]["copies"][0]["copy"], "active")

    @inlineCallbacks
    def test_large_batch_reads_back(self) -> Any:
        """Thousands of documents in and out, all of them, in order."""
        count = 5000
        lines = [
            b'{"op":"set","key":"k%d","value":{"n":%d,"x":"%b"}}' % (n, n, b"x" * 500) for n in range(count)
        ]
        stored = yield self.ask("POST", "/v1/buckets/default/batch", b"\n".join(lines))
        self.assertEqual(stored.body.count(b'"status":200'), count)
        gets = b"[" + b",".join(b'{"op":"get","key":"k%d"}' % n for n in range(count)) + b"]"
        read = yield self.ask("POST", "/v1/buckets/default/batch", gets)
        self.assertEqual([one["value"]["n"] for one in read.json()], list(range(count)))

    @inlineCallbacks
    def test_concurrent_counting(self) -> Any:
        """No increment is lost."""
        body = b'{"initial":0}'
        yield self.ask("POST", D + "n/increment", body, **JSON)
        yield gatherResults([self.ask("POST", D + "n/increment") for _ in range(50)])
        read = yield self.ask("GET", D + "n")
        self.assertEqual(read.body, b"50")


class AgentTests(GatewayTestCase):
    """How the gateway calls itself to the cluster."""

    @inlineCallbacks
    def test_name_and_version(self) -> Any:
        """Name and version are in the greeting of each connection, and in requests over HTTP."""
        real = Session.__init__

        def made(session: Session, *arguments: Any, **options: Any) -> None:
            real(session, *arguments, **options)
            sessions.append(session)

        sessions: list[Session] = []
        self.patch(Session, "__init__", made)
        yield self.ask("PUT", D + "k", b"1", **JSON)
        batch = yield self.ask("POST", "/v1/buckets/default/batch", b'{"op":"get","key":"k"}')
        self.assertEqual(batch.status, 200)
        agents = [json.loads(session.agent)["a"] for session in sessions]
        self.assertGreaterEqual(len(agents), 1)
        self.assertEqual(set(agents), {f"couchgateway/{VERSION}"})
        sent: list[Any] = []
        request = WebClient.request

        def record(client: WebClient, method: str, url: str, headers: Any, *more: Any) -> Any:
            sent.append(headers["User-Agent"])
            return request(client, method, url, headers, *more)

        self.patch(WebClient, "request", record)
        yield self.ask("GET", "/v1/buckets/default/designs")
        self.assertEqual(sent, [f"couchgateway/{VERSION}"])


class PassthroughTests(GatewayTestCase):
    """Credentials of callers, put to a real node."""

    credentials = ("admin", "right password")

    @inlineCallbacks
    def setUp(self) -> Any:
        path = self.mktemp()
        FilePath(path).setContent(b"right password\n")
        self.options = {"ephemeral": True, "auth": "passthrough", "user": "admin", "password-file": path}
        yield GatewayTestCase.setUp(self)

    @inlineCallbacks
    def test_who_may_call(self) -> Any:
        """The right password; no other, whether or not the right one has a connection already."""
        for _ in range(2):
            wrong = yield self.ask("GET", D + "k", auth=("admin", "wrong"))
            self.assertEqual(wrong.code(), (403, "InvalidAuth"))
            nobody = yield self.ask("GET", D + "k", auth=("nobody", "right password"))
            self.assertEqual(nobody.code(), (403, "InvalidAuth"))
            right = yield self.ask("PUT", D + "k", b"1")
            self.assertEqual(right.status, 200)
        identity = yield self.ask("GET", "/v1/callerIdentity")
        self.assertEqual(identity.json(), {"user": "admin"})
        wrong = yield self.ask("GET", "/v1/callerIdentity", auth=("admin", "wrong"))
        self.assertEqual(wrong.code(), (403, "InvalidAuth"))
        unknown = yield self.ask("GET", "/v1/buckets/nobody/documents/k")
        self.assertEqual(unknown.code(), (404, "BucketNotFound"))


class ReplicaTests(GatewayTestCase):
    """Three nodes, one replica."""

    options = {"ephemeral": True, "nodes": "3", "replicas": "1"}

    @inlineCallbacks
    def test_replicas(self) -> Any:
        """Replicas are read, counted and waited for."""
        stored = yield self.ask("PUT", D + "k", b"1", X_CB_ReplicateTo="1", **JSON)
        self.assertEqual(stored.status, 200)
        for which in ("any", "0"):
            read = yield self.ask("GET", f"{D}k?replica={which}")
            self.assertEqual((read.status, read.body), (200, b"1"))
            self.assertEqual(read.header("ETag"), stored.header("ETag"))
        none = yield self.ask("GET", D + "k?replica=1")
        self.assertEqual(none.code(), (400, "InvalidArgument"))
        missing = yield self.ask("GET", D + "nobody?replica=any")
        self.assertEqual(missing.code(), (404, "DocumentNotFound"))
        observed = yield self.ask("GET", D + "k/observe")
        self.assertEqual([copy["copy"] for copy in observed.json()["copies"]], ["active", "replica"])
        endured = yield self.ask("POST", D + "k/endure", b'{"persistTo":0,"replicateTo":1}')
        self.assertEqual(endured.status, 204)
        for count in range(30):
            yield self.ask("PUT", f"{D}k{count}", b"%d" % count)
            read = yield self.ask("GET", f"{D}k{count}")
            self.assertEqual(read.body, b"%d" % count)


class PersistenceTests(GatewayTestCase):
    """Data on disk."""

    @inlineCallbacks
    def setUp(self) -> Any:
        self.options = {"data": self.mktemp()}
        yield GatewayTestCase.setUp(self)

    @inlineCallbacks
    def test_restart(self) -> Any:
        """Stored documents exist after a stop and a start."""
        persisted = yield self.ask("PUT", D + "a", b"1", X_CB_PersistTo="1")
        self.assertEqual(persisted.status, 200)
        observed = yield self.ask("GET", D + "a/observe")
        self.assertEqual(observed.json()["copies"][0]["state"], "persisted")
        counted = yield self.ask("POST", D + "n/increment", b'{"initial":7}', X_CB_PersistTo="1", **JSON)
        self.assertEqual(counted.body, b"7")
        later = yield self.ask("PUT", D + "b", b"2")
        self.assertEqual(later.status, 200)
        yield self.http.closeCachedConnections()
        yield self.service.stopService()
        self.service = yield self.begin(self.settings())
        for key, value in (("a", b"1"), ("b", b"2"), ("n", b"7")):
            read = yield self.ask("GET", D + key)
            self.assertEqual((read.status, read.body), (200, value))
        self.assertEqual(read.status, 200)


class Hearing(Protocol):
    """A client that reads on command only."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.lost.callback(None)


class SocketTests(GatewayTestCase):
    """Tests that need real sockets."""

    @inlineCallbacks
    def test_hang_up_in_a_batch(self) -> Any:
        """A client that leaves half-way leaves nothing behind."""
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        port = int(self.url.rpartition(":")[2])
        hearing = yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Hearing())
        hearing.transport.write(
            b"POST /v1/buckets/default/batch HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        line = b'{"op":"set","key":"k","value":1}\n' * 500
        hearing.transport.write(b"%x\r\n%b\r\n" % (len(line), line))
        while b'"index"' not in hearing.received:
            yield self.pause(0.01)
        hearing.transport.abortConnection()
        yield hearing.lost
        while self.service.factory.channels:
            yield self.pause(0.01)
        self.assertEqual(self.service.pool._leases, {})
        self.assertEqual(self.service.gateway.budget.used, 0)
        alive = yield self.ask("GET", "/ready")
        self.assertEqual(alive.status, 200)

    @inlineCallbacks
    def test_slow_reader_is_held_back(self) -> Any:
        """A client that sends without reading is held back: neither side grows, and everything is answered
        in the end."""
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        yield self.ask("PUT", D + "k", json.dumps("x" * 20000).encode(), **JSON)
        port = int(self.url.rpartition(":")[2])
        hearing = yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Hearing())
        hearing.transport.pauseProducing()
        count = 3000
        line = b'{"op":"get","key":"k"}\n' * count
        hearing.transport.write(
            b"POST /v1/buckets/default/batch HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(line), line)
        )
        while not any(channel.is_stalled for channel in self.service.factory.channels):
            yield self.pause(0.01)
        self.assertLess(self.service.gateway.budget.used, 40 * 2**20)
        hearing.transport.resumeProducing()
        while not hearing.received.endswith(b"\r\n0\r\n\r\n"):
            yield self.pause(0.02)
        self.assertEqual(hearing.received.count(b'"status":200'), count)
        hearing.transport.loseConnection()
        yield hearing.lost
