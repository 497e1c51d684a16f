"""An HTTP/1.1 connection: what arrives is cut into requests, one after the other is served.

llhttp (by httptools) judges every request line, header and chunk; what it lets through and a gateway must not
(`_check_head`) is refused here. A head is collected until it is complete and parsed at once, so that its size
is known before anything is made of it, and no more than one request is parsed at a time: a client that sends
requests faster than they are answered fills its own send buffer, not our memory.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection as TCPConnection
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.errors import Refusal, bad_request
from gateway.http.exchange import Exchange

if TYPE_CHECKING:
    from gateway.http.application import Application
    from gateway.http.factory import ChannelFactory

__all__ = ["LINGER_SECONDS", "MAX_HEADER_COUNT", "HTTPChannel"]

LINGER_SECONDS = 5.0
"""For which the rest of a refused body is read."""

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
_METHODS = {
    name.encode("ascii"): name
    for name in ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE")
}
_REQUEST_LINE = re.compile(rb"(%b) (/[^ ?\r\n]*)(?:\?([^ \r\n]*))? HTTP/1\.1\r\n" % b"|".join(_METHODS))
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_ANY_REQUEST_LINE = re.compile(rb"(%b) +([^ \r\n]+) HTTP/([0-9]\.[0-9])\r\n" % _TOKEN.pattern)
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class _Malformed(Exception):
    """The bytes are no request."""


@implementer(IPushProducer)
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
    body_is_paused = False
    is_closing = False

    _exchange: Exchange | None = None
    _parser: HttpRequestParser | None = None
    _head = b""
    _unread = b""
    _is_consuming = False
    _is_paused = False
    _is_tcp = False
    # Of the body that is being read: bytes to come, ``None`` for a chunked one.
    _left: int | None = 0
    _tail = b""
    _overhead = 0
    _reads_body = False

    def __init__(self, factory: ChannelFactory) -> None:
        self.factory = factory
        self._application: Application = factory.application
        self._max_headers = factory.application.limits.max_headers
        self._parts: list[bytes] = []
        self._headers: dict[bytes, Any] = {}
        self._complete = False

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
        self._parser = None
        self._unread = self._head = b""
        self.factory.lost(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lose(reason)

    def dataReceived(self, data: bytes) -> None:
        """Take what arrived."""
        if self.is_closing:
            # TLS hands over what it has decrypted also after the connection was given up.
            return
        if self._exchange is None and not self._unread:
            end = data.find(_END) + 4
            if 3 < end == len(data) <= self._max_headers and not self._head and data[0] != _CR:
                # One whole request without a body, and nothing else: nearly always. The rest says the same
                # slowly.
                try:
                    self._parse_head(data)
                except (_Malformed, Refusal) as error:
                    self._refuse(error)
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
                    data = self._read_body(data)
                elif self._exchange is not None or self.is_stalled:
                    self._unread = data
                    break
                else:
                    data = self._read_head(data)
        except (_Malformed, Refusal) as error:
            self._refuse(error)
        finally:
            self._is_consuming = False
        if self._unread or self._is_paused or self.is_stalled:
            self._settle_reading()

    def _go_on(self) -> None:
        """Serve what was kept while a request was under way."""
        unread = self._unread
        if unread and not self._is_consuming and not self.is_stalled and not self.is_closing:
            self._unread = b""
            self._consume(unread)
        elif self._is_paused:
            self._settle_reading()

    def _read_head(self, data: bytes) -> bytes:
        """Take a request's head, and begin to serve it if it is complete; returns what is behind it."""
        start = 0
        if self._head:
            start = max(0, len(self._head) - 3)
            data = self._head + data
            self._head = b""
        # Some clients send an empty line behind a body (RFC 9112 2.2).
        if data.startswith(b"\r\n"):
            data, start = _EMPTY_LINES.sub(b"", data, 1), 0
        end = data.find(_END, start) + 4
        if end < 4:
            self._keep_head(data)
            return b""
        if end > self._max_headers:
            raise _too_large(self._max_headers)
        if end == len(data):
            self._parse_head(data)
            return b""
        self._parse_head(data[:end])
        return data[end:]

    def _keep_head(self, data: bytes) -> None:
        """Keep the beginning of a head; what cannot become one is refused at once."""
        if len(data) > self._max_headers:
            raise _too_large(self._max_headers)
        if data.count(b"\n") != data.count(b"\r\n") or (data and not _TOKEN.match(data) and data != b"\r"):
            raise _Malformed("the request is not well-formed HTTP/1.1")
        if self.phase == IDLE:
            self._enter(HEADERS)
        self._head = data

    def _parse_head(self, head: bytes) -> None:
        """Parse a complete head, and begin to serve the request."""
        if len(head) > _FEW_HEADERS_BYTES and head.count(b"\r\n") - 2 > MAX_HEADER_COUNT:
            raise Refusal("HeadersTooLarge", f"The request has more than {MAX_HEADER_COUNT} headers.", "")
        line = _REQUEST_LINE.match(head)
        if line is None:
            self._parse_unusual_head(head)
            return
        method, path, query_string = line.groups()
        headers = self._feed_head(head)
        exchange = Exchange(self, _METHODS[method], path, query_string or b"", headers)
        connection = headers.get(b"connection")
        if connection is not None and _wants_close(connection):
            exchange.keep_alive = False
        self._exchange = exchange
        if self._complete:
            self.phase = HANDLING
            self._application.serve(exchange)
        else:
            self._begin_body(exchange)

    def _feed_head(self, head: bytes) -> dict[bytes, Any]:
        """Let llhttp read a head; returns its headers."""
        headers: dict[bytes, Any] = {}
        self._headers = headers
        self._complete = False
        parser = self._parser
        is_used = parser is not None
        if parser is None:
            parser = self._parser = HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except HttpParserUpgrade:
            # Other protocols are not spoken here, which RFC 9110 7.8 lets a server pass over. llhttp takes
            # what follows for the other protocol's, so it must not see that header.
            self._parser = None
            return self._feed_head(_UPGRADE.sub(rb"\r\nX-Not-Upgraded:", head))
        except HttpParserError as error:
            if is_used:
                # llhttp may have been closed by the request before: by `Proxy-Connection: close`, or a trailer
                # that says close. Neither means anything here.
                self._parser = None
                return self._feed_head(head)
            raise _malformed(error) from None
        if b" \r\n" in head or b"\t\r\n" in head:
            for name, value in headers.items():
                if isinstance(value, list):
                    headers[name] = [one.rstrip(b" \t") for one in value]
                else:
                    headers[name] = value.rstrip(b" \t")
        return headers

    def _parse_unusual_head(self, head: bytes) -> None:
        """Parse a head whose request line is not of the usual form: another method or version, a whole
        URL."""
        line = _ANY_REQUEST_LINE.match(head)
        if line is None:
            raise _Malformed("the request is not well-formed HTTP/1.1: its first line is no request line")
        raw_method, target, version = line.groups()
        if version not in (b"1.1", b"1.0"):
            raise _Malformed(f"HTTP/{version.decode('ascii')} is not spoken here; HTTP/1.1 is")
        # llhttp knows a list of methods; any token may be one, and no other means anything to how it parses.
        headers = self._feed_head(b"PUT" + head[len(raw_method) :])
        if target[:1] != b"/":
            target = _origin_form(target)
        path, _, query_string = target.partition(b"?")
        exchange = Exchange(self, raw_method.decode("ascii"), path, query_string, headers)
        if version == b"1.0":
            exchange.is_1_1 = exchange.keep_alive = False
            if b"transfer-encoding" in headers:
                # RFC 9112 6.1: somebody on the way may have taken the body for something else.
                raise _Malformed("HTTP/1.0 has no Transfer-Encoding")
        elif _wants_close(headers.get(b"connection", b"")):
            exchange.keep_alive = False
        self._exchange = exchange
        if self._complete:
            self.phase = HANDLING
            self._application.serve(exchange)
        else:
            self._begin_body(exchange)

    def _begin_body(self, exchange: Exchange) -> None:
        headers = self._headers
        coding = headers.get(b"transfer-encoding")
        if coding is None:
            self._left = int(headers[b"content-length"])
        elif isinstance(coding, bytes) and coding.lower() == b"chunked":
            self._left = None
        else:
            raise _Malformed("Transfer-Encoding: only 'chunked' is understood, and only once")
        self._tail = b""
        self._overhead = 0
        self._reads_body = True
        # What comes behind the body must not change what the handler was chosen by.
        self._headers = {}
        self._enter(BODY)
        exchange.expect_body(self._left)

    def _read_body(self, data: bytes) -> bytes:
        """Take a part of a body; returns what is behind the body."""
        parser = self._parser
        assert parser is not None
        exchange = self._exchange
        assert exchange is not None
        try:
            if self._left is None:
                end = self._feed_chunks(parser, data)
            else:
                end = min(self._left, len(data))
                self._left -= end
                parser.feed_data(data if end == len(data) else data[:end])
        except HttpParserError as error:
            raise _malformed(error) from None
        parts = self._parts
        if parts:
            part = parts[0] if len(parts) == 1 else b"".join(parts)
            self._reckon_overhead(end - len(part), len(parts), len(part))
            parts.clear()
            exchange.body_part(part)
        else:
            self._reckon_overhead(end, 0, 0)
        if self._complete:
            self._reads_body = False
            if not self.is_closing:
                if self.phase == BODY:
                    self.phase = HANDLING
                exchange.body_end()
        return data[end:]

    def _reckon_overhead(self, overhead: int, chunks: int, size: int) -> None:
        """Refuse a body that is mostly chunk extensions or trailers."""
        # What sizes, line ends and a signature of each chunk take is allowed to any length.
        self._overhead = max(0, self._overhead + overhead - 16 * chunks - 2 * size)
        if self._overhead > self._max_headers:
            self._parts.clear()
            raise Refusal("HeadersTooLarge", "Chunk extensions or trailers are too long.", resource="")

    def _feed_chunks(self, parser: HttpRequestParser, data: bytes) -> int:
        """Let llhttp read a chunked body; returns where in ``data`` it ends, or ends for now.

        A message ends with an empty line, so nothing behind one is given to the parser before it is known
        whether the message ended there.
        """
        view = memoryview(data)
        start = 0
        while start < len(data) and not self._complete:
            tail = self._tail
            found = (tail + data[start : start + 3]).find(_END)
            if found >= 0:
                end = start + found + 4 - len(tail)
            else:
                found = data.find(_END, start)
                end = found + 4 if found >= 0 else len(data)
            self._tail = (tail + data[max(start, end - 3) : end])[-3:]
            parser.feed_data(view[start:end])
            start = end
        return start

    # -- httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a header, or behind a chunked body a trailer."""
        name = name.lower()
        headers = self._headers
        if name not in headers:
            headers[name] = value
        elif name == b"host":
            raise _Malformed("Host is given more than once")
        else:
            known = headers[name]
            if isinstance(known, list):
                known.append(value)
            else:
                headers[name] = [known, value]

    def on_body(self, data: bytes) -> None:
        """httptools: a part of the body."""
        self._parts.append(data)

    def on_message_complete(self) -> None:
        """httptools: head and body are complete."""
        self._complete = True

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

    def linger(self) -> None:
        """The answer is out before the body is in: read on for a moment."""
        self._enter(LINGER)
        self.resume_body()

    def done(self, exchange: Exchange) -> None:
        """Request and answer are complete: go on with the next."""
        self._exchange = None
        self.phase = IDLE
        self.since = None
        self.body_is_paused = False
        if not exchange.keep_alive or self.factory.stopping:
            self.close()
        elif self._unread or self._is_paused:
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
        if self._exchange is not None:
            self._exchange.stalled(False)
        self._go_on()

    def stopProducing(self) -> None:
        """The client is gone; :meth:`connectionLost` sees to it."""

    def _settle_reading(self) -> None:
        """Read from the socket only what there is room for."""
        must_pause = (
            self.body_is_paused
            or len(self._unread) > _MAX_UNREAD
            or (self.is_stalled and not self._reads_body)
        )
        if must_pause != self._is_paused and not self.is_closing:
            self._is_paused = must_pause
            if must_pause:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    # -- the end

    def _refuse(self, error: _Malformed | Refusal) -> None:
        """Answer a request that cannot be read, and close."""
        if self.is_closing:
            return
        refusal = error if isinstance(error, Refusal) else bad_request(str(error))
        broken, self._exchange = self._exchange, None
        self._reads_body = False
        if broken is not None:
            if broken.has_begun:
                broken.lose(Failure(refusal))
                self.abort()
                return
            broken.lose(Failure(refusal))
        exchange = self._exchange = Exchange(self, "?", b"", b"", {})
        exchange.keep_alive = False
        self._application.dispatch(exchange)
        self._application.refuse(exchange, refusal)

    def close(self) -> None:
        """Close once what was written is sent. An answer without its end is cut by it, which chunks make
        visible."""
        if not self.is_closing:
            self.is_closing = True
            self._enter(CLOSING)
            # A registered producer would hold the connection open.
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Drop the connection, so that the client sees that its answer is cut."""
        self.is_closing = True
        self.transport.abortConnection()

    def expire(self) -> None:
        """The time for this phase is over."""
        if self.is_closing:
            self.abort()
        elif self.phase in (HEADERS, BODY):
            if self.phase == HEADERS and not self._head:
                self.close()
            else:
                self._refuse(Refusal("RequestTimeout", resource=""))
        else:
            self.close()

    def close_if_idle(self) -> None:
        """Close the connection unless a request is under way."""
        if self._exchange is None and not self._head and not self._unread:
            self.close()


def _too_large(limit: int) -> Refusal:
    return Refusal("HeadersTooLarge", f"Request line and headers exceed {limit} bytes.", "")


def _malformed(error: HttpParserError) -> _Malformed:
    """Return what to answer to what llhttp found."""
    cause = error.__context__
    if isinstance(cause, _Malformed):
        return cause
    return _Malformed(f"the request is not well-formed HTTP/1.1: {error}")


def _wants_close(connection: bytes | list[bytes]) -> bool:
    """Tell whether the options of ``Connection`` say that this is the last request."""
    text = connection if isinstance(connection, bytes) else b",".join(connection)
    return b"close" in [option.strip().lower() for option in text.split(b",")]


def _origin_form(target: bytes) -> bytes:
    """Return path and query of a request target, also of one in absolute form (RFC 9112 3.2.2)."""
    if b"://" not in target:
        return target
    authority_and_path = target.split(b"://", 1)[1]
    slash = authority_and_path.find(b"/")
    return authority_and_path[slash:] if slash >= 0 else b"/"
