"""Results as the rest of a batch's answer line: from a comma to the end of the object."""

from __future__ import annotations

from typing import Any

from couchbase.protocol.constants import ObserveState
from couchbase.result import OperationResult, ValueResult
from gateway.dialect.headers import etag
from gateway.dialect.jsontools import dumps
from gateway.dialect.values import BATCH, value_member
from gateway.fairness.steps import AT_ONCE_BYTES

__all__ = ["LongValue", "copies", "with_cas", "with_copies", "with_number", "with_value"]

_STATES = {
    ObserveState.FOUND: "found",
    ObserveState.PERSISTED: "persisted",
    ObserveState.NOT_FOUND: "notFound",
    ObserveState.LOGICALLY_DELETED: "logicallyDeleted",
}


class LongValue(Exception):
    """The value of a result is too long for one step: the line must be rendered in steps."""


def with_cas(result: OperationResult) -> bytes:
    """Show a result that is only a CAS, if there is one."""
    return b',"cas":"%08x"}' % result.cas if result.cas else b"}"


def with_value(result: ValueResult) -> bytes:
    """Show a document; raises :exc:`LongValue`."""
    value = result.value
    if len(value) > AT_ONCE_BYTES:
        raise LongValue
    return b',"cas":"%08x","flags":%d,%b}' % (
        result.cas,
        result.flags,
        value_member(BATCH, result.flags, value),
    )


def with_number(result: ValueResult) -> bytes:
    """Show a counter."""
    return b',"cas":"%08x","value":%d}' % (result.cas, result.value)


def with_copies(result: ValueResult) -> bytes:
    """Show the state of copies."""
    return b',"copies":' + dumps(copies(result)) + b"}"


def copies(result: ValueResult) -> list[dict[str, Any]]:
    """Return an observe result as values for JSON: the active copy first."""
    return [
        {
            "copy": "active" if info.from_master else "replica",
            "state": _STATES[info.flags],
            "cas": etag(info.cas).decode("ascii") if info.cas else None,
        }
        for info in sorted(result.value, key=lambda info: not info.from_master)
    ]
