"""Statements: parsed from callers' requests, and converted for the query service.

The members have the names of the query service's own parameters, with ``read_only`` for its ``readonly``.
Values are sent on as the bytes that were received.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from gateway.cluster.timelimits import parse_seconds
from gateway.dialect.errors import Refusal, bad_request
from gateway.dialect.jsontools import RepeatedName, any_json, loads, without_mark
from gateway.services.members import read_members

__all__ = ["MAX_SECONDS", "MEMBERS", "WORDS", "Statement", "read_statement"]

MAX_SECONDS = 3600.0
"""Longest time limit of a statement, in seconds."""

_TEXT = (str,)
_NUMBER = (int,)
_SWITCH = (bool,)
_LIST = (list,)
_OBJECT = (dict,)

MEMBERS: dict[str, tuple[tuple[type, ...], str]] = {
    "statement": (_TEXT, "The statement; or use `prepared`."),
    "prepared": (_TEXT, "The name of a prepared statement."),
    "args": (_LIST, "Values of the positional parameters `$1`, `$2`, ... and `?`."),
    "read_only": (_SWITCH, "Whether the service refuses statements that change anything."),
    "timeout": (
        (str, int, float),
        "How long the statement may take: a duration such as `10s`, or seconds; up to an hour.",
    ),
    "client_context_id": (_TEXT, "An id for the service's logs; without it, the request's id."),
    "query_context": (_TEXT, "Bucket and scope of names without them; not on the path of a scope."),
    "scan_consistency": (_TEXT, "`not_bounded`, `request_plus`, `statement_plus` or `at_plus`."),
    "scan_vector": ((list, dict), "Mutations that an index must have, with `at_plus`."),
    "scan_vectors": (_OBJECT, "The same, by bucket."),
    "scan_wait": (_TEXT, "How long to wait for an index, as a duration."),
    "profile": (_TEXT, "`off`, `phases` or `timings`."),
    "metrics": (_SWITCH, "Whether the answer has metrics; true by default."),
    "signature": (_SWITCH, "Whether the answer has the statement's signature."),
    "controls": (_SWITCH, "Whether the answer has the parameters in effect."),
    "auto_execute": (_SWITCH, "Whether `PREPARE` is executed, too."),
    "max_parallelism": ((int, str), "Largest number of parts of a statement that run at once."),
    "memory_quota": (_NUMBER, "Memory limit of the statement, in MiB."),
    "pipeline_batch": (_NUMBER, "Number of documents that are fetched together."),
    "pipeline_cap": (_NUMBER, "Number of items buffered between two operators."),
    "scan_cap": (_NUMBER, "Number of items buffered between index and query."),
    "error_limit": (_NUMBER, "Number of errors after which the statement ends."),
    "use_cbo": (_SWITCH, "Whether costs are estimated."),
    "use_fts": (_SWITCH, "Whether search indexes may be used."),
    "use_replica": ((bool, str), "Whether replicas may be read: `on`, `off` or `unset`."),
    "preserve_expiry": (_SWITCH, "Whether changed documents keep their expiry."),
    "durability_level": (_TEXT, "Durability of a transaction's changes."),
    "kvtimeout": (_TEXT, "Timeout of a transaction's operations on documents, as a duration."),
    "tximplicit": ((bool, str), "Whether the statement is a transaction."),
    "txtimeout": (_TEXT, "How long a transaction may take, as a duration."),
    "atrcollection": (_TEXT, "Collection of the transactions' records."),
    "numatrs": ((int, str), "Number of these records."),
}
"""Member -> its Python types, and its meaning. Further members ``$name`` are named parameters."""

WORDS = {
    "scan_consistency": ("not_bounded", "request_plus", "statement_plus", "at_plus"),
    "profile": ("off", "phases", "timings"),
}
"""Member -> the values that it takes."""
_NAMES_OF_TYPES = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "an object",
}
_NAMED = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]{0,254}")
_CONTEXT_ID = re.compile(r'[^"\\\x00-\x1f]{1,64}')
_REPLACED = {"read_only", "timeout", "client_context_id", "query_context"}


class Statement(NamedTuple):
    """A statement for the query service."""

    body: bytes
    """The body for the service, as JSON."""
    is_read: bool
    """Whether the statement is read-only."""
    seconds: float | None
    """The statement's own time limit, in seconds."""


def read_statement(
    body: bytes, *, context: str | None, request_id: str, must_be_read: bool, seconds: float | None = None
) -> Statement:
    """Return the statement in a request's body.

    :param context: bucket and scope in the path, as a query context; ``None`` for none.
    :param must_be_read: whether statements must be read-only.
    :param seconds: the time limit in a header, in seconds.
    :raises Refusal: 400, naming the member; 403, the statement must be read-only but says otherwise.
    """
    given = _members(body)
    values = {name: _value(name, text) for name, text in given.items()}
    if ("statement" in values) == ("prepared" in values):
        raise bad_request("the body must have one of the members 'statement' and 'prepared'")
    if "timeout" in values:
        if seconds is not None:
            raise bad_request("timeout: X-CB-Timeout sets it, too; send one of them")
        seconds = parse_seconds(str(values["timeout"]), "timeout", MAX_SECONDS)
    is_read = values.get("read_only", must_be_read)
    if must_be_read and not is_read:
        raise Refusal(
            "ServiceForbidden",
            "read_only: the gateway runs only read-only statements (--query read-only).",
            resource="",
        )
    if context is not None and "query_context" in values:
        raise bad_request("query_context: the path names the scope, too; send one of them")
    sent = {name: text for name, text in given.items() if name not in _REPLACED}
    sent["client_context_id"] = any_json(values.get("client_context_id", request_id))
    sent["pretty"] = b"false"
    sent.setdefault("metrics", b"true")
    if is_read:
        sent["readonly"] = b"true"
    if seconds is not None:
        sent["timeout"] = any_json(f"{max(1, round(seconds * 1000))}ms")
    if context is not None:
        sent["query_context"] = any_json(context)
    elif "query_context" in given:
        sent["query_context"] = given["query_context"]
    text = b",".join([b"%b:%b" % (any_json(name), value) for name, value in sent.items()])
    return Statement(b"{" + text + b"}", is_read, seconds)


def _members(body: bytes) -> dict[str, bytes]:
    takes = 'it takes an object with a statement, as in {"statement": "SELECT 1"}'
    try:
        return read_members(without_mark(body))
    except RepeatedName as error:
        raise bad_request(f"the body is invalid: {error}") from None
    except ValueError:
        raise bad_request(f"the body is not a JSON object; {takes}") from None


def _value(name: str, text: bytes) -> Any:
    """Return the checked value of a member; values of named parameters are not checked."""
    if name.startswith("$"):
        if _NAMED.fullmatch(name) is None:
            raise bad_request(f"{name[:80]}: a named parameter is '$' and letters, digits or '_'")
        return None
    known = MEMBERS.get(name)
    if known is None:
        if name == "txid":
            raise bad_request("txid: a transaction over several requests is not supported; use tximplicit")
        names = ", ".join(MEMBERS)
        raise bad_request(f"{name[:80]!r} is not a member of a statement; expected {names}, or $NAME")
    value = loads(text)
    types = known[0]
    if type(value) not in types:
        wanted = " or ".join(dict.fromkeys(_NAMES_OF_TYPES[one] for one in types))
        raise bad_request(f"{name}: expected {wanted}")
    if name in ("statement", "prepared") and not value.strip():
        raise bad_request(f"{name}: it is empty")
    if name in WORDS and value not in WORDS[name]:
        raise bad_request(f"{name}: {value[:80]!r} is not one of {', '.join(WORDS[name])}")
    if name == "client_context_id" and _CONTEXT_ID.fullmatch(value) is None:
        raise bad_request("client_context_id: expected 1 to 64 characters without quotes and backslashes")
    return value
