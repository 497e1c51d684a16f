"""The kinds of requests of bench.kinds, and the documents that they need."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from bench.kindaccess import API_KEY, AUDIENCE, ISSUER, new_token

KEYS = 1000
BUCKET = "/v1/buckets/default"
NAMED = f"{BUCKET}/scopes/_default/collections/bench"
DESIGN = f"{BUCKET}/designs/kinds"

DOCUMENT = '{"n":1,"text":"' + "x" * (1024 - 17) + '"}'
LINES = 50
"""Operations of a batch."""

PLAIN, LOGIN, LOG, ORIGIN = "plain", "login", "log", "origin"
COMBINED, EXTENDED, TOKEN, KEY, CALLERS = "combined", "extended", "token", "key", "callers"
PAGE = "https://app.example.com"
GATEWAYS: dict[str, list[str]] = {
    PLAIN: [],
    LOGIN: ["--auth=passthrough"],
    LOG: ["--access-log", "--access-log-format=json", "--access-log-file={folder}/json.log"],
    COMBINED: ["--access-log", "--access-log-format=combined", "--access-log-file={folder}/combined.log"],
    EXTENDED: ["--access-log", "--access-log-format=extended", "--access-log-file={folder}/extended.log"],
    ORIGIN: [f"--cors-origin={PAGE}"],
    TOKEN: [
        *("--auth=jwt", "--access={folder}/rules.toml", "--jwt-keys={folder}/jwks.json"),
        *(f"--jwt-issuer={ISSUER}", f"--jwt-audience={AUDIENCE}"),
    ],
    KEY: ["--auth=keys", "--access={folder}/rules.toml", "--api-keys={folder}/keys"],
    CALLERS: ["--auth=passthrough", "--metrics-callers=100"],
}
"""Gateway -> its options; ``{folder}`` is where its files are."""

BASIC = frozenset({LOGIN, CALLERS})
"""Gateways whose callers send a password."""

GET, PUT, LINE, SET_LINE = "GET", "PUT", "batch: a line with get", "batch: a line with set"

Headers = dict[str, str]


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    :ivar name: its row in the table.
    :ivar why: the reason for its ratio.
    :ivar requests: whole requests, sent in turn by each connection. ``{n}`` becomes the number of a key,
        ``{etag}`` the ETag of the last answer.
    :ivar goal: the highest cost allowed, as a ratio to ``beside``; ``None`` for no goal.
    :ivar beside: name of the kind that it is compared with.
    :ivar statuses: those of the answers to ``requests``.
    :ivar opening: request that gets the first ETag on each connection.
    :ivar gateway: a key of :data:`GATEWAYS`.
    :ivar lines: operations of a request.
    """

    name: str
    why: str
    requests: tuple[bytes, ...]
    goal: float | None = None
    beside: str = GET
    statuses: tuple[int, ...] = (200,)
    opening: bytes | None = None
    gateway: str = PLAIN
    lines: int = 1

    @property
    def has_tag(self) -> bool:
        """Whether a request names an ETag."""
        return any(b"{etag}" in request for request in self.requests)


def document(family: str, root: str = BUCKET) -> str:
    """Return the path of a document."""
    return f"{root}/documents/{family}-{{n}}"


def raw(method: str, path: str, body: str = "", headers: Headers | None = None) -> bytes:
    """Return a request; one with a body has the type of JSON unless ``headers`` say otherwise."""
    fields = {"Host": "localhost", **(headers or {})}
    if body:
        # A key's number has three digits, as its place in the text has.
        fields = {"Content-Type": "application/json", **fields, "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n{body}".encode()


def batch(operation: dict[str, Any], family: str) -> str:
    """Return a batch of one kind of operation on different keys."""
    verb = {"op": operation["op"]}
    rest = {name: value for name, value in operation.items() if name != "op"}
    lines = [json.dumps({**verb, "key": f"{family}-{number:03d}", **rest}) for number in range(LINES)]
    return "\n".join(lines) + "\n"


def reading(name: str, why: str, goal: float | None, headers: Headers | None = None, **rest: Any) -> Kind:
    """Return a kind of GET of the usual documents."""
    path = rest.pop("path", document("plain"))
    return Kind(name, why, (raw("GET", path, headers=headers),), goal, **rest)


def storing(name: str, why: str, headers: Headers | None = None, **rest: Any) -> Kind:
    """Return a kind of PUT of the usual documents."""
    request = raw("PUT", document(rest.pop("family", "written")), DOCUMENT, headers)
    return Kind(f"{PUT} {name}", why, (request,), rest.pop("goal", 1.1), PUT, **rest)


def acting(name: str, why: str, action: str, body: str = "", **rest: Any) -> Kind:
    """Return a kind of POST to one of the usual documents."""
    request = raw("POST", document(rest.pop("family", "changed")) + "/" + action, body)
    return Kind(name, why, (request,), 1.5, **rest)


def refusing(name: str, beside: str, status: int, *parts: Any) -> Kind:
    """Return a kind of request that the node refuses; it should cost no more than a success."""
    return Kind(name, REFUSED, (raw(*parts),), 1.0, beside, (status,))


def lines_of(
    name: str, why: str, operation: dict[str, Any], beside: str, goal: float | None = 1.1, family: str = ""
) -> Kind:
    """Return a kind of batch; its figures are those of one line."""
    family = family or ("plain" if operation["op"] == "get" else "written")
    request = raw(
        "POST", BUCKET + "/batch", batch(operation, family), {"Content-Type": "application/x-ndjson"}
    )
    return Kind(name, why, (request,), goal, beside, lines=LINES)


VALUE = json.loads(DOCUMENT)
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
LOOKUPS = [{"operation": "Get", "path": "n"}]
MUTATIONS = [{"operation": "DictSet", "path": "n", "value": 42}]
THREE_LOOKUPS = [*LOOKUPS, {"operation": "Exists", "path": "text"}, {"operation": "Get", "path": "none"}]
THREE_MUTATIONS = [{"operation": "DictSet", "path": name, "value": 42} for name in ("n", "m", "k")]
LOOKUP, MUTATE, LOOKUP_3, MUTATE_3 = (
    json.dumps({"operations": given}, separators=(",", ":"))
    for given in (LOOKUPS, MUTATIONS, THREE_LOOKUPS, THREE_MUTATIONS)
)
ADDITION = MUTATE.replace("DictSet", "DictAdd")
PLANNED = "planned once for all equal requests"
READ_ONCE = "parsed once for all equal requests"
REFUSED = "the refusal is a result with a prepared answer; that has a body, which a success lacks"
IN_TIME = "the timeout is passed to the operation"
IN_NAMED = document("plain", NAMED)
STALE = {"If-Match": "00000000000000ff"}

READS = [
    Kind(GET, "the unit of the ratios", (raw("GET", document("plain")),)),
    reading("GET with an expiry", "one more header, cached by expiry time", 1.03, path=document("expiring")),
    reading(
        "GET with credentials",
        "the password, which no cache may hold, is cut out of the head and identified by a keyed hash",
        1.05,
        gateway=LOGIN,
    ),
    reading(
        "GET with a token (JWT)",
        "as with a password, plus rules; the token is verified once",
        1.1,
        {"Authorization": "Bearer " + new_token()},
        gateway=TOKEN,
    ),
    reading(
        "GET with an API key", "as with a password, plus rules", 1.1, {"X-API-Key": API_KEY}, gateway=KEY
    ),
    reading("GET, counted by caller", "as with a password, plus a count per caller", None, gateway=CALLERS),
    reading("GET of a counter", "fewer bytes; the value decides the type", 1.0, path=document("tally")),
    reading("GET of a binary document", "another content type", 1.0, path=document("binary")),
    reading("GET in a collection", "two more parameters, and the collection's id", 1.1, path=IN_NAMED),
    reading(
        "GET, one path projected",
        "the document is validated, and the paths are extracted",
        1.5,
        path=document("plain") + "?project=n",
    ),
    reading(
        "GET, If-None-Match: 304",
        "the work of a GET up to the answer, and a condition; the answer has no body",
        1.0,
        {"If-None-Match": "*"},
        statuses=(304,),
    ),
    reading("GET, If-Match: 200", "a condition", 1.1, {"If-Match": "*"}),
    reading(
        "GET with X-CB-Timeout",
        IN_TIME,
        1.1,
        {"X-CB-Timeout": "2s"},
    ),
    reading(
        "GET with Accept-Encoding",
        "the header is read; below 1,400 bytes nothing is compressed",
        None,
        {"Accept-Encoding": "gzip"},
    ),
    reading("GET with traceparent", "its value is located in the head", 1.1, TRACE),
    reading("GET with an access log in JSON", "a line with all fields", 1.3, gateway=LOG),
    reading("GET with an access log, extended", "a line with all fields", 1.3, gateway=EXTENDED),
    reading("GET with an access log, combined", "a line with fewer fields", 1.3, gateway=COMBINED),
    reading(
        "GET from an allowed origin",
        "four more response headers, prepared",
        1.1,
        {"Origin": PAGE},
        gateway=ORIGIN,
    ),
]

ERRORS = [
    reading(
        "404: no document",
        "the node is asked, as for a document",
        1.0,
        path=document("none"),
        statuses=(404,),
    ),
    reading(
        "404: no route",
        "a prepared answer; sent alone, while the node's answers are sent together",
        1.0,
        path="/v1/nothing",
        statuses=(404,),
    ),
    reading(
        "400: unknown parameter",
        "the outcome for a query string is cached; the answer is sent alone",
        1.0,
        path=document("plain") + "?no=1",
        statuses=(400,),
    ),
    Kind(
        "405",
        "the route is looked up each time; the answer is sent alone",
        (raw("PATCH", document("plain")),),
        1.0,
        statuses=(405,),
    ),
    reading(
        "412",
        "the work of a GET up to the answer, and a version of its own, which is cut out of the head",
        1.0,
        STALE,
        statuses=(412,),
    ),
    reading("401", "an exception; the answer is sent alone", 1.0, gateway=LOGIN, statuses=(401,)),
    refusing("409: the document exists", PUT, 409, "POST", document("plain"), DOCUMENT),
]

WRITES = [
    Kind(PUT, "a body is read, and its value is sent", (raw("PUT", document("written"), DOCUMENT),), 1.5),
    storing("with Expires (duration)", READ_ONCE, {"Expires": "1h"}, family="lasting"),
    storing("with Expires (date)", READ_ONCE, {"Expires": "Wed, 21 Oct 2099 07:28:00 GMT"}, family="lasting"),
    storing("with X-CB-TTL", READ_ONCE, {"X-CB-TTL": "3600"}, family="lasting"),
    storing("with X-CB-Flags", READ_ONCE, {"X-CB-Flags": "7"}),
    storing("with X-CB-Timeout", IN_TIME, {"X-CB-Timeout": "2s"}),
    storing(
        "with If-Match",
        "one more header, whose value differs each time: it is located in the head and parsed",
        {"If-Match": "{etag}"},
        family="matched",
        opening=raw("GET", document("matched")),
    ),
    refusing("409: another version", "PUT with If-Match", 409, "PUT", document("written"), DOCUMENT, STALE),
    storing(
        "with If-None-Match: 412",
        REFUSED,
        {"If-None-Match": "*"},
        statuses=(412,),
    ),
    storing(
        "with X-CB-DurabilityLevel",
        "later operations on the same key wait for it",
        {"X-CB-DurabilityLevel": "Majority"},
    ),
    storing("with Content-Type: text/plain", "other flags", {"Content-Type": "text/plain"}),
    Kind(
        "PUT in a collection",
        "two more parameters, and the collection's id",
        (raw("PUT", document("written", NAMED), DOCUMENT),),
        1.1,
        PUT,
    ),
    Kind(
        "POST and DELETE, in turns",
        "a body in every second request",
        (raw("POST", document("new"), DOCUMENT), raw("DELETE", document("new"))),
        1.5,
        statuses=(200, 200),
    ),
    Kind(
        "PUT with If-None-Match and DELETE, in turns",
        "an add; a body in every second request",
        (raw("PUT", document("new"), DOCUMENT, {"If-None-Match": "*"}), raw("DELETE", document("new"))),
        1.5,
        statuses=(200, 200),
    ),
    Kind(
        "PUT and DELETE with If-Match, in turns",
        "the version differs each time; a body in every second request",
        (
            raw("PUT", document("new"), DOCUMENT),
            raw("DELETE", document("new"), headers={"If-Match": "{etag}"}),
        ),
        1.5,
        statuses=(200, 200),
    ),
    Kind("DELETE: 404", REFUSED, (raw("DELETE", document("none")),), 1.5, statuses=(404,)),
]

ACTIONS = [
    acting("increment", PLANNED, "increment", family="count"),
    acting("increment with a body", PLANNED, "increment", '{"delta":2}', family="count"),
    acting("increment: 404", REFUSED, "increment", family="none", statuses=(404,)),
    acting("decrement", PLANNED, "decrement", family="count"),
    Kind(
        "lock and unlock, in turns",
        "half the answers contain the document, half the requests a new version",
        (
            raw("POST", document("locked") + "/lock"),
            raw("POST", document("locked") + "/unlock", headers={"If-Match": "{etag}"}),
        ),
        1.5,
        statuses=(200, 200),
    ),
    acting("touch", PLANNED, "touch", '{"expiry":"1h"}', statuses=(204,)),
    acting(
        "touch with content",
        "the answer contains the document",
        "touch",
        '{"expiry":"1h","returnContent":true}',
    ),
    acting("lookup of one path", PLANNED + "; the answer is composed", "lookup", LOOKUP),
    acting(
        "lookup of three paths",
        "one path is missing; the answer is composed of three parts",
        "lookup",
        LOOKUP_3,
    ),
    acting("mutate of one path", "the body is parsed, since values differ each time", "mutate", MUTATE),
    refusing(
        "409: a path exists", "mutate of one path", 409, "POST", document("changed") + "/mutate", ADDITION
    ),
    acting("mutate of three paths", "the same, for each path", "mutate", MUTATE_3),
    acting("append", READ_ONCE, "append", " ", family="grown"),
    refusing("404: an append", "append", 404, "POST", document("none") + "/append", " "),
    acting("prepend", READ_ONCE, "prepend", " ", family="grown"),
    acting(
        "endure",
        "a question that no other operation shares; a plan, with a timer, only for further rounds",
        "endure",
        '{"persistTo":0,"replicateTo":0}',
        statuses=(204,),
    ),
]

_SAME = "parsed once for all lines with the same options"
BATCHES = [
    lines_of(LINE, "no HTTP request per operation", {"op": "get"}, GET, None),
    lines_of(SET_LINE, "no HTTP request per operation", {"op": "set", "value": VALUE}, GET, None),
    lines_of(
        "batch: set with flags and ttl", _SAME, {"op": "set", "flags": 7, "ttl": 60, "value": VALUE}, SET_LINE
    ),
    lines_of("batch: set with expires", _SAME, {"op": "set", "expires": "1h", "value": VALUE}, SET_LINE),
    lines_of(
        "batch: set with durability",
        "later operations on the same key wait for it",
        {"op": "set", "durabilityLevel": "Majority", "value": VALUE},
        SET_LINE,
        family="durable-{n}",
    ),
    lines_of("batch: set with timeout", _SAME, {"op": "set", "timeout": "2s", "value": VALUE}, SET_LINE),
    lines_of(
        "batch: set with four options",
        _SAME,
        {"op": "set", "flags": 7, "expires": "1h", "timeout": "2s", "scope": "_default", "value": VALUE},
        SET_LINE,
    ),
    lines_of(
        "batch: get in a collection",
        _SAME,
        {"op": "get", "scope": "_default", "collection": "_default"},
        LINE,
    ),
    lines_of("batch: get with an expiry", _SAME, {"op": "get", "ttl": 60}, LINE, family="lasting"),
    lines_of("batch: increment", _SAME, {"op": "incr", "delta": 2}, SET_LINE, family="count"),
    lines_of("batch: touch", _SAME, {"op": "touch", "expires": "1h"}, SET_LINE, family="lasting"),
    lines_of(
        "batch: lookup of one path", _SAME, {"op": "lookup_in", "operations": LOOKUPS}, LINE, family="plain"
    ),
    lines_of(
        "batch: mutate of one path",
        _SAME,
        {"op": "mutate_in", "operations": MUTATIONS},
        SET_LINE,
        family="changed",
    ),
    lines_of("batch: append", _SAME, {"op": "append", "text": " "}, SET_LINE, family="grown"),
]

STREAMS = [
    reading(
        "view query of 10 rows",
        "a request over HTTP to the node, and a stream",
        None,
        path=f"{BUCKET}/views/kinds/all?limit=10&stale=ok",
    ),
    reading(
        "listing, a page of 10",
        "a range scan: its creation between two HELLOs, then its rows",
        None,
        path=f"{BUCKET}/documents?limit=10",
    ),
]

KINDS = [*READS, *ERRORS, *WRITES, *ACTIONS, *BATCHES, *STREAMS]


def with_login(kind: Kind, value: str) -> Kind:
    """Return a kind whose requests have credentials."""
    end = f"\r\nAuthorization: {value}\r\n\r\n".encode()
    return replace(kind, requests=tuple(request.replace(b"\r\n\r\n", end, 1) for request in kind.requests))


def stored() -> dict[str, bytes]:
    """Return the batches that store what the kinds read or change: path -> body."""
    families: dict[str, dict[str, Any]] = {
        **dict.fromkeys(("plain", "written", "lasting", "matched", "locked", "changed"), {"value": VALUE}),
        "expiring": {"ttl": 86_400, "value": VALUE},
        "count": {"value": 1},
        "grown": {"value": 1},
        "tally": {"value": 1},
        "binary": {"base64": "AAEC" * 342},
    }
    lines = [
        json.dumps({"op": "set", "key": f"{family}-{number:03d}", **rest})
        for family, rest in families.items()
        for number in range(KEYS)
    ]
    named = [line for line in lines if '"key": "plain-' in line or '"key": "written-' in line]
    return {root + "/batch": "\n".join(some).encode() for root, some in ((BUCKET, lines), (NAMED, named))}


VIEW = json.dumps({"views": {"all": {"map": "function (doc, meta) { emit(meta.id, null); }"}}}).encode()
