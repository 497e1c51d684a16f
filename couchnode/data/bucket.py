"""One bucket's data on one node: its vbuckets, their store, their replicas and their timers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from couchbase.protocol.constants import DEFAULT_VBUCKET_COUNT, DurabilityLevel, Status
from couchnode.data.changes import ChangeLog
from couchnode.data.collectiondrop import Dropper
from couchnode.data.collections import Collections
from couchnode.data.durability import Copies, SyncWrites, has_to_wait
from couchnode.data.eviction import Evictor
from couchnode.data.flusher import Flusher
from couchnode.data.item import Item, Ledger, StatusError
from couchnode.data.keys import DEFAULT_PREFIX
from couchnode.data.manifest import Manifest
from couchnode.data.measurement import Measurement
from couchnode.data.pager import PAGER_SECONDS, Pager
from couchnode.data.ports import Upstream
from couchnode.data.rangescan import RangeScans
from couchnode.data.replication import ChangeKind, Replicator
from couchnode.data.storage import Store
from couchnode.data.vbucket import VBucket
from couchnode.data.warmup import WarmUp
from reactor.clock import unix_time_of

VBucketState = Literal["active", "replica", "dead"]

MAX_TOMBSTONES = 65536
"""Deletions that one bucket remembers on one node, spread evenly over its vbuckets."""


class NodeBucket:
    """One bucket's data on one node.

    A new bucket holds every vbucket as active until :meth:`set_topology` changes that, before or after
    :meth:`start`. Until ``state`` is ``"ready"`` commands answer ETMPFAIL.

    :param uuid: the bucket's uuid (32 hex digits); a store of another uuid is refused.
    :param quota_bytes: memory for documents on this node.
    :param store: its store of documents: a ``SqliteStore`` or a ``MemoryStore``.
    :param clock: timers, and the Unix time; see :func:`reactor.clock.unix_time_of`.
    :param flush_enabled: whether :meth:`flush_all` may be used.
    :param manifest: its scopes and collections.
    :param replica_count: configured replicas, whether or not there are nodes for them; majorities
        count these.
    :ivar min_level: durability level of writes that ask for less; 0 for none.
    :ivar change_log: changes since the last update of indexes; ``None`` while there is no index.
    """

    # Many parameters: the settings of a bucket; keywords.
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
        manifest: Manifest | None = None,
        replica_count: int = 0,
        pager_seconds: float = PAGER_SECONDS,
    ) -> None:
        self.name = name
        self.uuid = uuid
        self.flush_enabled = flush_enabled
        self.replica_count = replica_count
        self.min_level = 0
        self.state: Literal["warmup", "ready", "closed"] = "warmup"
        self.clock = clock
        self.unix_time = unix_time_of(clock)
        self.ledger = Ledger(quota_bytes)
        self.collections = Collections(manifest or Manifest(), self.ledger)
        self.upstreams: dict[int, Upstream] = {}
        self.replicator = Replicator(self, clock)
        self.sync_writes = SyncWrites(clock, self._copies)
        self.flusher = Flusher(name, store, clock, self._is_current, self._persisted)
        self.pager = Pager(self, clock, pager_seconds)
        self.scans = RangeScans(clock)
        self.evictor = Evictor(self, self.ledger)
        self.dropper = Dropper(self, clock, self.flusher)
        self.measurement = Measurement(self, clock)
        self.change_log: ChangeLog | None = None
        self.gets = 0
        self.misses = 0
        self.stores = 0
        self._store = store
        self._vbucket_count = vbucket_count
        self.vbuckets: list[VBucket | None] = [self._new_vbucket(i, "active") for i in range(vbucket_count)]
        self.warmup = WarmUp(name, store, clock, self, self.flusher)

    # ---- life ------------------------------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """Open the store and load every document, off the reactor and in chunks.

        Fires when the bucket is ready. Fails with a ``StoreError`` (the bucket then stays in
        warm-up and is of no use) or ``StoreClosedError`` after :meth:`close`.
        """

        def loaded(_: None) -> None:
            self.state = "ready"
            if not self.warmup.was_clean:
                # Acknowledged changes may be lost: clients with their tokens must learn that history has
                # branched.
                for vbucket in self.vbuckets:
                    if vbucket is not None and vbucket.high_seqno:
                        vbucket.branch()
                        self.flusher.note(vbucket)
            self.flusher.start()
            self.pager.start()
            self.replicator.reconnect_all()
            for stream in self.upstreams.values():
                stream.reconnect()

        return self.warmup.run(self.uuid).addCallback(loaded)

    def close(self) -> Deferred[None]:
        """Write all pending changes, then close the store; from now on commands answer ETMPFAIL.

        Fires when the file is free. Fails with the ``StoreError`` if the last changes could not
        be written; the file is closed in any case.
        """
        if self.state == "closed":
            return succeed(None)
        was_ready = self.state == "ready"
        self.sync_writes.fail_all()
        self.replicator.stop()
        self.state = "closed"
        self.scans.close()
        self.warmup.stop()
        self.pager.stop()
        self.dropper.stop()
        self.flusher.stop()

        def drained(result: object) -> Deferred[None]:
            if isinstance(result, Failure):
                return self._store.abandon().addCallback(lambda _: result)
            return self._store.close()

        if not was_ready:
            return self._store.close() if self.warmup.was_clean else self._store.abandon()
        return self.flusher.drain().addBoth(drained)

    @property
    def is_persistent(self) -> bool:
        """Whether its documents reach a disk."""
        return self._store.persistent

    def backup(self, path: Path) -> Deferred[int]:
        """Copy the store, with every change so far and some of the changes made during the copy.

        :param path: a file that does not exist, in a folder that does.
        :returns: fires with the copy's size in bytes when it is on disk. Fails with a ``StoreError``.
        """
        return self.flusher.sync().addCallback(lambda _: self._store.copy(path))

    def stop_copying(self) -> None:
        """End a copy early; it fails."""
        self._store.stop_copying()

    def flush_all(self) -> Deferred[None]:
        """Delete every document. The vbuckets start again with new uuids; CAS values keep growing.

        Fires when the store is empty too. Fails with a ``StoreError`` if the store cannot be emptied
        now; the write is then retried like any other.

        :raises StatusError: NOT_SUPPORTED unless flushing is enabled; ETMPFAIL before warm-up is done.
        """
        if not self.flush_enabled:
            raise StatusError(Status.NOT_SUPPORTED, "flush is not enabled for this bucket")
        if self.state != "ready":
            raise StatusError(Status.ETMPFAIL, "the bucket is not ready")
        self.sync_writes.fail_all()
        for vbid, old in enumerate(self.vbuckets):
            if old is not None:
                self._replace(old, self._new_vbucket(vbid, old.state, old.max_cas))
        self.replicator.reconnect_all()
        for stream in self.upstreams.values():
            stream.reconnect()
        return self.flusher.drain()

    # ---- collections -----------------------------------------------------------------------------

    def set_manifest(self, manifest: Manifest) -> None:
        """Apply other scopes and collections immediately.

        Documents of dropped collections become unreachable; their memory and disk space are freed in the
        background. Pending synchronous writes in those collections fail with SYNC_WRITE_AMBIGUOUS.
        """
        gone = self.collections.set(manifest)
        if not gone:
            return
        self.sync_writes.fail_keys(gone)
        if DEFAULT_PREFIX in gone:
            self._void_indexes()
        self.dropper.drop(gone)

    # ---- topology --------------------------------------------------------------------------------

    def set_topology(self, row_states: list[VBucketState]) -> None:
        """Set this node's state for each vbucket; a change takes effect at once.

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
        """Return a vbucket if this node holds it in this state, and the bucket is loaded."""
        vbucket = self.vbuckets[vbid] if self.state == "ready" else None
        return vbucket if vbucket is not None and vbucket.state == state else None

    def reset_vbucket(self, vbid: int, source: VBucket) -> None:
        """Empty a replica that shares no history with its active copy, so that it is filled from that."""
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
    def indexed_count(self) -> int:
        """Documents that views see: those of the default collection."""
        active = (vb for vb in self.vbuckets if vb is not None and vb.state == "active")
        return sum(vb.count(DEFAULT_PREFIX) for vb in active)

    @property
    def memory_bytes(self) -> int:
        """Memory that the documents of this node take, replicas and tombstones included."""
        return self.ledger.memory_bytes

    @property
    def disk_bytes(self) -> int:
        """Size of the store's files, in bytes."""
        return self._store.disk_bytes

    # ---- durability ------------------------------------------------------------------------------

    def check_durability(self, vbucket: VBucket, level: int) -> bool:
        """Return whether a write at ``level`` has to wait for other copies or the disk.

        :raises StatusError: DURABILITY_INVALID_LEVEL for a level that needs a disk on an ephemeral
            bucket, DURABILITY_IMPOSSIBLE while too few copies are there.
        """
        majority = self._copies(vbucket).majority
        live = 1 + sum(stream.connected for stream in self.replicator.streams_of(vbucket.id))
        return has_to_wait(level, self.persistent, self.replica_count, live, majority)

    def settle(self, vbucket: VBucket, item: Item, level: int, seconds: float | None) -> Deferred[Item]:
        """Wait until a prepared item holds at ``level`` (see :class:`SyncWrites`)."""
        if level > DurabilityLevel.MAJORITY:
            self.flusher.hurry()
        return self.sync_writes.wait(vbucket, item, level, seconds)

    # ---- what vbuckets and streams report --------------------------------------------------------

    def changed(self, vbucket: VBucket, item: Item) -> None:
        """Pass a new version in a vbucket on to the store and the replicas."""
        if vbucket.state == "active":
            if vbucket.id in self.replicator.streams:
                self.replicator.send(vbucket.id, ChangeKind.STORED, item)
            if self.change_log is not None:
                self.change_log.note(vbucket.id, item)
            if self.evictor.is_on:
                self.evictor.relieve()
        self.flusher.note(vbucket)

    def prepared(self, vbucket: VBucket, item: Item) -> None:
        """Note a prepared synchronous write in a vbucket."""
        if vbucket.state == "active":
            self.replicator.send(vbucket.id, ChangeKind.PREPARED, item)
        self.flusher.note(vbucket)

    def settled(self, vbucket: VBucket, item: Item, committed: bool) -> None:
        """Note that a synchronous write was committed or dropped."""
        if vbucket.state == "active":
            kind = ChangeKind.COMMITTED if committed else ChangeKind.ABORTED
            self.replicator.send(vbucket.id, kind, item)
            if committed and self.change_log is not None:
                self.change_log.note(vbucket.id, item)
        self.flusher.note(vbucket)

    def purged(self, vbucket: VBucket) -> None:
        """Note that a vbucket has forgotten tombstones, so that the disk does, too."""
        self.flusher.note(vbucket)

    def replica_acknowledged(self, vbid: int) -> None:
        """Note the progress of a replica of this active vbucket, in memory or on its disk."""
        self.sync_writes.check(vbid)

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
        self.vbuckets[old.id] = new
        self._void_log()
        self.flusher.replaced(old, new)

    def _is_current(self, vbucket: VBucket) -> bool:
        return self.vbuckets[vbucket.id] is vbucket

    def _persisted(self, vbucket: VBucket) -> None:
        self.sync_writes.check(vbucket.id)
        upstream = self.upstreams.get(vbucket.id)
        if upstream is not None:
            upstream.acknowledge()

    def _void_log(self) -> None:
        if self.change_log is not None:
            self.change_log.forget_all()

    def _void_indexes(self) -> None:
        """Make indexes compare their entries with the remaining documents: raise the sequence number, and
        forget all deletions before it."""
        self._void_log()
        for vbucket in self.vbuckets:
            if vbucket is not None and vbucket.state == "active":
                vbucket.high_seqno += 1
                vbucket.purge_seqno = vbucket.high_seqno
                self.flusher.note(vbucket)

    def _change_state(self, vbucket: VBucket, state: VBucketState) -> None:
        self._void_log()
        if state == "active":
            if self.state == "ready":
                vbucket.promote()
                self.flusher.note(vbucket)
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
