"""Frees the memory and disk space of dropped collections, in the background.

No command can reach the documents any more when this begins, and collection ids are never reused, so there is
no hurry. The next warm-up finds and drops documents that a crash left on disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from couchnode.data.flusher import Flusher
from couchnode.data.keys import prefix_of
from couchnode.data.ports import Documents

_KEYS_A_TURN = 10_000
# Forgetting a key takes about as long as looking at ten.
_FORGOTTEN_COUNTS = 10


class Dropper:
    """Goes through the vbuckets of one bucket on one node, some keys in each turn of the reactor."""

    def __init__(self, documents: Documents, clock: IReactorTime, flusher: Flusher) -> None:
        self._documents = documents
        self._clock = clock
        self._flusher = flusher
        self._prefixes: frozenset[bytes] = frozenset()
        self._work: Iterator[None] | None = None
        self._timer: IDelayedCall | None = None

    @property
    def is_busy(self) -> bool:
        """Whether there is still something to free in memory."""
        return self._work is not None

    def drop(self, prefixes: frozenset[bytes]) -> None:
        """Free everything under keys that begin with one of these prefixes."""
        # Start over: the vbuckets already done may hold keys with the new prefixes.
        self._prefixes |= prefixes
        self._work = self._steps(self._prefixes)
        if self._timer is None:
            self._timer = self._clock.callLater(0, self._turn)

    def stop(self) -> None:
        """Stop: the bucket is closed."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._work = None

    def _turn(self) -> None:
        self._timer = None
        assert self._work is not None
        if next(self._work, self) is self:
            self._work, self._prefixes = None, frozenset()
        else:
            self._timer = self._clock.callLater(0, self._turn)

    def _steps(self, prefixes: frozenset[bytes]) -> Iterator[None]:
        """Yield after each turn's share of keys."""
        left = _KEYS_A_TURN
        for vbid in range(len(self._documents.vbuckets)):
            vbucket = self._documents.vbuckets[vbid]
            if vbucket is None:
                continue
            # Copies of the keys, because keys are added and removed between turns.
            dropped: Counter[bytes] = Counter()
            others = [*vbucket.tombstones, *vbucket.lasting, *vbucket.pending, *vbucket.dirty]
            for keys in (list(vbucket.items), others):
                step = max(_KEYS_A_TURN // _FORGOTTEN_COUNTS, 1)
                for at in range(0, len(keys), step):
                    piece = keys[at : at + step]
                    gone = [key for key in piece if prefix_of(key) in prefixes]
                    vbucket.forget_keys(gone)
                    dropped.update(map(prefix_of, gone))
                    left -= len(piece) + len(gone) * _FORGOTTEN_COUNTS
                    if left <= 0:
                        yield
                        left = _KEYS_A_TURN
            # Memory has every document on disk: a deletion is forgotten only after it was written.
            for prefix, documents in dropped.items():
                self._flusher.drop(vbid, prefix, documents)
            left -= 10
