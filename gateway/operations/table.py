"""All operations on documents, by their names."""

from __future__ import annotations

from gateway.operations.copies import ENDURE, OBSERVE
from gateway.operations.counters import DECR, INCR
from gateway.operations.documents import ADD, APPEND, DELETE, GET, GET_REPLICA, PREPEND, REPLACE, SET
from gateway.operations.locks import LOCK, TOUCH, UNLOCK
from gateway.operations.subdocuments import LOOKUP_IN, MUTATE_IN

__all__ = ["OPERATIONS"]

OPERATIONS = {
    row.name: row
    for row in (
        GET, GET_REPLICA, SET, ADD, REPLACE, APPEND, PREPEND, DELETE,
        INCR, DECR, TOUCH, LOCK, UNLOCK, OBSERVE, ENDURE, LOOKUP_IN, MUTATE_IN,
    )
}  # fmt: skip
"""Name -> its row: parsing, execution and answer."""
