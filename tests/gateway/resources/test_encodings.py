"""Compressed documents, rows and batches, over sockets to a node."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import cramjam
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers

from gateway.http.compression import ENCODINGS
from tests.gateway.http.test_compression import decoded
from tests.gateway.resources.test_documents import ANSWERS, SHORT
from tests.gateway.support import Answer, Site
from tests.gateway.test_behaviour import JSON, Answered, D, GatewayTestCase

TEXT = json.dumps({"a": "compressible " * 300}).encode()
LARGE = json.dumps({"a": ["compressible " * 10] * 10_000}).encode()
BATCH = "/v1/buckets/default/batch"


def packed(value: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(value))


class NodeTests(GatewayTestCase):
    """The whole way."""

    @inlineCallbacks
    def ask(self, method: str, path: str, body: bytes = b"", auth: Any = None, **headers: str) -> Any:
        """Send a request by a client that decodes nothing, unlike treq."""
        named = Headers({name.replace("_", "-"): [value] for name, value in headers.items()})
        content = FileBodyProducer(BytesIO(body)) if body else None
        url = (self.url + path).encode()
        response = yield Agent(reactor, pool=self.http).request(method.encode(), url, named, content)
        received = yield readBody(response)
        return Answered(response, received)

    @inlineCallbacks
    def test_documents(self) -> Any:
        """Each coding gives the document, of any size; the ETag is the same, and works in conditions."""
        for name, body in (("k", TEXT), ("large", LARGE)):
            put = yield self.ask("PUT", D + name, body, **JSON)
            for encoding in ENCODINGS:
                got = yield self.ask("GET", D + name, Accept_Encoding=encoding.decode())
                self.assertEqual(got.status, 200)
                self.assertEqual(got.header("Content-Encoding"), encoding.decode())
                self.assertEqual(got.header("ETag"), put.header("ETag"))
                self.assertEqual(decoded(encoding, got.body), body)
                self.assertLess(len(got.body), len(body) / 2)
                self.assertIn("Accept-Encoding", got.header("Vary"))
                known = yield self.ask(
                    "GET", D + name, Accept_Encoding="gzip", If_None_Match=got.header("ETag")
                )
                self.assertEqual((known.status, known.header("Content-Encoding")), (304, None))
            plain = yield self.ask("GET", D + name)
            self.assertEqual((plain.body, plain.header("Content-Encoding")), (body, None))
            snappy = yield self.ask("GET", D + name, Accept_Encoding="identity;q=0, snappy")
            self.assertEqual(
                (snappy.header("Content-Encoding"), decoded(b"snappy", snappy.body)), ("snappy", body)
            )

    @inlineCallbacks
    def test_quoted(self) -> Any:
        """With quotes the ETag of a compressed answer is weak; it is taken back for a write."""
        yield self.service.stopService()
        self.service = yield self.begin(self.settings(**{"quoted-etags": True}))
        yield self.ask("PUT", D + "k", TEXT, **JSON)
        got = yield self.ask("GET", D + "k", Accept_Encoding="br")
        self.assertRegex(got.header("ETag"), '^W/"[0-9a-f]{8,}"$')
        put = yield self.ask("PUT", D + "k", b"1", If_Match=got.header("ETag"))
        self.assertEqual(put.status, 200)

    @inlineCallbacks
    def test_data_api(self) -> Any:
        """GET, touch and lock read the header once the document is there; others ignore it."""
        yield self.ask("PUT", D + "k", TEXT, **JSON)
        for value in ("snappy;x=1", "gzip;q=x", ";"):
            missing = yield self.ask("GET", D + "none", Accept_Encoding=value)
            self.assertEqual(missing.code(), (404, "DocumentNotFound"))
            refused = yield self.ask("GET", D + "k", Accept_Encoding=value)
            self.assertEqual(refused.code(), (400, "InvalidArgument"))
            self.assertEqual(refused.json()["resource"], "")
            touch = b'{"expiry":"1h","returnContent":true}'
            refused = yield self.ask("POST", D + "k/touch", touch, Accept_Encoding=value)
            self.assertEqual(refused.code(), (400, "InvalidArgument"))
            for method, path, body in (
                ("PUT", "k", TEXT),
                ("POST", "k/lookup", b'{"operations":[{"operation":"Get","path":"a"}]}'),
                ("POST", "k/mutate", b'{"operations":[{"operation":"DictSet","path":"b","value":1}]}'),
            ):
                taken = yield self.ask(method, D + path, body, Accept_Encoding=value)
                self.assertEqual((taken.status, taken.header("Content-Encoding")), (200, None), path)
        touched = yield self.ask("POST", D + "k/touch", touch, Accept_Encoding="snappy, identity;q=0")
        self.assertEqual(json.loads(decoded(b"snappy", touched.body))["b"], 1)
        locked = yield self.ask("POST", D + "k/lock", b"{}", Accept_Encoding="gzip")
        self.assertEqual(json.loads(decoded(b"gzip", locked.body))["b"], 1)
        yield self.ask("POST", D + "k/unlock", If_Match=locked.header("ETag"))
        yield self.ask("POST", D + "k/lock", b"{}", Accept_Encoding="gzip;x")
        again = yield self.ask("POST", D + "k/lock", b"{}")
        self.assertEqual(again.code(), (409, "DocumentLocked"))

    @inlineCallbacks
    def test_snappy_bodies(self) -> Any:
        """POST and PUT take blocks, of any size, and store what is in them; nothing else does."""
        snappy = {"Content_Encoding": "snappy", **JSON}
        for name, body in (("a", b'{"a":1}'), ("b", LARGE), ("c", b"")):
            for method in ("POST", "PUT"):
                stored = yield self.ask(method, D + name, packed(body), **snappy)
                self.assertEqual(stored.status, 200, (method, name, stored.body))
                got = yield self.ask("GET", D + name)
                self.assertEqual(got.body, body)
        put = yield self.ask("PUT", D + "a", packed(b"2"), If_Match=got.header("ETag"), **snappy)
        self.assertEqual(put.code(), (409, "CasMismatch"))
        for body in (b"", b'{"a":1}', packed(LARGE)[:-1]):
            wrong = yield self.ask("PUT", D + "a", body, **snappy)
            self.assertEqual(wrong.code(), (400, "InvalidArgument"), body)
            self.assertIn("Snappy", wrong.json()["message"])
        for encoding in ("gzip", "", "Snappy", "snappy, identity"):
            wrong = yield self.ask("PUT", D + "a", b"1", Content_Encoding=encoding)
            self.assertEqual(wrong.code(), (400, "InvalidArgument"), encoding)
        for path in ("a/append", "a/lock", "a/lookup"):
            wrong = yield self.ask("POST", D + path, packed(b"{}"), Content_Encoding="snappy")
            self.assertEqual(wrong.code(), (400, "InvalidArgument"), path)
        got = yield self.ask("GET", D + "a")
        self.assertEqual(got.body, b'{"a":1}')

    @inlineCallbacks
    def test_streams(self) -> Any:
        """Batches and views."""
        lines = b"".join(b'{"op":"set","key":"%d","value":%b}\n' % (n, TEXT) for n in range(50))
        for encoding in ENCODINGS:
            stored = yield self.ask("POST", BATCH, lines, Accept_Encoding=encoding.decode())
            self.assertEqual(stored.header("Content-Encoding"), encoding.decode())
            answers = [json.loads(line) for line in decoded(encoding, stored.body).splitlines()]
            self.assertEqual([one["status"] for one in answers], [200] * 50)
        reads = b"".join(b'{"op":"get","key":"%d"}\n' % (n % 50) for n in range(500))
        read = yield self.ask("POST", BATCH, reads, Accept_Encoding="gzip")
        self.assertLess(len(read.body), 500 * len(TEXT) / 10)
        answers = [json.loads(line) for line in decoded(b"gzip", read.body).splitlines()]
        self.assertEqual([one["index"] for one in answers], list(range(500)))
        self.assertEqual(answers[499]["value"], json.loads(TEXT))
        design = {"views": {"v": {"map": "function (doc, meta) { emit(meta.id, doc.a); }"}}}
        designed = yield self.ask("PUT", "/v1/buckets/default/designs/d", json.dumps(design).encode(), **JSON)
        self.assertEqual(designed.status, 201)
        view = "/v1/buckets/default/views/d/v?stale=false"
        listing = "/v1/buckets/default/documents?include_docs=true"
        for rows_of in (view, listing):
            plain = yield self.ask("GET", rows_of)
            for encoding in ENCODINGS:
                rows = yield self.ask("GET", rows_of, Accept_Encoding=encoding.decode())
                self.assertEqual(rows.header("Content-Encoding"), encoding.decode())
                self.assertEqual(decoded(encoding, rows.body), plain.body)
                self.assertEqual(rows.header("Vary"), "Accept, Accept-Encoding")
        for method, path in (("GET", view), ("GET", listing), ("POST", BATCH)):
            wrong = yield self.ask(method, path, lines, Accept_Encoding="gzip;q=x")
            self.assertEqual(wrong.code(), (400, "InvalidArgument"))


class SmallTests(SynchronousTestCase):
    """What stays as it is."""

    def test_plain_answers(self) -> None:
        """Small documents, errors, HEAD, other resources, bytes of no known form."""
        accepts = {"Accept-Encoding": "gzip, deflate, br, zstd"}
        small = Site(dict(ANSWERS)).request("GET", SHORT, headers=accepts)
        self.assertEqual(
            (small.body, small.header("Content-Encoding"), small.header("Vary")), (b'{"a":1}', None, None)
        )
        site = Site({**ANSWERS, "get_with_expiry": Answer(b"\x00" * 5000, flags=0x03000000)})
        for method in ("GET", "HEAD"):
            reply = site.request(method, SHORT, headers=accepts)
            self.assertIsNone(reply.header("Content-Encoding"))
        self.assertIn("Accept-Encoding", site.request("GET", SHORT, headers=accepts).header("Vary") or "")
        missing = site.request("GET", "/v2", headers={"Accept-Encoding": "gzip;q=x"})
        self.assertEqual(missing.status, 404)

    def test_several_headers(self) -> None:
        """They are one list (RFC 9110 5.3)."""
        site = Site({**ANSWERS, "get_with_expiry": Answer(TEXT)})
        reply = site.request("GET", SHORT, b"", [("Accept-Encoding", "deflate"), ("Accept-Encoding", "gzip")])
        self.assertEqual(reply.header("Content-Encoding"), "gzip")
        self.assertEqual(decoded(b"gzip", reply.body), TEXT)
