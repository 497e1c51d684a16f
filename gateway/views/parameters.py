"""The parameters of a view query, as HTTP callers send them.

They are text in the query string, or JSON in the body of a POST, under the names of SDK 1.2 or those of the
server. This module checks each value. Checks that only the view engine can make (whether the view reduces,
whether a range can match) are left to the engine, and its error messages are passed on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from couchbase.protocol.jsontext import at_once, past_blanks, value_end
from couchbase.views.params import Query
from gateway.dialect.bodies import json_object
from gateway.dialect.errors import Refusal, bad_request
from gateway.dialect.jsontools import is_json, without_mark
from gateway.dialect.projection import member_text
from gateway.http.request import Request

__all__ = ["ABOUT", "ALIASES", "MAX_URL_BYTES", "PARAMETERS", "ViewParameters", "read_parameters"]

MAX_URL_BYTES = 12_000
"""Limit in bytes on all parameters except ``keys``, percent-encoded: they share one request line to the
node."""

MAX_BODY_BYTES = 2**20
"""Largest body of a POST in bytes: it is parsed in one step, both here and at the node."""

MAX_COUNT = 2**53 - 1
MAX_MILLISECONDS = 2**31 - 1

Schema = Mapping[str, object]

_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]*")
_DIGITS = re.compile(r"[0-9]{1,16}")

_SHOWN = 80


class ViewParameters(NamedTuple):
    """The parameters of one query."""

    query: Query
    """The parameters to send to the node."""
    dev: bool
    """Whether to query the development form (``dev_...``) of the design document."""
    include_docs: bool


class _Kind(NamedTuple):
    """The values that a parameter accepts."""

    form: str
    """Description of the accepted values, for the error message."""
    from_text: Callable[[str], Any]
    """Function: text in the query string -> the text to send, or two texts for a range; ``None`` if
    invalid."""
    from_json: Callable[[Any, bytes], Any]
    """Function: value in the body, and its text there -> the same results."""
    schema: Schema = {}
    """JSON Schema of the value in the body."""
    query_schema: Schema = {"type": "string", "contentMediaType": "application/json"}
    """JSON Schema of the text in the query string."""


def _boolean(text: str) -> str | None:
    lowered = text.lower()
    return lowered if lowered in ("true", "false") else None


def _json_boolean(value: object, _: bytes) -> str | None:
    return ("false", "true")[value] if isinstance(value, bool) else None


def _number(low: int, high: int) -> _Kind:
    def from_text(text: str) -> str | None:
        if not _DIGITS.fullmatch(text) or not low <= int(text) <= high:
            return None
        return str(int(text))

    def from_json(value: Any, _: bytes) -> str | None:
        return str(value) if type(value) is int and low <= value <= high else None

    schema = {"type": "integer", "minimum": low, "maximum": high}
    return _Kind(f"a whole number from {low} to {high}", from_text, from_json, schema, schema)


def _one_of(*words: str, booleans: dict[bool, str] | None = None) -> _Kind:
    known = frozenset(words)

    def from_text(text: str) -> str | None:
        lowered = text.lower()
        return lowered if lowered in known else None

    def from_json(value: Any, _: bytes) -> str | None:
        if booleans is not None and isinstance(value, bool):
            return booleans[value]
        return from_text(value) if isinstance(value, str) else None

    schema: Schema = {"type": "string", "enum": list(words)}
    either = schema if booleans is None else {"anyOf": [schema, {"type": "boolean"}]}
    return _Kind("one of " + ", ".join(words), from_text, from_json, either, schema)


def _json_text(text: str) -> str | None:
    """Return the JSON as it was written: serializing the value again might change digits."""
    return text if is_json(text.encode("utf-8")) else None


def _array_text(text: str) -> str | None:
    return text if _json_text(text) is not None and text.lstrip(" \t\r\n")[:1] == "[" else None


def _document_id(text: str) -> str | None:
    return text


def _json_document_id(value: object, _: bytes) -> str | None:
    return value if isinstance(value, str) else None


def _ends(text: str) -> list[str] | None:
    """Return the texts of one or two elements of an array."""
    if _array_text(text) is None:
        return None
    data = text.encode("utf-8")
    ends: list[str] = []
    at = at_once(past_blanks(data, data.index(b"[") + 1))
    while data[at : at + 1] != b"]":
        if len(ends) == 2:
            return None
        end = value_end(data, at)
        ends.append(data[at:end].decode("utf-8"))
        at = at_once(past_blanks(data, end))
    return ends or None


def _key_range(text: str) -> tuple[str, ...] | None:
    ends = _ends(text)
    return None if ends is None else tuple(ends)


def _id_range(text: str) -> tuple[str, ...] | None:
    ends = _ends(text)
    if ends is None or not all(end.startswith('"') for end in ends):
        return None
    return tuple(json.loads(end) for end in ends)


def _as_written(read: Callable[[str], Any]) -> Callable[[Any, bytes], Any]:
    return lambda _, text: read(text.decode("utf-8"))


_OF_BOOLEAN: Schema = {"type": "boolean"}
_OF_TEXT: Schema = {"type": "string"}
_OF_ARRAY: Schema = {"type": "array", "items": {}}
_OF_RANGE: Schema = {**_OF_ARRAY, "minItems": 1, "maxItems": 2}
_OF_ID_RANGE: Schema = {**_OF_RANGE, "items": _OF_TEXT}

_BOOLEAN = _Kind("true or false", _boolean, _json_boolean, _OF_BOOLEAN, _OF_BOOLEAN)
_COUNT = _number(0, MAX_COUNT)
_JSON = _Kind('a JSON value, such as 1, "text" in quotes, or ["a",2]', _json_text, _as_written(_json_text))
_ARRAY = _Kind("a JSON array", _array_text, _as_written(_array_text), _OF_ARRAY)
_TEXT = _Kind("a document's id, as plain text", _document_id, _json_document_id, _OF_TEXT, _OF_TEXT)

PARAMETERS: dict[str, _Kind] = {
    "startkey": _JSON,
    "endkey": _JSON,
    "mapkey_range": _Kind(
        "a JSON array of one or two keys: the first, the last", _key_range, _as_written(_key_range), _OF_RANGE
    ),
    "key": _JSON,
    "keys": _ARRAY,
    "startkey_docid": _TEXT,
    "endkey_docid": _TEXT,
    "dockey_range": _Kind(
        "a JSON array of one or two document ids: the first, the last",
        _id_range,
        _as_written(_id_range),
        _OF_ID_RANGE,
    ),
    "inclusive_end": _BOOLEAN,
    "descending": _BOOLEAN,
    "limit": _COUNT,
    "skip": _COUNT,
    "reduce": _BOOLEAN,
    "group": _BOOLEAN,
    "group_level": _COUNT,
    # SDK 1.2 also takes a bool; in the query string only the server's words are valid.
    "stale": _one_of("ok", "update_after", "false", booleans={True: "ok", False: "false"}),
    "on_error": _one_of("continue", "stop"),
    "connection_timeout": _number(1, MAX_MILLISECONDS),
    "debug": _BOOLEAN,
    "full_set": _BOOLEAN,
    "include_docs": _BOOLEAN,
    "dev": _BOOLEAN,
}
"""Parameter, by its name in SDK 1.2 -> the values it accepts."""

ABOUT = {
    "startkey": "The first key, as JSON. With `descending`, this is the highest key.",
    "endkey": "The last key, as JSON. With `descending`, this is the lowest key.",
    "mapkey_range": "`startkey` and `endkey` in one: a JSON array.",
    "key": "Only rows with this key, as JSON.",
    "keys": "Only rows with these keys, a JSON array, in this order.",
    "startkey_docid": "Among the rows whose key is `startkey`, the id of the first document.",
    "endkey_docid": "Among the rows whose key is `endkey`, the id of the last document.",
    "dockey_range": "`startkey_docid` and `endkey_docid` in one: a JSON array.",
    "inclusive_end": "Whether the range includes rows whose key is `endkey`; default true.",
    "descending": "Whether to return the rows in descending order.",
    "limit": "Largest number of rows, or groups.",
    "skip": "Number of rows, or groups, to skip first.",
    "reduce": "Whether to reduce the rows; default true if the view has a reduce function.",
    "group": "Whether to return one reduced row for each key.",
    "group_level": "Return one reduced row for each distinct prefix of this many elements of the keys.",
    "stale": "`ok`: the index as it is; `update_after`: the same, then update it; `false`: first update it.",
    "on_error": "If one of several nodes fails: `continue` with the rows of the others (default), or `stop`.",
    "connection_timeout": "How long a node waits for the other nodes, in milliseconds.",
    "debug": "Add `debug_info`.",
    "full_set": "For a development design document: whether to use all documents, not a subset.",
    "include_docs": "Whether to add its document to each row.",
    "dev": "Whether to put `dev_` before the design document's name, unless it has this prefix.",
}
"""Parameter -> its meaning."""

ALIASES = {
    "start_key": "startkey",
    "end_key": "endkey",
    "start_key_doc_id": "startkey_docid",
    "end_key_doc_id": "endkey_docid",
    "mapkey_single": "key",
    "mapkey_multi": "keys",
}
"""Other spelling -> name in SDK 1.2."""

_NAMES = frozenset(PARAMETERS) | frozenset(ALIASES)

_RANGES = {"mapkey_range": ("startkey", "endkey"), "dockey_range": ("startkey_docid", "endkey_docid")}


def read_parameters(request: Request) -> ViewParameters:
    """Read the query string and the body of a POST.

    :raises Refusal: 400 for a parameter that is unknown, given twice (in any spelling or place), or has an
        invalid value; 413 for too large a body.
    """
    reader = _Reader()
    for name, text in request.query(_NAMES).items():
        reader.take(name, PARAMETERS[ALIASES.get(name, name)].from_text(text), text)
    if request.method == "POST":
        _read_body(request, reader)
    elif request.body():
        raise bad_request("the body of a GET is not read; send the parameters by POST")
    return _resolve(reader.found)


def _read_body(request: Request, reader: _Reader) -> None:
    members = json_object(request, _NAMES, required=False, limit=MAX_BODY_BYTES, nulls=True)
    body = without_mark(request.body())
    for name, value in members.items():
        try:
            text = member_text(body, name)
            taken = PARAMETERS[ALIASES.get(name, name)].from_json(value, text)
        except RecursionError:
            raise bad_request(f"{name}: the value is nested too deep") from None
        reader.take(name, taken, text[: _SHOWN * 4].decode("utf-8", "replace"))


class _Reader:
    """Collects parameters under their SDK names."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._spelled: dict[str, str] = {}

    def take(self, spelling: str, value: Any, shown: str) -> None:
        """Add a parameter with the text to send, ``None`` if the shown value is invalid."""
        name = ALIASES.get(spelling, spelling)
        if value is None:
            form = PARAMETERS[name].form
            raise bad_request(f"{spelling}: {shown[:_SHOWN]!r} is invalid; expected {form}")
        ends = _RANGES.get(name)
        if ends is None:
            self._put(name, spelling, value)
        else:
            for end, bound in zip(ends, value, strict=False):
                self._put(end, spelling, bound)

    def _put(self, name: str, spelling: str, value: str) -> None:
        other = self._spelled.setdefault(name, spelling)
        if name in self.found:
            if other == spelling:
                raise bad_request(f"{spelling} is given twice: in the query string and in the body")
            raise bad_request(f"{spelling} cannot be given together with {other}: both set {name}")
        self.found[name] = value


def _resolve(found: dict[str, str]) -> ViewParameters:
    dev = found.pop("dev", "false") == "true"
    include_docs = found.pop("include_docs", "false") == "true"
    if include_docs:
        _refuse_reducing(found)
    # This is the server's default. Passed explicitly, it would make the SDK treat errors as warnings.
    if found.get("on_error") == "continue":
        del found["on_error"]
    try:
        encoded: dict[str, Any] = {name: _quoted(text) for name, text in found.items()}
    except UnicodeEncodeError:
        raise bad_request("a parameter contains half of a surrogate pair") from None
    size = sum(len(name) + len(text) + 2 for name, text in encoded.items() if name != "keys")
    if size > MAX_URL_BYTES:
        raise bad_request(
            f"the parameters have {size} bytes in percent-encoding; at most {MAX_URL_BYTES} are allowed "
            "without keys"
        )
    return ViewParameters(Query(passthrough=True).update(**encoded), dev, include_docs)


def _quoted(text: str) -> str:
    return text if _UNRESERVED.fullmatch(text) else quote(text, safe="")


def _refuse_reducing(found: dict[str, str]) -> None:
    for name, without in (("reduce", "false"), ("group", "false"), ("group_level", "0")):
        if found.get(name, without) != without:
            raise reduced_documents(f"{name}={found[name]}")


def reduced_documents(what: str) -> Refusal:
    """Return the refusal of ``include_docs`` for reduced rows, which belong to no single document."""
    return bad_request(
        f"include_docs cannot be combined with {what}: a reduced row belongs to no document; "
        "send reduce=false"
    )
