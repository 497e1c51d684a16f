"""Connections that say nothing in the program's log: Twisted's own write two lines for each."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.web.client import HTTPConnectionPool

__all__ = ["QuietPool", "connect_quietly"]


def connect_quietly(endpoint: IStreamClientEndpoint, protocol: Protocol) -> Deferred[Any]:
    """Connect, as ``connectProtocol`` of Twisted does."""
    factory = Factory.forProtocol(lambda: protocol)
    factory.noisy = False
    return endpoint.connect(factory)


_Factory: Any = HTTPConnectionPool._factory  # not in its public API


class _QuietFactory(_Factory):
    noisy = False


class QuietPool(HTTPConnectionPool):
    """Connections over HTTP."""

    def closeCachedConnections(self) -> Deferred[Any]:
        """Close the connections that are kept; fires when they are.

        Twisted's own fails, with all still open, if somebody else has cancelled its timers.
        """
        kept: dict[Any, Any] = self._timeouts
        self._timeouts = {connection: timer for connection, timer in kept.items() if timer.active()}
        return super().closeCachedConnections()

    _factory = _QuietFactory
