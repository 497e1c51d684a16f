"""One bucket's data on one node: its vbuckets, their store, their replicas and their timers."""

from __future__ import annotations

import random
from itertools import islice
from typing import Literal

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from couchbase.protocol.constants import DEFAULT_VBUCKET_COUNT, DurabilityLevel, Status
from couchnode.data.changes import ChangeLog
from couchnode.data.durability import Copies, SyncWrites
from couchnode.data.item import Item, Ledger, Refused
from couchnode.data.ports import Upstream
from couchnode.data.replication import ChangeKind, Replicator
from couchnode.data.storage import Batch, Opened, Store, StoreClosedError, StoreDamagedError, StoreError
from couchnode.data.vbucket import VBucket, VBucketRecord
from reactor.clock import unix_time_of

VBucketState = Literal["active", "replica", "dead"]

WRITE_DELAY_SECONDS = 0.01
"""How long a change may wait for others to share its transaction."""

RETRY_SECONDS = 1.0
"""Pause before a batch that could not be written is tried again."""

PAGER_SECONDS = 600.0
"""Pause between two searches for expired documents (the server's default)."""

TOMBSTONE_SECONDS = 3 * 24 * 3600
"""How long a deletion is remembered (the server's metadata purge interval)."""

MAX_TOMBSTONES = 65536
"""Deletions that one bucket remembers on one node, spread evenly over its vbuckets."""

PERSISTENCE_WAIT_SECONDS = 30.0
"""Longest wait of SEQNO_PERSISTENCE."""

MAX_SYNC_REPLICAS = 2
"""More replicas than this and the server refuses synchronous writes."""

_ITEMS_A_TURN = 20_000


class NodeBucket:
    """One bucket's data on one node.

    A new bucket holds every vbucket as active until :meth:`set_topology` says otherwise, which
    may come before or after :meth:`start`. Until ``state`` is ``"ready"`` commands answer ETMPFAIL.

    :param uuid: the bucket's uuid (32 hex digits); a store of another uuid is refused.
    :param quota_bytes: memory for documents on this node.
    :param store: where documents are kept: a ``SqliteStore`` or a ``MemoryStore`` of its own.
    :param clock: timers, and the Unix time; see :func:`reactor.clock.unix_time_of`.
    :param flush_enabled: whether :meth:`flush_all` may be used.
    :param replica_count: copies configured beside the active one, whether or not there are nodes
        for them; majorities count these.
    :ivar change_log: what changed since indexes last looked; ``None`` while there is no index.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        uuid: str,
        *,
        vbucket_count: int = DEFAULT_VBUCKET_COUNT,
        quota_bytes: int,
        store: Store,
        clock: IReactorTime,
        flush_enabled: bool = False,
        replica_count: int = 0,
        pager_seconds: float = PAGER_SECONDS,
    ) -> None:
        self.name = name
        self.uuid = uuid
        self.flush_enabled = flush_enabled
        self.replica_count = replica_count
        self.state: Literal["warmup", "ready", "closed"] = "warmup"
        self.clock = clock
        self.unix_time = unix_time_of(clock)
        self.ledger = Ledger(quota_bytes)
        self.upstreams: dict[int, Upstream] = {}
        self.replicator = Replicator(self, clock)
        self.sync_writes = SyncWrites(clock, self._copies)
        self.warmup_progress = (0, 0)
        self.warmup_seconds = 0.0
        self.write_error: str | None = None
        self.change_log: ChangeLog | None = None
        self.counters = {"expired": 0, "written": 0, "batches": 0, "write_failures": 0}
        self.gets = 0
        self.misses = 0
        self.stores = 0
        self._store = store
        self._vbucket_count = vbucket_count
        self._pager_seconds = pager_seconds
        self._timers: dict[str, IDelayedCall] = {}
        self._dirty: set[VBucket] = set()
        self._wipes: set[int] = set()
        self._writing: Deferred[None] | None = None
        self._hurry = False
        self._was_clean = True
        self._persistence_waits: dict[int, list[tuple[int, Deferred[None], IDelayedCall]]] = {}
        self.vbuckets: list[VBucket | None] = [self._new_vbucket(i, "active") for i in range(vbucket_count)]

    # ---- life ------------------------------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """Open the store and load every document, off the reactor and in chunks.

        Fires when the bucket is ready. Fails with a ``StoreError`` (the bucket then stays in
        warm-up and is of no use) or ``StoreClosedError`` after :meth:`close`.
        """
        began = self.clock.seconds()

        def opened(found: Opened) -> Deferred[None]:
            self._was_clean = found.clean
            self.warmup_progress = (0, found.documents)
            for record in found.records:
                vbucket = self.vbuckets[record.vbid] if record.vbid < self._vbucket_count else None
                if vbucket is None:
                    self._wipes.add(record.vbid)
                else:
                    vbucket.restore(record)
            return self._store.load(self._take_loaded)

        def loaded(_: None) -> None:
            self._check_open()
            self.state = "ready"
            self.warmup_seconds = self.clock.seconds() - began
            if not self._was_clean:
                # Changes may have been acknowledged and lost: whoever holds a token of theirs
                # has to learn that history took another way.
                for vbucket in self.vbuckets:
                    if vbucket is not None and vbucket.high_seqno:
                        vbucket.branch()
                        self._dirty.add(vbucket)
            self._ask_write()
            self._page_later()
            self.replicator.reconnect_all()
            for stream in self.upstreams.values():
                stream.reconnect()

        return self._store.open(self.name, self.uuid).addCallback(opened).addCallback(loaded)

    def close(self) -> Deferred[None]:
        """Write everything that waits, then let go of the store; commands answer ETMPFAIL from now.

        Fires when the file is free. Fails with the ``StoreError`` if the last changes could not
        be written; the file is let go of all the same.
        """
        if self.state == "closed":
            return succeed(None)
        was_ready = self.state == "ready"
        self.sync_writes.fail_all()
        self.replicator.stop()
        self.state = "closed"
        for name in list(self._timers):
            self._cancel(name)
        for waits in list(self._persistence_waits.values()):
            for _, done, timer in waits:
                timer.cancel()
                done.errback(Refused(Status.ETMPFAIL, "the bucket was closed"))
        self._persistence_waits.clear()

        def drained(result: object) -> Deferred[None]:
            if isinstance(result, Failure):
                return self._store.abandon().addCallback(lambda _: result)
            return self._store.close()

        if not was_ready:
            return self._store.close() if self._was_clean else self._store.abandon()
        return self._drain().addBoth(drained)

    def flush_all(self) -> Deferred[None]:
        """Delete every document: vbuckets begin again with new uuids; CAS keeps growing.

        Fires when the store is empty too; fails with a ``StoreError`` if it cannot be emptied now
        (that is tried again like any write).

        :raises Refused: NOT_SUPPORTED unless flushing is enabled; ETMPFAIL before warm-up is done.
        """
        if not self.flush_enabled:
            raise Refused(Status.NOT_SUPPORTED, "flush is not enabled for this bucket")
        if self.state != "ready":
            raise Refused(Status.ETMPFAIL, "the bucket is not ready")
        self.sync_writes.fail_all()
        for vbid, old in enumerate(self.vbuckets):
            if old is not None:
                self._replace(old, self._new_vbucket(vbid, old.state, old.max_cas))
        self.replicator.reconnect_all()
        for stream in self.upstreams.values():
            stream.reconnect()
        return self._drain()

    # ---- topology --------------------------------------------------------------------------------

    def set_topology(self, row_states: list[VBucketState]) -> None:
        """Say what this node is to each vbucket; a change takes effect at once.

        A replica that becomes active is promoted and keeps its documents; a vbucket that is
        ``"dead"`` here loses them, on the disk too.

        :raises ValueError: not one state for each vbucket.
        """
        if len(row_states) != self._vbucket_count:
            raise ValueError(f"{len(row_states)} states for {self._vbucket_count} vbuckets")
        for vbid, state in enumerate(row_states):
            vbucket = self.vbuckets[vbid]
            if state == "dead":
                if vbucket is not None:
                    self.sync_writes.fail(vbid)
                    self._replace(vbucket, None)
            elif vbucket is None:
                self.vbuckets[vbid] = self._new_vbucket(vbid, state)
                self._void_log()
            elif vbucket.state != state:
                self._change_state(vbucket, state)

    def set_replicas(self, vb: int, targets: list[NodeBucket]) -> None:
        """Send the changes of vbucket ``vb``, active here, to these buckets on other nodes."""
        self.replicator.set_replicas(vb, targets)

    def copy(self, vbid: int, state: str) -> VBucket | None:
        """Return a vbucket if it is here in this state, and the bucket is loaded."""
        vbucket = self.vbuckets[vbid] if self.state == "ready" else None
        return vbucket if vbucket is not None and vbucket.state == state else None

    def reset_vbucket(self, vbid: int, source: VBucket) -> None:
        """Empty a replica that shares no history with its active copy, to be filled from that."""
        old = self.vbuckets[vbid]
        if old is not None:
            new = self._new_vbucket(vbid, old.state, old.max_cas)
            new.failover_log = list(source.failover_log)
            self._replace(old, new)

    # ---- numbers ---------------------------------------------------------------------------------

    @property
    def persistent(self) -> bool:
        """Whether anything of this bucket ever reaches a disk."""
        return self._store.persistent

    @property
    def item_count(self) -> int:
        """Documents in the active vbuckets of this node (an expired one counts until it is found)."""
        return sum(len(vb.items) for vb in self.vbuckets if vb is not None and vb.state == "active")

    @property
    def memory_bytes(self) -> int:
        """Memory that the documents of this node take, replicas and tombstones included."""
        return self.ledger.memory_bytes

    @property
    def disk_bytes(self) -> int:
        """Size of the store's files, in bytes."""
        return self._store.disk_bytes

    @property
    def queued_bytes(self) -> int:
        """Bytes of documents that wait for the disk."""
        return self.ledger.queued_bytes

    def random_key(self) -> Item | None:
        """Return some live document of an active vbucket, or ``None`` if there is none."""
        candidates = [vb for vb in self.vbuckets if vb is not None and vb.items and vb.state == "active"]
        random.shuffle(candidates)
        for vbucket in candidates:
            start = random.randrange(len(vbucket.items))
            keys = list(islice(vbucket.items, start, start + 16)) or list(vbucket.items)
            for key in keys:
                item = vbucket.get(key)
                if item is not None:
                    return item
        return None

    # ---- durability ------------------------------------------------------------------------------

    def check_durability(self, vbucket: VBucket, level: int) -> bool:
        """Return whether a write at ``level`` has to wait for other copies or the disk.

        :raises Refused: DURABILITY_INVALID_LEVEL for a level that needs a disk on an ephemeral
            bucket, DURABILITY_IMPOSSIBLE while too few copies are there.
        """
        if level > DurabilityLevel.MAJORITY and not self.persistent:
            raise Refused(Status.DURABILITY_INVALID_LEVEL, "an ephemeral bucket has no disk to persist to")
        if self.replica_count > MAX_SYNC_REPLICAS:
            raise Refused(
                Status.DURABILITY_IMPOSSIBLE, "a bucket with 3 replicas takes no synchronous writes"
            )
        majority = self._copies(vbucket).majority
        live = 1 + sum(stream.connected for stream in self.replicator.streams_of(vbucket.id))
        if live < majority:
            raise Refused(Status.DURABILITY_IMPOSSIBLE, f"{live} of {majority} copies are there")
        return level > DurabilityLevel.MAJORITY or majority > 1

    def settle(self, vbucket: VBucket, item: Item, level: int, seconds: float | None) -> Deferred[Item]:
        """Wait until a prepared item holds at ``level`` (see :class:`SyncWrites`)."""
        if level > DurabilityLevel.MAJORITY:
            self.hurry()
        return self.sync_writes.wait(vbucket, item, level, seconds)

    def wait_persisted(self, vbucket: VBucket, seqno: int) -> Deferred[None]:
        """Fire once ``seqno`` of the vbucket is on the disk; fails with Refused(ETMPFAIL) after 30 s.

        :raises Refused: NOT_SUPPORTED on an ephemeral bucket.
        """
        if not self.persistent:
            raise Refused(Status.NOT_SUPPORTED, "an ephemeral bucket is never persisted")
        if vbucket.persisted_seqno >= seqno:
            return succeed(None)
        done: Deferred[None] = Deferred()
        waits = self._persistence_waits.setdefault(vbucket.id, [])

        def expire() -> None:
            waits.remove(entry)
            done.errback(Refused(Status.ETMPFAIL, f"sequence number {seqno} is not on the disk yet"))

        entry = (seqno, done, self.clock.callLater(PERSISTENCE_WAIT_SECONDS, expire))
        waits.append(entry)
        self.hurry()
        return done

    def hurry(self) -> None:
        """Somebody waits for the disk: do not wait for more changes to share a transaction."""
        self._hurry = True
        self._ask_write()

    # ---- what vbuckets and streams report --------------------------------------------------------

    def changed(self, vbucket: VBucket, item: Item) -> None:
        """A vbucket has a new version: the store and the replicas have to hear of it."""
        if vbucket.state == "active":
            self.replicator.send(vbucket.id, ChangeKind.STORED, item)
            if self.change_log is not None:
                self.change_log.note(vbucket.id, item)
        self._note_dirty(vbucket)

    def prepared(self, vbucket: VBucket, item: Item) -> None:
        """A vbucket holds a synchronous write."""
        if vbucket.state == "active":
            self.replicator.send(vbucket.id, ChangeKind.PREPARED, item)
        self._note_dirty(vbucket)

    def settled(self, vbucket: VBucket, item: Item, committed: bool) -> None:
        """A synchronous write became the document, or was dropped."""
        if vbucket.state == "active":
            kind = ChangeKind.COMMITTED if committed else ChangeKind.ABORTED
            self.replicator.send(vbucket.id, kind, item)
            if committed and self.change_log is not None:
                self.change_log.note(vbucket.id, item)
        self._note_dirty(vbucket)

    def replica_acknowledged(self, vbid: int) -> None:
        """A replica of this active vbucket got further, in memory or on its disk."""
        self.sync_writes.check(vbid)

    # ---- writing ---------------------------------------------------------------------------------

    def _note_dirty(self, vbucket: VBucket) -> None:
        if self._store.persistent:
            self._dirty.add(vbucket)
            if "write" not in self._timers:
                self._ask_write()

    def _ask_write(self) -> None:
        if not self._store.persistent or self.state != "ready" or self._writing is not None:
            return
        if not self._dirty and not self._wipes:
            return
        delay = 0.0 if self._hurry else WRITE_DELAY_SECONDS
        if self.write_error is not None:
            delay = RETRY_SECONDS
            if "write" in self._timers:
                return
        elif "write" in self._timers and not self._hurry:
            return
        self._cancel("write")
        self._timers["write"] = self.clock.callLater(delay, self._write)

    def _write(self) -> None:
        """Hand everything that changed to the store, as one batch."""
        self._timers.pop("write", None)
        self._hurry = False
        wipes, self._wipes = self._wipes, set()
        dirty, self._dirty = self._dirty, set()
        taken: list[tuple[VBucket, dict[bytes, Item], VBucketRecord]] = [
            (vbucket, vbucket.take_changes(), vbucket.record()) for vbucket in dirty
        ]
        batch = Batch(
            sorted(wipes),
            [(vbucket.id, changes.values()) for vbucket, changes, _ in taken if changes],
            [record for _, _, record in taken],
        )
        writing = self._writing = Deferred()

        def written(result: None) -> None:
            if self.write_error is not None:
                self._log.info("bucket {name}: writing works again", name=self.name)
            self.write_error = None
            self.counters["batches"] += 1
            self.counters["written"] += sum(len(changes) for _, changes, _ in taken)
            self._writing = None
            for vbucket, _, record in taken:
                vbucket.persisted_seqno = record.high_seqno
            for vbucket, _, _ in taken:
                self._persisted(vbucket)

        def failed(failure: Failure) -> None:
            self._writing = None
            self.counters["write_failures"] += 1
            if self.write_error is None:
                self._log.error("bucket {name}: cannot write: {error}", name=self.name, error=failure.value)
            self.write_error = str(failure.value)
            self._wipes |= wipes
            for vbucket, changes, _ in taken:
                # A vbucket that was replaced meanwhile has nothing more to write.
                if self.vbuckets[vbucket.id] is vbucket:
                    vbucket.return_changes(changes)
                    self._dirty.add(vbucket)

        def again(_: object) -> None:
            writing.callback(None)
            self._ask_write()

        maybeDeferred(self._store.write, batch).addCallbacks(written, failed).addBoth(again)

    def _persisted(self, vbucket: VBucket) -> None:
        vbid = vbucket.id
        if self.vbuckets[vbid] is not vbucket:
            return
        self.sync_writes.check(vbid)
        upstream = self.upstreams.get(vbid)
        if upstream is not None:
            upstream.acknowledge()
        waits = self._persistence_waits.get(vbid)
        if waits:
            for entry in [entry for entry in waits if entry[0] <= vbucket.persisted_seqno]:
                waits.remove(entry)
                entry[2].cancel()
                entry[1].callback(None)

    def _drain(self) -> Deferred[None]:
        """Write until nothing waits; fails with the store's error if one try does not succeed."""

        def step(_: object) -> Deferred[None] | None:
            if not self._store.persistent or not (self._dirty or self._wipes):
                return None
            self._cancel("write")
            failures = self.counters["write_failures"]
            self._write()
            if self._writing is None:
                return check(None, failures)
            # _write() replaces the Deferred each time, so it is chained through a fresh one.
            return self._after_writing().addCallback(check, failures)

        def check(_: object, failures: int) -> Deferred[None] | None:
            if self.counters["write_failures"] > failures:
                raise StoreError(f"bucket {self.name}: not everything is written: {self.write_error}")
            return step(None)

        return self._after_writing().addCallback(step)

    def _after_writing(self) -> Deferred[None]:
        after: Deferred[None] = Deferred()
        if self._writing is None:
            after.callback(None)
        else:
            self._writing.addCallback(lambda _: after.callback(None))
        return after

    # ---- inside ----------------------------------------------------------------------------------

    def _new_vbucket(self, vbid: int, state: str, max_cas: int = 0) -> VBucket:
        return VBucket(
            vbid,
            self.ledger,
            self.unix_time,
            timer_seconds=self.clock.seconds,
            state=state,
            listener=self,
            keeps_changes=self._store.persistent,
            max_tombstones=max(MAX_TOMBSTONES // self._vbucket_count, 1),
            max_cas=max_cas,
        )

    def _replace(self, old: VBucket, new: VBucket | None) -> None:
        old.discard()
        self._dirty.discard(old)
        self._wipes.add(old.id)
        self.vbuckets[old.id] = new
        if new is not None and self._store.persistent:
            self._dirty.add(new)
        self._void_log()
        self._ask_write()

    def _void_log(self) -> None:
        if self.change_log is not None:
            self.change_log.forget_all()

    def _change_state(self, vbucket: VBucket, state: VBucketState) -> None:
        self._void_log()
        if state == "active":
            if self.state == "ready":
                vbucket.promote()
                self._note_dirty(vbucket)
            else:
                vbucket.state = state
        else:
            self.sync_writes.fail(vbucket.id)
            self.replicator.set_replicas(vbucket.id, [])
            vbucket.state = state

    def _copies(self, vbucket: VBucket) -> Copies:
        streams = self.replicator.streams_of(vbucket.id)
        copies = 1 + max(self.replica_count, len(streams))
        return Copies(
            vbucket.persisted_seqno,
            [stream.acknowledged_seqno for stream in streams],
            [stream.persisted_seqno for stream in streams],
            copies // 2 + 1,
        )

    def _take_loaded(self, chunk: list[tuple[int, Item]]) -> None:
        self._check_open()
        vbuckets = self.vbuckets
        for vbid, item in chunk:
            vbucket = vbuckets[vbid] if vbid < self._vbucket_count else None
            if vbucket is not None:
                if item.seqno > vbucket.high_seqno:
                    raise StoreDamagedError(
                        f"the store of bucket {self.name} is damaged: key {item.key!r:.100} is newer than "
                        f"the record of its vbucket {vbid}: restore the data directory from a copy, or run "
                        "`python -m couchnode.repair` on it"
                    )
                vbucket.load(item)
        loaded, estimated = self.warmup_progress
        self.warmup_progress = (loaded + len(chunk), max(estimated, loaded + len(chunk)))

    def _check_open(self) -> None:
        if self.state == "closed":
            raise StoreClosedError(f"bucket {self.name} was closed during warm-up")

    def _page_later(self) -> None:
        self._timers["pager"] = self.clock.callLater(self._pager_seconds, self._page, 0)

    def _page(self, start: int) -> None:
        """Delete what has expired and forget old tombstones, some vbuckets a turn."""
        budget = _ITEMS_A_TURN
        before = int(self.unix_time()) - TOMBSTONE_SECONDS
        for vbid in range(start, self._vbucket_count):
            vbucket = self.vbuckets[vbid]
            if vbucket is None:
                continue
            if budget <= 0:
                self._timers["pager"] = self.clock.callLater(0, self._page, vbid)
                return
            budget -= 1 + len(vbucket.tombstones) + (len(vbucket.items) if vbucket.may_expire else 0)
            self.counters["expired"] += vbucket.expire_due()
            vbucket.purge_tombstones(before)
        self._page_later()

    def _cancel(self, timer: str) -> None:
        call = self._timers.pop(timer, None)
        if call is not None and call.active():
            call.cancel()
