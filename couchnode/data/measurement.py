"""The size of each collection's documents, measured on request."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from couchnode.data.keys import prefix_of
from couchnode.data.ports import Documents

KEYS_A_TURN = 10_000
"""Documents examined in one reactor turn."""


class Sizes:
    """The size of the active documents of each collection.

    :ivar memory: key prefix of a collection -> bytes of memory.
    :ivar data: key prefix of a collection -> bytes of keys, values and attributes alone.
    """

    def __init__(self) -> None:
        self.memory: dict[bytes, int] = {}
        self.data: dict[bytes, int] = {}

    def add(self, documents: Documents) -> Iterator[None]:
        """Add all documents; yields between bounded pieces of work."""
        looked_at = 0
        for vbucket in list(documents.vbuckets):
            if vbucket is None or vbucket.state != "active":
                continue
            items = list(vbucket.items.values())
            for at in range(0, len(items), KEYS_A_TURN):
                piece = items[at : at + KEYS_A_TURN]
                for prefix, group in groupby(piece, lambda item: prefix_of(item.key)):
                    sizes = [
                        (item.size, len(item.key) + len(item.value) + len(item.xattrs)) for item in group
                    ]
                    self.memory[prefix] = self.memory.get(prefix, 0) + sum(memory for memory, _ in sizes)
                    self.data[prefix] = self.data.get(prefix, 0) + sum(data for _, data in sizes)
                looked_at += len(piece) + 10
                if looked_at >= KEYS_A_TURN:
                    yield
                    looked_at = 0


class Measurement:
    """Measures the collections of one bucket on one node; concurrent requests share one measurement."""

    def __init__(self, documents: Documents, clock: IReactorTime) -> None:
        self._documents = documents
        self._clock = clock
        self._waiting: list[Deferred[Sizes]] = []

    def sizes(self) -> Deferred[Sizes]:
        """Fire with the sizes, which may miss changes made during the measurement."""
        sizes: Deferred[Sizes] = Deferred()
        self._waiting.append(sizes)
        if len(self._waiting) == 1:
            found = Sizes()
            self._go_on(found, found.add(self._documents))
        return sizes

    def _go_on(self, found: Sizes, steps: Iterator[None]) -> None:
        if next(steps, steps) is not steps:
            self._clock.callLater(0, self._go_on, found, steps)
            return
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(found)
