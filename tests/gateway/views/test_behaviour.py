"""Views the whole way, over sockets: HTTP, the driver, the embedded node and its engine."""

from __future__ import annotations

import json
import os
import signal
from typing import Any
from urllib.parse import quote

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath

from couchnode.views import service
from tests.gateway.test_behaviour import GatewayTestCase

B = "/v1/buckets/default"
MAP = "function (doc, meta) { if (doc.n !== undefined) { emit(doc.n, null); } }"
DESIGN = {
    "views": {
        "by_n": {"map": MAP},
        "counted": {
            "map": "function (doc, meta) { if (doc.n !== undefined) { emit([doc.n % 2, doc.n], doc.n); } }",
            "reduce": "_count",
        },
        "summed": {"map": "function (doc, meta) { emit(null, 'no number'); }", "reduce": "_sum"},
        "wide": {
            "map": "function (doc, meta) { if (doc.n === 0) {"
            " for (var i = 0; i < 900; i++) { emit(i, 'x'.repeat(1000)); } } }"
        },
    }
}


class Client(Protocol):
    """An HTTP client that reads on command only."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.received = b""
        self.first: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if not self.first.called:
            self.transport.pauseProducing()  # type: ignore[union-attr]
            self.first.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class ViewBehaviourTests(GatewayTestCase):
    """Against the real engine."""

    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Any:
        yield super().setUp()
        lines = [{"op": "set", "key": f"k{n:03d}", "value": {"n": n}} for n in range(150)]
        lines.append({"op": "set", "key": "blob", "base64": "/wA="})
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        loaded = yield self.ask("POST", B + "/batch", body)
        assert loaded.body.count(b'"status":200') == 151
        made = yield self.ask("PUT", B + "/designs/d?syncwait=20", json.dumps(DESIGN).encode())
        assert made.status == 201, made.body

    @inlineCallbacks
    def rows(self, path: str, body: bytes = b"", **headers: str) -> Any:
        answer = yield self.ask("POST" if body else "GET", B + "/views/" + path, body, **headers)
        self.assertEqual(answer.status, 200, answer.body)
        return answer

    @inlineCallbacks
    def test_queries(self) -> Any:
        """Ranges, keys, directions, groups; by GET and by POST, in each spelling."""
        whole = yield self.rows("d/by_n")
        told = whole.json()
        self.assertEqual((told["total_rows"], len(told["rows"])), (150, 150))
        self.assertEqual(told["rows"][0], {"id": "k000", "key": 0, "value": None})
        for query, body, ids in (
            ("?startkey=3&endkey=5", b"", ["k003", "k004", "k005"]),
            ("?start_key=3&end_key=5&inclusive_end=false", b"", ["k003", "k004"]),
            ("?descending=true&limit=2&skip=1", b"", ["k148", "k147"]),
            ("?mapkey_range=[7,8]", b"", ["k007", "k008"]),
            ("?keys=[9,2,1000]", b"", ["k009", "k002"]),
            ("?limit=1", b'{"keys":[9,2]}', ["k009"]),
            ("", b'{"startkey":3,"startkey_docid":"k004","limit":1,"stale":false}', ["k004"]),
        ):
            answer = yield self.rows("d/by_n" + query, body)
            self.assertEqual([row["id"] for row in answer.json()["rows"]], ids, query)
        many = yield self.rows("d/by_n", json.dumps({"keys": list(range(149, -1, -1)) * 10}).encode())
        self.assertEqual(len(many.json()["rows"]), 1500)
        # A body that is read in a thread.
        keys = [[number] for number in range(20_000)]
        long = json.dumps({"keys": [9, *keys, 2]}).encode()
        self.assertEqual(
            [row["id"] for row in (yield self.rows("d/by_n", long)).json()["rows"]], ["k009", "k002"]
        )
        for body, words in (
            (long[:-1], "is not JSON"),
            (long[:-1] + b',"keys":[]}', "'keys' is given twice"),
        ):
            refused = yield self.ask("POST", B + "/views/d/by_n", body)
            self.assertEqual(refused.code(), (400, "InvalidArgument"))
            self.assertIn(words, refused.json()["message"])
        total = yield self.rows("d/counted")
        self.assertEqual(total.json(), {"rows": [{"key": None, "value": 150}]})
        self.assertIsNone(total.header("X-CB-TotalRows"))
        groups = yield self.rows("d/counted?group_level=1", Accept="application/x-ndjson")
        lines = [json.loads(line) for line in groups.body.splitlines()]
        self.assertEqual(lines, [{"key": [0], "value": 75}, {"key": [1], "value": 75}])

    @inlineCallbacks
    def test_forms(self) -> Any:
        """The same rows in each."""
        whole = yield self.rows("d/by_n")
        lines = yield self.rows("d/by_n", Accept="application/x-ndjson")
        events = yield self.rows("d/by_n", Accept="text/event-stream")
        rows = whole.json()["rows"]
        self.assertEqual([json.loads(line) for line in lines.body.splitlines()], rows)
        self.assertEqual(lines.header("X-CB-TotalRows"), "150")
        data = [json.loads(part.split(b"data: ")[1]) for part in events.body.split(b"\n\n")[:-1]]
        self.assertEqual(data, [*rows, {"rows": 150, "total_rows": 150}])

    @inlineCallbacks
    def test_include_docs(self) -> Any:
        """Documents beside their rows; one that went after the index was made is marked."""
        view = {"views": {"all": {"map": "function (doc, meta) { emit(meta.id, null); }"}}}
        yield self.ask("PUT", B + "/designs/all?syncwait=20", json.dumps(view).encode())
        yield self.rows("all/all?stale=false")
        yield self.ask("DELETE", B + "/documents/k007")
        answer = yield self.rows("all/all?stale=ok&include_docs=true")
        rows = {row["id"]: row for row in answer.json()["rows"]}
        self.assertEqual(list(rows), sorted(rows))
        self.assertEqual(len(rows), 151)
        self.assertEqual(rows["k149"]["doc"]["json"], {"n": 149})
        self.assertEqual(rows["blob"]["doc"]["base64"], "/wA=")
        self.assertEqual((rows["k007"]["doc"], rows["k007"]["doc_error"]["code"]), (None, "DocumentNotFound"))
        stored = yield self.ask("GET", B + "/documents/k001")
        self.assertEqual(rows["k001"]["doc"]["meta"]["cas"], stored.header("ETag"))
        refused = yield self.ask("GET", B + "/views/d/counted?include_docs=true")
        self.assertEqual(refused.code(), (400, "InvalidArgument"))

    @inlineCallbacks
    def test_refusals_of_the_engine(self) -> Any:
        """With its reason, and which of both is missing."""
        for path, code, words in (
            ("nope/v", (404, "DesignDocumentNotFound"), "/designs/nope"),
            ("d/nope", (404, "ViewNotFound"), "/designs/d/views/nope"),
            ("d/by_n?startkey=5&endkey=3", (400, "InvalidArgument"), "reverse your start_key"),
            ("d/by_n?group=true", (400, "InvalidArgument"), "non-reduce view"),
            ("d/by_n?reduce=true", (400, "InvalidArgument"), "map view"),
            ("d/by_n?keys=[1]&key=1", (400, "InvalidArgument"), "multi-get"),
            ("d/summed", (500, "ViewFailed"), "number"),
        ):
            answer = yield self.ask("GET", B + "/views/" + path)
            self.assertEqual(answer.code(), code, answer.body)
            self.assertIn(words, answer.body.decode())
        broken = {"views": {"v": {"map": "function (doc {"}}}
        answer = yield self.ask("PUT", B + "/designs/x", json.dumps(broken).encode())
        self.assertEqual(answer.code(), (400, "InvalidDesignDocument"))
        self.assertIn("Syntax error in the map function", answer.json()["message"])

    @inlineCallbacks
    def test_life_of_a_design_document(self) -> Any:
        """Made in development, published, replaced, read, listed, removed."""
        text = json.dumps({"views": {"v": {"map": MAP}}}).encode()
        for status in (201, 200):
            made = yield self.ask("PUT", B + "/designs/life?dev=true&syncwait=20", text)
            self.assertEqual(made.status, status, made.body)
        small = yield self.rows("life/v?dev=true")
        self.assertEqual(small.json()["total_rows"], 150)
        self.patch(service, "DEVELOPMENT_MULTIPLE", 0)
        part = yield self.rows("life/v?dev=true")
        whole = yield self.rows("life/v?dev=true&full_set=true")
        self.assertLess(part.json()["total_rows"], 150)
        self.assertEqual(whole.json()["total_rows"], 150)
        missing = yield self.ask("GET", B + "/designs/life")
        self.assertEqual(missing.code(), (404, "DesignDocumentNotFound"))
        published = yield self.ask("POST", B + "/designs/life/publish?syncwait=20")
        self.assertEqual((published.status, published.json()), (201, {"name": "life"}))
        read = yield self.ask("GET", B + published.header("Location").removeprefix(B))
        self.assertEqual(read.json()["views"], {"v": {"map": MAP}})
        self.assertRegex(read.header("X-CB-Revision"), r"^\d+-[0-9a-f]+$")
        listed = yield self.ask("GET", B + "/designs")
        self.assertEqual([one["name"] for one in listed.json()["designs"]], ["d", "dev_life", "life"])
        gone = yield self.ask("DELETE", B + "/designs/life?syncwait=20")
        self.assertEqual((gone.status, gone.body), (204, b""))
        asked = yield self.ask("GET", B + "/views/life/v")
        self.assertEqual(asked.code(), (404, "DesignDocumentNotFound"))
        again = yield self.ask("DELETE", B + "/designs/life")
        self.assertEqual(again.code(), (404, "DesignDocumentNotFound"))

    @inlineCallbacks
    def test_names_that_need_encoding(self) -> Any:
        """Slashes, blanks and letters of any script."""
        name = quote("a/b é%", safe="")
        view = {"views": {"v/w ü": {"map": MAP}}}
        made = yield self.ask("PUT", f"{B}/designs/{name}?syncwait=20", json.dumps(view).encode())
        self.assertEqual(made.status, 201, made.body)
        answer = yield self.rows(f"{name}/{quote('v/w ü', safe='')}?limit=1")
        self.assertEqual(answer.json()["total_rows"], 150)

    @inlineCallbacks
    def test_head(self) -> Any:
        """The headers of a query, and the connection can be used again."""
        for query in ("", "?include_docs=true"):
            answer = yield self.ask("HEAD", B + "/views/d/by_n" + query)
            self.assertEqual((answer.status, answer.body), (200, b""))
            self.assertEqual(answer.header("X-CB-TotalRows"), "150")
        while self.streams() or self.service.pool._leases:
            yield self.pause(0.01)

    @inlineCallbacks
    def client_of_a_long_answer(self) -> Any:
        """Return a client that has read a little of an answer that does not fit into any buffer."""
        yield self.rows("d/wide?limit=1&stale=false")
        host, _, port = self.url.removeprefix("http://").partition(":")
        # The same rows again and again: as long an answer as is wanted.
        keys = json.dumps({"keys": list(range(900)) * 11}).encode()
        head = f"POST {B}/views/d/wide HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(keys)}\r\n\r\n"
        client = Client(head.encode() + keys)
        yield connectProtocol(HostnameEndpoint(reactor, host, int(port)), client)
        yield client.first
        return client

    def streams(self) -> list[Any]:
        """Return the running queries of the driver."""
        return [
            stream
            for entry in self.service.pool._entries.values()
            for stream in entry.connection._http.running
        ]

    @inlineCallbacks
    def test_slow_client_and_hang_up(self) -> Any:
        """A client that does not read pauses the query; one that disconnects ends it, at the driver and at
        the node."""
        client = yield self.client_of_a_long_answer()
        stream = self.streams()[0]
        while not stream._view._paused:
            yield self.pause(0.01)
        returned = stream._view.rows_returned
        self.assertLess(returned, 9900)
        client.transport.abortConnection()
        yield client.lost
        while self.streams() or self.service.pool._leases:
            yield self.pause(0.01)

    @inlineCallbacks
    def test_slow_client_gets_everything(self) -> Any:
        """After a pause as after none."""
        client = yield self.client_of_a_long_answer()
        stream = self.streams()[0]
        while not stream._view._paused:
            yield self.pause(0.01)
        client.transport.resumeProducing()
        while not client.received.endswith(b"\r\n0\r\n\r\n"):
            yield self.pause(0.01)
        self.assertEqual(client.received.count(b'"id":"k000"'), 9900)
        client.transport.loseConnection()
        yield client.lost

    @inlineCallbacks
    def test_cut_answer(self) -> Any:
        """When the driver or the node fails the JSON ends with the error, the chunks without their last."""
        for end in (self.end_driver, self.end_engine):
            client = yield self.client_of_a_long_answer()
            stream = self.streams()[0]
            while not stream._view._paused:
                yield self.pause(0.01)
            end(stream)
            client.transport.resumeProducing()
            yield client.lost
            self.assertFalse(client.received.endswith(b"\r\n0\r\n\r\n"))
            body, rest = b"", client.received.partition(b"\r\n\r\n")[2]
            while rest:
                size, _, rest = rest.partition(b"\r\n")
                body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
            told = json.loads(body)
            self.assertEqual((told["total_rows"], told["errors"][-1]["from"]), (900, "gateway"))
            self.assertTrue(0 < len(told["rows"]) < 9900)
            self.assertEqual(self.service.pool._leases, {})

    def end_driver(self, stream: Any) -> None:
        """As if the connection object were closed."""
        stream.closed()

    def end_engine(self, stream: Any) -> None:
        """The process that has the index dies."""
        os.kill(self.service._embedded.node._views._worker.pid, signal.SIGKILL)


class ViewAccessTests(GatewayTestCase):
    """Callers' own credentials reach the view engine."""

    credentials = ("admin", "right password")

    def setUp(self) -> Any:
        path = self.mktemp()
        FilePath(path).setContent(b"right password\n")
        self.options = {"ephemeral": True, "auth": "passthrough", "user": "admin", "password-file": path}
        return super().setUp()

    @inlineCallbacks
    def test_credentials(self) -> Any:
        """Right ones, wrong ones, none."""
        text = json.dumps({"views": {"v": {"map": MAP}}}).encode()
        made = yield self.ask("PUT", B + "/designs/d?syncwait=20", text)
        self.assertEqual(made.status, 201, made.body)
        for path in ("/designs", "/designs/d", "/views/d/v"):
            answer = yield self.ask("GET", B + path)
            self.assertEqual(answer.status, 200, answer.body)
            wrong = yield self.ask("GET", B + path, auth=("admin", "wrong"))
            self.assertEqual(wrong.code(), (403, "InvalidAuth"))
            response = yield self.client.get(self.url + B + path)
            body = yield response.content()
            self.assertEqual((response.code, json.loads(body)["code"]), (401, "Unauthorized"))
        missing = yield self.ask("GET", "/v1/buckets/nope/views/d/v")
        self.assertEqual(missing.code(), (404, "BucketNotFound"))


class ViewClusterTests(GatewayTestCase):
    """Three nodes: each has a part of the rows."""

    options = {"ephemeral": True, "nodes": "3", "replicas": "1"}

    @inlineCallbacks
    def test_rows_of_all_nodes(self) -> Any:
        """Merged in order, reduced again, whichever node is asked."""
        lines = [{"op": "set", "key": f"k{n:03d}", "value": {"n": n}} for n in range(300)]
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        yield self.ask("POST", B + "/batch", body)
        made = yield self.ask("PUT", B + "/designs/d?syncwait=30", json.dumps(DESIGN).encode())
        self.assertEqual(made.status, 201, made.body)
        for _ in range(3):
            answer = yield self.ask("GET", B + "/views/d/by_n?stale=false&include_docs=true")
            told = answer.json()
            self.assertEqual(told["total_rows"], 300)
            self.assertEqual([row["key"] for row in told["rows"]], list(range(300)))
            self.assertEqual([row["doc"]["json"]["n"] for row in told["rows"]], list(range(300)))
            groups = yield self.ask("GET", B + "/views/d/counted?stale=false&group_level=1")
            self.assertEqual([row["value"] for row in groups.json()["rows"]], [150, 150])
        failed = yield self.ask("GET", B + "/views/d/summed?stale=false")
        self.assertEqual(failed.status, 200)
        self.assertEqual((failed.json()["rows"], len(failed.json()["errors"])), ([], 3))
