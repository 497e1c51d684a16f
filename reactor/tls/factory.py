"""Wraps the protocols of a factory in TLS, for servers and clients."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from zope.interface import implementer

from reactor.tls.handshakes import Handshakes
from reactor.tls.transport import TlsTransport

__all__ = ["ClientSide", "LIMITS", "ServerSide", "TlsClientEndpoint", "TlsFactory", "TlsLimits", "TlsSide"]


class TlsLimits(NamedTuple):
    """Limits of each connection."""

    handshake_seconds: float = 30.0
    """Longest time from the connection to the end of the handshake, in seconds."""
    handshake_bytes: int = 2**18
    """Most bytes that the peer may send until then. A chain of certificates has some thousands."""
    closing_seconds: float = 30.0
    """Longest time to wait for the peer's close_notify after ours, in seconds."""


LIMITS = TlsLimits()
"""The defaults."""


class TlsSide(Protocol):
    """One side of TLS connections: their certificates, and what is agreed."""

    is_client: bool

    def prepare(self, protocols: tuple[str, ...]) -> None:
        """Make what can be made before the first connection."""

    def session(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, protocols: tuple[str, ...]
    ) -> ssl.SSLObject:
        """Begin a new connection.

        :param protocols: of the application, for ALPN, in order of preference; may be empty.
        """

    def established(self, transport: TlsTransport) -> None:
        """Note a connection that has ended, after its handshake; it may have a session to resume."""


class ServerSide:
    """The server's side.

    :param context: returns the context of new connections for these protocols, as :class:`TlsSide`; called
        for each connection, so that certificates can be renewed.
    """

    is_client = False

    def __init__(self, context: Callable[[tuple[str, ...]], ssl.SSLContext]) -> None:
        self._context = context

    def session(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, protocols: tuple[str, ...]
    ) -> ssl.SSLObject:
        """Begin a new connection."""
        return self._context(protocols).wrap_bio(incoming, outgoing, server_side=True)

    def prepare(self, protocols: tuple[str, ...]) -> None:
        """Make the context."""
        self._context(protocols)

    def established(self, transport: TlsTransport) -> None:
        """Do nothing: the client keeps the session's ticket."""


class ClientSide:
    """The client's side, for one server: verified by its name, and resumed where the server allows.

    :param context: of all connections.
    :param name: host name or IP address that the server's certificate must be for.
    :param sessions: (name, port) -> last session of this context; shared by the connections of a program.
    :param port: tells apart the servers of one host.
    """

    is_client = True

    def __init__(
        self,
        context: ssl.SSLContext,
        name: str,
        sessions: dict[tuple[str, int], ssl.SSLSession],
        port: int = 0,
    ) -> None:
        self._context = context
        self._server = name, port
        self._name = name
        self._sessions = sessions

    def session(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, protocols: tuple[str, ...]
    ) -> ssl.SSLObject:
        """Begin a new connection."""
        if protocols:
            self._context.set_alpn_protocols(list(protocols))
        return self._context.wrap_bio(
            incoming, outgoing, server_hostname=self._name, session=self._sessions.get(self._server)
        )

    def prepare(self, protocols: tuple[str, ...]) -> None:
        """Do nothing: the context is there."""

    def established(self, transport: TlsTransport) -> None:
        """Keep the session for the next connection."""
        session = transport.session.session
        if session is not None and session.has_ticket:
            self._sessions[self._server] = session


class TlsFactory(Factory):
    """Makes TLS connections whose protocols are those of another factory.

    If that provides :class:`~twisted.internet.interfaces.IProtocolNegotiationFactory`, its protocols are
    offered by ALPN; a peer that has none in common is served without.

    :param side: :class:`ServerSide` or :class:`ClientSide`.
    :param wrapped: makes the protocols above.
    :param clock: the reactor.
    :param on_failure: called with (transport, error) when a handshake fails; it may return bytes, which are
        sent without TLS in place of an alert.
    """

    noisy = False

    def __init__(
        self,
        side: TlsSide,
        wrapped: IProtocolFactory,
        clock: IReactorTime,
        limits: TlsLimits = LIMITS,
        on_failure: Callable[[TlsTransport, BaseException], bytes | None] | None = None,
    ) -> None:
        self.wrappedFactory = wrapped
        self.clock = clock
        self.limits = limits
        self.is_client = side.is_client
        self.handshakes = Handshakes(clock)
        self.transports: set[TlsTransport] = set()
        """Connections that are open."""
        self._side = side
        self._on_failure = on_failure
        offered: Any = wrapped if IProtocolNegotiationFactory.providedBy(wrapped) else None
        self._protocols: Callable[[], list[bytes]] = list if offered is None else offered.acceptableProtocols

    def logPrefix(self) -> str:
        """Return the prefix of log lines."""
        wrapped: Any = self.wrappedFactory
        name = wrapped.logPrefix() if ILoggingContext.providedBy(wrapped) else type(wrapped).__name__
        return f"{name} (TLS)"

    def doStart(self) -> None:
        """Start the other factory, and read the certificates, so that faults show before the first client."""
        self._side.prepare(self._names())
        self.wrappedFactory.doStart()

    def doStop(self) -> None:
        """Stop the other factory."""
        self.wrappedFactory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> TlsTransport | None:
        """Return a connection, unless the other factory wants none."""
        above: IProtocol | None = self.wrappedFactory.buildProtocol(addr)  # type: ignore[arg-type]
        return None if above is None else TlsTransport(self, above)

    # ---- what connections ask for ----------------------------------------------------------------

    def session(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """Begin a new connection."""
        return self._side.session(incoming, outgoing, self._names())

    def _names(self) -> tuple[str, ...]:
        return tuple(name.decode("ascii") for name in self._protocols())

    def opened(self, transport: TlsTransport) -> None:
        """Note a new connection."""
        self.transports.add(transport)

    def closed(self, transport: TlsTransport) -> None:
        """Note a lost connection."""
        self.transports.discard(transport)
        if transport.session.version() is not None:
            self._side.established(transport)

    def handshake_failed(self, transport: TlsTransport, error: BaseException) -> bool:
        """Report a failed handshake; return whether it was answered without TLS."""
        answer = None if self._on_failure is None else self._on_failure(transport, error)
        if answer is None:
            return False
        transport.transport.write(answer)
        transport.transport.loseWriteConnection()
        return True


@implementer(IStreamClientEndpoint)
class TlsClientEndpoint:
    """Connects like another endpoint, and speaks TLS.

    :param endpoint: to the server.
    :param side: the settings.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, side: ClientSide, clock: IReactorTime) -> None:
        self._endpoint = endpoint
        self._side = side
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; fires with the protocol of ``protocolFactory`` when the stream is open, and begins the
        handshake."""
        connecting: Deferred[Any] = self._endpoint.connect(
            TlsFactory(self._side, protocolFactory, self._clock)
        )
        return connecting.addCallback(lambda transport: transport.wrappedProtocol)
