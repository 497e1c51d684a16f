"""The supervisor's side of listening sockets: they are bound here, and handed to workers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory

__all__ = ["Binder"]


class Binder:
    """A reactor to endpoints: what they listen on is bound and listens, but nothing is accepted.

    TLS is the workers' business, so here its ports are plain ones. Everything else is the reactor's.

    :param reactor: must be one of those whose ports have file descriptors.
    """

    def __init__(self, reactor: Any) -> None:
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
        self, address: Any, factory: object, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> Any:
        """Bind a Unix socket; its file is removed by :meth:`close`."""
        return self._keep(self._reactor.listenUNIX(address, _Nobody(), backlog, mode, wantPID))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: object) -> Any:
        """Take a socket that listens already: systemd's."""
        return self._keep(self._reactor.adoptStreamPort(fileDescriptor, addressFamily, _Nobody()))

    @inlineCallbacks
    def close(self) -> Any:
        """Close all sockets, and leave them to workers: clients are refused when those have closed theirs.

        So connections that wait are a worker's, not lost with the last socket that nobody accepts on.
        """
        ports, self._ports = self._ports, []
        for port in ports:
            # As for a socket that was inherited: shutting it down would end it for the workers, too.
            port._shouldShutdown = False
            closing: Deferred[object] = maybeDeferred(port.stopListening)
            yield closing

    def _keep(self, port: Any) -> Any:
        # In the turn in which it was opened, so nothing was accepted.
        port.stopReading()
        self._ports.append(port)
        return port


class _Nobody(ServerFactory):
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        return None
