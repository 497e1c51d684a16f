"""A limited number of places, of which no caller may take more than half."""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["Shares"]


class Shares:
    """The places for running requests.

    :param limit: number of places, of all callers together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._most_each = max(1, limit // 2)
        self._taken: dict[Hashable, int] = {}
        self.used = 0
        """Number of taken places."""

    def take(self, owner: Hashable | None) -> bool:
        """Take a place; return false if none is free, or if this caller already has half of all places.

        :param owner: the caller; ``None`` if callers cannot be distinguished, so that only the total is
            limited.
        """
        if self.used >= self._limit:
            return False
        if owner is not None:
            taken = self._taken.get(owner, 0)
            if taken >= self._most_each:
                return False
            self._taken[owner] = taken + 1
        self.used += 1
        return True

    def give(self, owner: Hashable | None) -> None:
        """Give a place back."""
        self.used -= 1
        if owner is not None:
            left = self._taken[owner] - 1
            if left:
                self._taken[owner] = left
            else:
                del self._taken[owner]
