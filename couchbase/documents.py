"""The methods of SDK 1.2 that a connection has beside the operations themselves: items, and the form of a
mapping."""

from __future__ import annotations

from typing import Any, Generic

from couchbase.commands import Commands
from couchbase.items import ItemCollection
from couchbase.signatures import (
    ExpiryT,
    Key,
    OperationsT,
    OperationT,
    StatsT,
    SubdocsT,
    SubdocT,
    ValuesT,
    ValueT,
)


class DocumentMethods(
    Commands[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT],
    Generic[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT],
):
    """Key-value methods of a connection, and of its views of collections."""

    def append_items(self, items: ItemCollection, **kwargs: Any) -> OperationsT:
        """Append to the documents of items, and to the items' values.

        :param items: ItemOptionDict whose options hold a ``fragment`` for every item.
        :param kwargs: as for ``append_multi``.
        """
        return self._driver.extend_items(self.append_multi, items, kwargs, False)

    def prepend_items(self, items: ItemCollection, **kwargs: Any) -> OperationsT:
        """Like :meth:`append_items`, before the values."""
        return self._driver.extend_items(self.prepend_multi, items, kwargs, True)

    def __getitem__(self, key: Key) -> ValueT:
        return self.get(key)

    def __setitem__(self, key: Key, value: object) -> None:
        self.set(key, value)

    def __delitem__(self, key: Key) -> None:
        self.delete(key)
