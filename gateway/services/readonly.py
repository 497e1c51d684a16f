"""Enforces read-only statements: ``readonly`` is added to them, and no other parameter may contradict it.

The query and the analytics service take a statement's parameters as JSON or as a form. Names may be in any
case, with blanks around them; with a form, parameters may also be in the query string. The statement that is
sent on has each name once.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from gateway.dialect.errors import Refusal, bad_request
from gateway.dialect.jsontools import RepeatedName, without_mark
from gateway.services.members import read_members

__all__ = ["FORM", "read_only_body", "read_only_query"]

FORM = b"application/x-www-form-urlencoded"
_JSON = b"application/json"
_READONLY = "readonly"


def _plain(name: str) -> str:
    return name.strip().lower()


def _contradiction() -> Refusal:
    return Refusal(
        "ServiceForbidden", "The gateway passes on statements with readonly=true only.", resource=""
    )


def read_only_query(query: bytes) -> bytes:
    """Return the query string of a GET with ``readonly=true``.

    :raises Refusal: 403, the query string contradicts it.
    """
    pairs = _pairs(query)
    if any(_plain(name) == _READONLY for name, _ in pairs):
        return query
    return query + b"&readonly=true" if query else b"readonly=true"


def read_only_body(body: bytes, content_type: bytes, query: bytes) -> bytes:
    """Return the body of a POST with ``readonly`` in it.

    :raises Refusal: 403, the body contradicts it; 400, it is neither JSON nor a form, or repeats a parameter.
    """
    if query:
        raise bad_request("the query string must be empty; expected a statement's parameters in the body")
    kind = content_type.split(b";")[0].strip().lower()
    if kind == FORM:
        pairs = _pairs(body)
        if not any(_plain(name) == _READONLY for name, _ in pairs):
            pairs.append((_READONLY, "true"))
        return urlencode(pairs).encode("ascii")
    if kind != _JSON:
        raise bad_request(
            "Content-Type: expected application/json or application/x-www-form-urlencoded for a statement"
        )
    body = without_mark(body)
    try:
        members = read_members(body)
    except RepeatedName as error:
        raise bad_request(f"the body is invalid: {error}") from None
    except ValueError:
        raise bad_request("the body is not a JSON object") from None
    seen = set()
    for name, value in members.items():
        plain = _plain(name)
        if plain in seen:
            raise bad_request(f"the body is invalid: the member {plain[:80]!r} is given twice")
        seen.add(plain)
        if plain == _READONLY and value != b"true":
            raise _contradiction()
    if _READONLY in seen:
        return body
    return b'{"readonly":true' + (b"," if members else b"") + body.lstrip()[1:]


def _pairs(text: bytes) -> list[tuple[str, str]]:
    """Return the parameters of a form, each given once."""
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError:
        raise bad_request("the parameters are not a form in UTF-8, percent-encoded") from None
    seen = set()
    for name, value in pairs:
        plain = _plain(name)
        if plain in seen:
            raise bad_request(f"the parameter {plain[:80]!r} is given twice")
        seen.add(plain)
        if plain == _READONLY and value.strip().lower() != "true":
            raise _contradiction()
    return pairs
