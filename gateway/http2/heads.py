"""Parses and checks heads of HTTP/2 requests: pseudo-header fields and headers (RFC 9113 8.2 and 8.3).

h2 decodes them and leaves the checks to this module, because h2 would end the whole connection for one
invalid head, and its other requests may be those of other clients of a proxy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gateway.http.heads import MAX_HEADER_COUNT, METHODS, UNCACHED, Malformed
from gateway.http.known import Known
from gateway.http.refusal import Refusal
from gateway.http.targets import BadTarget, check_host

if TYPE_CHECKING:
    from gateway.http.ports import Select

__all__ = ["Field", "HeadReader", "StreamHead", "check_trailers"]

Field = tuple[bytes, bytes]

_PATH = re.compile(rb"(/[\x21-\x3e\x40-\x7e]*)(?:\?([\x21-\x7e]*))?")
_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_DIGITS = re.compile(rb"[0-9]{1,19}")

_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path"})

# Headers about the connection, which HTTP/2 replaces by frames (RFC 9113 8.2.2).
_OF_CONNECTION = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)

_KNOWN = 512
_LONGEST_KNOWN = 1024


class Rest:
    """The part of a head that clients repeat: its headers, and the host."""

    __slots__ = ("headers", "length", "selective", "size", "visit")

    def __init__(self, authority: bytes | None, fields: Sequence[Field]) -> None:
        self.headers = _table(authority, fields)
        """See :data:`gateway.http.request.HeaderTable`; never changed."""
        self.length = _length_of(self.headers.get(b"content-length"))
        """Length of the body in bytes; ``None`` if it is not announced."""
        self.size = sum(len(name) + len(value) + 4 for name, value in fields)
        self.visit: Any = None
        """Result of the application's guard."""
        self.selective: Any = None
        """See :attr:`gateway.http.request.Request.selective`."""


class StreamHead:
    """A request's head."""

    __slots__ = ("method", "path", "query_string", "rest")

    def __init__(self, method: str, path: bytes, query_string: bytes, rest: Rest) -> None:
        self.method = method
        self.path = path
        self.query_string = query_string
        self.rest = rest


class HeadReader:
    """Reads the heads of all connections.

    :param max_headers: limit on the bytes of a head, counted as in HTTP/1.1.
    :param select: the application's function for the headers that must not be ignored.
    """

    def __init__(self, max_headers: int, select: Select) -> None:
        self._max_headers = max_headers
        self._select = select
        self._known: Known[tuple[Any, ...], Rest] = Known(_KNOWN)
        self.look: Any = None
        """Called with the headers of each new head; its result becomes :attr:`Rest.visit`."""

    def read(self, fields: Sequence[Field]) -> StreamHead:
        """Read a head.

        :param fields: as decoded, in order.
        :raises Malformed: the head is invalid.
        :raises Refusal: 431, the head is too large.
        """
        if len(fields) > MAX_HEADER_COUNT + len(_PSEUDO):
            raise Refusal("HeadersTooLarge", f"The request has more than {MAX_HEADER_COUNT} headers.", "")
        pseudo: dict[bytes, bytes] = {}
        count = 0
        for name, value in fields:
            if name[:1] != b":":
                break
            if name not in _PSEUDO:
                raise Malformed(f"{_shown(name)} is not a pseudo-header field of requests")
            if name in pseudo:
                raise Malformed(f"{_shown(name)} is given more than once")
            pseudo[name] = value
            count += 1
        method, path, query_string = _line(pseudo)
        rest = self._rest(pseudo.get(b":authority"), tuple(fields[count:]))
        if rest.size + len(path) + len(query_string) > self._max_headers:
            raise Refusal("HeadersTooLarge", f"The headers exceed {self._max_headers} bytes.", "")
        return StreamHead(method, path, query_string, rest)

    def _rest(self, authority: bytes | None, fields: tuple[Field, ...]) -> Rest:
        key = (authority, *fields)
        known = self._known.get(key)
        if known is not None:
            return known
        rest = Rest(authority, fields)
        rest.selective = self._select(rest.headers)
        if self.look is not None:
            rest.visit = self.look(rest.headers)
        if rest.size <= _LONGEST_KNOWN and UNCACHED.isdisjoint(rest.headers):
            self._known.learn(key, rest)
        return rest


def check_trailers(fields: Sequence[Field]) -> None:
    """Check the headers after a body, which are then ignored.

    :raises Malformed: a header is invalid.
    """
    for name, value in fields:
        _check_field(name, value)


def _line(pseudo: dict[bytes, bytes]) -> tuple[str, bytes, bytes]:
    """Return method, path and query."""
    method = pseudo.get(b":method")
    if method is None:
        raise Malformed("the request has no :method")
    if method == b"CONNECT":
        raise Malformed("CONNECT is not served: the gateway is not a proxy")
    if not _TOKEN.fullmatch(method):
        raise Malformed(f":method {_shown(method)} is not a token")
    scheme = pseudo.get(b":scheme")
    if scheme is None:
        raise Malformed("the request has no :scheme")
    if scheme.lower() not in (b"http", b"https"):
        raise Malformed(f":scheme {_shown(scheme)} is not served; expected http or https")
    target = pseudo.get(b":path")
    if target is None:
        raise Malformed("the request has no :path")
    match = _PATH.fullmatch(target)
    if match is not None:
        path, query_string = match.groups()
    elif target == b"*" and method == b"OPTIONS":
        path, query_string = target, b""
    elif target[:1] != b"/":
        raise Malformed(f":path {_shown(target)} does not begin with '/'")
    else:
        raise Malformed(
            ":path has bytes that must be percent-encoded: control characters, and those of "
            "characters beyond ASCII in UTF-8; '%C3%A9' stands for an e with an acute accent"
        )
    return METHODS.get(method) or method.decode("ascii"), path, query_string or b""


def _table(authority: bytes | None, fields: Sequence[Field]) -> dict[bytes, Any]:
    headers: dict[bytes, Any] = {}
    for name, value in fields:
        _check_field(name, value)
        known = headers.get(name)
        if known is None:
            headers[name] = value
        elif name == b"host":
            raise Malformed("Host is given more than once")
        elif name == b"cookie":
            # Clients may split Cookie so that it compresses well (RFC 9113 8.2.3).
            headers[name] = known + b"; " + value
        elif isinstance(known, list):
            known.append(value)
        else:
            headers[name] = [known, value]
    host = headers.get(b"host")
    if authority is None and host is None:
        raise Malformed("the request has neither :authority nor Host")
    if authority is not None:
        if host is not None and host != authority:
            raise Malformed(":authority and Host differ")
        headers[b"host"] = authority
    try:
        check_host(headers[b"host"])
    except BadTarget as error:
        raise Malformed(str(error)) from None
    return headers


def _check_field(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        if name[:1] == b":":
            raise Malformed(f"the pseudo-header field {_shown(name)} is out of place")
        raise Malformed(f"the header name {_shown(name)} is not a token in lower case")
    if not _VALUE.fullmatch(value):
        raise Malformed(f"the value of {_shown(name)} has control characters, or blanks around it")
    if name in _OF_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
        raise Malformed(f"{_shown(name)} is a connection header of HTTP/1.1, which HTTP/2 forbids")


def _length_of(given: bytes | list[bytes] | None) -> int | None:
    if given is None:
        return None
    if not isinstance(given, bytes) or not _DIGITS.fullmatch(given):
        raise Malformed("Content-Length is not one number")
    return int(given)


def _shown(value: bytes) -> str:
    return repr(value[:80].decode("latin-1"))
