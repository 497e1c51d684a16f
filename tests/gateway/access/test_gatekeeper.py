"""The gatekeeper in memory: credentials in odd places, plugins, and what is cached."""

from __future__ import annotations

import sys
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from gateway.access.keys import ApiKeys, key_line, read_keys
from gateway.access.ratelimits import Buckets, Policy, RateLimits
from gateway.access.refusals import AccessDenied
from gateway.access.rights import Identity
from gateway.access.rules import Rule, RuleTable, Wildcard
from gateway.access.ways import ByKey
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint, mount
from tests.gateway.access.ruled import ruled
from tests.gateway.support import Answer, Site, basic, error, raw_request, read_reply

D = "/v1/buckets/b/documents/k"


def rule(name: str, who: str, buckets: str = "*", *actions: str, **places: str) -> Rule:
    """Return a rule."""
    kind, _, value = who.partition(":")
    return Rule(
        name,
        ((kind, Wildcard(value or "*")),),
        (buckets,),
        (places.get("scopes", "*"),),
        (places.get("collections", "*"),),
        frozenset(actions) if actions else None,
        None,
    )


class Plugin:
    """Has an endpoint that the tables do not know."""

    name = "other"
    on_request = on_response = on_operation = None
    gateway: Any

    def attach(self, gateway: Any) -> None:
        """Keep the gateway."""
        self.gateway = gateway

    def routes(self, app: Klein) -> None:
        """Declare the endpoint, and one that only Klein can find."""
        mount(app, self, self.gateway.run_under_klein)

    @endpoint("other", "GET", "/other/<name>", "/others/<string(length=1):name>")
    def other(self, request: Request) -> Deferred[Response]:
        """Read a document."""
        opened = self.gateway.connection(request, request.parameters["name"].decode())
        return opened.addCallback(lambda _: Response(200))  # type: ignore[no-any-return]


class GatekeeperTests(SynchronousTestCase):
    """Asks a gateway with rules."""

    def keys(self, *names: str) -> ApiKeys:
        """Return keys whose text is ``cgk_`` and their name."""
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write("".join(key_line(name, f"cgk_{name}") + "\n" for name in names))
        return read_keys(path)

    def make(self, *rules: Rule, **options: Any) -> Site:
        """Return a gateway that takes the keys a and b."""
        keys = self.keys("a", "b")
        plugins = options.pop("plugins", [])
        authorizer = ruled(RuleTable(rules, {}), [ByKey(lambda: keys, lambda: 0.0)], **options)
        answers = {"get_with_expiry": Answer(b"1"), "get": Answer(b"1"), "set": Answer()}
        return Site(answers, authorizer=authorizer, plugins=[Plugin(), *plugins])

    def status(self, site: Site, key: str, path: str = D, method: str = "GET") -> int:
        """Ask with a key."""
        return site.request(method, path, headers={"Authorization": f"Bearer cgk_{key}"}).status

    def test_decisions_are_kept_apart(self) -> None:
        """What was decided for one place, method, or caller is not used for another."""
        site = self.make(
            rule("r", "key:a", "b", "read", scopes="s", collections="c"), rule("w", "key:b", "b", "write")
        )
        of_c = "/v1/buckets/b/scopes/s/collections/c/documents/k"
        for _ in range(3):
            self.assertEqual(self.status(site, "a", of_c), 200)
            self.assertEqual(self.status(site, "a", of_c.replace("/s/", "/t/")), 403)
            self.assertEqual(self.status(site, "a", of_c.replace("/c/", "/d/")), 403)
            self.assertEqual(self.status(site, "a", of_c.replace("/b/", "/x/")), 403)
            self.assertEqual(self.status(site, "a", D), 403)
            self.assertEqual(self.status(site, "a", of_c, "DELETE"), 403)
            self.assertEqual(self.status(site, "b", of_c), 403)
            self.assertEqual(self.status(site, "b", f"{of_c}/touch", "POST"), 400)

    def test_callers_in_turns(self) -> None:
        """Callers whose heads differ in their secrets only are not taken for one another, on one connection
        as on several; a key that is withdrawn is refused at its next request."""
        keys = self.keys("a", "b")
        table = RuleTable((rule("a", "key:a", "b", "read"), rule("b", "key:b", "b", "write")), {})
        authorizer = ruled(table, [ByKey(lambda: keys, lambda: 0.0)])
        site = Site({"get_with_expiry": Answer(b"1")}, authorizer=authorizer)
        same = site.client()

        def ask(client: Any, name: str, value: str) -> int:
            client.clear()
            site.send(client, raw_request("GET", D, headers={name: value, "Accept": "*/*"}))
            return read_reply(client.value())[0].status

        expected = {"cgk_a": 200, "cgk_b": 403, "cgk_c": 401, "": 401}
        for _ in range(3):
            for client in (same, site.client()):
                for key, status in [*expected.items(), *reversed(expected.items())]:
                    self.assertEqual(ask(client, "X-API-Key", key), status, key)
                    self.assertEqual(ask(client, "Authorization", f"Bearer {key}"), status, key)
        keys = self.keys("b")
        authorizer.forget()
        for name, value in (("X-API-Key", "cgk_a"), ("Authorization", "Bearer cgk_a")):
            self.assertEqual(ask(same, name, value), 401)

    def test_smuggled(self) -> None:
        """Credentials count in their own header only, and once."""
        site = self.make(rule("r", "key:*"))
        for lines in (
            "X_API_Key: cgk_a\r\n",
            "X-Api-Key-: cgk_a\r\n",
            "Cookie: authorization=Bearer cgk_a\r\n",
            "Proxy-Authorization: Bearer cgk_a\r\n",
            "Authorization: Bearer cgk_a, Bearer cgk_b\r\n",
            "Authorization: Bearer cgk_a cgk_b\r\n",
            "Authorization: Bearer\tcgk_a\r\n",
            "Authorization:\r\n",
            "Authorization: Bearer cgk_a\r\nAuthorization: Bearer cgk_a\r\n",
            "Authorization: Bearer cgk_a\r\nX-API-Key: cgk_a\r\n",
            "X-API-Key: cgk_a\r\nx-api-key: cgk_a\r\n",
            "Authorization : Bearer cgk_a\r\n",
            "X: y\r\n Authorization: Bearer cgk_a\r\n",
        ):
            transport = site.client()
            site.send(transport, f"GET {D} HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode())
            self.assertIn(read_reply(transport.value())[0].status, (400, 401), lines)
        for path in (f"{D}?access_token=cgk_a", f"{D}?authorization=Bearer+cgk_a"):
            self.assertIn(site.request("GET", path).status, (400, 401))
        transport = site.client()
        body = "1\r\n1\r\n0\r\nAuthorization: Bearer cgk_a\r\n\r\n"
        head = f"PUT {D} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n"
        site.send(transport, (head + body).encode())
        self.assertEqual(read_reply(transport.value())[0].status, 401)
        self.assertEqual(site.connections, [])
        for lines in (
            "authorization: bearer cgk_a\r\n",
            "x-api-key: cgk_a\r\n",
            "AUTHORIZATION: BEARER  cgk_a\r\n",
        ):
            transport = site.client()
            site.send(transport, f"GET {D} HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode())
            self.assertEqual(read_reply(transport.value())[0].status, 200, lines)

    def test_plugins(self) -> None:
        """An endpoint without a class needs a rule that allows everything in its bucket."""
        for rules, status in (
            ((rule("all", "key:a"),), 200),
            ((rule("bucket", "key:a", "b"),), 200),
            ((rule("other", "key:a", "c"),), 403),
            ((rule("reads", "key:a", "*", "read", "write", "admin", "manage"),), 403),
            ((rule("scope", "key:a", "b", scopes="s"),), 403),
        ):
            site = self.make(*rules)
            for path in ("/other/b", "/others/b"):
                for _ in range(2):
                    self.assertEqual(self.status(site, "a", path), status, (rules, path))

    def test_services(self) -> None:
        """Each service behind the proxy has an action of its own, whatever was decided for another before."""
        actions = {b"query": "query", b"fts": "search", b"cbas": "analytics", b"mgmt": "admin"}
        served = endpoint("proxy_get", "GET", "/_p/<service>/<path:rest>")(lambda _: None).endpoint
        for allowed in actions.values():
            site = self.make(rule("r", "key:a", "*", allowed), rule("part", "key:a", "b", *actions.values()))
            authorizer: Any = site.gateway._admission._authorizer
            for service, action in [*actions.items(), *reversed(actions.items()), (b"other", "other")]:
                headers = {b"host": b"h", b"authorization": b"Bearer cgk_a"}
                request = Request("GET", b"/_p/%b/x" % service, b"", headers)
                request.endpoint, request.parameters = served, {"service": service, "rest": b"x"}
                if action == allowed:
                    self.assertEqual(authorizer.identify(request).user, "service")
                else:
                    self.assertRaises(AccessDenied, authorizer.identify, request)

    def test_limits_under_klein(self) -> None:
        """Requests that Klein dispatches count once, and say what is left."""
        buckets = Buckets(Policy("caller", 1, 2), lambda: 0.0)
        limits = RateLimits(buckets, None, lambda request: "")
        site = self.make(rule("all", "key:*"), plugins=[limits], charge=limits.charge)
        headers = {"Authorization": "Bearer cgk_a"}
        for left in (1, 0):
            reply = site.request("GET", "/others/b", headers=headers)
            self.assertEqual(
                (reply.status, reply.headers["ratelimit"]), (200, [f'"caller";r={left};t={2 - left}'])
            )
        self.assertEqual(site.request("GET", "/others/b", headers=headers).status, 429)

    def test_unconfirmed(self) -> None:
        """Whoever sends a password is refused by a rule only after the cluster has confirmed it."""
        asked: list[str] = []

        def confirm(caller: Any) -> Deferred[Any]:
            asked.append(caller.user)
            return fail(error(exceptions.AUTH_ERROR))

        site = self.make(rule("r", "user:ann", "b", "read"), basic=True)
        site.gateway._admission._authorizer._confirm = confirm  # type: ignore[attr-defined]
        self.assertEqual(site.request("GET", D, headers=basic("ann", "x")).status, 200)
        refused = site.request("DELETE", D, headers=basic("ann", "x"))
        self.assertEqual((refused.status, refused.json()["code"]), (403, "InvalidAuth"))
        self.assertEqual(asked, ["ann"])

    def test_many_callers(self) -> None:
        """What is cached is bounded, however many headers are sent."""
        site = self.make(rule("r", "key:*"))
        gatekeeper: Any = site.gateway._admission._authorizer
        for number in range(3000):
            site.request("GET", D, headers={"Authorization": f"Bearer cgk_{number}"})
        self.assertEqual(len(gatekeeper._callers), 0)
        transport = site.client()
        for number in range(300):
            path = f"/v1/buckets/b/scopes/s/collections/c{number}/documents/k"
            site.send(transport, raw_request("GET", path, headers={"X-API-Key": "cgk_a"}))
        (caller,) = gatekeeper._callers.values()
        self.assertLessEqual(len(caller.grants), 64)

    def test_long_names(self) -> None:
        """Names that nobody has confirmed, each nearly as long as a head, take 2 MiB at most."""
        site = self.make(rule("r", "user:*", "{name}"), basic=True)
        gatekeeper: Any = site.gateway._admission._authorizer
        for letter in ("a", "\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{SNOWMAN}"):
            name = letter * (10_000 // len(letter.encode()))
            for number in range(300):
                self.assertEqual(site.request("GET", D, headers=basic(f"{name}{number}", "x")).status, 403)
            kept = [caller.identity.name for caller in gatekeeper._by_digest.values()]
            self.assertLess(sum(map(sys.getsizeof, kept)), 2 << 20)
            self.assertGreater(len(kept), 0)

    def test_long_claims(self) -> None:
        """Callers with many claims take 8 MiB at most, and short ones are all remembered."""
        found: list[Identity] = []

        class Token:
            """Believes what the test says."""

            challenge, words, schemes = b"", "", {}

            def recognise(self, request: Request, scheme: bytes, value: bytes) -> tuple[Identity, float]:
                return found[0], self.until

            until = 1.0

        way: Any = Token()
        authorizer: Any = ruled(RuleTable((rule("r", "subject:*"),), {}), [way])
        site = Site({"get_with_expiry": Answer(b"1")}, authorizer=authorizer)
        for way.until, table in ((1.0, authorizer._callers), (0.0, authorizer._by_identity)):
            for claim, least, most in (("c" * 200, 50, 300), ("", 400, 400)):
                authorizer.forget()
                sizes = []
                for number in range(400):
                    values = {f"{index}{claim}": f"{number}{claim}" for index in range(50 if claim else 1)}
                    facts = frozenset({("subject", "s"), *(("claim", f"{a}={b}") for a, b in values.items())})
                    found[:] = [Identity("token", "s", facts, values)]
                    reply = site.request("GET", D, headers={"Authorization": f"Bearer {number}"})
                    self.assertEqual(reply.status, 200)
                    sizes.append(len(table))
                self.assertTrue(least <= max(sizes) <= most, max(sizes))
