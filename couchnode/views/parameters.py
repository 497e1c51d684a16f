"""The parameters of a view query: their valid values, and the exact errors for others.

Rules and texts are those of the view engine of Couchbase Server (views-and-rest reference, sections 6 to 8).
The worker, which has the collation, detects impossible ranges, since that takes a comparison of keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote_plus

from couchnode.cluster.strictjson import read_json

BAD_REQUEST = "bad_request"
PARSE_ERROR = "query_parse_error"

DEFAULT_CONNECTION_TIMEOUT_MS = 60_000

MAX_KEYS = 100_000
"""Most keys in one query; each is a search of its own."""

_INTEGER = re.compile(r"[+-]?[0-9]+\Z")

Stale = Literal["ok", "false", "update_after"]


class ParameterError(ValueError):
    """A query is invalid.

    :ivar error: ``bad_request`` or ``query_parse_error``, as in the answer.
    :ivar reason: the text for people.
    """

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(reason)
        self.error = error
        self.reason = reason


BodyMembers = dict[str, Any] | ParameterError
"""The parameters in a body, or what is wrong with it."""


class ViewQuery(NamedTuple):
    """A valid query.

    :ivar stale: ``None`` if not given; see the indexer for the meaning.
    :ivar plan: the query for the worker, in the form described in :mod:`couchnode.views.query`.
    """

    stale: Stale | None
    full_set: bool
    connection_timeout_ms: int
    plan: dict[str, Any]


def parse_query(query_string: str, body: bytes | BodyMembers | None, has_reduce: bool) -> ViewQuery:
    """Read the parameters of one query.

    :param query_string: what follows the question mark, still encoded; ``+`` is a space.
    :param body: the body of a POST, or what :func:`read_body` returned for it; ``None`` for a GET.
    :param has_reduce: whether the view has a reduce function.
    :raises ParameterError: an invalid value, or parameters that exclude each other.
    """
    given: dict[str, Any] = {}
    for name, text in _pairs(query_string):
        if name == "count":
            raise ParameterError(PARSE_ERROR, "Query parameter 'count' is now 'limit'.")
        name = _ALIASES.get(name, name)
        read = _READERS.get(name)
        if read is None:
            continue  # like the server, ignore unknown parameters
        value = read(name, text)
        if name == "key":
            given["startkey"] = given["endkey"] = value
        else:
            given[name] = value
    if body is not None:
        members = read_body(body) if isinstance(body, bytes) else body
        if isinstance(members, ParameterError):
            raise members
        given.update(members)
    return _resolve(given, has_reduce)


def _pairs(query_string: str) -> Iterable[tuple[str, str]]:
    for part in query_string.split("&"):
        if part:
            name, _, text = part.partition("=")
            try:
                yield unquote_plus(name, errors="strict"), unquote_plus(text, errors="strict")
            except UnicodeDecodeError:
                raise ParameterError(
                    BAD_REQUEST, f"the query string is not UTF-8 in percent-encoding: {part}"
                ) from None


def _resolve(given: dict[str, Any], has_reduce: bool) -> ViewQuery:
    reduce = given.get("reduce", has_reduce)
    if reduce and not has_reduce:
        raise ParameterError(PARSE_ERROR, "Invalid URL parameter `reduce` for map view.")
    if "group" in given and "group_level" in given:
        raise ParameterError(PARSE_ERROR, "Query parameter `group_level` is not compatible with `group`")
    group = -1 if given.get("group") else given.get("group_level", 0)
    if group and not reduce:
        raise ParameterError(
            PARSE_ERROR, "Invalid URL parameter 'group' or  'group_level' for non-reduce view."
        )
    if "keys" in given:
        if len(given["keys"]) > MAX_KEYS:
            raise ParameterError(BAD_REQUEST, f"`keys` takes at most {MAX_KEYS} keys")
        for bound, spelling in (("startkey", "start_key"), ("endkey", "end_key")):
            if bound in given:
                raise ParameterError(
                    PARSE_ERROR, f"Query parameter `{spelling}` is not compatible with multi-get"
                )
        if reduce and group != -1:
            raise ParameterError(PARSE_ERROR, "Multi-key fetchs for reduce view must include `group=true`")
    plan = {
        "inclusive_end": given.get("inclusive_end", True),
        "descending": given.get("descending", False),
        "skip": given.get("skip", 0),
        "reduce": reduce,
        "group": group,
        "debug": given.get("debug", False),
        "on_error": given.get("on_error", "continue"),
    }
    for name in ("startkey", "endkey", "keys", "startkey_docid", "endkey_docid", "limit"):
        if name in given:
            plan[name] = given[name]
    return ViewQuery(
        given.get("stale"),
        given.get("full_set", False),
        given.get("connection_timeout", DEFAULT_CONNECTION_TIMEOUT_MS),
        plan,
    )


def read_body(body: bytes) -> BodyMembers:
    """Return the parameters in the body of a POST; the error, not raised, if it is invalid.

    A body of megabytes takes long; this can run in a thread.
    """
    try:
        return _body_members(body)
    except ParameterError as error:
        return error


def _body_members(body: bytes) -> dict[str, Any]:
    try:
        members = read_json(body)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        raise ParameterError(BAD_REQUEST, "The body of a POST must be a JSON object, {} for none.")
    found: dict[str, Any] = {}
    if "keys" in members:
        if not isinstance(members["keys"], list):
            raise ParameterError(BAD_REQUEST, "`keys` member must be a array.")
        found["keys"] = members["keys"]
    if "connection_timeout" in members:
        found["connection_timeout"] = _milliseconds(members["connection_timeout"])
    if "on_error" in members:
        found["on_error"] = _on_error("on_error", members["on_error"])
    return found


# ---- one reader per kind of value ----------------------------------------------------------------


def _boolean(name: str, text: str) -> bool:
    lowered = text.lower()
    if lowered not in ("true", "false"):
        raise ParameterError(PARSE_ERROR, f'Invalid boolean parameter: "{text}"')
    return lowered == "true"


def _integer(name: str, text: str) -> int:
    # Longer than any number of rows: int() is slow with a million digits.
    if not _INTEGER.match(text) or len(text) > 20:
        raise ParameterError(PARSE_ERROR, f'Invalid value for integer parameter: "{text[:100]}"')
    number = int(text)
    if number < 0:
        raise ParameterError(PARSE_ERROR, f'Invalid value for positive integer parameter: "{text}"')
    return min(number, 2**62)  # SQLite counts in 64 bits


def _json(name: str, text: str) -> Any:
    try:
        return read_json(text)
    except ValueError:
        # The text of the server, which prints an Erlang term.
        raise ParameterError(
            BAD_REQUEST,
            'invalid UTF-8 JSON: {{error,{1,"lexical error: invalid char in json text.\\n"}},"' + text + '"}',
        ) from None


def _keys(name: str, text: str) -> list[Any]:
    value = _json(name, text)
    if not isinstance(value, list):
        raise ParameterError(BAD_REQUEST, "`keys` parameter is not an array.")
    return value


def _text(name: str, text: str) -> str:
    return text


def _stale(name: str, text: str) -> str:
    lowered = text.lower()
    if lowered not in ("ok", "false", "update_after"):
        raise ParameterError(
            PARSE_ERROR, "stale only available as stale=ok, stale=update_after or stale=false"
        )
    return lowered


def _on_error(name: str, value: Any) -> str:
    if value not in ("continue", "stop"):
        raise ParameterError(BAD_REQUEST, "Query parameter `on_error` must be `continue` or `stop`")
    return str(value)


def _connection_timeout(name: str, text: str) -> int:
    return _milliseconds(int(text) if _INTEGER.match(text) and len(text) <= 20 else None)


def _milliseconds(value: Any) -> int:
    if type(value) is not int or value <= 0:
        raise ParameterError(BAD_REQUEST, "Query parameter `connection_timeout` must be an integer")
    return min(value, 2**31)


_ALIASES = {
    "start_key": "startkey",
    "end_key": "endkey",
    "start_key_doc_id": "startkey_docid",
    "end_key_doc_id": "endkey_docid",
}

_READERS: dict[str, Callable[[str, str], Any]] = {
    "key": _json,
    "startkey": _json,
    "endkey": _json,
    "keys": _keys,
    "startkey_docid": _text,
    "endkey_docid": _text,
    "inclusive_end": _boolean,
    "descending": _boolean,
    "limit": _integer,
    "skip": _integer,
    "reduce": _boolean,
    "group": _boolean,
    "group_level": _integer,
    "stale": _stale,
    "on_error": _on_error,
    "connection_timeout": _connection_timeout,
    "debug": _boolean,
    "full_set": _boolean,
    # Obsolete parameters that the server still reads, and ignores.
    "include_docs": _boolean,
    "conflicts": _boolean,
}
