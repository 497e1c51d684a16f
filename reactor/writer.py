"""Writes to a socket immediately, instead of in the next turn of the reactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import ITransport
from twisted.internet.tcp import Connection

__all__ = ["send_small_parts", "writer_to"]


def writer_to(transport: ITransport) -> Callable[[bytes], int]:
    """Return a function that writes to ``transport``, directly to its socket if nothing is queued.

    ``transport.write`` only queues: the bytes leave after another turn of the reactor and two changes of its
    interest in the socket. The function keeps the order: while something is queued in the transport, or the
    transport is closing, it queues like ``write``.

    Make it once for each connection, in ``connectionMade``. Only plain TCP and Unix transports have the
    attributes that this needs, and those of :mod:`reactor.tls` have the function already; for every other one
    (Twisted's TLS, in memory), and for one that speaks TLS already, the function is ``write``. Do not call
    ``startTLS`` afterwards: the function would bypass the encryption.

    :param transport: a stream transport.
    :returns: bytes -> how many of them are left to the transport, 0 if the socket accepted all. It never
        raises; a broken connection is reported by ``connectionLost``, as usual.
    """
    write_now: Callable[[bytes], int] | None = getattr(transport, "write_now", None)
    if write_now is not None:
        return write_now
    if not isinstance(transport, Connection) or getattr(transport, "TLS", False):

        def queue(data: bytes) -> int:
            transport.write(data)
            return len(data)

        return queue

    tcp: Any = transport

    def send(data: bytes) -> int:
        if tcp.dataBuffer or tcp._tempDataBuffer or not tcp.connected or tcp.disconnecting:
            tcp.write(data)
            return len(data)
        try:
            sent = tcp.socket.send(data)
        except OSError:
            # It is full, or broken: the transport finds out which.
            tcp.write(data)
            return len(data)
        if sent == len(data):
            return 0
        tcp.write(data[sent:])
        return len(data) - int(sent)

    return send


def send_small_parts(transport: ITransport) -> None:
    """Send small writes at once, even if they do not fill a packet and earlier packets are not acknowledged.

    :param transport: of any kind; those without such a delay are left alone.
    """
    set_no_delay = getattr(transport, "setTcpNoDelay", None)
    if set_no_delay is not None:
        try:
            set_no_delay(True)
        except OSError:
            # Refused by Unix sockets, which have no such delay.
            pass
