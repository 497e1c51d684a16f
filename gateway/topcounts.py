"""Counts events by a key that clients choose: the busiest keys separately, all others together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["FORMER", "WINDOW", "TopCounts"]

_Key = TypeVar("_Key")

WINDOW = 1000
"""Number of events of other keys between two comparisons of these keys with the separate ones."""

FORMER = 4
"""Number of replaced keys that keep their counts, for each separate key."""


class TopCounts(Generic[_Key]):
    """Counts the events of at most ``most`` keys separately.

    The first keys are separate. Another key replaces the least busy of them if it had more than twice as many
    events since the last comparison; events that it had before that are counted among the others. A replaced
    key keeps its count, and continues from it if it becomes separate again, as counters must not decrease;
    the last ``FORMER * most`` replaced keys are kept.

    :param most: number of keys; 0 counts nothing.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: dict[_Key, int] = {}
        self._former: dict[_Key, int] = {}
        self.others = 0
        """Number of events of all other keys."""
        # The separate keys' counts at the last comparison, and the events of other keys since then.
        self._before: dict[_Key, int] = {}
        self._candidates: dict[_Key, int] = {}
        self._missed = 0

    def count(self, key: _Key) -> None:
        """Count an event."""
        counts = self._counts
        if key in counts:
            counts[key] += 1
        elif len(counts) < self._most:
            counts[key] = 1
        else:
            self._count_other(key)

    def items(self) -> Iterator[tuple[_Key, int]]:
        """Yield keys that are, or were, separate, and their counts."""
        yield from self._counts.items()
        yield from self._former.items()

    def _count_other(self, key: _Key) -> None:
        if not self._most:
            return
        self.others += 1
        candidates = self._candidates
        if key in candidates or len(candidates) < WINDOW:
            candidates[key] = candidates.get(key, 0) + 1
        self._missed += 1
        if self._missed >= WINDOW:
            self._compare()

    def _compare(self) -> None:
        """Replace the least busy separate keys by busier ones."""
        counts, before = self._counts, self._before
        idle = sorted(counts, key=lambda key: counts[key] - before.get(key, 0))
        busy = sorted(self._candidates.items(), key=lambda item: -item[1])
        for key, (candidate, events) in zip(idle, busy, strict=False):
            if events <= 2 * (counts[key] - before.get(key, 0)):
                break
            self._former[key] = counts.pop(key)
            counts[candidate] = self._former.pop(candidate, 0)
        while len(self._former) > FORMER * self._most:
            del self._former[next(iter(self._former))]
        self._before = dict(counts)
        self._candidates = {}
        self._missed = 0
