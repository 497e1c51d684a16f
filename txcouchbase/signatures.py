"""Result types of operations on Twisted, for type checkers; see :mod:`couchbase.signatures`.

The defaults are those of :class:`txcouchbase.connection.TxAsyncConnection`: an AsyncResult for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from couchbase.result import AsyncResult

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    ValueT = TypeVar("ValueT", default=AsyncResult)
    ExpiryT = TypeVar("ExpiryT", default=AsyncResult)
    OperationT = TypeVar("OperationT", default=AsyncResult)
    ValuesT = TypeVar("ValuesT", default=AsyncResult)
    OperationsT = TypeVar("OperationsT", default=AsyncResult)
    StatsT = TypeVar("StatsT", default=AsyncResult)
    SubdocT = TypeVar("SubdocT", default=AsyncResult)
    SubdocsT = TypeVar("SubdocsT", default=AsyncResult)
else:
    from couchbase.signatures import (
        ExpiryT,
        OperationsT,
        OperationT,
        StatsT,
        SubdocsT,
        SubdocT,
        ValuesT,
        ValueT,
    )

__all__ = ["ExpiryT", "OperationT", "OperationsT", "StatsT", "SubdocT", "SubdocsT", "ValueT", "ValuesT"]
