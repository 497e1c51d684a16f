"""A TLS connection: the protocol of a stream below, and the transport of a protocol above."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone, ConnectionLost, TimeoutError
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IProtocol,
    IPushProducer,
    ISSLTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reactor.clock import cancel_timer
from reactor.tls.output import HELD_DELIVERING, HELD_OVER, HELD_SHAKING, Output, Phase
from reactor.tls.pieces import PIECE_BYTES, RECORD_BYTES, SLICE_BYTES
from reactor.tls.source import Relay
from reactor.writer import writer_to

if TYPE_CHECKING:
    from reactor.tls.factory import TlsFactory

__all__ = ["Phase", "TlsTransport"]

SHAKING, OPEN, ENDING, ENDED, OVER = Phase


@implementer(ISSLTransport, INegotiated, IPushProducer)
class TlsTransport(Output):
    """TLS over a stream, for one protocol.

    Events and their order are those of Twisted's TLS: ``connectionMade`` comes before the handshake, what is
    written during it is sent after it, ``handshakeCompleted`` is called if the protocol provides
    :class:`~twisted.internet.interfaces.IHandshakeListener`. ``connectionLost`` has the
    :class:`ssl.SSLError` if the handshake failed, ConnectionDone after the peer's close_notify, and
    ConnectionLost if the stream ended without one: what was received may have been cut off then.

    :param factory: has the settings and limits.
    :param above: the protocol; its ``transport`` is this object.
    """

    _log = Logger()

    def __init__(self, factory: TlsFactory, above: IProtocol) -> None:
        super().__init__(factory, above)
        self._feed = self._incoming.write
        self._timer: Any = None
        self._early = b""
        self._shaken_bytes = 0
        self._waits_for_turn = False
        self._reads = True
        self._is_half_closed = False

    # ---- the handshake ---------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Tell the protocol above, and begin the handshake."""
        below = self.transport
        self._send = writer_to(below)
        factory = self.factory
        factory.opened(self)
        self._timer = factory.clock.callLater(factory.limits.handshake_seconds, self._shakes_too_long)
        below.registerProducer(Relay(self.below_is_full, self.below_has_room), True)
        self.wrappedProtocol.makeConnection(self)
        if factory.is_client and self.phase is SHAKING:
            self._shake()

    def _shakes_too_long(self) -> None:
        self._timer = None
        seconds = self.factory.limits.handshake_seconds
        self._fail(TimeoutError(f"no TLS handshake within {seconds:g} s"), abort=True)

    def _shake_on(self, data: bytes) -> None:
        """Take bytes of the handshake, and go on with it; if it has to wait for its turn, read no more."""
        self._early += data
        if not self._waits_for_turn:
            self._waits_for_turn = True
            self.factory.handshakes.add(self._take_turn)
            if self._waits_for_turn:
                self.transport.pauseProducing()

    def _take_turn(self) -> None:
        try:
            self._shake()
        except Exception as error:  # noqa: BLE001  # as in a reactor: it ends this connection only
            self._log.failure("the protocol above TLS failed behind the handshake")
            self._reason = Failure(error)
            self.abortConnection()

    def _shake(self) -> None:
        if self.phase is not SHAKING:
            return
        if self._waits_for_turn:
            self._waits_for_turn = False
            self.transport.resumeProducing()
        while True:
            part, self._early = self._early[:SLICE_BYTES], self._early[SLICE_BYTES:]
            self._shaken_bytes += len(part)
            limit = self.factory.limits.handshake_bytes
            if self._shaken_bytes > limit:
                text = f"the TLS handshake has more than {limit} bytes"
                self._fail(ssl.SSLError(ssl.SSL_ERROR_SSL, text), abort=True)
                return
            self._feed(part)
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                if self._early:
                    continue
                self._send_outgoing()
                return
            except ssl.SSLError as error:
                self._fail(error)
                return
            break
        self.phase = ENDING if self.disconnecting else OPEN
        cancel_timer(self._timer)
        self._timer = None
        self._hold &= ~HELD_SHAKING
        if not self._reads and self.phase is OPEN:
            self.transport.pauseProducing()
        if IHandshakeListener.providedBy(self.wrappedProtocol):
            self._hold |= HELD_DELIVERING
            try:
                self.wrappedProtocol.handshakeCompleted()
            finally:
                self._hold &= ~HELD_DELIVERING
        rest, self._early = self._early, b""
        if rest:
            self.dataReceived(rest)
        elif self._incoming.pending and self.phase is not OVER:
            # Before our close_notify: OpenSSL drops what it finds then.
            self._deliver()
        else:
            self._flush()

    # ---- from the peer ---------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Decrypt received bytes, and deliver them."""
        if self.phase is SHAKING:
            self._shake_on(data)
        elif len(data) <= SLICE_BYTES:
            if self.phase is not OVER:
                self._feed(data)
                self._deliver()
        else:
            # OpenSSL's buffer stays as large as it has ever been.
            rest = memoryview(data)
            while rest and self.phase is not OVER:
                self._feed(rest[:SLICE_BYTES])
                rest = rest[SLICE_BYTES:]
                self._deliver()

    def _deliver(self) -> None:
        """Hand all complete records to the protocol above; what it writes meanwhile is sent together."""
        incoming, read = self._incoming, self._read
        self._hold |= HELD_DELIVERING
        try:
            while True:
                try:
                    # A whole record, as none is longer: nothing of it stays inside.
                    data = read(RECORD_BYTES)
                except ssl.SSLWantReadError:
                    return
                except ssl.SSLZeroReturnError:
                    data = b""
                except ssl.SSLError as error:
                    self._fail(error)
                    return
                if not data:
                    self._peer_ended()
                    return
                if self._reads or not self.disconnecting:
                    self.wrappedProtocol.dataReceived(data)
                if not incoming.pending or self.phase is OVER:
                    return
        finally:
            self._hold &= ~HELD_DELIVERING
            if self._queue or self._outgoing.pending or self.phase is ENDING:
                self._flush()
                if self._outgoing.pending > PIECE_BYTES:
                    # It makes TLS answer, for example to renegotiations, and does not read.
                    text = "the peer does not read the answers of TLS"
                    self._fail(ssl.SSLError(ssl.SSL_ERROR_SSL, text), abort=True)

    def _peer_ended(self) -> None:
        """The peer sends nothing more. Answer its close_notify behind what was written, and close."""
        self.disconnecting = True
        self.phase = ENDED if self.phase is ENDED else ENDING
        self._reason = Failure(ConnectionDone())
        self._settle_end()

    # ---- whether to read -------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Read nothing from the peer; what has arrived is still delivered, and a handshake goes on."""
        self._reads = False
        if self.phase is OPEN:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read again."""
        self._reads = True
        if self.phase < OVER:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Close the connection."""
        self.loseConnection()

    # ---- the end ---------------------------------------------------------------------------------

    def loseConnection(self) -> None:
        """Send what was written, then our close_notify, and close when the peer's has come.

        Received bytes are delivered until then, or dropped if reading is paused. A peer that does not answer
        is waited for as long as :class:`reactor.tls.factory.TlsLimits` say. During a handshake with nothing
        written, abort.
        """
        phase = self.phase
        if phase is ENDED and self._is_half_closed:
            self._close_below()
        elif phase is SHAKING:
            self.disconnecting = True
            if not self._queue:
                self.abortConnection()
        elif phase is OPEN:
            self._end()

    def loseWriteConnection(self) -> None:
        """Send what was written, then our close_notify, and go on reading until the peer closes.

        A protocol that provides :class:`~twisted.internet.interfaces.IHalfCloseableProtocol` is notified when
        that is sent; :meth:`loseConnection` then does not wait for the peer.
        """
        if self.phase is OPEN:
            self._is_half_closed = True
            self._end()

    def _end(self) -> None:
        self.disconnecting = True
        self.phase = ENDING
        if not self._reads:
            self.transport.resumeProducing()
        if not self._hold & HELD_DELIVERING:
            self._flush()

    def _settle_end(self) -> None:
        """Send our close_notify if everything before it is sent; close if the peer's has come."""
        if self.phase is ENDING:
            if self._queue or (self._source.producer is not None and self._reason is None):
                return
            self.phase = ENDED
            # It may want the peer's, or there is data before that.
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._send_outgoing()
            if self._reason is None:
                self._timer = self._after_closing(self._close_alone)
                if self._is_half_closed and IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
                    self.wrappedProtocol.writeConnectionLost()
        if self._reason is not None and self.phase is ENDED:
            self._close_below()

    def _after_closing(self, call: Callable[[], None]) -> Any:
        return self.factory.clock.callLater(self.factory.limits.closing_seconds, call)

    def _close_alone(self) -> None:
        """Close without the peer's close_notify: it may still be reading what the system has of our bytes.
        Those that the system does not take are dropped after the same time again."""
        self._close_below()
        self._timer = self._after_closing(self.transport.abortConnection)

    def _close_below(self) -> None:
        self._over()
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _fail(self, error: BaseException, *, abort: bool = False) -> None:
        """End the connection, with an alert if TLS has written one, and report the error above."""
        phase = self.phase
        if phase is OVER:
            return
        if self._reason is None:
            is_end = isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
            # Its traceback would refer to this object, and keep it until Python looks for cycles.
            self._reason = Failure(ConnectionLost() if is_end else error.with_traceback(None))
        self._over()
        below = self.transport
        below.unregisterProducer()
        if phase is SHAKING and self.factory.handshake_failed(self, error):
            # Answered without TLS: the rest of what the peer sends is dropped.
            self._timer = self._after_closing(below.abortConnection)
            return
        self._send_outgoing()
        if abort:
            below.abortConnection()
        else:
            below.loseConnection()

    def abortConnection(self) -> None:
        """Close at once, without close_notify: the peer notices that the stream was cut."""
        if self.phase is not OVER:
            self._over()
        self.transport.unregisterProducer()
        self.transport.abortConnection()

    def _over(self) -> None:
        self.phase = OVER
        self.disconnecting = True
        self._hold |= HELD_OVER
        self._queue.clear()
        self.queued_bytes = 0
        cancel_timer(self._timer)
        cancel_timer(self._flushing)
        self._timer = self._flushing = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the protocol above: ConnectionLost if the stream ended before the peer's close_notify."""
        if self._reason is not None:
            reason = self._reason
        elif self.phase is not OVER and reason.check(ConnectionDone):
            reason = Failure(ConnectionLost())
        self._over()
        self._source.unregister()
        self.factory.closed(self)
        self.connected = 0
        # Both would keep each other, with some 100 KB of OpenSSL's.
        above, self.wrappedProtocol = self.wrappedProtocol, None
        above.connectionLost(reason)
