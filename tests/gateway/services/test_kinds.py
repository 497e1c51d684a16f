"""What may be asked of which service, and which paths are refused."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gateway.dialect.errors import Refusal
from gateway.services.kinds import KINDS, Access, Policy, checked_target

READS = [
    ("query", "GET", "/admin/ping"),
    ("fts", "GET", "/api/ping"),
    ("fts", "GET", "/api/index"),
    ("fts", "HEAD", "/api/index/i"),
    ("fts", "GET", "/api/index/i/count"),
    ("fts", "POST", "/api/index/i/query"),
    ("fts", "POST", "/api/bucket/b/scope/s/index/i/query"),
    ("cbas", "GET", "/admin/ping"),
    ("mgmt", "GET", "/pools/default/buckets"),
    ("mgmt", "GET", "/whoami"),
]
STATEMENTS = [
    ("query", "POST", "/query/service"),
    ("query", "GET", "/query/service"),
    ("cbas", "POST", "/analytics/service"),
    ("cbas", "POST", "/query/service"),
]
WRITES = [
    ("query", "PUT", "/query/service"),
    ("query", "POST", "/query/service/x"),
    ("fts", "PUT", "/api/index/i"),
    ("fts", "DELETE", "/api/bucket/b/scope/s/index/i"),
    ("fts", "POST", "/api/index/i/ingestControl/pause"),
    ("cbas", "DELETE", "/analytics/backup"),
]
ADMIN = [
    ("query", "GET", "/admin/settings"),
    ("query", "DELETE", "/admin/active_requests/x"),
    ("query", "GET", "/debug/pprof"),
    ("query", "GET", "/queryx"),
    ("query", "POST", "/admin/ping"),
    ("fts", "POST", "/api/managerOptions"),
    ("fts", "GET", "/api/diag"),
    ("fts", "GET", "/api/indexes"),
    ("cbas", "GET", "/analyticsx"),
    ("mgmt", "POST", "/pools/default/buckets"),
    ("mgmt", "DELETE", "/pools/default/buckets/b"),
    ("mgmt", "GET", "/_cbauth"),
    ("mgmt", "GET", "/diag/eval"),
    ("mgmt", "GET", "/diag"),
]


class PolicyTests(SynchronousTestCase):
    """The rules."""

    def ask(self, policy: Policy, name: str, method: str, path: str) -> str:
        """Return ``passes``, ``checked`` (if the statement says that it is read-only) or the code."""
        try:
            kind, access = policy.kind(name.encode())
            return "checked" if policy.check(kind, access, method, path.encode()) else "passes"
        except Refusal as refusal:
            return refusal.problem.code

    def compare(self, policy: Policy, **expected: str) -> None:
        """Compare the outcome of all requests."""
        for group, rows in (
            ("reads", READS),
            ("statements", STATEMENTS),
            ("writes", WRITES),
            ("admin", ADMIN),
        ):
            for row in rows:
                self.assertEqual(self.ask(policy, *row), expected[group], row)

    def test_on(self) -> None:
        """What callers use passes, and administrators' paths if they are allowed."""
        on = dict.fromkeys(KINDS, Access.ON)
        usual = {"reads": "passes", "statements": "passes", "writes": "passes"}
        self.compare(Policy(on), **usual, admin="ServiceForbidden")
        self.compare(Policy(on, admin=True), **usual, admin="passes")

    def test_read_only(self) -> None:
        """Reads pass, statements that are checked, and nothing else, also for administrators."""
        only = dict.fromkeys(KINDS, Access.READ_ONLY)
        usual = {"reads": "passes", "statements": "checked", "writes": "ServiceForbidden"}
        self.compare(Policy(only), **usual, admin="ServiceForbidden")
        for row in ADMIN:
            self.assertEqual(self.ask(Policy(only, admin=True), *row), "ServiceForbidden", row)

    def test_off(self) -> None:
        """Nothing passes by default."""
        off = dict.fromkeys(("reads", "statements", "writes", "admin"), "RouteNotFound")
        self.compare(Policy(), **off)
        self.compare(Policy.of(["query=off", "fts=off"], True, "on"), **off)

    def test_of(self) -> None:
        """Options become a policy."""
        policy = Policy.of(["query=on", "fts=read-only"], True, "off")
        self.assertEqual(policy, Policy({"query": Access.ON, "fts": Access.READ_ONLY}, True, Access.OFF))


class TargetTests(SynchronousTestCase):
    """Paths and query strings."""

    def test_good(self) -> None:
        """They are sent on byte for byte, and decoded for the rules."""
        for path, query, plain in (
            (b"", b"", b"/"),
            (b"/", b"", b"/"),
            (b"/api/index/", b"a=b", b"/api/index/"),
            (b"/api/index/%C3%A9%20x/query", b'a=[1]&b="c"', "/api/index/\u00e9 x/query".encode()),
            (b"/a/..b/.c/d..", b"", b"/a/..b/.c/d.."),
            (b"/a%252e%252e/b", b"", b"/a%2e%2e/b"),
        ):
            target, decoded = checked_target(path, query)
            self.assertEqual(target, (path or b"/") + (b"?" + query if query else b""))
            self.assertEqual(decoded, plain)

    def test_bad(self) -> None:
        """Whatever may be read in two ways is refused."""
        for path in (
            *(b"/..", b"/a/..", b"/a/../b", b"/a/.", b"/%2e%2e/", b"/.%2E", b"//", b"//a", b"/a//b", b"a"),
            *(b"/a%2fb", b"/a%5Cb", b"/a\\b", b"/a%00", b"/a%0a", b"/a%7f", b"/a b", b"/a#b", b"/%", b"/%g0"),
            *(b"/a\xff", b"/{a}", b"/a?b"),
        ):
            self.assertRaises(Refusal, checked_target, path, b"")
        for query in (b"a#b", b"%", b"%zz", b"a b", b"a\r\nb", b"\xff"):
            self.assertRaises(Refusal, checked_target, b"/a", query)
