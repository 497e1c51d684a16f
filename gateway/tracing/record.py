"""The notes about a traced request while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.http.request import Request

__all__ = ["MOST_COUNTS", "Record"]

MOST_COUNTS = 64
"""Largest number of pairs of operation and outcome that one request's span counts separately; all others
count as one pair."""

_OTHERS = ("other", "other")


class Record:
    """A traced request: its span, and the times at which its operations at the cluster began and ended.

    Times are those of the gateway's clock, in seconds; ``None`` until they are known.

    :param seconds: returns the time of that clock.
    :param offset: number of seconds to add to these times to get the Unix time. It is the same for all times
        of a request, so that spans have the right length even if the system's clock is changed meanwhile.
    """

    __slots__ = ("_offset", "_seconds", "begun", "counts", "ended", "request", "span")

    def __init__(self, span: Any, seconds: Callable[[], float], offset: float = 0.0) -> None:
        self.span = span
        self._seconds = seconds
        self._offset = offset
        self.request: Request | None = None
        """The request whose handler uses the cluster: the traced one, or Klein's request for it."""
        self.begun: float | None = None
        self.ended: float | None = None
        self.counts: dict[tuple[str, str], int] = {}
        """Operations of a batch: (operation, outcome) -> number."""

    def begin(self, request: Request) -> None:
        """Note that the operations begin now, for a request."""
        self.request = request
        self.begun = self._seconds()

    def end(self) -> None:
        """Note that they have ended now."""
        self.ended = self._seconds()

    def nanoseconds(self, seconds: float) -> int:
        """Return a time as Unix time in nanoseconds, as spans need it."""
        return int((seconds + self._offset) * 1e9)

    def counting(self, count_operation: Callable[[str, str, int], None]) -> Callable[[str, str, int], None]:
        """Return a function that also counts operations here."""

        def count(operation: str, outcome: str, number: int) -> None:
            counts = self.counts
            pair = operation, outcome
            if pair not in counts and len(counts) >= MOST_COUNTS:
                pair = _OTHERS
            counts[pair] = counts.get(pair, 0) + number
            count_operation(operation, outcome, number)

        return count
