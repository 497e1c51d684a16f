"""The camel-case names of SDK 1.2's Twisted connection."""

from __future__ import annotations

from typing import Generic

from couchbase.commands import Commands
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


class CamelCase(
    Commands[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT],
    Generic[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT],
):
    """Multi operations by their names in camel case."""

    setMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].set_multi
    getMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].get_multi
    addMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].add_multi
    appendMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].append_multi
    prependMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].prepend_multi
    replaceMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].replace_multi
    deleteMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].delete_multi
    incrMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].incr_multi
    decrMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].decr_multi
    touchMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].touch_multi
    lockMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].lock_multi
    unlockMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].unlock_multi
    arithmeticMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].arithmetic_multi
    endureMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].endure_multi
    observeMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].observe_multi
    rgetMulti = Commands[
        ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT
    ].rget_multi
