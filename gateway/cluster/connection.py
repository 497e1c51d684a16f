"""Connections to the cluster as the gateway opens them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from couchbase.transcoder import RawTranscoder
from gateway.cluster.bulk import LEAST_RATE, Lane
from txcouchbase.connection import Connection
from txcouchbase.limited import TimeBudget, limited

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["GatewayConnection"]


MAX_TOGETHER = 16
"""Most operations sent in one write. With so many, the system call costs less per operation than reading a
request, and the node starts working before the next write."""


class _RawConnection(Connection):
    """A connection whose keys and values are bytes: stored values reach clients unparsed.

    :ivar operations: operations on single documents that report their outcome to a receiver
        (:class:`txcouchbase.direct.Direct`); the connection's own return Deferreds.
    """

    bulk: Lane | None = None
    """The lane for large operations, with connections of its own; ``None`` on those connections."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(transcoder=RawTranscoder(), **kwargs)
        self.operations = self.direct(together=MAX_TOGETHER)
        self._client.least_rate = LEAST_RATE
        self.reactor = self._client.reactor

    def limited(self, budget: TimeBudget) -> Self:
        """Return the same connection with the timeouts of one request; see :mod:`txcouchbase.limited`."""
        other = limited(self, budget)
        other.operations = other.direct(together=MAX_TOGETHER)
        return other


class GatewayConnection(_RawConnection):
    """A connection of a (bucket, user) to the cluster."""

    bulk: Lane

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bulk = Lane(lambda: _RawConnection(**kwargs), self._client.reactor, self.timeout)

    def _close(self) -> None:
        """Close it, and the connection for large operations."""
        self.bulk.close()
        super()._close()

    @property
    def problem(self) -> str | None:
        """Why documents cannot be served, in one line with each host, port and cause; ``None`` if they
        can."""
        return self._client.problem
