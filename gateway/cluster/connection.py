"""Connections to the cluster as the gateway opens them."""

from __future__ import annotations

from typing import Any

from couchbase.transcoder import RawTranscoder
from gateway.cluster.bulk import LEAST_RATE, Lane
from txcouchbase.connection import Connection

__all__ = ["GatewayConnection"]


TOGETHER = 16
"""Operations that are sent in one piece. Reading a request takes longer than a system call's share of so
many, and a node that has something to do is not waited for afterwards."""


class _RawConnection(Connection):
    """A connection whose keys and values are bytes: what a node stored is what a client gets, unread.

    :ivar operations: operations on single documents that tell a receiver how they ended
        (:class:`txcouchbase.direct.Direct`); the connection's own return Deferreds.
    """

    bulk: Lane | None = None
    """The way of large operations, with connections of its own; ``None`` for those themselves."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(transcoder=RawTranscoder(), **kwargs)
        self.operations = self.direct(together=TOGETHER)
        self._client.least_rate = LEAST_RATE
        self.reactor = self._client.reactor


class GatewayConnection(_RawConnection):
    """A connection of a (bucket, user) to the cluster."""

    bulk: Lane

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bulk = Lane(lambda: _RawConnection(**kwargs), self._client.reactor, self.timeout)

    def _close(self) -> None:
        """Close it, and that of large operations."""
        self.bulk.close()
        super()._close()

    @property
    def problem(self) -> str | None:
        """Why documents cannot be served: a line with each host, port and cause; ``None`` if they can."""
        return self._client.problem
