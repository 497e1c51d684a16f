"""Connections spread evenly over workers that accept on the same sockets.

The kernel wakes all who wait, and the quickest takes what there is. Where clients keep their
connections, that decides for long who has the work. So workers know of each other how many they
have, and who has more than others leaves a connection to them for a moment.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable

__all__ = ["Board", "Manners"]

_NOBODY = 2**32 - 1


class Board:
    """How many connections each worker has, in memory that they share.

    :param descriptor: of the file behind it, see :meth:`make`; it is kept.
    :param slots: of workers, at most 1024.
    """

    def __init__(self, descriptor: int, slots: int) -> None:
        self.descriptor = descriptor
        self.slots = slots
        self._free = list(range(slots - 1, -1, -1))
        self._memory = mmap.mmap(descriptor, slots * 4)
        self._counts = memoryview(self._memory).cast("I")

    @classmethod
    def make(cls, slots: int) -> Board:
        """Return a new one, without workers."""
        with tempfile.TemporaryFile() as file:
            file.truncate(slots * 4)
            board = cls(os.dup(file.fileno()), slots)
        for slot in range(slots):
            board.clear(slot)
        return board

    def take(self) -> int:
        """Return a free slot, for a worker that will tell by it that it is there. Supervisor only.

        :raises OSError: there is none.
        """
        if not self._free:
            raise OSError(f"there are {self.slots} workers already, those that are being replaced too")
        return self._free.pop()

    def give_back(self, slot: int) -> None:
        """Take a slot back, whose worker is gone. Supervisor only."""
        self.clear(slot)
        self._free.append(slot)

    def clear(self, slot: int) -> None:
        """Tell that a worker takes no connections any more."""
        self._counts[slot] = _NOBODY

    def set(self, slot: int, count: int) -> None:
        """Tell how many connections a worker has."""
        self._counts[slot] = count

    def least(self) -> int:
        """Return how many the worker has that has the fewest."""
        return min(self._counts)

    def close(self) -> None:
        """Let go of the memory."""
        self._counts.release()
        self._memory.close()
        os.close(self.descriptor)


class Manners:
    """Tells a worker when to leave a connection to others.

    It never waits for long: a worker may be stuck. Each time that nobody else has taken a connection,
    it takes one or, the next times, twice as many as before.

    :param count: returns how many connections this worker has.
    :param seconds: returns the time.
    """

    FIRST_PAUSE = 0.005
    PAUSE = 0.002
    MEMORY = 0.1
    """After so many seconds it is polite again."""

    def __init__(
        self, board: Board, slot: int, count: Callable[[], int], seconds: Callable[[], float]
    ) -> None:
        self._board = board
        self._slot = slot
        self._count = count
        self._seconds = seconds
        self._batch = 0
        self._granted = 0
        self._paused_at = 0.0

    def pause(self) -> float:
        """Return for how many seconds to leave a connection that waits to others; 0: take it."""
        mine = self._count()
        self._board.set(self._slot, mine)
        least = self._board.least()
        if mine - least <= max(1, least // 8):
            return 0.0
        now = self._seconds()
        if now - self._paused_at > self.MEMORY:
            self._batch = self._granted = 0
        if self._granted:
            self._granted -= 1
            return 0.0
        self._batch = max(1, self._batch * 2)
        self._granted = self._batch
        self._paused_at = now
        return self.FIRST_PAUSE if self._batch == 1 else self.PAUSE

    def tell(self) -> None:
        """Tell the others how many connections there are, when this begins and when one was taken."""
        self._board.set(self._slot, self._count())

    def leave(self) -> None:
        """Tell the others that no more will be taken."""
        self._board.clear(self._slot)
