"""Document resources: calls of the driver, answers, and the order of refusals."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from couchbase.protocol.constants import RELATIVE_EXPIRY_MAX
from couchbase.protocol.pathresults import PathResult, SubdocResult
from couchbase.result import MultiResult, MutationToken
from gateway.http.routing import Dispatcher
from gateway.limits import Limits
from tests.gateway.support import Answer, Reply, Site, basic, error, passthrough

SHORT = "/v1/buckets/b/documents/k"
FULL = "/v1/buckets/b/scopes/_default/collections/_default/documents/k"
TOKEN = MutationToken(7, 0xBEEF, 42)


LOOKUP = b'{"operations":[{"operation":"Get","path":"a"}]}'
MUTATE = b'{"operations":[{"operation":"DictSet","path":"a","value":1}]}'


def path_results(*found: PathResult, token: bool = False) -> SubdocResult:
    """Return the result of a sub-document operation."""
    result = SubdocResult(0, 0x1234, list(found))
    if token:
        result._token = (TOKEN.vbucket, TOKEN.uuid.to_bytes(8, "big") + TOKEN.seqno.to_bytes(8, "big"))
    return result


ANSWERS: dict[str, Any] = {
    "lookup_in": path_results(PathResult(b"a", False, 0, 0, b"1")),
    "mutate_in": path_results(PathResult(b"a", False, 0, 0, b""), token=True),
    "get_with_expiry": Answer(b'{"a":1}', expiry=1_800_000_000),
    "get": Answer(b'{"a":1}'),
    "rget": Answer(b'{"r":1}'),
    "lock": Answer(b'{"a":1}', cas=0xFEDC),
    "incr": Answer(7, token=TOKEN),
    "decr": Answer(3, token=TOKEN),
    "touch": Answer(cas=0x99),
    "endure": Answer(cas=0x99),
    "unlock": Answer(cas=0),
    **{name: Answer(token=TOKEN) for name in ("add", "set", "replace", "delete", "append", "prepend")},
}


_SHARED = Site(dict(ANSWERS))


class Row:
    """One operation of the contract: a valid request for it."""

    def __init__(
        self,
        method: str,
        suffix: str = "",
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        asks: str,
        status: int = 200,
        takes_if_match: bool = False,
        takes_json: bool = False,
        is_durable: bool = False,
    ) -> None:
        self.method = method
        self.suffix = suffix
        self.body = body
        self.headers = headers or {}
        self.asks = asks
        self.status = status
        self.takes_if_match = takes_if_match
        self.takes_json = takes_json
        self.is_durable = is_durable


ROWS = [
    Row("GET", asks="get_with_expiry"),
    Row("HEAD", asks="get_with_expiry"),
    Row("POST", body=b"{}", asks="add", is_durable=True),
    Row("PUT", body=b"{}", asks="set", takes_if_match=True, is_durable=True),
    Row("DELETE", asks="delete", takes_if_match=True, is_durable=True),
    Row("POST", "/append", b"x", asks="append", takes_if_match=True, is_durable=True),
    Row("POST", "/prepend", b"x", asks="prepend", takes_if_match=True, is_durable=True),
    Row("POST", "/increment", asks="incr", is_durable=True),
    Row("POST", "/decrement", asks="decr", is_durable=True),
    Row("POST", "/touch", b'{"expiry":"60s"}', asks="touch", status=204, takes_json=True),
    Row("POST", "/lock", b"{}", asks="lock", takes_json=True),
    Row("POST", "/lookup", LOOKUP, asks="lookup_in", takes_json=True),
    Row("POST", "/mutate", MUTATE, asks="mutate_in", takes_if_match=True, takes_json=True, is_durable=True),
    Row("POST", "/unlock", headers={"If-Match": "fedc"}, asks="unlock", takes_if_match=True),
    Row("POST", "/endure", b"{}", asks="endure", status=204, takes_if_match=True, takes_json=True),
]


class ContractTests(SynchronousTestCase):
    """The contract of every operation on a document: each test runs on each of them."""

    def ask(
        self,
        row: Row,
        path: str = SHORT,
        *,
        site: Site | None = None,
        body: bytes | None = None,
        **headers: str,
    ) -> Reply:
        """Send a row's request, with changes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        # Declaring all routes takes a while: tests that look at the answer only share a site.
        site = site or _SHARED
        return site.request(
            row.method, path + row.suffix, row.body if body is None else body, {**row.headers, **named}
        )

    def refused(self, reply: Reply, row: Row, status: int, code: str, words: str = "") -> None:
        """The answer is that refusal (of which HEAD shows the status only)."""
        self.assertEqual(reply.status, status, (row.asks, reply.body))
        if row.method != "HEAD":
            self.assertEqual(reply.json()["code"], code, row.asks)
            self.assertIn(words, reply.json()["message"])

    def test_every_path(self) -> None:
        """All four prefixes lead to the same operation on the same key."""
        for row in ROWS:
            for path in (
                SHORT,
                FULL,
                SHORT.replace("/v1/", "/v1.alpha/"),
                FULL.replace("/v1/", "/v1.alpha/"),
            ):
                site = Site(dict(ANSWERS))
                self.assertEqual(self.ask(row, path, site=site).status, row.status, (row.asks, path))
                name, arguments, _ = site.calls[0]
                self.assertEqual((name, arguments[0]), (row.asks, b"k"))

    def test_unknown_bucket(self) -> None:
        """404, and no document is accessed."""
        for row in ROWS:
            site = Site({**ANSWERS, "connect": error(exceptions.BUCKET_ENOENT)})
            self.refused(self.ask(row, site=site), row, 404, "BucketNotFound")
            self.assertEqual(site.calls, [])

    def test_impossible_bucket_name(self) -> None:
        """404 without asking the cluster."""
        for row in ROWS:
            site = Site(dict(ANSWERS))
            self.refused(self.ask(row, SHORT.replace("/b/", "/%20/"), site=site), row, 404, "BucketNotFound")
            self.assertEqual(site.connections, [])

    def test_other_scope_and_collection(self) -> None:
        """The operation is for the collection that the path names, and for no other one."""
        for row in ROWS:
            for scope, collection in (("s", "_default"), ("_default", "c"), ("s", "c")):
                path = FULL.replace("scopes/_default", f"scopes/{scope}")
                path = path.replace("collections/_default", f"collections/{collection}")
                site = Site(dict(ANSWERS))
                self.assertEqual(self.ask(row, path, site=site).status, row.status, row)
                self.assertEqual(set(site.connections[0].places), {(scope, collection)}, row)
            site = Site(dict(ANSWERS))
            self.assertEqual(self.ask(row, FULL, site=site).status, row.status)
            self.assertEqual(site.connections[0].places, [])

    def test_impossible_names(self) -> None:
        """Names that no scope, or collection, can have are 404, and no document is touched."""
        for row in ROWS:
            for path, code in (
                (FULL.replace("scopes/_default", "scopes/a%20b"), "ScopeNotFound"),
                (FULL.replace("collections/_default", "collections/" + "c" * 252), "CollectionNotFound"),
            ):
                site = Site(dict(ANSWERS))
                self.refused(self.ask(row, path, site=site), row, 404, code)
                self.assertEqual(site.calls, [])

    def test_long_key(self) -> None:
        """Bytes count, after decoding: 250 are taken, 251 are not."""
        for row in ROWS:
            path = "/v1/buckets/b/documents/"
            self.assertEqual(self.ask(row, path + "%C3%A9" * 125).status, row.status)
            reply = self.ask(row, path + "%C3%A9" * 125 + "x")
            self.refused(reply, row, 400, "InvalidArgument", "251 bytes; it must have 1 to 250")

    def test_bad_keys(self) -> None:
        """Broken escapes and bytes that are no UTF-8."""
        for row in ROWS:
            for key in ("%", "%4", "%FF"):
                self.refused(
                    self.ask(row, "/v1/buckets/b/documents/" + key), row, 400, "InvalidArgument", "key"
                )

    def test_unknown_query(self) -> None:
        """An unknown parameter is refused by name."""
        for row in ROWS:
            site = Site(dict(ANSWERS))
            reply = site.request(row.method, SHORT + row.suffix + "?nonsense=1", row.body, row.headers)
            self.refused(reply, row, 400, "InvalidArgument", "nonsense")

    def test_credentials(self) -> None:
        """None: 401; malformed: 400; refused by the cluster: 403; never a word to a connection."""
        for row in ROWS:
            site = Site(dict(ANSWERS), authorizer=passthrough())
            reply = self.ask(row, site=site)
            self.refused(reply, row, 401, "Unauthorized")
            self.assertIsNotNone(reply.header("WWW-Authenticate"))
            for value in ("Bearer x", "Basic ???", "Basic " + "YWJj", "", "Basic /w=="):
                self.refused(self.ask(row, site=site, Authorization=value), row, 400, "InvalidArgument")
            for user, password in (("", "p"), ("u", "")):
                self.refused(self.ask(row, site=site, **basic(user, password)), row, 401, "Unauthorized")
            self.assertEqual(site.connections, [])
            site.answers["connect"] = error(exceptions.AUTH_ERROR)
            self.refused(self.ask(row, site=site, **basic("u", "wrong")), row, 403, "InvalidAuth")
            self.assertEqual(site.calls, [])

    def test_syntax_is_looked_at_before_credentials(self) -> None:
        """A bad query beats missing credentials, and so does broken JSON; a bad If-Match does not."""
        for row in ROWS:
            site = Site(dict(ANSWERS), authorizer=passthrough())
            reply = site.request(row.method, SHORT + row.suffix + "?x=1", row.body, row.headers)
            self.refused(reply, row, 400, "InvalidArgument")
            if row.takes_json:
                self.refused(self.ask(row, site=site, body=b"{"), row, 400, "InvalidArgument", "not JSON")
            if row.takes_if_match:
                self.refused(self.ask(row, site=site, If_Match="nonsense"), row, 401, "Unauthorized")

    def test_bad_conditions_of_reads(self) -> None:
        """A bad query beats them, and so do credentials that are missing or wrong."""
        for method in ("GET", "HEAD"):
            for name in ("If-Match", "If-None-Match"):
                site = Site(dict(ANSWERS), authorizer=passthrough())
                bad = {name: "nonsense"}
                right, wrong = basic("u", "password"), basic("u", "wrong")
                for _ in range(2):
                    self.assertEqual(site.request(method, SHORT, b"", bad).status, 401)
                    self.assertEqual(site.request(method, SHORT + "?x=1", b"", bad).status, 400)
                    self.assertEqual(site.request(method, SHORT, b"", bad | right).status, 400)
                self.assertEqual(site.calls, [])
                reply = site.request("GET", SHORT + "?project=a", b"", bad | right)
                self.assertIn(f"{name}: 'nonsense'", reply.json()["message"])
                site.answers["connect"] = error(exceptions.AUTH_ERROR)
                self.assertEqual(site.request(method, SHORT, b"", bad | wrong).status, 403)

    def test_bad_if_match(self) -> None:
        """Named, with the form expected."""
        for row in ROWS:
            if row.takes_if_match:
                for value in ("0", "xyz", "0x1", 'w/"1"', ""):
                    site = Site(dict(ANSWERS))
                    self.refused(
                        self.ask(row, site=site, If_Match=value), row, 400, "InvalidArgument", "If-Match"
                    )
                    self.assertEqual(site.calls, [])
                if row.asks in ("unlock", "endure"):
                    for value in ("*", "1,2"):
                        self.refused(self.ask(row, If_Match=value), row, 400, "InvalidArgument", "one ETag")

    def test_header_given_twice(self) -> None:
        """400 with its name, whatever the values."""
        for row in ROWS:
            if row.takes_if_match:
                site = Site(dict(ANSWERS))
                headers = [("If-Match", "1"), ("if-match", "1")]
                reply = site.request(row.method, SHORT + row.suffix, row.body, headers)
                self.refused(reply, row, 400, "InvalidArgument", "If-Match: the header is given 2 times")

    def test_body_limit(self) -> None:
        """413 once bucket and credentials are known to be right, 404 or 401 before."""
        for row in ROWS:
            if not row.body:
                continue
            limits = Limits(max_body=1)
            body = row.body + b" " * 10
            site = Site(dict(ANSWERS), limits=limits)
            self.refused(self.ask(row, site=site, body=body), row, 413, "InvalidArgument")
            self.assertEqual(site.calls, [])
            if not row.takes_json:
                locked = Site(dict(ANSWERS), limits=limits, authorizer=passthrough())
                self.refused(self.ask(row, site=locked, body=body), row, 401, "Unauthorized")

    def test_json_bodies(self) -> None:
        """Wrong types, unknown members, no object, no JSON."""
        for row in ROWS:
            if row.takes_json:
                for body, words in (
                    (b"[]", "not an object"),
                    (b'{"x":1}', "unknown member 'x'"),
                    (b"{", "not JSON"),
                ):
                    self.refused(self.ask(row, body=body), row, 400, "InvalidArgument", words)

    def test_durability(self) -> None:
        """Every mutation takes a level or numbers of copies, and names invalid ones."""
        for row in ROWS:
            if not row.is_durable:
                continue
            site = Site(dict(ANSWERS))
            self.assertEqual(self.ask(row, site=site, X_CB_DurabilityLevel="Majority").status, 200)
            self.assertEqual(site.calls[0][2]["durability_level"], 1)
            site = Site(dict(ANSWERS))
            self.assertEqual(self.ask(row, site=site, X_CB_PersistTo="1", X_CB_ReplicateTo="-1").status, 200)
            asked: dict[str, Any] = {}
            for _, _, keywords in site.calls:
                asked.update(keywords)
            self.assertEqual((asked["persist_to"], asked["replicate_to"]), (1, -1), row.asks)
            for name, value in (("DurabilityLevel", "majority"), ("PersistTo", "9"), ("ReplicateTo", "x")):
                reply = self.ask(row, **{f"X_CB_{name}": value})
                self.refused(reply, row, 400, "InvalidArgument", f"X-CB-{name}")

    def test_durable_write_that_times_out(self) -> None:
        """The write may have happened, which has a code of its own."""
        for row in ROWS:
            if row.is_durable:
                site = Site({**ANSWERS, row.asks: error(exceptions.ETIMEDOUT, ambiguous=True)})
                reply = self.ask(row, site=site, X_CB_DurabilityLevel="Majority")
                self.refused(reply, row, 408, "DurabilityAmbiguous")
                self.assertEqual(reply.json()["retry"], "ambiguous")

    def test_options_and_other_methods(self) -> None:
        """OPTIONS lists the methods, and any other method is refused with the same list."""
        for row in ROWS:
            options = self.ask(Row("OPTIONS", row.suffix, asks=""))
            self.assertEqual(options.status, 204)
            self.assertIn(row.method, (options.header("Allow") or "").split(", "))
            other = self.ask(Row("BREW", row.suffix, asks=""))
            self.assertEqual((other.status, other.header("Allow")), (405, options.header("Allow")))

    def test_every_document_route_is_in_the_contract(self) -> None:
        """A new operation gets its row here."""
        site = Site()
        node = Dispatcher(site.gateway.app).find(b"/v1/buckets/b/documents/k")
        assert node is not None
        there = {(method, "") for method in node[0].methods}
        for segment, below in node[0].literals.items():
            there |= {(method, "/" + segment.decode()) for method in below.methods}
        tested = {(row.method, row.suffix) for row in ROWS if row.method != "HEAD"} | {("GET", "/observe")}
        self.assertEqual(there, tested)


class GetTests(SynchronousTestCase):
    """Reading."""

    def test_headers(self) -> None:
        """The body as stored, and what is known about it."""
        reply = Site(dict(ANSWERS)).request("GET", SHORT)
        self.assertEqual(reply.body, b'{"a":1}')
        self.assertEqual(reply.header("ETag"), "00001234")
        self.assertEqual(reply.header("X-CB-Flags"), "33554432")
        self.assertEqual(reply.header("Content-Type"), "application/json")
        self.assertEqual(reply.header("Expires"), "Fri, 15 Jan 2027 08:00:00 GMT")

    def test_if_none_match(self) -> None:
        """304 for the version known, also quoted or weak or any; the document for another."""
        for value, status in (("1234", 304), ('W/"00001234", "x"', 304), ("*", 304), ("1235", 200)):
            reply = Site(dict(ANSWERS)).request("GET", SHORT, headers={"If-None-Match": value})
            self.assertEqual((reply.status, reply.header("ETag")), (status, "00001234"))
        reply = Site(dict(ANSWERS)).request("GET", SHORT, headers={"If-None-Match": "nonsense"})
        self.assertEqual(reply.status, 400)

    def test_replicas(self) -> None:
        """Any, or one by number; a number that the bucket has no replica for is refused."""
        for value, index in (("any", None), ("0", 0)):
            site = Site(dict(ANSWERS))
            reply = site.request("GET", f"{SHORT}?replica={value}")
            self.assertEqual(
                (reply.body, site.calls), (b'{"r":1}', [("rget", (b"k",), {"replica_index": index})])
            )
        for value, words in (("1", "has 1 replicas"), ("3", "not one of"), ("", "not one of")):
            reply = Site(dict(ANSWERS)).request("GET", f"{SHORT}?replica={value}")
            self.assertIn(words, reply.json()["message"])

    def test_projection(self) -> None:
        """Parts of it, as JSON whatever the flags."""
        site = Site({"get_with_expiry": Answer(b'{"a":1.0,"b":2}', flags=0)})
        reply = site.request("GET", SHORT + "?project=a,%60b%60")
        self.assertEqual((reply.body, reply.header("Content-Type")), (b'{"a":1.0,"b":2}', "application/json"))
        self.assertEqual(site.request("GET", SHORT + "?project=x").body, b"null")


class StoreTests(SynchronousTestCase):
    """Writing."""

    def stored(self, method: str, headers: dict[str, str], body: bytes = b"v") -> tuple[str, dict[str, Any]]:
        """Send a write, and return what was asked of the driver."""
        site = Site(dict(ANSWERS))
        reply = site.request(method, SHORT, body, headers)
        self.assertEqual(reply.status, 200, reply.body)
        self.assertEqual(reply.header("X-CB-MutationToken"), "b:7:0000beef:42")
        self.assertEqual((reply.header("ETag"), reply.body), ("00001234", b""))
        name, arguments, keywords = site.calls[0]
        self.assertEqual(arguments, (b"k", body))
        return name, keywords

    def test_if_match_makes_a_replace(self) -> None:
        """``*``: it must be there; a CAS: it must be that version; neither: it need not be there."""
        for value, expected in (("*", ("replace", 0)), ('"fF"', ("replace", 255)), (None, ("set", 0))):
            name, keywords = self.stored("PUT", {} if value is None else {"If-Match": value})
            self.assertEqual((name, keywords["cas"]), expected)

    def test_flags(self) -> None:
        """From the content type, in any case and with any parameters, unless they are given."""
        for headers, flags in (
            ({}, 0),
            ({"Content-Type": "application/json"}, 33554432),
            ({"Content-Type": "text/plain"}, 67108864),
            ({"Content-Type": "application/octet-stream"}, 50331648),
            ({"Content-Type": "application/json; charset=utf-8"}, 33554432),
            ({"Content-Type": "Application/JSON;a=b"}, 33554432),
            ({"Content-Type": "text/plain;charset=UTF-8"}, 67108864),
            ({"Content-Type": 'text/plain; charset="utf-8"'}, 67108864),
            # An SDK would read it as UTF-8.
            ({"Content-Type": "text/plain; charset=iso-8859-1"}, 0),
            ({"Content-Type": "application/octet-stream; x=1"}, 50331648),
            ({"Content-Type": "application/jsonp"}, 0),
            ({"Content-Type": "application/problem+json"}, 0),
            ({"Content-Type": "application/json; charset=utf-8", "X-CB-Flags": "5"}, 5),
            ({"Content-Type": "application/json", "X-CB-Flags": "5"}, 5),
        ):
            for method in ("PUT", "POST"):
                self.assertEqual(self.stored(method, headers)[1]["format"], flags)

    def test_expiry(self) -> None:
        """PUT without a header for it keeps the expiry; 0 clears it; the rest sets it."""
        for headers, ttl, preserve in (
            ({}, 0, True),
            ({"Expires": "0"}, 0, False),
            ({"Expires": ""}, 0, False),
            ({"Expires": "90s"}, 90, False),
            ({"X-CB-TTL": "1800000000"}, 1_800_000_000, False),
            ({"Expires": "Thu, 01 Jan 1970 00:00:01 GMT"}, RELATIVE_EXPIRY_MAX + 1, False),
        ):
            keywords = self.stored("PUT", headers)[1]
            self.assertEqual((keywords["ttl"], keywords["preserve_expiry"]), (ttl, preserve))
            self.assertEqual(self.stored("POST", headers)[1]["ttl"], ttl)

    def test_empty_body(self) -> None:
        """A document may be empty; an addition may not."""
        self.stored("PUT", {}, b"")
        self.stored("POST", {}, b"")
        reply = Site(dict(ANSWERS)).request("POST", SHORT + "/append")
        self.assertIn("expected the bytes to append", reply.json()["message"])

    def test_refused_headers(self) -> None:
        """Each is named."""
        for headers, words in (
            ({"Expires": "60"}, "Expires"),
            ({"X-CB-TTL": "1s"}, "X-CB-TTL"),
            ({"X-CB-TTL": "1", "Expires": "1s"}, "send one of them"),
            ({"X-CB-Flags": "-1"}, "X-CB-Flags"),
            ({"Content-Encoding": "snappy"}, "Content-Encoding"),
            ({"Content-Encoding": ""}, "Content-Encoding"),
            ({"Expires": "90\u00b5s"}, "ASCII"),
        ):
            reply = Site(dict(ANSWERS)).request("PUT", SHORT, b"v", headers)
            self.assertEqual(reply.status, 400)
            self.assertIn(words, reply.json()["message"])

    def test_any_value_is_stored_as_it_is(self) -> None:
        """Bytes are not inspected, whatever their content type."""
        self.stored("PUT", {"Content-Type": "application/json"}, b"\xff\x00 no JSON")


class CounterTests(SynchronousTestCase):
    """Counting."""

    def count(self, body: bytes = b"", **headers: str) -> tuple[Reply, Site]:
        site = Site(dict(ANSWERS))
        if body:
            headers.setdefault("Content_Type", "application/json")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return site.request("POST", SHORT + "/increment", body, named), site

    def test_answer(self) -> None:
        """The new number as JSON."""
        reply, site = self.count()
        self.assertEqual((reply.body, reply.header("Content-Type")), (b"7", "application/json"))
        expected = {"amount": 1, "initial": None, "ttl": 0}
        self.assertEqual(site.calls[0][2], expected)

    def test_body(self) -> None:
        """Delta and initial; an initial of 2**64-1 means: do not create."""
        json_type = {"Content_Type": "application/json; charset=utf-8"}
        for body, amount, initial in (
            ({"delta": 5, "initial": 0}, 5, 0),
            ({"initial": 2**64 - 1}, 1, None),
            ({"delta": 2**64 - 1}, 2**64 - 1, None),
        ):
            keywords = self.count(json.dumps(body).encode(), **json_type)[1].calls[0][2]
            self.assertEqual((keywords["amount"], keywords["initial"]), (amount, initial))
        for text in (
            '{"delta":-1}',
            '{"delta":1.5}',
            '{"delta":true}',
            '{"initial":"1"}',
            '{"delta":18446744073709551616}',
        ):
            reply = self.count(text.encode(), **json_type)[0]
            self.assertEqual(reply.status, 400)
            self.assertIn("from 0 to 18446744073709551615", reply.json()["message"])

    def test_content_type(self) -> None:
        """A body is declared as JSON, as in the Data API; not in another charset than UTF-8."""
        for declared in ("application/json", "Application/JSON; charset=utf-8"):
            reply, site = self.count(b'{"delta":7}', Content_Type=declared)
            self.assertEqual((reply.status, site.calls[0][2]["amount"]), (200, 7), declared)
        for declared in ("", "text/plain", "application/x-www-form-urlencoded", "application/x-json"):
            reply, site = self.count(b'{"delta":7}', Content_Type=declared)
            self.assertEqual((reply.status, site.calls), (400, []), declared)
            self.assertIn("Content-Type: application/json", reply.json()["message"])
        reply = self.count(b"{}", Content_Type="application/json; charset=utf-16")[0]
        self.assertEqual(reply.status, 400)
        self.assertIn("charset", reply.json()["message"])

    def test_json_without_a_body(self) -> None:
        """A body declared as JSON must not be empty; without a type the body may be missing."""
        for declared in ("application/json", "Application/Json; charset=utf-8"):
            reply = self.count(b"", Content_Type=declared)[0]
            self.assertEqual(reply.status, 400, declared)
            self.assertIn("no body", reply.json()["message"])
        self.assertEqual(self.count(b"", Content_Type="text/plain")[0].status, 200)

    def test_null_counts_as_missing(self) -> None:
        """As in the Data API."""
        keywords = self.count(b'{"delta":null,"initial":null}')[1].calls[0][2]
        self.assertEqual((keywords["amount"], keywords["initial"]), (1, None))

    def test_a_member_given_twice(self) -> None:
        """It is refused."""
        reply = self.count(b'{"delta":1,"delta":5}')[0]
        self.assertEqual(reply.status, 400)
        self.assertIn("'delta' is given twice", reply.json()["message"])

    def test_byte_order_mark(self) -> None:
        """It is ignored."""
        reply, site = self.count(b'\xef\xbb\xbf{"delta":7}')
        self.assertEqual((reply.status, site.calls[0][2]["amount"]), (200, 7))

    def test_longest_body(self) -> None:
        """A JSON body of few members is refused before it is parsed if it is absurdly long."""
        reply = self.count(b'{"delta":1' + b" " * 65536 + b"}")[0]
        self.assertEqual(reply.status, 413)
        self.assertIn("65536 bytes", reply.json()["message"])

    def test_expiry_needs_initial(self) -> None:
        """Because it counts only at creation; to ask for none is always possible."""
        for header in ({"Expires": "0"}, {"Expires": ""}, {"X_CB_TTL": "0"}):
            self.assertEqual(self.count(**header)[0].status, 200, header)
        self.assertIn("'initial'", self.count(Expires="60s")[0].json()["message"])
        reply, site = self.count(b'{"initial":1}', Expires="60s", Content_Type="application/json")
        self.assertEqual((reply.status, site.calls[0][2]["ttl"]), (200, 60))

    def test_copies(self) -> None:
        """The connection waits for the copies: it refuses, before it counts, what the cluster cannot do."""
        _, site = self.count(X_CB_PersistTo="1", X_CB_ReplicateTo="2")
        ((operation, _, options),) = site.calls
        self.assertEqual((operation, options["persist_to"], options["replicate_to"]), ("incr", 1, 2))


class LockTests(SynchronousTestCase):
    """Touch, lock, unlock."""

    def post(self, suffix: str, body: bytes = b"", **headers: str) -> tuple[Reply, list[Any]]:
        site = Site(dict(ANSWERS))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return site.request("POST", SHORT + suffix, body, named), site.calls

    def test_touch(self) -> None:
        """204 with the ETag; with returnContent the document; clearing takes two steps then."""
        reply, calls = self.post("/touch", b'{"expiry":"60s"}')
        self.assertEqual((reply.status, reply.header("ETag")), (204, "00000099"))
        self.assertEqual(calls, [("touch", (b"k",), {"ttl": 60})])
        reply, calls = self.post("/touch", b'{"expiry":"60s","returnContent":true}')
        self.assertEqual(
            (reply.status, reply.body, calls[0]), (200, b'{"a":1}', ("get", (b"k",), {"ttl": 60}))
        )
        self.assertIsNone(reply.header("Expires"))
        reply, calls = self.post("/touch", b'{"expiry":"","returnContent":true}')
        self.assertEqual((reply.body, [call[0] for call in calls]), (b'{"a":1}', ["touch", "get"]))

    def test_touch_by_ttl(self) -> None:
        """The header does, without a body; both are refused."""
        self.assertEqual(self.post("/touch", X_CB_TTL="30")[1], [("touch", (b"k",), {"ttl": 30})])
        self.assertIn("send one", self.post("/touch", b'{"expiry":"1s"}', X_CB_TTL="30")[0].json()["message"])

    def test_null_counts_as_missing(self) -> None:
        """As in the Data API: the default time of a lock, no content of a touch."""
        site = Site(dict(ANSWERS))
        self.assertEqual(site.request("POST", SHORT + "/lock", b'{"lockTime":null}').status, 200)
        self.assertEqual(site.calls[0][2]["ttl"], 15)
        site = Site(dict(ANSWERS))
        touched = site.request("POST", SHORT + "/touch", b'{"expiry":"60s","returnContent":null}')
        self.assertEqual(touched.status, 204, touched.body)
        site = Site(dict(ANSWERS))
        endured = site.request("POST", SHORT + "/endure", b'{"persistTo":null,"timeout":null}')
        self.assertEqual(endured.status, 204, endured.body)
        refused = Site(dict(ANSWERS)).request("POST", SHORT + "/touch", b'{"expiry":null}')
        self.assertEqual(refused.status, 400)

    def test_one_rule_for_bodies(self) -> None:
        """Any content type, a byte order mark; no member twice, and none in another charset."""
        for path, body in (("/lock", b"{}"), ("/touch", b'{"expiry":"60s"}'), ("/endure", b"{}")):
            for declared in (
                "text/plain",
                "application/x-www-form-urlencoded",
                "application/json; charset=UTF-8",
            ):
                headers = {"Content-Type": declared}
                reply = Site(dict(ANSWERS)).request("POST", SHORT + path, b"\xef\xbb\xbf" + body, headers)
                self.assertIn(reply.status, (200, 204), reply.body)
            reply = Site(dict(ANSWERS)).request("POST", SHORT + path, b'{"x":1,"x":2}')
            self.assertIn("twice", reply.json()["message"])
            reply = Site(dict(ANSWERS)).request(
                "POST", SHORT + path, body, {"Content-Type": "a/b; charset=utf-16"}
            )
            self.assertIn("charset", reply.json()["message"])

    def test_bad_touch(self) -> None:
        """Each member is named."""
        for body, words in (
            (b"{}", "expiry"),
            (b'{"expiry":60}', "expiry"),
            (b'{"expiry":"soon"}', "expiry"),
            (b'{"expiry":"1s","returnContent":1}', "returnContent"),
            (b"", "no body"),
        ):
            self.assertIn(words, self.post("/touch", body)[0].json()["message"])

    def test_lock(self) -> None:
        """The document, with the CAS that unlocks it; 15 s by default."""
        reply, calls = self.post("/lock", b"{}")
        self.assertEqual((reply.header("ETag"), reply.body), ("0000fedc", b'{"a":1}'))
        self.assertEqual(calls[0][2], {"ttl": 15})
        self.assertEqual(self.post("/lock", b'{"lockTime":20}')[1][0][2], {"ttl": 20})
        self.assertEqual(self.post("/lock", b'{"lockTime":0}')[1][0][2], {"ttl": 15})
        self.assertEqual(self.post("/lock", b"")[1][0][2], {"ttl": 15})
        for value in ("-1", "1.5", '"1"', "4294967296", "true"):
            self.assertIn(
                "lockTime", self.post("/lock", f'{{"lockTime":{value}}}'.encode())[0].json()["message"]
            )

    def test_unlock(self) -> None:
        """A token of zeros, and no ETag; the CAS is required."""
        reply, calls = self.post("/unlock", If_Match="fedc")
        self.assertEqual(calls, [("unlock", (b"k", 0xFEDC), {})])
        self.assertEqual((reply.status, reply.header("ETag")), (200, None))
        self.assertEqual(reply.header("X-CB-MutationToken"), "b:0:00000000:0")
        self.assertIn("If-Match is missing", self.post("/unlock")[0].json()["message"])


class CopiesTests(SynchronousTestCase):
    """Observe and endure."""

    def test_observe_of_the_active_copy_only(self) -> None:
        """``masterOnly`` is the driver's ``master_only``; it takes true or false."""
        for query, options in (
            ("?masterOnly=true", {"master_only": True}),
            ("?masterOnly=True", {"master_only": True}),
            ("?masterOnly=false", {}),
            ("", {}),
        ):
            site = Site({"observe": Answer([])})
            self.assertEqual(site.request("GET", SHORT + "/observe" + query).status, 200)
            self.assertEqual(site.calls[0][2], options)
        for wrong in ("1", "", "yes"):
            site = Site({"observe": Answer([])})
            reply = site.request("GET", SHORT + "/observe?masterOnly=" + wrong)
            self.assertEqual(reply.status, 400)
            self.assertIn("true or false", reply.json()["message"])
            self.assertEqual(site.calls, [])

    def test_negative_amounts(self) -> None:
        """A counter's amount is not negative; the answer names the request that is meant."""
        for request, meant in (("increment", "decrement subtracts it"), ("decrement", "increment adds it")):
            for delta in (-1, -5, -(2**64)):
                typed = {"Content-Type": "application/json"}
                reply = Site({}).request("POST", f"{SHORT}/{request}", b'{"delta":%d}' % delta, typed)
                self.assertEqual((reply.status, reply.json()["code"]), (400, "InvalidArgument"))
                self.assertIn(meant, reply.json()["message"])

    def test_observe(self) -> None:
        """The active copy first; a CAS only where there is one."""
        found = [
            SimpleNamespace(flags=0x80, from_master=0, cas=0),
            SimpleNamespace(flags=0x01, from_master=1, cas=0xAB),
        ]
        reply = Site({"observe": Answer(found)}).request("GET", SHORT + "/observe")
        self.assertEqual(
            reply.json(),
            {
                "key": "k",
                "copies": [
                    {"copy": "active", "state": "persisted", "cas": "000000ab"},
                    {"copy": "replica", "state": "notFound", "cas": None},
                ],
            },
        )

    def test_endure(self) -> None:
        """Numbers of copies, time and interval reach the driver in seconds."""
        site = Site(dict(ANSWERS))
        body = b'{"persistTo":1,"replicateTo":0,"checkRemoved":true,"timeout":"2s","interval":"20ms"}'
        reply = site.request("POST", SHORT + "/endure", body, {"If-Match": "99"})
        self.assertEqual((reply.status, reply.header("ETag")), (204, "00000099"))
        self.assertEqual(
            site.calls[0][2],
            {
                "persist_to": 1,
                "replicate_to": 0,
                "cas": 0x99,
                "check_removed": True,
                "timeout": 2.0,
                "interval": 0.02,
            },
        )

    def test_bad_endure(self) -> None:
        """Each member is named."""
        for body, words in (
            ('{"persistTo":5}', "persistTo"),
            ('{"replicateTo":"1"}', "replicateTo"),
            ('{"checkRemoved":1}', "checkRemoved"),
            ('{"timeout":5}', "timeout"),
            ('{"timeout":"1h"}', "timeout"),
            ('{"interval":"0s"}', "interval"),
        ):
            reply = Site(dict(ANSWERS)).request("POST", SHORT + "/endure", body.encode())
            self.assertIn(words, reply.json()["message"])

    def test_endure_in_vain(self) -> None:
        """A timeout of waiting is no doubt about a write."""
        reply = Site({"endure": error(exceptions.ETIMEDOUT)}).request("POST", SHORT + "/endure")
        self.assertEqual((reply.status, reply.json()["code"]), (504, "DeadlineExceeded"))


class BucketTests(SynchronousTestCase):
    """Buckets as a whole."""

    def test_caller_identity(self) -> None:
        """The user whom the cluster accepted."""
        site = Site(dict(ANSWERS), authorizer=passthrough())
        reply = site.request("GET", "/v1/callerIdentity", headers=basic("ann", "pw"))
        self.assertEqual(reply.json(), {"user": "ann"})
        self.assertEqual(site.connections[0].opened_with, (None, "ann", "pw"))

    def test_list(self) -> None:
        """Sorted by name, with the cluster's information about each."""
        listed = json.dumps(
            [{"name": "z"}, {"name": "a", "bucketType": "membase", "basicStats": {"itemCount": 3}}]
        ).encode()
        reply = Site({"management_request": (200, {}, listed)}).request("GET", "/v1/buckets")
        self.assertEqual([bucket["name"] for bucket in reply.json()["buckets"]], ["a", "z"])
        self.assertEqual(reply.json()["buckets"][0]["items"], 3)

    def test_list_refused(self) -> None:
        """Refusals of the management service are passed on with the gateway's codes."""
        for answer, status, code in (
            ((401, {}, b""), 403, "InvalidAuth"),
            ((403, {}, b""), 403, "NoReadAccess"),
            ((500, {}, b""), 500, "ServerError"),
            ((200, {}, b"{"), 500, "ServerError"),
        ):
            reply = Site({"management_request": answer}).request("GET", "/v1/buckets")
            self.assertEqual((reply.status, reply.json()["code"]), (status, code))

    def test_stats(self) -> None:
        """By name and node; a group may be asked for."""
        site = Site({"stats": MultiResult({"curr_items": {"n:1": 3}})})
        reply = site.request("GET", "/v1/buckets/b/stats?group=memory")
        self.assertEqual(reply.json(), {"stats": {"curr_items": {"n:1": 3}}})
        self.assertEqual(site.calls[0][1], (["memory"],))

    def test_stats_that_are_refused(self) -> None:
        """Unknown groups are named; of others the answer is that of the cluster's refusal."""
        for refused, expected in (
            ({"odd": 1, "old": 1}, (400, "InvalidArgument", "'odd', 'old'")),
            ({"secret": 0x24}, (403, "NoReadAccess", "")),
            ({"secret": 0x24, "odd": 1}, (400, "InvalidArgument", "'odd'")),
        ):
            result: MultiResult[dict[str, Any]] = MultiResult({"mem_used": {"n:1": 1}})
            result.refused = refused
            reply = Site({"stats": result}).request("GET", "/v1/buckets/b/stats?group=memory,odd")
            self.assertEqual((reply.status, reply.json()["code"]), expected[:2])
            self.assertIn(expected[2], reply.json()["message"])

    def test_stats_of_any_size(self) -> None:
        """A number that no machine word holds, as CouchbaseMock has one, is printed as it is."""
        site = Site({"stats": MultiResult({"mem_used": {"n:1": 10**20, "n:2": 2**64}})})
        reply = site.request("GET", "/v1/buckets/b/stats")
        self.assertEqual(reply.json(), {"stats": {"mem_used": {"n:1": 10**20, "n:2": 2**64}}})
        listed = b'[{"name":"b","basicStats":{"memUsed":100000000000000000000}}]'
        reply = Site({"management_request": (200, {}, listed)}).request("GET", "/v1/buckets")
        self.assertEqual(reply.json()["buckets"][0]["memoryBytes"], 10**20)

    def test_stats_of_several_groups(self) -> None:
        """Groups are separated by commas; blank means the general ones."""
        for query, asked in (
            ("?group=memory,timings", (["memory", "timings"],)),
            ("?group=", (None,)),
            ("", (None,)),
        ):
            site = Site({"stats": MultiResult()})
            self.assertEqual(site.request("GET", "/v1/buckets/b/stats" + query).status, 200)
            self.assertEqual(site.calls[0][1], asked)
        many = ",".join(f"g{number}" for number in range(17))
        for wrong in ("a,", ",", "a,,b", "a,a", many):
            site = Site({"stats": MultiResult()})
            reply = site.request("GET", "/v1/buckets/b/stats?group=" + wrong)
            self.assertEqual((reply.status, reply.json()["code"]), (400, "InvalidArgument"), wrong)
            self.assertIn("group", reply.json()["message"])
            self.assertEqual(site.calls, [])

    def test_health(self) -> None:
        """Alive is not the same as ready."""
        site = Site(ready="the node warms up")
        self.assertEqual(site.request("GET", "/health").status, 200)
        reply = site.request("GET", "/live")
        self.assertEqual((reply.status, reply.json()), (200, {"status": "alive"}))
        self.assertEqual(reply.header("cache-control"), "no-store")
        head = site.request("HEAD", "/live")
        self.assertEqual((head.status, head.body, head.header("content-length")), (200, b"", "18"))
        self.assertEqual(site.request("PUT", "/live").header("allow"), "GET, HEAD, OPTIONS")
        reply = site.request("GET", "/ready")
        self.assertEqual((reply.status, reply.json()["reason"]), (503, "the node warms up"))
        self.assertEqual(Site().request("GET", "/ready").json(), {"status": "ready"})
