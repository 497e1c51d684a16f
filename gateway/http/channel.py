"""An HTTP/1.1 connection: what arrives is cut into requests, one after the other is served.

What a head and a chunk mean is for :mod:`gateway.http.heads` to say. A head is collected until it is complete
and read at once, so that its size is known before anything is made of it, and no more than one request is
read at a time: a client that sends requests faster than they are answered fills its own send buffer, not our
memory.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection as TCPConnection
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.dialect.errors import Refusal, bad_request
from gateway.http.exchange import Exchange
from gateway.http.heads import METHODS, REQUEST_LINE, ChunkReader, Malformed, read_unusual_line
from gateway.http.polling import socket_error, unread_bytes, waiting_bytes
from gateway.http.request import HeaderTable
from gateway.http.targets import BadTarget, split_target

if TYPE_CHECKING:
    from gateway.http.application import Application
    from gateway.http.factory import ChannelFactory

__all__ = ["LINGER_BYTES", "LINGER_IDLE_SECONDS", "LINGER_SECONDS", "MAX_HEADER_COUNT", "HTTPChannel"]

# A connection whose client may still be sending is closed in stages (RFC 9112 9.6): if what arrives were
# left unread, the kernel would reset the connection, and the client might never see the answer. nginx, too,
# waits for so long.
LINGER_SECONDS = 30.0
"""For which the rest of a refused request is read and dropped, at most."""
LINGER_IDLE_SECONDS = 5.0
"""The same, while nothing arrives."""
LINGER_BYTES = 2**26
"""What is read so, at most, unless the request has announced more."""

MAX_HEADER_COUNT = 500
"""Headers that a request may have, as in twisted.web."""

# Of requests that arrive before the one under way is answered, this much is kept; then the client has to
# wait.
_MAX_UNREAD = 2**16

IDLE, HEADERS, BODY, HANDLING, LINGER, CLOSING = range(6)

_END = b"\r\n\r\n"
_CR = 13

# A head up to this size cannot have more headers than are allowed.
_FEW_HEADERS_BYTES = 4 * MAX_HEADER_COUNT
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@implementer(IPushProducer, IHalfCloseableProtocol)
class HTTPChannel(Protocol):
    """One client's connection.

    :param factory: has the application, the limits, and the sweep that looks after deadlines.
    """

    transport: Any
    factory: Any

    phase = HEADERS
    """What it waits for; the factory's sweep knows how long that may take."""
    since: float | None = None
    """When the sweep first saw this phase; ``None`` when it has not."""
    stalled_since: float | None = None
    is_stalled = False
    """Whether the client reads slower than we write."""
    unsent = 0
    """What the sweep has last seen waiting for the client, in bytes."""
    body_is_paused = False
    body_is_held = False
    """Whether the body is not read before the request's handler wants it."""
    cut_by = "client"
    """Whose doing it is if the connection ends before its time."""
    unsent_exchange: Exchange | None = None
    """Whose answer waits for the client to read on; it is over otherwise."""
    is_closing = False
    is_at_end = False
    """Whether the client has closed its half, and sends nothing more."""
    linger_until: float | None = None
    """When what still arrives is no longer waited for; ``None`` if nothing is dropped."""

    _exchange: Exchange | None = None
    _chunks: ChunkReader | None = None
    _head = b""
    _unread = b""
    _is_consuming = False
    _is_paused = False
    _is_tcp = False
    _is_last = False
    """Whether the client has said that it sends no other request."""
    _asked_for_life = False
    _discarded = 0
    _discard_limit = 0
    # Of the body that is being read: bytes to come, ``None`` for a chunked one.
    _left: int | None = 0
    _reads_body = False

    def __init__(self, factory: ChannelFactory) -> None:
        self.factory = factory
        self._application: Application = factory.application
        self._max_headers = factory.application.limits.max_headers

    # -- Protocol

    def connectionMade(self) -> None:
        """Begin to wait for the first request."""
        transport = self.transport
        self._is_tcp = isinstance(transport, TCPConnection)
        set_no_delay = getattr(transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            # Refused by Unix sockets, which have no such delay.
            try:
                set_no_delay(True)
            except OSError:
                pass
        transport.registerProducer(self, True)
        self.factory.made(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel what is under way."""
        self.is_closing = True
        self._chunks = None
        self._unread = self._head = b""
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
        """Take what arrived."""
        if self.is_closing:
            self._discard(len(data))
            return
        if self._exchange is None and not self._unread:
            end = data.find(_END) + 4
            if 3 < end <= self._max_headers and not self._head and data[0] != _CR:
                # A whole head, as nearly always.
                try:
                    if end == len(data):
                        self._parse_head(data)
                        return
                    data = self._parse_head(data[:end], data[end:])
                except (Malformed, Refusal) as error:
                    self._refuse(error)
                    return
                if data:
                    self._consume(data)
                return
            self._consume(data)
        elif self._reads_body and not self._unread:
            self._consume(data)
        else:
            self._unread += data
            self._settle_reading()

    # -- from bytes to requests

    def _consume(self, data: bytes) -> None:
        """Serve the requests in ``data`` until one has to wait."""
        self._is_consuming = True
        try:
            while data and not self.is_closing:
                if self._reads_body:
                    if self.body_is_held:
                        self._unread = data
                        break
                    data = self._read_body(data)
                elif self._exchange is not None or self.is_stalled:
                    self._unread = data
                    break
                else:
                    data = self._read_head(data)
        except (Malformed, Refusal) as error:
            self._refuse(error)
        finally:
            self._is_consuming = False
        if self._unread or self._is_paused or self.is_stalled:
            self._settle_reading()
        if self.is_at_end:
            self._settle_end()

    def _go_on(self) -> None:
        """Serve what was kept while a request was under way."""
        unread = self._unread
        if unread and not self._is_consuming and not self.is_stalled and not self.is_closing:
            self._unread = b""
            self._consume(unread)
        elif self._is_paused:
            self._settle_reading()
        elif self.is_at_end and not self._is_consuming:
            self._settle_end()

    def _read_head(self, data: bytes) -> bytes:
        """Take a request's head, and begin to serve it if it is complete; returns what is behind it."""
        start = 0
        if self._head:
            start = max(0, len(self._head) - 3)
            data = self._head + data
            self._head = b""
        # Some clients send an empty line behind a body (RFC 9112 2.2).
        if data.startswith(b"\r\n"):
            data, start = _EMPTY_LINES.sub(b"", data, count=1), 0
        end = data.find(_END, start) + 4
        if end < 4:
            self._keep_head(data)
            return b""
        if end > self._max_headers:
            raise _too_large(self._max_headers)
        return self._parse_head(data[:end], data[end:])

    def _keep_head(self, data: bytes) -> None:
        """Keep the beginning of a head; what cannot become one is refused at once."""
        if len(data) > self._max_headers:
            raise _too_large(self._max_headers)
        if data.count(b"\n") != data.count(b"\r\n") or (data and not _TOKEN.match(data) and data != b"\r"):
            raise Malformed("the request is not well-formed HTTP/1.1")
        if self.phase == IDLE:
            self._enter(HEADERS)
        self._head = data

    def _parse_head(self, head: bytes, rest: bytes = b"") -> bytes:
        """Parse a complete head, and begin to serve the request.

        :param rest: what has arrived behind the head.
        :returns: what of it was not needed yet.
        """
        if len(head) > _FEW_HEADERS_BYTES and head.count(b"\r\n") - 2 > MAX_HEADER_COUNT:
            raise Refusal("HeadersTooLarge", f"The request has more than {MAX_HEADER_COUNT} headers.", "")
        reader = self.factory.heads
        line = REQUEST_LINE.match(head)
        if line is not None:
            method, path, query_string = line.groups()
            behind = head[line.end() :]
            read = reader.known.get(behind)
            if read is None:
                read = reader.read(head)
                if b"host" not in read.headers:
                    raise _no_host()
                guard = self._application.guard
                if guard is not None and not guard.names.isdisjoint(read.headers):
                    read.visit = guard.look(read.headers)
                reader.remember(behind, read)
            exchange = Exchange(self, METHODS[method], path, query_string or b"", read.headers)
            if read.visit is not None:
                exchange.visit = read.visit
        else:
            method, target, is_1_1, head = read_unusual_line(head)
            read = reader.read(head)
            try:
                target, host = split_target(method, target)
            except BadTarget as error:
                raise Malformed(str(error)) from None
            path, _, query_string = target.partition(b"?")
            headers = read.headers
            if host is not None:
                # RFC 9112 3.2.2: what the URL names counts.
                headers = headers | {b"host": host}
            exchange = Exchange(self, method.decode("ascii"), path, query_string, headers)
            if self._application.guard is not None:
                exchange.visit = self._application.guard.look(headers)
            if not is_1_1:
                exchange.is_1_1 = exchange.keep_alive = False
                if b"transfer-encoding" in read.headers:
                    # RFC 9112 6.1: somebody on the way may have taken the body for something else.
                    raise Malformed("HTTP/1.0 has no Transfer-Encoding")
            elif b"host" not in read.headers:
                raise _no_host()
        if read.closes or not exchange.is_1_1:
            exchange.keep_alive = False
            self._is_last = True
        self._exchange = exchange
        self.phase = HANDLING
        if not read.has_body:
            self._application.serve(exchange)
            return rest
        length = self._left = read.length
        # Most clients send a small body with its head.
        if length is not None and length <= len(rest) and exchange.whole_body(rest[:length]):
            return rest[length:]
        if length is None:
            self._chunks = ChunkReader(self._max_headers)
        self._reads_body = True
        self._enter(BODY)
        exchange.expect_body(length)
        return rest

    def _read_body(self, data: bytes) -> bytes:
        """Take a part of a body; returns what is behind the body."""
        left = self._left
        if left is None:
            return self._read_chunks(data)
        exchange = self._exchange
        assert exchange is not None
        size = len(data)
        if size < left:
            self._left = left - size
            exchange.body_part(data)
            return b""
        exchange.body_part(data[:left] if size > left else data)
        self._end_body(exchange)
        return data[left:]

    def _read_chunks(self, data: bytes) -> bytes:
        chunks, exchange = self._chunks, self._exchange
        assert chunks is not None and exchange is not None
        part, end = chunks.read(data)
        if part:
            exchange.body_part(part)
        if chunks.is_complete:
            chunks.close()
            self._chunks = None
            self._end_body(exchange)
        return data[end:]

    def _end_body(self, exchange: Exchange) -> None:
        self._reads_body = False
        if not self.is_closing:
            if self.phase == BODY:
                self.phase = HANDLING
            exchange.body_end()

    # -- what exchanges ask for

    def write(self, data: bytes) -> None:
        """Send bytes, at once if none are waiting.

        Straight to the socket: otherwise they would leave only after another turn of the reactor and two
        changes of its interest in the socket. Only Twisted's TCP and Unix transports have these attributes;
        every other one (TLS, in memory) takes the common way.
        """
        transport = self.transport
        if (
            self._is_tcp
            and not transport.dataBuffer
            and not transport._tempDataBuffer
            and transport.connected
            and not transport.disconnecting
        ):
            try:
                sent = transport.socket.send(data)
            except OSError:
                # It is full, or broken: the transport will find out which.
                transport.write(data)
            else:
                if sent < len(data):
                    transport.write(data[sent:])
        else:
            transport.write(data)

    def body_progress(self) -> None:
        """A part of a streamed body has arrived: wait for the next one."""
        self.since = None

    def pause_body(self) -> None:
        """Read no more of the request's body."""
        if not self.body_is_paused:
            self.body_is_paused = True
            self._settle_reading()

    def resume_body(self) -> None:
        """Read on."""
        if self.body_is_paused:
            self.body_is_paused = False
            self.since = None
            self._settle_reading()

    def hold_body(self) -> None:
        """Leave the request's body where it is until :meth:`release_body`, or until the answer is out."""
        self.body_is_held = True

    def release_body(self) -> None:
        """Read the body that was held."""
        if self.body_is_held:
            self.body_is_held = False
            self._enter(BODY)
            self._go_on()

    def linger(self) -> None:
        """The answer is out before the body is in: read on, so that the connection can be used again."""
        self._linger()
        self.resume_body()
        if self.body_is_held:
            self.body_is_held = False
            self._go_on()

    def done(self, exchange: Exchange) -> None:
        """Request and answer are complete: go on with the next."""
        self._exchange = None
        self.phase = IDLE
        self.since = None
        self.body_is_paused = False
        if not exchange.keep_alive or self.factory.stopping:
            self.close()
        elif self._unread or self._is_paused or self.is_at_end:
            self._go_on()

    def _enter(self, phase: int) -> None:
        self.phase = phase
        self.since = self.factory.clock.seconds()

    # -- back-pressure

    def pauseProducing(self) -> None:
        """The send buffer is full."""
        self.is_stalled = True
        if self._exchange is not None:
            self._exchange.stalled(True)
        self._settle_reading()

    def resumeProducing(self) -> None:
        """The send buffer has emptied."""
        self.is_stalled = False
        self.stalled_since = None
        sent, self.unsent_exchange = self.unsent_exchange, None
        if sent is not None:
            sent.all_sent()
        if self._exchange is not None:
            self._exchange.stalled(False)
        self._go_on()

    def stopProducing(self) -> None:
        """The client is gone; :meth:`connectionLost` sees to it."""

    def _settle_reading(self) -> None:
        """Read from the socket only what there is room for."""
        must_pause = (
            self.body_is_paused
            or (self.body_is_held and len(self._unread) > 0)
            or len(self._unread) > _MAX_UNREAD
            or (self.is_stalled and not self._reads_body)
        )
        if must_pause != self._is_paused and not self.is_closing and not self.is_at_end:
            self._is_paused = must_pause
            if must_pause:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    # -- the client's half

    def readConnectionLost(self) -> None:
        """The client sends nothing more; it may still read (RFC 9112 9.6)."""
        self.is_at_end = True
        if self.is_closing:
            self.transport.loseConnection()
        elif not self._is_consuming:
            self._settle_end()

    def _settle_end(self) -> None:
        """Close when all that the client has sent is answered."""
        exchange = self._exchange
        if self.is_closing or self._unread:
            return
        if exchange is None:
            self.close()
        elif self._reads_body and self.phase != LINGER:
            # The rest of the body will never come.
            self._reads_body = False
            self._exchange = None
            exchange.lose(Failure(connectionDone.value))
            self.close()
        elif self._reads_body:
            self.close()

    def look_for_client(self) -> None:
        """Find out whether a client that has closed its half is there at all.

        That it is gone shows only when something is sent to it: a 100 (Continue), which every client of
        HTTP/1.1 passes over. The kernel's answer is seen by the next call.
        """
        exchange = self._exchange
        if socket_error(self.transport):
            self.abort()
        elif exchange is not None and exchange.is_1_1 and not exchange.has_begun and not self._asked_for_life:
            self._asked_for_life = True
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # -- the end

    def _refuse(self, error: Malformed | Refusal) -> None:
        """Answer a request that cannot be read, and close."""
        if self.is_closing:
            return
        refusal = error if isinstance(error, Refusal) else bad_request(str(error))
        self._is_last = False
        broken = self._exchange
        if broken is not None and broken.waits_for_body:
            broken.refuse_body(refusal)
            return
        self._exchange = None
        self._reads_body = False
        line: tuple[str, bytes, bytes, HeaderTable] = ("?", b"", b"", {})
        if broken is not None:
            if not broken.has_begun:
                broken.replaced()
                line = (broken.method, broken.path, broken.query_string, broken.headers)
            broken.lose(Failure(refusal))
            if broken.has_begun:
                self.abort()
                return
        exchange = self._exchange = Exchange(self, *line)
        if broken is not None:
            exchange.received_bytes = broken.received_bytes
        exchange.keep_alive = False
        self._application.dispatch(exchange)
        self._application.refuse(exchange, refusal)

    def close(self) -> None:
        """Close once what was written is sent. An answer without its end is cut by it, which chunks make
        visible.

        If the client may still be sending, only our half is closed, and what arrives is dropped until the
        client closes its own.
        """
        if self.is_closing:
            return
        in_stages = self._reads_body or bool(self._unread) or not self._is_last
        self._close(in_stages=in_stages and not self.is_at_end)

    def _close(self, *, in_stages: bool) -> None:
        self.is_closing = True
        self.body_is_held = False
        self._enter(CLOSING)
        self._discard_limit = max(LINGER_BYTES, self._left or 0)
        self._unread = self._head = b""
        self._chunks = None
        transport = self.transport
        # A registered producer would hold the connection open.
        transport.unregisterProducer()
        if self._is_paused and not self.is_at_end:
            # TLS, too, waits for what the client sends at the end.
            self._is_paused = False
            transport.resumeProducing()
        if self._can_close_half and (in_stages or unread_bytes(transport)):
            self.factory.lingers(self)
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    @property
    def _can_close_half(self) -> bool:
        # TLS does it by itself: it sends its own word for the end, and reads on until the client's.
        return hasattr(type(self.transport), "loseWriteConnection")

    def writeConnectionLost(self) -> None:
        """All is sent, and our half is closed: drop what still arrives."""
        if self.is_at_end:
            self.transport.loseConnection()
        else:
            self._linger()

    def all_is_sent(self) -> None:
        """What was written before the end has arrived."""
        self._linger()

    def _linger(self) -> None:
        self._enter(LINGER)
        assert self.since is not None
        self.linger_until = self.since + LINGER_SECONDS

    def _discard(self, size: int) -> None:
        """Drop what arrives behind the last answer."""
        if self.phase == LINGER:
            self.since = None
        self._discarded += size
        if self._discarded > self._discard_limit:
            self._stop_lingering()

    def _stop_lingering(self) -> None:
        if self._can_close_half:
            self.transport.loseConnection()
        else:
            self.abort()

    def out_of_memory(self) -> bool:
        """Something could not be done for want of memory: refuse the request whose body takes some.

        :returns: whether the connection can go on.
        """
        exchange = self._exchange
        if self.is_closing or exchange is None or not exchange.holds_body:
            return False
        exchange.refuse_for_memory()
        return True

    def abort(self) -> None:
        """Drop the connection, so that the client sees that its answer is cut."""
        self.is_closing = True
        self.transport.abortConnection()

    def has_more_time(self, seconds: float) -> bool:
        """Tell whether this phase may take ``seconds`` longer than the usual."""
        if self.body_is_paused or self.body_is_held:
            # The client does not decide how long that takes.
            return True
        exchange = self._exchange
        return self.phase == BODY and exchange is not None and exchange.body_allowance > seconds

    def expire(self) -> None:
        """The time for this phase is over."""
        if self.is_closing:
            if self.phase == LINGER:
                self._stop_lingering()
            else:
                self.abort()
        elif self.phase in (HEADERS, BODY):
            if self.phase == HEADERS and not self._head:
                self.close_if_idle()
            else:
                self._refuse(Refusal("RequestTimeout", resource=""))
        elif self.phase == IDLE:
            self.close_if_idle()
        else:
            self.close()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return self._exchange is None and not self._head and not self._unread

    def close_if_idle(self) -> None:
        """Close the connection unless a request is under way, or has just arrived."""
        if self.is_idle and not self.is_closing and not unread_bytes(self.transport):
            self._close(in_stages=False)


def _no_host() -> Malformed:
    # RFC 9112 3.2: a proxy in front may have taken another request's for this one's.
    return Malformed("HTTP/1.1 requires a Host header")


def _too_large(limit: int) -> Refusal:
    return Refusal("HeadersTooLarge", f"Request line and headers exceed {limit} bytes.", "")
