"""JSON parsing and serialization, with orjson if it is installed, else with the standard library.

This module defines for the whole gateway what counts as JSON: everything that RFC 8259 allows, in UTF-8,
including half a surrogate pair as an escape and numbers beyond the range of doubles (V8, Python and Go accept
both); but not ``NaN``, and at most :data:`couchbase.protocol.jsontext.LEVELS` levels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from couchbase.protocol import jsontext
from couchbase.protocol.jsonparsing import first_repeated, without_collecting
from gateway.dialect.errors import bad_request
from gateway.http.encoding import any_json, dumps

__all__ = [
    "BYTE_ORDER_MARK",
    "NotJson",
    "RepeatedName",
    "any_json",
    "dumps",
    "fast_loads",
    "is_json",
    "loads",
    "loads_unique",
    "read_body",
    "without_mark",
    "writer_of",
]

NotJson = ValueError
"""The exception that :func:`loads` raises; json's and orjson's own errors derive from it."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Byte order mark; ignored before a client's JSON text (RFC 8259, section 8.1)."""

fast_loads: Callable[[bytes], Any]
"""The fastest parser. It accepts only JSON, but it also refuses some valid texts."""

# Longest text that is parsed while the garbage collector may run.
_COLLECTED_BYTES = 16 * 1024


class RepeatedName(ValueError):
    """An object has two members with the same name.

    :ivar name: the name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"the member {name[:80]!r} is given twice")
        self.name = name


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _strict_loads(data: bytes) -> Any:
    try:
        # Decoded here, because json.loads would also accept UTF-16 and UTF-32.
        return json.loads(str(data, "utf-8"), parse_constant=_no_constant, parse_int=jsontext.whole_number)
    except RecursionError:
        raise ValueError("too many levels") from None


try:
    import orjson
except ImportError:  # PyPy
    fast_loads = _strict_loads
else:
    fast_loads = orjson.loads


def loads(data: bytes) -> Any:
    """Parse a JSON text; of a repeated member the last counts.

    :raises NotJson: the text is not JSON, or nested too deep.
    """
    try:
        return fast_loads(data)
    except ValueError:
        return _strict_loads(data)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise RepeatedName(first_repeated(name for name, _ in pairs))
    return members


def loads_unique(data: bytes) -> Any:
    """Parse a JSON text in which no object, at any level, may have two members with the same name.

    A byte order mark before it is ignored.

    :raises RepeatedName: an object has two members with the same name.
    :raises NotJson: see :func:`loads`.
    """
    try:
        if len(data) > _COLLECTED_BYTES:
            with without_collecting():
                return _loads_unique(data)
        return _loads_unique(data)
    except RecursionError:
        raise ValueError("too many levels") from None


def _loads_unique(data: bytes) -> Any:
    return json.loads(
        str(without_mark(data), "utf-8"),
        parse_constant=_no_constant,
        parse_int=jsontext.whole_number,
        object_pairs_hook=_unique,
    )


def read_body(body: bytes, takes: str) -> dict[str, Any]:
    """Return a request's body as a JSON object.

    :param takes: description of the expected body, for the message.
    :raises Refusal: 400 if it is not JSON, not an object, or names a member twice.
    """
    try:
        value = loads_unique(body)
    except RepeatedName as error:
        raise bad_request(f"the body is invalid: {error}") from None
    except ValueError:
        raise bad_request(f"the body is not JSON; it takes {takes}") from None
    if not isinstance(value, dict):
        raise bad_request(f"the body is JSON but not an object; it takes {takes}")
    return value


def without_mark(data: bytes) -> bytes:
    """Return a text without a leading byte order mark."""
    return data[3:] if data.startswith(BYTE_ORDER_MARK) else data


def writer_of(text: bytes, value: Any) -> Callable[[Any], bytes] | None:
    """Return the function that serializes a parsed text to the same text: each of its parts serializes to its
    own text, then, and no object in it repeats a member.

    :returns: ``None`` if none is known to do so, as for a value that is nested very deep.
    """
    try:
        if dumps(value) == text:
            return dumps
        return spaced if len(text) <= _MOST_SPACED_BYTES and spaced(value) == text else None
    except (TypeError, RecursionError):
        # orjson's limit of levels, and that of the standard library.
        return None


def spaced(value: Any) -> bytes:
    """Serialize as Python's json does, and so do programs that use it."""
    return json.dumps(value).encode()


_MOST_SPACED_BYTES = 16 * 1024


def is_json(data: bytes) -> bool:
    """Return whether ``data`` is one JSON text in UTF-8."""
    try:
        fast_loads(data)
    except ValueError:
        return jsontext.is_json(data)
    return True
