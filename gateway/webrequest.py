"""Requests on the gateway's HTTP channel: the body's way in, the answer's way out."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from klein.resource import KleinResource
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http_headers import Headers
from twisted.web.server import Request as TwistedRequest
from zope.interface import implementer

from gateway.errors import Refusal
from gateway.expiry import http_date
from gateway.request import BodyReader, Request
from gateway.response import BodyProducer, Response
from gateway.routing import no_route

if TYPE_CHECKING:
    from gateway.web import GatewayChannel, GatewayFactory

__all__ = ["GatewayRequest", "status_line"]

# A refused body up to this size is read to its end and the connection goes on; of a larger one as
# much is read as a client that looks for answers while it sends may have sent by then.
DRAINED_BYTES = 2**18
LINGER_BYTES = 2**21

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
        self.channel.cut()

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
