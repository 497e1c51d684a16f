"""An HTTP/1.1 connection: splits received bytes into requests, and serves one request at a time.

Heads are parsed by :mod:`gateway.http.heads`, chunks by :mod:`gateway.http.chunks`. A head is collected until
it is complete, and then parsed at once, so that its size is known before any other work. Only one request is
read at a time: a client that sends requests faster than they are answered fills its own send buffer, not our
memory. The end of a connection is handled by :mod:`gateway.http.linger`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.http import heads
from gateway.http.body import IncomingBody
from gateway.http.clientconnection import ClientConnection
from gateway.http.counted import CountedRequest
from gateway.http.heads import FEW_HEADERS_BYTES, METHODS, REQUEST, Malformed
from gateway.http.http1 import HTTP1Exchange
from gateway.http.linger import LingeringClose
from gateway.http.phases import ConnectionPhase, InputPhase
from gateway.http.refusal import Refusal, bad_request, no_memory
from reactor.gate import unread_bytes, waiting_bytes
from reactor.writer import send_small_parts, writer_to

if TYPE_CHECKING:
    from gateway.http.ports import Application, ExchangePort, Server

__all__ = ["HTTPChannel"]

# Limit in bytes on requests that arrive before the current one is answered; beyond it the client has to wait.
_MAX_UNREAD = 2**16

IDLE, HEAD, BODY, HANDLING, DRAINING, CLOSING, LINGERING, CLOSED = ConnectionPhase
READING, PAUSED, ENDED, PROBED = InputPhase

_END = b"\r\n\r\n"
_CR = 13


@implementer(IPushProducer, IHalfCloseableProtocol)
class HTTPChannel(ClientConnection):
    """One client's connection.

    Its phases are those of :class:`gateway.http.phases.ConnectionPhase`; the client's half of the connection
    has its own phases.

    :param factory: has the application, the limits, and the sweep that enforces deadlines.
    """

    write: Callable[[bytes], object]
    """Sends bytes, immediately if none are waiting."""

    is_stalled: bool
    """Whether the client reads more slowly than the gateway writes."""
    unsent_exchange: CountedRequest | None = None
    """The request whose complete answer waits for a slow client to read it."""

    _body: IncomingBody | None = None
    _is_consuming = False
    _is_last = False
    """Whether the client has announced its last request."""

    def __init__(self, factory: Server) -> None:
        self.factory = factory
        self.application: Application = factory.application
        self._max_headers = factory.application.limits.max_headers
        self._known_heads = factory.heads.known
        # Every request reads or sets these. Python is fast at that only if all instances have them from the
        # beginning; otherwise it also makes a dictionary for each instance.
        self.phase = HEAD
        self.input = READING
        self.since = None
        self.is_stalled = False
        self._unread = self._head = b""
        self._exchange: HTTP1Exchange | None = None

    # ---- Protocol --------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Begin to wait for the first request."""
        transport = self.transport
        self.write = writer_to(transport)
        self.open()
        send_small_parts(transport)
        transport.registerProducer(self, True)
        self.factory.made(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the running request."""
        self.phase = CLOSED
        self._unread = self._head = b""
        self.factory.pipelines.leave(self)
        self.let_go()
        self.factory.lost(self)
        unsent, self.unsent_exchange = self.unsent_exchange, None
        if unsent is not None:
            if waiting_bytes(self.transport):
                unsent.unsent()
            else:
                unsent.all_sent()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lose(reason)

    def dataReceived(self, data: bytes) -> None:
        """Take received bytes."""
        if self.phase >= CLOSING:
            if self._lingering is not None:
                self._lingering.discard(len(data))
            return
        if self._exchange is None and not self._unread:
            end = data.find(_END) + 4
            if 3 < end <= self._max_headers and not self._head and data[0] != _CR:
                # The usual case: a whole head.
                try:
                    if end == len(data):
                        self._parse_head(data)
                        return
                    data = self._parse_head(data[:end], data[end:])
                except (Malformed, Refusal) as error:
                    self.refuse(error)
                    return
                if data:
                    self._consume(data)
                return
            self._consume(data)
        elif self._body is not None and not self._unread:
            self._consume(data)
        else:
            self._unread += data
            self.settle_reading()

    # ---- from bytes to requests ------------------------------------------------------------------

    def _consume(self, data: bytes) -> None:
        """Serve the requests in ``data`` until one of them has to wait."""
        self._is_consuming = True
        pipelines = None
        try:
            while data and self.phase < CLOSING:
                if self._body is not None:
                    if self._body.is_held:
                        self._unread = data
                        break
                    data = self._body.feed(data)
                elif self._exchange is not None or self.is_stalled:
                    self._unread = data
                    break
                elif pipelines is not None and not pipelines.may_go_on():
                    self._unread = data
                    pipelines.wait(self)
                    break
                else:
                    data = self._read_head(data)
                    pipelines = self.factory.pipelines
        except (Malformed, Refusal) as error:
            self.refuse(error)
        finally:
            self._is_consuming = False
        if self._unread or self.input is PAUSED or self.is_stalled:
            self.settle_reading()
        if self.input >= ENDED:
            self._settle_end()

    def go_on(self) -> None:
        """Serve the bytes that were kept."""
        unread = self._unread
        if unread and not self._is_consuming and not self.is_stalled and self.phase < CLOSING:
            self._unread = b""
            self._consume(unread)
        elif self.input is PAUSED:
            self.settle_reading()
        elif self.input >= ENDED and not self._is_consuming:
            self._settle_end()

    def _read_head(self, data: bytes) -> bytes:
        """Take a request's head, and begin to serve the request if its head is complete; return the bytes
        after the head."""
        begun, self._head = self._head, b""
        data, end = heads.collect(begun, data, self._max_headers)
        if end:
            return self._parse_head(data[:end], data[end:])
        if self.phase is IDLE:
            self._enter(HEAD)
        self._head = data
        return b""

    def _parse_head(self, head: bytes, rest: bytes = b"") -> bytes:
        """Parse a complete head, and begin to serve the request.

        :param rest: bytes that have arrived after the head.
        :returns: the bytes that were not needed yet.
        """
        if len(head) > FEW_HEADERS_BYTES:
            heads.check_count(head)
        request = REQUEST.match(head)
        if request is not None:
            method, path, query_string, behind = request.groups(b"")
            read = self._known_heads.get(behind)
            if read is None:
                read, headers = self.factory.heads.new(head, behind)
                exchange = HTTP1Exchange(self, METHODS[method], path, query_string, headers)
            else:
                exchange = HTTP1Exchange(self, METHODS[method], path, query_string, read.headers)
            exchange.selective = read.selective
            if read.visit is not None:
                exchange.visit = read.visit
        else:
            unusual = heads.read_unusual(head, self.factory.heads)
            read = unusual.head
            exchange = HTTP1Exchange(self, *unusual.line, unusual.headers)
            if self.application.guard is not None:
                exchange.visit = self.application.guard.look(unusual.headers)
            exchange.is_1_1 = unusual.is_1_1
            if not unusual.is_1_1:
                exchange.keep_alive = False
                self._is_last = True
        if read.closes:
            exchange.keep_alive = False
            self._is_last = True
        self._exchange = exchange
        self.phase = HANDLING
        if not read.has_body:
            self.application.serve(exchange)
            return rest
        length = read.length
        # Most clients send a small body with its head.
        if length is not None and length <= len(rest) and exchange.whole_body(rest[:length]):
            return rest[length:]
        self._enter(BODY)
        body = self._body = exchange.body_to_come(length)
        body.expect()
        return rest

    # ---- what exchanges and bodies ask for -------------------------------------------------------

    def body_ended(self) -> bool:
        """Note that all of the request's body has arrived; return false if it is no longer wanted."""
        self._body = None
        if self.phase >= CLOSING:
            return False
        if self.phase is BODY:
            self.phase = HANDLING
        return True

    def body_released(self) -> None:
        """Read the request's body, which had been left unread."""
        self._enter(BODY)
        self.go_on()

    def linger(self) -> None:
        """Read and drop the rest of the body after the answer, so that the connection can be reused."""
        self._linger(DRAINING)
        self.go_on()

    def done(self, exchange: ExchangePort) -> None:
        """Continue with the next request: the current one and its answer are complete."""
        self._exchange = None
        if self.phase >= CLOSING:
            return
        if not exchange.keep_alive or self.factory.stopping:
            self.close()
            return
        self.phase = IDLE
        self.since = None
        if self._unread or self.input is not READING:
            self.go_on()

    # ---- back-pressure ---------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Pause the answer: the send buffer is full."""
        self.is_stalled = True
        self.note_unread()
        if self._exchange is not None:
            self._exchange.stalled(True)
        self.settle_reading()

    def resumeProducing(self) -> None:
        """Resume the answer: the send buffer has room."""
        self.is_stalled = False
        self.stalled_since = None
        self.application.unread_answers.release(self)
        sent, self.unsent_exchange = self.unsent_exchange, None
        if sent is not None:
            sent.all_sent()
        if self._exchange is not None:
            self._exchange.stalled(False)
        self.go_on()

    def note_unread(self) -> None:
        """Count the bytes that wait for the client."""
        self.application.unread_answers.hold(self, waiting_bytes(self.transport))

    def settle_reading(self) -> None:
        """Read from the socket only if there is room for the bytes."""
        if self.phase >= CLOSING or self.input >= ENDED:
            return
        unread, body = len(self._unread), self._body
        must_wait = self.is_stalled if body is None else body.must_wait(unread)
        if not must_wait and unread <= _MAX_UNREAD:
            self.read_on()
        elif self.input is READING:
            self.input = PAUSED
            self.transport.pauseProducing()

    # ---- the client's half -----------------------------------------------------------------------

    def readConnectionLost(self) -> None:
        """Note that the client has closed its half; it may still read (RFC 9112 9.6)."""
        self.input = ENDED
        if self.phase >= CLOSING:
            self.transport.loseConnection()
        elif not self._is_consuming:
            self._settle_end()

    def _settle_end(self) -> None:
        """Close when all requests that the client sent are answered."""
        exchange = self._exchange
        if self.phase >= CLOSING or self._unread:
            return
        if exchange is None:
            self.close()
        elif self._body is not None:
            # The rest of the body will never arrive.
            if self.phase is not DRAINING:
                self._exchange = None
                exchange.lose(Failure(connectionDone.value))
            self.close()

    def probe(self) -> None:
        """Send 100 (Continue) to a client that has closed its half and waits for an answer: only sending
        shows whether the client still exists. Every HTTP/1.1 client ignores this response; one is enough."""
        exchange = self._exchange
        if self.input is ENDED and exchange is not None and exchange.is_1_1 and not exchange.has_begun:
            self.input = PROBED
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # ---- the end ---------------------------------------------------------------------------------

    def refuse(self, error: Malformed | Refusal) -> None:
        """Answer a request that cannot be read, and close."""
        if self.phase >= CLOSING:
            return
        refusal = error if isinstance(error, Refusal) else bad_request(str(error))
        self._is_last = False
        broken, body = self._exchange, self._body
        if body is not None and body.waits:
            body.refuse(refusal)
            return
        self._exchange = None
        self._body = None
        exchange = HTTP1Exchange.in_place_of(broken, self, refusal, getattr(error, "headers_seen", {}))
        if exchange is None:
            self.abort()
            return
        self.phase = HANDLING
        self._exchange = exchange
        self.application.dispatch(exchange)
        self.application.refuse(exchange, refusal)

    def close(self) -> None:
        """Close after everything written is sent. This cuts off an incomplete answer; with chunked coding the
        client notices.

        If the client may still be sending, only our half is closed, and received bytes are dropped until the
        client closes its own.
        """
        if self.phase < CLOSING:
            in_stages = self._body is not None or bool(self._unread) or not self._is_last
            self._close(in_stages=in_stages and self.input < ENDED)

    def _close(self, *, in_stages: bool) -> None:
        self._enter(CLOSING)
        self._unread = self._head = b""
        closing = self._lingering = LingeringClose(self, 0 if self._body is None else self._body.announced)
        closing.begin(in_stages=in_stages)

    def out_of_memory(self) -> bool:
        """Handle a lack of memory while bytes of the client were read: refuse its request.

        Bytes may be lost, so the connection is closed after the answer, in stages: the client can read why.

        :returns: false if the connection has to be cut, because the handler of a request is running.
        """
        exchange = self._exchange
        if self.phase >= CLOSING:
            # Received bytes are dropped anyway.
            return True
        if exchange is None:
            self.refuse(no_memory())
            return True
        return exchange.incoming is not None and exchange.incoming.out_of_memory()

    @property
    def allowance(self) -> float:
        """Extra seconds that the current phase may take."""
        return self._body.allowance if self.phase is BODY and self._body is not None else 0.0

    def timed(self) -> Sequence[HTTPChannel]:
        """Return itself: it has one request at a time."""
        return (self,)

    def leave(self) -> None:
        """Close the connection after the next answer; see :meth:`done`."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is being served."""
        return self._exchange is None and not self._head and not self._unread

    def close_if_idle(self) -> None:
        """Close the connection unless a request is being served, or has just arrived."""
        if self.is_idle and self.phase < CLOSING and not unread_bytes(self.transport):
            self._close(in_stages=False)
