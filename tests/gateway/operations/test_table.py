"""Every operation, asked by a request and by a line of a batch: the same options, and the same outcome."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from gateway.dialect.conditions import MEMBERS, SELECTIVE
from gateway.operations.kind import Kind
from gateway.operations.table import OPERATIONS
from gateway.plugins.metrics import Metrics
from tests.gateway.dialect.test_conditions import endpoints
from tests.gateway.resources.test_documents import ANSWERS, LOOKUP, MUTATE, SHORT
from tests.gateway.support import Answer, Site

BATCH = "/v1/buckets/b/batch"

VALUES = {
    # Header -> values as a request and as a line give them: proper ones, then wrong ones.
    "If-Match": ([("1234", "1234"), ('"fF"', "fF")], [("0", "0"), ("nonsense", "nonsense"), ("", "")]),
    "Expires": (
        [("90s", "90s"), ("0", "0"), ("Thu, 01 Jan 2099 00:00:00 GMT",) * 2],
        [("60", "60"), ("soon", "soon"), ("1h30", "1h30")],
    ),
    "X-CB-TTL": ([("90", 90), ("1800000000", 1800000000)], [("-1", -1), ("1s", "1s"), ("4294967296", 2**32)]),
    "X-CB-DurabilityLevel": (
        [(name, name) for name in ("None", "Majority", "MajorityAndPersistOnMaster", "PersistToMajority")],
        [("majority", "majority"), ("1", "1"), ("", "")],
    ),
    "X-CB-PersistTo": ([("0", 0), ("1", 1), ("4", 4), ("-1", -1)], [("5", 5), ("-2", -2), ("x", "x")]),
    "X-CB-ReplicateTo": ([("0", 0), ("1", 1), ("-1", -1)], [("5", 5), ("-2", -2), ("x", "x")]),
    "X-CB-DurabilityTimeout": ([("2s", "2s"), ("0.5", "0.5")], [("0", "0"), ("301s", "301s"), ("x", "x")]),
    "X-CB-Timeout": ([("500ms", "500ms"), ("3", "3")], [("0", "0"), ("301s", "301s"), ("x", "x")]),
    "X-CB-Flags": ([("0", 0), ("7", 7), ("4294967295", 2**32 - 1)], [("-1", -1), ("x", "x"), ("1.5", 1.5)]),
}

BODIES: dict[str, tuple[list[Any], list[Any]]] = {
    # Member of a JSON body -> proper values, wrong ones.
    "delta": ([0, 1, 2**64 - 1, None], [-1, 1.5, True, "1", 2**64, [], {}]),
    "initial": ([0, 9, 2**64 - 1, None], [-1, 1.5, True, "1", 2**64]),
    "lockTime": ([0, 1, 30, 2**32 - 1, None], [-1, 1.5, True, "1", 2**32]),
    "persistTo": ([-1, 0, 4, None], [-2, 5, 1.5, True, "1"]),
    "replicateTo": ([-1, 0, 4, None], [-2, 5, 1.5, True, "1"]),
    "checkRemoved": ([True, False, None], [0, 1, "true", []]),
    "timeout": (["1ms", "5s", "300s", None], ["0s", "0.9ms", "301s", "5", 5, "", True]),
    "interval": (["1ms", "10ms", "60s", None], ["0s", "0.9ms", "61s", 5, "", True]),
    "operations": ([], [None, [], {}, "", 1, [1], [[]], [{}], [{"operation": "get", "path": "a"}]]),
    "storeSemantic": (["Replace", "Upsert", "Insert", None], ["replace", "", 1, True, []]),
    "preserveExpiry": ([True, False, None], [0, 1, "true", [], {}]),
    "accessDeleted": ([True, False, None], [0, 1, "true", [], {}]),
}

QUERIES: dict[str, tuple[list[Any], list[Any]]] = {
    # Parameter of a query, given as it is in JSON -> the same.
    "masterOnly": ([True, False], [1, "yes", "", 0]),
    "replica": (["any", 0], [1, 3, "x", "", -1]),
}

# Options that only requests take, or only lines; all others are the same. New exceptions are added here.
REQUEST_ONLY = {
    # A condition on reading; conditions that the cluster cannot test (a line says `add`); compressed bodies.
    "get": {"If-Match", "If-None-Match"},
    "get_replica": {"If-Match", "If-None-Match"},
    "set": {"If-None-Match", "Content-Encoding"},
    "replace": {"If-None-Match", "Content-Encoding"},
    "add": {"If-None-Match", "Content-Encoding"},
    "append": {"If-None-Match"},
    "prepend": {"If-None-Match"},
    "delete": {"If-None-Match"},
    "mutate_in": {"If-None-Match"},
    "touch": {"expiry", "returnContent"},
}
LINE_ONLY = {
    # A request gets and touches by `touch` with `returnContent`, and has the expiry of a touch in its body.
    "get": {"ttl", "expires"},
    "touch": {"expires"},
    # Bodies of requests.
    **dict.fromkeys(("set", "add", "replace"), {"value", "text", "base64"}),
    **dict.fromkeys(("append", "prepend"), {"text", "base64"}),
}

PATHS = {
    "get": ("GET", ""),
    "get_replica": ("GET", ""),
    "set": ("PUT", ""),
    "replace": ("PUT", ""),
    "add": ("POST", ""),
    "append": ("POST", "/append"),
    "prepend": ("POST", "/prepend"),
    "delete": ("DELETE", ""),
    "incr": ("POST", "/increment"),
    "decr": ("POST", "/decrement"),
    **{name: ("POST", "/" + name) for name in ("touch", "lock", "unlock", "endure")},
    "observe": ("GET", "/observe"),
    "lookup_in": ("POST", "/lookup"),
    "mutate_in": ("POST", "/mutate"),
}

NEEDED = {"lookup_in": json.loads(LOOKUP), "mutate_in": json.loads(MUTATE)}
"""Members that an operation needs."""


class Outcome(NamedTuple):
    """The end of one operation, and the calls of the driver."""

    status: int
    message: str
    calls: list[Any]


class ParityCase(SynchronousTestCase):
    """A gateway that is asked in both ways."""

    def setUp(self) -> None:
        self.site = Site({**ANSWERS, "observe": Answer([])})

    def outcome(self, reply: Any, before: int) -> Outcome:
        """Return the result."""
        failed = reply.status >= 400
        told = reply.json() if failed else {}
        return Outcome(reply.status if failed else 200, told.get("message", ""), self.site.calls[before:])

    def by_request(
        self,
        kind: Kind,
        headers: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        query: dict[str, Any] | None = None,
    ) -> Outcome:
        """Ask by a request."""
        method, suffix = PATHS[kind.name]
        before = len(self.site.calls)
        if kind.name in NEEDED:
            body = {**NEEDED[kind.name], **(body or {})}
        named = {"Content-Type": "application/json", **(headers or {})}
        content = b"{}" if kind.has_value else json.dumps(body).encode() if body is not None else b""
        if not content:
            del named["Content-Type"]
        path = SHORT + suffix
        if query:
            texts = {
                name: given if isinstance(given, str) else json.dumps(given) for name, given in query.items()
            }
            path += "?" + "&".join(f"{name}={text}" for name, text in texts.items())
        return self.outcome(self.site.request(method, path, content, named), before)

    def by_line(self, kind: Kind, members: dict[str, Any]) -> Outcome:
        """Ask by a line of a batch."""
        before = len(self.site.calls)
        value = {"value": {}} if "value" in kind.members else {"text": "{}"} if kind.has_value else {}
        needed = NEEDED.get(kind.name, {})
        line = json.dumps({"op": kind.name, "key": "k", **value, **needed, **members}).encode()
        reply = self.site.request("POST", BATCH, line)
        (told,) = [json.loads(one) for one in reply.body.splitlines()]
        calls = self.site.calls[before:]
        return Outcome(told["status"], told.get("error", {}).get("message", ""), list(calls))

    def compare(self, kind: Kind, request: Outcome, line: Outcome, where: Any) -> None:
        """Both ways came to the same."""
        self.assertEqual(line.status, request.status, (where, request, line))
        self.assertEqual(line.calls, request.calls, where)

    def basis(self, kind: Kind) -> tuple[dict[str, str], dict[str, Any]]:
        """Return what the operation needs to be well-formed: as headers, and as members."""
        needed = {"unlock": "If-Match", "touch": "X-CB-TTL", "replace": "If-Match"}.get(kind.name)
        if needed is None:
            return {}, {}
        request, line = VALUES[needed][0][0]
        return {needed: request}, {MEMBERS[needed]: line}


class OptionTests(ParityCase):
    """Accepted options."""

    def test_same_options(self) -> None:
        """A line takes a member for each header and each member of a request, except the listed ones."""
        for kind in OPERATIONS.values():
            headers = {name for name in kind.takes if name in MEMBERS}
            in_request = {MEMBERS.get(name, name) for name in kind.takes} | kind.body
            # A request's path names what these do.
            in_line = kind.members - {"op", "key", "key_base64", "scope", "collection"}
            only_request = {
                name for name in (*kind.takes, *kind.body) if MEMBERS.get(name, name) not in in_line
            }
            self.assertEqual(only_request, REQUEST_ONLY.get(kind.name, set()), kind.name)
            self.assertEqual(in_line - in_request, LINE_ONLY.get(kind.name, set()), kind.name)
            self.assertLessEqual({name.lower().encode() for name in headers}, SELECTIVE)

    def test_endpoints_declare_what_the_rows_say(self) -> None:
        """The headers that an endpoint takes are those of its operation's row."""
        site = Site(plugins=[Metrics()])
        seen = set()
        for declared in endpoints(site):
            if "<key>" in declared.paths[0]:
                takes = {name.lower().encode() for name in OPERATIONS[declared.operation].takes}
                self.assertEqual(declared.takes, takes, declared.name)
                seen.add(declared.operation)
        # A replace is a PUT with If-Match, and a replica is read by a GET.
        self.assertEqual(OPERATIONS.keys() - seen, {"replace", "get_replica"})
        self.assertEqual(set(OPERATIONS["replace"].takes), set(OPERATIONS["set"].takes))
        self.assertEqual(set(OPERATIONS["get_replica"].takes), set(OPERATIONS["get"].takes))

    def test_every_option_is_tried(self) -> None:
        """The tables of values above have each header and each member."""
        members = set().union(*(kind.body for kind in OPERATIONS.values()))
        self.assertEqual(members - {"expiry", "returnContent"}, BODIES.keys() | QUERIES.keys())
        self.assertEqual(VALUES.keys(), MEMBERS.keys())


class ValueTests(ParityCase):
    """Each value of each option, right and wrong."""

    def test_headers(self) -> None:
        """The same value as a header and as a member comes to the same call, or to the same refusal."""
        seen = 0
        for kind in OPERATIONS.values():
            if kind.name == "get":
                continue  # a request reads with the expiry, and conditions are on reading
            needed, in_line = self.basis(kind)
            for header in kind.takes:
                member = MEMBERS.get(header)
                if member is None or header in REQUEST_ONLY.get(kind.name, ()):
                    continue
                if header in ("Expires", "X-CB-TTL") and needed.keys() & {"Expires", "X-CB-TTL"} - {header}:
                    continue
                for proper, values in zip((True, False), VALUES[header], strict=True):
                    for as_header, as_member in values:
                        query = {"replica": "any"} if kind.name == "get_replica" else None
                        request = self.by_request(kind, {**needed, header: as_header}, query=query)
                        line = self.by_line(kind, {**in_line, member: as_member})
                        where = (kind.name, header, as_header)
                        if kind.name == "set" and header == "If-Match" and proper:
                            # As in SDK 1.2 and for a PUT: the one exception.
                            self.assertEqual([request.calls[0][0], line.calls[0][0]], ["replace", "set"])
                            self.assertEqual(request.calls[0][1:], line.calls[0][1:], where)
                            continue
                        self.compare(kind, request, line, where)
                        needs_initial = kind.name in ("incr", "decr") and header in ("Expires", "X-CB-TTL")
                        if not needs_initial:
                            self.assertEqual(request.status == 200, proper, (where, request))
                        seen += 1
        self.assertGreater(seen, 200)

    def test_bodies(self) -> None:
        """The same members in a body and in a line come to the same call, or to the same words."""
        seen = 0
        for kind in OPERATIONS.values():
            for member in sorted(kind.body & BODIES.keys()):
                for proper, values in zip((True, False), BODIES[member], strict=True):
                    for value in values:
                        where = (kind.name, member, value)
                        request = self.by_request(kind, body={member: value})
                        line = self.by_line(kind, {member: value})
                        self.compare(kind, request, line, where)
                        self.assertEqual(request.status == 200, proper, where)
                        if member != "delta":
                            # The error for a negative delta names the other operation, by one of two names.
                            self.assertEqual(request.message, line.message, where)
                        self.assertIn("" if proper else member, line.message)
                        seen += 1
        self.assertGreater(seen, 80)

    def test_queries(self) -> None:
        """So do the parameters of a query."""
        for kind in OPERATIONS.values():
            for name in sorted(kind.body & QUERIES.keys()):
                for proper, values in zip((True, False), QUERIES[name], strict=True):
                    for value in values:
                        request = self.by_request(kind, query={name: value})
                        line = self.by_line(kind, {name: value})
                        where = (kind.name, name, value)
                        self.compare(kind, request, line, where)
                        self.assertEqual(request.status == 200, proper, where)
                        self.assertIn("" if proper else name, request.message)
                        self.assertIn("" if proper else name, line.message)

    def test_combinations(self) -> None:
        """Options that exclude each other, or need each other, do so in both."""
        seen = 0
        for kind in OPERATIONS.values():
            takes = set(kind.takes) & MEMBERS.keys()
            for pair, status in (
                ({"Expires": "90s", "X-CB-TTL": "90"}, 400),
                ({"X-CB-DurabilityLevel": "Majority", "X-CB-PersistTo": "1"}, 400),
                ({"X-CB-PersistTo": "1", "X-CB-ReplicateTo": "1"}, 200),
            ):
                if kind.name in ("get", "touch") or not takes >= pair.keys():
                    continue
                needed, in_line = self.basis(kind)
                as_members = {
                    MEMBERS[name]: dict(VALUES[name][0]).get(value, value) for name, value in pair.items()
                }
                request = self.by_request(kind, {**needed, **pair})
                line = self.by_line(kind, {**in_line, **as_members})
                self.compare(kind, request, line, (kind.name, pair))
                self.assertEqual(request.status, status, (kind.name, pair, request))
                seen += 1
        self.assertGreater(seen, 15)

    def test_counter_that_must_be_there(self) -> None:
        """2**64-1 as ``initial`` means in both: do not create; an expiry needs another one."""
        for name in ("incr", "decr"):
            kind = OPERATIONS[name]
            request = self.by_request(kind, body={"initial": 2**64 - 1})
            line = self.by_line(kind, {"initial": 2**64 - 1})
            self.compare(kind, request, line, name)
            self.assertIsNone(line.calls[0][2]["initial"])
            request = self.by_request(kind, {"X-CB-TTL": "5"}, {"initial": 2**64 - 1})
            line = self.by_line(kind, {"ttl": 5, "initial": 2**64 - 1})
            self.compare(kind, request, line, name)
            self.assertEqual((line.status, line.calls), (400, []))
            self.assertIn("'initial'", line.message)


class FastPathTests(ParityCase):
    """Plain requests on documents take a shorter way; it comes to the same."""

    def test_same_call_and_same_answer(self) -> None:
        """A header that changes nothing sends a request the long way: same call, same answer."""
        types = (
            "application/json",
            "text/plain",
            "application/octet-stream",
            "text/plain; charset=utf-8",
            "a/b",
        )
        for method, plain, long in (
            *(
                ("PUT", {"Content-Type": kind}, {"Content-Type": kind, "X-CB-DurabilityLevel": "None"})
                for kind in types
            ),
            ("PUT", {}, {"X-CB-PersistTo": "0"}),
            ("GET", {}, {"If-None-Match": '"other"'}),
            ("GET", {}, {"If-Match": "*"}),
        ):
            outcomes = []
            for headers in (plain, long):
                for path in (
                    SHORT,
                    SHORT.replace("/documents", "/scopes/_default/collections/_default/documents"),
                ):
                    before = len(self.site.calls)
                    reply = self.site.request(method, path, b"{}" if method == "PUT" else b"", headers)
                    fields = {name: given for name, given in reply.headers.items() if name != "x-request-id"}
                    outcomes.append((reply.status, fields, reply.body, self.site.calls[before:]))
            self.assertEqual(outcomes[0][0], 200)
            self.assertEqual(outcomes, outcomes[:1] * 4, (method, long))
