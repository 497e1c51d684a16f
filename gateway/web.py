"""The gateway on twisted.web's HTTP/1.1 channel.

What is done here and in ``gateway.webrequest`` and nowhere else: limits and timeouts of the wire,
back-pressure, hang-ups, and writing an answer in one piece. Bodies stay in memory and are counted;
nothing is spilled to temporary files. An answer that comes before the end of its request's body (a
refusal) is sent at once; what little is left of the body is read and dropped, so that the client
gets to see it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web import http
from zope.interface import implementer

from gateway.app import Gateway
from gateway.errors import Refusal, bad_request
from gateway.expiry import http_date
from gateway.request import Request
from gateway.webrequest import GatewayRequest, status_line

__all__ = ["LINGER_SECONDS", "GatewayChannel", "GatewayFactory"]

LINGER_SECONDS = 5.0
"""For which the rest of a refused body is read."""

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

    def cut(self) -> None:
        """Close once what was written is sent: an answer without its end, which chunks make visible."""
        if self.transport is not None:
            self.unregisterProducer()
            self._stall_deadline = None
            self._deadline = self.site.clock.seconds() + self.site.gateway.limits.stall_seconds
            self.loseConnection()

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


@implementer(IProtocolNegotiationFactory)
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
        """Whether every answer closes its connection."""
        self._waiting: list[Deferred[None]] = []
        self._tick()
        self._sweeper = LoopingCall(self._sweep)
        self._sweeper.clock = clock

    def acceptableProtocols(self) -> list[bytes]:
        """Return what TLS clients may negotiate (ALPN)."""
        return [b"http/1.1"]

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
        stopped = self._without_connections()
        for channel in list(self.channels):
            channel.close_if_idle()
        if self.channels:
            timer = self.clock.callLater(self.gateway.limits.grace_seconds, self._abort_all)
            stopped.addCallback(lambda _: timer.cancel() if timer.active() else None)
        return stopped

    def drain(self) -> Deferred[None]:
        """Let clients go elsewhere without losing a request; to be called when no new ones can come.

        The next answer on each connection closes it. Idle ones are left alone until their time is
        up, because a request may be on its way. :meth:`stop` may follow.

        :returns: fires when all connections are closed.
        """
        return self._without_connections()

    def _without_connections(self) -> Deferred[None]:
        self.stopping = True
        closed: Deferred[None] = Deferred()
        self._waiting.append(closed)
        if not self.channels:
            self._all_closed()
        return closed

    def lost(self, channel: GatewayChannel) -> None:
        """A connection is closed."""
        self.channels.discard(channel)
        if self.stopping and not self.channels:
            self._all_closed()

    def _all_closed(self) -> None:
        if self._sweeper.running:
            self._sweeper.stop()
        waiting, self._waiting = self._waiting, []
        for closed in waiting:
            closed.callback(None)

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
