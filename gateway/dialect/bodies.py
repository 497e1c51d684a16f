"""JSON bodies of requests."""

from __future__ import annotations

from typing import Any

from gateway.dialect.contenttypes import JSON, check_charset, media_type
from gateway.dialect.errors import bad_request, too_large
from gateway.dialect.jsontools import read_body
from gateway.http.request import Request

__all__ = ["MAX_JSON_BYTES", "json_object"]

MAX_JSON_BYTES = 64 * 1024
"""Longest JSON body of a request whose members are few and short."""


def json_object(
    request: Request,
    members: frozenset[str],
    *,
    required: bool = True,
    limit: int = MAX_JSON_BYTES,
    nulls: bool = False,
    typed: bool = False,
) -> dict[str, Any]:
    """Return the body as a JSON object.

    Its ``Content-Type`` does not matter unless ``typed``, except that charsets other than UTF-8 are refused;
    programs send JSON under the type of forms, as plain text, or under none. A byte order mark is ignored.

    :param members: the members that the body may have.
    :param required: whether a body is required; if not, a missing one counts as ``{}``.
    :param limit: largest size of the body, in bytes.
    :param nulls: whether ``null`` is a value; else such a member counts as missing, as in the Data API.
    :param typed: whether ``Content-Type`` must be JSON; the Data API requires this where the body is
        optional.
    :raises Refusal: 400 if the body is not JSON, is not an object, has other members, or repeats one; 413 if
        it is too long.
    """
    body = request.body()
    declared = request.header(b"Content-Type") or b""
    takes = "a JSON object with " + ", ".join(sorted(members))
    if not body:
        if required or media_type(declared) == JSON:
            raise bad_request(f"the request has no body; it takes {takes}")
        return {}
    if typed and media_type(declared) != JSON:
        raise bad_request(f"this body needs Content-Type: application/json; it takes {takes}")
    if len(body) > limit:
        raise too_large(f"the request body has more than {limit} bytes")
    check_charset(declared)
    value = read_body(body, takes)
    for name in value:
        if name not in members:
            raise bad_request(f"the body has an unknown member {name[:80]!r}; it takes {takes}")
    return value if nulls else {name: given for name, given in value.items() if given is not None}
