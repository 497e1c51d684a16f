"""Requests in the dialect of Couchbase's Data API, to ask two gateways the same.

A case is a list of steps. In a step's path ``D`` is the collection's documents, ``A`` the same under the
version of unfinished endpoints, and ``K`` a key that no other case uses. ``@`` as a header's value is the
ETag of the step before.
"""

from __future__ import annotations

import itertools
import json
from typing import NamedTuple

JSON = {"Content-Type": "application/json"}
NOTHING: dict[str, str] = {}


class Step(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: dict[str, str] = NOTHING
    body: bytes | None = None
    user: str | None = "Administrator:password"


def put(body: bytes = b'{"a":1}', headers: dict[str, str] = JSON, method: str = "PUT") -> Step:
    """Return the step that stores the document."""
    return Step(method, "D/K", headers, body)


def post(what: str, body: object = None, headers: dict[str, str] = JSON, base: str = "A") -> Step:
    """Return a step ``POST .../K/what``; a body that is not bytes is sent as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    return Step("POST", f"{base}/K/{what}", headers, data)


def get(query: str = "", headers: dict[str, str] = NOTHING) -> Step:
    """Return the step that reads the document."""
    return Step("GET", f"D/K{query}", headers)


Case = list[Step]
CASES: dict[str, Case] = {}


def _add(name: str, *steps: Step) -> None:
    if name in CASES:
        raise ValueError(f"two cases are called {name!r}")
    CASES[name] = list(steps)


def _documents() -> None:
    for method in ("PUT", "POST"):
        for text in (
            "application/json",
            "text/plain",
            "application/octet-stream",
            "image/png",
            "application/json; charset=utf-8",
            "",
        ):
            _add(f"{method} as {text}", put(b'{"x":1}', {"Content-Type": text}, method), get())
        for flags in (
            "0",
            "1",
            "33554432",
            "4294967295",
            "4294967296",
            "-1",
            "x",
            "",
            " ",
            "1.5",
            "0x10",
            "+1",
            "01",
        ):
            _add(f"{method} with flags {flags!r}", put(b"1", {**JSON, "X-CB-Flags": flags}, method), get())
        for when in (
            "0",
            "",
            "90s",
            "1h30m",
            "720h0m0s",
            "0s",
            "-5s",
            "90",
            "1d",
            "1.5h",
            "1ms",
            "Fri, 01 Jan 2055 00:00:00 GMT",
            "Fri, 01 Jan 2055 00:00:00 UTC",
            "Fri, 01 Jan 2055 00:00:00 +0000",
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "2055-01-01T00:00:00Z",
            "Friday, 01-Jan-55 00:00:00 GMT",
            "Fri Jan  1 00:00:00 2055",
            "soon",
            "1 h",
            "1h ",
            "h",
        ):
            _add(f"{method} that expires {when!r}", put(b"1", {**JSON, "Expires": when}, method), get())
        for level in (
            "None",
            "Majority",
            "MajorityAndPersistOnMaster",
            "PersistToMajority",
            "majority",
            "",
            "Nothing",
        ):
            _add(
                f"{method} with durability {level!r}",
                put(b"1", {**JSON, "X-CB-DurabilityLevel": level}, method),
            )
        for how in ("identity", "snappy", "Snappy", "gzip", "", "identity, snappy"):
            _add(
                f"{method} encoded as {how!r}",
                put(b'{"a":1}', {**JSON, "Content-Encoding": how}, method),
                get(),
            )
        _add(
            f"{method} of a snappy block",
            put(b"\x07\x18" + b'{"a":1}', {**JSON, "Content-Encoding": "snappy"}, method),
            get(),
        )
        for body in (b"", b"no json", b"\xff\x00", b'"text"', b"x" * 70000):
            _add(f"{method} of {body[:10]!r} {len(body)}", put(body, NOTHING, method), get())
        _add(f"{method} of 20 MiB and a byte", put(b"x" * (20 * 2**20 + 1), NOTHING, method))
    _add("POST of a document that exists", put(), put(b"2", JSON, "POST"), get())
    _add("GET of a missing document", get())
    _add("DELETE of a missing document", Step("DELETE", "D/K"))
    _add("DELETE", put(), Step("DELETE", "D/K"), get())
    for tag in (
        "@",
        "1",
        "*",
        "",
        "0",
        '"1"',
        "x",
        "0x12",
        "12345678901234567",
        "FFFFFFFFFFFFFFFF",
        "1,2",
        " 1",
        'W/"1"',
    ):
        for method in ("PUT", "DELETE"):
            _add(f"{method} if {tag!r}", put(), Step(method, "D/K", {**JSON, "If-Match": tag}, b"2"), get())
            _add(
                f"{method} of a missing document if {tag!r}",
                Step(method, "D/K", {**JSON, "If-Match": tag}, b"2"),
            )
    _add("PUT keeps the expiry", put(headers={**JSON, "Expires": "1h"}), put(b"2"), get())
    _add(
        "PUT clears the expiry",
        put(headers={**JSON, "Expires": "1h"}),
        put(b"2", {**JSON, "Expires": "0"}),
        get(),
    )
    _add(
        "replace keeps the expiry",
        put(headers={**JSON, "Expires": "1h"}),
        put(b"2", {**JSON, "If-Match": "*"}),
        get(),
    )
    for length in (250, 251, 300):
        key = "k" * length
        _add(f"GET of a key of {length} bytes", Step("GET", f"D/{key}"))
        _add(f"PUT of a key of {length} bytes", Step("PUT", f"D/{key}", JSON, b"1"))
    for key in ("%20", "a%20b", "%C3%A9", "a.b", "a:b", "a@b", "$a", "%3F", "a;b"):
        _add(f"key {key!r}", Step("PUT", f"D/{key}", JSON, b"1"), Step("GET", f"D/{key}"))


def _projections() -> None:
    document = json.dumps(
        {"a": 1, "b": {"c": [1, 2, {"d": 3}], "e": None}, "f": [[1], [2]], "g.h": 1, "": 0}
    ).encode()
    for query in (
        "a",
        "b.c",
        "b.c[2].d",
        "b.c[0]",
        "b.c[-1]",
        "f[1][0]",
        "missing",
        "a,b.e",
        "a,missing",
        "a,",
        "",
        "a,a",
        "a.x",
        "b..c",
        "[0]",
        "a[0]",
        "b.c[9]",
        "b.c[x]",
        "%60g.h%60",
        "a,b,f",
        "b,b.c",
        ".",
        "b.",
        "b.c[",
        "b.c]",
        "b.c[1",
        ",".join(f"m{n}" for n in range(13)) + ",a",
        ",".join(f"m{n}" for n in range(17)),
        "e" * 1100,
    ):
        _add(f"project {query[:40]!r} {len(query)}", put(document), get(f"?project={query}"))
    _add("project twice", put(), get("?project=a&project=b"))
    _add("project of text", put(b"no json", NOTHING), get("?project=a"))
    _add("project of a missing document", get("?project=a"))
    _add("unknown parameter", put(), get("?projekt=a"))


def _encodings() -> None:
    text = b'{"a":"' + b"compressible " * 100 + b'"}'
    for accept in (
        "",
        "identity",
        "snappy",
        "*",
        "gzip",
        "identity;q=0",
        "identity;q=0, snappy",
        "snappy;q=0.5, identity;q=0.4",
        "*;q=0, snappy",
        "snappy;q=0",
        "identity;q=0, *",
        "snappy;x=1",
        "snappy;q=x",
        "snappy;q=1;q=1",
        ";",
        ",",
        "snappy;q=",
        "snappy; q=0.5",
        "identity;q=0,snappy;q=0",
        "IDENTITY;q=0, SNAPPY",
        "snappy;q=2",
        "snappy;q=-1",
        "gzip;q=1.0, identity; q=0.5, *;q=0",
        "br",
        "snappy,identity;q=0",
    ):
        _add(f"accept {accept!r}", put(text), get("", {"Accept-Encoding": accept}))
        _add(
            f"touch and accept {accept!r}",
            put(text),
            post("touch", {"expiry": "1h", "returnContent": True}, {**JSON, "Accept-Encoding": accept}, "D"),
        )
        _add(f"lock and accept {accept!r}", put(text), post("lock", {}, {**JSON, "Accept-Encoding": accept}))
    _add("accept on a missing document", get("", {"Accept-Encoding": "snappy;q=x"}))


def _additions() -> None:
    for what in ("append", "prepend"):
        _add(what, put(b"mid"), post(what, b"x", NOTHING, "D"), get())
        _add(f"{what} nothing", put(b"mid"), post(what, b"", NOTHING, "D"))
        _add(f"{what} to a missing document", post(what, b"x", NOTHING, "D"))
        _add(
            f"{what} keeps expiry and flags",
            put(b"1", {"X-CB-Flags": "7", "Expires": "1h"}),
            post(what, b"1", NOTHING, "D"),
            get(),
        )
        for tag in ("@", "1", "*", "", "x", "0"):
            _add(f"{what} if {tag!r}", put(b"mid"), post(what, b"x", {"If-Match": tag}, "D"), get())
        for level in ("None", "Majority", "x", ""):
            _add(
                f"{what} with durability {level!r}",
                put(b"mid"),
                post(what, b"x", {"X-CB-DurabilityLevel": level}, "D"),
            )
        _add(f"{what} encoded", put(b"mid"), post(what, b"x", {"Content-Encoding": "gzip"}, "D"), get())


def _counters() -> None:
    bodies: list[object] = [
        None,
        {},
        {"delta": 5},
        {"initial": 10},
        {"delta": 5, "initial": 10},
        {"delta": 0},
        {"delta": -1},
        {"delta": 1.5},
        {"delta": "1"},
        {"delta": None},
        {"initial": None},
        {"initial": -1},
        {"initial": 2**64 - 1},
        {"initial": 2**64},
        {"delta": 2**64 - 1},
        {"delta": 2**64},
        b"",
        b"x",
        b"[]",
        b"null",
        b"1",
        {"other": 1},
        b'{"delta":1} x',
        b'{"delta":1,"delta":2}',
        b'{"Delta":3}',
    ]
    for what in ("increment", "decrement"):
        for body in bodies:
            _add(f"{what} by {body!r}", put(b"100"), post(what, body, JSON, "D"), get())
            _add(f"{what} of a missing document by {body!r}", post(what, body, JSON, "D"), get())
        _add(f"{what} without a type", put(b"100"), post(what, {"delta": 2}, NOTHING, "D"))
        for text in (
            "text/plain",
            "application/json; charset=utf-8",
            "application/jsonx",
            "application/x-json",
            "APPLICATION/JSON",
        ):
            _add(f"{what} as {text}", put(b"100"), post(what, {"delta": 2}, {"Content-Type": text}, "D"))
        for value in (
            b"x",
            b'"1"',
            b"1.5",
            b"-1",
            b"",
            b"18446744073709551615",
            b"18446744073709551616",
            b" 5",
            b"{}",
        ):
            _add(f"{what} of {value!r}", put(value), post(what, {"delta": 2}, JSON, "D"), get())
        for when in ("0", "", "1h", "x"):
            for initial in ({}, {"initial": 5}):
                _add(
                    f"{what} {initial} that expires {when!r}",
                    post(what, {**initial}, {**JSON, "Expires": when}, "D"),
                    get(),
                )
        for level in ("Majority", "x"):
            _add(
                f"{what} with durability {level}",
                put(b"1"),
                post(what, {}, {**JSON, "X-CB-DurabilityLevel": level}, "D"),
            )


def _touches() -> None:
    expiries: list[object] = [
        "1h",
        "",
        "0",
        "0s",
        "x",
        5,
        None,
        "Fri, 01 Jan 2055 00:00:00 GMT",
        "2055-01-01T00:00:00Z",
        "2055-01-01",
        "90",
        "-1s",
    ]
    for when in expiries:
        for content in (True, False):
            _add(
                f"touch {when!r} {content}",
                put(),
                post("touch", {"expiry": when, "returnContent": content}, JSON, "D"),
                get(),
            )
    bodies: list[object] = [
        None,
        b"",
        b"x",
        {},
        [],
        {"returnContent": True},
        {"expiry": "1h", "returnContent": "yes"},
        {"expiry": "1h", "other": 1},
        b"null",
        b"1",
    ]
    for body in bodies:
        _add(f"touch with {body!r}", put(), post("touch", body, JSON, "D"))
    _add("touch of a missing document", post("touch", {"expiry": "1h"}, JSON, "D"))
    _add("touch as text", put(), post("touch", {"expiry": "1h"}, {"Content-Type": "text/plain"}, "D"))


def _locks() -> None:
    bodies: list[object] = [
        {},
        {"lockTime": 5},
        {"lockTime": 0},
        {"lockTime": None},
        {"lockTime": -1},
        {"lockTime": "5"},
        {"lockTime": 1.5},
        {"lockTime": 10**6},
        {"lockTime": 2**32},
        None,
        b"",
        b"x",
        b"[]",
        b"null",
        {"other": 1},
    ]
    for body in bodies:
        _add(
            f"lock with {body!r}",
            put(),
            post("lock", body),
            put(b"2"),
            post("unlock", None, {"If-Match": "1"}),
        )
    _add("lock and unlock", put(), post("lock", {}), post("unlock", None, {"If-Match": "@"}), put(b"2"))
    _add(
        "lock twice",
        put(),
        post("lock", {}),
        post("lock", {}),
        Step("DELETE", "D/K"),
        put(b"1", JSON, "POST"),
        post("touch", {"expiry": "1h"}, JSON, "D"),
        post("append", b"x", NOTHING, "D"),
        post("mutate", {"operations": [{"operation": "DictSet", "path": "a", "value": 1}]}),
        get(),
    )
    _add("lock of a missing document", post("lock", {}))
    _add("unlock of a missing document", post("unlock", None, {"If-Match": "1"}))
    _add("store with the lock's tag", put(), post("lock", {}), put(b"2", {**JSON, "If-Match": "@"}), get())
    for tag in ("1", "x", "*", "0", ""):
        _add(f"unlock if {tag!r}", put(), post("unlock", None, {"If-Match": tag}))


def _lookups() -> None:
    document = json.dumps(
        {"a": 1, "n": None, "list": [1, 2, [3]], "o": {"p": {"q": "<&>"}}, "t": "x", "e": []}
    ).encode()
    paths = [
        "a",
        "n",
        "list",
        "list[0]",
        "list[-1]",
        "list[2][0]",
        "list[9]",
        "list.[0]",
        "o.p.q",
        "missing",
        "a.b",
        "o..p",
        "t",
        "e",
        "",
        "[0]",
        "o[0]",
        "`a`",
        "x" * 1024,
        "x" * 1025,
        ".".join("x" * 31),
        ".".join("x" * 32),
        "$document",
        "_x",
        "list[01]",
        "list[",
        "a\\b",
    ]
    for operation, path in itertools.product(("Get", "Exists", "GetCount"), paths):
        _add(
            f"lookup {operation} {path[:20]!r} {len(path)}",
            put(document),
            post("lookup", {"operations": [{"operation": operation, "path": path}]}),
        )
    one = {"operation": "Get", "path": "a"}
    bodies: list[object] = [
        None,
        b"",
        b"x",
        {},
        [],
        {"operations": []},
        {"operations": None},
        {"operations": {}},
        {"operations": [{}]},
        {"operations": [{"operation": "get", "path": "a"}]},
        {"operations": [{"path": "a"}]},
        {"operations": [{"operation": "Get"}]},
        {"operations": [{"operation": "Get", "path": 5}]},
        {"operations": [{"operation": "Get", "path": None}]},
        {"operations": ["Get"]},
        {"operations": [one] * 16},
        {"operations": [one] * 17},
        {"operations": [one, {"operation": "Get", "path": "missing"}, {"operation": "Exists", "path": "a"}]},
        {"operations": [one], "other": 1},
        {"operations": [{**one, "value": 1}]},
        {"operations": [{"operation": "DictSet", "path": "a", "value": 1}]},
        b"null",
    ]
    for body in bodies:
        _add(f"lookup with {str(body)[:90]} {len(str(body))}", put(document), post("lookup", body))
    _add("lookup in a missing document", post("lookup", {"operations": [one]}))
    _add("lookup in text", put(b"no json", NOTHING), post("lookup", {"operations": [one]}))
    _add("lookup in a number", put(b"5"), post("lookup", {"operations": [one]}))
    _add(
        "lookup in an array",
        put(b"[1,2]"),
        post("lookup", {"operations": [{"operation": "Get", "path": "[0]"}, one]}),
    )
    _add(
        "lookup in a deep document",
        put(b'{"a":' * 48 + b"1" + b"}" * 48),
        post("lookup", {"operations": [one]}),
    )
    _add(
        "lookup as text", put(document), post("lookup", {"operations": [one]}, {"Content-Type": "text/plain"})
    )
    _add("lookup without a type", put(document), post("lookup", {"operations": [one]}, NOTHING))


def _mutations() -> None:
    document = json.dumps(
        {
            "a": 1,
            "list": [1, 2],
            "o": {"p": 1},
            "t": "x",
            "big": 2**63 - 1,
            "neg": -5,
            "f": 1.5,
            "e": [],
            "objects": [{}],
        }
    ).encode()
    values: list[object] = [5, "x", None, {"z": 1}, [1], True, 1.5, "", -1, 0]
    operations = [
        "DictAdd",
        "DictSet",
        "Replace",
        "ArrayPushLast",
        "ArrayPushFirst",
        "ArrayInsert",
        "ArrayAddUnique",
        "Counter",
    ]
    for operation, value in itertools.product(operations, values):
        _add(
            f"mutate {operation} {value!r}",
            put(document),
            post(
                "mutate",
                {"operations": [{"operation": operation, "path": _target(operation), "value": value}]},
            ),
            get(),
        )
    paths = [
        "a",
        "new",
        "list",
        "list[0]",
        "list[1]",
        "list[2]",
        "list[9]",
        "list[-1]",
        "o.p",
        "o.new",
        "x.y",
        "a.b",
        "t",
        "e",
        "",
        "[0]",
        "o..p",
        "big",
        "neg",
        "f",
        "x" * 1025,
        ".".join("x" * 32),
        "objects",
    ]
    for operation, path in itertools.product([*operations, "Delete"], paths):
        spec: dict[str, object] = {"operation": operation, "path": path}
        if operation != "Delete":
            spec["value"] = 1
        _add(
            f"mutate {operation} at {path[:20]!r} {len(path)}",
            put(document),
            post("mutate", {"operations": [spec]}),
            get(),
        )
    for semantic, operation in itertools.product(
        ("Replace", "Upsert", "Insert", "upsert", "", None, 5), [*operations, "Delete"]
    ):
        spec = {
            "operation": operation,
            "path": _target(operation),
            **({} if operation == "Delete" else {"value": 1}),
        }
        body = {"operations": [spec], "storeSemantic": semantic}
        _add(f"mutate {operation} as {semantic!r}", put(document), post("mutate", body), get())
        _add(f"mutate {operation} of a missing document as {semantic!r}", post("mutate", body), get())
    one = {"operation": "DictSet", "path": "new", "value": 1}
    bodies: list[object] = [
        None,
        b"",
        b"x",
        {},
        [],
        {"operations": []},
        {"operations": None},
        {"operations": [{}]},
        {"operations": [{"operation": "dictset", "path": "a", "value": 1}]},
        {"operations": [{"path": "a", "value": 1}]},
        {"operations": [{"operation": "DictSet", "path": "a"}]},
        {"operations": [{"operation": "DictSet", "value": 1}]},
        {"operations": [{"operation": "Delete", "path": "a", "value": 1}]},
        {"operations": [{"operation": "Get", "path": "a"}]},
        {"operations": [one] * 16},
        {"operations": [one] * 17},
        {"operations": [one], "other": 1},
        {"operations": [one, {"operation": "Replace", "path": "missing", "value": 1}]},
        b"null",
        {"operations": [{"operation": "Counter", "path": "a", "value": 2**63}]},
        {"operations": [{"operation": "DictSet", "path": 5, "value": 1}]},
    ]
    for body in bodies:
        _add(f"mutate with {str(body)[:90]} {len(str(body))}", put(document), post("mutate", body), get())
    for when in ("0", "", "1h", "x", "90"):
        _add(
            f"mutate that expires {when!r}",
            put(document),
            post("mutate", {"operations": [one]}, {**JSON, "Expires": when}),
            get(),
        )
    _add(
        "mutate drops the expiry",
        put(document, {**JSON, "Expires": "1h"}),
        post("mutate", {"operations": [one]}),
        get(),
    )
    for level in ("None", "Majority", "x", "", "PersistToMajority"):
        _add(
            f"mutate with durability {level!r}",
            put(document),
            post("mutate", {"operations": [one]}, {**JSON, "X-CB-DurabilityLevel": level}),
        )
    _add("mutate text", put(b"no json", NOTHING), post("mutate", {"operations": [one]}))
    _add(
        "mutate an array",
        put(b"[1]"),
        post("mutate", {"operations": [{"operation": "ArrayPushLast", "path": "", "value": 2}]}),
        get(),
    )
    _add(
        "mutate a deep document", put(b'{"a":' * 48 + b"1" + b"}" * 48), post("mutate", {"operations": [one]})
    )
    many = [
        {"operation": "Counter", "path": "a", "value": 2},
        {"operation": "Delete", "path": "t"},
        {"operation": "ArrayPushLast", "path": "list", "value": 3},
    ]
    _add("mutate several", put(document), post("mutate", {"operations": many}), get())


def _target(operation: str) -> str:
    return {
        "DictAdd": "new",
        "DictSet": "new",
        "Replace": "t",
        "ArrayInsert": "list[0]",
        "Counter": "a",
        "Delete": "t",
    }.get(operation, "list")


def _errors() -> None:
    where = "/v1/buckets/{}/scopes/{}/collections/{}/documents/K"
    for bucket, scope, collection in itertools.product(
        ("default", "nothing", "bad%20name", "a%2Fb"),
        ("_default", "nothing", "b@d"),
        ("_default", "nothing", "b@d"),
    ):
        for method in ("GET", "PUT", "DELETE"):
            _add(
                f"{method} {bucket}/{scope}/{collection}",
                Step(
                    method, where.format(bucket, scope, collection), JSON, b"1" if method == "PUT" else None
                ),
            )
    path = where.format("default", "_default", "nothing")
    for what, body in (("append", b"x"), ("increment", b"{}"), ("touch", b'{"expiry":"1h"}')):
        _add(f"{what} in a missing collection", Step("POST", f"{path}/{what}", JSON, body))
    alpha = path.replace("/v1/", "/v1.alpha/")
    for what, body in (
        ("lock", b"{}"),
        ("lookup", b'{"operations":[{"operation":"Get","path":"a"}]}'),
        ("mutate", b'{"operations":[{"operation":"DictSet","path":"a","value":1}]}'),
    ):
        _add(f"{what} in a missing collection", Step("POST", f"{alpha}/{what}", JSON, body))
    for method in ("PATCH", "TRACE", "PUT", "DELETE"):
        _add(f"{method} of append", Step(method, "D/x/append"))
    _add("PATCH of a document", Step("PATCH", "D/x"))
    for path in (
        "/",
        "/v1",
        "/v2/buckets",
        "/v1/nothing",
        "/v1/buckets/default/nothing",
        "/v1/callerIdentity/x",
    ):
        _add(f"unknown path {path}", Step("GET", path))
    _add("bad flags beat missing credentials", Step("PUT", "D/x", {"X-CB-Flags": "x"}, b"1", None))
    _add("bad JSON beats missing credentials", Step("POST", "D/x/touch", JSON, b"x", None))
    _add(
        "missing credentials beat a missing bucket",
        Step("GET", where.format("nothing", "_default", "_default"), user=None),
    )
    _add(
        "a long key in a missing bucket",
        Step("GET", where.format("nothing", "_default", "_default") + "x" * 300),
    )


def _authentication() -> None:
    for path in ("/v1/callerIdentity", "D/x"):
        for user in (
            "Administrator:password",
            "Administrator:wrong",
            "nobody:x",
            ":",
            "Administrator:",
            ":password",
            None,
        ):
            _add(f"GET {path} as {user!r}", Step("GET", path, user=user))
        for value in (
            "Basic",
            "Basic ",
            "Basic x",
            "Bearer x",
            "",
            "Basic QWRtaW5pc3RyYXRvcg==",
            "basic QWRtaW5pc3RyYXRvcjpwYXNzd29yZA==",
            "Digest x",
            "BASIC QWRtaW5pc3RyYXRvcjpwYXNzd29yZA==",
        ):
            _add(f"GET {path} with {value!r}", Step("GET", path, {"Authorization": value}, user=None))
    _add("enabled", Step("GET", "/v1.alpha/enabled", user=None))
    for user in ("reader:secret-1", "stranger:secret-1", "writer:secret-1"):
        for method, body in (("GET", None), ("PUT", b"1"), ("DELETE", None), ("POST", b"1")):
            _add(f"{method} as {user}", Step(method, "D/K", JSON, body, user))
        for what, body in (("append", b"x"), ("increment", b"{}"), ("touch", b'{"expiry":"1h"}')):
            _add(f"{what} as {user}", Step("POST", f"D/K/{what}", JSON, body, user))
        for what, body in (
            ("lock", b"{}"),
            ("lookup", b'{"operations":[{"operation":"Get","path":"a"}]}'),
            ("mutate", b'{"operations":[{"operation":"DictSet","path":"a","value":1}]}'),
        ):
            _add(f"{what} as {user}", Step("POST", f"A/K/{what}", JSON, body, user))
        _add(
            f"GET of a missing collection as {user}",
            Step("GET", "/v1/buckets/default/scopes/_default/collections/nothing/documents/K", user=user),
        )
        _add(
            f"GET of another bucket as {user}",
            Step("GET", "/v1/buckets/other/scopes/_default/collections/_default/documents/K", user=user),
        )
        _add(f"callerIdentity as {user}", Step("GET", "/v1/callerIdentity", user=user))


def _origins() -> None:
    origin = {"Origin": "https://example.com"}
    _add("GET with an origin", put(), get("", origin))
    _add("a miss with an origin", get("", origin))
    _add("PUT with an origin", put(headers={**JSON, **origin}))
    _add("no credentials with an origin", Step("GET", "D/x", origin, user=None))
    for method, headers in itertools.product(
        ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "x", ""),
        (
            "",
            "content-type",
            "accept",
            "x-requested-with",
            "authorization",
            "if-match",
            "content-type,accept",
            "x-cb-flags",
        ),
    ):
        asked = {
            **origin,
            "Access-Control-Request-Method": method,
            **({"Access-Control-Request-Headers": headers} if headers else {}),
        }
        _add(f"preflight of {method!r} with {headers!r}", Step("OPTIONS", "D/x", asked, user=None))
    _add(
        "preflight without an origin",
        Step("OPTIONS", "D/x", {"Access-Control-Request-Method": "GET"}, user=None),
    )
    _add(
        "preflight elsewhere",
        Step("OPTIONS", "/nothing", {**origin, "Access-Control-Request-Method": "GET"}, user=None),
    )


for _group in (
    _documents,
    _projections,
    _encodings,
    _additions,
    _counters,
    _touches,
    _locks,
    _lookups,
    _mutations,
    _errors,
    _authentication,
    _origins,
):
    _group()
