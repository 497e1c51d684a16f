"""The Data API's interface from outside: requests over sockets, each with the answer that its clients expect.

``GROUPS`` is a table: what is stored before, one request, and the status, code and resource of its answer.
The second test sends every case of :mod:`tests.judges.dataapi`, made for a comparison with another gateway,
and holds each answer to what is true of all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any, NamedTuple

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers

from gateway.dialect.errors import PROBLEMS, public_code
from tests.gateway.test_behaviour import Answered, GatewayTestCase
from tests.judges.dataapi import CASES

PLACE = "buckets/default/scopes/_default/collections/_default"
V1, ALPHA = f"/v1/{PLACE}/documents/", f"/v1.alpha/{PLACE}/documents/"
RIGHT = "Basic QWRtaW5pc3RyYXRvcjpwYXNzd29yZA=="
JSON = {"Content-Type": "application/json"}
DOCUMENT = b'{"a":1,"list":[1,2],"o":{"p":null},"t":"x"}'
DEEP = b'{"a":' * 48 + b"1" + b"}" * 48
OPERATION = {"operation": "Get", "path": "a"}
CHANGE = {"operation": "DictSet", "path": "a", "value": 2}
IN_COLLECTION, IN_DOCUMENT, NOWHERE = f"/{PLACE}", f"/{PLACE}/documents/KEY", ""
ANY = None
NONE: dict[str, str] = {}


class Row(NamedTuple):
    """One request and its answer."""

    method: str
    what: str
    """Behind the document's path, or a path of its own."""
    body: bytes = b""
    headers: dict[str, str] = NONE
    before: bytes | None = DOCUMENT
    """The document before; ``None`` if there is none."""
    status: int = 200
    code: str = ""
    resource: str | None = ANY
    answer: Any = ANY
    """The body of a success, parsed if it is JSON."""
    shown: dict[str, Any] = NONE
    """Headers of the answer."""


def js(**members: Any) -> bytes:
    """Return a JSON body."""
    return json.dumps(members).encode()


def bad(method: str, what: str, body: bytes = b"", headers: dict[str, str] = NONE, **other: Any) -> Row:
    """Return a request that is 400 InvalidArgument."""
    return Row(method, what, body, headers, status=400, code="InvalidArgument", resource=NOWHERE, **other)


def missing(method: str, what: str, body: bytes = b"", headers: dict[str, str] = NONE) -> Row:
    """Return a request on a document that is not there."""
    return Row(method, what, body, headers, None, 404, "DocumentNotFound", IN_DOCUMENT)


def crud() -> Iterator[Row]:
    """Create, read, replace, remove."""
    yield Row(
        "GET",
        "",
        answer=json.loads(DOCUMENT),
        shown={"Content-Type": "application/json", "X-CB-Flags": "33554432"},
    )
    yield Row("POST", "", b"{}", JSON, None)
    yield Row("POST", "", b"", {}, None)
    yield Row("POST", "", b"{}", JSON, status=409, code="DocumentExists", resource=IN_DOCUMENT)
    yield Row("PUT", "", b"{}", JSON, None)
    yield Row("PUT", "", b"", {})
    yield Row("PUT", "", b"{}", {"If-Match": "*"})
    yield Row("PUT", "", b"{}", {"If-Match": "1"}, status=409, code="CasMismatch", resource=IN_DOCUMENT)
    yield Row("DELETE", "")
    yield Row("DELETE", "", b"", {"If-Match": "fF"}, status=409, code="CasMismatch", resource=IN_DOCUMENT)
    yield missing("GET", "")
    yield missing("DELETE", "")
    yield missing("PUT", "", b"1", {"If-Match": "*"})
    yield missing("PUT", "", b"1", {"If-Match": "12"})
    for tag in ("0", "", "x", "0x1", "w/1", "1" * 17, " "):
        for method in ("PUT", "DELETE"):
            yield bad(method, "", b"", {"If-Match": tag})
    for flags in ("", " ", "-1", "x", "1.5", "4294967296"):
        for method in ("PUT", "POST"):
            yield bad(method, "", b"1", {"X-CB-Flags": flags})
    for when in ("90", "1d", "soon", "2055-01-01T00:00:00Z", "Fri Jan  1 00:00:00 2055"):
        for method in ("PUT", "POST"):
            yield bad(method, "", b"1", {"Expires": when})
    for when in ("0", "", "90s", "1h30m", "Fri, 01 Jan 2055 00:00:00 GMT"):
        yield Row("PUT", "", b"1", {"Expires": when})
    for query in ("?x=1", "?project=", "?project=a&project=b", "?project=a..b"):
        yield bad("GET", query)
    yield Row("GET", "?project=a,list%5B1%5D", answer={"a": 1, "list": [2]})
    yield Row("GET", "?project=nothing", answer=None)
    yield Row("GET", "?project=a.b", status=400, code="PathMismatch", resource=IN_DOCUMENT + "/content/{a.b}")
    yield Row("GET", "?project=a", before=b"\x00", status=400, code="DocumentNotJson", resource=IN_DOCUMENT)


def encoding() -> Iterator[Row]:
    """Bodies and answers in other encodings."""
    for value in ("gzip", "Snappy", "", "identity, snappy", "snappy"):
        for method in ("PUT", "POST"):
            yield bad(method, "", b"1", {"Content-Encoding": value}, before=None)
    yield Row("PUT", "", b"\x07\x18" + b'{"a":1}', {"Content-Encoding": "snappy"})
    yield Row("PUT", "", b"1", {"Content-Encoding": "identity"})
    for value in ("snappy;x=1", "snappy;q=x", "snappy;q=1;q=1", ";", "snappy;q="):
        yield bad("GET", "", b"", {"Accept-Encoding": value})
        yield bad("POST", "touch", js(expiry="1h", returnContent=True), {"Accept-Encoding": value})
        yield missing("GET", "", b"", {"Accept-Encoding": value})
        yield Row("POST", "lookup", js(operations=[OPERATION]), {"Accept-Encoding": value})
    for value in ("", "identity", "snappy", "*", "gzip", "identity;q=0", ",", "br, zstd"):
        yield Row(
            "GET",
            "",
            b"",
            {"Accept-Encoding": value},
            answer=json.loads(DOCUMENT),
            shown={"Content-Encoding": None},
        )
    for value in ("snappy, identity;q=0", "identity;q=0, *", "*;q=0, snappy"):
        yield Row("GET", "", b"", {"Accept-Encoding": value}, shown={"Content-Encoding": "snappy"})


def durability() -> Iterator[Row]:
    """Levels."""
    for method, what, body in (
        *(("PUT", "", b"1"), ("DELETE", "", b""), ("POST", "append", b"x"), ("POST", "prepend", b"x")),
        ("POST", "mutate", js(operations=[CHANGE])),
    ):
        for level in ("None", "Majority"):
            yield Row(method, what, body, {"X-CB-DurabilityLevel": level})
        for level in ("majority", "", "1", "Everything"):
            yield bad(method, what, body, {"X-CB-DurabilityLevel": level})
        if method == "PUT":
            for level in ("PersistToMajority", "MajorityAndPersistOnMaster"):
                yield Row(
                    method, what, body, {"X-CB-DurabilityLevel": level},
                    status=400, code="DurabilityImpossible", resource="/buckets/default",
                )  # fmt: skip


def binary() -> Iterator[Row]:
    """Append and prepend."""
    for what in ("append", "prepend"):
        yield Row("POST", what, b"x")
        yield missing("POST", what, b"x")
        yield bad("POST", what)
        yield bad("POST", what, b"x", {"If-Match": "0"})
        yield Row("POST", what, b"x", {"If-Match": "1"}, status=409, code="CasMismatch", resource=IN_DOCUMENT)
        yield bad("POST", what, b"x", {"Expires": "1h"})


def counter() -> Iterator[Row]:
    """Increment and decrement."""
    for what, number in (("increment", 6), ("decrement", 4)):
        yield Row("POST", what, before=b"5", answer=number, shown={"Content-Type": "application/json"})
        yield Row("POST", what, js(delta=0), JSON, b"5", answer=5)
        yield Row("POST", what, js(initial=9), JSON, None, answer=9)
        yield Row("POST", what, js(initial=9), {**JSON, "Expires": "1h"}, None, answer=9)
        yield Row("POST", what, b"", {"Expires": "0"}, b"5", answer=number)
        yield missing("POST", what)
        yield Row("POST", what, status=400, code="DocumentNotNumeric", resource=IN_DOCUMENT)
        for body in (b"x", b"[]", js(delta=-1), js(delta=1.5), js(delta="1"), js(delta=2**64), js(x=1)):
            yield bad("POST", what, body, JSON, before=b"5")
        yield bad("POST", what, js(delta=1), {"Content-Type": "text/plain"}, before=b"5")
        yield bad("POST", what, b"", {"Expires": "1h"}, before=b"5")
        yield bad("POST", what, b"", {"Expires": "x"}, before=b"5")


def touch() -> Iterator[Row]:
    """Expiry."""
    for expiry in ("90s", "", "0", "2055-01-01T00:00:00Z", "Fri, 01 Jan 2055 00:00:00 GMT"):
        yield Row("POST", "touch", js(expiry=expiry), status=204)
        yield Row("POST", "touch", js(expiry=expiry, returnContent=True), answer=json.loads(DOCUMENT))
    yield missing("POST", "touch", js(expiry="1h"))
    for body in (
        b"",
        b"x",
        b"[]",
        b"{}",
        js(expiry=5),
        js(expiry="90"),
        js(expiry="1h", returnContent="yes"),
    ):
        yield bad("POST", "touch", body)


def locks() -> Iterator[Row]:
    """Lock and unlock."""
    for body in (b"{}", js(lockTime=5), js(lockTime=None), js(lockTime=0)):
        yield Row("POST", "lock", body, answer=json.loads(DOCUMENT))
    for body in (b"x", b"[]", js(lockTime=-1), js(lockTime="5"), js(lockTime=1.5)):
        yield bad("POST", "lock", body)
    yield missing("POST", "lock", b"{}")
    yield missing("POST", "unlock", b"", {"If-Match": "1"})
    yield bad("POST", "unlock")
    yield bad("POST", "unlock", b"", {"If-Match": "*"})
    yield Row(
        "POST", "unlock", b"", {"If-Match": "1"}, status=400, code="DocumentNotLocked", resource=IN_DOCUMENT
    )


def lookups() -> Iterator[Row]:
    """Lookup."""
    for operation, path, entry in (
        ("Get", "a", {"value": 1}),
        ("Get", "o.p", {"value": None}),
        ("Get", "list[-1]", {"value": 2}),
        ("Exists", "a", {"value": True}),
        ("Exists", "x", {"value": False}),
        ("GetCount", "list", {"value": 2}),
        ("GetCount", "o", {"value": 1}),
        ("GetCount", "", {"value": 4}),
        ("Get", "x", "PathNotFound"),
        ("Get", "list[9]", "PathNotFound"),
        ("Get", "a.b", "PathMismatch"),
        ("Exists", "a.b", "PathMismatch"),
        ("GetCount", "a", "PathMismatch"),
        ("Get", "a..b", "InvalidArgument"),
        ("Exists", "list[", "InvalidArgument"),
        ("Get", ".".join("x" * 32), "InvalidArgument"),
    ):
        body = js(operations=[{"operation": operation, "path": path}])
        yield Row("POST", "lookup", body, answer=[entry], shown={"Content-Type": "application/json"})
    yield Row("POST", "lookup", js(operations=[OPERATION] * 16), answer=[{"value": 1}] * 16)
    yield missing("POST", "lookup", js(operations=[OPERATION]))
    for before, code in (
        (b"no json", "DocumentNotJson"),
        (b"5", "DocumentNotJson"),
        (DEEP, "DocumentTooDeep"),
    ):
        path = ".".join("a" * 31) if before == DEEP else "a"
        body = js(operations=[{"operation": "Get", "path": path}])
        yield Row("POST", "lookup", body, {}, before, 400, code, IN_DOCUMENT)
    for body in bad_bodies(OPERATION):
        yield bad("POST", "lookup", body)
    for wrong in (
        *(
            {"operation": "get", "path": "a"},
            {"path": "a"},
            {"operation": "Get"},
            {"operation": "Get", "path": ""},
        ),
        *(
            {"operation": "Get", "path": 5},
            {"operation": 5, "path": "a"},
            {"operation": "Get", "path": "x" * 1025},
        ),
        *(CHANGE, {**OPERATION, "value": 1}, {"operation": "Exists", "path": ""}),
    ):
        yield bad("POST", "lookup", js(operations=[OPERATION, wrong]))


def bad_bodies(operation: dict[str, Any]) -> Iterator[bytes]:
    """Yield bodies that neither lookup nor mutate takes."""
    yield from (b"", b"x", b"[]", b"null", b"{}", b'"text"', js(operations=None), js(operations=[]))
    yield from (
        js(operations={}),
        js(operations="x"),
        js(operations=[1]),
        js(operations=[None]),
        js(operations=[{}]),
    )
    yield js(operations=[operation] * 17)
    yield js(operations=[operation])[:-1]


def mutations() -> Iterator[Row]:
    """Mutate."""
    for operation, path, value, entry in (
        ("DictAdd", "new", 1, None),
        ("DictSet", "a", {"x": [1]}, None),
        ("DictSet", "new", "text", None),
        ("Replace", "list[0]", True, None),
        ("ArrayPushLast", "list", 3, None),
        ("ArrayPushFirst", "list", 0, None),
        ("ArrayInsert", "list[1]", 9, None),
        ("ArrayInsert", "list[2]", 9, None),
        ("ArrayAddUnique", "list", 7, None),
        ("Counter", "a", 5, 6),
        ("Counter", "new", -5, -5),
    ):
        body = js(operations=[{"operation": operation, "path": path, "value": value}])
        yield Row(
            "POST", "mutate", body, answer=[{"value": entry}], shown={"Content-Type": "application/json"}
        )
    yield Row(
        "POST", "mutate", js(operations=[{"operation": "Delete", "path": "a"}]), answer=[{"value": None}]
    )
    yield Row("POST", "mutate", js(operations=[CHANGE] * 16), answer=[{"value": None}] * 16)
    for operation, path, status, code in (
        ("DictAdd", "a", 409, "PathExists"),
        ("ArrayAddUnique", "list", 409, "PathExists"),
        ("Replace", "x", 400, "PathNotFound"),
        ("Delete", "x", 400, "PathNotFound"),
        ("DictSet", "x.y", 400, "PathNotFound"),
        ("ArrayPushLast", "x", 400, "PathNotFound"),
        ("ArrayInsert", "list[9]", 400, "PathNotFound"),
        ("DictSet", "a.b", 400, "PathMismatch"),
        ("ArrayPushLast", "o", 400, "PathMismatch"),
        ("Counter", "t", 400, "PathMismatch"),
    ):
        change: dict[str, Any] = {"operation": operation, "path": path}
        if operation != "Delete":
            change["value"] = 1
        resource = IN_DOCUMENT + "/content/{" + path + "}"
        yield Row("POST", "mutate", js(operations=[CHANGE, change]), {}, DOCUMENT, status, code, resource)
    for semantic in ("Upsert", "Insert"):
        body = js(operations=[{"operation": "DictSet", "path": "x.y", "value": 1}], storeSemantic=semantic)
        yield Row("POST", "mutate", body, before=None, answer=[{"value": None}])
    yield Row("POST", "mutate", js(operations=[CHANGE], storeSemantic="Upsert"))
    yield missing("POST", "mutate", js(operations=[CHANGE]))
    yield missing("POST", "mutate", js(operations=[CHANGE], storeSemantic="Replace"))
    body = js(operations=[CHANGE], storeSemantic="Insert")
    yield Row("POST", "mutate", body, {}, DOCUMENT, 409, "DocumentExists", IN_DOCUMENT)
    yield Row("POST", "mutate", js(operations=[CHANGE]), {}, b"no json", 400, "DocumentNotJson", IN_DOCUMENT)
    for semantic in ("upsert", "", "Everything", 5):
        yield bad("POST", "mutate", js(operations=[CHANGE], storeSemantic=semantic))
    for operation in ("Delete", "Replace", "ArrayInsert"):
        change = {
            "operation": operation,
            "path": "list[0]",
            **({} if operation == "Delete" else {"value": 1}),
        }
        for before in (DOCUMENT, None):
            yield bad("POST", "mutate", js(operations=[change], storeSemantic="Upsert"), before=before)
    for body in bad_bodies(CHANGE):
        yield bad("POST", "mutate", body)
    for wrong in (
        *({"operation": "dictset", "path": "a", "value": 1}, {"path": "a", "value": 1}, OPERATION),
        *(
            {"operation": "DictSet", "path": "a"},
            {"operation": "DictSet", "value": 1},
            {**CHANGE, "value": None},
        ),
        *({**CHANGE, "path": ""}, {**CHANGE, "path": 5}, {"operation": "Delete", "path": "a", "value": 1}),
        *({"operation": "Delete", "path": ""}, {**CHANGE, "path": "a..b"}, {**CHANGE, "path": "x" * 1025}),
        *({**CHANGE, "path": ".".join("x" * 32)}, {"operation": "Counter", "path": "a", "value": 0}),
        *(
            {"operation": "Counter", "path": "a", "value": 1.5},
            {"operation": "Counter", "path": "a", "value": 2**63},
        ),
        {"operation": "ArrayAddUnique", "path": "list", "value": [1]},
    ):
        yield bad("POST", "mutate", js(operations=[CHANGE, wrong]))
    for when in ("90", "soon"):
        yield bad("POST", "mutate", js(operations=[CHANGE]), {"Expires": when})


def auth() -> Iterator[Row]:
    """Credentials; the body's syntax comes before them."""
    for method, what, body in (
        *(("GET", "", b""), ("PUT", "", b"1"), ("POST", "lookup", js(operations=[OPERATION]))),
        *(("POST", "mutate", js(operations=[CHANGE])), ("GET", "/v1/callerIdentity", b"")),
    ):
        for value in ("Bearer x", "Basic", "Basic ?", "Basic YWJj", "Digest x"):
            yield bad(method, what, body, {"Authorization": value})
        wrong = {"Authorization": "Basic QWRtaW5pc3RyYXRvcjp3cm9uZw=="}
        yield Row(method, what, body, wrong, status=403, code="InvalidAuth", resource=NOWHERE)
        for value in ("Basic Og==", "Basic QWRtaW5pc3RyYXRvcjo="):
            yield Row(
                method,
                what,
                body,
                {"Authorization": value},
                status=401,
                code="Unauthorized",
                resource=NOWHERE,
            )
        yield Row(method, what, body, {"Authorization": RIGHT.replace("Basic", "bAsIc")})
    for what in ("touch", "lock", "lookup", "mutate"):
        yield bad("POST", what, b"x", {"Authorization": "Basic Og=="})
    yield Row("GET", "/v1.alpha/enabled", headers={"Authorization": "Basic Og=="})


def errors() -> Iterator[Row]:
    """What does not exist."""
    for method in ("PATCH", "BREW"):
        yield Row(method, "", status=405, code="MethodNotAllowed")
        yield Row(method, "lookup", status=405, code="MethodNotAllowed")
    yield Row("GET", "lookup", status=405, code="MethodNotAllowed")
    yield Row("PUT", "mutate", status=405, code="MethodNotAllowed")
    for path in ("//", "/v2", "/v1/nothing", f"/v1/{PLACE}/documents/", f"/v1/{PLACE}/documents/a/b/c"):
        yield Row("GET", path, status=404, code="RouteNotFound")
    for what, method, body in (
        *(("", "GET", b""), ("", "PUT", b"1"), ("append", "POST", b"x"), ("increment", "POST", b"")),
        *(("touch", "POST", js(expiry="1h")), ("lock", "POST", b"{}"), ("unlock", "POST", b"")),
        *(("lookup", "POST", js(operations=[OPERATION])), ("mutate", "POST", js(operations=[CHANGE]))),
    ):
        headers = {"If-Match": "1"} if what == "unlock" else {}
        behind = f"/documents/k/{what}".rstrip("/")
        for place, code, resource in (
            ("nothing/scopes/_default/collections/_default", "BucketNotFound", "/buckets/nothing"),
            (
                "default/scopes/nothing/collections/_default",
                "ScopeNotFound",
                "/buckets/default/scopes/nothing",
            ),
            (
                "default/scopes/_default/collections/nothing",
                "CollectionNotFound",
                "/buckets/default/scopes/_default/collections/nothing",
            ),
        ):
            for version in ("v1", "v1.alpha"):
                path = f"/{version}/buckets/{place}{behind}"
                yield Row(method, path, body, headers, status=404, code=code, resource=resource)
        if what != "unlock":
            yield bad(method, f"/v1/{PLACE}/documents/{'k' * 251}/{what}".rstrip("/"), body)


def cors() -> Iterator[Row]:
    """Pages of other origins."""
    origin = {"Origin": "https://example.com"}
    allowed = {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Origin",
    }
    yield Row("GET", "", b"", origin, shown=allowed)
    yield Row("PUT", "", b"1", {**JSON, **origin}, shown=allowed)
    yield missing("GET", "", b"", origin)._replace(shown=allowed)
    yield bad("POST", "lookup", b"x", {**JSON, **origin}, shown=allowed)
    yield Row("GET", "", shown={"Access-Control-Allow-Origin": None, "Vary": "Origin"})
    for method, names, is_allowed in (
        *(("GET", "", True), ("PUT", "content-type", True), ("DELETE", "if-match", True)),
        *(
            ("POST", "authorization, x-cb-durabilitylevel", True),
            ("PATCH", "", False),
            ("GET", "x-other", False),
        ),
    ):
        asked = {**origin, "Access-Control-Request-Method": method}
        if names:
            asked["Access-Control-Request-Headers"] = names
        yield Row(
            "OPTIONS", f"/v1/{PLACE}/documents/k", b"", {**asked, "Authorization": "Basic Og=="}, status=204,
            shown={"Access-Control-Allow-Origin": "*" if is_allowed else None},
        )  # fmt: skip


GROUPS = (cors, crud, encoding, durability, binary, counter, touch, locks, lookups, mutations, auth, errors)


class DataApiTests(GatewayTestCase):
    """A gateway with callers' credentials, and its node."""

    def setUp(self) -> Any:
        path = self.mktemp()
        with open(path, "w", encoding="ascii") as file:
            file.write("password\n")
        self.options = {
            "ephemeral": True, "auth": "passthrough", "user": "Administrator", "password-file": path,
        }  # fmt: skip
        return super().setUp()

    @inlineCallbacks
    def send(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Any:
        """Send a request by a client that adds nothing."""
        content = FileBodyProducer(BytesIO(body)) if body else None
        response = yield Agent(reactor, pool=self.http).request(
            method.encode(),
            (self.url + path).encode(),
            Headers({n: [v] for n, v in headers.items()}),
            content,
        )
        received = yield readBody(response)
        return Answered(response, received)

    def check_error(self, answer: Answered, where: Any) -> None:
        """An error has the schema of the Data API, and a code that goes with its status."""
        self.assertEqual(answer.header("Content-Type"), "application/json", where)
        told = answer.json()
        self.assertLessEqual({"code", "message", "resource", "requestId", "retry"}, told.keys(), where)
        self.assertLessEqual(
            told.keys(), {"code", "message", "resource", "requestId", "retry", "rc", "exception"}
        )
        self.assertTrue(
            all(isinstance(told[name], str) for name in ("code", "message", "resource", "requestId"))
        )
        self.assertTrue(told["message"] and told["requestId"], where)
        known = [(p.status, public_code(p)) for p in PROBLEMS.values()]
        self.assertIn((answer.status, told["code"]), known, where)
        self.assertNotEqual(told["code"], "Internal", where)
        self.assertEqual(answer.header("WWW-Authenticate") is not None, answer.status == 401, where)

    @inlineCallbacks
    def test_rows(self) -> Any:
        """Every row of the table."""
        seen = 0
        for group in GROUPS:
            for number, row in enumerate(group()):
                where = (group.__name__, number, row)
                key = f"{group.__name__}-{number}"
                path = row.what
                if not path.startswith("/"):
                    base = ALPHA if path in ("lock", "unlock", "lookup", "mutate") else V1
                    path = base + key + (path if path[:1] in ("", "?") else "/" + path)
                    if row.before is not None:
                        kind = {} if row.before in (b"no json", b"\x00") else JSON
                        stored = yield self.send(
                            "PUT", V1 + key, {"Authorization": RIGHT, **kind}, row.before
                        )
                        self.assertEqual(stored.status, 200, where)
                headers = {"Authorization": RIGHT, **row.headers}
                answer = yield self.send(row.method, path, headers, row.body)
                self.assertEqual(answer.status, row.status, (where, answer.body))
                if row.status >= 400:
                    self.check_error(answer, where)
                    self.assertEqual(answer.json()["code"], row.code, where)
                    if row.resource is not ANY:
                        self.assertEqual(answer.json()["resource"], row.resource.replace("KEY", key), where)
                elif row.answer is not ANY:
                    found = answer.json()
                    if row.what == "lookup":
                        found = [entry.get("error", {}).get("error") or entry for entry in found]
                        for entry in answer.json():
                            self.assertEqual(len(entry), 1, where)
                            if "error" in entry:
                                self.assertEqual(set(entry["error"]), {"error", "message"}, where)
                    self.assertEqual(found, row.answer, where)
                self.check_headers(row, answer, where)
                seen += 1
        self.assertGreater(seen, 450)

    def check_headers(self, row: Row, answer: Answered, where: Any) -> None:
        """A success has the headers that its operation promises."""
        for name, value in row.shown.items():
            self.assertEqual(answer.header(name), value, where)
        if answer.status >= 400 or row.what.startswith("/"):
            return
        has_token = row.what in ("append", "prepend", "increment", "decrement", "mutate", "unlock") or (
            row.method in ("PUT", "POST", "DELETE") and not row.what
        )
        self.assertEqual(answer.header("X-CB-MutationToken") is not None, has_token, where)
        self.assertRegex(answer.header("ETag") or "", "^[0-9a-f]{8,16}$", str(where))

    @inlineCallbacks
    def test_every_case(self) -> Any:
        """Whatever is asked, an answer is a success of its kind or an error of the schema; never a bug."""
        for number, (name, steps) in enumerate(CASES.items()):
            tag = "0"
            for method, where, given, body, user in steps:
                path = where.replace("D/", V1).replace("A/", ALPHA).replace("/K", f"/case-{number}")
                headers = {header: tag if value == "@" else value for header, value in given.items()}
                if user == "Administrator:password":
                    headers.setdefault("Authorization", RIGHT)
                if not method.isalpha() or "" in (method, path):
                    continue
                answer = yield self.send(method, path, headers, body)
                tag = answer.header("ETag") or tag
                if answer.status >= 400 and method != "HEAD":
                    self.check_error(answer, (name, method, path, headers, body))
                else:
                    self.assertIn(answer.status, (200, 201, 204, 304, *range(400, 500)), name)
        self.assertGreater(len(CASES), 1000)
