"""A connection's other key-value methods: items, scans, and the mapping interface."""

from __future__ import annotations

from typing import Any, Generic

from couchbase.commands import Commands
from couchbase.items import ItemCollection
from couchbase.scan import PrefixScan, RangeScan, SamplingScan
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
    """Key-value methods of a connection and of its collections."""

    def append_items(self, items: ItemCollection, **kwargs: Any) -> OperationsT:
        """Append to the documents of items, and to the items' values.

        :param items: ItemOptionDict whose options have a ``fragment`` for every item.
        :param kwargs: as for ``append_multi``.
        """
        return self._driver.extend_items(self.append_multi, items, kwargs, False)

    def prepend_items(self, items: ItemCollection, **kwargs: Any) -> OperationsT:
        """Like :meth:`append_items`, but prepend to the documents and values."""
        return self._driver.extend_items(self.prepend_multi, items, kwargs, True)

    def scan(
        self,
        what: RangeScan | PrefixScan | SamplingScan | None = None,
        *,
        ids_only: bool = False,
        with_attributes: bool = False,
        after: str | None = None,
        timeout: float | None = None,
        no_format: bool = False,
    ) -> Any:
        """Return the documents of a range of keys, read in small pages. An addition to SDK 1.2.

        Servers scan the documents on their disks. Servers before 7.6 only list keys (not of ephemeral
        buckets, and without samples), and documents are then read one by one. Documents are ordered by
        vbucket, and within a vbucket by key, compared bytewise.

        :param what: a :class:`couchbase.scan.RangeScan`, ``PrefixScan`` or ``SamplingScan``; ``None`` for all
            documents.
        :param ids_only: return keys without documents.
        :param with_attributes: read extended attributes, too; servers before 8.0 leave them out.
        :param after: the ``cursor`` of an earlier scan with the same arguments, after which this scan
            continues.
        :param timeout: seconds for each page; by default the timeout of views.
        :param no_format: return values as bytes.
        :returns: an iterator of :class:`couchbase.scan.ScanResult`; with a Deferred connection, an object
            with ``next_page()`` and an asynchronous iterator. It fails with NotSupportedError,
            CollectionNotFoundError, AuthError, TimeoutError.
        :raises ArgumentError: ``what`` has another type, or the cursor is malformed.
        """
        return self._driver.scan_type(self, what, ids_only, after, timeout, no_format, with_attributes)

    def __getitem__(self, key: Key) -> ValueT:
        return self.get(key)

    def __setitem__(self, key: Key, value: object) -> None:
        self.set(key, value)

    def __delitem__(self, key: Key) -> None:
        self.delete(key)
