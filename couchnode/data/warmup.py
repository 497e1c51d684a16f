"""Warm-up: loads the documents of a store into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from couchnode.data.item import Item
from couchnode.data.storage import Opened, Store, StoreClosedError, StoreDamagedError
from couchnode.data.vbucket import VBucket


class WarmUp:
    """The warm-up of one bucket on one node. It fails after :meth:`stop`.

    :param name: the bucket's, for messages.
    :param vbuckets: filled with their documents in the store.
    :param on_foreign: called with the number of a vbucket that the store has and this node does not hold.
    :ivar progress: documents loaded, and their expected number.
    :ivar seconds: how long it took; 0 before its end.
    :ivar was_clean: false if the store was not closed in order: the last changes may be missing.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        clock: IReactorTime,
        vbuckets: Sequence[VBucket | None],
        on_foreign: Callable[[int], None],
    ) -> None:
        self.progress = (0, 0)
        self.seconds = 0.0
        self.was_clean = True
        self._name = name
        self._store = store
        self._clock = clock
        self._vbuckets = vbuckets
        self._on_foreign = on_foreign
        self._stopped = False

    def run(self, uuid: str) -> Deferred[None]:
        """Open the store and load every document, off the reactor and in chunks.

        Fires at the end. Fails with a ``StoreError``; with ``StoreClosedError`` after :meth:`stop`.

        :param uuid: the bucket's; a store of another one is refused.
        """
        began = self._clock.seconds()

        def loaded(_: None) -> None:
            self._check()
            self.seconds = self._clock.seconds() - began

        return self._store.open(self._name, uuid).addCallback(self._opened).addCallback(loaded)

    def stop(self) -> None:
        """Stop loading: the bucket was closed."""
        self._stopped = True

    def _hosted(self, vbid: int) -> VBucket | None:
        return self._vbuckets[vbid] if vbid < len(self._vbuckets) else None

    def _opened(self, found: Opened) -> Deferred[None]:
        self.was_clean = found.clean
        self.progress = (0, found.documents)
        for record in found.records:
            vbucket = self._hosted(record.vbid)
            if vbucket is None:
                self._on_foreign(record.vbid)
            else:
                vbucket.restore(record)
        return self._store.load(self._take)

    def _take(self, chunk: list[tuple[int, Item]]) -> None:
        self._check()
        for vbid, item in chunk:
            vbucket = self._hosted(vbid)
            if vbucket is not None:
                if item.seqno > vbucket.high_seqno:
                    raise StoreDamagedError(
                        f"the store of bucket {self._name} is damaged: key {item.key!r:.100} is newer than "
                        f"the record of its vbucket {vbid}: restore the data directory from a copy, or run "
                        "`python -m couchnode.repair` on it"
                    )
                vbucket.load(item)
        loaded, estimated = self.progress
        self.progress = (loaded + len(chunk), max(estimated, loaded + len(chunk)))

    def _check(self) -> None:
        if self._stopped:
            raise StoreClosedError(f"bucket {self._name} was closed during warm-up")
