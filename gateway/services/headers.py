"""Headers that pass through a proxy for the cluster's services, in both directions.

Three kinds are removed: headers about one connection (RFC 9110 7.6.1), headers that the gateway writes
itself, and headers that would let a caller act as another user, or let a service speak for the gateway
(cookies, CORS, and those by which parts of the cluster trust each other).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from twisted.web.http_headers import Headers as WebHeaders

from gateway.http.request import HeaderTable, Request
from gateway.http.tracecontext import forwarded

__all__ = ["answer_headers", "request_headers"]

_HOPS = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)

_NOT_SENT = _HOPS | frozenset(
    b"authorization content-length cookie expect forwarded host http2-settings origin referer via "
    b"traceparent tracestate x-api-key x-real-ip".split()
)

# The first group lets one user act as another (cb-on-behalf-of), or lets a node authenticate as a node.
_NOT_SENT_PREFIXES = (b"cb-on-behalf", b"ns-server-", b"x-forwarded-", b"sec-", b"proxy-")

_NOT_RETURNED = _HOPS | frozenset(
    b"alt-svc clear-site-data content-length content-location content-security-policy "
    b"content-security-policy-report-only date link location origin-agent-cluster public-key-pins refresh "
    b"server set-cookie set-cookie2 sourcemap strict-transport-security via x-content-type-options "
    b"x-request-id".split()
)
_NOT_RETURNED_PREFIXES = (b"access-control-", b"cross-origin-", b"x-accel-")

_INERT = (
    (b"Content-Security-Policy", b"sandbox"),
    (b"X-Content-Type-Options", b"nosniff"),
)
"""Headers that make a page of the cluster inert: it would have the gateway's origin, and could act for its
reader."""

_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _named_by_connection(values: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(name.strip().lower() for value in values for name in value.split(b","))


def request_headers(request: Request, authorization: bytes | None) -> WebHeaders:
    """Return the headers of a client's request for a service.

    :param authorization: the value of ``Authorization`` for the service, ``None`` for none.
    """
    table: HeaderTable = request.headers
    connection = table.get(b"connection", ())
    named = _named_by_connection([connection] if isinstance(connection, bytes) else connection)
    sent = WebHeaders()
    for name, values in table.items():
        # Some programs treat '_' as '-'.
        plain = name.replace(b"_", b"-")
        if plain in _NOT_SENT or name in named or plain.startswith(_NOT_SENT_PREFIXES):
            continue
        sent.setRawHeaders(name, [values] if isinstance(values, bytes) else values)
    if authorization is not None:
        sent.setRawHeaders(b"Authorization", [authorization])
    sent.setRawHeaders(b"X-Request-Id", [request.id_bytes])
    for header, value in forwarded(request).items():
        sent.setRawHeaders(header, [value])
    return sent


def answer_headers(
    answered: WebHeaders, base: str, prefix: bytes, *, is_anyone: bool
) -> list[tuple[bytes, bytes]]:
    """Return the headers of a service's answer for the client.

    :param base: URL of the node that answered.
    :param prefix: path of the gateway below which the service is.
    :param is_anyone: whether the caller has no credentials of its own, so that it must not be asked for any.
    :raises ValueError: a name or a value cannot be a header.
    """
    # Twisted has removed the headers of the connection.
    returned = []
    for name, values in answered.getAllRawHeaders():
        lower = name.lower()
        if lower == b"location" and len(values) == 1:
            place = _location(values[0], base, prefix)
            if place is not None:
                returned.append((b"Location", place))
        if lower in _NOT_RETURNED or lower.startswith(_NOT_RETURNED_PREFIXES):
            continue
        if lower == b"www-authenticate" and is_anyone:
            continue
        if not _NAME.fullmatch(name):
            raise ValueError("the answer has a header whose name is not a token")
        for value in values:
            if _BAD_VALUE.search(value):
                raise ValueError(f"the answer's header {name.decode('ascii')} has control characters")
            returned.append((name, value))
    returned.extend(_INERT)
    return returned


def _location(value: bytes, base: str, prefix: bytes) -> bytes | None:
    """Return the gateway's path for a redirection by the service; ``None`` if it leads anywhere else."""
    try:
        place = urlsplit(value.decode("ascii"))
        node = urlsplit(base)
    except ValueError:
        return None
    is_node = place.scheme in ("", node.scheme) and place.netloc == node.netloc
    if (place.scheme or place.netloc) and not is_node:
        return None
    if not place.path.startswith("/") or _BAD_VALUE.search(value) or b" " in value:
        return None
    query = f"?{place.query}" if place.query else ""
    fragment = f"#{place.fragment}" if place.fragment else ""
    return prefix + f"{place.path}{query}{fragment}".encode("ascii")
