"""Connections to nodes, which do not log: Twisted's own write two lines each."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.web.client import HTTPConnectionPool

from reactor.kinds import IReactor

__all__ = ["ATTEMPT_SECONDS", "POOLED_CONNECTIONS", "QuietPool", "connect_quietly", "node_endpoint"]

ATTEMPT_SECONDS = 0.05
"""Seconds until the next address of a host is tried, too. Twisted also takes this long to report that the
last one refuses connections."""

POOLED_CONNECTIONS = 32
"""Number of idle connections of HTTP to one node that are kept for the next request."""


def node_endpoint(
    reactor: IReactor, host: bytes | str, port: int, timeout: float = 30.0
) -> IStreamClientEndpoint:
    """Return the endpoint of a node.

    :param timeout: seconds for a connection to be made.
    """
    return HostnameEndpoint(reactor, host, port, timeout, attemptDelay=ATTEMPT_SECONDS)


def connect_quietly(endpoint: IStreamClientEndpoint, protocol: Protocol) -> Deferred[Any]:
    """Connect, like Twisted's ``connectProtocol``."""
    factory = Factory.forProtocol(lambda: protocol)
    factory.noisy = False
    return endpoint.connect(factory)


_Factory: Any = HTTPConnectionPool._factory  # not in its public API


class _QuietFactory(_Factory):
    noisy = False


class QuietPool(HTTPConnectionPool):
    """A pool of HTTP connections."""

    _is_closed = False

    def _putConnection(self, key: Any, connection: Any) -> None:
        super()._putConnection(key, connection)
        if self._is_closed:
            self.closeCachedConnections()

    def closeCachedConnections(self) -> Deferred[Any]:
        """Close the idle connections, and from now on each other one after its answer; fires when those that
        were idle are closed.

        Twisted's own method fails, and leaves all open, if its timers were cancelled from outside.
        """
        self._is_closed = True
        kept: dict[Any, Any] = self._timeouts
        self._timeouts = {connection: timer for connection, timer in kept.items() if timer.active()}
        return super().closeCachedConnections()

    _factory = _QuietFactory
