"""Responses of handlers, independent of any transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.web.http import RESPONSES

from gateway.http.encoding import any_json

__all__ = [
    "REASONS",
    "BodyProducer",
    "BodySink",
    "Headers",
    "RenderedResponse",
    "Response",
    "header_block",
    "json_response",
]

Headers = Sequence[tuple[bytes, bytes]]

UNBUFFERED = (b"X-Accel-Buffering", b"no")
"""Header that makes nginx forward an answer as it arrives, instead of waiting until a buffer is full."""

JSON_TYPE = (b"Content-Type", b"application/json")

# Statuses that twisted.web lacks, or for which it has an old name (RFC 9110 15, RFC 6585).
REASONS = dict(RESPONSES) | {
    413: b"Content Too Large",
    414: b"URI Too Long",
    416: b"Range Not Satisfiable",
    421: b"Misdirected Request",
    422: b"Unprocessable Content",
    428: b"Precondition Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    499: b"Client Closed Request",
    511: b"Network Authentication Required",
}
"""Status -> reason phrase."""


class BodySink(Protocol):
    """The receiver of a :class:`BodyProducer`'s body."""

    def write(self, data: bytes) -> None:
        """Send a part of the body, of any size but not empty."""

    def finish(self) -> None:
        """End the body: it is complete."""

    def abort(self) -> None:
        """Close the connection, so that the client notices that the body is incomplete.

        Parts written before are still delivered.
        """


class BodyProducer(Protocol):
    """A body produced while it is sent.

    After ``start`` it may write at any time, except between ``pause`` and ``resume``.
    """

    def start(self, sink: BodySink) -> None:
        """Begin to write into ``sink``."""

    def pause(self) -> None:
        """Stop writing: the client reads more slowly than the producer writes."""

    def resume(self) -> None:
        """Continue to write: the client has caught up."""

    def cancel(self) -> None:
        """Stop all work: the client is gone, and the sink accepts nothing more."""


class Response:
    """Status, headers and body of an answer.

    :param headers: name and value pairs, in order; the channel adds content length, date, connection and
        request id.
    :param body: bytes, or a producer for a body of unknown length.
    """

    __slots__ = ("_block", "_headers", "body", "status")

    _headers: Headers | None

    def __init__(self, status: int, headers: Headers = (), body: bytes | BodyProducer = b"") -> None:
        self.status = status
        self._headers = headers
        self._block = b""
        self.body = body

    @property
    def headers(self) -> Headers:
        """The headers; assigning replaces them."""
        if self._headers is None:
            lines = self._block.split(b"\r\n")[:-1]
            self._headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        return self._headers

    @headers.setter
    def headers(self, headers: Headers) -> None:
        self._headers = headers

    def add(self, headers: Headers, block: bytes) -> None:
        """Append headers.

        :param block: the same headers as :meth:`block` would return them, for callers that add them often.
        """
        if self._headers is None:
            self._block += block
        else:
            self._headers = [*self._headers, *headers]

    def block(self) -> bytes:
        """Return the headers as sent, each with its newline.

        :raises ValueError: a name or value contains a newline, which would allow forged headers.
        """
        headers = self._headers
        if headers is None:
            return self._block
        return header_block(headers)


class RenderedResponse(Response):
    """An answer whose headers are given as the bytes to send: for the most frequent requests.

    :param block: lines ``Name: value`` with ``\\r\\n`` behind each. It is sent unchanged, so it must not
        contain unchecked input of a client.
    """

    __slots__ = ()

    def __init__(self, status: int, block: bytes, body: bytes | BodyProducer = b"") -> None:
        self.status = status
        self._headers = None
        self._block = block
        self.body = body


def header_block(headers: Headers) -> bytes:
    """Return headers as sent, each with its newline.

    :raises ValueError: a name or value contains a newline, which would allow forged headers.
    """
    block = b"".join([b"%b: %b\r\n" % header for header in headers])
    if block.count(b"\n") != len(headers) or block.count(b"\r") != len(headers):
        raise ValueError("a header of the answer contains a line end")
    return block


def json_response(value: object, status: int = 200, headers: Headers = ()) -> Response:
    """Return ``value`` as an ``application/json`` answer."""
    return Response(status, [JSON_TYPE, *headers], any_json(value))
