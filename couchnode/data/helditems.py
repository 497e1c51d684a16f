"""The content of a vbucket: its documents and tombstones, their size, and the changes still to be written.

This module has no rules for changes, no clock and no listener: :mod:`couchnode.data.vbucket` has them. The
class is a base class of the vbucket, not a member, because calls between two objects would slow each store.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import NamedTuple

from couchnode.data.item import Item, Ledger
from couchnode.data.keys import prefix_of


class VBucketRecord(NamedTuple):
    """The stored state of a vbucket, apart from its documents.

    ``failover_log`` is newest first: ``(uuid, seqno at which that history began)``.
    """

    vbid: int
    high_seqno: int
    max_cas: int
    max_deleted_revid: int
    failover_log: tuple[tuple[int, int], ...]


def new_vbucket_uuid() -> int:
    """Return an identifier for one branch of a vbucket's history: 48 random bits, never 0."""
    return secrets.randbits(48) or 1


class HeldItems:
    """The items of one vbucket on one node, by their held keys (:mod:`couchnode.data.keys`).

    Tombstones without attributes (:attr:`tombstones`) are kept for a limited time, in memory only. Tombstones
    with attributes (:attr:`lasting`) are kept like documents, until they are purged.

    :param keeps_changes: collect changes in :attr:`dirty` for a store; off for ephemeral buckets.
    :ivar named: prefix -> number of documents in each collection other than the default one that has any.
    """

    __slots__ = (
        "_keeps_changes",
        "_ledger",
        "dirty",
        "failover_log",
        "high_seqno",
        "id",
        "items",
        "lasting",
        "max_cas",
        "max_deleted_revid",
        "max_tombstones",
        "may_expire",
        "named",
        "pending",
        "persisted_seqno",
        "purge_seqno",
        "state",
        "tombstones",
    )

    def __init__(
        self, vbid: int, ledger: Ledger, state: str, keeps_changes: bool, max_tombstones: int, max_cas: int
    ) -> None:
        self.id = vbid
        self.state = state
        self.items: dict[bytes, Item] = {}
        self.tombstones: dict[bytes, Item] = {}
        self.lasting: dict[bytes, Item] = {}
        self.pending: dict[bytes, Item] = {}
        self.dirty: dict[bytes, Item] = {}
        self.named: dict[bytes, int] = {}
        self.high_seqno = 0
        self.persisted_seqno = 0
        self.purge_seqno = 0
        self.max_cas = max_cas
        self.max_deleted_revid = 0
        self.max_tombstones = max_tombstones
        self.may_expire = False
        self.failover_log: list[tuple[int, int]] = [(new_vbucket_uuid(), 0)]
        self._ledger = ledger
        self._keeps_changes = keeps_changes

    @property
    def uuid(self) -> int:
        """The identifier of the current branch of this vbucket's history."""
        return self.failover_log[0][0]

    def discard(self) -> None:
        """Release the memory charged for this vbucket; it is unusable afterwards."""
        for held in (self.items, self.tombstones, self.lasting, self.pending):
            self._ledger.memory_bytes -= sum(item.size for item in held.values())
            held.clear()
        self.named.clear()
        self._forget_dirty()

    def branch(self) -> None:
        """Begin a new branch of history here: this copy was promoted, or may have lost changes."""
        self.failover_log.insert(0, (new_vbucket_uuid(), self.high_seqno))
        # Clients ask for uuids that they have seen recently; the oldest entries only use memory.
        del self.failover_log[25:]

    # ---- storage ---------------------------------------------------------------------------------

    def record(self) -> VBucketRecord:
        """Return what a store keeps about this vbucket now."""
        return VBucketRecord(
            self.id, self.high_seqno, self.max_cas, self.max_deleted_revid, tuple(self.failover_log)
        )

    def restore(self, record: VBucketRecord) -> None:
        """Continue from a stored record; the documents follow through :meth:`load`."""
        self.high_seqno = self.persisted_seqno = self.purge_seqno = record.high_seqno
        self.max_cas = max(self.max_cas, record.max_cas)
        self.max_deleted_revid = record.max_deleted_revid
        self.failover_log = list(record.failover_log)

    def load(self, item: Item) -> None:
        """Take a stored document during warm-up."""
        self._install(item)

    def take_changes(self) -> dict[bytes, Item]:
        """Return all changes since the last call, up to :attr:`high_seqno`: the latest version of each
        changed key."""
        changes = self.dirty
        self._forget_dirty()
        return changes

    def return_changes(self, changes: dict[bytes, Item]) -> None:
        """Take back changes that could not be written, except those replaced by a newer change."""
        for key, item in changes.items():
            if key not in self.dirty:
                self._queue(item)

    # ---- collections -----------------------------------------------------------------------------

    def count(self, prefix: bytes) -> int:
        """Return the number of documents in a collection."""
        if prefix[0]:
            return self.named.get(prefix, 0)
        return len(self.items) - sum(self.named.values())

    def forget_keys(self, keys: Iterable[bytes]) -> None:
        """Forget everything about these keys, whose collection was dropped. No tombstones are left."""
        ledger = self._ledger
        for key in keys:
            for held in (self.items, self.tombstones, self.lasting, self.pending):
                item = held.pop(key, None)
                if item is not None:
                    ledger.memory_bytes -= item.size
                    if held is self.items and key[0]:
                        self._tally(key, -1)
            queued = self.dirty.pop(key, None)
            if queued is not None:
                ledger.queued_items -= 1
                ledger.queued_bytes -= len(queued.value) + len(queued.xattrs)

    # ---- deletions -------------------------------------------------------------------------------

    def tombstone(self, key: bytes) -> Item | None:
        """Return the tombstone of a document, if it is still known."""
        return self.tombstones.get(key) or self.lasting.get(key)

    def purge_tombstones(self, before: int) -> int:
        """Forget tombstones of deletions before that Unix second, once they are on the disk."""
        old = [
            item
            for held in (self.tombstones, self.lasting)
            for item in held.values()
            if item.expiry < before and self._is_settled(item)
        ]
        for item in old:
            self._forget_tombstone(item)
            if item.xattrs:
                # On disk the tombstone is in the document's row; one without attributes removes the row.
                self._queue(Item(item.key, b"", 0, 0, item.cas, item.seqno, item.revid, deleted=True))
        return len(old)

    # ---- inside ----------------------------------------------------------------------------------

    def _hold(self, item: Item) -> None:
        self.pending[item.key] = item
        self._ledger.memory_bytes += item.size
        self._queue(item)

    def _advance(self, item: Item) -> None:
        self.high_seqno = max(self.high_seqno, item.seqno)
        self.max_cas = max(self.max_cas, item.cas)

    def _install(self, item: Item) -> None:
        key, ledger = item.key, self._ledger
        tombstone = self.tombstones.pop(key, None)
        if tombstone is None and self.lasting:
            tombstone = self.lasting.pop(key, None)
        if tombstone is not None:
            ledger.memory_bytes -= tombstone.size
        if item.deleted:
            old = self.items.pop(key, None)
            if old is not None and key[0]:
                self._tally(key, -1)
            self.max_deleted_revid = max(self.max_deleted_revid, item.revid)
            if item.xattrs:
                self.lasting[key] = item
            else:
                self.tombstones[key] = item
            if len(self.tombstones) > self.max_tombstones:
                oldest = next(iter(self.tombstones.values()))
                if self._is_settled(oldest):
                    self._forget_tombstone(oldest)
        else:
            old = self.items.get(key)
            self.items[key] = item
            if old is None and key[0]:
                self._tally(key, 1)
            if item.expiry:
                self.may_expire = True
        ledger.memory_bytes += item.size - (old.size if old is not None else 0)

    def _tally(self, key: bytes, change: int) -> None:
        """Count a document of a collection other than the default one."""
        prefix = prefix_of(key)
        count = self.named.get(prefix, 0) + change
        if count:
            self.named[prefix] = count
        else:
            del self.named[prefix]

    def _is_settled(self, tombstone: Item) -> bool:
        return not self._keeps_changes or tombstone.seqno <= self.persisted_seqno

    def _forget_tombstone(self, tombstone: Item) -> None:
        del (self.lasting if tombstone.xattrs else self.tombstones)[tombstone.key]
        self._ledger.memory_bytes -= tombstone.size
        self.purge_seqno = max(self.purge_seqno, tombstone.seqno)

    def _queue(self, item: Item) -> None:
        if not self._keeps_changes:
            return
        ledger, key = self._ledger, item.key
        replaced = self.dirty.get(key)
        self.dirty[key] = item
        if replaced is None:
            ledger.queued_items += 1
            ledger.queued_bytes += len(item.value)
        else:
            ledger.queued_bytes += len(item.value) - len(replaced.value)
            if replaced.xattrs:
                ledger.queued_bytes -= len(replaced.xattrs)
        if item.xattrs:
            ledger.queued_bytes += len(item.xattrs)

    def _forget_dirty(self) -> None:
        ledger = self._ledger
        ledger.queued_items -= len(self.dirty)
        ledger.queued_bytes -= sum(len(item.value) + len(item.xattrs) for item in self.dirty.values())
        self.dirty = {}
