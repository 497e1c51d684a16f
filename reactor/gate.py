"""Many sockets behind one entry in the reactor.

For each event on each socket a reactor of Twisted opens a logging context and goes through several calls,
which takes about as long as all other work for a small request. A :class:`Gate` polls the kernel itself: the
reactor sees one descriptor, an epoll object, which is readable as soon as one of its sockets is ready; then
the gate dispatches all events of this turn directly. It works with any reactor that watches descriptors, and
does nothing where there is no epoll.
"""

from __future__ import annotations

import select
import socket
import sys
from typing import Any, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone, ConnectionFdescWentAway, ConnectionLost
from twisted.internet.interfaces import IAddress, IReactorFDSet, IReactorTime, IReadDescriptor, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Descriptor",
    "Gate",
    "peer_below",
    "socket_error",
    "unread_bytes",
    "unsent_bytes",
    "waiting_bytes",
]

_IN: int = getattr(select, "EPOLLIN", 0)
_OUT: int = getattr(select, "EPOLLOUT", 0)
_GONE: int = getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)

_LOG_SECONDS = 60.0

_EVENTS_A_TURN = 1024
"""Largest number of events in one turn, so that timers and other descriptors get their turn."""


def _descriptor_below(transport: object) -> Any:
    """Return the transport that has the socket: TLS is a layer above it. ``None`` if there is none."""
    while not isinstance(transport, FileDescriptor):
        below = getattr(transport, "transport", None)
        if below is None or below is transport:
            return None
        transport = below
    return transport


def peer_below(transport: ITransport) -> IAddress:
    """Return the address of the socket's peer, whatever a layer above reports."""
    descriptor = _descriptor_below(transport)
    return (transport if descriptor is None else descriptor).getPeer()


def waiting_bytes(transport: object) -> int:
    """Return how many bytes written to a transport the kernel has not accepted yet; 0 if that is unknown."""
    descriptor = _descriptor_below(transport)
    if descriptor is None:
        return 0
    # TLS may have some that are not encrypted yet.
    above: int = getattr(transport, "queued_bytes", 0)
    return above + int(len(descriptor.dataBuffer) - descriptor.offset + descriptor._tempDataLen)


def unsent_bytes(transport: object) -> int:
    """Return how many bytes the peer of a transport has not acknowledged yet, here and in the kernel; 0 if
    unknown.

    It decreases when the peer reads.
    """
    descriptor = _descriptor_below(transport)
    if descriptor is None:
        return 0
    waiting = waiting_bytes(transport)
    if fcntl is not None:
        try:
            # The kernel may hold megabytes, so that a slow reader takes minutes before more fits in.
            queued = fcntl.ioctl(descriptor.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:
            # Not for this kind of socket, or it is closed.
            return waiting
        waiting += int.from_bytes(queued, sys.byteorder)
    return waiting


def unread_bytes(transport: object) -> int:
    """Return how many bytes have arrived and were not read yet; 0 if that is unknown."""
    descriptor = _descriptor_below(transport)
    if descriptor is None or fcntl is None:
        return 0
    try:
        queued = fcntl.ioctl(descriptor.fileno(), termios.FIONREAD, bytes(4))
    except (OSError, ValueError):
        # It is closed.
        return 0
    return int.from_bytes(queued, sys.byteorder)


def socket_error(transport: object) -> int:
    """Return the pending error of a transport's socket, such as a reset by the peer; 0 if there is none, or
    it is unknown."""
    connection = getattr(_descriptor_below(transport), "socket", None)
    if connection is None:
        return 0
    try:
        return int(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except OSError as error:
        return error.errno or 0


class Descriptor(Protocol):
    """An object to watch: a transport with a socket."""

    def fileno(self) -> int:
        """Return the socket's number; below 0 if it is closed."""

    def doRead(self) -> BaseException | None:
        """Read; returns why to disconnect."""

    def doWrite(self) -> BaseException | None:
        """Write; returns why to disconnect."""

    def connectionLost(self, reason: Failure) -> None:
        """Handle the disconnection."""


@implementer(IReadDescriptor)
class Gate:
    """Watches the sockets of transports in place of the reactor.

    To a transport it is the part of a reactor that :class:`twisted.internet.interfaces.IReactorFDSet`
    describes.

    :param reactor: runs it.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor: Any = reactor
        self._epoll: Any = None
        self._said_no_memory: float | None = None
        self._watched: dict[int, Descriptor] = {}
        self._interests: dict[int, int] = {}
        self._watch = _Watch(self, reactor)
        self._is_supported = hasattr(select, "epoll") and IReactorFDSet.providedBy(reactor)

    def __len__(self) -> int:
        """Return the number of sockets that it watches."""
        return len(self._watched)

    def adopt(self, transport: object) -> bool:
        """Watch a connection's socket from now on.

        :param transport: of any kind.
        :returns: whether that is possible: with Twisted's own TCP and Unix transports, also below TLS.
        """
        if not self._is_supported:
            return False
        below = _descriptor_below(transport)
        if below is None or below.reactor is not self._reactor:
            return False
        try:
            self._open()
        except OSError:
            # No descriptor is left; the reactor still watches this one.
            return False
        below.stopReading()
        below.reactor = self._watch
        below.startReading()
        return True

    # ---- the descriptors -------------------------------------------------------------------------

    def _open(self) -> None:
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)

    def watch(self, descriptor: Descriptor, event: int) -> None:
        """Begin to watch for an event."""
        fd = descriptor.fileno()
        interest = self._interests.get(fd, 0)
        if interest & event:
            return
        if interest:
            self._epoll.modify(fd, interest | event)
        else:
            self._open()
            self._epoll.register(fd, event)
            self._watched[fd] = descriptor
        self._interests[fd] = interest | event

    def ignore(self, descriptor: Descriptor, event: int) -> None:
        """Stop watching for an event."""
        fd = descriptor.fileno()
        if fd < 0:
            # It is closed, and the kernel has forgotten it.
            fd = next((known for known, watched in self._watched.items() if watched is descriptor), -1)
        interest = self._interests.get(fd, 0)
        if not interest & event or self._watched.get(fd) is not descriptor:
            return
        left = interest & ~event
        if left:
            self._epoll.modify(fd, left)
            self._interests[fd] = left
            return
        del self._interests[fd], self._watched[fd]
        try:
            self._epoll.unregister(fd)
        except (OSError, ValueError):
            pass
        if not self._watched:
            # A reactor must not keep an unused descriptor.
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    # ---- IReadDescriptor -------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the epoll object's descriptor."""
        return self._epoll.fileno() if self._epoll is not None else -1

    def doRead(self) -> None:
        """Dispatch all pending events."""
        watched = self._watched
        for fd, event in self._epoll.poll(0, _EVENTS_A_TURN):
            descriptor = watched.get(fd)
            if descriptor is None:
                continue
            if event == _IN:
                # The usual case.
                try:
                    why = descriptor.doRead()
                except MemoryError as error:
                    why = self._no_memory(descriptor, error)
                except BaseException as error:  # noqa: BLE001  # as in a reactor; includes sys.exit()
                    # A protocol's fault ends its connection only.
                    self._log.failure("reading from {descriptor} failed", descriptor=descriptor)
                    why = error
                if why is not None:
                    self._disconnect(descriptor, why, is_read=True)
            else:
                self._handle(descriptor, fd, event)

    def _handle(self, descriptor: Descriptor, fd: int, event: int) -> None:
        why: Any = None
        is_read = False
        if event & _GONE and not event & _IN:
            is_read = bool(self._interests.get(fd, 0) & _IN)
            why = ConnectionDone() if is_read else ConnectionLost()
        else:
            try:
                if event & _IN:
                    is_read = True
                    why = descriptor.doRead()
                if why is None and event & _OUT and fd in self._watched:
                    is_read = False
                    why = descriptor.doWrite()
                if why is None and descriptor.fileno() not in (fd, -1):
                    why = ConnectionFdescWentAway("the descriptor has changed")
            except MemoryError as error:
                why = self._no_memory(descriptor, error)
            except BaseException as error:  # noqa: BLE001  # as above
                self._log.failure("an event of {descriptor} failed", descriptor=descriptor)
                why = error
        if why is not None:
            self._disconnect(descriptor, why, is_read=is_read)

    def _no_memory(self, descriptor: Descriptor, error: MemoryError) -> BaseException | None:
        """Ask the protocol to free memory. Return why to disconnect, ``None`` if it could."""
        now = self._reactor.seconds()
        if self._said_no_memory is None or now - self._said_no_memory >= _LOG_SECONDS:
            self._said_no_memory = now
            self._log.warn(
                "no memory is left (ulimit -v, MemoryMax): connections must release memory, or are closed"
            )
        protocol = getattr(descriptor, "protocol", None)
        while protocol is not None and not hasattr(protocol, "out_of_memory"):
            protocol = getattr(protocol, "wrappedProtocol", None)
        try:
            if protocol is not None and protocol.out_of_memory():
                return None
        except MemoryError:
            pass
        except Exception:  # noqa: BLE001  # as above
            self._log.failure("releasing memory failed")
        return error

    def _disconnect(self, descriptor: Descriptor, why: BaseException, *, is_read: bool) -> None:
        # An error raised from here would be the gate's own, for which the reactor ends all connections.
        try:
            self.ignore(descriptor, _IN)
            if is_read and isinstance(why, ConnectionDone) and hasattr(descriptor, "readConnectionLost"):
                # The client may have closed its half only.
                descriptor.readConnectionLost(Failure(why))
            else:
                self.ignore(descriptor, _OUT)
                descriptor.connectionLost(Failure(why))
        except BaseException:  # noqa: BLE001  # as above
            self._log.failure("the end of {descriptor} failed", descriptor=descriptor)

    def logPrefix(self) -> str:
        """Return the prefix of this reader's log entries."""
        return "Gate"

    def connectionLost(self, reason: Failure) -> None:
        """Close the gate: the reactor is ending."""
        assert reason.value is not None
        for descriptor in list(self._watched.values()):
            self._disconnect(descriptor, reason.value, is_read=False)


class _Watch:
    """A reactor for transports, with the gate in place of its own descriptors."""

    __slots__ = ("_gate", "_reactor")

    def __init__(self, gate: Gate, reactor: IReactorTime) -> None:
        self._gate = gate
        self._reactor = reactor

    def addReader(self, reader: Descriptor) -> None:
        self._gate.watch(reader, _IN)

    def removeReader(self, reader: Descriptor) -> None:
        self._gate.ignore(reader, _IN)

    def addWriter(self, writer: Descriptor) -> None:
        self._gate.watch(writer, _OUT)

    def removeWriter(self, writer: Descriptor) -> None:
        self._gate.ignore(writer, _OUT)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
