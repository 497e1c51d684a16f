"""The supervisor's listening sockets: bound here, and passed to workers."""

from __future__ import annotations

from socket import AddressFamily
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory

from reactor.kinds import IReactor

__all__ = ["Binder"]


class Binder:
    """Presents itself to endpoints as a reactor: sockets are bound and listen, but accept nothing.

    Workers handle TLS, so a TLS port is a plain TCP port here. All other attributes are those of the reactor.

    :param reactor: must be a reactor whose ports have file descriptors.
    """

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor
        self._ports: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    @property
    def descriptors(self) -> list[int]:
        """File descriptors of the sockets, in the order in which they were bound."""
        return [port.fileno() for port in self._ports]

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> Any:
        """Bind a TCP port."""
        return self._keep(self._reactor.listenTCP(port, _Nobody(), backlog, interface))

    def listenSSL(
        self, port: int, factory: object, contextFactory: object, backlog: int = 50, interface: str = ""
    ) -> Any:
        """Bind a TCP port."""
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self, address: str, factory: object, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> Any:
        """Bind a Unix socket; its file is removed by :meth:`close`."""
        return self._keep(self._reactor.listenUNIX(address, _Nobody(), backlog, mode, wantPID))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: AddressFamily, factory: object) -> Any:
        """Adopt a socket that listens already: one of systemd's."""
        return self._keep(self._reactor.adoptStreamPort(fileDescriptor, addressFamily, _Nobody()))

    @inlineCallbacks
    def close(self) -> Any:
        """Close all sockets in this process, and leave them to workers: clients are refused when these have
        closed theirs, too.

        So a worker accepts the connections in the backlog; they would be lost with a socket from which no
        process accepts.
        """
        ports, self._ports = self._ports, []
        for port in ports:
            # As with an inherited socket, a shutdown would end it for the workers, too.
            port._shouldShutdown = False
            closing: Deferred[object] = maybeDeferred(port.stopListening)
            yield closing

    def _keep(self, port: Any) -> Any:
        # The socket was opened in this turn, so nothing was accepted.
        port.stopReading()
        self._ports.append(port)
        return port


class _Nobody(ServerFactory):
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        return None
