"""Heads of requests, and chunks of their bodies, as llhttp reads them.

llhttp (by httptools) judges every request line, header and chunk; what it lets through and a gateway must not
is refused here.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from gateway.dialect.errors import Refusal
from gateway.http.targets import BadTarget, check_host

__all__ = [
    "METHODS",
    "REQUEST_LINE",
    "ChunkReader",
    "Head",
    "HeadReader",
    "Malformed",
    "read_unusual_line",
]

METHODS = {
    name.encode("ascii"): name
    for name in ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE")
}

REQUEST_LINE = re.compile(
    rb"(%b) (/[\x21-\x3e\x40-\x7e]*)(?:\?([\x21-\x7e]*))? HTTP/1\.1\r\n" % b"|".join(METHODS)
)
"""The usual form; its groups are a method of :data:`METHODS`, the path, and the query or ``None``. llhttp
takes every line that matches."""

_ANY_REQUEST_LINE = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+) ([^ \r\n]+) HTTP/([0-9])\.([0-9])\r\n")
_NO_TARGET_BYTE = re.compile(rb"[^\x21-\x7e]")
_EMPTY_LINE = b"\r\n\r\n"
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Malformed(Exception):
    """The bytes are no request; the text tells why."""


# Values of Host that were found valid: a server has few names, but anyone can send others.
_good_hosts: set[bytes] = set()
_GOOD_HOSTS = 256
_LONGEST_GOOD_HOST = 256


def _check_host(host: bytes) -> None:
    try:
        check_host(host)
    except BadTarget as error:
        raise Malformed(str(error)) from None
    if len(host) <= _LONGEST_GOOD_HOST:
        if len(_good_hosts) >= _GOOD_HOSTS:
            _good_hosts.clear()
        _good_hosts.add(host)


class Head:
    """What a head says, apart from its first line."""

    __slots__ = ("closes", "has_body", "headers", "length", "visit")

    def __init__(self, headers: dict[bytes, Any], has_body: bool) -> None:
        """Read what matters to the connection.

        :raises Malformed: the body's length cannot be told for sure, or ``Host`` is invalid.
        """
        self.headers = headers
        """See :data:`gateway.http.request.HeaderTable`; nobody changes it."""
        self.has_body = has_body
        self.visit: Any = None
        """What the application's guard has found; whoever asks it keeps it here."""
        self.length: int | None = 0
        """Bytes of the body; ``None`` if it is chunked."""
        # Not headers.get(): for callers with credentials this is done for every request.
        if b"host" in headers and headers[b"host"] not in _good_hosts:
            _check_host(headers[b"host"])
        self.closes = b"connection" in headers and _wants_close(headers[b"connection"])
        """Whether this is the last request of the connection."""
        if has_body:
            coding = headers.get(b"transfer-encoding")
            if coding is None and b"content-length" in headers:
                # llhttp has judged its digits.
                self.length = int(headers[b"content-length"])
            elif coding is None:
                raise Malformed("the request is not well-formed HTTP/1.1: it does not end with its headers")
            elif isinstance(coding, bytes) and coding.lower() == b"chunked":
                self.length = None
            else:
                raise Malformed("Transfer-Encoding: only 'chunked' is understood, and only once")


# What is not remembered, as it may be a secret.
_SECRETS = frozenset({b"authorization", b"cookie", b"proxy-authorization"})
_KNOWN = 512
_LONGEST_KNOWN = 1024


class HeadReader:
    """Reads heads, one after the other. Each is there in full, so one reader serves many connections.

    llhttp hands each header to a function. What it is given here are methods of a dict and a list, which
    costs a tenth of a function in Python; heads in which a header comes twice are then read once more.

    A client sends the same headers with each request, so what stands behind the first line is remembered with
    what llhttp made of it: what it makes of the same bytes behind another line of the usual form is the same.
    """

    __slots__ = ("_announced", "_callbacks", "_found", "_is_used", "_parser", "known")

    def __init__(self) -> None:
        self.known: dict[bytes, Head] = {}
        """Bytes behind a line that :data:`REQUEST_LINE` matches -> what they say. They name a host."""
        self._found: dict[bytes, bytes] = {}
        self._announced: list[bool] = []
        self._callbacks = SimpleNamespace(
            on_header=self._found.__setitem__, on_message_complete=self._announced.clear
        )
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._parser = HttpRequestParser(self._callbacks)
        self._is_used = False

    def remember(self, behind: bytes, head: Head) -> None:
        """Put a head among those known, if that is wise."""
        if len(behind) <= _LONGEST_KNOWN and _SECRETS.isdisjoint(head.headers):
            if len(self.known) >= _KNOWN:
                self.known.clear()
            self.known[behind] = head

    def read(self, head: bytes) -> Head:
        """Read a head.

        :param head: from the request line to the empty line.
        :raises Malformed: it is no head of HTTP/1.1.
        """
        found, announced = self._found, self._announced
        found.clear()
        # Taken away again when the message ends with its head.
        announced.append(True)
        try:
            self._parser.feed_data(head)
        except HttpParserUpgrade:
            # Other protocols are not spoken here, which RFC 9110 7.8 lets a server pass over. llhttp
            # takes what follows for the other protocol's, so it must not see that header.
            self._begin_anew()
            return self.read(_UPGRADE.sub(rb"\r\nX-Not-Upgraded:", head))
        except HttpParserError as error:
            was_used = self._is_used
            self._begin_anew()
            if was_used:
                # llhttp takes nothing behind a request that says it is the last one (so does, to llhttp,
                # `Proxy-Connection: close`), while this head is the first of another connection, or to be
                # judged by itself.
                return self.read(head)
            raise _malformed(error) from None
        self._is_used = True
        has_body = bool(announced)
        if has_body:
            announced.clear()
            # The body is none of this reader's: llhttp must not take the next head for it.
            self._begin_anew()
        # Not a comprehension, which costs more: with credentials this is done for every request.
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
    """Headers of a head in which some come more than once."""

    def __init__(self) -> None:
        self.headers: dict[bytes, Any] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a header."""
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


class ChunkReader:
    """Reads one chunked body.

    Extensions of chunks are passed over, and so are trailers: what comes behind a body must not change
    what the request was judged by.

    :param max_overhead: bytes that extensions and trailers together may have.
    """

    __slots__ = ("_max_overhead", "_overhead", "_parser", "_parts", "_tail", "is_complete")

    def __init__(self, max_overhead: int) -> None:
        self.is_complete = False
        self._max_overhead = max_overhead
        self._overhead = 0
        self._parts: list[bytes] = []
        self._tail = b""
        self._parser = HttpRequestParser(self)
        self._parser.feed_data(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")

    def read(self, data: bytes) -> tuple[bytes, int]:
        """Take what has arrived.

        :returns: what of the body was in ``data``, and where in it the chunks end, or end for now.
        :raises Malformed: the chunks are broken.
        :raises Refusal: 431, extensions or trailers are too long.
        """
        try:
            end = self._feed(data)
        except HttpParserError as error:
            raise _malformed(error) from None
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        # What sizes, line ends and a signature of each chunk take is allowed to any length.
        size = len(body)
        self._overhead = max(0, self._overhead + end - size - 16 * len(parts) - 2 * size)
        parts.clear()
        if self._overhead > self._max_overhead:
            raise Refusal("HeadersTooLarge", "Chunk extensions or trailers are too long.", resource="")
        return body, end

    def _feed(self, data: bytes) -> int:
        # A message ends with an empty line, so nothing behind one is given to llhttp before it is known
        # whether the message ended there.
        view = memoryview(data)
        start = 0
        while start < len(data) and not self.is_complete:
            tail = self._tail
            found = (tail + data[start : start + 3]).find(_EMPTY_LINE)
            if found >= 0:
                end = start + found + 4 - len(tail)
            else:
                found = data.find(_EMPTY_LINE, start)
                end = found + 4 if found >= 0 else len(data)
            self._tail = (tail + data[max(start, end - 3) : end])[-3:]
            self._parser.feed_data(view[start:end])
            start = end
        return start

    def close(self) -> None:
        """Let go of the parser, which refers to this object."""
        del self._parser

    def on_body(self, data: bytes) -> None:
        """httptools: a part of the body."""
        self._parts.append(data)

    def on_message_complete(self) -> None:
        """httptools: the body has ended."""
        self.is_complete = True


def read_unusual_line(head: bytes) -> tuple[bytes, bytes, bool, bytes]:
    """Read a request line that :data:`REQUEST_LINE` does not match: another method or version, a whole URL.

    :returns: method, target, whether the version is 1.1 or later (else it is 1.0), and the head as llhttp
        takes it: with a line of its usual form, as it knows a list of methods and versions, and nothing in
        the line means anything to how it reads.
    :raises Malformed: it is no request line of HTTP/1.
    """
    line = _ANY_REQUEST_LINE.match(head)
    if line is None:
        raise Malformed(_wrong_line(head))
    method, target, major, minor = line.groups()
    if major != b"1":
        version = f"HTTP/{major.decode('ascii')}.{minor.decode('ascii')}"
        raise Malformed(f"{version} is not spoken here; HTTP/1.1 is")
    if _NO_TARGET_BYTE.search(target):
        raise Malformed(
            "the request target has bytes that must be percent-encoded: control bytes, and those of letters "
            "beyond ASCII in UTF-8; '%C3%A9' stands for an e with an acute accent"
        )
    # Whoever speaks a later minor version understands HTTP/1.1 too (RFC 9110 6.2).
    is_1_1 = minor != b"0"
    return method, target, is_1_1, b"PUT / HTTP/1.%d\r\n%b" % (is_1_1, head[line.end() :])


def _wrong_line(head: bytes) -> str:
    """Return what is wrong with the first line of a request."""
    text = "the request is not well-formed HTTP/1.1: its first line is no request line"
    if head.partition(b"\r\n")[0].count(b" ") > 2:
        return f"{text}; one blank stands before and behind the target, and in it a blank is '%20'"
    return text


def _wants_close(connection: bytes | list[bytes]) -> bool:
    """Tell whether the options of ``Connection`` say that this is the last request."""
    text = connection if isinstance(connection, bytes) else b",".join(connection)
    return b"close" in [option.strip().lower() for option in text.split(b",")]


def _malformed(error: HttpParserError) -> Malformed:
    """Return what to answer to what llhttp found."""
    return Malformed(f"the request is not well-formed HTTP/1.1: {error}")
