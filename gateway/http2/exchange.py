"""The form of an answer in HTTP/2: header fields, and a body in DATA frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpack.struct import NeverIndexedHeaderTuple
from twisted.web.http_headers import Headers as WebHeaders

from gateway.http.exchange import NO_BODY, Exchange
from gateway.http.kleinfallback import WebChannel
from gateway.http.known import Known
from gateway.http.outlet import Outlet
from gateway.http.response import BodyProducer, Headers, Response

if TYPE_CHECKING:
    from gateway.http2.stream import Stream

__all__ = ["StreamExchange", "WebStream", "answer_fields"]

_OF_CONNECTION = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
# Headers that differ from answer to answer, which must not go into the table of repeated headers.
_UNIQUE = frozenset({b"x-request-id", b"etag", b"x-cb-mutationtoken", b"content-length"})

_lower: Known[bytes, bytes] = Known(512)


def answer_fields(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer as HTTP/2 sends them.

    :raises ValueError: a name or value contains a newline, which would end the header after a translation to
        HTTP/1.1.
    """
    fields: list[tuple[bytes, bytes]] = []
    for given, value in headers:
        name = _lower.get(given) or _lower.learn(given, given.lower())
        if name in _OF_CONNECTION:
            continue
        if b"\n" in value or b"\r" in value or b"\n" in name or b"\r" in name:
            raise ValueError("a header of the answer contains a line end")
        fields.append(NeverIndexedHeaderTuple(name, value) if name in _UNIQUE else (name, value))
    return fields


class WebStream(WebChannel):
    """The channel of a request of twisted.web that arrived on a stream."""

    _channel: Stream

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: WebHeaders) -> None:
        """Send the headers."""
        answer = self._exchange.klein_answers(int(code), headers)
        pairs = [(name, value) for name, values in answer.getAllRawHeaders() for value in values]
        self._channel.begin([(b":status", code), *answer_fields(pairs)])

    def write(self, data: bytes) -> None:
        """Send a part of the body."""
        self._channel.write(data)

    def writeSequence(self, iovec: list[bytes]) -> None:
        """Send parts of the body."""
        self._channel.write(b"".join(iovec))


class StreamExchange(Exchange):
    """A request on an HTTP/2 stream."""

    http_version = b"2.0"
    web_channel = WebStream
    _channel: Stream

    def make_head(self, response: Response) -> list[tuple[bytes, bytes]]:
        """Return the header fields."""
        status, body = response.status, response.body
        fields = [
            (b":status", b"%d" % status),
            *self._channel.server.always(),
            NeverIndexedHeaderTuple(b"x-request-id", self.id_bytes),
            *answer_fields(response.headers),
        ]
        if isinstance(body, bytes) and status not in NO_BODY:
            fields.append(NeverIndexedHeaderTuple(b"content-length", b"%d" % len(body)))
        return fields

    def begin(self, head: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
        """Send a head, with the whole body or without any of it."""
        self._channel.begin(head)
        if body:
            self._channel.write(body)

    def outlet(self, producer: BodyProducer) -> Outlet:
        """Return the outlet for a produced body."""
        return Outlet(self, self._channel.write, producer, chunked=False)

    @property
    def is_unsent(self) -> bool:
        """Whether some written bytes wait to be sent, which happens at the end of the turn."""
        return True

    def finished(self) -> None:
        """End the answer: all of it is written."""
        self._channel.end()
        super().finished()

    def invite_body(self) -> None:
        """Ask for a body that is wanted, and open its window."""
        if self.waits_to_be_asked:
            self._channel.inform(100)
        self._channel.widen()
