"""Runs Klein's own handlers on our channel, with requests of twisted.web as usual."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from klein.resource import KleinResource
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import Request as TwistedRequest
from twisted.web.server import Site

from gateway.http.encoding import http_date
from gateway.http.refusal import bad_request
from gateway.http.response import REASONS

if TYPE_CHECKING:
    from gateway.http.ports import Channel, ExchangePort

__all__ = ["KleinRequest", "WebChannel", "render_by_klein"]

# Requests of twisted.web read settings from their site, which serves nothing here.
_SITE = Site(Resource())
_SITE.displayTracebacks = False


def render_by_klein(exchange: ExchangePort, channel: Channel) -> KleinRequest:
    """Let Klein find the handler and write the answer; ``exchange.klein_finished`` is called at its end."""
    request = KleinRequest(exchange, channel)
    # A handler that writes immediately may be paused before it returns.
    exchange.klein_runs(request)
    request.run()
    return request


class WebChannel(http.HTTPChannel):
    """The channel of a request of twisted.web; it passes everything on to our channel."""

    def __init__(self, exchange: ExchangePort, channel: Channel) -> None:
        super().__init__()
        self.site = _SITE
        self.transport = channel.transport
        self._exchange = exchange
        self._channel = channel
        self.producer: Any = None
        self._is_pull = False
        self._next_pull: Any = None

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Send status line and headers."""
        answer = self._exchange.klein_answers(int(code), headers)
        super().writeHeaders(version, code, REASONS.get(int(code), reason), answer)

    def registerProducer(self, producer: IPushProducer | IPullProducer, streaming: bool) -> None:
        """Let a handler be paused when the client reads slowly."""
        if self.producer is not None:
            raise RuntimeError("a producer is registered already")
        self.producer = producer
        self._is_pull = not streaming
        if self._is_pull:
            self._pull()
        elif self._channel.is_stalled:
            self.producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self.producer = None
        if self._next_pull is not None:
            self._next_pull.cancel()
            self._next_pull = None

    def _pull(self) -> None:
        """Ask a pull producer for a part, once per reactor turn while there is room: it may have nothing at
        the moment."""
        self._next_pull = None
        if self.producer is not None and not self._channel.is_stalled:
            self._next_pull = self._channel.factory.clock.callLater(0, self._pull)
            self.producer.resumeProducing()

    def stalled(self, stalled: bool) -> None:
        """Pause the handler while the client reads slowly, and resume it when the client has caught up."""
        if self.producer is None:
            return
        if self._is_pull:
            if not stalled and self._next_pull is None:
                self._pull()
        elif stalled:
            self.producer.pauseProducing()
        else:
            self.producer.resumeProducing()

    def loseConnection(self) -> None:
        """Close after sending what was written."""
        self._exchange.cut = self._exchange.cut or "gateway"
        self._channel.close()

    def abortConnection(self) -> None:
        """Drop the connection."""
        self._exchange.cut = self._exchange.cut or "gateway"
        self._channel.abort()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # twisted.web calls this for a form that it cannot parse.
        self._exchange.klein_failed(bad_request("the form cannot be read"))

    def requestDone(self, request: TwistedRequest) -> None:
        """Note that the answer is complete."""
        self._exchange.klein_finished()


class KleinRequest(TwistedRequest):
    """A request of twisted.web for Klein, with the body that our channel has read."""

    channel: WebChannel

    def __init__(self, exchange: ExchangePort, channel: Channel) -> None:
        super().__init__(exchange.web_channel(exchange, channel), False)
        self.exchange = exchange
        self._application = channel.application
        query = exchange.query_string
        self._line = (
            exchange.method.encode("latin-1"),
            exchange.path + b"?" + query if query else exchange.path,
            b"HTTP/" + exchange.http_version,
        )
        self.requestHeaders = Headers()
        for name, value in exchange.headers.items():
            self.requestHeaders.setRawHeaders(name, value if isinstance(value, list) else [value])
        self.parseCookies()
        self.content = BytesIO()
        self.content.write(exchange.raw_body)
        self.site = _SITE
        self.client = channel.transport.getPeer()
        self.host = channel.transport.getHost()
        factory = channel.factory
        headers = self.responseHeaders
        headers.setRawHeaders(b"Server", [factory.server])
        headers.setRawHeaders(b"Date", [http_date(self._application.unix_time())])
        headers.setRawHeaders(b"X-Request-Id", [exchange.id_bytes])
        if self._application.guard is not None:
            for name, value in self._application.guard.headers:
                headers.addRawHeader(name, value)
        if not exchange.is_1_1 or factory.stopping:
            # Such an answer may have no length that tells the client where it ends.
            exchange.keep_alive = False
        if not exchange.keep_alive:
            headers.setRawHeaders(b"Connection", [b"close"])

    def write(self, data: bytes) -> None:
        """Send a part of the answer's body."""
        if self.method != b"HEAD":
            self.exchange.sent_bytes += len(data)
        super().write(data)

    def run(self) -> None:
        """Parse query and form like twisted.web, and answer the request."""
        self.requestReceived(*self._line)

    def process(self) -> None:
        """Run Klein's own dispatching."""
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        self.render(KleinResource(self._application.app))

    def processingFailed(self, reason: Failure) -> None:
        """Answer a failure for which Klein found no error handler."""
        # Klein finishes every request that is not marked as finished, which would send a second answer.
        self.finished = 1
        waiters, self.notifications = self.notifications, []
        for waiting in waiters:
            waiting.callback(None)
        if self.startedWriting:
            self._log.failure("a handler failed after its answer was started", reason)
            self.channel.abortConnection()
            return
        error = reason.value
        assert isinstance(error, Exception)
        self.exchange.klein_failed(error)

    def abandon(self) -> None:
        """Give up the request: the client is gone, and :meth:`connectionLost` notifies the handler."""

    def stalled(self, stalled: bool) -> None:
        """Note that the client reads slowly, or has caught up."""
        self.channel.stalled(stalled)

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone."""
        producer = self.channel.producer
        self.channel.unregisterProducer()
        super().connectionLost(reason)
        if producer is not None:
            producer.stopProducing()
