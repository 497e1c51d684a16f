"""Scopes and collections over HTTP, and documents in them, on a real node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks

from tests.gateway.test_behaviour import JSON, D, GatewayTestCase
from tests.tooling.forking import output_of

B = "/v1/buckets/default"
S = f"{B}/scopes"
C = f"{S}/s/collections/c"
DOC = f"{C}/documents/"
LINES = {"Content_Type": "application/x-ndjson", "Accept": "application/x-ndjson"}


class CollectionCase(GatewayTestCase):
    """A gateway with the collection ``c`` in the scope ``s``."""

    @inlineCallbacks
    def setUp(self) -> Any:
        yield super().setUp()
        for path in (f"{S}/s", C):
            made = yield self.ask("PUT", path)
            self.assertEqual(made.status, 200, made.body)

    @inlineCallbacks
    def batch(self, text: bytes, path: str = f"{B}/batch") -> Any:
        """Run a batch; returns status, code and value of each answer."""
        answer = yield self.ask("POST", path, text, **LINES)
        self.assertEqual(answer.status, 200, answer.body)
        lines = [json.loads(line) for line in answer.body.splitlines()]
        return [(line["status"], line.get("error", {}).get("code"), line.get("value")) for line in lines]

    def code(self, answer: Any) -> tuple[int, str, str]:
        """Return status, code and resource of a refusal."""
        members = json.loads(answer.body)
        return answer.status, members["code"], members["resource"]


class ManagementTests(CollectionCase):
    """``/scopes`` and what is below."""

    @inlineCallbacks
    def test_list(self) -> Any:
        """All scopes, one, its collections, one of those."""
        answer = yield self.ask("GET", S)
        found = json.loads(answer.body)
        self.assertEqual([scope["name"] for scope in found["scopes"]], ["_default", "s"])
        scope = found["scopes"][1]
        self.assertEqual([one["name"] for one in scope["collections"]], ["c"])
        self.assertEqual(scope["collections"][0]["maxTTL"], 0)
        for path, wanted in (
            (f"{S}/s", scope),
            (f"{S}/s/collections", {"collections": scope["collections"]}),
            (C, scope["collections"][0]),
        ):
            one = yield self.ask("GET", path)
            self.assertEqual((one.status, json.loads(one.body)), (200, wanted))

    @inlineCallbacks
    def test_put_again(self) -> Any:
        """Creating what is there changes nothing, except a new limit of the time to live."""
        before = yield self.ask("GET", S)
        for path in (f"{S}/s", C):
            again = yield self.ask("PUT", path)
            self.assertEqual(again.status, 200, again.body)
        after = yield self.ask("GET", S)
        self.assertEqual(before.body, after.body)
        changed = yield self.ask("PUT", C, b'{"maxTTL":90}', **JSON)
        self.assertEqual((changed.status, json.loads(changed.body)["maxTTL"]), (200, 90))
        again = yield self.ask("PUT", C)
        self.assertEqual(json.loads(again.body)["maxTTL"], 90)

    @inlineCallbacks
    def test_max_ttl(self) -> Any:
        """Documents get the longest time to live of their collection."""
        path = f"{S}/s/collections/short"
        made = yield self.ask("PUT", path, b'{"maxTTL":3600}', **JSON)
        self.assertEqual(json.loads(made.body)["maxTTL"], 3600)
        yield self.ask("PUT", f"{path}/documents/k", b"1", **JSON)
        found = yield self.ask("GET", f"{path}/documents/k")
        self.assertTrue(found.header("Expires"))

    @inlineCallbacks
    def test_drop(self) -> Any:
        """The next request knows; and knows again when there is a new one, which is empty."""
        yield self.ask("PUT", DOC + "k", b"1", **JSON)
        dropped = yield self.ask("DELETE", C)
        self.assertEqual((dropped.status, dropped.body), (200, b""))
        gone = yield self.ask("GET", DOC + "k")
        self.assertEqual(
            self.code(gone), (404, "CollectionNotFound", "/buckets/default/scopes/s/collections/c")
        )
        yield self.ask("PUT", C)
        empty = yield self.ask("GET", DOC + "k")
        self.assertEqual(
            self.code(empty),
            (404, "DocumentNotFound", "/buckets/default/scopes/s/collections/c/documents/k"),
        )
        dropped = yield self.ask("DELETE", f"{S}/s")
        self.assertEqual(dropped.status, 200)
        gone = yield self.ask("GET", DOC + "k")
        self.assertEqual(self.code(gone), (404, "ScopeNotFound", "/buckets/default/scopes/s"))

    @inlineCallbacks
    def test_refusals(self) -> Any:
        """What is missing, and what cannot be, is said."""
        missing = "/buckets/default/scopes/s/collections/none"
        for method, path, body, wanted in (
            ("GET", f"{S}/none", b"", (404, "ScopeNotFound", "/buckets/default/scopes/none")),
            ("GET", f"{S}/s/collections/none", b"", (404, "CollectionNotFound", missing)),
            ("DELETE", f"{S}/none", b"", (404, "ScopeNotFound", "/buckets/default/scopes/none")),
            ("DELETE", f"{S}/s/collections/none", b"", (404, "CollectionNotFound", missing)),
            ("PUT", f"{S}/none/collections/c", b"", (404, "ScopeNotFound", "/buckets/default/scopes/none")),
            ("GET", "/v1/buckets/none/scopes", b"", (404, "BucketNotFound", "/buckets/none")),
            ("PUT", f"{S}/_x", b"", (400, "InvalidArgument", "")),
            ("PUT", f"{S}/a%20b", b"", (404, "ScopeNotFound", "/buckets/default/scopes/a b")),
            ("PUT", f"{S}/s/collections/a%20b", b"", (404, "CollectionNotFound", missing[:-4] + "a b")),
            (
                "PUT",
                f"{S}/none/collections/a%20b",
                b"",
                (404, "ScopeNotFound", "/buckets/default/scopes/none"),
            ),
            (
                "GET",
                f"{S}/none/collections/a%20b",
                b"",
                (404, "ScopeNotFound", "/buckets/default/scopes/none"),
            ),
            ("PUT", f"{S}/s", b'{"a":1}', (400, "InvalidArgument", "")),
            ("PUT", C, b'{"maxTTL":-2}', (400, "InvalidArgument", "")),
            ("PUT", C, b'{"maxTTL":"1"}', (400, "InvalidArgument", "")),
            ("PUT", C, b'{"ttl":1}', (400, "InvalidArgument", "")),
            ("DELETE", f"{S}/_default", b"", (400, "InvalidArgument", "")),
            ("GET", f"{S}?x=1", b"", (400, "InvalidArgument", "")),
        ):
            answer = yield self.ask(method, path, body, **(JSON if body else {}))
            self.assertEqual(self.code(answer), wanted, (method, path))

    @inlineCallbacks
    def test_names_of_views(self) -> Any:
        """Views are of the default collection."""
        answer = yield self.ask("GET", f"{C}/views/d/v")
        self.assertEqual(answer.status, 404)
        self.assertIn("default collection", json.loads(answer.body)["message"])


class DocumentTests(CollectionCase):
    """Every resource of documents, in a collection."""

    @inlineCallbacks
    def test_every_resource(self) -> Any:
        """The answers are those of the default collection, where the same key is another document."""
        yield self.ask("PUT", D + "k", b'{"default":true}', **JSON)
        told = {}
        for base in (f"{S}/_default/collections/_default/documents/", DOC):
            if base == DOC:
                yield self.ask("PUT", D + "k", b'{"default":true}', **JSON)
            told[base] = yield self.resources(base)
        self.assertEqual(*told.values())
        kept = yield self.ask("GET", D + "k")
        self.assertEqual(json.loads(kept.body), {"default": True})

    @inlineCallbacks
    def resources(self, base: str) -> Any:
        """Use each resource; returns status and body of each, without what differs from time to time."""
        told = []

        @inlineCallbacks
        def ask(method: str, path: str, body: bytes = b"", **headers: str) -> Any:
            answer = yield self.ask(method, base + path, body, **{**JSON, **headers})
            told.append((method, path, answer.status, answer.body if answer.status < 300 else b""))
            return answer

        for key in ("k2", "n", "t", "k9"):
            yield self.ask("DELETE", base + key)
        made = yield ask("POST", "k2", b'{"a":{"b":1}}')
        yield ask("POST", "k2", b"2")
        yield ask("GET", "k2")
        yield ask("GET", "k2?project=a.b")
        yield ask("PUT", "k2", b'{"a":{"b":2}}', If_Match=made.header("ETag"))
        yield ask("PUT", "k2", b"[]", If_Match=made.header("ETag"))
        yield ask("PUT", "k2", b'{"a":{"b":2}}', X_CB_DurabilityLevel="Majority")
        yield ask("POST", "k2/lookup", b'{"operations":[{"operation":"Get","path":"a.b"}]}')
        yield ask("POST", "k2/mutate", b'{"operations":[{"operation":"DictSet","path":"c","value":1}]}')
        yield ask("GET", "k2")
        yield ask("POST", "k2/mutate", b'{"operations":[{"operation":"Counter","path":"d","value":1}]}')
        yield ask(
            "POST", "k2/mutate", b'{"operations": [{"operation": "Delete", "path": "c", "xattr": false}]}'
        )
        yield ask("GET", "k2")
        yield ask("PUT", "t", b"ab", Content_Type="text/plain")
        yield ask("POST", "t/append", b"c")
        yield ask("POST", "t/prepend", b"_")
        yield ask("GET", "t")
        yield ask("POST", "t/touch", b'{"expiry":"1h"}')
        yield ask("POST", "n/increment", b'{"initial":5}')
        yield ask("POST", "n/decrement", b'{"delta":2}')
        locked = yield ask("POST", "k2/lock", b'{"lockTime":5}')
        yield ask("PUT", "k2", b"1")
        yield ask("POST", "k2/unlock", If_Match=locked.header("ETag"))
        yield ask("POST", "k2/endure", b'{"persistTo":0,"replicateTo":0}')
        seen = yield self.ask("GET", base + "k2/observe")
        copies = [{**copy, "cas": ""} for copy in json.loads(seen.body)["copies"]]
        told.append(("GET", "observe", seen.status, copies))
        yield ask("DELETE", "k2")
        yield ask("GET", "k2")
        yield ask("GET", "k9")
        return told

    @inlineCallbacks
    def test_time_limits(self) -> Any:
        """Requests with limits of their own stay in their collection."""
        yield self.ask("PUT", DOC + "k", b"1", X_CB_Timeout="20s", **JSON)
        yield self.ask("PUT", D + "k", b"2", **JSON)
        for path, wanted in ((DOC, b"1"), (D, b"2")):
            found = yield self.ask("GET", path + "k", X_CB_Timeout="20s")
            self.assertEqual((found.status, found.body), (200, wanted))
        missing = yield self.ask("GET", f"{S}/s/collections/x/documents/k", X_CB_Timeout="20s")
        self.assertEqual(self.code(missing)[1], "CollectionNotFound")

    @inlineCallbacks
    def test_large(self) -> Any:
        """Large documents use their lane, known by their collection."""
        large = b'"' + b"x" * 400_000 + b'"'
        yield self.ask("PUT", DOC + "k", large, **JSON)
        yield self.ask("PUT", D + "k", b"1", **JSON)
        for _ in range(2):
            found = yield self.ask("GET", DOC + "k")
            self.assertEqual((found.status, len(found.body)), (200, len(large)))
            other = yield self.ask("GET", D + "k")
            self.assertEqual(other.body, b"1")

    @inlineCallbacks
    def test_keys(self) -> Any:
        """A key has 246 bytes at most, 250 in the default collection."""
        for base, most in ((DOC, 246), (D, 250)):
            for size, wanted in ((most, 200), (most + 1, 400)):
                stored = yield self.ask("PUT", base + "k" * size, b"1", **JSON)
                self.assertEqual(stored.status, wanted, (base, size))
                found = yield self.ask("GET", base + "k" * size)
                self.assertEqual(found.status, wanted, (base, size))

    @inlineCallbacks
    def test_missing(self) -> Any:
        """Which of the three is missing is said, by every kind of request."""
        for scope, name, wanted in (
            ("none", "c", (404, "ScopeNotFound", "/buckets/default/scopes/none")),
            ("s", "none", (404, "CollectionNotFound", "/buckets/default/scopes/s/collections/none")),
            ("a%20b", "c", (404, "ScopeNotFound", "/buckets/default/scopes/a b")),
            ("s", "a%20b", (404, "CollectionNotFound", "/buckets/default/scopes/s/collections/a b")),
            ("none", "a%20b", (404, "ScopeNotFound", "/buckets/default/scopes/none")),
            (
                "_default",
                "b!d",
                (404, "CollectionNotFound", "/buckets/default/scopes/_default/collections/b!d"),
            ),
        ):
            base = f"{S}/{scope}/collections/{name}/documents/k"
            for method, path, body in (
                ("GET", "", b""),
                ("PUT", "", b"1"),
                ("POST", "", b"1"),
                ("DELETE", "", b""),
                ("POST", "/increment", b""),
                ("GET", "/observe", b""),
                ("POST", "/lock", b"{}"),
                ("POST", "/lookup", b'{"operations":[{"operation":"Get","path":"a"}]}'),
                ("POST", "/mutate", b'{"operations":[{"operation":"DictSet","path":"a","value":1}]}'),
            ):
                answer = yield self.ask(method, base + path, body, **(JSON if body else {}))
                status, code, resource = self.code(answer)
                self.assertEqual((status, code), wanted[:2], (method, path, answer.body))
                self.assertEqual(resource, wanted[2])
        other = yield self.ask("GET", "/v1/buckets/none/scopes/s/collections/c/documents/k")
        self.assertEqual(self.code(other), (404, "BucketNotFound", "/buckets/none"))

    @inlineCallbacks
    def test_dropped_meanwhile(self) -> Any:
        """Requests that are under way while a collection goes and comes end with one of three answers."""
        yield self.ask("PUT", DOC + "k", b"1", **JSON)
        for _ in range(3):
            given = [self.ask("PUT", f"{DOC}k{number}", b"1", **JSON) for number in range(20)]
            yield self.ask("DELETE", C)
            yield self.ask("PUT", C)
            answers = yield gatherResults(given)
            codes = {
                (answer.status, json.loads(answer.body)["code"] if answer.body else "") for answer in answers
            }
            self.assertTrue(codes <= {(200, ""), (404, "CollectionNotFound")}, codes)
            stored = yield self.ask("PUT", DOC + "after", b"1", **JSON)
            self.assertEqual(stored.status, 200)


class BatchTests(CollectionCase):
    """Batches take a collection for all lines, and for each."""

    @inlineCallbacks
    def test_lines(self) -> Any:
        """A line's names win over the batch's; usual lines and others do the same."""
        yield self.ask("PUT", f"{S}/s/collections/d")
        text = b"\n".join(
            (
                b'{"op":"set","key":"k","value":"default"}',
                b'{"op":"set","scope":"s","collection":"c","key":"k","value":"c"}',
                b'{"op":"set","key":"k","scope":"s","collection":"d","value":"d"}',
                b'{"op":"get","key":"k"}',
                b'{"op":"get","scope":"s","collection":"c","key":"k"}',
                b'{"op": "get", "scope": "s", "collection": "d", "key": "k"}',
                b'{"op":"get","key":"k","collection":"d","scope":"s"}',
                b'{"op":"get","scope":"s","collection":"c","key":"k","timeout":"20s"}',
                b'{"op":"incr","scope":"s","collection":"c","key":"n","initial":3}',
                b'{"op":"lookup_in","scope":"s","collection":"c","key":"k",'
                b'"operations":[{"operation":"Get","path":""}]}',
            )
        )
        answers = yield self.batch(text)
        values = [value for status, _, value in answers if status == 200]
        self.assertEqual(values[:9], [None, None, None, "default", "c", "d", "d", "c", 3], answers)

    @inlineCallbacks
    def test_whole(self) -> Any:
        """The path or the query names the collection of lines that name none."""
        lines = (
            b'{"op":"set","key":"k","value":1}\n{"op":"get","key":"k","timeout":"20s"}\n'
            b'{"op":"set","scope":"_default","collection":"_default","key":"k","value":2}\n{"op":"get","key":"k"}'
        )
        for path in (f"{C}/batch", f"{B}/batch?scope=s&collection=c"):
            answers = yield self.batch(lines, path)
            self.assertEqual([value for _, _, value in answers], [None, 1, None, 1], path)
            default = yield self.ask("GET", D + "k")
            self.assertEqual(default.body, b"2")
            yield self.ask("DELETE", DOC + "k")

    @inlineCallbacks
    def test_refusals(self) -> Any:
        """A line whose collection is missing fails alone."""
        answers = yield self.batch(
            b"\n".join(
                (
                    b'{"op":"get","scope":"x","collection":"c","key":"k"}',
                    b'{"op":"get","scope":"s","collection":"x","key":"k"}',
                    b'{"op":"get","scope":"a b","key":"k"}',
                    b'{"op":"get","collection":"","key":"k"}',
                    b'{"op":"get","scope":1,"key":"k"}',
                    b'{"op":"set","scope":"s","collection":"c","key":"%b","value":1}' % (b"k" * 247),
                    b'{"op":"set","scope":"s","collection":"c","key":"%b","value":1}' % (b"k" * 246),
                    b'{"op":"get","collection":null,"key":"none"}',
                )
            )
        )
        self.assertEqual(
            [(status, code) for status, code, _ in answers],
            [
                (404, "ScopeNotFound"),
                (404, "CollectionNotFound"),
                (404, "ScopeNotFound"),
                (404, "CollectionNotFound"),
                (400, "InvalidArgument"),
                (400, "InvalidArgument"),
                (200, None),
                (404, "DocumentNotFound"),
            ],
        )
        twice = yield self.ask("POST", f"{C}/batch?scope=s", b"{}", **LINES)
        self.assertEqual(twice.status, 400)

    @inlineCallbacks
    def test_loader(self) -> Any:
        """``couchgateway-load`` stores lines in their collections, or all of them in a given one."""
        file = Path(self.mktemp())
        file.write_text('{"id":"a","doc":1,"scope":"s","collection":"c"}\n{"id":"a","doc":2}\n')
        code = "from gateway.loader.command import main; main()"
        options = ["--bucket", "default", "--url", self.url]
        given = ["--scope", "s", "--collection", "c"]
        for more, paths in (([], {D: b"2"}), (given, {DOC: b"2"})):
            arguments = ["-c", code, str(file), *options, *more]
            output, _, status = yield output_of(*arguments)
            self.assertEqual((status, output[:19]), (0, b"2 stored, 0 failed "))
            for path, wanted in paths.items():
                found = yield self.ask("GET", path + "a")
                self.assertEqual(found.body, wanted)

    @inlineCallbacks
    def test_many(self) -> Any:
        """A thousand lines in turn go each to its own collection."""
        names = [b"", b'"scope":"s","collection":"c",']
        lines = [
            b'{"op":"set",%b"key":"k%d","value":%d}' % (names[number % 2], number // 2, number)
            for number in range(1000)
        ]
        stored = yield self.batch(b"\n".join(lines))
        self.assertEqual({status for status, _, _ in stored}, {200})
        reads = [b'{"op":"get",%b"key":"k%d"}' % (names[number % 2], number // 2) for number in range(1000)]
        found = yield self.batch(b"\n".join(reads))
        self.assertEqual([value for _, _, value in found], list(range(1000)))


class RightsTests(CollectionCase):
    """Callers with rights on a part of the bucket."""

    credentials = ("admin", "right password")

    @inlineCallbacks
    def setUp(self) -> Any:
        path = Path(self.mktemp())
        path.write_text("right password\n")
        self.options = {"ephemeral": True, "auth": "passthrough", "user": "admin", "password-file": str(path)}
        yield super().setUp()
        yield self.ask("PUT", f"{S}/s/collections/d")
        yield self.ask("PUT", DOC + "k", b"1", **JSON)
        for user, roles in (
            ("reader", "data_reader[default:s:c]"),
            ("writer", "data_reader[default:s:c],data_writer[default:s:c]"),
            ("manager", "scope_admin[default:s]"),
        ):
            yield self.user(user, roles)

    @inlineCallbacks
    def user(self, name: str, roles: str) -> Any:
        """Create a user of the cluster."""
        node = self.service._embedded.node
        response = yield self.client.put(
            f"{node.rest_urls[0]}/settings/rbac/users/local/{name}",
            data={"password": "password", "roles": roles},
            auth=self.credentials,
        )
        content = yield response.content()
        self.assertEqual(response.code, 200, content)

    @inlineCallbacks
    def refusals(self, user: str, *requests: tuple[str, str, bytes, int, str]) -> Any:
        """Send requests; compare status and code (empty of a success) of each."""
        for method, path, body, status, code in requests:
            answer = yield self.ask(method, path, body, (user, "password"), **(JSON if body else {}))
            found = json.loads(answer.body)["code"] if answer.status >= 400 else ""
            self.assertEqual((answer.status, found), (status, code), (user, method, path, answer.body))

    @inlineCallbacks
    def test_reader(self) -> Any:
        """A reader of one collection does not see others, and changes nothing."""
        yield self.refusals(
            "reader",
            ("GET", DOC + "k", b"", 200, ""),
            ("PUT", DOC + "k", b"2", 403, "NoWriteAccess"),
            ("DELETE", DOC + "k", b"", 403, "NoWriteAccess"),
            ("GET", f"{S}/s/collections/d/documents/k", b"", 404, "CollectionNotFound"),
            ("PUT", f"{S}/s/collections/e", b"", 403, "NoWriteAccess"),
            ("DELETE", C, b"", 403, "NoWriteAccess"),
        )
        refused = yield self.ask("PUT", DOC + "k", b"2", ("reader", "password"), **JSON)
        self.assertEqual(self.code(refused)[2], "/buckets/default/scopes/s/collections/c")

    @inlineCallbacks
    def test_writer(self) -> Any:
        """A writer of one collection changes that one."""
        yield self.refusals(
            "writer",
            ("PUT", DOC + "k", b"2", 200, ""),
            ("GET", DOC + "k", b"", 200, ""),
            ("PUT", f"{S}/s/collections/d/documents/k", b"2", 404, "CollectionNotFound"),
        )
        text = b'{"op":"set","scope":"s","collection":"c","key":"k","value":3}\n{"op":"get","key":"k"}'
        answer = yield self.ask("POST", f"{B}/batch", text, ("writer", "password"), **LINES)
        found = [json.loads(line)["status"] for line in answer.body.splitlines()]
        self.assertEqual(found[0], 200)
        self.assertIn(found[1], (403, 404))


class BucketTests(CollectionCase):
    """A bucket that goes, and comes again with its collections in another order."""

    credentials = ("admin", "right password")

    @inlineCallbacks
    def setUp(self) -> Any:
        path = Path(self.mktemp())
        path.write_text("right password\n")
        self.options = {"ephemeral": True, "auth": "passthrough", "user": "admin", "password-file": str(path)}
        yield super().setUp()

    @inlineCallbacks
    def manage(self, method: str, path: str, **form: str) -> Any:
        """Send a request to the node's manager."""
        url = f"{self.service._embedded.node.rest_urls[0]}/pools/default/buckets{path}"
        response = yield self.client.request(method, url, data=form, auth=self.credentials)
        content = yield response.content()
        self.assertIn(response.code, (200, 202), content)

    @inlineCallbacks
    def until(self, status: int, method: str, path: str, body: bytes = b"") -> Any:
        """Send a request until it is answered so, and return the answer."""
        for _ in range(500):
            answer = yield self.ask(method, path, body, **(JSON if body else {}))
            if answer.status == status:
                return answer
            self.assertIn(answer.status, (404, 503, 504, 200), answer.body)
            yield self.pause(0.01)
        self.fail(f"{method} {path}: {answer.status} {answer.body!r}")

    @inlineCallbacks
    def test_made_anew(self) -> Any:
        """The next request knows: of no document of the other bucket, and of no id."""
        base = "/v1/buckets/anew"
        names = ("a", "b")
        for round_ in range(2):
            yield self.manage("POST", "", name="anew", ramQuotaMB="100", bucketType="ephemeral")
            for name in names:
                yield self.until(200, "PUT", f"{base}/scopes/_default/collections/{name}")
            for name in names:
                path = f"{base}/scopes/_default/collections/{name}/documents/k"
                missing = yield self.until(404, "GET", path)
                self.assertEqual(json.loads(missing.body)["code"], "DocumentNotFound")
                stored = yield self.ask("PUT", path, f'"{name}{round_}"'.encode(), **JSON)
                self.assertEqual(stored.status, 200)
            for name in names:
                found = yield self.ask("GET", f"{base}/scopes/_default/collections/{name}/documents/k")
                self.assertEqual(found.body, f'"{name}{round_}"'.encode())
            yield self.manage("DELETE", "/anew")
            gone = yield self.until(404, "GET", f"{base}/scopes/_default/collections/a/documents/k")
            self.assertEqual(self.code(gone), (404, "BucketNotFound", "/buckets/anew"))
            names = ("b", "a")
