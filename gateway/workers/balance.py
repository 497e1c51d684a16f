"""Spreads connections evenly over workers that accept on the same sockets.

The kernel wakes all waiting workers, and the fastest one takes the connection. If clients keep their
connections open, this determines the distribution of the load for a long time. So workers share their
connection counts, and a worker with more connections than others leaves a new one to them for a moment.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable

__all__ = ["ConnectionCounts", "Balancer"]

_NOBODY = 2**32 - 1


class ConnectionCounts:
    """The number of connections of each worker, in shared memory.

    :param descriptor: descriptor of the file behind it, see :meth:`make`; this object owns it.
    :param slots: largest number of workers, at most 1024.
    """

    def __init__(self, descriptor: int, slots: int) -> None:
        self.descriptor = descriptor
        self.slots = slots
        self._free = list(range(slots - 1, -1, -1))
        self._memory = mmap.mmap(descriptor, slots * 4)
        self._counts = memoryview(self._memory).cast("I")

    @classmethod
    def make(cls, slots: int) -> ConnectionCounts:
        """Create the shared memory, without workers."""
        with tempfile.TemporaryFile() as file:
            file.truncate(slots * 4)
            shared = cls(os.dup(file.fileno()), slots)
        for slot in range(slots):
            shared.clear(slot)
        return shared

    def take(self) -> int:
        """Return a free slot for the count of a new worker. Supervisor only.

        :raises OSError: there is no free slot.
        """
        if not self._free:
            raise OSError(f"there are {self.slots} workers already, including those that are being replaced")
        return self._free.pop()

    def give_back(self, slot: int) -> None:
        """Take back the slot of a worker that is gone. Supervisor only."""
        self.clear(slot)
        self._free.append(slot)

    def clear(self, slot: int) -> None:
        """Mark a worker as no longer accepting connections."""
        self._counts[slot] = _NOBODY

    def set(self, slot: int, count: int) -> None:
        """Set a worker's number of connections."""
        self._counts[slot] = count

    def least(self) -> int:
        """Return the lowest connection count of any worker."""
        return min(self._counts)

    def fair_share(self, waiting: int) -> int:
        """Return each worker's number of connections if ``waiting`` more are spread evenly, rounded up."""
        counts = [count for count in self._counts if count != _NOBODY]
        return -(-(sum(counts) + waiting) // len(counts)) if counts else waiting

    def close(self) -> None:
        """Release the memory."""
        self._counts.release()
        self._memory.close()
        os.close(self.descriptor)


class Balancer:
    """Decides when a worker leaves a connection to others.

    The pauses are short, since the other workers may be stuck. If no other worker has taken the connection
    after a pause, this worker takes one; the next time it takes two, then four, and so on.

    :param count: returns how many connections this worker has.
    :param seconds: returns the time.
    """

    FIRST_PAUSE = 0.005
    PAUSE = 0.002
    MEMORY = 0.1
    """Number of seconds without a pause after which it starts again with one connection."""

    def __init__(
        self, counts: ConnectionCounts, slot: int, count: Callable[[], int], seconds: Callable[[], float]
    ) -> None:
        self._counts = counts
        self._slot = slot
        self._count = count
        self._seconds = seconds
        self._batch = 0
        self._granted = 0
        self._paused_at = 0.0

    def is_due(self, waiting: Callable[[], int]) -> bool:
        """Return whether this worker should take the next connection: it has hardly more connections than
        others, or fewer than its share.

        :param waiting: returns how many connections wait to be accepted, 0 if that is unknown.
        """
        mine = self._count()
        self._counts.set(self._slot, mine)
        least = self._counts.least()
        return mine - least <= max(1, least // 8) or mine < self._counts.fair_share(waiting())

    def pause(self) -> float:
        """Return the number of seconds for which to leave a connection to the others; 0: take it."""
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
        """Publish this worker's number of connections: at the start, and after accepting one."""
        self._counts.set(self._slot, self._count())

    def leave(self) -> None:
        """Publish that this worker takes no more connections."""
        self._counts.clear(self._slot)
