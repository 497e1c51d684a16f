"""Users with some rights, through the gateway with ``--auth passthrough``."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from twisted.internet.defer import inlineCallbacks

from tests.gateway.clients.test_doors import ADMIN, DESIGN, Doors
from tests.gateway.test_behaviour import D

PASSWORD = "s3cret-pw"
BUCKET = "/v1/buckets/default"
NAMED = f"{BUCKET}/scopes/s/collections"
DEFAULT = "/buckets/default/scopes/_default/collections/_default"

READS = (
    ("GET", "/documents/k", b""),
    ("GET", "/documents/k?project=a", b""),
    ("HEAD", "/documents/k", b""),
    ("GET", "/documents/k/observe", b""),
    ("GET", "/documents?limit=5", b""),
    ("POST", "/documents/k/lookup", b'{"operations":[{"operation":"Get","path":"a"}]}'),
)
WRITES = (
    ("PUT", "/documents/k", b'{"a":1}'),
    ("POST", "/documents/{}", b'{"a":1}'),
    ("POST", "/documents/k/touch", b'{"expiry":"1h"}'),
    ("POST", "/documents/k/mutate", b'{"operations":[{"operation":"DictSet","path":"b","value":1}]}'),
    ("DELETE", "/documents/k", b""),
)


class RolesTests(Doors):
    """Readers, writers, users of views and of one collection."""

    credentials = ADMIN

    @inlineCallbacks
    def setUp(self) -> Any:
        """Start with a document, a view and a scope with two collections."""
        account = {"user": ADMIN[0], "password-file": self.secret_file(ADMIN[1])}
        self.options = {"data": self.mktemp(), "auth": "passthrough", **account}
        yield super().setUp()
        yield self.ask("PUT", D + "k", b'{"a":1}')
        yield self.manage("POST", "/pools/default/buckets/default/scopes", name="s")
        for name in ("a", "b"):
            yield self.manage("POST", "/pools/default/buckets/default/scopes/s/collections", name=name)

    @inlineCallbacks
    def manage(self, method: str, path: str, **form: str) -> Any:
        """Ask the node's manager as its administrator."""
        answer = yield self.client.request(
            method,
            self.node.rest_urls[0] + path,
            data=urlencode(form).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            auth=ADMIN,
        )
        body = yield answer.content()
        self.assertEqual(answer.code, 200, body)

    @inlineCallbacks
    def make(self, name: str, *roles: str) -> Any:
        """Make a user; returns name and password."""
        yield self.manage(
            "PUT", f"/settings/rbac/users/local/{name}", password=PASSWORD, roles=",".join(roles)
        )
        return name, PASSWORD

    @inlineCallbacks
    def each(self, rows: Any, auth: Any, base: str, code: str | None) -> Any:
        """Send requests, all of which are to succeed (``None``) or to be refused with this code."""
        for number, (method, path, body) in enumerate(rows):
            url = base + path.replace("{}", f"{auth[0]}-{number}")
            answer = yield self.ask(method, url, body, auth=auth, Content_Type="application/json")
            if code is None:
                self.assertLess(answer.status, 300, (method, url, answer.body))
            elif method == "HEAD":
                self.assertEqual(answer.status, 403)
            else:
                self.assertEqual(answer.code(), (403, code), (method, url, answer.body))

    @inlineCallbacks
    def test_reader_and_writer(self) -> Any:
        """Each does its part; the other part is NoReadAccess or NoWriteAccess, and nothing is done."""
        reader = yield self.make("reader", "data_reader[default]")
        writer = yield self.make("writer", "data_writer[default]")
        yield self.each(READS, reader, BUCKET, None)
        yield self.each(WRITES, reader, BUCKET, "NoWriteAccess")
        refused = [row for row in READS if "observe" not in row[1]]
        yield self.each(refused, writer, BUCKET, "NoReadAccess")
        unchanged = yield self.ask("GET", D + "k")
        self.assertEqual(unchanged.body, b'{"a":1}')
        for method, path in (("POST", "/documents/n/increment"), ("POST", "/documents/n/decrement")):
            for auth in (reader, writer):
                answer = yield self.ask(method, BUCKET + path, auth=auth)
                self.assertEqual(answer.code(), (403, "NoWriteAccess"), (path, auth))
        yield self.each(WRITES, writer, BUCKET, None)

    @inlineCallbacks
    def test_batches(self) -> Any:
        """Each operation of a batch is refused by itself."""
        reader = yield self.make("reader", "data_reader[default]")
        lines = b'{"op":"get","key":"k"}\n{"op":"set","key":"k","value":2}\n{"op":"delete","key":"k"}\n'
        answer = yield self.ask("POST", f"{BUCKET}/batch", lines, auth=reader)
        self.assertEqual(answer.status, 200)
        self.assertIn(b'"value":{"a":1}', answer.body)
        self.assertEqual(answer.body.count(b"NoWriteAccess"), 2)

    @inlineCallbacks
    def test_views(self) -> Any:
        """A reader of views queries them and reads their design document; an administrator of views changes
        it; a reader of data does neither."""
        viewer = yield self.make("viewer", "views_reader[default]")
        editor = yield self.make("editor", "views_admin[default]")
        reader = yield self.make("reader", "data_reader[default]")
        design, view = f"{BUCKET}/designs/d", f"{BUCKET}/views/d/v"
        json = {"Content_Type": "application/json"}
        made = yield self.ask("PUT", design, DESIGN, auth=editor, **json)
        self.assertLess(made.status, 300, made.body)
        for auth in (viewer, editor):
            rows = yield self.ask("GET", f"{view}?stale=false", auth=auth)
            self.assertEqual(rows.status, 200, rows.body)
            self.assertIn(b'"id":"k"', rows.body)
            read = yield self.ask("GET", design, auth=auth)
            self.assertEqual(read.status, 200, auth)
        for method, url, auth, code in (
            ("PUT", design, viewer, "NoWriteAccess"),
            ("DELETE", design, viewer, "NoWriteAccess"),
            ("PUT", design, reader, "NoWriteAccess"),
            ("GET", design, reader, "NoReadAccess"),
            ("GET", f"{BUCKET}/designs", reader, "NoReadAccess"),
            ("GET", view, reader, "NoReadAccess"),
        ):
            answer = yield self.ask(method, url, DESIGN if method == "PUT" else b"", auth=auth, **json)
            self.assertEqual(answer.code(), (403, code), (method, url, answer.body))

    @inlineCallbacks
    def test_one_collection(self) -> Any:
        """The user of one collection has that, and does not learn whether there are others."""
        own = yield self.make("own", "data_reader[default:s:a]", "data_writer[default:s:a]")
        yield self.ask("PUT", f"{NAMED}/b/documents/k", b"1")
        yield self.each([("PUT", "/documents/k", b'{"a":1}'), *READS], own, f"{NAMED}/a", None)
        for base, code in (
            (BUCKET, "CollectionNotFound"),
            (f"{NAMED}/b", "CollectionNotFound"),
            (f"{NAMED}/nope", "CollectionNotFound"),
            (f"{BUCKET}/scopes/nope/collections/a", "ScopeNotFound"),
        ):
            for method, path, body in (("GET", "/documents/k", b""), ("PUT", "/documents/k", b"2")):
                answer = yield self.ask(method, base + path, body, auth=own)
                self.assertEqual(answer.code(), (404, code), (method, base, answer.body))
        kept = yield self.ask("GET", f"{NAMED}/b/documents/k")
        self.assertEqual(kept.body, b"1")

    @inlineCallbacks
    def test_rights_change(self) -> Any:
        """A right that is taken away, or given, holds for the next request."""
        user = yield self.make("user", "data_reader[default]")
        read = yield self.ask("GET", D + "k", auth=user)
        self.assertEqual(read.status, 200)
        yield self.make("user", "data_writer[default]")
        read = yield self.ask("GET", D + "k", auth=user)
        self.assertEqual(read.code(), (403, "NoReadAccess"))
        written = yield self.ask("PUT", D + "k", b"2", auth=user)
        self.assertEqual(written.status, 200)
