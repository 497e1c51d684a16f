"""Limits actions of a client that cause work without making progress."""

from __future__ import annotations

__all__ = ["Allowance"]


class Allowance:
    """A token bucket: a number of actions that are allowed at once, and more as time passes.

    :param burst: number of actions allowed at once.
    :param per_second: number of further actions per second.
    :param now: the current time of the clock whose times are passed to :meth:`spend`.
    """

    __slots__ = ("_burst", "_left", "_per_second", "_since")

    def __init__(self, burst: float, per_second: float, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = burst
        self._since = now

    def spend(self, cost: float, now: float) -> bool:
        """Use some of the allowance; return false if it is exhausted."""
        passed, self._since = now - self._since, now
        self._left = min(self._burst, self._left + passed * self._per_second) - cost
        return self._left >= 0

    def earn(self, more: float) -> None:
        """Add to the allowance."""
        self._left = min(self._burst, self._left + more)
