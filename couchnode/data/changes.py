"""The changed keys of a bucket's default collection: the documents that an index has to read again."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from couchnode.data.item import Item
from couchnode.data.ports import Documents

MAX_LOGGED_CHANGES = 100_000
"""Most changes in a log; an index that falls further behind scans the documents."""

_LOOKED_AT = 20_000
_PIECE = 5000
_EXPIRED_A_TURN = 2000
_SPARE_EXPIRIES = 1000


class ChangeLog:
    """The keys that changed in one bucket on one node, oldest first, and the expiries to come.

    Positions count all changes ever noted; :meth:`since` knows those after :attr:`start`.

    :ivar voids: how often :meth:`forget_all` was called.
    """

    def __init__(self, limit: int = MAX_LOGGED_CHANGES) -> None:
        self.start = 0
        self.voids = 0
        self._entries: list[tuple[int, bytes]] = []
        self._limit = limit
        # Set only while known for all existing documents; collected again when needed.
        self._expiries: list[tuple[int, int, bytes]] | None = None
        self._most_expiries = 0

    @property
    def end(self) -> int:
        """The position after the last change."""
        return self.start + len(self._entries)

    def note(self, vbid: int, item: Item) -> None:
        """Record that a document was stored or deleted; only the default collection is indexed."""
        if item.key[0]:
            return
        entries = self._entries
        entries.append((vbid, item.key))
        if len(entries) > self._limit:
            dropped = self._limit // 2
            del entries[:dropped]
            self.start += dropped
        if item.expiry and not item.deleted and self._expiries is not None:
            heapq.heappush(self._expiries, (item.expiry, vbid, item.key))
            if len(self._expiries) > self._most_expiries:
                # Documents stored repeatedly leave an entry each time.
                self._expiries = None

    def forget_all(self) -> None:
        """Void every position: the vbuckets have been replaced."""
        self.start = self.end + 1
        self._entries = []
        self.voids += 1
        self._expiries = None  # the expiries of newly active vbuckets are unknown

    def since(self, position: int) -> dict[int, set[bytes]] | None:
        """Return the keys that changed after ``position``, by vbucket; ``None`` if no longer known."""
        if position < self.start:
            return None
        changed: dict[int, set[bytes]] = {}
        for vbid, key in self._entries[position - self.start :]:
            changed.setdefault(vbid, set()).add(key)
        return changed

    def expire_due(self, bucket: Documents) -> Iterator[None]:
        """Delete expired documents, so that no index shows them.

        The generator yields between bounded pieces of work; all are deleted when it ends.
        """
        budget = _EXPIRED_A_TURN
        while True:
            if self._expiries is None:
                yield from self._collect(bucket)
            heap, now = self._expiries, int(bucket.unix_time())
            while heap and heap[0][0] < now:
                _, vbid, key = heapq.heappop(heap)
                vbucket = bucket.vbuckets[vbid]
                if vbucket is not None and vbucket.state == "active":
                    vbucket.get(key)  # on the active copy this deletes an expired document
                budget -= 1
                if not budget:
                    yield
                    budget = _EXPIRED_A_TURN
                    break
            else:
                if heap is not None:
                    return

    def _collect(self, bucket: Documents) -> Iterator[None]:
        """Collect the expiries of all existing documents."""
        expiries: list[tuple[int, int, bytes]] = []
        self._expiries, self._most_expiries = expiries, 2**62  # changes are recorded from now on
        finished = False
        looked = 0
        try:
            for vbucket in list(bucket.vbuckets):
                if vbucket is None or vbucket.state != "active" or not vbucket.may_expire:
                    continue
                items = list(vbucket.items.values())
                for at in range(0, len(items), _PIECE):
                    for item in items[at : at + _PIECE]:
                        if item.expiry and not item.key[0]:
                            heapq.heappush(expiries, (item.expiry, vbucket.id, item.key))
                    looked += _PIECE
                    if looked >= _LOOKED_AT:
                        yield
                        looked = 0
                        if self._expiries is not expiries:
                            return  # voided meanwhile
            finished = True
        finally:
            if self._expiries is expiries:
                self._most_expiries = 2 * len(expiries) + _SPARE_EXPIRIES
                if not finished:
                    self._expiries = None
