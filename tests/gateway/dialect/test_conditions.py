"""Headers for conditions, expiry, durability and encoding: honoured or refused by every resource."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from couchbase.protocol.constants import Status
from couchbase.result import MutationToken
from gateway.dialect.conditions import (
    ATTEMPTS,
    DURABILITY,
    EXPIRY,
    MEMBERS,
    SELECTIVE,
    TIMEOUT,
    Condition,
    Versions,
    parse_if_match,
    parse_if_none_match,
)
from gateway.dialect.errors import Refusal
from gateway.dialect.headers import etag
from gateway.http.routing import Endpoint
from gateway.operations.table import OPERATIONS
from gateway.plugins.metrics import Metrics
from tests import tries
from tests.gateway.resources.test_documents import ANSWERS, ROWS, SHORT
from tests.gateway.support import Answer, Reply, Site, error
from tests.gateway.test_behaviour import D, GatewayTestCase
from tests.tooling.sources import ROOT

VALUES = {
    "If-Match": "1234",
    "If-None-Match": "9999",
    "Expires": "90s",
    "X-CB-TTL": "90",
    "X-CB-DurabilityLevel": "Majority",
    "X-CB-PersistTo": "1",
    "X-CB-ReplicateTo": "1",
    "X-CB-DurabilityTimeout": "2s",
    "X-CB-Timeout": "500ms",
    "X-CB-Flags": "7",
    "Content-Encoding": "gzip",
    "Content-Range": "bytes 0-1/9",
}
"""A valid value of each header of the table (except the last two, which no resource takes)."""


def endpoints(site: Site) -> list[Endpoint]:
    """Return every endpoint of a gateway, as its Klein app has them."""
    app = site.gateway.app
    found = {}
    for rule in app.url_map.iter_rules():
        served = getattr(app.endpoints[rule.endpoint], "served", None)
        if served is not None:
            found[served[0].name] = served[0]
    return list(found.values())


class EveryResourceTests(SynchronousTestCase):
    """Each header on each endpoint of the real route table, so that new endpoints are included."""

    def setUp(self) -> None:
        self.site = Site(dict(ANSWERS), plugins=[Metrics()])
        self.bodies = {(row.method, row.suffix): row for row in ROWS}

    def ask(self, method: str, rule: str, name: str, value: str) -> Reply:
        path = re.sub(r"<[a-z_]+>", "k", rule)
        row = self.bodies.get((method, path.partition("/documents/k")[2]))
        headers = {} if row is None else dict(row.headers)
        body = b'{"op":"get","key":"k"}' if path.endswith("/batch") else b"" if row is None else row.body
        return self.site.request(method, path, body, {**headers, name: value})

    def test_refused_where_it_is_not_taken(self) -> None:
        """400 that names the header and what the resource takes; the cluster is asked nothing."""
        found = endpoints(self.site)
        self.assertGreater(len(found), 25)
        seen = 0
        for declared in found:
            for name, value in VALUES.items():
                # A service behind the proxy decides itself about the encodings that it takes.
                is_strict = name == "Content-Encoding" and not declared.paths[0].startswith("/_p/")
                if name.lower().encode() in declared.takes and not is_strict:
                    continue
                for method in (declared.method, "HEAD") if declared.method == "GET" else (declared.method,):
                    before = len(self.site.calls)
                    reply = self.ask(method, declared.paths[0], name, value)
                    where = (method, declared.name, name, reply.body)
                    self.assertEqual(reply.status, 400, where)
                    self.assertEqual(len(self.site.calls), before, where)
                    seen += 1
                    if method == "HEAD":
                        continue
                    told = reply.json()
                    self.assertEqual(told["code"], "InvalidArgument")
                    self.assertTrue(told["message"].startswith(name + ": "), where)
                    if name != "Content-Encoding":
                        for taken in VALUES:
                            listed = re.search(rf"it takes .*\b{taken}\b", told["message"]) is not None
                            self.assertEqual(listed, taken.lower().encode() in declared.takes, where)
        self.assertGreater(seen, 200)

    def test_refused_each_time(self) -> None:
        """Also if the last request with the same head was for a resource that takes the header, or was
        refused."""
        document, observed = "/v1/buckets/b/documents/k", "/v1/buckets/b/documents/k/observe"
        for path in (document, observed, observed, document, document, observed):
            reply = self.site.request("GET", path, headers={"If-None-Match": "*"})
            self.assertEqual(reply.status, 304 if path == document else 400)

    def test_read_where_it_is_taken(self) -> None:
        """An endpoint that takes a header reads it: an invalid value is 400 with the header's name."""
        seen = 0
        for declared in endpoints(self.site):
            for name in VALUES:
                # What a service behind the proxy takes, it reads; the tag of a page is compared as it is.
                path = declared.paths[0]
                if name.lower().encode() not in declared.takes or path == "/" or path.startswith("/_p/"):
                    continue
                before = len(self.site.calls)
                reply = self.ask(declared.method, path, name, "?")
                self.assertEqual(reply.status, 400, (declared.name, name, reply.body))
                self.assertIn(name, reply.json()["message"])
                self.assertEqual(len(self.site.calls), before)
                seen += 1
        self.assertGreater(seen, 30)

    def test_plain_encoding(self) -> None:
        """``identity`` says nothing, so every resource takes it."""
        for row in ROWS:
            reply = self.site.request(
                row.method, SHORT + row.suffix, row.body, {**row.headers, "Content-Encoding": "identity"}
            )
            self.assertEqual(reply.status, row.status, row.asks)

    def test_dates_and_ranges_are_ignored(self) -> None:
        """RFC 9110 13.1.3, 13.1.4, 14.2: without dates such conditions MUST be ignored; Range may be."""
        for name, value in (
            ("If-Modified-Since", "Wed, 21 Oct 2099 07:28:00 GMT"),
            ("If-Unmodified-Since", "Wed, 21 Oct 1970 07:28:00 GMT"),
            ("Range", "bytes=0-0"),
            ("If-Range", '"1234"'),
        ):
            for row in ROWS:
                reply = self.site.request(
                    row.method, SHORT + row.suffix, row.body, {**row.headers, name: value}
                )
                self.assertEqual(reply.status, row.status, (row.asks, name))
                self.assertIsNone(reply.header("Last-Modified"))
                self.assertIsNone(reply.header("Accept-Ranges"))

    def test_options_has_no_conditions(self) -> None:
        """RFC 9110 13.2.1: they are ignored with a method that selects no representation."""
        self.assertEqual(self.site.request("OPTIONS", SHORT, headers={"If-Match": "?"}).status, 204)

    def test_the_reference_says_the_same(self) -> None:
        """The table in rest-api.md has exactly the headers that a document's endpoints take."""
        page = (ROOT / "docs" / "rest-api.md").read_text(encoding="utf-8")
        (table,) = re.findall(r"^\| resource \| `If-Match`.*\n\|[- |]+\n((?:\|.*\n)+)", page, re.MULTILINE)
        columns = (("If-Match",), ("If-None-Match",), EXPIRY, DURABILITY, ("X-CB-Flags",), TIMEOUT)
        documented: dict[str, set[str]] = {}
        for line in table.splitlines():
            resources, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            takes: set[str] = set()
            for cell, headers in zip(cells, columns, strict=True):
                only = re.fullmatch(r"`([\w-]+)` only", cell)
                takes.update((only[1],) if only else headers if cell else ())
            for resource in re.findall("`([^`]+)`", resources):
                method, _, document = resource.rpartition(" ")
                documented[method if document == "D" else resource] = takes
        declared = {}
        for found in endpoints(self.site):
            suffix = found.paths[0].partition("/documents/<key>")[2]
            if "<key>" in found.paths[0]:
                takes = {name for name in VALUES if name.lower().encode() in found.takes}
                declared[suffix[1:] or found.method] = takes - {"Content-Encoding"}
        self.assertEqual(documented, {**declared, "HEAD": declared["GET"]})

    def test_batch_lines_are_in_step(self) -> None:
        """An operation takes the same as a request and as a line; a get may set the expiry in a line only."""
        by_operation = {"set": "put_document", "replace": "put_document", "add": "create_document"}
        names = {declared.name: declared for declared in endpoints(self.site)}
        operations = {declared.operation: declared for declared in names.values()}
        for kind in OPERATIONS.values():
            if kind.name == "get_replica":
                continue
            declared = names.get(by_operation.get(kind.name, "")) or operations[kind.name]
            for header, member in MEMBERS.items():
                taken = header.lower().encode() in declared.takes
                if kind.name == "get":
                    taken = member in ("ttl", "expires", "timeout")
                elif kind.name == "touch" and header == "Expires":
                    taken = True  # in the body of a request
                elif kind.name == "endure" and member in ("persistTo", "replicateTo", "timeout"):
                    taken = True  # likewise
                self.assertEqual(member in kind.members, taken, (kind.name, header))
        self.assertEqual({name.lower().encode() for name in VALUES}, SELECTIVE)


class TagTests(SynchronousTestCase):
    """Lists of entity tags."""

    @given(
        st.lists(
            st.tuples(
                st.integers(1, 2**64 - 1),
                st.sampled_from(
                    ["{}", '"{}"', 'W/"{}"', "W/{}", '"{}-gzip"', '"{}--gzip"', 'W/"{}-br"', "{}-zstd"]
                ),
                st.booleans(),
            ),
            min_size=1,
            max_size=6,
        ),
        st.sampled_from([",", ", ", " ,\t", ", ,", ",,"]),
        st.sampled_from(["", ",", " , ", "\t"]),
    )
    def test_every_form(self, tags: list[tuple[int, str, bool]], between: str, around: str) -> None:
        """ETag's value is accepted bare, quoted, weak, and with a compression's name; empty elements are
        ignored."""
        texts = []
        for cas, form, upper in tags:
            shown = etag(cas).decode()
            texts.append(form.format(shown.upper() if upper else shown))
        value = (around + between.join(texts) + around).encode()
        expected = Versions(frozenset(cas for cas, _, _ in tags))
        self.assertEqual(parse_if_match(value), expected)
        self.assertEqual(parse_if_none_match(value), expected)

    def test_star(self) -> None:
        """``*`` is any version; absent is no condition."""
        for parse in (parse_if_match, parse_if_none_match):
            self.assertEqual(parse(b"*"), Versions(frozenset(), True))
            self.assertIsNone(parse(None))

    def test_other_tags(self) -> None:
        """A tag that no document has matches nothing in If-None-Match, and is no CAS in If-Match."""
        for value in (b'"zz"', b'W/"a,b"', b'""', b'"0"', b'"%s"' % (b"1" * 17), b'"12-7z"'):
            self.assertEqual(parse_if_none_match(value), Versions(frozenset({0} if value == b'"0"' else ())))
            with self.assertRaises(Refusal) as caught:
                parse_if_match(value)
            self.assertIn("If-Match: ", caught.exception.message)

    def test_malformed(self) -> None:
        """Neither a star nor a list: refused by both, by name."""
        for value in (
            b"",
            b" ",
            b",",
            b"12 13",
            b'"12',
            b'12"',
            b"nonsense",
            b"*,1",
            b"1,*",
            b"w/1",
            b'"1""2"',
        ):
            for parse, name in ((parse_if_match, "If-Match"), (parse_if_none_match, "If-None-Match")):
                with self.assertRaises(Refusal) as caught:
                    parse(value)
                self.assertEqual(caught.exception.problem.status, 400)
                self.assertIn(name + ": ", caught.exception.message)

    @given(st.binary(max_size=40) | st.text(alphabet='W/"1af,-* \tgzip', max_size=40).map(str.encode))
    def test_arbitrary_bytes(self, value: bytes) -> None:
        """Versions, or a refusal."""
        for parse in (parse_if_match, parse_if_none_match):
            try:
                self.assertIsInstance(parse(value), Versions)
            except Refusal as refusal:
                self.assertEqual(refusal.problem.status, 400)

    def test_a_long_header_takes_no_long_time(self) -> None:
        """Each byte is looked at a bounded number of times (a quadratic reader would not come back)."""
        for value in (
            b'"' * 100_000,
            b" " * 100_000 + b"x",
            b"," * 100_000,
            b'W/"' * 30_000,
            b"1,\t" * 50_000,
        ):
            for parse in (parse_if_match, parse_if_none_match):
                try:
                    parse(value)
                except Refusal as refusal:
                    self.assertEqual(refusal.problem.status, 400)


TOKEN = MutationToken(7, 0xBEEF, 42)


class Cell:
    """One document of a cluster: its answers, by the rules of the protocol.

    :param cas: its version, 0 if it is not there.
    :param changes: versions that it takes one after the other, one before each write.
    """

    def __init__(self, cas: int, changes: list[int] | None = None) -> None:
        self.cas = cas
        self.changes = changes or []
        self.written = 0
        self.answers = {
            "get": self.read,
            "get_with_expiry": self.read,
            "set": lambda *_, **options: self.write(options["cas"]),
            "add": lambda *_, **__: self.add(),
            **{
                name: lambda *_, **options: self.write(options["cas"], must_exist=True)
                for name in ("replace", "delete", "append", "prepend")
            },
        }

    def read(self, *_: Any, **__: Any) -> Deferred[Any]:
        if not self.cas:
            return fail(error(exceptions.KEY_ENOENT, status=Status.KEY_ENOENT))
        return succeed(Answer(b"{}", cas=self.cas))

    def write(self, cas: int, *, must_exist: bool = False) -> Deferred[Any]:
        self.change()
        if not self.cas and (must_exist or cas):
            return fail(error(exceptions.KEY_ENOENT, status=Status.KEY_ENOENT))
        if cas not in (0, self.cas):
            return fail(error(exceptions.KEY_EEXISTS, status=Status.KEY_EEXISTS))
        return self.done()

    def add(self) -> Deferred[Any]:
        self.change()
        if self.cas:
            return fail(error(exceptions.KEY_EEXISTS, status=Status.KEY_EEXISTS))
        return self.done()

    def change(self) -> None:
        if self.changes:
            self.cas = self.changes.pop(0)

    def done(self) -> Deferred[Any]:
        self.written += 1
        return succeed(Answer(cas=0xAAAA, token=TOKEN))


WRITES = [("PUT", ""), ("DELETE", ""), ("POST", "/append"), ("POST", "/prepend")]
_LIST = st.sets(st.integers(1, 3), min_size=1)
_CONDITIONS = st.none() | st.just("*") | _LIST


def shown(condition: Any) -> str:
    """Return a condition as a header."""
    return "*" if condition == "*" else ", ".join(f'"{etag(cas).decode()}"' for cas in sorted(condition))


def holds(condition: Any, cas: int) -> bool:
    """Return whether a version (0: none) is among those that a condition names."""
    return cas != 0 and (condition == "*" or cas in condition)


class MeaningTests(SynchronousTestCase):
    """The effect of a condition in each state of the document: RFC 9110 13.2.2, with the Data API's codes."""

    def headers(self, match: Any, none_match: Any) -> dict[str, str]:
        pairs = {"If-Match": match, "If-None-Match": none_match}
        return {name: shown(value) for name, value in pairs.items() if value is not None}

    def expected(self, method: str, cas: int, match: Any, none_match: Any) -> tuple[int, str]:
        """The answer to a request that finds the document in a state, as the RFC says."""
        creates = method == "PUT" and match is None
        if not cas and not creates:
            # 13.2.1: without the condition it would fail, so the condition is not looked at.
            return 404, "DocumentNotFound"
        if match is not None and not holds(match, cas):
            return (412, "PreconditionFailed") if method == "GET" else (409, "CasMismatch")
        if none_match is not None and holds(none_match, cas):
            return (304, "") if method == "GET" else (412, "PreconditionFailed")
        return 200, ""

    def told(self, reply: Reply) -> tuple[int, str]:
        return reply.status, reply.json()["code"] if reply.status >= 400 else ""

    @settings(deadline=None, max_examples=tries(60))
    @given(st.integers(0, 3), _CONDITIONS, _CONDITIONS)
    def test_every_combination(self, cas: int, match: Any, none_match: Any) -> None:
        """Any If-Match with any If-None-Match, on a document that is or is not there; refused is not done."""
        for method, suffix in [("GET", ""), *WRITES]:
            cell = Cell(cas)
            _SITE.answers.clear()
            _SITE.answers.update(cell.answers)
            body = b"" if method in ("GET", "DELETE") else b"{}"
            reply = _SITE.request(method, SHORT + suffix, body, self.headers(match, none_match))
            expected = self.expected(method, cas, match, none_match)
            self.assertEqual(self.told(reply), expected, (method, suffix))
            self.assertEqual(cell.written, int(method != "GET" and expected[0] == 200))

    @settings(deadline=None, max_examples=tries(60))
    @given(st.integers(0, 3), st.lists(st.integers(0, 3), max_size=4), _CONDITIONS, _CONDITIONS)
    def test_others_write_meanwhile(self, cas: int, changes: list[int], match: Any, none_match: Any) -> None:
        """The write is done only if the condition holds for the very version that it changes."""
        for method, suffix in WRITES:
            cell = Cell(cas, list(changes))
            _SITE.answers.clear()
            _SITE.answers.update(cell.answers)
            body = b"" if method == "DELETE" else b"{}"
            reply = _SITE.request(method, SHORT + suffix, body, self.headers(match, none_match))
            states = [cas, *changes]
            # The answers that would have been right at some moment during the request.
            right = {self.expected(method, state, match, none_match) for state in states}
            self.assertIn(self.told(reply), right, (method, suffix))
            self.assertEqual(cell.written, int(reply.status == 200))
            if cell.written:
                self.assertEqual(self.expected(method, cell.cas, match, none_match), (200, ""))

    def test_a_document_that_never_rests(self) -> None:
        """A write that is overtaken each time is given up: 503, safe to repeat, and nothing was done."""
        cell = Cell(1, list(range(2, ATTEMPTS + 10)))
        site = Site(cell.answers)
        reply = site.request("PUT", SHORT, b"{}", {"If-None-Match": '"ffff"'})
        self.assertEqual(self.told(reply), (503, "TemporarilyUnavailable"))
        self.assertEqual((reply.json()["retry"], cell.written), ("safe", 0))
        self.assertEqual(len([name for name, _, _ in site.calls if name == "replace"]), ATTEMPTS)

    def test_create_only(self) -> None:
        """``If-None-Match: *`` creates a document atomically; POST does so with any condition."""
        for cas, status in ((0, 200), (1, 412)):
            site = Site(Cell(cas).answers)
            reply = site.request("PUT", SHORT, b"{}", {"If-None-Match": "*", "X-CB-TTL": "9"})
            self.assertEqual(reply.status, status)
            ((name, _, options),) = site.calls
            self.assertEqual((name, options["ttl"]), ("add", 9))
            for value in ("*", '"1"'):
                reply = site.request("POST", SHORT, b"{}", {"If-None-Match": value})
                self.assertEqual(self.told(reply), (409, "DocumentExists") if cas else (200, ""))

    def test_one_version_is_left_to_the_cluster(self) -> None:
        """A single ETag is tested by the write itself, which a lock's holder needs: nothing is read."""
        for method, suffix in WRITES:
            site = Site(Cell(1).answers)
            headers = {"If-Match": '"00000001"', "If-None-Match": '"00000002"'}
            self.assertEqual(site.request(method, SHORT + suffix, b"{}", headers).status, 200)
            ((_, _, options),) = site.calls
            self.assertEqual(options["cas"], 1)

    def test_locked(self) -> None:
        """A lock hides the version, so what would have to be compared is 409 DocumentLocked."""
        for headers in (
            {"If-Match": "1, 2"},
            {"If-None-Match": "1"},
            {"If-Match": "*", "If-None-Match": "1"},
        ):
            for method, suffix in WRITES:
                cell = Cell(2**64 - 1)
                reply = Site(cell.answers).request(method, SHORT + suffix, b"{}", headers)
                self.assertEqual(self.told(reply), (409, "DocumentLocked"))
                self.assertEqual(cell.written, 0)

    def test_durability_of_a_compared_write(self) -> None:
        """Durability and expiry go with it; a timeout of such a write is in doubt."""
        site = Site(Cell(1).answers)
        headers = {"If-Match": "1,2", "X-CB-DurabilityLevel": "Majority", "X-CB-TTL": "5"}
        self.assertEqual(site.request("PUT", SHORT, b"{}", headers).status, 200)
        name, arguments, options = site.calls[-1]
        self.assertEqual((name, arguments), ("replace", (b"k", b"{}")))
        self.assertEqual(
            options,
            {
                "cas": 1,
                "ttl": 5,
                "format": 0,
                "preserve_expiry": False,
                "persist_to": 0,
                "replicate_to": 0,
                "durability_level": 1,
            },
        )
        site.answers["replace"] = error(exceptions.ETIMEDOUT, ambiguous=True)
        self.assertEqual(self.told(site.request("PUT", SHORT, b"{}", headers)), (408, "DurabilityAmbiguous"))

    def test_overtaken_while_copies_are_waited_for(self) -> None:
        """If the written version was replaced later, it is not written again."""
        site = Site({**Cell(1).answers, "replace": error(exceptions.KEY_EEXISTS)})
        site.request("PUT", SHORT, b"{}", {"If-None-Match": "2", "X-CB-PersistTo": "1"})
        self.assertEqual([name for name, _, _ in site.calls], ["get", "replace"])

    def test_replicas_and_parts(self) -> None:
        """A read of a replica or of parts has the same conditions."""
        site = Site({"rget": Answer(b'{"a":1}', cas=2), "get_with_expiry": Answer(b'{"a":1}', cas=2)})
        for query in ("?replica=any", "?replica=0", "?project=a", "?project=a&replica=any"):
            for headers, status in (
                ({"If-Match": "1"}, 412),
                ({"If-Match": "1, 2"}, 200),
                ({"If-Match": "*"}, 200),
                ({"If-None-Match": "2"}, 304),
                ({"If-None-Match": "*"}, 304),
                ({"If-None-Match": "1"}, 200),
                ({"If-Match": "1", "If-None-Match": "2"}, 412),
            ):
                for method in ("GET", "HEAD"):
                    reply = site.request(method, SHORT + query, headers=headers)
                    self.assertEqual(reply.status, status, (query, headers))

    def test_condition_without_headers(self) -> None:
        """No condition: every version will do."""
        self.assertEqual(Condition().cas(), 0)
        self.assertTrue(Condition().check_read(5))


_SITE = Site({})


class QuotedTests(SynchronousTestCase):
    """``--quoted-etags``."""

    def test_every_etag(self) -> None:
        """Each answer that has an ETag has it in quotes, and bare without the option."""
        for quoted in (True, False):
            site = Site(dict(ANSWERS), quoted_etags=quoted)
            form = re.compile(r'"[0-9a-f]{8,16}"' if quoted else r"[0-9a-f]{8,16}")
            seen = 0
            for row in ROWS:
                reply = site.request(row.method, SHORT + row.suffix, row.body, row.headers)
                self.assertEqual(reply.status, row.status)
                tag = reply.header("ETag")
                if tag is not None:
                    seen += 1
                    self.assertRegex(tag, re.compile(rf"\A{form.pattern}\Z"), row.asks)
            self.assertEqual(seen, len(ROWS) - 1)  # all but unlock
            read = site.request("GET", SHORT)
            again = site.request("GET", SHORT, headers={"If-None-Match": read.header("ETag") or ""})
            self.assertEqual((again.status, again.header("ETag")), (304, read.header("ETag")))
            for query in ("?project=a", "?replica=any"):
                self.assertRegex(site.request("GET", SHORT + query).header("ETag") or "", form)
            body = b'{"expiry":"9s","returnContent":true}'
            self.assertRegex(site.request("POST", SHORT + "/touch", body).header("ETag") or "", form)


class NodeTests(GatewayTestCase):
    """On a real node, over sockets."""

    options = {"ephemeral": True, "quoted-etags": True}

    @inlineCallbacks
    def test_conditional_writes(self) -> Any:
        """Create only, replace one of several versions, write unless it is a version, remove likewise."""
        created = yield self.ask("PUT", D + "x", b"1", If_None_Match="*")
        first = created.header("ETag")
        self.assertRegex(first, r'\A"[0-9a-f]{8,16}"\Z')
        again = yield self.ask("PUT", D + "x", b"2", If_None_Match="*")
        self.assertEqual(again.code(), (412, "PreconditionFailed"))
        same = yield self.ask("PUT", D + "x", b"2", If_None_Match=first)
        self.assertEqual(same.code(), (412, "PreconditionFailed"))
        one_of = yield self.ask("PUT", D + "x", b"2", If_Match=f'"1234", W/{first}')
        second = one_of.header("ETag")
        self.assertEqual(one_of.status, 200)
        for method, suffix, body in (("PUT", "", b"3"), ("DELETE", "", b""), ("POST", "/append", b"3")):
            stale = yield self.ask(method, D + "x" + suffix, body, If_Match=f'{first}, "1234"')
            self.assertEqual(stale.code(), (409, "CasMismatch"))
            excluded = yield self.ask(method, D + "x" + suffix, body, If_None_Match=second)
            self.assertEqual(excluded.code(), (412, "PreconditionFailed"))
        read = yield self.ask("GET", D + "x", If_Match=second)
        self.assertEqual((read.status, read.body), (200, b"2"))
        other = yield self.ask("GET", D + "x", If_Match=first)
        self.assertEqual(other.code(), (412, "PreconditionFailed"))
        gone = yield self.ask("DELETE", D + "x", If_None_Match=first, If_Match="*")
        self.assertEqual(gone.status, 200)
        absent = yield self.ask("DELETE", D + "x", If_Match="*")
        self.assertEqual(absent.code(), (404, "DocumentNotFound"))

    @inlineCallbacks
    def test_locked_document(self) -> Any:
        """The holder's own ETag writes; a list, or If-None-Match, cannot be compared."""
        yield self.ask("PUT", D + "x", b"1")
        locked = yield self.ask("POST", D + "x/lock", b"{}")
        for headers in ({"If_Match": locked.header("ETag") + ', "1"'}, {"If_None_Match": '"1"'}):
            refused = yield self.ask("PUT", D + "x", b"2", **headers)
            self.assertEqual(refused.code(), (409, "DocumentLocked"))
        held = yield self.ask("PUT", D + "x", b"2", If_Match=locked.header("ETag"))
        self.assertEqual(held.status, 200)

    @inlineCallbacks
    def test_counters_of_a_batch_are_durable(self) -> Any:
        """A line of a batch takes the durability that the request takes."""
        body = b'{"op":"incr","key":"n","initial":1,"durabilityLevel":"Majority"}\n{"op":"get","key":"n"}\n'
        reply = yield self.ask("POST", "/v1/buckets/default/batch", body)
        self.assertEqual(reply.body.count(b'"status":200'), 2, reply.body)
