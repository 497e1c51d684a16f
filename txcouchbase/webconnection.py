"""One HTTP/1.1 connection to a node: sends a request at a time, and passes its answer on as it arrives.

llhttp (through httptools) reads the answers. Failures are those of Twisted's HTTP client, so that callers
need not know which of the two they have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from typing import Protocol as Interface

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss

from reactor.gate import waiting_bytes
from reactor.writer import send_small_parts, writer_to

__all__ = ["MAX_OVERHEAD_BYTES", "Answer", "Keeper", "Waiting", "WebConnection"]

MAX_OVERHEAD_BYTES = 2**18
"""Largest head of an answer in bytes, with interim ones before it; also of what is between parts of a body,
and after it."""

# Twisted's client keeps these from its callers.
_OF_THE_CONNECTION = frozenset({
    b"connection", b"content-length", b"keep-alive", b"proxy-connection", b"te", b"trailers",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip
_FRAMED_BY = frozenset({b"content-length", b"transfer-encoding"})
_NO_STATUS = -1
# More chunks that arrive together are passed on as one: a row in each would take most time beside them.
_FEW_PIECES = 8
_WHOLE = Failure(ResponseDone("Response body fully received"))


class Waiting(Interface):
    """A request whose answer has not begun."""

    data: bytes
    is_head: bool
    """Whether its answer has no body, whatever the headers say."""

    def answered(self, answer: Answer) -> None:
        """Take the head of the answer."""

    def failed(self, failure: Failure) -> None:
        """Take the reason why there will be no answer."""


class Keeper(Interface):
    """Where connections go between two requests."""

    def keep(self, connection: WebConnection) -> None:
        """Take a connection that is ready for the next request."""

    def lost(self, connection: WebConnection) -> None:
        """Forget a connection that was closed."""


class Answer:
    """The answer to one request. Its body goes to one protocol, whose transport this object is.

    :param code: its status.
    :param fields: its headers, as received.
    """

    hidden = _OF_THE_CONNECTION
    """Names of headers that are not shown."""

    def __init__(self, connection: WebConnection, code: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.code = code
        self._fields = fields
        # Until the answer is over: then the connection may serve the next request.
        self._connection: WebConnection | None = connection
        self._protocol: Any = None
        # Pieces from before there was a protocol; reading was stopped for them.
        self._unread: list[bytes] = []
        self._is_held = False
        self._reason: Failure | None = None

    @property
    def headers(self) -> Iterator[tuple[bytes, bytes]]:
        """The headers of the answer itself, not of its connection, as received."""
        return ((name, value) for name, value in self._fields if name.lower() not in self.hidden)

    @property
    def is_framed(self) -> bool:
        """Whether the headers say where the body ends."""
        return any(name.lower() in _FRAMED_BY for name, _ in self._fields)

    def deliverBody(self, protocol: Any) -> None:
        """Deliver the body, from its beginning on, to a protocol.

        Its ``connectionLost`` is called with ResponseDone at the end, PotentialDataLoss if only the end of
        the connection ended the body, or ResponseFailed.

        :raises RuntimeError: a second call.
        """
        if self._protocol is not None:
            raise RuntimeError("this body is delivered already")
        self._protocol = protocol
        protocol.makeConnection(self)
        unread, self._unread = self._unread, []
        for data in unread:
            protocol.dataReceived(data)
        if self._reason is not None:
            protocol.connectionLost(self._reason)
        elif self._is_held:
            self.resumeProducing()

    def received(self, data: bytes) -> None:
        """Take a piece of the body from the connection."""
        if self._protocol is not None:
            self._protocol.dataReceived(data)
        else:
            self._unread.append(data)
            self.pauseProducing()
            self._is_held = True

    def ended(self, reason: Failure) -> None:
        """Take the end of the body from the connection."""
        self._connection = None
        self._reason = reason
        if self._protocol is not None:
            self._protocol.connectionLost(reason)

    def pauseProducing(self) -> None:
        """Stop reading from the connection."""
        self._is_held = False
        if self._connection is not None:
            self._connection.set_reading(False)

    def resumeProducing(self) -> None:
        """Read on."""
        self._is_held = False
        if self._connection is not None:
            self._connection.set_reading(True)

    def abortConnection(self) -> None:
        """Close the connection at once, unless all was received."""
        if self._connection is not None:
            self._connection.abort()

    loseConnection = stopProducing = abortConnection


class WebConnection(Protocol):
    """A connection of HTTP/1.1.

    :param origin: the server's base URL.
    :param keeper: takes the connection between requests; ``None`` closes it after the first.
    """

    transport: Any

    def __init__(self, origin: str, keeper: Keeper | None) -> None:
        self.origin = origin
        self.kept_until = 0.0
        """When a connection that waits for a request is closed, in seconds of the reactor."""
        self.closed: Deferred[None] | None = None
        """Fires when the connection is closed, if set."""
        self._keeper = keeper
        self._may_stay = keeper is not None
        self._parser: Any = HttpResponseParser(self)
        # At most one is set: the request until the head of its answer, then the answer to its end.
        self._request: Waiting | None = None
        self._answer: Answer | None = None
        self._is_reading = True
        self._overhead = 0
        # Bytes of the request that the socket did not take at once.
        self._unsent = 0
        # Found by the last call of the parser.
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._status = _NO_STATUS
        self._is_whole = False

    def connectionMade(self) -> None:
        """Send requests at once."""
        send_small_parts(self.transport)
        self._write = writer_to(self.transport)

    def send(self, request: Waiting) -> None:
        """Send a request. The connection must not have another."""
        self._request = request
        self._overhead = 0
        self._is_whole = False
        self._status = _NO_STATUS
        self._unsent = self._write(request.data)

    def cancel(self, reason: Failure) -> None:
        """Give the request up whose answer has not begun, and close the connection at once."""
        request, self._request = self._request, None
        self.abort()
        if request is not None:
            request.failed(self._unanswered(reason))

    def abort(self) -> None:
        """Close the connection at once."""
        self._may_stay = False
        self.transport.abortConnection()

    def set_reading(self, wanted: bool) -> None:
        """Read from the socket, or stop that."""
        if wanted != self._is_reading:
            self._is_reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    # ---- from the transport ----------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of an answer."""
        if self._request is None and self._answer is None:
            # Nobody asked for this.
            self.abort()
            return
        broken: Failure | None = None
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            broken = self._refused(error)
            self._may_stay = False
        if self._status != _NO_STATUS:
            self._begin()
        body = self._body
        if body:
            self._body, self._overhead = [], 0
            if len(body) > _FEW_PIECES:
                body = [b"".join(body)]
            for piece in body:
                if self._answer is not None:
                    self._answer.received(piece)
        elif not self._is_whole:
            self._overhead += len(data)
            if self._overhead > MAX_OVERHEAD_BYTES and broken is None:
                broken = Failure(HttpParserError("the head of the answer is too long"))
        if self._is_whole:
            self._finish()
        elif broken is not None:
            self.abort()
            self._fail(broken)

    def _begin(self) -> None:
        """Pass the head on."""
        request, self._request = self._request, None
        status, self._status = self._status, _NO_STATUS
        fields, self._fields = self._fields, []
        if request is not None:
            self._answer = answer = Answer(self, status, fields)
            if request.is_head:
                answer.hidden = _OF_THE_CONNECTION - {b"content-length"}
            request.answered(answer)

    def _finish(self) -> None:
        """End the answer, after the connection became free for the next request."""
        answer, self._answer = self._answer, None
        self._is_whole = False
        if answer is None:
            # The connection was closed meanwhile, by the body's protocol.
            return
        if self._unsent and waiting_bytes(self.transport):
            # It has answered before the end of the request, which it may never read. Closing would wait.
            self.abort()
        elif self._may_stay:
            assert self._keeper is not None
            self.set_reading(True)
            self._keeper.keep(self)
        else:
            self.transport.loseConnection()
        answer.ended(_WHOLE)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the request, or end the answer: whole only if its length is known, or the node has closed the
        connection properly."""
        if self._keeper is not None:
            self._keeper.lost(self)
        answer = self._answer
        if answer is not None and not answer.is_framed and reason.check(ConnectionDone):
            self._answer = None
            answer.ended(Failure(PotentialDataLoss()))
        else:
            self._fail(reason)
        # It refers to this object.
        self._parser = None
        if self.closed is not None:
            self.closed.callback(None)

    def _fail(self, reason: Failure) -> None:
        request, self._request = self._request, None
        answer, self._answer = self._answer, None
        if request is not None:
            request.failed(self._unanswered(reason))
        elif answer is not None:
            answer.ended(Failure(ResponseFailed([reason], answer)))

    def _refused(self, error: Exception) -> Failure:
        """Return the failure for bytes that the parser does not take."""
        text = f"what it sends is not valid HTTP/1.1: {error}"
        if self._parser.get_status_code() == 101:
            text = "it switches to another protocol (status 101), which was not asked for"
        return Failure(HttpParserError(text))

    def _unanswered(self, reason: Failure) -> Failure:
        """Return the failure of a request; it may be repeated unless the node began to answer."""
        return Failure((ResponseFailed if self._overhead else ResponseNeverReceived)([reason]))

    # ---- from the parser -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Called by httptools: an answer begins."""
        if self._is_whole:
            self._may_stay = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by httptools: a header, or a trailer, which is dropped."""
        if self._answer is None and self._status == _NO_STATUS:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Called by httptools: a head has ended."""
        if self._is_whole:
            return
        status = self._parser.get_status_code()
        if 100 <= status <= 199:
            self._fields.clear()
            return
        self._status = status
        if self._request is not None and self._request.is_head:
            # The parser would wait for a body.
            self._is_whole = True
            self._may_stay = False

    def on_body(self, data: bytes) -> None:
        """Called by httptools: a part of the body."""
        if not self._is_whole:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """Called by httptools: an answer has ended."""
        if self._status != _NO_STATUS or self._answer is not None:
            self._is_whole = True
            self._may_stay = self._may_stay and self._parser.should_keep_alive()
