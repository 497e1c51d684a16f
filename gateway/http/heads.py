"""Heads of requests, parsed by llhttp.

llhttp (through httptools) checks every request line and header; this module refuses what llhttp accepts but a
gateway must not accept.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from gateway.http.known import Known
from gateway.http.refusal import Refusal
from gateway.http.request import NOT_READ
from gateway.http.targets import BadTarget, check_host, split_target

if TYPE_CHECKING:
    from gateway.http.ports import Guard, Select

__all__ = [
    "FEW_HEADERS_BYTES",
    "MAX_HEADER_COUNT",
    "METHODS",
    "REQUEST",
    "REQUEST_LINE",
    "UNCACHED",
    "Head",
    "HeadReader",
    "Malformed",
    "Unusual",
    "check_count",
    "collect",
    "malformed",
    "no_host",
    "read_unusual",
]

MAX_HEADER_COUNT = 500
"""Largest number of headers in a request, as in twisted.web."""

FEW_HEADERS_BYTES = 4 * MAX_HEADER_COUNT
"""A head up to this size in bytes cannot have more headers than are allowed."""

METHODS = {
    name.encode("ascii"): name
    for name in ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE")
}

REQUEST_LINE = re.compile(
    rb"(%b) (/[\x21-\x3e\x40-\x7e]*)(?:\?([\x21-\x7e]*))? HTTP/1\.1\r\n" % b"|".join(METHODS)
)
"""The usual request line; its groups are a method of :data:`METHODS`, the path, and the query or ``None``.
llhttp accepts every line that matches."""

REQUEST = re.compile(REQUEST_LINE.pattern + rb"((?s:.*))")
"""A head with such a line; another group has what follows the line."""

_ANY_REQUEST_LINE = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+) ([^ \r\n]+) HTTP/([0-9])\.([0-9])\r\n")
_NO_TARGET_BYTE = re.compile(rb"[^\x21-\x7e]")
_EMPTY_LINE = b"\r\n\r\n"
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Malformed(Exception):
    """The bytes are not a request; the text says why."""


_ORIGIN = re.compile(rb"\r\norigin:[ \t]*([\x21-\x7e]+)[ \t]*(?=\r\n)", re.IGNORECASE)


class HeadTooLarge(Refusal):
    """A head is too large (431).

    :param head: the part of the head that has arrived, unparsed.
    """

    def __init__(self, message: str, head: bytes) -> None:
        super().__init__("HeadersTooLarge", message, "")
        found = _ORIGIN.findall(head)
        self.headers_seen: dict[bytes, Any] = {b"origin": found[0]} if len(found) == 1 else {}
        """The ``Origin`` header, if it has arrived: the answer needs it, or a browser hides the answer from
        the page."""


# A cache of valid values of Host: a server has few names, but clients can send others.
_good_hosts: Known[bytes, None] = Known(256)
_LONGEST_GOOD_HOST = 256


def _check_host(host: bytes) -> None:
    try:
        check_host(host)
    except BadTarget as error:
        raise Malformed(str(error)) from None
    if len(host) <= _LONGEST_GOOD_HOST:
        _good_hosts.learn(host, None)


def collect(begun: bytes, data: bytes, limit: int) -> tuple[bytes, int]:
    """Append received bytes to the beginning of a head.

    :param begun: the beginning of the head that has arrived so far.
    :param limit: largest size of a head in bytes.
    :returns: all received bytes, and the position of the head's end; 0 if the head is not complete yet.
    :raises Malformed: the bytes cannot become a head.
    :raises Refusal: 431, the head is too long.
    """
    start = 0
    if begun:
        start = max(0, len(begun) - 3)
        data = begun + data
    # Some clients send an empty line after a body (RFC 9112 2.2).
    if data.startswith(b"\r\n"):
        data, start = _EMPTY_LINES.sub(b"", data, count=1), 0
    end = data.find(_EMPTY_LINE, start) + 4
    if (end if end > 3 else len(data)) > limit:
        raise HeadTooLarge(f"Request line and headers exceed {limit} bytes.", data)
    if end > 3:
        return data, end
    if data.count(b"\n") != data.count(b"\r\n") or (data and not _TOKEN.match(data) and data != b"\r"):
        raise Malformed("the request is not well-formed HTTP/1.1")
    return data, 0


def check_count(head: bytes) -> None:
    """Refuse a head with too many headers; raises Refusal (431)."""
    if head.count(b"\r\n") - 2 > MAX_HEADER_COUNT:
        raise HeadTooLarge(f"The request has more than {MAX_HEADER_COUNT} headers.", head)


class Head:
    """The content of a head, without its first line."""

    __slots__ = ("around", "closes", "has_body", "headers", "length", "selective", "varying", "visit")

    def __init__(self, headers: dict[bytes, Any], has_body: bool) -> None:
        """Read the headers that matter to the connection.

        :raises Malformed: the body's length is ambiguous, or ``Host`` is invalid.
        """
        self.headers = headers
        """See :data:`gateway.http.request.HeaderTable`; never changed."""
        self.has_body = has_body
        self.varying: tuple[bytes, ...] = ()
        """Names of the headers whose values are not cached, in the order of the head."""
        self.around: tuple[bytes, bytes, int, int, bytes] | None = None
        """If there is one of them: the bytes behind the first line and before its value, and those behind
        it; the length of the first, and that of the second, negative; its name."""
        self.visit: Any = None
        """Result of the application's guard, stored here by the application."""
        self.selective: Any = NOT_READ
        """See :attr:`gateway.http.request.Request.selective`."""
        self.length: int | None = 0
        """Length of the body in bytes; ``None`` if it is chunked."""
        # Not headers.get(), which is slower: with credentials this runs for every request.
        if b"host" in headers and headers[b"host"] not in _good_hosts:
            _check_host(headers[b"host"])
        self.closes = b"connection" in headers and _wants_close(headers[b"connection"])
        """Whether this is the last request of the connection."""
        if has_body:
            coding = headers.get(b"transfer-encoding")
            if coding is None and b"content-length" in headers:
                # llhttp has checked its digits.
                self.length = int(headers[b"content-length"])
            elif coding is None:
                raise Malformed("the request is not well-formed HTTP/1.1: there is data after its headers")
            elif isinstance(coding, bytes) and coding.lower() == b"chunked":
                self.length = None
            else:
                raise Malformed("Transfer-Encoding: expected 'chunked', once")


# Headers whose values are not cached: they may be secrets, or they differ from request to request and would
# only displace others.
UNCACHED = frozenset(
    {
        *(b"authorization", b"cookie", b"proxy-authorization", b"x-api-key"),
        *(b"traceparent", b"tracestate", b"x-request-id", b"forwarded", b"x-forwarded-for", b"x-real-ip"),
    }
)
# Lines of these headers, and of conditions with a version, as nearly all clients write them; all others are
# left to llhttp. The groups are the text before the value, and the value. llhttp accepts such values and does
# not trim them; the line has no continuation.
_VARYING = re.compile(
    rb"\n((?:[Aa]uthorization|[Cc]ookie|[Tt]race(?:parent|state)|[Ff]orwarded|[Ii]f-(?:[Nn]one-)?[Mm]atch"
    rb"|[Pp]roxy-[Aa]uthorization|[Xx]-(?:[Aa][Pp][Ii]-[Kk]ey|[Rr]equest-[Ii][Dd]|[Ff]orwarded-[Ff]or"
    rb"|[Rr]eal-[Ii][Pp])): )([!-)+-~](?:[ -~]*[!-~])?)(?=\r\n[^ \t])"
)
_VALUE = re.compile(rb"[!-)+-~](?:[ -~]*[!-~])?")
"""The second group of the expression."""
_KNOWN = 512
_LONGEST_KNOWN = 1024


class HeadReader:
    """Parses heads, one at a time. Each head is complete, so one reader serves many connections.

    llhttp passes each header to a function. Here these functions are methods of a dict and a list, which cost
    a tenth of a Python function; a head with a repeated header is then parsed once more.

    A client sends the same headers with each request, so the bytes after the first line are cached with
    llhttp's result, which does not depend on the first line if that has the usual form. Where headers have
    secrets, or values that differ each time, these are cut out, and the rest is cached.

    :param guard: the application's guard, which looks at each new head once.
    :param select: the application's function for the headers that must not be ignored; also called once.
    """

    def __init__(self, guard: Guard | None = None, select: Select | None = None) -> None:
        self._guard = guard
        self._select = select
        # Bytes of a head without the values that were cut out -> a head with empty values in their place.
        self._templates: Known[tuple[bytes, ...], Head] = Known(_KNOWN)
        # The entry that was used last, if one value is cut out: the next head is probably from the same
        # client, or from another one that runs the same program.
        self._latest: Head | None = None
        self.known: Known[bytes, Head] = Known(_KNOWN)
        """Cache: bytes after a line that :data:`REQUEST_LINE` matches -> their head. They include a Host
        header."""
        self._found: dict[bytes, bytes] = {}
        self._announced: list[bool] = []
        self._callbacks = SimpleNamespace(
            on_header=self._found.__setitem__, on_message_complete=self._announced.clear
        )
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._parser = HttpRequestParser(self._callbacks)
        self._is_used = False

    def new(self, head: bytes, behind: bytes) -> tuple[Head, dict[bytes, Any]]:
        """Return a head that :attr:`known` does not have, and its headers.

        :param head: it matches :data:`REQUEST`.
        :param behind: what follows its first line.
        :raises Malformed: it is not a head of HTTP/1.1.
        """
        latest = self._latest
        if latest is not None:
            before, after, size, end, name = latest.around  # type: ignore[misc]  # as only those are kept
            if behind.endswith(after) and behind.startswith(before):
                value = behind[size:end]
                if _VALUE.fullmatch(value):
                    # The result that the expression would give.
                    headers = latest.headers.copy()
                    headers[name] = value
                    return latest, headers
        pieces = _VARYING.split(head)
        pieces[0] = pieces[0][len(head) - len(behind) :]
        values: list[bytes] = []
        if len(pieces) > 1:
            values = pieces[2::3]
            del pieces[2::3]
            template = self._templates.get(tuple(pieces))
            if template is not None:
                headers = template.headers.copy()
                # Not update() with pairs, which costs three times as much for one or two items.
                for name in template.varying:
                    headers[name] = values.pop(0)
                if template.around is not None:
                    self._latest = template
                return template, headers
        read = self.read(head)
        headers = read.headers
        if b"host" not in headers:
            raise no_host()
        names = tuple([piece[:-2].lower() for piece in pieces[1::2]])
        # A secret header that is repeated, or was not cut out, must not be cached.
        is_known = sum(map(len, pieces)) <= _LONGEST_KNOWN and (
            UNCACHED.intersection(headers).issubset(names)
            and all(headers.get(name) == value for name, value in zip(names, values, strict=True))
        )
        if is_known and values:
            # The cached head must not have these values.
            read.varying = names
            read.headers = {**headers, **dict.fromkeys(names, b"")}
            if len(names) == 1:
                # The expression has consumed a line feed.
                first = pieces[0] + b"\n" if pieces[0] else b""
                before, after = first + pieces[1], pieces[2]
                read.around = before, after, len(before), -len(after), names[0]
        guard = self._guard
        if guard is not None and not guard.names.isdisjoint(headers):
            read.visit = guard.look(read.headers)
        if self._select is not None:
            read.selective = self._select(read.headers, read.varying)
        if is_known and values:
            self._templates.learn(tuple(pieces), read)
        elif is_known:
            self.known.learn(pieces[0], read)
        return read, headers

    def read(self, head: bytes) -> Head:
        """Parse a head.

        :param head: from the request line to the empty line.
        :raises Malformed: it is not a head of HTTP/1.1.
        """
        found, announced = self._found, self._announced
        found.clear()
        # This state is reset when the message ends with its head.
        announced.append(True)
        try:
            self._parser.feed_data(head)
        except HttpParserUpgrade:
            # Upgrades to other protocols are not supported, and RFC 9110 7.8 lets a server ignore them.
            # llhttp would treat the following bytes as the other protocol's, so it must not see that header.
            self._begin_anew()
            return self.read(_UPGRADE.sub(rb"\r\nX-Not-Upgraded:", head))
        except HttpParserError as error:
            was_used = self._is_used
            self._begin_anew()
            if was_used:
                # llhttp refuses input after a request that announces itself as the last one (also by
                # `Proxy-Connection: close`), but the next head may belong to another connection.
                return self.read(head)
            raise malformed(error) from None
        self._is_used = True
        has_body = bool(announced)
        if has_body:
            announced.clear()
            # Bodies are read elsewhere; start afresh so that llhttp does not read the next head as a body.
            self._begin_anew()
        # Not a comprehension, which costs more: with credentials this runs for every request.
        headers: dict[bytes, Any] = dict(zip(map(bytes.lower, found), found.values(), strict=True))
        if head.count(b"\r\n") != len(headers) + 2:
            headers = _with_repeated(head)
        if b" \r\n" in head or b"\t\r\n" in head:
            for name, value in headers.items():
                if isinstance(value, list):
                    headers[name] = [one.rstrip(b" \t") for one in value]
                else:
                    headers[name] = value.rstrip(b" \t")
        return Head(headers, has_body)


class _Repeated:
    """Collects the headers of a head that repeats some."""

    def __init__(self) -> None:
        self.headers: dict[bytes, Any] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by httptools: a header."""
        name = name.lower()
        known = self.headers.get(name)
        if known is None:
            self.headers[name] = value
        elif isinstance(known, list):
            known.append(value)
        else:
            self.headers[name] = [known, value]


def _with_repeated(head: bytes) -> dict[bytes, Any]:
    found = _Repeated()
    HttpRequestParser(found).feed_data(head)
    if isinstance(found.headers.get(b"host"), list):
        raise Malformed("Host is given more than once")
    return found.headers


class Unusual(NamedTuple):
    """A request whose first line is not of the usual form."""

    line: tuple[str, bytes, bytes]
    """Method, path and query."""
    headers: dict[bytes, Any]
    """The headers, as in ``head``, except for the host of an absolute URL."""
    is_1_1: bool
    """Whether the client speaks HTTP/1.1 or later; otherwise it speaks HTTP/1.0."""
    head: Head


def read_unusual(head: bytes, reader: HeadReader) -> Unusual:
    """Parse a head whose first line :data:`REQUEST_LINE` does not match: another method or version, an
    absolute URL.

    :raises Malformed: it is not a head of HTTP/1.
    """
    method, target, is_1_1, head = _unusual_line(head)
    read = reader.read(head)
    try:
        target, host = split_target(method, target)
    except BadTarget as error:
        raise Malformed(str(error)) from None
    path, _, query_string = target.partition(b"?")
    headers = read.headers
    if host is not None:
        # RFC 9112 3.2.2: the URL's host takes precedence.
        headers = headers | {b"host": host}
    if not is_1_1 and b"transfer-encoding" in read.headers:
        # RFC 9112 6.1: an intermediary may have misread the body.
        raise Malformed("HTTP/1.0 has no Transfer-Encoding")
    if is_1_1 and b"host" not in read.headers:
        raise no_host()
    return Unusual((method.decode("ascii"), path, query_string), headers, is_1_1, read)


def _unusual_line(head: bytes) -> tuple[bytes, bytes, bool, bytes]:
    """Return method, target, whether the version is 1.1 or later, and the head in a form for llhttp.

    The returned head has a request line of the usual form: llhttp knows a fixed list of methods and versions,
    and the line does not affect how it parses the rest.
    """
    line = _ANY_REQUEST_LINE.match(head)
    if line is None:
        raise Malformed(_wrong_line(head))
    method, target, major, minor = line.groups()
    if major != b"1":
        version = f"HTTP/{major.decode('ascii')}.{minor.decode('ascii')}"
        raise Malformed(f"{version} is not supported; expected HTTP/1.1")
    if _NO_TARGET_BYTE.search(target):
        raise Malformed(
            "the request target has bytes that must be percent-encoded: control characters, and "
            "those of characters beyond ASCII in UTF-8; '%C3%A9' stands for an e with an acute accent"
        )
    # A client of a later minor version understands HTTP/1.1 too (RFC 9110 6.2).
    is_1_1 = minor != b"0"
    return method, target, is_1_1, b"PUT / HTTP/1.%d\r\n%b" % (is_1_1, head[line.end() :])


def _wrong_line(head: bytes) -> str:
    """Return what is wrong with the first line of a request."""
    text = "the request is not well-formed HTTP/1.1: its first line is not a request line"
    if head.partition(b"\r\n")[0].count(b" ") > 2:
        return f"{text}; expected one blank before and one after the target, and '%20' for a blank within it"
    return text


def _wants_close(connection: bytes | list[bytes]) -> bool:
    """Return whether the options of ``Connection`` announce the last request."""
    text = connection if isinstance(connection, bytes) else b",".join(connection)
    return b"close" in [option.strip().lower() for option in text.split(b",")]


def no_host() -> Malformed:
    """Return why a request without ``Host`` is refused."""
    # RFC 9112 3.2: a proxy may have used another request's host.
    return Malformed("HTTP/1.1 requires a Host header")


def malformed(error: HttpParserError) -> Malformed:
    """Return the error for a failure of llhttp."""
    return Malformed(f"the request is not well-formed HTTP/1.1: {error}")
