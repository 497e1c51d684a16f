"""The catalogue of the gateway's resources, with the headers and parameters that a server has to know."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.servers.matrix.rows import Problem, Row, Steps

GATEWAY = "gateway"
BUCKET = "/v1/buckets/{bucket}"
BATCH = f"{BUCKET}/batch"

HEADERS = ("If-Match", "X-CB-TTL", "X-CB-DurabilityLevel", "X-CB-PersistTo", "X-CB-ReplicateTo")
"""Headers that change what is sent; others of their kinds (``Expires``, ``If-None-Match``) do the same."""

ROWS: list[Row] = []
JSON = {"Content_Type": "application/json"}
TTL = {"X_CB_TTL": "3000"}
COPIES = {
    "X-CB-DurabilityLevel": {"X_CB_DurabilityLevel": "Majority"},
    "X-CB-PersistTo": {"X_CB_PersistTo": "1"},
    "X-CB-ReplicateTo": {"X_CB_ReplicateTo": "1"},
}
DESIGN = json.dumps({"views": {"all": {"map": "function (doc, meta) { emit(meta.id, null); }"}}}).encode()


class Asking:
    """A client of the gateway whose failures are :class:`Problem`.

    :param ask: ``GatewayTestCase.ask``.
    :param bucket: where documents are.
    """

    def __init__(self, ask: Callable[..., Any], bucket: str) -> None:
        self._ask = ask
        self._bucket = bucket

    @inlineCallbacks
    def __call__(self, method: str, path: str, body: bytes = b"", key: str = "", **headers: str) -> Any:
        """Send a request; ``D`` in the path is the document of the key, and ``{bucket}`` the bucket."""
        if path.startswith("D"):
            path = f"{BUCKET}/documents/{key}{path[1:]}"
        answer = yield self._ask(method, path.replace("{bucket}", self._bucket), body, **headers)
        if answer.status >= 400:
            problem = answer.json()
            code = problem.get("code", problem.get("status", ""))
            raise Problem(answer.status, code, problem.get("message", problem.get("reason", "")))
        return answer


def row(name: str, option: str = "", keeps_expiry: bool = False) -> Callable[[Any], Any]:
    """Add what it decorates as the steps of a row."""

    def add(steps: Callable[[Any, str], Steps]) -> Any:
        ROWS.append(Row(name, option, steps, frozenset({GATEWAY}), keeps_expiry))
        return steps

    return add


def same(found: Any, wanted: Any) -> None:
    """Compare what came with what was to come."""
    assert found == wanted, f"{found!r} is not {wanted!r}"


# ---- documents -----------------------------------------------------------------------------------


def _put(ask: Any, key: str, body: bytes = b"1", **headers: str) -> Any:
    return ask("PUT", "D", body, key, **JSON, **headers)


@row("GET D")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key, b'{"a":1}')
    same((yield ask("GET", "D", key=key)).body, b'{"a":1}')


@row("GET D", "If-Match")
def _(ask: Any, key: str) -> Steps:
    stored = yield _put(ask, key)
    same((yield ask("GET", "D", key=key, If_Match=stored.header("ETag"))).body, b"1")


@row("GET D", "of one that expires")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key, **TTL)
    found = yield ask("GET", "D", key=key)
    same(found.body, b"1")
    return None if found.header("Expires") else "`Expires` is not shown"


@row("GET D", "?project")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key, b'{"a":1,"b":2}')
    same((yield ask("GET", "D?project=b", key=key)).body, b'{"b":2}')


ATTEMPTS = 5000
"""Reads of a copy that has not reached its replica yet."""


@row("GET D", "?replica")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key)
    for attempt in range(ATTEMPTS):
        try:
            same((yield ask("GET", "D?replica=any", key=key)).body, b"1")
            return None
        except Problem as problem:
            if problem.code != "DocumentNotFound" or attempt == ATTEMPTS - 1:
                raise
    return None


@row("PUT D", "without an expiry", keeps_expiry=True)
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key, **TTL)
    yield _put(ask, key, b"2")
    found = yield ask("GET", "D", key=key)
    same(found.body, b"2")
    return None if found.header("Expires") else "the expiry is not kept"


def _stored(method: str, path: str, before: bool, **headers: str) -> Callable[[Any, str], Steps]:
    body, after = {"D/append": (b"c", b"bc"), "D/prepend": (b"c", b"cb")}.get(path, (b"b", b"b"))

    def steps(ask: Any, key: str) -> Steps:
        given = dict(headers)
        if before or "If_Match" in headers:
            stored = yield ask("PUT", "D", b"b", key, Content_Type="text/plain")
            if "If_Match" in headers:
                given["If_Match"] = stored.header("ETag")
        yield ask(method, path, body, key, **given)
        if method != "DELETE":
            same((yield ask("GET", "D", key=key)).body, after)

    return steps


def _counted(path: str, **headers: str) -> Callable[[Any, str], Steps]:
    def steps(ask: Any, key: str) -> Steps:
        typed = {**JSON, **headers}
        yield ask("POST", path, b'{"initial":5}', key, **typed)
        found = yield ask("POST", path, b'{"initial":5,"delta":2}', key, **typed)
        same(found.body, b"7" if path == "D/increment" else b"3")

    return steps


for _method, _path, _before in (
    ("POST", "D", False),
    ("PUT", "D", False),
    ("DELETE", "D", True),
    ("POST", "D/append", True),
    ("POST", "D/prepend", True),
):
    _name = f"{_method} {_path}"
    row(_name)(_stored(_method, _path, _before))
    if _name != "POST D":
        row(_name, "If-Match")(_stored(_method, _path, _before, If_Match=""))
    if _path == "D" and _method != "DELETE":
        row(_name, "X-CB-TTL")(_stored(_method, _path, _before, **TTL))
    for _header, _given in COPIES.items():
        row(_name, _header)(_stored(_method, _path, _before, **_given))
for _path in ("D/increment", "D/decrement"):
    row(f"POST {_path}")(_counted(_path))
    row(f"POST {_path}", "X-CB-TTL")(_counted(_path, **TTL))
    for _header, _given in COPIES.items():
        row(f"POST {_path}", _header)(_counted(_path, **_given))


@row("POST D/touch")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key)
    same((yield ask("POST", "D/touch", b'{"expiry":"3000s"}', key)).status, 204)


@row("POST D/touch", "X-CB-TTL")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key)
    same((yield ask("POST", "D/touch", b"", key, **TTL)).status, 204)


@row("POST D/touch", "returnContent")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key)
    found = yield ask("POST", "D/touch", b'{"expiry":"3000s","returnContent":true}', key)
    same(found.body, b"1")


@row("POST D/lock")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key)
    locked = yield ask("POST", "D/lock", key=key)
    same(locked.body, b"1")
    yield _put(ask, key, b"2", If_Match=locked.header("ETag"))


@row("POST D/lock", "of a locked document")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key)
    yield ask("POST", "D/lock", key=key)
    yield from _refused(ask("POST", "D/lock", key=key), 409, "DocumentLocked")


@row("POST D/unlock", "If-Match")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key)
    locked = yield ask("POST", "D/lock", key=key)
    yield ask("POST", "D/unlock", key=key, If_Match=locked.header("ETag"))
    yield _put(ask, key, b"2")


@row("POST D/unlock", "of a document that is not locked")
def _(ask: Any, key: str) -> Steps:
    stored = yield _put(ask, key)
    unlocked = ask("POST", "D/unlock", key=key, If_Match=stored.header("ETag"))
    yield from _refused(unlocked, 400, "DocumentNotLocked")


def _refused(asked: Any, status: int, code: str) -> Steps:
    """Check that a request is refused as errors.md says."""
    try:
        yield asked
    except Problem as problem:
        same((problem.status, problem.code), (status, code))
    else:
        raise AssertionError("it was not refused")
    return None


@row("GET D/observe")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key)
    copies = (yield ask("GET", "D/observe", key=key)).json()["copies"]
    same([copy["copy"] for copy in copies].count("active"), 1)


@row("GET D/observe", "?masterOnly")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key)
    copies = (yield ask("GET", "D/observe?masterOnly=true", key=key)).json()["copies"]
    same([copy["copy"] for copy in copies], ["active"])


def _endured(gone: bool = False, **members: Any) -> Callable[[Any, str], Steps]:
    body = json.dumps({"persistTo": 0, "replicateTo": 0, **members}).encode()

    def steps(ask: Any, key: str) -> Steps:
        stored = yield _put(ask, key)
        headers = {} if members else {"If_Match": stored.header("ETag")}
        if gone:
            yield ask("DELETE", "D", key=key)
        same((yield ask("POST", "D/endure", body, key, **headers)).status, 204)

    return steps


row("POST D/endure", "persistTo")(_endured(persistTo=1))
row("POST D/endure", "replicateTo")(_endured(replicateTo=1))
row("POST D/endure", "checkRemoved")(_endured(gone=True, persistTo=1, checkRemoved=True))
row("POST D/endure", "If-Match")(_endured())


# ---- parts of documents --------------------------------------------------------------------------

_LOOKUP = [{"operation": "Get", "path": "a"}, {"operation": "Exists", "path": "b"}]
_MUTATION = [{"operation": "DictSet", "path": "a", "value": 6}]


@row("POST D/lookup")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key, b'{"a":5}')
    found = yield ask("POST", "D/lookup", json.dumps({"operations": _LOOKUP}).encode(), key)
    same(found.json(), [{"value": 5}, {"value": False}])


def _mutated(**headers: str) -> Callable[[Any, str], Steps]:
    def steps(ask: Any, key: str) -> Steps:
        stored = yield _put(ask, key, b'{"a":5}')
        given = {"If_Match": stored.header("ETag")} if "If_Match" in headers else headers
        changed = yield ask("POST", "D/mutate", json.dumps({"operations": _MUTATION}).encode(), key, **given)
        same(changed.json(), [{"value": None}])
        same((yield ask("GET", "D", key=key)).json(), {"a": 6})

    return steps


row("POST D/mutate")(_mutated())
row("POST D/mutate", "If-Match")(_mutated(If_Match=""))
row("POST D/mutate", "X-CB-TTL")(_mutated(**TTL))
for _option, _headers in COPIES.items():
    row("POST D/mutate", _option)(_mutated(**_headers))


# ---- batches -------------------------------------------------------------------------------------


def _batch(*lines: dict[str, Any], keeps: bool = False) -> Callable[[Any, str], Steps]:
    """Return steps that send lines one after the other; a ``cas`` is that of the line before."""

    def steps(ask: Any, key: str) -> Steps:
        cas = ""
        status, found = 0, {}
        for line in lines:
            members = {"key": key, **line}
            if "cas" in members:
                members["cas"] = cas
            body = json.dumps(members).encode() + b"\n"
            answer = yield ask("POST", BATCH, body, Content_Type="application/x-ndjson")
            found = json.loads(answer.body)
            status = found["status"]
            if status >= 400:
                raise Problem(status, found["error"]["code"], found["error"]["message"])
            cas = found.get("cas", cas)
        if keeps:
            shown = (yield ask("GET", "D", key=key)).header("Expires")
            return None if shown else "the expiry is not kept"
        return None

    return steps


_SET = {"op": "set", "value": 1}
_TEXT = {"op": "set", "text": "b"}
_LOCK = {"op": "lock"}
_CHANGES: dict[str, tuple[dict[str, Any], ...]] = {
    "set": (_SET,),
    "add": ({"op": "add", "value": 1},),
    "replace": (_SET, {"op": "replace", "value": 2}),
    "append": (_TEXT, {"op": "append", "text": "c"}),
    "prepend": (_TEXT, {"op": "prepend", "text": "c"}),
    "delete": (_SET, {"op": "delete"}),
    "mutate_in": ({"op": "set", "value": {"a": 5}}, {"op": "mutate_in", "operations": _MUTATION}),
    "incr": ({"op": "incr", "initial": 5},),
    "decr": ({"op": "decr", "initial": 5},),
}
for _op, _lines in _CHANGES.items():
    row(f"POST {BATCH}", _op)(_batch(*_lines))
    for _member, _value in (("durabilityLevel", "Majority"), ("persistTo", 1), ("replicateTo", 1)):
        row(f"POST {BATCH}", f"{_op} {_member}")(_batch(*_lines[:-1], {**_lines[-1], _member: _value}))
row(f"POST {BATCH}", "set without an expiry", keeps_expiry=True)(
    _batch({**_SET, "ttl": 3000}, _SET, keeps=True)
)
for _op, _lines in {
    "get": (_SET, {"op": "get"}),
    "get ttl": (_SET, {"op": "get", "ttl": 3000}),
    "lookup_in": ({"op": "set", "value": {"a": 5}}, {"op": "lookup_in", "operations": _LOOKUP}),
    "touch": (_SET, {"op": "touch", "ttl": 3000}),
    "lock": (_SET, _LOCK),
    "unlock": (_SET, _LOCK, {"op": "unlock", "cas": ""}),
    "observe": (_SET, {"op": "observe"}),
    "endure": (_SET, {"op": "endure", "persistTo": 1, "replicateTo": 0}),
}.items():
    row(f"POST {BATCH}", _op)(_batch(*_lines))


@row(f"POST {BATCH}", "get_replica")
def _(ask: Any, key: str) -> Steps:
    yield _put(ask, key)
    for attempt in range(ATTEMPTS):
        try:
            return (yield from _batch({"op": "get_replica"})(ask, key))
        except Problem as problem:
            if problem.code != "DocumentNotFound" or attempt == ATTEMPTS - 1:
                raise
    return None


# ---- views, buckets, the process -----------------------------------------------------------------

_DESIGNS = f"{BUCKET}/designs"
_ONE = f"{_DESIGNS}/{{design}}"
_VIEW = f"{BUCKET}/views/{{design}}/{{view}}"


def _designed(method: str, path: str, body: bytes = b"", prefix: str = "") -> Callable[[Any, str], Steps]:
    def steps(ask: Any, key: str) -> Steps:
        name = key.lower()
        yield ask("PUT", f"{_DESIGNS}/{prefix}{name}", DESIGN)
        yield _put(ask, name)
        asked = path.replace("{design}", name).replace("{view}", "all")
        answer = yield ask(method, asked + ("?stale=false" if "{view}" in path else ""), body)
        if "{view}" in path and name not in [found["id"] for found in answer.json()["rows"]]:
            return "no rows come"
        return None

    return steps


row(f"GET {_DESIGNS}")(_designed("GET", _DESIGNS))
row(f"GET {_ONE}")(_designed("GET", _ONE))
row(f"PUT {_ONE}")(_designed("PUT", _ONE, DESIGN))
row(f"DELETE {_ONE}")(_designed("DELETE", _ONE))
row(f"POST {_ONE}/publish")(_designed("POST", f"{_ONE}/publish", prefix="dev_"))


@row(f"GET {BUCKET}/documents")
def _listed(ask: Any, key: str) -> Steps:
    yield _put(ask, key)
    answer = yield ask("GET", f"{BUCKET}/documents?prefix={key}")
    if {"id": key} not in answer.json()["rows"]:
        return "the key does not come"
    return None


row(f"GET {_VIEW}")(_designed("GET", _VIEW))
row(f"POST {_VIEW}")(_designed("POST", _VIEW, b"{}"))


def _plain(path: str) -> Callable[[Any, str], Steps]:
    def steps(ask: Any, key: str) -> Steps:
        same((yield ask("GET", path)).status, 200)

    return steps


for _path in (
    f"{BUCKET}/stats",
    f"{BUCKET}/scopes",
    "/v1/buckets",
    "/v1/callerIdentity",
    "/",
    "/health",
    "/live",
    "/ready",
    "/metrics",
):
    row(f"GET {_path}")(_plain(_path))
