"""The documents of one vbucket, and the exact rules for reading and changing them.

This module uses no socket, file or timer: the clock is a callable, and a :class:`ChangeListener` is notified
of changes to store or replicate.
"""

from __future__ import annotations

from collections.abc import Callable

from couchbase.protocol.constants import (
    COUNTER_NO_CREATE,
    DEFAULT_LOCK_SECONDS,
    LOCKED_CAS,
    MAX_LOCK_SECONDS,
    MAX_VALUE_BYTES,
    Status,
)
from couchnode.data.attributes import section_bytes, system_only
from couchnode.data.countertext import COUNTER_LIMIT, parse_counter
from couchnode.data.helditems import HeldItems
from couchnode.data.item import ITEM_OVERHEAD_BYTES, Item, Ledger, StatusError, tombstone_of
from couchnode.data.listener import ChangeListener
from couchnode.data.storemode import StoreMode

# The low 16 bits of a CAS count changes within one tick of the clock.
_CAS_COUNTER_MASK = 0xFFFF
DEFAULT_MAX_TOMBSTONES = 64


# Plain numbers on the fast path: an enumeration's members are looked up by Python code.
_ADD, _REPLACE = int(StoreMode.ADD), int(StoreMode.REPLACE)


class VBucket(HeldItems):
    """One vbucket of a bucket on one node.

    Every method that changes a document returns the new :class:`Item` or raises
    :class:`StatusError` having changed nothing. With ``durable=True`` the change is only *prepared*:
    it has its sequence number and CAS and goes to the disk and the replicas, but readers see the
    previous version until :meth:`commit`; until :meth:`commit` or :meth:`abort` other writers of
    the key get SYNC_WRITE_IN_PROGRESS.

    :param seconds: the current Unix time.
    :param timer_seconds: returns the time for the end of locks, from a monotonic clock; ``seconds`` if
        ``None``.
    :param keeps_changes: collect changes in :attr:`dirty` for a store; off for ephemeral buckets.
    """

    __slots__ = ("_listener", "_seconds", "_timer_seconds")

    # Many parameters: what a vbucket needs from its bucket, on which it must not depend.
    def __init__(
        self,
        vbid: int,
        ledger: Ledger,
        seconds: Callable[[], float],
        *,
        timer_seconds: Callable[[], float] | None = None,
        state: str = "active",
        listener: ChangeListener[VBucket] | None = None,
        keeps_changes: bool = False,
        max_tombstones: int = DEFAULT_MAX_TOMBSTONES,
        max_cas: int = 0,
    ) -> None:
        super().__init__(vbid, ledger, state, keeps_changes, max_tombstones, max_cas)
        self._seconds = seconds
        self._timer_seconds = timer_seconds or seconds
        self._listener = listener

    def now(self) -> float:
        """The current Unix time in seconds, by the clock of this vbucket."""
        return self._seconds()

    def hybrid_now(self) -> tuple[int, bool]:
        """Return the clock of CAS values in seconds, and whether it is ahead of the time and only counts."""
        now = int(self._seconds() * 1e9) & ~_CAS_COUNTER_MASK
        return max(now, self.max_cas) // 10**9, now <= self.max_cas

    # ---- reading ---------------------------------------------------------------------------------

    def get(self, key: bytes) -> Item | None:
        """Return the live document, or ``None``. The active copy deletes an expired document."""
        item = self.items.get(key)
        if item is None or not item.expiry or item.expiry >= int(self._seconds()):
            return item
        if self.state == "active":
            self._expire(item)
        return None

    def visible_cas(self, item: Item) -> int:
        """Return the CAS for readers: ``LOCKED_CAS`` while the document is locked."""
        if item.lock_until and self.is_locked(item):
            return LOCKED_CAS
        return item.cas

    def is_locked(self, item: Item) -> bool:
        """Return whether a lock holds; it lasts through the second in which it expires."""
        return item.lock_until != 0 and int(self._timer_seconds()) <= item.lock_until

    def find(self, key: bytes) -> Item | None:
        """Return the live document, or else its tombstone; ``None`` if neither is known."""
        item = self.get(key)
        return item if item is not None else self.tombstone(key)

    def is_persisted(self, item: Item) -> bool:
        """Return whether this version is on the disk."""
        return item.seqno <= self.persisted_seqno

    # ---- changing --------------------------------------------------------------------------------

    # Many parameters: the fields of a write, on the fast path.
    def store(
        self,
        mode: int,
        key: bytes,
        value: bytes,
        flags: int = 0,
        expiry: int = 0,
        cas: int = 0,
        *,
        preserve_expiry: bool = False,
        durable: bool = False,
    ) -> Item:
        """Store a document.

        :param mode: a :class:`StoreMode`.
        :param expiry: as on the wire: 0, seconds from now up to 30 days, or a Unix time.
        :param cas: store only over this version; 0 for any. A missing document is then KEY_ENOENT.
        :param preserve_expiry: an existing document keeps its expiry and ``expiry`` is ignored.
        :raises StatusError: KEY_ENOENT, KEY_EEXISTS (ADD of a document that exists, or another CAS),
            LOCKED, E2BIG, SYNC_WRITE_IN_PROGRESS, ENOMEM, ETMPFAIL.
        """
        if len(value) > MAX_VALUE_BYTES:
            raise StatusError(Status.E2BIG)
        if self.pending and key in self.pending:
            raise StatusError(Status.SYNC_WRITE_IN_PROGRESS)
        old = self.items.get(key)
        if old is not None and old.expiry:
            old = self.get(key)
        if old is None:
            if cas or mode == _REPLACE:
                raise StatusError(Status.KEY_ENOENT)
        elif mode == _ADD:
            raise StatusError(Status.KEY_EEXISTS)
        elif cas or old.lock_until:
            self.check_cas(old, cas)
        if preserve_expiry and old is not None:
            expiry = old.expiry
        elif expiry or self._ledger.max_ttl or self._ledger.max_ttls:
            expiry = self.stored_expiry(key, expiry)
        return self._publish(key, value, flags, expiry, old, durable)

    def delete(self, key: bytes, cas: int = 0, *, durable: bool = False) -> Item:
        """Delete a document and return its tombstone.

        :raises StatusError: KEY_ENOENT, KEY_EEXISTS, LOCKED, SYNC_WRITE_IN_PROGRESS, ETMPFAIL.
        """
        old = self._require(key, Status.KEY_ENOENT)
        self.check_cas(old, cas)
        # A deletion frees memory, so the quota does not apply.
        self._ledger.admit(0)
        return self._bury(old, durable)

    def evict(self, key: bytes) -> None:
        """Delete a document to save memory, and forget the deletion; raises as :meth:`delete` does."""
        self._forget_tombstone(self.delete(key))

    def concat(self, key: bytes, value: bytes, cas: int = 0, *, before: bool, durable: bool = False) -> Item:
        """Append to a document, or prepend with ``before``; flags and expiry stay.

        :raises StatusError: NOT_STORED if there is none; KEY_EEXISTS, LOCKED, E2BIG,
            SYNC_WRITE_IN_PROGRESS, ENOMEM, ETMPFAIL.
        """
        old = self._require(key, Status.NOT_STORED)
        self.check_cas(old, cas)
        if len(old.value) + len(value) > MAX_VALUE_BYTES:
            raise StatusError(Status.E2BIG)
        joined = value + old.value if before else old.value + value
        return self._publish(key, joined, old.flags, old.expiry, old, durable)

    def increment(
        self,
        key: bytes,
        delta: int,
        initial: int = 0,
        expiry: int = COUNTER_NO_CREATE,
        *,
        durable: bool = False,
    ) -> tuple[Item, int]:
        """Add ``delta`` to a counter, modulo 2**64; return the item and its new number.

        A missing document is created with ``initial``, without the delta, unless ``expiry`` is
        ``COUNTER_NO_CREATE``. An existing one keeps its flags and expiry.

        :raises StatusError: KEY_ENOENT, DELTA_BADVAL (the body is not an unsigned 64-bit number),
            LOCKED, SYNC_WRITE_IN_PROGRESS, ENOMEM, ETMPFAIL.
        """
        return self._count(key, lambda number: (number + delta) % COUNTER_LIMIT, initial, expiry, durable)

    def decrement(
        self,
        key: bytes,
        delta: int,
        initial: int = 0,
        expiry: int = COUNTER_NO_CREATE,
        *,
        durable: bool = False,
    ) -> tuple[Item, int]:
        """Subtract ``delta`` from a counter, which stops at 0; otherwise as :meth:`increment`."""
        return self._count(key, lambda number: max(number - delta, 0), initial, expiry, durable)

    def touch(self, key: bytes, expiry: int, *, durable: bool = False) -> Item:
        """Give a document a new expiry (wire form). Nothing changes if it has that expiry already.

        :raises StatusError: KEY_ENOENT, LOCKED, SYNC_WRITE_IN_PROGRESS, ETMPFAIL.
        """
        old = self._require(key, Status.KEY_ENOENT)
        self.check_cas(old, 0)
        until = self.stored_expiry(key, expiry)
        if until == old.expiry:
            return old
        item = self._publish(key, old.value, old.flags, until, old, durable)
        item.known_datatype = old.known_datatype
        return item

    def lock(self, key: bytes, seconds: int = DEFAULT_LOCK_SECONDS) -> Item:
        """Lock a document; the CAS of the returned item releases the lock.

        :param seconds: 1 to 30; anything else becomes the default of 15, as on the server.
        :raises StatusError: KEY_ENOENT, LOCKED, SYNC_WRITE_IN_PROGRESS.
        """
        old = self._require(key, Status.KEY_ENOENT)
        if self.is_locked(old):
            raise StatusError(Status.LOCKED)
        if not 0 < seconds <= MAX_LOCK_SECONDS:
            seconds = DEFAULT_LOCK_SECONDS
        # No sequence number: a lock is neither stored nor replicated.
        return self._relabel(old, self._next_cas(), int(self._timer_seconds()) + seconds)

    def unlock(self, key: bytes, cas: int) -> Item:
        """Release the lock whose CAS is ``cas``; the document keeps this CAS.

        :raises StatusError: KEY_ENOENT, NOT_LOCKED, LOCKED (another CAS), SYNC_WRITE_IN_PROGRESS.
        """
        old = self._require(key, Status.KEY_ENOENT)
        if not self.is_locked(old):
            raise StatusError(Status.NOT_LOCKED)
        if cas != old.cas:
            raise StatusError(Status.LOCKED)
        return self._relabel(old, old.cas, 0)

    def stored_expiry(self, key: bytes, wire: int) -> int:
        """Return the Unix second that is stored for a request's expiry when writing that key."""
        return self._ledger.until(key, wire, int(self._seconds()))

    def next_version(self, key: bytes, old: Item | None, growth_bytes: int) -> tuple[int, int, int]:
        """Begin a new version of a document or tombstone (``old``) that grows by so many bytes of memory.

        :returns: its sequence number, CAS and revision; :meth:`publish` has to follow.
        :raises StatusError: ENOMEM, ETMPFAIL.
        """
        self._ledger.admit(growth_bytes)
        self.high_seqno += 1
        revid = old.revid + 1 if old is not None else self._first_revid(key)
        return self.high_seqno, self._next_cas(), revid

    def publish(self, item: Item, durable: bool) -> Item:
        """Make a new version the document, or with ``durable`` hold it as prepared; return it."""
        listener = self._listener
        if durable:
            self._hold(item)
            if listener is not None:
                listener.prepared(self, item)
            return item
        self._install(item)
        self._queue(item)
        if listener is not None:
            listener.changed(self, item)
        return item

    # ---- synchronous writes ----------------------------------------------------------------------

    def commit(self, key: bytes) -> None:
        """Make a prepared write the document."""
        item = self.pending.pop(key)
        self._ledger.memory_bytes -= item.size
        self._install(item)
        if self._listener is not None:
            self._listener.settled(self, item, True)

    def abort(self, key: bytes) -> None:
        """Drop a prepared write; the previous version stays."""
        dropped = self.pending.pop(key)
        self._ledger.memory_bytes -= dropped.size
        if self._keeps_changes:
            # The prepared version may be on the disk by now: write the real one again.
            old = self.items.get(key)
            if old is None:
                old = self.tombstone(key) or tombstone_of(dropped, dropped.cas, dropped.seqno, 0, b"")
            self._queue(old)
        if self._listener is not None:
            self._listener.settled(self, dropped, False)

    # ---- replication -----------------------------------------------------------------------------

    def apply(self, item: Item) -> None:
        """Apply a change from the active copy unchanged, with its sequence number, CAS and expiry.

        Quota and queue limits are not checked: the active copy has already accepted the change.
        """
        if item.key in self.pending:
            self._ledger.memory_bytes -= self.pending.pop(item.key).size
        self._advance(item)
        self._install(item)
        self._queue(item)
        if self._listener is not None:
            self._listener.changed(self, item)

    def skip(self, item: Item) -> None:
        """Skip a change from the active copy, because its collection has been dropped since."""
        self._advance(item)
        if self._listener is not None:
            self._listener.changed(self, item)

    def apply_prepare(self, item: Item) -> None:
        """Hold a synchronous write of the active copy until it is settled."""
        self._advance(item)
        self._hold(item)
        if self._listener is not None:
            self._listener.prepared(self, item)

    def promote(self) -> None:
        """Turn a replica into the active copy; prepared writes are committed."""
        self.state = "active"
        self.branch()
        for key in list(self.pending):
            self.commit(key)

    # ---- the pager -------------------------------------------------------------------------------

    def expire_due(self) -> int:
        """Delete every expired document (on active copies only); return their number."""
        if not self.may_expire or self.state != "active":
            return 0
        now = int(self._seconds())
        due = [item for item in self.items.values() if item.expiry and item.expiry < now]
        for item in due:
            self._expire(item)
        return len(due)

    # ---- inside ----------------------------------------------------------------------------------

    def _require(self, key: bytes, missing: Status) -> Item:
        if self.pending and key in self.pending:
            raise StatusError(Status.SYNC_WRITE_IN_PROGRESS)
        item = self.get(key)
        if item is None:
            raise StatusError(missing)
        return item

    def _count(
        self, key: bytes, change: Callable[[int], int], initial: int, expiry: int, durable: bool
    ) -> tuple[Item, int]:
        if self.pending and key in self.pending:
            raise StatusError(Status.SYNC_WRITE_IN_PROGRESS)
        old = self.get(key)
        if old is not None:
            self.check_cas(old, 0)
            number = change(parse_counter(old.value))
            return self._publish(key, b"%d" % number, old.flags, old.expiry, old, durable), number
        if expiry == COUNTER_NO_CREATE:
            raise StatusError(Status.KEY_ENOENT)
        until = self.stored_expiry(key, expiry)
        return self._publish(key, b"%d" % initial, 0, until, None, durable), initial

    def check_cas(self, old: Item, cas: int) -> None:
        """Refuse a change of ``old`` by a request with that CAS (0 for any): LOCKED, KEY_EEXISTS."""
        if old.lock_until and self.is_locked(old):
            if cas != old.cas:
                raise StatusError(Status.LOCKED)
        elif cas and cas != old.cas:
            raise StatusError(Status.KEY_EEXISTS)

    def _next_cas(self) -> int:
        # A hybrid logical clock: the wall time if it has advanced, else the last value plus one.
        now = int(self._seconds() * 1e9) & ~_CAS_COUNTER_MASK
        cas = self.max_cas = now if now > self.max_cas else self.max_cas + 1
        return cas

    def _publish(
        self, key: bytes, value: bytes, flags: int, expiry: int, old: Item | None, durable: bool
    ) -> Item:
        ledger = self._ledger
        if old is not None:
            growth = len(value) - len(old.value)
            if old.xattrs and len(value) + section_bytes(old.xattrs)[0] > MAX_VALUE_BYTES:
                raise StatusError(Status.E2BIG)
            ledger.admit(growth)
            revid = old.revid + 1
        else:
            growth = len(key) + len(value) + ITEM_OVERHEAD_BYTES
            ledger.admit(growth)
            revid = self._first_revid(key) if self.tombstones or self.lasting else 1 + self.max_deleted_revid
        seqno = self.high_seqno = self.high_seqno + 1
        item = Item(key, value, flags, expiry, self._next_cas(), seqno, revid)
        if old is not None and old.xattrs:
            item = item.with_xattrs(old.xattrs)
        if durable:
            return self.publish(item, True)
        if old is not None or not (self.tombstones or self.lasting or key in self.items):
            # The common cases of _install, without its look-ups.
            self.items[key] = item
            if old is None and key[0]:
                self._tally(key, 1)
            ledger.memory_bytes += growth
            if expiry:
                self.may_expire = True
        else:
            self._install(item)
        if self._keeps_changes:
            self._queue(item)
        if self._listener is not None:
            self._listener.changed(self, item)
        return item

    def _bury(self, old: Item, durable: bool) -> Item:
        self.high_seqno += 1
        xattrs = system_only(old.xattrs) if old.xattrs else b""
        cas, now = self._next_cas(), int(self._seconds())
        return self.publish(tombstone_of(old, cas, self.high_seqno, now, xattrs), durable)

    def _first_revid(self, key: bytes) -> int:
        tombstone = self.tombstone(key)
        return 1 + (tombstone.revid if tombstone is not None else self.max_deleted_revid)

    def _expire(self, item: Item) -> None:
        # A pending synchronous write of this key is settled separately.
        if item.key not in self.pending:
            self._bury(item, False)

    def _relabel(self, old: Item, cas: int, lock_until: int) -> Item:
        item = Item(
            old.key, old.value, old.flags, old.expiry, cas, old.seqno, old.revid, lock_until=lock_until
        )
        item.known_datatype = old.known_datatype
        if old.xattrs:
            item = item.with_xattrs(old.xattrs)
        self.items[old.key] = item
        return item
