"""Scopes and collections over HTTP: what each request does and answers."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from couchnode.data.manifest import ManifestError, WantedCollection
from couchnode.rest.scopes import read_manifest
from tests.couchnode.rest.test_api import ADMIN, BUCKETS, RestCase, Steps

SCOPES = f"{BUCKETS}/default/scopes"
COLLECTIONS = f"{SCOPES}/_default/collections"


class ScopesTests(RestCase):
    """Two nodes."""

    nodes = 2

    @inlineCallbacks
    def change(self, path: str, method: str = "POST", node: int = 0, **form: str) -> Steps:
        """Make a change; return its status and its body."""
        answer = yield self.ask(path, method, form=form, node=node)
        self.assertEqual(answer.headers["content-type"], "application/json", answer.body)
        return answer.status, answer.json

    @inlineCallbacks
    def refused(
        self, status: int, field: str, text: str, path: str, method: str = "POST", **form: str
    ) -> Steps:
        """Check how a change is refused."""
        found = yield self.change(path, method, **form)
        self.assertEqual(found, (status, {"errors": {field: text}}))

    @inlineCallbacks
    def manifest(self, node: int = 0) -> Steps:
        """Return the manifest as a node gives it."""
        return (yield self.ask(SCOPES, node=node)).json

    @inlineCallbacks
    def test_history(self) -> Steps:
        """Collections of magma buckets may keep history, and do by default if the bucket says so; other
        buckets refuse it in the server's words."""
        form = {"name": "m", "ramQuotaMB": "100", "storageBackend": "magma", "numVBuckets": "128"}
        self.assertEqual((yield self.ask(BUCKETS, "POST", form=form)).status, 202)
        self.assertIn("nonDedupedHistory", (yield self.ask("/pools/default/b/m")).json["bucketCapabilities"])
        path = f"{BUCKETS}/m/scopes/_default/collections"
        for name, given in (("default", {}), ("on", {"history": "true"}), ("off", {"history": "false"})):
            self.assertEqual((yield self.change(path, name=name, **given))[0], 200)
        self.assertEqual((yield self.change(f"{path}/on", "PATCH", history="false"))[0], 200)
        (scope,) = (yield self.ask(f"{BUCKETS}/m/scopes")).json["scopes"]
        found = {one["name"]: one["history"] for one in scope["collections"] if one["name"] != "_default"}
        self.assertEqual(found, {"default": True, "on": False, "off": False})
        text = "Not allowed on this type of bucket"
        yield self.refused(400, "history", text, COLLECTIONS, name="c", history="true")
        yield self.change(COLLECTIONS, name="c")
        yield self.refused(400, "history", text, f"{COLLECTIONS}/c", "PATCH", history="true")

    @inlineCallbacks
    def test_create_change_and_drop(self) -> Steps:
        """Each change answers with the uid of the manifest that it makes, in hexadecimal; every node has it,
        and the bucket's configuration names it with a greater revision."""
        before = (yield self.ask("/pools/default/b/default")).json
        self.assertEqual(before["collectionsManifestUid"], "0")
        self.assertEqual((yield self.change(SCOPES, name="app")), (200, {"uid": "1"}))
        app = f"{SCOPES}/app/collections"
        for number in range(9):
            found = yield self.change(app, name=f"c{number}", node=number % 2)
            self.assertEqual(found, (200, {"uid": f"{number + 2:x}"}))
        changed = yield self.change(f"{app}/c0", "PATCH", maxTTL="77", history="false")
        self.assertEqual(changed, (200, {"uid": "b"}))
        self.assertEqual((yield self.change(f"{app}/c0", "PATCH", maxTTL="77")), changed)
        self.assertEqual((yield self.change(f"{app}/c8", "DELETE")), (200, {"uid": "c"}))
        manifest = yield self.manifest()
        self.assertEqual(manifest, (yield self.manifest(1)))
        self.assertEqual(manifest["uid"], "c")
        names = [scope["name"] for scope in manifest["scopes"]]
        self.assertEqual(names, ["app", "_default"])
        first = manifest["scopes"][0]["collections"]
        self.assertEqual(first[-1], {"name": "c0", "uid": "8", "maxTTL": 77, "history": False})
        after = (yield self.ask("/pools/default/b/default", node=1)).json
        self.assertEqual(after["collectionsManifestUid"], "c")
        self.assertIn("collections", after["bucketCapabilities"])
        self.assertGreater(after["rev"], before["rev"])
        self.assertEqual((yield self.change(f"{SCOPES}/app", "DELETE")), (200, {"uid": "d"}))
        self.assertEqual([one["name"] for one in (yield self.manifest())["scopes"]], ["_default"])

    @inlineCallbacks
    def test_a_slash_at_the_end(self) -> Steps:
        """Paths with a slash at their end, or two in a row, are the same paths."""
        self.assertEqual((yield self.change(f"{SCOPES}/", name="s"))[0], 200)
        self.assertEqual((yield self.change(f"{SCOPES}/s//collections/", name="c"))[0], 200)
        self.assertEqual((yield self.ask(f"{SCOPES}/")).status, 200)
        self.assertEqual((yield self.change(f"{SCOPES}/s/collections/c/", "DELETE"))[0], 200)
        self.assertEqual((yield self.change(f"{SCOPES}/s/", "DELETE"))[0], 200)

    @inlineCallbacks
    def test_refusals(self) -> Steps:
        """What is missing is 404, all else that cannot be is 400; the texts are those that clients read."""
        yield self.change(SCOPES, name="s")
        yield self.change(f"{SCOPES}/s/collections", name="c")
        yield self.refused(400, "_", 'Scope with name "s" already exists', SCOPES, name="s")
        text = 'Collection with name "c" in scope "s" already exists'
        yield self.refused(400, "_", text, f"{SCOPES}/s/collections", name="c")
        text = 'Scope with name "x" is not found'
        yield self.refused(404, "_", text, f"{SCOPES}/x", "DELETE")
        yield self.refused(404, "_", text, f"{SCOPES}/x/collections", name="c")
        yield self.refused(404, "_", text, f"{SCOPES}/x/collections/c", "DELETE")
        text = 'Collection with name "x" in scope "s" is not found'
        yield self.refused(404, "_", text, f"{SCOPES}/s/collections/x", "DELETE")
        yield self.refused(404, "_", text, f"{SCOPES}/s/collections/x", "PATCH", maxTTL="1")
        text = "Deleting _default scope is not allowed"
        yield self.refused(400, "_", text, f"{SCOPES}/_default", "DELETE")
        text = "First character must not be _ or %"
        yield self.refused(400, "name", text, SCOPES, name="_s")
        yield self.refused(400, "name", text, COLLECTIONS, name="%c")
        text = "The value must be supplied"
        for path in (SCOPES, COLLECTIONS):
            yield self.refused(400, "name", text, path)
        text = "The value must be in range from -1 to 2147483647"
        for ttl in ("-2", "2147483648"):
            yield self.refused(400, "maxTTL", text, COLLECTIONS, name="c", maxTTL=ttl)
            yield self.refused(400, "maxTTL", text, f"{COLLECTIONS}/_default", "PATCH", maxTTL=ttl)
        yield self.refused(400, "maxTTL", "The value must be an integer", COLLECTIONS, name="c", maxTTL="x")
        text = "Not allowed on this type of bucket"
        yield self.refused(400, "history", text, COLLECTIONS, name="c", history="true")
        yield self.refused(400, "other", "Unsupported key", SCOPES, name="c", other="1")
        found = yield self.change(COLLECTIONS, name="a.b", maxTTL="x")
        self.assertEqual((found[0], set(found[1]["errors"])), (400, {"name", "maxTTL"}))
        self.assertEqual((yield self.manifest())["uid"], "2")

    @inlineCallbacks
    def test_no_such_bucket(self) -> Steps:
        """A bucket that does not exist is 404 with the text by which clients know it."""
        for method, path in (
            ("GET", ""),
            ("POST", ""),
            ("PUT", ""),
            ("DELETE", "/s"),
            ("POST", "/s/collections"),
            ("PATCH", "/s/collections/c"),
            ("DELETE", "/s/collections/c"),
            ("POST", "/@ensureManifest/0"),
        ):
            answer = yield self.ask(f"{BUCKETS}/missing/scopes{path}", method, form={"name": "s"})
            self.assertEqual(
                (answer.status, answer.body), (404, b"Requested resource not found."), (method, path)
            )

    @inlineCallbacks
    def test_who_may(self) -> Steps:
        """A bucket's own user reads; changes are for administrators."""
        own = ("private", "pw")
        path = f"{BUCKETS}/private/scopes"
        self.assertEqual((yield self.ask(path, auth=own)).status, 200)
        self.assertEqual((yield self.ask(SCOPES, auth=own)).status, 403)
        for method, more in (("POST", ""), ("PUT", ""), ("DELETE", "/s"), ("POST", "/_default/collections"),
                             ("DELETE", "/_default/collections/_default")):  # fmt: skip
            for auth, status in ((own, 403), (None, 401), (("x", "y"), 401)):
                answer = yield self.ask(f"{path}{more}", method, auth=auth, form={"name": "s"})
                self.assertEqual(answer.status, status, (method, more, auth))
        self.assertEqual((yield self.ask(path, auth=ADMIN)).json["uid"], "0")

    @inlineCallbacks
    def test_what_a_user_sees(self) -> Steps:
        """The manifest lists what the caller may read; a role of a scope changes that one only. Roles of what
        is dropped are gone, so a new scope or collection of its name gives nobody rights."""
        for scope in ("s", "t"):
            yield self.change(SCOPES, name=scope)
            for name in ("a", "b"):
                yield self.change(f"{SCOPES}/{scope}/collections", name=name)
        users: dict[str, tuple[str, str]] = {}
        for name, role in (("reader", "data_monitoring[default:s:a]"), ("owner", "scope_admin[default:s]")):
            users[name] = (name, "a-password")
            form = {"roles": role, "password": "a-password"}
            answer = yield self.ask(f"/settings/rbac/users/local/{name}", "PUT", form=form)
            self.assertEqual(answer.status, 200, answer.body)
        seen = (yield self.ask(SCOPES, auth=users["reader"])).json["scopes"]
        found = [(scope["name"], [one["name"] for one in scope["collections"]]) for scope in seen]
        self.assertEqual(found, [("s", ["a"])])
        seen = (yield self.ask(SCOPES, auth=users["owner"])).json["scopes"]
        self.assertEqual([(scope["name"], len(scope["collections"])) for scope in seen], [("s", 2)])
        for scope, status in (("s", 200), ("t", 403)):
            path = f"{SCOPES}/{scope}/collections"
            answer = yield self.ask(path, "POST", auth=users["owner"], form={"name": "new"})
            self.assertEqual(answer.status, status, answer.body)
            answer = yield self.ask(f"{path}/b", "DELETE", auth=users["owner"])
            self.assertEqual(answer.status, status, answer.body)
        self.assertEqual(
            (yield self.ask(SCOPES, "POST", auth=users["owner"], form={"name": "x"})).status, 403
        )
        yield self.change(f"{SCOPES}/s/collections/a", "DELETE")
        yield self.change(f"{SCOPES}/s/collections", name="a")
        self.assertEqual((yield self.roles("reader")), [])
        self.assertEqual(len((yield self.roles("owner"))), 1)
        yield self.change(f"{SCOPES}/s", "DELETE")
        yield self.change(SCOPES, name="s")
        self.assertEqual((yield self.roles("owner")), [])

    @inlineCallbacks
    def roles(self, user: str) -> Steps:
        """Return the roles of a user."""
        return (yield self.ask(f"/settings/rbac/users/local/{user}")).json["roles"]

    @inlineCallbacks
    def test_replace(self) -> Steps:
        """A PUT makes the manifest that it describes, unless the current one is not the one it was made from;
        what clients read they can send back."""
        yield self.change(SCOPES, name="gone")
        body: dict[str, Any] = {
            "scopes": [
                {"name": "_default", "collections": [{"name": "_default"}, {"name": "c", "maxTTL": 4}]},
                {"name": "s", "collections": []},
            ]
        }
        answer = yield self.ask(f"{SCOPES}?validOnUid=0", "PUT", form=json.dumps(body).encode())
        text = "validOnUid doesn't match the current manifest Uid"
        self.assertEqual((answer.status, answer.json), (400, {"errors": {"_": text}}))
        answer = yield self.ask(f"{SCOPES}?validOnUid=zz", "PUT", form=json.dumps(body).encode())
        self.assertEqual((answer.status, answer.json), (400, {"errors": {"_": "Invalid validOnUid"}}))
        answer = yield self.ask(f"{SCOPES}?validOnUid=1", "PUT", form=json.dumps(body).encode())
        self.assertEqual((answer.status, answer.json), (200, {"uid": "2"}))
        manifest = yield self.manifest()
        self.assertEqual([scope["name"] for scope in manifest["scopes"]], ["s", "_default"])
        self.assertEqual(manifest["scopes"][1]["collections"][0]["maxTTL"], 4)
        answer = yield self.ask(SCOPES, "PUT", form=json.dumps({"scopes": manifest["scopes"]}).encode())
        self.assertEqual((answer.status, answer.json), (200, {"uid": "2"}))

    @inlineCallbacks
    def test_ensure_manifest(self) -> Steps:
        """It answers at once if the manifest is there, else when it is, and 504 when it does not come."""
        path = f"{SCOPES}/@ensureManifest"
        answer = yield self.ask(f"{path}/0", "POST")
        self.assertEqual((answer.status, answer.body), (200, b""))
        waiting = self.ask(f"{path}/1", "POST", node=1)
        yield deferLater(self.cluster.clock, 0.05)
        self.assertFalse(waiting.called)
        yield self.change(SCOPES, name="s")
        self.assertEqual((yield waiting).status, 200)
        nodes = ",".join(node.address.rest for node in self.cluster.nodes)
        for named in (nodes, nodes.replace("127.0.0.1", "example.org")):
            self.assertEqual((yield self.ask(f"{path}/1", "POST", form={"nodes": named})).status, 200)
        for newest in (path, f"{path}/"):
            self.assertEqual((yield self.ask(newest, "POST")).status, 200)
        answer = yield self.ask(f"{path}/A", "POST", form={"timeout": "10"})
        self.assertEqual((answer.status, answer.body), (504, b"timeout"))
        for uid in ("x", "-1", "0x1", "1" * 17):
            answer = yield self.ask(f"{path}/{uid}", "POST")
            self.assertEqual((answer.status, answer.body), (400, b"Invalid UID"), uid)
        for form, field in (
            ({"timeout": "300001"}, "timeout"),
            ({"nodes": "h:1"}, "nodes"),
            ({"x": "1"}, "x"),
        ):
            answer = yield self.ask(f"{path}/1", "POST", form=form)
            self.assertEqual((answer.status, list(answer.json["errors"])), (400, [field]))

    @inlineCallbacks
    def test_ensure_manifest_of_a_bucket_that_goes(self) -> Steps:
        """Whoever waits when the bucket is deleted learns it; a client that leaves is forgotten."""
        waiting = self.ask(f"{SCOPES}/@ensureManifest/9", "POST")
        leaving = yield self.connect()
        listeners = len(self.cluster.on_config_change)
        leaving.transport.write(
            b"POST /pools/default/buckets/private/scopes/@ensureManifest/9 HTTP/1.1\r\nHost: h\r\n"
            b"Authorization: Basic QWRtaW5pc3RyYXRvcjpwYXNzd29yZA==\r\nContent-Length: 0\r\n\r\n"
        )
        while len(self.cluster.on_config_change) < listeners + 2:
            yield deferLater(self.cluster.clock, 0.01)
        leaving.transport.loseConnection()
        yield self.cluster.delete_bucket("default")
        answer = yield waiting
        self.assertEqual((answer.status, answer.body), (404, b"bucket no longer exists"))
        while len(self.cluster.on_config_change) > listeners:
            yield deferLater(self.cluster.clock, 0.01)


class BodyTests(SynchronousTestCase):
    """The body that replaces a manifest."""

    def test_what_it_says(self) -> None:
        """Scopes with their collections; uids that a client read are not looked at."""
        collections = '[{"name":"c","uid":"9"}]'
        body = b'{"uid":"3","scopes":[{"name":"s","uid":"8"},{"name":"t","collections":%s}]}'
        body %= collections.encode()
        self.assertEqual(read_manifest(body), {"s": [], "t": [WantedCollection("c")]})

    def test_what_is_none(self) -> None:
        """Anything else is refused, with a word about what is wrong."""
        for body in (
            b"",
            b"{",
            b"[]",
            b"{}",
            b'{"scopes":{}}',
            b'{"scopes":["s"]}',
            b'{"scopes":[{"name":1}]}',
            b'{"scopes":[{"name":"s"},{"name":"s"}]}',
            b'{"scopes":[{"name":"s","x":1}]}',
            b'{"scopes":[{"name":"s","collections":{}}]}',
            b'{"scopes":[{"name":"s","collections":[1]}]}',
            b'{"scopes":[{"name":"s","collections":[{"name":"c","maxTTL":"1"}]}]}',
            b'{"scopes":[{"name":"s","collections":[{"name":"c","maxTTL":true}]}]}',
            b'{"scopes":[{"name":"s","collections":[{"name":"c","history":true}]}]}',
            b"\xff\xfe",
            b"[" * 100_000,
        ):
            fault = self.assertRaises(ManifestError, read_manifest, body)
            self.assertTrue(all(fault.errors.values()), body)

    def test_more_than_there_may_be(self) -> None:
        """A body with too many scopes or collections is refused before any of them is looked at."""
        for what, body in (
            ("scopes", {"scopes": [{"name": "_"}] * 1201}),
            ("collections", {"scopes": [{"name": "s", "collections": [{"name": "_"}] * 1201}]}),
            (
                "collections",
                {"scopes": [{"name": f"s{n}", "collections": [{"name": "a"}] * 7} for n in range(200)]},
            ),
        ):
            fault = self.assertRaises(ManifestError, read_manifest, json.dumps(body).encode())
            self.assertEqual(str(fault), f"Maximum number of {what} has been reached")
