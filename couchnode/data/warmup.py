"""Warm-up: loads the documents of a store into memory."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from couchnode.data.flusher import Flusher
from couchnode.data.item import Item
from couchnode.data.keys import described, prefix_of
from couchnode.data.ports import Documents
from couchnode.data.storage import Opened, Store, StoreClosedError, StoreDamagedError
from couchnode.data.vbucket import VBucket


class WarmUp:
    """The warm-up of one bucket on one node. It fails after :meth:`stop`.

    :param name: the bucket's, for messages.
    :param documents: its vbuckets receive their documents from the store, except those in dropped
        collections.
    :param flusher: removes all other records from the store.
    :ivar progress: number of documents loaded, and the expected number.
    :ivar seconds: duration of the warm-up; 0 before its end.
    :ivar was_clean: false if the store was not closed properly; the last changes may be missing.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        clock: IReactorTime,
        documents: Documents,
        flusher: Flusher,
    ) -> None:
        self.progress = (0, 0)
        self.seconds = 0.0
        self.was_clean = True
        self._name = name
        self._store = store
        self._clock = clock
        self._documents = documents
        self._flusher = flusher
        self._stopped = False

    def run(self, uuid: str) -> Deferred[None]:
        """Open the store and load every document, off the reactor and in chunks.

        Fires at the end. Fails with a ``StoreError``; with ``StoreClosedError`` after :meth:`stop`.

        :param uuid: the bucket's uuid; the store of another bucket is refused.
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
        vbuckets = self._documents.vbuckets
        return vbuckets[vbid] if vbid < len(vbuckets) else None

    def _opened(self, found: Opened) -> Deferred[None]:
        self.was_clean = found.clean
        self.progress = (0, found.documents)
        for record in found.records:
            vbucket = self._hosted(record.vbid)
            if vbucket is None:
                self._flusher.wipe(record.vbid)
            else:
                vbucket.restore(record)
        return self._store.load(self._take)

    def _take(self, chunk: list[tuple[int, Item]]) -> None:
        self._check()
        has_collection = self._documents.collections.has
        for vbid, item in chunk:
            if not has_collection(item.key):
                self._flusher.drop(vbid, prefix_of(item.key))
                continue
            vbucket = self._hosted(vbid)
            if vbucket is not None:
                if item.seqno > vbucket.high_seqno:
                    raise StoreDamagedError(
                        f"the store of bucket {self._name} is damaged: key {described(item.key):.100} is "
                        f"newer than the record of its vbucket {vbid}: restore the data directory from a "
                        "copy, or run `python -m couchnode.repair` on it"
                    )
                vbucket.load(item)
        loaded, estimated = self.progress
        self.progress = (loaded + len(chunk), max(estimated, loaded + len(chunk)))

    def _check(self) -> None:
        if self._stopped:
            raise StoreClosedError(f"bucket {self._name} was closed during warm-up")
