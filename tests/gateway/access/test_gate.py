"""Callers with tokens, keys and passwords at a gateway with rules, over sockets to a real node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import inlineCallbacks, succeed
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.logger import capturedLogs

from gateway.access.files import Copies
from gateway.access.options import READERS
from gateway.callers import Access
from gateway.listeners import CannotStartError
from gateway.settings import resolve
from tests.gateway.access.signing import AUDIENCE, ISSUER, RSA, fingerprint, jwk, jwks, token
from tests.gateway.test_behaviour import D, GatewayTestCase
from tests.gateway.views.test_behaviour import Client
from tests.gateway.workers.support import reactor

FAR = 4_000_000_000
"""A time that the clock of no test machine reaches."""
ADMIN = ("admin", "right password")
BUCKET = "/v1/buckets/default"
IN_S = f"{BUCKET}/scopes/s/collections"

RULES = """
[accounts.app]
user = "default"
password-file = "bucket.password"

[[rules]]
name = "reader"
who = ["key:reader", "group:readers"]
buckets = "default"
scopes = ["s"]
collections = ["a", "a-*"]
allow = ["read", "list"]
account = "app"

[[rules]]
name = "own-collection"
who = "claim:tenant=*"
buckets = "default"
scopes = "s"
collections = "{tenant}"
allow = "*"

[[rules]]
name = "names"
who = ["group:readers", "claim:tenant=*"]
buckets = "default"
scopes = "s"
collections = ["a"]
allow = ["scopes", "buckets"]
account = "app"

[[rules]]
name = "everything"
who = ["key:root", "user:admin"]
buckets = "*"
allow = "*"

[[rules]]
name = "basic-reader"
who = "user:default"
buckets = "default"
scopes = "_default"
collections = "_default"
allow = "read"
"""


def bearer(**claims: Any) -> dict[str, str]:
    """Return the header with a token."""
    return {"Authorization": "Bearer " + token(exp=FAR, header={"kid": "r"}, **claims)}


READER = {"X_API_Key": "cgk_reader"}
ROOT = {"Authorization": "Bearer cgk_root"}


class GateTestCase(GatewayTestCase):
    """A gateway with three ways to say who calls, and a node with two collections."""

    @inlineCallbacks
    def setUp(self) -> Any:
        folder = self.folder = Path(self.mktemp())
        folder.mkdir()
        keys = "".join(f"{name} sha256:{fingerprint('cgk_' + name)}\n" for name in ("reader", "root"))
        for name, content in {
            "rules.toml": RULES,
            "keys": keys,
            "old-keys": f"late sha256:{fingerprint('cgk_late')} 2020-01-01\n",
            "jwks.json": jwks(jwk(RSA, "r")).decode(),
            "bucket.password": "shared\n",
            "admin.password": ADMIN[1],
        }.items():
            (folder / name).write_text(content, encoding="utf-8")
        self.options = {
            "ephemeral": True,
            "user": ADMIN[0],
            "password-file": str(folder / "admin.password"),
            "bucket-password-file": str(folder / "bucket.password"),
            "auth": "jwt,keys,basic",
            "access": str(folder / "rules.toml"),
            "api-keys": str(folder / "keys"),
            "jwt-keys": str(folder / "jwks.json"),
            "jwt-issuer": ISSUER,
            "jwt-audience": [AUDIENCE],
        }
        yield super().setUp()
        for path in ("/scopes/s", "/scopes/s/collections/a", "/scopes/s/collections/b"):
            made = yield self.ask("PUT", BUCKET + path, **ROOT)
            self.assertEqual(made.status, 200, made.body)
        for path in (D + "k", f"{IN_S}/a/documents/k", f"{IN_S}/b/documents/k"):
            stored = yield self.ask("PUT", path, b"1", **ROOT)
            self.assertEqual(stored.status, 200, stored.body)

    def change(self, name: str, content: str) -> None:
        """Change a file, and have the gateway notice."""
        (self.folder / name).write_text(content, encoding="utf-8")
        for file in self.service.access.files:
            file.look()

    @inlineCallbacks
    def refused(
        self, expected: Any, rule: str | None, method: str, path: str, body: bytes = b"", **who: Any
    ) -> Any:
        """Check that a request is refused, with a rule's name."""
        answer = yield self.ask(method, path, body, **who)
        self.assertEqual(
            (answer.status, answer.json().get("rule")), (expected, rule), (method, path, answer.body)
        )
        return answer


class RightsTests(GateTestCase):
    """What rules let callers do."""

    @inlineCallbacks
    def test_key(self) -> Any:
        """A key reads its collections, and nothing else; the refusal names the rule, and not what exists."""
        read = yield self.ask("GET", f"{IN_S}/a/documents/k", **READER)
        self.assertEqual((read.status, read.body), (200, b"1"))
        missing = yield self.ask("GET", f"{IN_S}/a-new/documents/k", **READER)
        self.assertEqual(missing.code(), (404, "CollectionNotFound"))
        listed = yield self.ask("GET", f"{IN_S}/a/documents", **READER)
        self.assertEqual(listed.status, 200, listed.body)
        texts = set()
        for method, path, body in (
            ("PUT", f"{IN_S}/a/documents/k", b"2"),
            ("DELETE", f"{IN_S}/a/documents/k", b""),
            ("POST", f"{IN_S}/a/documents/k/lock", b"{}"),
            ("GET", f"{IN_S}/b/documents/k", b""),
            ("GET", f"{IN_S}/none/documents/k", b""),
            ("GET", "/v1/buckets/default/scopes/none/collections/a/documents/k", b""),
            ("GET", D + "k", b""),
            ("GET", f"{BUCKET}/documents", b""),
            ("GET", "/v1/buckets/none/documents/k", b""),
            ("GET", f"{BUCKET}/stats", b""),
            ("GET", f"{BUCKET}/designs", b""),
            ("GET", f"{BUCKET}/views/d/v", b""),
            ("PUT", f"{IN_S}/c", b""),
            ("DELETE", "/v1/buckets/default/scopes/s", b""),
            ("GET", f"{BUCKET}/scopes", b""),
            ("GET", "/v1/buckets", b""),
        ):
            answer = yield self.refused(403, "reader", method, path, body, **READER)
            self.assertEqual(answer.json()["code"], "AccessDenied")
            if "documents/k" in path and method == "GET":
                texts.add(answer.json()["message"])
        # The same words for what exists and what does not.
        self.assertEqual(len(texts), 1)
        kept = yield self.ask("GET", f"{IN_S}/a/documents/k", **ROOT)
        self.assertEqual(kept.body, b"1")

    @inlineCallbacks
    def test_claims(self) -> Any:
        """A claim names the collection; a claim that is a pattern, a path or a list names none."""
        for tenant, collection, status in (
            ("a", "a", 200), ("a", "b", 403), ("b", "b", 200), ("*", "a", 403), ("a*", "a", 403),
            ("../a", "a", 403), (["a", "b"], "a", 403), ("", "a", 403), ("A", "a", 403),
        ):  # fmt: skip
            who = bearer(tenant=tenant)
            answer = yield self.ask("PUT", f"{IN_S}/{collection}/documents/k", b"1", **who)
            self.assertEqual(answer.status, status, (tenant, collection, answer.body))
        refused = yield self.refused(403, None, "GET", D + "k", **bearer())
        self.assertIn("No rule applies", refused.json()["message"])
        self.assertIn('error="insufficient_scope"', refused.header("WWW-Authenticate"))

    @inlineCallbacks
    def test_batches(self) -> Any:
        """Each line is checked, in both forms of a line, and the others are carried out."""
        lines = [
            {"op": "get", "scope": "s", "collection": "a", "key": "k"},
            {"op": "get", "scope": "s", "collection": "b", "key": "k"},
            {"op": "get", "key": "k"},
            {"op": "set", "scope": "s", "collection": "a", "key": "k", "value": 2},
            {"key": "k", "op": "get", "scope": "s", "collection": "a"},
            {"key": "k", "op": "get", "scope": "s", "collection": "b"},
            {"op": "delete", "scope": "s", "collection": "a", "key": "k"},
            {"op": "lock", "scope": "s", "collection": "a", "key": "k"},
            {"op": "lookup_in", "scope": "s", "collection": "a", "key": "k", "operations": []},
            {"op": "get", "scope": "s", "collection": "none", "key": "k"},
            {"op": "get_replica", "scope": "s", "collection": "b", "key": "k"},
            {"op": "unknown", "key": "k"},
            {"op": "set", "scope": "s", "collection": "b", "key": "k", "value": "x" * 200_000},
        ]
        expected = [200, 403, 403, 403, 200, 403, 403, 403, 400, 403, 403, 400, 403]
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        for path in (f"{BUCKET}/batch", f"{IN_S}/a/batch"):
            answer = yield self.ask("POST", path, body, **READER)
            self.assertEqual(answer.status, 200, answer.body)
            results = [json.loads(line) for line in answer.body.splitlines()]
            wanted = expected if path.startswith(f"{BUCKET}/b") else [*expected[:2], 200, *expected[3:]]
            self.assertEqual([one["status"] for one in results], wanted)
            for one in results:
                if one["status"] == 403:
                    self.assertEqual(one["error"]["code"], "AccessDenied")
        kept = yield self.ask("GET", f"{IN_S}/a/documents/k", **ROOT)
        self.assertEqual(kept.body, b"1")
        everything = yield self.ask("POST", f"{BUCKET}/batch", body, **ROOT)
        results = [json.loads(line) for line in everything.body.splitlines()]
        self.assertNotIn(403, [one["status"] for one in results])
        yield self.refused(403, "reader", "POST", "/v1/buckets/none/batch", body, **READER)

    @inlineCallbacks
    def test_lists(self) -> Any:
        """Lists show what the caller's rules cover, and nothing else."""
        who = bearer(groups=["readers"])
        scopes = yield self.ask("GET", f"{BUCKET}/scopes", **who)
        shown = {
            scope["name"]: [one["name"] for one in scope["collections"]] for scope in scopes.json()["scopes"]
        }
        self.assertEqual(shown, {"s": ["a"]})
        collections = yield self.ask("GET", f"{BUCKET}/scopes/s/collections", **who)
        self.assertEqual([one["name"] for one in collections.json()["collections"]], ["a"])
        yield self.refused(403, "names", "GET", f"{BUCKET}/scopes/_default", **who)
        yield self.refused(403, "names", "GET", f"{IN_S}/b", **who)
        buckets = yield self.ask("GET", "/v1/buckets", **who)
        self.assertEqual([one["name"] for one in buckets.json()["buckets"]], ["default"])
        every = yield self.ask("GET", f"{BUCKET}/scopes", **ROOT)
        self.assertEqual([one["name"] for one in every.json()["scopes"]], ["_default", "s"])

    @inlineCallbacks
    def test_identity(self) -> Any:
        """The caller is named as the gateway knows it; the account is not."""
        for who, name in ((READER, "reader"), (bearer(groups="readers"), "ann"), (ROOT, "root")):
            answer = yield self.ask("GET", "/v1/callerIdentity", **who)
            self.assertEqual(answer.json(), {"user": name})
        basic = yield self.ask("GET", "/v1/callerIdentity", auth=("default", "shared"))
        self.assertEqual(basic.json(), {"user": "default"})

    @inlineCallbacks
    def test_passwords(self) -> Any:
        """Rules apply to callers with passwords, too; who has the wrong one learns nothing of the rules."""
        own = ("default", "shared")
        read = yield self.ask("GET", D + "k", auth=own)
        self.assertEqual(read.status, 200)
        yield self.refused(403, "basic-reader", "PUT", D + "k", b"2", auth=own)
        yield self.refused(403, "basic-reader", "GET", f"{IN_S}/a/documents/k", auth=own)
        batch = yield self.ask("POST", f"{BUCKET}/batch", b'{"op":"set","key":"k","value":2}\n', auth=own)
        self.assertEqual(json.loads(batch.body)["status"], 403)
        for user in ("default", "nobody", "reader", "root"):
            wrong = yield self.ask("PUT", D + "k", b"2", auth=(user, "wrong"))
            self.assertEqual(wrong.code(), (403, "InvalidAuth"), user)
            self.assertNotIn("rule", wrong.json())
        written = yield self.ask("PUT", D + "k", b"2", auth=ADMIN)
        self.assertEqual(written.status, 200)


class CredentialTests(GateTestCase):
    """What is accepted as credentials."""

    @inlineCallbacks
    def test_refusals(self) -> Any:
        """401 with a challenge for each way; the reason is named for tokens."""
        for header, challenge, words in (
            ({}, 'Bearer realm="couchgateway"', "a bearer token (JWT), an API key, HTTP Basic"),
            ({"Authorization": "Bearer x"}, 'error="invalid_token"', "three parts"),
            ({"Authorization": "bearer " + token(exp=1, header={"kid": "r"})}, "has expired", "has expired"),
            ({"Authorization": "Bearer " + token(header={"kid": "q"})}, 'error="invalid_token"', "not known"),
            ({"Authorization": "Bearer cgk_wrong"}, 'error="invalid_token"', "unknown or no longer valid"),
            ({"X_API_Key": "cgk_wrong"}, 'error="invalid_token"', "unknown or no longer valid"),
            ({"X_API_Key": ""}, 'error="invalid_token"', "unknown or no longer valid"),
            ({"X_API_Key": token(header={"kid": "r"})}, 'error="invalid_token"', "unknown or no longer"),
            ({"Authorization": "Digest x"}, 'Bearer realm="couchgateway"', "of a kind that is not accepted"),
            ({"Authorization": "cgk_root"}, 'Bearer realm="couchgateway"', "of a kind that is not accepted"),
            ({"Authorization": "Bearer"}, 'error="invalid_token"', "three parts"),
        ):
            answer = yield self.ask("GET", D + "k", **header)
            self.assertEqual(answer.code(), (401, "Unauthorized"), header)
            self.assertIn(challenge, answer.header("WWW-Authenticate"), header)
            self.assertIn(words, answer.json()["message"], header)
        both = yield self.ask("GET", D + "k", **READER, **ROOT)
        self.assertEqual(both.code(), (400, "InvalidArgument"))
        health = yield self.ask("GET", "/health")
        self.assertEqual(health.status, 200)

    @inlineCallbacks
    def test_twice(self) -> Any:
        """Two headers of a kind are refused: a proxy and the gateway might believe different ones."""
        for name in ("Authorization", "X-API-Key"):
            response = yield self.client.request(
                "GET", self.url + D + "k", headers={name: ["Bearer cgk_root", "Bearer cgk_reader"]}
            )
            answer = yield response.json()
            self.assertEqual((response.code, answer["code"]), (400, "InvalidArgument"))

    @inlineCallbacks
    def test_a_header_like_a_digest(self) -> Any:
        """A header whose bytes are those that a password's digest is made of is no way to another account."""
        yield self.ask("GET", D + "k", auth=("default", "shared"))
        answer = yield self.ask("GET", D + "k", Authorization="7:defaultshared")
        self.assertEqual(answer.code(), (401, "Unauthorized"))

    @inlineCallbacks
    def test_reloaded(self) -> Any:
        """Rules, keys and key sets take effect without a restart; invalid ones change nothing."""
        path = f"{IN_S}/a/documents/k"
        who = bearer(groups=["readers"])
        for given in (READER, who):
            read = yield self.ask("GET", path, **given)
            self.assertEqual(read.status, 200)
        self.change("keys", f"reader sha256:{fingerprint('cgk_new')}\n")
        old = yield self.ask("GET", path, **READER)
        self.assertEqual(old.status, 401)
        new = yield self.ask("GET", path, X_API_Key="cgk_new")
        self.assertEqual(new.status, 200)
        self.change("keys", "reader nonsense\n")
        self.assertEqual(len(self.flushLoggedErrors()), 0)
        still = yield self.ask("GET", path, X_API_Key="cgk_new")
        self.assertEqual(still.status, 200)
        self.change("rules.toml", RULES.replace('allow = ["read", "list"]', 'allow = ["list"]'))
        yield self.refused(403, "reader", "GET", path, X_API_Key="cgk_new")
        yield self.refused(403, "reader", "GET", path, **who)
        self.change("rules.toml", RULES + "[[rules]]\n")
        yield self.refused(403, "reader", "GET", path, X_API_Key="cgk_new")
        self.change("rules.toml", RULES)
        self.change("jwks.json", jwks(jwk(RSA, "other")).decode())
        gone = yield self.ask("GET", path, **who)
        self.assertEqual(gone.code(), (401, "Unauthorized"))

    @inlineCallbacks
    def test_password_changes(self) -> Any:
        """The password of an account is read again when its file changes, and not replaced by an invalid
        one."""
        path = f"{IN_S}/a/documents/k"
        statuses = []
        for password in ("shared\n", "wrong\n", "\n", "shared\n"):
            self.change("bucket.password", password)
            read = yield self.ask("GET", path, **READER)
            statuses.append(read.status)
        self.assertEqual((statuses[0], statuses[3]), (200, 200))
        self.assertEqual(statuses[1], statuses[2])
        self.assertNotEqual(statuses[1], 200)
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_invalid_at_the_start(self) -> None:
        """A worker that starts after a file has become invalid refuses to, and names the option, unless it
        has a copy of the content before; the running gateway keeps the old content."""
        settings = resolve(self.options, {})
        copies = Copies()
        for name, read in READERS.items():
            read(getattr(settings, name), copies.take)

        def access(copies: Copies | None = None) -> Access:
            return Access(
                settings,
                None,
                secret=b"s" * 16,
                reactor=reactor,
                now=reactor.seconds,
                confirm=lambda credentials: succeed(None),
                copies=copies,
            )

        for option, name, content in (
            ("access", "rules.toml", RULES + "[[rules]]\n"),
            ("access", "rules.toml", None),
            ("api-keys", "keys", "reader nonsense\n"),
            ("jwt-keys", "jwks.json", "{}"),
        ):
            path = self.folder / name
            good = path.read_text("utf-8")
            if content is None:
                path.unlink()
            else:
                path.write_text(content, "utf-8")
            with self.assertRaises(CannotStartError) as raised:
                access()
            self.assertTrue(
                str(raised.exception).startswith(f"--{option}: {path.absolute()}"), raised.exception
            )
            with capturedLogs() as events:
                begun = access(copies).files
            self.assertEqual([event["path"] for event in events], [str(path.absolute())])
            self.assertEqual(
                [type(file.value) for file in begun], [type(file.value) for file in self.service.access.files]
            )
            for file in self.service.access.files:
                before = file.value
                file.look()
                self.assertIs(file.value, before)
            path.write_text(good, "utf-8")
            for file in self.service.access.files:
                file.look()

    @inlineCallbacks
    def test_reloaded_during_a_listing(self) -> Any:
        """A listing under way ends with an error when the rules no longer allow it, or the key is gone."""
        large = "x" * 200_000
        lines = [json.dumps({"op": "set", "key": f"large{n}", "value": large}) for n in range(60)]
        loaded = yield self.ask("POST", f"{IN_S}/a/batch", "\n".join(lines).encode(), **ROOT)
        self.assertEqual(loaded.body.count(b'"status":200'), 60)
        host, port = self.url.removeprefix("http://").split(":")
        head = f"GET {IN_S}/a/documents?include_docs=true HTTP/1.1\r\nHost: {host}\r\n"
        request = f"{head}X-API-Key: cgk_reader\r\n\r\n".encode()
        for name, content, code in (
            ("rules.toml", RULES.replace('allow = ["read", "list"]', 'allow = ["read"]'), "AccessDenied"),
            ("keys", f"root sha256:{fingerprint('cgk_root')}\n", "Unauthorized"),
        ):
            client = yield connectProtocol(HostnameEndpoint(reactor, host, int(port)), Client(request))
            yield client.first
            before = (self.folder / name).read_text("utf-8")
            self.change(name, content)
            client.transport.resumeProducing()
            yield client.lost
            self.assertIn(f'"code":"{code}"'.encode(), client.received)
            self.assertLess(client.received.count(b'"large'), 100)
            self.change(name, before)
        whole = yield self.ask("GET", f"{IN_S}/a/documents", **READER)
        self.assertEqual(len(whole.json()["rows"]), 61)

    @inlineCallbacks
    def test_expired_key(self) -> Any:
        """A key is accepted up to its last day."""
        self.change("keys", (self.folder / "old-keys").read_text("utf-8"))
        answer = yield self.ask("GET", D + "k", X_API_Key="cgk_late")
        self.assertEqual(answer.code(), (401, "Unauthorized"))
