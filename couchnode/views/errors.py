"""The error of a query, on both sides of the worker's connection."""

from __future__ import annotations

INDEX_MISSING = "index_missing"
"""The error of a query whose index has vanished since its update; the node then asks again."""


class QueryError(Exception):
    """A query that gets an error instead of rows.

    :ivar status: HTTP status.
    :ivar error, reason: the members of the answer.
    """

    def __init__(self, status: int, error: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.error = error
        self.reason = reason
