"""How much a client may do that costs work and brings nothing forward."""

from __future__ import annotations

__all__ = ["Allowance"]


class Allowance:
    """A number of things that may be done at once, and again with time (a token bucket).

    :param burst: how many at once.
    :param per_second: how many more with each second.
    :param now: the time of the clock that :meth:`spend` is given.
    """

    __slots__ = ("_burst", "_left", "_per_second", "_since")

    def __init__(self, burst: float, per_second: float, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = burst
        self._since = now

    def spend(self, cost: float, now: float) -> bool:
        """Take from the allowance; return false if it is used up."""
        passed, self._since = now - self._since, now
        self._left = min(self._burst, self._left + passed * self._per_second) - cost
        return self._left >= 0

    def earn(self, more: float) -> None:
        """Add to the allowance."""
        self._left = min(self._burst, self._left + more)
