"""The transport of the channel's tests, over TLS: a client in memory encrypts what tests send, and they read
what it decrypts."""

from __future__ import annotations

import ssl
import tempfile
from contextlib import suppress
from functools import cache
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from reactor.tls.contexts import server_context
from reactor.tls.factory import LIMITS
from reactor.tls.handshakes import Handshakes
from reactor.tls.transport import TlsTransport
from tests.certificates import self_signed
from tests.gateway.support import Transport


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return those of a server and of a client."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(self_signed())
        file.flush()
        server = server_context(file.name, file.name)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    return server, client


class _Factory:
    """What TLS asks of its factory."""

    is_client = False
    limits = LIMITS

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.handshakes = Handshakes(clock, lambda: 0.0)

    def session(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        return contexts()[0].wrap_bio(incoming, outgoing, server_side=True)

    def opened(self, transport: object) -> None:
        """Do nothing."""

    def closed(self, transport: object) -> None:
        """Do nothing."""


@implementer(IHalfCloseableProtocol)
class _Above:
    """Passes on what TLS reports to the channel, which is connected by the test."""

    def __init__(self, transport: SecureTransport, channel: Any) -> None:
        self._transport = transport
        self._channel = channel
        self.dataReceived = channel.dataReceived
        self.writeConnectionLost = channel.writeConnectionLost
        self.readConnectionLost = channel.readConnectionLost

    def makeConnection(self, transport: object) -> None:
        """Do nothing: the test does it."""

    def connectionLost(self, reason: Failure) -> None:
        self._transport.has_ended()
        self._channel.connectionLost(reason)


class _Client:
    """What tests use as the channel: its bytes are encrypted first; all else is the channel's."""

    def __init__(self, transport: SecureTransport, channel: Any) -> None:
        self._transport = transport
        self._channel = channel

    def dataReceived(self, data: bytes) -> None:
        self._transport.send(data)

    def connectionLost(self, reason: Failure) -> None:
        self._transport.tls.connectionLost(reason)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


class SecureTransport(Transport):
    """A connection of a client over TLS."""

    def __init__(self) -> None:
        self._front: Any = None
        super().__init__()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = contexts()[1].wrap_bio(self._incoming, self._outgoing)

    @property
    def protocol(self) -> Any:
        """The channel, until the connection is closed."""
        return self._front

    @protocol.setter
    def protocol(self, channel: Any) -> None:
        if channel is None:
            return
        self._front = _Client(self, channel)
        self.tls = TlsTransport(_Factory(channel.factory.clock), _Above(self, channel))  # type: ignore[arg-type]
        self.write_now = self.tls.write_now

        def connected(transport: object) -> None:
            type(channel).makeConnection(channel, transport)
            self.tls.makeConnection(_Stream(self))
            self._carry()

        channel.makeConnection = connected

    def has_ended(self) -> None:
        """Note the end of the connection."""
        self.connected = False
        self._front = None

    # ---- the client ------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes to the channel."""
        while data:
            data = data[self._session.write(data[:16384]) :]
        self._carry()

    def received(self, data: bytes) -> None:
        """Take encrypted bytes."""
        self._incoming.write(data)

    def _carry(self) -> None:
        for _ in range(8):
            try:
                if self._session.version() is None:
                    self._session.do_handshake()
                while part := self._session.read(65536):
                    self.io.write(part)
                self._answer_end()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                self._answer_end()
            except ssl.SSLError:
                # Cut off.
                break
            data = self._outgoing.read()
            if data and self._front is not None:
                self.tls.dataReceived(data)
            elif not self._incoming.pending:
                # Neither end has anything for the other.
                break

    def _answer_end(self) -> None:
        if self.closes_at_once:
            try:
                self._session.unwrap()
            except ssl.SSLError:
                pass

    def value(self) -> bytes:
        """Return what the client has decrypted."""
        self._carry()
        return super().value()

    # ---- what the channel calls ------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self.tls.write(data)

    def loseConnection(self) -> None:
        self.disconnecting = True
        if self.producer is not None:
            # The channel unregisters before it closes, so this is the test: its client hangs up.
            self.tls.connectionLost(Failure(ConnectionDone()))
            return
        self.tls.loseConnection()
        self._carry()

    def abortConnection(self) -> None:
        self.tls.abortConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        self.tls.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        super().unregisterProducer()
        self.tls.unregisterProducer()

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self.tls.pauseProducing()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self.tls.resumeProducing()


class _Stream:
    """The stream below TLS: what is written reaches the client at once."""

    def __init__(self, transport: SecureTransport) -> None:
        self._transport = transport
        self.write = transport.received

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Do nothing: there is always room."""

    def unregisterProducer(self) -> None:
        """Do nothing."""

    def pauseProducing(self) -> None:
        """Do nothing: the test delivers."""

    def resumeProducing(self) -> None:
        """Do nothing."""

    def loseConnection(self) -> None:
        self._lost(ConnectionDone())

    def abortConnection(self) -> None:
        self._transport.aborted = True
        self._lost(ConnectionAborted())

    def _lost(self, error: Exception) -> None:
        # As a reactor's transport: once.
        if self._transport.tls.connected:
            self._transport.tls.connectionLost(Failure(error))


class SecureHalfClosing(SecureTransport):
    """The same, of a client that may close its half first."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True
        self.tls.loseWriteConnection()
        self._carry()

    def end(self) -> None:
        """The client says that it sends nothing more."""
        if self.protocol is not None:
            with suppress(ssl.SSLError):
                self._session.unwrap()
            self._carry()
