"""Limits on requests, by caller and by address."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis.strategies import floats, integers, lists, one_of, sampled_from, tuples
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.access.ratelimits import DEBT_SECONDS, Buckets, Budgeted, Policy, RateLimits
from gateway.access.rules import Rule, RuleTable, Wildcard
from gateway.clients.address import client_address
from gateway.clients.origins import Doors
from gateway.clients.proxies import TrustedProxies
from tests.gateway.access.ruled import ruled
from tests.gateway.support import Answer, Reply, Site, basic, passthrough, raw_request, read_reply

D = "/v1/buckets/b/documents/k"
EVERYTHING = RuleTable((Rule("all", (("anyone", Wildcard("*")),), ("*",), ("*",), ("*",), None, None),), {})


class BucketTests(SynchronousTestCase):
    """Tokens of one caller, and memory for many."""

    def make(self, rate: float = 2.0, burst: int = 4, **options: Any) -> tuple[Buckets, Clock]:
        """Return buckets and their clock."""
        clock = Clock()
        return Buckets(Policy("caller", rate, burst), clock.seconds, **options), clock

    def test_burst_and_rate(self) -> None:
        """All of the burst at once, then at the rate, and never more than the burst again."""
        buckets, clock = self.make()
        self.assertEqual([buckets.take("a") >= 0 for _ in range(6)], [True] * 4 + [False] * 2)
        clock.advance(0.4)
        self.assertLess(buckets.take("a"), 0)
        clock.advance(0.2)
        self.assertGreaterEqual(buckets.take("a"), 0)
        clock.advance(1000)
        self.assertEqual([buckets.take("a") >= 0 for _ in range(6)], [True] * 4 + [False] * 2)
        self.assertGreaterEqual(buckets.take("b"), 0)

    def test_refused_requests_cost_nothing(self) -> None:
        """A caller that keeps sending is served no later than one that waits."""
        buckets, clock = self.make(rate=1, burst=1)
        buckets.take("a")
        for _ in range(99):
            clock.advance(1 / 128)
            self.assertLess(buckets.take("a"), 0)
        clock.advance(29 / 128)
        self.assertGreaterEqual(buckets.take("a"), 0)

    def test_debt(self) -> None:
        """Operations beyond the burst are owed, for a minute at most."""
        buckets, clock = self.make(rate=2, burst=4)
        buckets.spend("a", 10)
        clock.advance(3.4)
        self.assertLess(buckets.take("a"), 0)
        clock.advance(0.2)
        self.assertGreaterEqual(buckets.take("a"), 0)
        buckets.spend("a", 10**9)
        clock.advance(DEBT_SECONDS + 0.6)
        self.assertGreaterEqual(buckets.take("a"), 0)

    def test_memory(self) -> None:
        """Any number of callers take the memory of so many; those that ask again and again stay."""
        buckets, _ = self.make(rate=0.001, burst=1, most=10)
        buckets.take("busy")
        for number in range(1000):
            buckets.take(f"stranger {number}")
            buckets.spend("busy", 0)
            self.assertLess(buckets.take("busy"), 0)
        self.assertEqual(len(buckets), 10)

    @given(
        integers(1, 5),
        sampled_from([0.5, 1.0, 3.0]),
        lists(one_of(floats(0, 3), tuples(integers(1, 9))), max_size=40),
    )
    def test_never_more(self, burst: int, rate: float, steps: list[Any]) -> None:
        """In any time, at most the burst and what the rate gives are admitted, whatever comes."""
        buckets, clock = self.make(rate, burst)
        admitted = 0
        for step in steps:
            if isinstance(step, float):
                clock.advance(step)
            else:
                admitted += sum(buckets.take("a") >= 0 for _ in range(step[0]))
            self.assertLessEqual(admitted, burst + clock.seconds() * rate + 1e-6)


class LimitTestCase(SynchronousTestCase):
    """Asks a gateway with limits."""

    def make(self, *, caller: float | None = None, address: float | None = None, **options: Any) -> Site:
        """Return a gateway that admits two requests at once."""
        self.address = "192.0.2.1"

        def buckets(name: str, rate: float | None) -> Buckets | None:
            return None if rate is None else Buckets(Policy(name, rate, 2), lambda: self.site.clock.seconds())

        limits = RateLimits(
            buckets("caller", caller), buckets("address", address), lambda request: self.address
        )
        make = options.pop(
            "authorizer", lambda charge: passthrough() if charge is None else Budgeted(passthrough(), charge)
        )
        answers = {"get": Answer(b"1"), "get_with_expiry": Answer(b"1"), "set": Answer()}
        self.site = Site(answers, plugins=[limits], authorizer=make(limits.charge), **options)
        return self.site

    def get(self, path: str = D, user: str = "ann", method: str = "GET", **headers: str) -> Reply:
        """Ask as a user."""
        return self.site.request(method, path, headers={**basic(user, "password"), **headers})


class CallerTests(LimitTestCase):
    """By caller."""

    def test_headers(self) -> None:
        """Every answer says what is left; the refusal when to come again."""
        self.make(caller=0.5)
        for left, full in ((1, 2), (0, 4)):
            reply = self.get()
            self.assertEqual(reply.status, 200)
            self.assertEqual(reply.headers["ratelimit-policy"], ['"caller";q=2;w=4'])
            self.assertEqual(reply.headers["ratelimit"], [f'"caller";r={left};t={full}'])
        refused = self.get()
        self.assertEqual((refused.status, refused.json()["code"]), (429, "TooManyRequests"))
        self.assertEqual((refused.json()["retry"], refused.header("Retry-After")), ("safe", "2"))
        self.assertEqual(refused.headers["ratelimit"], ['"caller";r=0;t=4'])
        self.assertIn("0.5 requests a second", refused.json()["message"])
        self.assertEqual(self.get(user="bob").status, 200)
        self.site.clock.advance(2)
        self.assertEqual(self.get().status, 200)
        self.assertEqual(self.site.gateway.under_way, 0)

    def test_whoever_sends_wrong_passwords(self) -> None:
        """They have limits of their own: nobody can use up another's."""
        self.make(caller=1)
        for _ in range(5):
            self.site.request("GET", D, headers=basic("ann", "wrong"))
        self.assertEqual(self.get().status, 200)

    def test_with_rules(self) -> None:
        """The same; refusals by rules count, too."""
        table = RuleTable((Rule("none", EVERYTHING.rules[0].who, ("x",), ("*",), ("*",), None, None),), {})
        for rules, status in ((EVERYTHING, 200), (table, 403)):
            self.make(caller=1, authorizer=lambda charge, rules=rules: ruled(rules, charge=charge))
            self.assertEqual([self.get().status for _ in range(3)], [status, status, 429])

    def test_bodies(self) -> None:
        """A request whose handler is called again for its body counts once."""
        self.make(caller=1)
        body = b'"' + b"x" * 50_000 + b'"'
        headers = {**basic("ann", "password"), "Content-Type": "application/json"}
        for expected in (200, 200, 429):
            self.assertEqual(self.site.request("PUT", D, body, headers=headers).status, expected)

    def test_batches(self) -> None:
        """Each operation counts; the batch is carried out, and the next request waits."""
        self.make(caller=1)
        lines = b"".join(b'{"op":"get","key":"k%d"}\n' % number for number in range(5))
        headers = {**basic("ann", "password"), "Content-Type": "application/x-ndjson"}
        transport = self.site.client()
        self.site.send(transport, raw_request("POST", "/v1/buckets/b/batch", lines, headers))
        self.site.clock.pump([0] * 10)
        reply, _ = read_reply(transport.value())
        self.assertEqual((reply.status, reply.body.count(b"\n")), (200, 5))
        self.assertEqual(self.get().status, 429)
        self.site.clock.advance(4.9)
        self.assertEqual(self.get().status, 429)
        self.site.clock.advance(0.2)
        self.assertEqual(self.get().status, 200)


class AddressTests(LimitTestCase):
    """By address."""

    def test_before_anything_else(self) -> None:
        """Every request counts, also with wrong credentials, and for paths that do not exist."""
        self.make(address=1)
        self.assertEqual(self.site.request("GET", D).status, 401)
        self.assertEqual(self.site.request("GET", "/nothing").status, 404)
        refused = self.get()
        self.assertEqual((refused.status, refused.headers["ratelimit-policy"]), (429, ['"address";q=2;w=2']))
        self.assertEqual(len(self.site.connections), 0)
        self.address = "192.0.2.2"
        self.assertEqual(self.get().status, 200)

    def test_probes(self) -> None:
        """Load balancers' probes are neither counted nor refused."""
        self.make(address=1)
        for _ in range(9):
            self.assertEqual(self.site.request("GET", "/health").status, 200)
        self.assertEqual([self.get().status for _ in range(3)], [200, 200, 429])
        self.assertEqual(self.site.request("GET", "/ready").status, 200)

    def test_networks(self) -> None:
        """Addresses of one IPv6 network count as one, those of IPv4 each."""
        self.make(address=1)
        statuses = []
        for address in (
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8::ffff:3",
            "2001:db8:0:1::1",
            "192.0.2.3",
            "unix",
            "-",
        ):
            self.address = address
            statuses.append(self.get().status)
        self.assertEqual(statuses, [200, 200, 429, 200, 200, 200, 200])

    def test_both(self) -> None:
        """Both limits hold, and both are named."""
        self.make(caller=1, address=0.5)
        reply = self.get()
        self.assertEqual(reply.headers["ratelimit-policy"], ['"address";q=2;w=4', '"caller";q=2;w=2'])
        self.assertEqual(self.get(user="bob").status, 200)
        self.assertEqual(self.get(user="cid").status, 429)

    def test_proxies(self) -> None:
        """Behind a trusted proxy the client counts; an untrusted one cannot name others."""
        for trusted, expected in ((["192.168.1.1"], [200] * 3), ([], [200, 200, 429])):
            proxies = TrustedProxies(trusted)
            self.make(address=1)
            limits: Any = self.site.gateway.plugins[0]
            limits._address_of = lambda request, proxies=proxies: client_address(request, proxies)
            found = [self.get(**{"X-Forwarded-For": f"203.0.113.{number}"}).status for number in range(3)]
            self.assertEqual(found, expected)

    def test_pages(self) -> None:
        """A page of another origin may read when to come again."""
        self.make(address=1, guard=Doors(is_open=False))
        for _ in range(3):
            reply = self.get(Origin="https://app.example")
        self.assertEqual(reply.status, 429)
        exposed = (reply.header("Access-Control-Expose-Headers") or "").split(", ")
        self.assertLessEqual({"RateLimit", "RateLimit-Policy", "Retry-After"}, set(exposed))

    def test_off(self) -> None:
        """Without limits there are no such headers."""
        site = Site({"get": Answer(b"1"), "get_with_expiry": Answer(b"1")})
        reply = site.request("GET", D)
        self.assertEqual([name for name in reply.headers if name.startswith("ratelimit")], [])
