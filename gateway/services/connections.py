"""Connections to services, which are read in small pieces."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.web._newclient import HTTP11ClientProtocol  # its factory is replaced
from twisted.web.client import HTTPConnectionPool

from txcouchbase.quiet import QuietPool

__all__ = ["PIECE_BYTES", "ServicePool"]

PIECE_BYTES = 2**14
"""Number of bytes that are read from a service at a time. Finding their rows takes a millisecond, or ten for
text made of brackets; meanwhile nothing else is served."""


class _Protocol(HTTP11ClientProtocol):
    def connectionMade(self) -> None:
        super().connectionMade()
        transport: Any = self.transport
        # TLS has another transport below it.
        getattr(transport, "transport", transport).bufferSize = PIECE_BYTES


_Factory: Any = QuietPool._factory


class _SmallPieces(_Factory):
    def buildProtocol(self, addr: IAddress) -> HTTP11ClientProtocol:
        """Return a protocol whose transport reads small pieces."""
        return _Protocol(self._quiescentCallback)


class ServicePool(QuietPool):
    """A pool of connections to services.

    :param reactor: connects.
    """

    _factory = _SmallPieces

    def __init__(self, reactor: Any, kept: int, seconds: int) -> None:
        """Keep up to ``kept`` idle connections to each node, for ``seconds``."""
        HTTPConnectionPool.__init__(self, reactor, persistent=True)
        self.maxPersistentPerHost = kept
        self.cachedConnectionTimeout = seconds
        # A call itself decides what may be sent again.
        self.retryAutomatically = False
