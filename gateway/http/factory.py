"""Creates channels, enforces their deadlines, and lets them finish at shutdown."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolNegotiationFactory, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from gateway.http.channel import HTTPChannel
from gateway.http.deadlines import Deadlines
from gateway.http.encoding import http_date
from gateway.http.heads import HeadReader
from gateway.http.http1 import status_line
from gateway.http.opening import HTTP2
from gateway.http.pipelines import Pipelines
from gateway.http.ports import Application, Connection, Server, TakesOver
from reactor.gate import Gate

__all__ = ["QUIET_SECONDS", "ChannelFactory"]

QUIET_SECONDS = 0.5
"""At shutdown, the time in seconds after which a quiet connection counts as idle: a request may be on its
way, and would be lost."""

# One in so many connections may linger; beyond that, the one that lingers longest is aborted.
_LINGERING_SHARE = 4


@implementer(IProtocolNegotiationFactory)
class ChannelFactory(ServerFactory):
    """Makes channels for an application.

    :param clock: the reactor; in tests, a clock.
    :param gate: polls the sockets of all channels; see :class:`reactor.gate.Gate`. ``None`` leaves
        them to the reactor.
    :param http2: makes the object that takes over connections whose clients speak HTTP/2; ``None`` to offer
        no HTTP/2.
    """

    noisy = False
    server = b"couchgateway"
    """Value of the ``Server`` header."""

    _log = Logger()

    def __init__(
        self,
        application: Application,
        clock: IReactorTime,
        gate: Gate | None = None,
        http2: Callable[[Server], TakesOver] | None = None,
    ) -> None:
        self.application = application
        self.clock = clock
        self.channels: set[Connection] = set()
        self.stopping = False
        """Whether connections are closed after the current answer."""
        self.max_clients = application.limits.max_clients
        """Limit on connections; further ones are closed at once."""
        self.on_refused: Callable[[int], None] | None = None
        """Called with the number of clients when a connection was closed for that reason."""
        self.heads = HeadReader(application.guard, application.select)
        """Parses the heads of all channels."""
        self.pipelines = Pipelines(clock)
        self._gate = gate
        self.http2 = None if http2 is None else http2(self)
        guard = application.guard
        self._always = b"" if guard is None else b"".join(b"%b: %b\r\n" % pair for pair in guard.headers)
        self._heads: dict[int, bytes] = {}
        self.beginnings: dict[int, bytes] = _Beginnings(self._begin)
        """Status -> beginning of its answers, up to the number in ``X-Request-Id``."""
        self._lingering: dict[Connection, None] = {}
        self._waiting: list[Deferred[None]] = []
        self._refuses = False
        application.count_clients = self.channels.__len__
        self._tick()
        self._sweeper = LoopingCall(self._sweep)
        self._sweeper.clock = clock
        self._deadlines = Deadlines(application.limits)

    # ---- Twisted ---------------------------------------------------------------------------------

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols that TLS clients may negotiate (ALPN)."""
        return [b"http/1.1"] if self.http2 is None else [HTTP2, b"http/1.1"]

    def startFactory(self) -> None:
        """Begin to enforce deadlines."""
        if not self._sweeper.running:
            self._sweeper.start(1.0, now=False)

    def buildProtocol(self, addr: IAddress | None) -> HTTPChannel | None:
        """Return a channel; ``None``, which closes the connection, if there are too many."""
        if self._refuses:
            return None
        if len(self.channels) >= self.max_clients:
            if self.on_refused is not None:
                self.on_refused(len(self.channels))
            return None
        return HTTPChannel(self)

    # ---- what channels ask for -------------------------------------------------------------------

    def made(self, channel: Connection) -> None:
        """Add a new connection."""
        self.channels.add(channel)
        if self._gate is not None:
            self._gate.adopt(channel.transport)

    def replaced(self, channel: Connection, successor: Connection) -> None:
        """Note that another object has taken over a connection."""
        self.channels.discard(channel)
        self.channels.add(successor)

    def lost(self, channel: Connection) -> None:
        """Remove a closed connection."""
        self.channels.discard(channel)
        self.application.unread_answers.release(channel)
        self._lingering.pop(channel, None)
        if self._waiting and not self.channels:
            self._all_closed()

    def lingers(self, channel: Connection) -> None:
        """Note a connection that waits for its client to close. If there are many, the longest-waiting are
        aborted, so that refused requests cannot take up all connections."""
        self._lingering[channel] = None
        if len(self._lingering) > max(1, self.application.limits.max_clients // _LINGERING_SHARE):
            oldest = next(iter(self._lingering))
            del self._lingering[oldest]
            oldest.abort()

    def head(self, status: int) -> bytes:
        """Return the beginning of every answer with this status, up to the value of ``X-Request-Id``."""
        head = self._heads.get(status)
        if head is None:
            date = http_date(self.application.unix_time())
            head = self._heads[status] = b"%bDate: %b\r\nServer: %b\r\n%bX-Request-Id: " % (
                status_line(status),
                date,
                self.server,
                self._always,
            )
        return head

    def _begin(self, status: int) -> bytes:
        return b"%b%b-" % (self.head(status), self.application.id_prefix)

    # ---- deadlines -------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._heads.clear()
        self.beginnings.clear()

    def _sweep(self) -> None:
        # Called once a second, so that no request has to format the date, or read the clock for its deadline.
        self._tick()
        now = self.clock.seconds()
        for channel in list(self.channels):
            try:
                for one in channel.timed():
                    self._deadlines.look_after(one, now)
                if channel.is_stalled:
                    channel.note_unread()
            except Exception:  # noqa: BLE001  # one connection's failure must not end the sweep of the others
                self._log.failure("ending a connection that took too long failed")
                channel.abort()

    # ---- the end ---------------------------------------------------------------------------------

    def leave(self) -> None:
        """Continue to accept and serve, but close each connection after its next answer, so that clients move
        to other servers.

        :meth:`stop` or :meth:`drain` follows.
        """
        self.stopping = True
        for channel in list(self.channels):
            channel.leave()

    def stop(self) -> Deferred[None]:
        """Take no new requests, and let running ones finish.

        :returns: fires when all connections are closed, within the grace time.
        """
        self._refuses = True
        stopped = self._without_connections()
        self._close_idle(unused=True)
        if self.channels:
            timers = [
                self.clock.callLater(QUIET_SECONDS, self._close_idle),
                self.clock.callLater(self.application.limits.grace_seconds, self._abort_all),
            ]
            stopped.addCallback(lambda _: _cancel(timers))
        return stopped

    def _close_idle(self, *, unused: bool = False) -> None:
        """Close connections on which no request is being served.

        :param unused: only connections without a request for some time.
        """
        now = self.clock.seconds()
        for channel in list(self.channels):
            quiet_since = channel.since
            if not unused or (quiet_since is not None and now - quiet_since >= QUIET_SECONDS):
                channel.close_if_idle()

    def drain(self) -> Deferred[None]:
        """Move clients elsewhere without losing a request; call it when no new clients can come.

        The next answer on each connection closes it. Idle ones stay open until their timeout, because a
        request may be on its way. :meth:`stop` may follow.

        :returns: fires when all connections are closed.
        """
        return self._without_connections()

    def _without_connections(self) -> Deferred[None]:
        self.leave()
        closed: Deferred[None] = Deferred()
        self._waiting.append(closed)
        if not self.channels:
            self._all_closed()
        return closed

    def _all_closed(self) -> None:
        if self._sweeper.running:
            self._sweeper.stop()
        waiting, self._waiting = self._waiting, []
        for closed in waiting:
            closed.callback(None)

    def _abort_all(self) -> None:
        self._log.warn("{count} connections did not finish in time", count=len(self.channels))
        for channel in list(self.channels):
            channel.cut_by = "gateway"
            channel.abort()


class _Beginnings(dict[int, bytes]):
    """Beginnings of answers, made when they are first read: a subscript is cheaper than a call."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[int], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, status: int) -> bytes:
        begun = self[status] = self._make(status)
        return begun


def _cancel(timers: list[IDelayedCall]) -> None:
    for timer in timers:
        if timer.active():
            timer.cancel()
