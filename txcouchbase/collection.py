"""Collections of connections for Twisted programs."""

from __future__ import annotations

from typing import Any, Generic

from couchbase.collection import Collection, InCollection
from txcouchbase.camelcase import CamelCase
from txcouchbase.direct import Direct
from txcouchbase.early import connecting
from txcouchbase.signatures import (
    ExpiryT,
    OperationsT,
    OperationT,
    StatsT,
    SubdocsT,
    SubdocT,
    ValuesT,
    ValueT,
)
from txcouchbase.turn import MAX_QUEUED

__all__ = ["DeferredCollection", "DirectCollection", "TxCollection"]


class TxCollection(
    Collection[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT],
    CamelCase[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT],
    Generic[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT],
):
    """A connection's view of one collection; its operations return the same types as the connection's."""

    def direct(self, *, together: int = MAX_QUEUED) -> DirectCollection:
        """Return the operations on single documents without Deferreds and AsyncResults; see
        :meth:`txcouchbase.connection.Connection.direct`."""
        return DirectCollection(self, together)


class DeferredCollection(TxCollection):
    """The same for a connection whose operations return Deferreds."""

    def __init__(self, connection: Any, name: str, scope: str | None = None) -> None:
        super().__init__(connection, name, scope)
        if not self.connected:
            self.__class__ = connecting(type(self))


class DirectCollection(InCollection, Direct):
    """A collection's operations on single documents, which report their outcome to a receiver.

    See :class:`txcouchbase.direct.Direct`. Made by :meth:`TxCollection.direct`.
    """

    def __init__(self, view: TxCollection[Any, Any, Any, Any, Any, Any, Any, Any], together: int) -> None:
        self._enter(view._keyspace)
        super().__init__(view, view._driver.direct(together))
