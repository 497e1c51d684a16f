"""What handlers answer with. Nothing here knows of a transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.web.http import RESPONSES

from gateway.http.encoding import any_json

__all__ = ["REASONS", "BodyProducer", "BodySink", "Headers", "RenderedResponse", "Response", "json_response"]

Headers = Sequence[tuple[bytes, bytes]]

UNBUFFERED = (b"X-Accel-Buffering", b"no")
"""Makes nginx pass on an answer as it comes, which else waits until a buffer is full."""

JSON_TYPE = (b"Content-Type", b"application/json")

# What twisted.web lacks, or calls by an old name (RFC 9110 15, RFC 6585).
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
"""What status lines say behind the status."""


class BodySink(Protocol):
    """Where a :class:`BodyProducer` puts the body."""

    def write(self, data: bytes) -> None:
        """Send a part of the body, of any size but not empty."""

    def finish(self) -> None:
        """The body is complete."""

    def abort(self) -> None:
        """The body cannot be completed: close the connection so that the caller sees the cut.

        What was written before is delivered.
        """


class BodyProducer(Protocol):
    """A body made while it is sent.

    After ``start`` it may write at any time, except between ``pause`` and ``resume``.
    """

    def start(self, sink: BodySink) -> None:
        """Begin to write into ``sink``."""

    def pause(self) -> None:
        """The client reads slower than this writes: write nothing more."""

    def resume(self) -> None:
        """The client has caught up."""

    def cancel(self) -> None:
        """The client is gone: stop all work; the sink takes nothing more."""


class Response:
    """Status, headers and body of an answer.

    :param headers: name and value pairs, in order; content length, date, connection and request
        id are the channel's business.
    :param body: bytes, or a producer for a body whose length nobody knows yet.
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

    def block(self) -> bytes:
        """Return the headers as they are sent, each with its line end.

        :raises ValueError: a name or value holds a line end, which would let it forge what follows.
        """
        headers = self._headers
        if headers is None:
            return self._block
        block = b"".join([b"%b: %b\r\n" % header for header in headers])
        if block.count(b"\n") != len(headers) or block.count(b"\r") != len(headers):
            raise ValueError("a header of the answer holds a line end")
        return block


class RenderedResponse(Response):
    """An answer whose headers are made as the bytes that are sent: for the requests that come by the
    thousand.

    :param block: lines ``Name: value`` with ``\\r\\n`` behind each. Nothing of a client's making may get into
        it unchecked: it is sent as it is.
    """

    __slots__ = ()

    def __init__(self, status: int, block: bytes, body: bytes | BodyProducer = b"") -> None:
        self.status = status
        self._headers = None
        self._block = block
        self.body = body


def json_response(value: object, status: int = 200, headers: Headers = ()) -> Response:
    """Return ``value`` as an ``application/json`` answer."""
    return Response(status, [JSON_TYPE, *headers], any_json(value))
