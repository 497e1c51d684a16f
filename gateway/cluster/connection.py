"""Connections to the cluster as the gateway opens them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from couchbase.exceptions import NotSupportedError
from couchbase.protocol.keyspace import Keyspace
from couchbase.transcoder import RawTranscoder
from gateway.cluster.bulk import LEAST_RATE, Lane
from gateway.cluster.collections import MAX_TOGETHER, CollectionConnection, TimedOperations
from gateway.http.known import Known
from txcouchbase.connection import Connection
from txcouchbase.limited import TimeBudget, limited, with_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from txcouchbase.tls import TlsPolicy

__all__ = ["GatewayConnection"]

MOST_COLLECTIONS = 256
"""Collections of a connection that are kept ready for requests."""


class _RawConnection(Connection):
    """A connection whose keys and values are bytes: stored values reach clients unparsed.

    :ivar operations: operations on single documents that report their outcome to a receiver
        (:class:`txcouchbase.direct.Direct`); the connection's own return Deferreds.
    :ivar timed_operations: the same by their timeout in seconds.
    """

    _collection_type: type[Any] = CollectionConnection
    _agent = "couchgateway"
    bulk: Lane | None = None
    """The lane for large operations, with connections of its own; ``None`` on those connections."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(transcoder=RawTranscoder(), **kwargs)
        self.operations = self.direct(together=MAX_TOGETHER)
        self.timed_operations = TimedOperations(self.operations)
        self._client.least_rate = LEAST_RATE
        self.reactor = self._client.reactor
        self._collections: Known[tuple[str, str], CollectionConnection] = Known(MOST_COLLECTIONS)

    def within(self, scope: str, collection: str) -> CollectionConnection:
        """Return what a handler uses like this connection, for the documents of a collection.

        :raises ArgumentError: a name that is not valid for a collection or scope.
        """
        names = scope, collection
        known = self._collections.get(names)
        if known is None:
            known = self._collections.learn(names, self._view_of(collection, scope))
        return known

    def keyspace(self, scope: str, collection: str) -> Keyspace:
        """Return a collection as calls refer to it; see :meth:`txcouchbase.connection.Connection.start`."""
        return self._cluster.collections.keyspace(scope, collection)

    def limited(self, budget: TimeBudget) -> Self:
        """Return the same connection with the timeouts of one request; see :mod:`txcouchbase.limited`."""
        other = limited(self, budget)
        other.operations = other.direct(together=MAX_TOGETHER)
        # Views of collections are of the object that they were made by.
        other._collections = Known(MOST_COLLECTIONS)
        return other

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """Return the same connection with more headers in its requests over HTTP; see
        :func:`txcouchbase.limited.with_headers`."""
        return with_headers(self, headers)


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
    def tls_policy(self) -> TlsPolicy:
        """The certificates of TLS to the cluster's nodes."""
        return self._client.tls_policy

    def service_addresses(self, service: str) -> list[str]:
        """Return the base URL of each node that runs a service.

        :param service: see :meth:`txcouchbase.http.HttpService.addresses`.
        :returns: ``[]`` if no node runs it.
        :raises CouchbaseError: the nodes are not known.
        """
        try:
            return self._http.addresses(service)
        except NotSupportedError:
            return []

    @property
    def problem(self) -> str | None:
        """Why documents cannot be served, in one line with each host, port and cause; ``None`` if they
        can."""
        return self._client.problem
