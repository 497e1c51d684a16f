"""Turns endpoint strings into listeners with a backlog large enough for many clients."""

from __future__ import annotations

import ctypes
import errno
import re
import socket
import struct
import sys
from contextlib import suppress
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ServerFactory
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.endpoints import listen_address
from gateway.handshakes import HandshakeLog
from reactor.tls.strings import EndpointError, tls_endpoint

__all__ = ["BACKLOG", "CannotStartError", "SharedPort", "give_up", "ignore_new", "listen_on", "with_backlog"]


class CannotStartError(RuntimeError):
    """The gateway cannot start for a reason that the operator can fix; the text says how."""


BACKLOG = 1024
"""Backlog (connections waiting to be accepted) of an endpoint that does not set one. The kernel caps it
(``net.core.somaxconn``). Twisted's default of 50 is too small for a burst: connect() to a Unix socket with a
full backlog fails at once."""


class SharedPort:
    """Base of a listening port that other processes accept from, too."""

    def take_waiting(self) -> None:
        """Accept all connections in the backlog."""
        raise NotImplementedError


# Twisted's endpoint kinds that have a backlog; they may be inside the wrapper for the PROXY protocol.
_HAS_BACKLOG = re.compile(r"(?:haproxy:)*(?:tcp6?|ssl|tls|unix):")
# A colon or '=' inside a value is escaped with a backslash.
_NAMES_BACKLOG = re.compile(r"(?:[^\\]|\\.)*?:backlog=", re.DOTALL)


def with_backlog(description: str) -> str:
    """Return the endpoint string with a backlog, if its kind has one."""
    if not _HAS_BACKLOG.match(description) or _NAMES_BACKLOG.match(description):
        return description
    return f"{description}:backlog={BACKLOG}"


def listen_on(
    reactor: Any, description: str, factory: ServerFactory, client_ca: str | None = None
) -> Deferred[IListeningPort]:
    """Listen on an endpoint.

    :param client_ca: PEM file of authorities: clients of TLS endpoints are asked for a certificate, which
        their transports then provide (:func:`reactor.tls.layer.peer_certificate`).
    :raises CannotStartError: it cannot listen (for example, the port is in use); the text says why. The
        exception ends twistd, which calls this function while it starts.
    """
    full = with_backlog(description)
    try:
        endpoint = tls_endpoint(reactor, full, HandshakeLog(reactor), client_ca=client_ca)
    except EndpointError as error:
        raise CannotStartError(f"--listen: {description}: {error}") from error
    if endpoint is None:
        if client_ca is not None and listen_address(description).kind == "tls":
            raise CannotStartError(
                f"--listen: {description}: --client-ca needs an endpoint that asks clients "
                "for a certificate, which this kind does not; use ssl:"
            )
        endpoint = serverFromString(reactor, full)
    listening: Deferred[IListeningPort] = maybeDeferred(endpoint.listen, factory)
    result = getattr(listening, "result", None)
    if isinstance(result, Failure):
        listening.addErrback(lambda _: None)
        raise CannotStartError(f"--listen: {description}: {_why(result)}")
    return listening.addCallback(_widened, description)


# Linux's number on every common processor; Python has no name for it.
_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("=HBBI")
# Classic BPF over a segment from its TCP header on: load the flags; drop it if SYN is set, else keep it.
_DROP_SYN = b"".join(
    _INSTRUCTION.pack(*one)
    for one in ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
)


def ignore_new(port: Port) -> None:
    """Make the kernel ignore new connection attempts to a TCP port that is about to be closed.

    Closing the socket resets connections in the backlog, and some may arrive between the last accept and the
    close. An ignored client tries again after a second, and is then refused; a proxy can then retry
    elsewhere, which it cannot after a reset of a connection on which it has sent a request. Connections in
    the backlog stay, and started handshakes finish. This cannot be undone, so a socket that others keep open,
    such as systemd's, is left alone. Does nothing to Unix sockets, and nothing on systems other than Linux.
    """
    listening = port.socket
    is_tcp = listening is not None and listening.family in (socket.AF_INET, socket.AF_INET6)
    if sys.platform != "linux" or not is_tcp or not port._shouldShutdown:
        return
    program = ctypes.create_string_buffer(_DROP_SYN)
    count = len(_DROP_SYN) // _INSTRUCTION.size
    # A sandbox may forbid this; then the gap remains.
    with suppress(OSError):
        listening.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", count, ctypes.addressof(program))
        )


def _why(failure: Failure) -> str:
    """Return why listening failed, and what to do about it."""
    error: Any = failure.value
    fault = getattr(error, "socketError", error)
    number = getattr(fault, "errno", None)
    reason = getattr(fault, "strerror", None) or str(error)
    if number == errno.EADDRINUSE:
        return f"{reason}; another program listens there. Choose another port (make run PORT=8081)"
    if number == errno.EACCES:
        return f"{reason}; this user may not use ports below 1024 or other users' folders"
    return str(reason)


def _widened(port: IListeningPort, description: str) -> Any:
    # systemd's socket has the backlog of its unit; Twisted has just replaced that by its own default.
    adopted = getattr(port, "socket", None)
    if adopted is not None and not _HAS_BACKLOG.match(description):
        adopted.listen(BACKLOG)
    return port


def give_up(log: Logger, error: CannotStartError) -> NoReturn:
    """Abort twistd's start with one line in the log and exit status 1.

    :raises CannotStartError: always; twistd cleans up, and reports it to the daemon's parent process.
    """
    log.critical("couchgateway cannot start: {error}", error=error)
    usual = sys.excepthook

    def hook(kind: Any, value: Any, traceback: Any) -> None:
        # The log has the reason already; a traceback would bury it.
        if value is not error:
            usual(kind, value, traceback)

    sys.excepthook = hook
    raise error
