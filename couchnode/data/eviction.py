"""Eviction in ephemeral buckets with the policy ``nruEviction``: old documents make room for new ones."""

from __future__ import annotations

from itertools import islice

from couchnode.data.item import Ledger, StatusError
from couchnode.data.ports import Documents

HIGH_WATERMARK = 0.85
"""Share of the memory quota above which documents are deleted (the server's default)."""

MOST_AT_ONCE = 1000
"""Documents that one change deletes at most, to keep the reactor's turn short."""

_A_VISIT = 16


class Evictor:
    """Deletes the oldest documents of the active vbuckets, in turn, while memory is above the watermark.

    Locked documents, and those with a synchronous write under way, are spared.

    :ivar is_on: whether the bucket's policy is ``nruEviction``.
    :ivar evicted: number of documents deleted so far.
    """

    def __init__(self, documents: Documents, ledger: Ledger) -> None:
        self.is_on = False
        self.evicted = 0
        self._documents = documents
        self._ledger = ledger
        self._next = 0
        self._is_busy = False

    def relieve(self) -> None:
        """Delete documents while memory is above the watermark; called after each change."""
        limit = HIGH_WATERMARK * self._ledger.quota_bytes
        if self._is_busy or self._ledger.memory_bytes <= limit:
            return
        # A deletion is a change too, and calls this method again.
        self._is_busy = True
        try:
            self._delete_until(limit)
        finally:
            self._is_busy = False

    def _delete_until(self, limit: float) -> None:
        vbuckets = self._documents.vbuckets
        stop = self.evicted + MOST_AT_ONCE
        for _ in range(len(vbuckets)):
            vbucket = vbuckets[self._next]
            self._next = (self._next + 1) % len(vbuckets)
            if vbucket is None or vbucket.state != "active":
                continue
            # The dictionary is in the order of storing, the oldest first.
            for key in list(islice(vbucket.items, _A_VISIT)):
                try:
                    vbucket.evict(key)
                except StatusError:
                    continue
                self.evicted += 1
                if self._ledger.memory_bytes <= limit or self.evicted >= stop:
                    return
