"""The gateway on twisted.web's HTTP/1.1 channel.

What is done here and nowhere else: limits and timeouts of the wire, back-pressure, hang-ups, and
writing an answer in one piece. Bodies stay in memory and are counted; nothing is spilled to
temporary files. An answer that comes before the end of its request's body (a refusal) is sent at
once; what little is left of the body is read and dropped, so that the client gets to see it.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from klein.resource import KleinResource
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IPushProducer, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http_headers import Headers
from twisted.web.server import Request as TwistedRequest
from zope.interface import implementer

from gateway.app import Gateway
from gateway.errors import Refusal, bad_request
from gateway.expiry import http_date
from gateway.request import BodyReader, Request
from gateway.response import BodyProducer, Response
from gateway.routing import no_route

__all__ = ["GatewayChannel", "GatewayFactory"]

# A refused body up to this size is read to its end and the connection goes on; of a larger one as
# much is read as a client that looks for answers while it sends may have sent by then.
DRAINED_BYTES = 2**18
LINGER_BYTES = 2**21
LINGER_SECONDS = 5.0

# Read ahead of a streamed body before its handler wants it.
_READ_AHEAD = 2**16

_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in http.RESPONSES.items()
} | {499: b"HTTP/1.1 499 Client Closed Request\r\n"}


def status_line(status: int) -> bytes:
    """Return the first line of an answer."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


class _Stream:
    """The body of a streamed request."""

    def __init__(self, channel: GatewayChannel) -> None:
        self._channel = channel
        self._reader: BodyReader | None = None
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._finished = False
        self.lost = False

    def deliver_to(self, reader: BodyReader) -> None:
        self._reader = reader
        early, self._early = self._early, []
        for data in early:
            reader.body_received(data)
        if self.lost:
            reader.body_lost()
        elif self._finished:
            reader.body_finished()
        elif self._early_bytes > _READ_AHEAD:
            self._channel.resume_body()

    def pause(self) -> None:
        if not self._finished:
            self._channel.pause_body()

    def resume(self) -> None:
        if not self._finished and not self.lost:
            self._channel.resume_body()

    def received(self, data: bytes) -> None:
        if self._reader is not None:
            self._reader.body_received(data)
            return
        self._early.append(data)
        self._early_bytes += len(data)
        if self._early_bytes > _READ_AHEAD:
            self._channel.pause_body()

    def finished(self) -> None:
        self._finished = True
        if self._reader is not None:
            self._reader.body_finished()

    def lose(self) -> None:
        if not self.lost:
            self.lost = True
            if self._reader is not None:
                self._reader.body_lost()


@implementer(IPushProducer)
class GatewayRequest(TwistedRequest):
    """One request on the channel. It is a twisted.web request too, for handlers of Klein's own kind."""

    channel: GatewayChannel  # nothing else makes these requests
    site: GatewayFactory  # type: ignore[assignment]
    transport: Any
    defaultContentType = b"text/plain"

    def __init__(self, channel: GatewayChannel, queued: object = None) -> None:
        # Not the base class's: it asks for addresses, and sets up much that only Klein needs.
        self.channel = channel
        self.site = channel.site
        self.transport = channel.transport
        self.requestHeaders = Headers()
        self.responseHeaders = Headers()
        self.notifications: list[Deferred[None]] = []
        self.queued = False
        self.content = None
        self._request: Request | None = None
        self._stream: _Stream | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._reserved = 0
        self._body_complete = False
        self._dropping = False
        self._started = False
        self._answered = False
        self._deferred: Deferred[Any] | None = None
        self._producer_body: BodyProducer | None = None
        self._length: int | None = 0

    # -- what the channel calls

    def parseCookies(self) -> None:
        """There are none."""

    def gotLength(self, length: int | None) -> None:
        """The headers are complete: find the handler, and start it if it does not need the body first."""
        channel = self.channel
        self._length = length
        self.method, self.uri, self.clientproto = channel._command, channel._path, channel._version
        path, _, query_string = _origin_form(self.uri).partition(b"?")
        self.path = path
        limit = self.site.gateway.limits.max_body
        self._request = request = Request(
            self.method.decode("latin-1"),
            path,
            query_string,
            self.requestHeaders.getRawHeaders,
            body_limit=limit,
        )
        gateway = self.site.gateway
        found = gateway.dispatch(request)
        channel.headers_complete(has_body=length != 0)
        if self.site.stopping:
            channel.persistent = False
        if length == 0:
            return
        endpoint = request.endpoint
        if endpoint is not None and endpoint.streamed:
            request.stream = self._stream = _Stream(channel)
            self._run()
        elif length is not None and length > limit:
            self._drop_body(too_large=True)
        elif endpoint is None and (found or not gateway.klein_knows(request)):
            self._drop_body(too_large=False)
        elif length is not None:
            self._reserve(length)

    def handleContentChunk(self, data: bytes) -> None:
        """Take a part of the body."""
        self._body_bytes += len(data)
        if self._stream is not None and not self._dropping:
            self.channel.body_progress()
            self._stream.received(data)
        elif self._dropping:
            if self._body_bytes > LINGER_BYTES and self._answered:
                self.channel.loseConnection()
        elif self._length is None and self._body_bytes > self.site.gateway.limits.max_body:
            self._drop_body(too_large=True)
        elif self._length is not None or self._reserve(len(data)):
            self._body.append(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The body is complete."""
        self._body_complete = True
        self.channel.body_complete()
        if self._dropping or self._answered:
            if self._answered:
                self._end()
        elif self._stream is not None:
            self._stream.finished()
        elif self._request is not None:
            self._request.raw_body = b"".join(self._body)
            self._body.clear()
            self._run()

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone: cancel everything done for it."""
        self._disconnected = True
        self._release()
        if self._stream is not None:
            self._stream.lose()
        if self._deferred is not None:
            self._deferred.cancel()
        if self._producer_body is not None:
            self._producer_body.cancel()
            self._producer_body = None
        notifications, self.notifications = self.notifications, []
        for waiting in notifications:
            waiting.errback(reason)

    # -- the body

    def _reserve(self, size: int) -> bool:
        if self.site.gateway.budget.take(size):
            self._reserved += size
            return True
        self._drop_body(too_large=False, refusal=Refusal("Overloaded", resource=""))
        return False

    def _release(self) -> None:
        self.site.gateway.budget.adjust(-self._reserved)
        self._reserved = 0

    def _drop_body(self, *, too_large: bool, refusal: Refusal | None = None) -> None:
        """Answer now; the body is not wanted."""
        request = self._request
        assert request is not None
        self._dropping = True
        self._body.clear()
        request.body_too_large = too_large
        if self._length is None or self._length - self._body_bytes > DRAINED_BYTES:
            self.channel.persistent = False
        if refusal is not None:
            self._respond(self.site.gateway.refuse(request, refusal))
        elif request.handler is None:
            self._respond(self.site.gateway.refuse(request, no_route(request.path)))
        else:
            self._run()

    # -- the handler

    def _run(self) -> None:
        request = self._request
        assert request is not None
        if request.handler is None:
            self._run_klein()
            return
        answer = self.site.gateway.handle(request)
        if isinstance(answer, Response):
            self._respond(answer)
        else:
            self._deferred = answer
            answer.addCallback(self._respond).addErrback(self._broken)

    def _broken(self, failure: Failure) -> None:
        self._log.failure("writing an answer", failure)
        if not self._disconnected:
            self.channel.abort()

    def _run_klein(self) -> None:
        """Let Klein find the handler; it writes to this object as to any twisted.web request."""
        request = self._request
        assert request is not None
        gateway = self.site.gateway
        if not gateway.klein_knows(request):
            self._respond(gateway.refuse(request, no_route(request.path)))
            return
        self._adapterCache: dict[Any, Any] = {}
        self.client = self.channel.getPeer()
        self.host = self.channel.getHost()
        self.content = BytesIO(request.raw_body)
        self.args = http.parse_qs(request.query_string, 1)
        self.prepath = []
        self.postpath = request.path[1:].split(b"/")
        self.cookies = []
        self.received_cookies = {}
        self.responseHeaders.setRawHeaders(b"X-Request-Id", [request.id.encode("ascii")])
        self.responseHeaders.setRawHeaders(b"Date", [http_date(gateway.unix_time())])
        KleinResource(gateway.app).render(self)

    def finish(self) -> None:
        """End an answer that was written the way of twisted.web."""
        super().finish()
        self._release()

    def processingFailed(self, reason: Failure) -> None:
        """Answer a failure that Klein found no handler for."""
        if self.startedWriting:
            self._log.failure("a handler failed after its answer had begun", reason)
            self.channel.abort()
            return
        assert self._request is not None
        error = reason.value
        assert isinstance(error, Exception)
        self._respond(self.site.gateway.refuse(self._request, error))

    # -- the answer

    def _respond(self, response: Response) -> None:
        self._deferred = None
        body = response.body
        if self._disconnected:
            if not isinstance(body, bytes):
                body.cancel()
            return
        request = self._request
        assert request is not None
        channel = self.channel
        status = response.status
        is_bytes = isinstance(body, bytes)
        head = [status_line(status), self.site.common_headers, b"X-Request-Id: ", request.id.encode("ascii")]
        for name, value in response.headers:
            head += (b"\r\n", name, b": ", value)
        if self.site.stopping:
            channel.persistent = False
        if not is_bytes:
            if self.clientproto == b"HTTP/1.1":
                head.append(b"\r\nTransfer-Encoding: chunked")
                self.chunked = 1
            else:
                channel.persistent = False
        elif status not in http.NO_BODY_CODES:
            head.append(b"\r\nContent-Length: %d" % len(body))  # type: ignore[arg-type]
        if not channel.persistent:
            head.append(b"\r\nConnection: close")
        head.append(b"\r\n\r\n")
        data = b"".join(head)
        if data.count(b"\n") != data.count(b"\r\n") or data.count(b"\r\n") != len(response.headers) + (
            5
            + (is_bytes and status not in http.NO_BODY_CODES)
            + bool(self.chunked)
            + (not channel.persistent)
        ):
            raise ValueError("a header of the answer holds a line end")
        self._started = True
        sends_body = self.method != b"HEAD" and status not in http.NO_BODY_CODES
        if isinstance(body, bytes):
            self.transport.write(data + body if sends_body else data)
            self._finished_answer()
            return
        self.transport.write(data)
        if not sends_body:
            body.cancel()
            self._finished_answer()
            return
        self._producer_body = body
        channel.registerProducer(self, True)
        if channel.is_stalled:
            body.pause()
        body.start(_Sink(self))

    def write_part(self, data: bytes) -> None:
        """Send a part of a produced body."""
        if self._producer_body is not None:
            if self.chunked:
                self.transport.writeSequence((b"%x\r\n" % len(data), data, b"\r\n"))
            else:
                self.transport.write(data)

    def end_parts(self) -> None:
        """A produced body is complete."""
        if self._producer_body is None:
            return
        self._producer_body = None
        if self.chunked:
            self.transport.write(b"0\r\n\r\n")
        self.channel.unregisterProducer()
        self._finished_answer()

    def abort_parts(self) -> None:
        """A produced body cannot be completed."""
        self._producer_body = None
        self.channel.abort()

    def _finished_answer(self) -> None:
        self._answered = True
        if self._body_complete:
            self._end()
        else:
            self._dropping = True
            self.channel.linger()

    def _end(self) -> None:
        self._release()
        self.finished = 1
        notifications, self.notifications = self.notifications, []
        for waiting in notifications:
            waiting.callback(None)
        self.channel.requestDone(self)

    @property
    def has_begun_answer(self) -> bool:
        """Whether anything of the answer was written, by either way."""
        return self._started or bool(self.startedWriting)

    # -- IPushProducer, of a produced body

    def pauseProducing(self) -> None:
        """The client reads slowly."""
        if self._producer_body is not None:
            self._producer_body.pause()

    def resumeProducing(self) -> None:
        """The client has caught up."""
        if self._producer_body is not None:
            self._producer_body.resume()

    def stopProducing(self) -> None:
        """The client is gone; :meth:`connectionLost` sees to it."""


class _Sink:
    """What a body producer writes into: a request, without its other methods."""

    def __init__(self, request: GatewayRequest) -> None:
        self.write = request.write_part
        self.finish = request.end_parts
        self.abort = request.abort_parts


def _origin_form(target: bytes) -> bytes:
    """Return path and query of a request target, also of one in absolute form (RFC 9112 3.2.2)."""
    if target[:1] == b"/" or b"://" not in target:
        return target
    authority_and_path = target.split(b"://", 1)[1]
    slash = authority_and_path.find(b"/")
    return authority_and_path[slash:] if slash >= 0 else b"/"


_IDLE, _HEADERS, _BODY, _HANDLING, _LINGER = range(5)


class GatewayChannel(http.HTTPChannel):
    """twisted.web's channel with deadlines that cost nothing while they are met, a body that can
    be paused, and refusals that say why.
    """

    site: GatewayFactory
    transport: Any
    requestFactory = GatewayRequest  # type: ignore[assignment]  # the same to the channel
    # Twisted's own timer is set and unset for every request; the factory's sweep replaces it.
    timeOut = None

    def __init__(self) -> None:
        super().__init__()
        self._phase = _IDLE
        self._deadline: float | None = None
        self._stall_deadline: float | None = None
        self._body_paused = False

    def connectionMade(self) -> None:
        """Begin to wait for the first request."""
        limits = self.site.gateway.limits
        self.totalHeadersSize = self.MAX_LENGTH = limits.max_headers
        self._deadline = self.site.clock.seconds() + limits.header_seconds
        super().connectionMade()
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Cancel what is under way."""
        self.site.lost(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        """Take what arrived."""
        if self._phase == _IDLE:
            self._phase = _HEADERS
            self._deadline = self.site.clock.seconds() + self.site.gateway.limits.header_seconds
        LineReceiver.dataReceived(self, data)

    def headers_complete(self, *, has_body: bool) -> None:
        """Wait for the body, if there is one."""
        if has_body:
            self._phase = _BODY
            self._deadline = self.site.clock.seconds() + self.site.gateway.limits.body_seconds

    def body_progress(self) -> None:
        """A part of a streamed body has arrived: wait for the next one."""
        if not self._body_paused:
            self._deadline = self.site.clock.seconds() + self.site.gateway.limits.body_seconds

    def body_complete(self) -> None:
        """Wait for the handler, as long as it takes: its operations have timeouts of their own."""
        self._phase = _HANDLING
        self._deadline = None

    def linger(self) -> None:
        """The answer is out before the body is in: read on for a moment."""
        self._phase = _LINGER
        self._deadline = self.site.clock.seconds() + LINGER_SECONDS
        self.resume_body()

    def requestDone(self, request: Any) -> None:
        """Go on with the next request."""
        self._phase = _IDLE
        self._deadline = self.site.clock.seconds() + self.site.gateway.limits.idle_seconds
        super().requestDone(request)

    # -- back-pressure: a paused body must stay paused when the send buffer empties

    @property
    def is_stalled(self) -> bool:
        """Whether the client reads slower than we write."""
        return self._waitingForTransport

    def pause_body(self) -> None:
        """Read no more of the request's body."""
        if not self._body_paused:
            self._body_paused = True
            self._deadline = None
            self._networkProducer.pauseProducing()

    def resume_body(self) -> None:
        """Read on."""
        if self._body_paused:
            self._body_paused = False
            if self._phase == _BODY:
                self._deadline = self.site.clock.seconds() + self.site.gateway.limits.body_seconds
            if not self._waitingForTransport:
                self._networkProducer.resumeProducing()

    def pauseProducing(self) -> None:
        """The send buffer is full."""
        self._stall_deadline = self.site.clock.seconds() + self.site.gateway.limits.stall_seconds
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """The send buffer has emptied."""
        self._stall_deadline = None
        super().resumeProducing()
        if self._body_paused:
            self._networkProducer.pauseProducing()

    # -- the end

    def _send100Continue(self) -> None:
        # A request that is refused already must not be encouraged.
        if not self.requests[-1].has_begun_answer:
            super()._send100Continue()

    def lineLengthExceeded(self, line: bytes) -> None:
        """A header line is longer than all headers may be."""
        self._refuse(Refusal("HeadersTooLarge", resource=""))

    def _respondToBadRequestAndDisconnect(self) -> None:
        if self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders:
            self._refuse(
                Refusal(
                    "HeadersTooLarge", f"Request line and headers exceed {self.totalHeadersSize} bytes.", ""
                )
            )
        else:
            self._refuse(bad_request("the request is not well-formed HTTP/1.1"))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer a request that cannot be read, and close."""
        if self.transport is None or self.transport.disconnecting:
            return
        broken = self.requests[-1] if self.requests else None
        if broken is not None and broken.has_begun_answer:
            self.abort()
            return
        if broken is not None:
            self.requests.pop()
            broken.connectionLost(Failure(refusal))
        request = Request("?", b"", b"", lambda name: None)
        gateway = self.site.gateway
        gateway.dispatch(request)
        response = gateway.refuse(request, refusal)
        body = response.body
        assert isinstance(body, bytes)
        headers = b"".join(b"%b: %b\r\n" % pair for pair in response.headers)
        self.transport.write(
            b"%b%bX-Request-Id: %b\r\n%bContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (
                status_line(response.status),
                self.site.common_headers,
                request.id.encode("ascii"),
                headers,
                len(body),
                body,
            )
        )
        self.loseConnection()

    def abort(self) -> None:
        """Drop the connection, so that the client sees that its answer is cut."""
        if self.transport is not None:
            self.transport.abortConnection()

    def expire(self, now: float) -> None:
        """Close the connection if a deadline has passed."""
        if self._stall_deadline is not None and now >= self._stall_deadline:
            self.abort()
        elif self._deadline is not None and now >= self._deadline:
            self._deadline = now + LINGER_SECONDS
            if self.transport.disconnecting:
                self.abort()
            elif self._phase in (_HEADERS, _BODY):
                self._refuse(Refusal("RequestTimeout", resource=""))
            else:
                self.loseConnection()

    def close_if_idle(self) -> None:
        """Close the connection unless a request is under way."""
        if self._phase == _IDLE:
            self.loseConnection()


class GatewayFactory(ServerFactory):
    """Makes channels for a gateway.

    :param gateway: serves the requests.
    """

    noisy = False
    _log = Logger()

    def __init__(self, gateway: Gateway, clock: IReactorTime) -> None:
        self.gateway = gateway
        self.clock = clock
        self.channels: set[GatewayChannel] = set()
        gateway.count_clients = self.channels.__len__
        self.stopping = False
        self._stopped: Deferred[None] | None = None
        self._tick()
        self._sweeper = LoopingCall(self._sweep)
        self._sweeper.clock = clock

    def startFactory(self) -> None:
        """Begin to watch deadlines."""
        if not self._sweeper.running:
            self._sweeper.start(1.0, now=False)

    def buildProtocol(self, addr: IAddress | None) -> GatewayChannel | None:
        """Return a channel; ``None``, which closes the connection, if there are too many."""
        if self.stopping or len(self.channels) >= self.gateway.limits.max_clients:
            return None
        channel = GatewayChannel()
        channel.site = channel.factory = self
        channel.callLater = self.clock.callLater  # type: ignore[method-assign,assignment]
        return channel

    def log(self, request: object) -> None:
        """The gateway logs by itself."""

    def stop(self) -> Deferred[None]:
        """Take no new requests, and let those under way finish.

        :returns: fires when all connections are closed, within the grace time.
        """
        self.stopping = True
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        for channel in list(self.channels):
            channel.close_if_idle()
        if not self.channels:
            self._all_closed()
        else:
            timer = self.clock.callLater(self.gateway.limits.grace_seconds, self._abort_all)
            stopped.addCallback(lambda _: timer.cancel() if timer.active() else None)
        return stopped

    def lost(self, channel: GatewayChannel) -> None:
        """A connection is closed."""
        self.channels.discard(channel)
        if self.stopping and not self.channels:
            self._all_closed()

    def _all_closed(self) -> None:
        if self._sweeper.running:
            self._sweeper.stop()
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            stopped.callback(None)

    def _abort_all(self) -> None:
        self._log.warn("{count} connections did not finish in time", count=len(self.channels))
        for channel in list(self.channels):
            channel.abort()

    def _sweep(self) -> None:
        self._tick()
        now = self.clock.seconds()
        for channel in list(self.channels):
            channel.expire(now)

    def _tick(self) -> None:
        self.common_headers = b"Date: %b\r\nServer: couchgateway\r\n" % http_date(self.gateway.unix_time())
