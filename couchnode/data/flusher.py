"""Write-behind: the pending changes, when they are written, and the clients that wait for that."""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import Enum, auto
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from couchbase.protocol.constants import Status
from couchnode.data.helditems import VBucketRecord
from couchnode.data.item import Item, StatusError
from couchnode.data.storage import Store, StoreError, Transaction
from couchnode.data.vbucket import VBucket
from reactor.deferreds import own

WRITE_DELAY_SECONDS = 0.01
"""How long a change waits for others to share its transaction, in seconds."""

RETRY_SECONDS = 1.0
"""Pause before a batch that could not be written is tried again."""

_DROPS_A_BATCH = 500
_DROPPED_DOCUMENTS_A_BATCH = 5000

PERSISTENCE_WAIT_SECONDS = 30.0
"""Longest wait of SEQNO_PERSISTENCE."""


class _Phase(Enum):
    LOADING = auto()
    """Changes are recorded, but not written yet."""
    RUNNING = auto()
    """Changes are written automatically, soon."""
    CLOSED = auto()
    """Only :meth:`Flusher.drain` writes."""


class _Wait(NamedTuple):
    seqno: int
    done: Deferred[None]
    timer: IDelayedCall


class _Taken(NamedTuple):
    """The part of a batch from one vbucket."""

    vbucket: VBucket
    changes: dict[bytes, Item]
    record: VBucketRecord


class Flusher:
    """Writes the changes of one bucket to its store, in batches; does nothing for a store in memory.

    :param name: the bucket's, for messages.
    :param is_current: vbucket -> whether it is still part of the bucket; changes of a replaced vbucket are
        not written.
    :param on_persisted: called with a vbucket after its ``persisted_seqno`` grew.
    :ivar write_error: why the last batch could not be written; ``None`` if it was, or there was none.
    :ivar written: documents and deletions written.
    :ivar batches: batches written.
    :ivar failures: batches that could not be written.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        store: Store,
        clock: IReactorTime,
        is_current: Callable[[VBucket], bool],
        on_persisted: Callable[[VBucket], None],
    ) -> None:
        self.write_error: str | None = None
        self.written = 0
        self.batches = 0
        self.failures = 0
        self._name = name
        self._store = store
        self._clock = clock
        self._is_current = is_current
        self._on_persisted = on_persisted
        self._persistent = store.persistent
        self._phase = _Phase.LOADING
        self._dirty: set[VBucket] = set()
        self._wipes: set[int] = set()
        self._drops: dict[tuple[int, bytes], int] = {}
        self._writing: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._in_a_hurry = False
        self._waits: dict[int, list[_Wait]] = {}

    # ---- what changed ----------------------------------------------------------------------------

    def note(self, vbucket: VBucket) -> None:
        """Note that a vbucket has changes to write."""
        if self._persistent:
            self._dirty.add(vbucket)
            if self._timer is None:
                self._schedule()

    def replaced(self, old: VBucket, new: VBucket | None) -> None:
        """Make the store forget a vbucket that no longer belongs to the bucket.

        Its waiters get StatusError(ETMPFAIL): its successor's sequence numbers belong to another history.
        """
        self._fail_waits(old.id, "the vbucket was emptied")
        if self._persistent:
            self._dirty.discard(old)
            self._wipes.add(old.id)
            if new is not None:
                self._dirty.add(new)
            self._schedule()

    def wipe(self, vbid: int) -> None:
        """Make the store forget a vbucket that this node does not hold."""
        self._wipes.add(vbid)

    def drop(self, vbid: int, prefix: bytes, documents: int = 1) -> None:
        """Make the store forget the documents of a dropped collection in a vbucket; about ``documents``.

        Documents still in the store when the process ends are dropped by the next warm-up.
        """
        if self._persistent:
            self._drops[vbid, prefix] = self._drops.get((vbid, prefix), 0) + documents
            self._schedule()

    # ---- when it is written ----------------------------------------------------------------------

    def start(self) -> None:
        """Write the changes noted so far, and later ones automatically."""
        self._phase = _Phase.RUNNING
        self._schedule()

    def stop(self) -> None:
        """Stop writing automatically; waiters for the disk get StatusError(ETMPFAIL)."""
        self._phase = _Phase.CLOSED
        self._cancel()
        for vbid in list(self._waits):
            self._fail_waits(vbid, "the bucket was closed")

    def hurry(self) -> None:
        """Write soon, without waiting for more changes: a client waits for persistence."""
        self._in_a_hurry = True
        self._schedule()

    @inlineCallbacks
    def drain(self) -> Generator[Deferred[Any], Any, None]:
        """Write until no changes are pending, in any phase.

        :returns: fires when all changes are on disk. Fails with :class:`StoreError` if one batch cannot be
            written; its changes stay pending.
        """
        yield self.sync()
        while self._persistent and (self._dirty or self._wipes):
            yield self.sync()

    @inlineCallbacks
    def sync(self) -> Generator[Deferred[Any], Any, None]:
        """Write the changes that are pending now.

        :returns: fires when they are on the disk. Fails as :meth:`drain` does.
        """
        while self._writing is not None:
            yield own(self._writing)
        if self._persistent and (self._dirty or self._wipes):
            self._cancel()
            failures = self.failures
            self._write()
            if self._writing is not None:
                yield own(self._writing)
            if self.failures > failures:
                raise StoreError(f"bucket {self._name}: not everything is written: {self.write_error}")

    def _schedule(self) -> None:
        """Set the timer for the next batch, if there is something to write and nothing is being written."""
        if self._phase is not _Phase.RUNNING or self._writing is not None:
            return
        if not self._persistent or not (self._dirty or self._wipes or self._drops):
            return
        if self._timer is not None and (self.write_error is not None or not self._in_a_hurry):
            return
        delay = 0.0 if self._in_a_hurry else WRITE_DELAY_SECONDS
        self._cancel()
        self._timer = self._clock.callLater(delay if self.write_error is None else RETRY_SECONDS, self._write)

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _write(self) -> None:
        """Pass all pending changes to the store, as one batch."""
        self._timer = None
        self._in_a_hurry = False
        wipes, self._wipes = self._wipes, set()
        drops = self._take_drops()
        dirty, self._dirty = self._dirty, set()
        taken = [_Taken(vbucket, vbucket.take_changes(), vbucket.record()) for vbucket in dirty]
        transaction = Transaction(
            sorted(wipes),
            [(one.vbucket.id, one.changes.values()) for one in taken if one.changes],
            [one.record for one in taken],
            drops,
        )
        writing = self._writing = Deferred()
        outcome = maybeDeferred(self._store.write, transaction)
        outcome.addCallbacks(
            self._succeeded, self._failed, callbackArgs=(taken,), errbackArgs=(taken, transaction)
        )
        outcome.addBoth(self._next, writing)

    def _take_drops(self) -> dict[tuple[int, bytes], int]:
        """Return some of the pending drops, so few that other changes in the batch hardly wait for them."""
        taken: dict[tuple[int, bytes], int] = {}
        documents = 0
        for drop, count in self._drops.items():
            if len(taken) >= _DROPS_A_BATCH or documents >= _DROPPED_DOCUMENTS_A_BATCH:
                break
            taken[drop] = count
            documents += count
        for drop in taken:
            del self._drops[drop]
        return taken

    def _succeeded(self, _: None, taken: list[_Taken]) -> None:
        if self.write_error is not None:
            self._log.info("bucket {name}: writing works again", name=self._name)
        self.write_error = None
        self.batches += 1
        self.written += sum(len(one.changes) for one in taken)
        self._writing = None
        for one in taken:
            one.vbucket.persisted_seqno = one.record.high_seqno
        for one in taken:
            if self._is_current(one.vbucket):
                self._on_persisted(one.vbucket)
                self._release(one.vbucket)

    def _failed(self, failure: Failure, taken: list[_Taken], transaction: Transaction) -> None:
        self._writing = None
        self.failures += 1
        if self.write_error is None:
            self._log.error("bucket {name}: cannot write: {error}", name=self._name, error=failure.value)
        self.write_error = str(failure.value)
        self._wipes.update(transaction.wipes)
        self._drops.update(transaction.drops)
        for one in taken:
            if self._is_current(one.vbucket):
                one.vbucket.return_changes(one.changes)
                self._dirty.add(one.vbucket)

    def _next(self, result: object, writing: Deferred[None]) -> object:
        writing.callback(None)
        self._schedule()
        return result

    # ---- waiting for the disk --------------------------------------------------------------------

    def wait(self, vbucket: VBucket, seqno: int) -> Deferred[None]:
        """Fire once ``seqno`` of the vbucket is on the disk; fails with StatusError(ETMPFAIL) after 30 s.

        :raises StatusError: NOT_SUPPORTED if nothing of this bucket ever reaches a disk.
        """
        if not self._persistent:
            raise StatusError(Status.NOT_SUPPORTED, "an ephemeral bucket is never persisted")
        if vbucket.persisted_seqno >= seqno:
            return succeed(None)
        done: Deferred[None] = Deferred()
        waits = self._waits.setdefault(vbucket.id, [])

        def expire() -> None:
            waits.remove(wait)
            done.errback(StatusError(Status.ETMPFAIL, f"sequence number {seqno} is not on the disk yet"))

        wait = _Wait(seqno, done, self._clock.callLater(PERSISTENCE_WAIT_SECONDS, expire))
        waits.append(wait)
        self.hurry()
        return done

    def _fail_waits(self, vbid: int, why: str) -> None:
        waits = self._waits.pop(vbid, [])
        for wait in waits:
            wait.timer.cancel()
        for wait in waits:
            wait.done.errback(StatusError(Status.ETMPFAIL, why))

    def _release(self, vbucket: VBucket) -> None:
        waits = self._waits.get(vbucket.id)
        if waits:
            for wait in [wait for wait in waits if wait.seqno <= vbucket.persisted_seqno]:
                waits.remove(wait)
                wait.timer.cancel()
                wait.done.callback(None)
