"""Collections of a bucket, as handlers use them: like the connection to the bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from couchbase.transcoder import AnyTranscoder
from gateway.http.known import Known
from txcouchbase.collection import DeferredCollection
from txcouchbase.direct import Direct
from txcouchbase.limited import TimeBudget

if TYPE_CHECKING:
    from gateway.cluster.bulk import Lane

__all__ = ["MAX_TOGETHER", "MOST_TIMEOUTS", "CollectionConnection", "TimedOperations"]

MAX_TOGETHER = 16
"""Most operations sent in one write. With so many, the system call costs less per operation than reading a
request, and the node starts working before the next write."""


MOST_TIMEOUTS = 64
"""Different timeouts of requests whose operations are kept ready for each connection, or collection."""


class TimedOperations(Known[float, Direct]):
    """Operations that report their outcome to a receiver, by their timeout in seconds."""

    __slots__ = ("_usual",)

    def __init__(self, usual: Direct) -> None:
        super().__init__(MOST_TIMEOUTS)
        self._usual = usual

    def __missing__(self, seconds: float) -> Direct:
        return self.learn(seconds, self._usual.within(seconds))


class CollectionConnection(DeferredCollection):
    """A connection's view of a collection, with the attributes of a connection that handlers use.

    :ivar operations: operations on single documents that report their outcome to a receiver.
    :ivar timed_operations: the same by their timeout in seconds.
    :ivar bulk: the lane for large operations; ``None`` on its own connections.
    """

    transcoder: AnyTranscoder

    def __init__(self, connection: Any, name: str, scope: str | None = None) -> None:
        super().__init__(connection, name, scope)
        self.operations = self.direct(together=MAX_TOGETHER)
        self.timed_operations = TimedOperations(self.operations)
        self.reactor = connection.reactor
        lane = connection.bulk
        self.bulk = None if lane is None else CollectionLane(lane, self.scope, self.name)

    def within(self, scope: str, collection: str) -> CollectionConnection:
        """Return the same collection, or another one of the connection."""
        if (scope, collection) == (self.scope, self.name):
            return self
        other: CollectionConnection = self._connection.within(scope, collection)
        return other

    def limited(self, budget: TimeBudget) -> CollectionConnection:
        """Return the same collection with the timeouts of one request."""
        limited: CollectionConnection = self._connection.limited(budget).within(self.scope, self.name)
        return limited


class CollectionLane:
    """A :class:`gateway.cluster.bulk.Lane` for the documents of one collection."""

    def __init__(self, lane: Lane, scope: str, collection: str) -> None:
        self._lane = lane
        self._names = scope, collection

    def seconds_for(self, size: int) -> float:
        """Return how long an operation on a document of that many bytes may wait."""
        return self._lane.seconds_for(size)

    def carry_out(
        self, size: int, begin: Callable[[Any], Any], seconds: float | None = None
    ) -> Deferred[Any]:
        """See :meth:`gateway.cluster.bulk.Lane.carry_out`."""
        return self._lane.carry_out(size, lambda bulk: begin(bulk.within(*self._names)), seconds)
