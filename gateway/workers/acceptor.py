"""A worker's listening sockets, which it inherits and shares with other workers."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterable
from struct import Struct
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from gateway.descriptors import RefusedConnections
from gateway.listeners import BACKLOG, SharedPort
from gateway.workers.balance import Balancer
from reactor.kinds import IReactor

__all__ = ["Acceptor", "Inherited"]

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_GONE = (errno.ENOTCONN, errno.EINVAL, errno.ECONNRESET)

_EXHAUSTED_SECONDS = 0.5

AT_ONCE = 16
"""Largest number of connections that a worker accepts in one reactor turn; they take about a millisecond."""

# struct tcp_info: eight bytes, then 32-bit numbers, the fifth of which is tcpi_unacked.
_TCP_INFO_BYTES = 104
_UNACKNOWLEDGED = Struct("=I")
_UNACKNOWLEDGED_AT = 24


class Inherited:
    """Presents itself to endpoints as a reactor: each call to listen uses the next inherited socket.

    All other attributes are those of the reactor.

    :param descriptors: descriptors of the listening sockets, in the order in which endpoints ask for them.
    :param balancer: decides whether this worker takes a connection.
    """

    def __init__(self, reactor: IReactor, descriptors: Iterable[int], balancer: Balancer) -> None:
        self._reactor = reactor
        self._balancer = balancer
        self._descriptors = iter(descriptors)
        self.refusals = RefusedConnections(reactor)
        """Called if no connection can be accepted."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: ServerFactory, backlog: int = 50, interface: str = "") -> Any:
        """Accept on the next socket."""
        return self._accept(factory)

    def listenSSL(
        self,
        port: int,
        factory: ServerFactory,
        contextFactory: Any,
        backlog: int = 50,
        interface: str = "",
    ) -> Any:
        """Accept on the next socket, and speak TLS: Twisted's, for endpoints such as ``tls:``."""
        return self._accept(TLSMemoryBIOFactory(contextFactory, False, factory))

    def listenUNIX(
        self,
        address: str,
        factory: ServerFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> Any:
        """Accept on the next socket."""
        return self._accept(factory)

    def _accept(self, factory: Any) -> Acceptor:
        descriptor = next(self._descriptors, None)
        if descriptor is None:
            raise OSError(errno.EBADF, "no socket was inherited for this endpoint")
        acceptor = Acceptor(
            self._reactor, socket.socket(fileno=descriptor), factory, self._balancer, self.refusals
        )
        acceptor.startListening()
        return acceptor


@implementer(IListeningPort, IReadDescriptor)
class Acceptor(SharedPort):
    """Accepts connections on a socket shared with other processes.

    It accepts up to ``AT_ONCE`` connections in each turn of the reactor. With one per turn, a burst would
    take as many turns as connections, and these turns would get longer, because accepted connections are
    served meanwhile. Unlike some of Twisted's own ports, closing this object leaves the socket open for the
    other processes.

    :param listening: the socket; closed by :meth:`stopListening`.
    :param balancer: decides when to leave a connection to others.
    :param refusals: called if no connection can be accepted.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactor,
        listening: socket.socket,
        factory: ServerFactory,
        balancer: Balancer,
        refusals: RefusedConnections,
    ) -> None:
        listening.setblocking(False)
        self._reactor = reactor
        self._socket = listening
        self._factory = factory
        self._balancer = balancer
        self._refusals = refusals
        self._resuming: Any = None

    def startListening(self) -> None:
        """Begin to accept connections."""
        self._factory.doStart()
        self._balancer.tell()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Stop accepting connections; those in the backlog are left to the other processes."""
        if self._socket.fileno() != -1:
            self._balancer.leave()
            self._reactor.removeReader(self)
            if self._resuming is not None and self._resuming.active():
                self._resuming.cancel()
            self._socket.close()
            self._factory.doStop()
        return succeed(None)

    def take_waiting(self) -> None:
        """Accept all connections in the backlog, without regard to balance.

        For a worker that may be the last one to close the socket: closing would reset these connections.
        """
        for _ in range(BACKLOG):
            if self._socket.fileno() == -1 or not self._take():
                break

    def getHost(self) -> Any:
        """Return the socket's address."""
        address = self._socket.getsockname()
        if self._socket.family == socket.AF_UNIX:
            return UNIXAddress(address)
        kind = IPv6Address if self._socket.family == socket.AF_INET6 else IPv4Address
        return kind("TCP", *address[:2])

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Return the prefix of its log lines."""
        return "couchgateway"

    def connectionLost(self, reason: object) -> None:
        """Close the socket: the reactor is about to end."""
        self.stopListening()

    def doRead(self) -> None:
        """Accept connections, unless another process is faster or should take them."""
        taken = 0
        while taken < AT_ONCE and self._balancer.is_due(self._waiting):
            if not self._take():
                return
            taken += 1
        if taken:
            return
        # A connection that another worker should take; but that worker may be stuck.
        pause = self._balancer.pause()
        if pause:
            self._pause(pause)
        else:
            self._take()

    def _waiting(self) -> int:
        """Return how many connections wait to be accepted; 0 if the system does not report it."""
        if not sys.platform.startswith("linux") or self._socket.family == socket.AF_UNIX:
            return 0
        information = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        # For a listening socket, the kernel reports the backlog in the field for unacknowledged segments.
        (waiting,) = _UNACKNOWLEDGED.unpack_from(information, _UNACKNOWLEDGED_AT)
        return int(waiting)

    def _take(self) -> bool:
        """Accept one connection; return false if there is none, or no room for it."""
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._refusals.exhausted(f"accept failed: {error.strerror}", 0)
                self._pause(_EXHAUSTED_SECONDS)
            return False
        try:
            with connection:
                self._reactor.adoptStreamConnection(connection.fileno(), self._socket.family, self._factory)
        except Exception as error:  # noqa: BLE001  # or no connection would be accepted any more
            reason = getattr(error, "errno", None)
            if reason in _EXHAUSTED:
                self._refusals.exhausted(f"no file descriptor is left: {os.strerror(reason)}")
                return False
            if reason not in _GONE:
                self._log.failure("a connection could not be taken")
        self._balancer.tell()
        return True

    def _pause(self, seconds: float) -> None:
        """Leave waiting connections to the other workers for a moment."""
        self._reactor.removeReader(self)
        self._resuming = self._reactor.callLater(seconds, self._reactor.addReader, self)
