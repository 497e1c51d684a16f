"""The pager: deletes expired documents, and forgets old deletions."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from couchnode.data.ports import Documents

PAGER_SECONDS = 600.0
"""Pause between two searches for expired documents (the server's default)."""

TOMBSTONE_SECONDS = 3 * 24 * 3600
"""How long a deletion is remembered (the server's metadata purge interval)."""

_ITEMS_A_TURN = 20_000


class Pager:
    """Scans the documents of one bucket on one node, a few vbuckets per reactor turn.

    :param seconds: pause between the end of one search and the next.
    :ivar expired: number of documents deleted so far.
    """

    def __init__(self, documents: Documents, clock: IReactorTime, seconds: float = PAGER_SECONDS) -> None:
        self.expired = 0
        self._documents = documents
        self._clock = clock
        self._seconds = seconds
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Search after each pause."""
        self._timer = self._clock.callLater(self._seconds, self._search, 0)

    def stop(self) -> None:
        """Stop searching."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _search(self, start: int) -> None:
        """Scan vbuckets from ``start`` on, within the limit of one turn."""
        budget = _ITEMS_A_TURN
        vbuckets = self._documents.vbuckets
        before = int(self._documents.unix_time()) - TOMBSTONE_SECONDS
        for vbid in range(start, len(vbuckets)):
            vbucket = vbuckets[vbid]
            if vbucket is None:
                continue
            if budget <= 0:
                self._timer = self._clock.callLater(0, self._search, vbid)
                return
            budget -= 1 + len(vbucket.tombstones) + len(vbucket.lasting)
            budget -= len(vbucket.items) if vbucket.may_expire else 0
            self.expired += vbucket.expire_due()
            if vbucket.purge_tombstones(before):
                self._documents.purged(vbucket)
        self.start()
