"""The state that all HTTP/2 connections of a server share."""

from __future__ import annotations

from typing import Any

from gateway.http.encoding import http_date
from gateway.http.ports import Connection, Server
from gateway.http2.connection import HTTP2Connection
from gateway.http2.heads import HeadReader

__all__ = ["HTTP2"]


class HTTP2:
    """Takes over connections whose clients speak HTTP/2.

    :param factory: has accepted them, and continues to enforce their deadlines and to end them.
    """

    def __init__(self, factory: Server) -> None:
        self.factory = factory
        self.application = factory.application
        limits = factory.application.limits
        self.heads = HeadReader(limits.max_headers, factory.application.select)
        guard = factory.application.guard
        self._always: list[tuple[bytes, bytes]] = [(b"server", factory.server)]
        if guard is not None:
            self._always += [(name.lower(), value) for name, value in guard.headers]
            names = guard.names
            self.heads.look = lambda headers: None if names.isdisjoint(headers) else guard.look(headers)
        self._date: tuple[int, list[tuple[bytes, bytes]]] = (0, [])

    def always(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of every answer."""
        now = int(self.application.unix_time())
        if self._date[0] != now:
            self._date = now, [(b"date", http_date(now)), *self._always]
        return self._date[1]

    def __call__(self, channel: Connection, data: bytes) -> None:
        """Serve a connection from now on; see :class:`gateway.http.ports.TakesOver`."""
        transport: Any = channel.transport
        transport.unregisterProducer()
        connection = HTTP2Connection(self, transport)
        hand_over(transport, connection)
        self.factory.replaced(channel, connection)
        connection.makeConnection(transport)
        connection.dataReceived(data)


def hand_over(transport: Any, protocol: HTTP2Connection) -> None:
    """Make a transport deliver received bytes to another protocol from now on."""
    name = "wrappedProtocol" if hasattr(transport, "wrappedProtocol") else "protocol"
    setattr(transport, name, protocol)
