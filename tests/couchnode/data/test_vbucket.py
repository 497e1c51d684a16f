"""Operations on a document, and their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import COUNTER_NO_CREATE, LOCKED_CAS, MAX_VALUE_BYTES, Datatype, Status
from couchnode.data.item import ITEM_OVERHEAD_BYTES, Item, Ledger, StatusError, absolute_expiry, is_json
from couchnode.data.storemode import StoreMode
from couchnode.data.vbucket import VBucket
from tests import tries

NOW = 1_800_000_000
SET, ADD, REPLACE = StoreMode.SET, StoreMode.ADD, StoreMode.REPLACE


class VBucketCase(SynchronousTestCase):
    """Tests with one active vbucket and a clock that they turn."""

    def setUp(self) -> None:
        """Make a vbucket that keeps its changes for a store."""
        self.clock = Clock()
        self.clock.advance(NOW)
        self.ledger = Ledger(2**20)
        self.vb = VBucket(0, self.ledger, self.clock.seconds, keeps_changes=True)

    def assertRefused(self, status: Status, action: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Assert that it is refused with that status, and that nothing changed."""
        before = (self.vb.high_seqno, dict(self.vb.items), self.ledger.memory_bytes)
        refusal = self.assertRaises(StatusError, action, *args, **options)
        self.assertEqual(refusal.status, status)
        self.assertEqual((self.vb.high_seqno, self.vb.items, self.ledger.memory_bytes), before)

    def value(self, key: bytes = b"k") -> bytes | None:
        """Return what a reader gets."""
        item = self.vb.get(key)
        return None if item is None else item.value


class MaxTtl(VBucketCase):
    """A bucket with a longest life of its documents."""

    def test_every_expiry_is_capped(self) -> None:
        """No expiry, and one that is too late, become the bucket's maximum, also in a touch or a new
        counter; an earlier one, or one that is preserved, is kept."""
        self.vb.store(SET, b"old", b"v")
        self.ledger.max_ttl = 60
        for expiry, stored in ((0, 60), (59, 59), (61, 60), (NOW + 59, 59), (NOW + 3600, 60), (NOW - 5, -1)):
            item = self.vb.store(SET, b"k%d" % expiry, b"v", expiry=expiry)
            self.assertEqual(item.expiry, NOW + stored, expiry)
        self.assertEqual(self.vb.touch(b"k59", 0).expiry, NOW + 60)
        self.assertEqual(self.vb.increment(b"n", 1, 5, 0)[0].expiry, NOW + 60)
        self.assertEqual(self.vb.store(SET, b"old", b"w", preserve_expiry=True).expiry, 0)
        self.assertEqual(self.vb.store(SET, b"new", b"w", preserve_expiry=True).expiry, NOW + 60)
        self.clock.advance(62)
        self.assertIsNone(self.value(b"k0"))
        self.assertIsNotNone(self.value(b"old"))


class Stores(VBucketCase):
    """SET, ADD and REPLACE, by the existing document and the given CAS."""

    def test_missing_document(self) -> None:
        """SET and ADD create; REPLACE, and any store with a CAS, find nothing."""
        self.assertRefused(Status.KEY_ENOENT, self.vb.store, REPLACE, b"k", b"v")
        self.assertRefused(Status.KEY_ENOENT, self.vb.store, SET, b"k", b"v", cas=5)
        self.assertRefused(Status.KEY_ENOENT, self.vb.store, REPLACE, b"k", b"v", cas=5)
        self.vb.store(ADD, b"k", b"added")
        self.assertEqual(self.value(), b"added")

    def test_existing_document(self) -> None:
        """ADD finds it there; a store with its CAS replaces it; another CAS does not."""
        old = self.vb.store(SET, b"k", b"1", flags=7)
        self.assertRefused(Status.KEY_EEXISTS, self.vb.store, ADD, b"k", b"2")
        self.assertRefused(Status.KEY_EEXISTS, self.vb.store, SET, b"k", b"2", cas=old.cas + 1)
        self.assertRefused(Status.KEY_EEXISTS, self.vb.store, REPLACE, b"k", b"2", cas=old.cas + 1)
        new = self.vb.store(REPLACE, b"k", b"2", cas=old.cas)
        self.assertEqual((self.value(), new.revid, new.seqno, new.flags), (b"2", 2, 2, 0))

    def test_value_limit(self) -> None:
        """20 MiB fit; one byte more is too big, for stores and for what append makes."""
        self.ledger.quota_bytes = 2**30
        full = bytes(MAX_VALUE_BYTES)
        self.vb.store(SET, b"k", full)
        self.assertRefused(Status.E2BIG, self.vb.store, SET, b"k", full + b"x")
        self.assertRefused(Status.E2BIG, self.vb.concat, b"k", b"x", before=False)

    def test_memory_quota(self) -> None:
        """Growth over the quota is refused; shrinking and deleting are not."""
        self.ledger.quota_bytes = 2 * ITEM_OVERHEAD_BYTES + 100
        self.vb.store(SET, b"a", bytes(50))
        self.assertRefused(Status.ENOMEM, self.vb.store, SET, b"b", bytes(200))
        self.assertRefused(Status.ENOMEM, self.vb.concat, b"a", bytes(500), before=True)
        self.vb.store(SET, b"a", bytes(10))
        self.vb.delete(b"a")
        self.assertIsNone(self.value(b"a"))

    def test_disk_that_does_not_keep_up(self) -> None:
        """Once too many changes wait for the disk, further ones are refused for a while."""
        self.ledger.max_queued_items = 2
        self.vb.store(SET, b"a", b"")
        self.vb.store(SET, b"a", b"again")
        self.vb.store(SET, b"b", b"")
        self.assertRefused(Status.ETMPFAIL, self.vb.store, SET, b"c", b"")
        self.assertRefused(Status.ETMPFAIL, self.vb.delete, b"a")
        self.vb.take_changes()
        self.vb.store(SET, b"c", b"")


class CasRules(VBucketCase):
    """CAS is a clock reading that only grows."""

    def test_grows_within_a_tick_and_when_the_clock_goes_back(self) -> None:
        """Equal and falling clock readings still give growing CAS values, all different."""
        seen = [self.vb.store(SET, b"k", b"%d" % n).cas for n in range(5)]
        self.clock.rightNow -= 3600
        seen += [self.vb.store(SET, b"k", b"%d" % n).cas for n in range(5)]
        self.assertEqual(seen, sorted(set(seen)))

    def test_is_nanoseconds_with_a_counter(self) -> None:
        """The first CAS of a tick is the time in nanoseconds, its low 16 bits zero."""
        cas = self.vb.store(SET, b"k", b"").cas
        self.assertEqual(cas & 0xFFFF, 0)
        self.assertEqual(cas // 10**9, NOW)
        self.assertEqual(self.vb.store(SET, b"k", b"").cas, cas + 1)

    def test_grows_over_a_restart(self) -> None:
        """A vbucket restored from its record continues above the CAS it ended with."""
        last = self.vb.store(SET, b"k", b"").cas
        again = VBucket(0, self.ledger, lambda: 5.0)
        again.restore(self.vb.record())
        self.assertGreater(again.store(SET, b"k", b"").cas, last)


class Deletes(VBucketCase):
    """Deletion and what remains."""

    def test_rules(self) -> None:
        """Missing, other CAS, right CAS."""
        self.assertRefused(Status.KEY_ENOENT, self.vb.delete, b"k")
        item = self.vb.store(SET, b"k", b"v")
        self.assertRefused(Status.KEY_EEXISTS, self.vb.delete, b"k", item.cas + 1)
        tombstone = self.vb.delete(b"k", item.cas)
        self.assertGreater(tombstone.cas, item.cas)
        self.assertIsNone(self.vb.get(b"k"))
        self.assertIs(self.vb.find(b"k"), tombstone)
        self.assertEqual((tombstone.deleted, tombstone.seqno, tombstone.revid), (True, 2, 2))

    def test_revision_goes_on_after_a_deletion(self) -> None:
        """A document created over a tombstone continues its revisions, also when that is purged."""
        self.vb.store(SET, b"k", b"v")
        self.vb.delete(b"k")
        self.assertEqual(self.vb.store(SET, b"k", b"v").revid, 3)
        self.vb.delete(b"k")
        self.vb.persisted_seqno = self.vb.high_seqno
        self.clock.advance(10)
        self.vb.purge_tombstones(NOW + 5)
        self.assertEqual(self.vb.tombstones, {})
        self.assertEqual(self.vb.store(SET, b"k", b"v").revid, 5)

    def test_tombstones_are_bounded_once_persisted(self) -> None:
        """More tombstones than allowed push out the oldest, but none that is not on the disk."""
        self.vb.max_tombstones = 3
        for n in range(5):
            self.vb.store(SET, b"%d" % n, b"")
            self.vb.delete(b"%d" % n)
        self.assertEqual(len(self.vb.tombstones), 5)
        self.vb.persisted_seqno = self.vb.high_seqno
        for n in range(5, 9):
            self.vb.store(SET, b"%d" % n, b"")
            self.vb.delete(b"%d" % n)
        self.assertEqual(len(self.vb.tombstones), 5)
        self.assertNotIn(b"0", self.vb.tombstones)


class Concatenation(VBucketCase):
    """Append and prepend."""

    def test_rules(self) -> None:
        """They keep flags and expiry, need a document, and mind the CAS."""
        self.assertRefused(Status.NOT_STORED, self.vb.concat, b"k", b"x", before=False)
        old = self.vb.store(SET, b"k", b"b", flags=9, expiry=100)
        self.assertRefused(Status.KEY_EEXISTS, self.vb.concat, b"k", b"x", old.cas + 1, before=True)
        self.vb.concat(b"k", b"c", before=False)
        new = self.vb.concat(b"k", b"a", before=True)
        self.assertEqual((new.value, new.flags, new.expiry), (b"abc", 9, NOW + 100))

    def test_json_bit_is_that_of_the_result(self) -> None:
        """`[1` and `]` together are JSON, although neither is."""
        self.assertEqual(self.vb.store(SET, b"k", b"[1").datatype, Datatype.RAW)
        self.assertEqual(self.vb.concat(b"k", b"]", before=False).datatype, Datatype.JSON)


class Counters(VBucketCase):
    """Increment and decrement."""

    def test_creation(self) -> None:
        """A missing counter begins with initial, without the delta; or is not created."""
        self.assertRefused(Status.KEY_ENOENT, self.vb.increment, b"k", 5, 1, COUNTER_NO_CREATE)
        item, number = self.vb.increment(b"k", 5, 10, 60)
        self.assertEqual((number, item.value, item.flags, item.expiry), (10, b"10", 0, NOW + 60))

    def test_arithmetic(self) -> None:
        """Adding wraps at 64 bits, subtracting stops at 0, flags and expiry are kept."""
        self.vb.store(SET, b"k", b"18446744073709551615", flags=3, expiry=60)
        item, number = self.vb.increment(b"k", 3, 0, 0)
        self.assertEqual((number, item.flags, item.expiry), (2, 3, NOW + 60))
        self.assertEqual(self.vb.decrement(b"k", 9)[1], 0)
        self.assertEqual(self.vb.increment(b"k", 0)[1], 0)
        self.assertEqual(self.vb.decrement(b"k", 0)[1], 0)
        self.assertEqual(self.vb.increment(b"k", 2**64 - 1)[1], 2**64 - 1)

    def test_what_counts_as_a_number(self) -> None:
        """White space and one plus may come first, anything after white space; nothing else may."""
        for text, number in ((b" \t+5", 6), (b"5\nrest", 6), (b"007 ", 8), (b"0", 1), (b"00", 1)):
            self.vb.store(SET, b"k", text)
            self.assertEqual(self.vb.increment(b"k", 1)[1], number, text)
        for text in (b"", b"-1", b"1.5", b"5x", b"++5", b"+ 5", b'"5"', b"18446744073709551616", b" ",
                     b"0" * 2000, "٣".encode()):  # fmt: skip
            self.vb.store(SET, b"k", text)
            self.assertRefused(Status.DELTA_BADVAL, self.vb.increment, b"k", 1)


class Expiry(VBucketCase):
    """When documents end."""

    def test_forms(self) -> None:
        """0 is never, up to 30 days counts from now, above is a Unix time; the past is at once."""
        month = 30 * 24 * 3600
        self.assertEqual(absolute_expiry(0, NOW), 0)
        self.assertEqual(absolute_expiry(1, NOW), NOW + 1)
        self.assertEqual(absolute_expiry(month, NOW), NOW + month)
        self.assertEqual(absolute_expiry(NOW + 5, NOW), NOW + 5)
        for past in (month + 1, NOW - 1, NOW):
            self.assertLess(absolute_expiry(past, NOW), NOW)

    def test_lives_through_the_second_of_its_expiry(self) -> None:
        """Gone when the expiry is before now, not when it is now; the end is a deletion."""
        self.vb.store(SET, b"k", b"v", expiry=10)
        self.clock.advance(10.9)
        self.assertEqual(self.value(), b"v")
        self.clock.advance(0.1)
        self.assertIsNone(self.value())
        self.assertEqual(self.vb.high_seqno, 2)
        self.assertIn(b"k", self.vb.tombstones)
        self.vb.store(ADD, b"k", b"again")

    def test_a_time_in_the_past_ends_it_at_once(self) -> None:
        """A store with an absolute time that has come is never read."""
        self.vb.store(SET, b"k", b"v", expiry=NOW)
        self.assertIsNone(self.value())

    def test_stores_replace_the_expiry_unless_told(self) -> None:
        """SET without an expiry removes it; preserving keeps it, and a new document takes the given."""
        self.vb.store(SET, b"k", b"v", expiry=10)
        self.assertEqual(self.vb.store(SET, b"k", b"v", expiry=99, preserve_expiry=True).expiry, NOW + 10)
        self.assertEqual(self.vb.store(SET, b"k", b"v").expiry, 0)
        self.assertEqual(self.vb.store(SET, b"new", b"v", expiry=99, preserve_expiry=True).expiry, NOW + 99)

    def test_touch_changes_only_what_differs(self) -> None:
        """A new expiry is a change with a new CAS; the same one is none; 0 clears it."""
        self.assertRefused(Status.KEY_ENOENT, self.vb.touch, b"k", 5)
        old = self.vb.store(SET, b"k", b"v", flags=4, expiry=10)
        self.assertIs(self.vb.touch(b"k", 10), old)
        new = self.vb.touch(b"k", 20)
        self.assertEqual((new.expiry, new.seqno, new.flags, new.value), (NOW + 20, 2, 4, b"v"))
        self.assertGreater(new.cas, old.cas)
        self.assertEqual(self.vb.touch(b"k", 0).expiry, 0)

    def test_pager(self) -> None:
        """The pager deletes expired documents that no client reads."""
        self.vb.store(SET, b"a", b"", expiry=1)
        self.vb.store(SET, b"b", b"", expiry=100)
        self.vb.store(SET, b"c", b"")
        self.clock.advance(5)
        self.assertEqual(self.vb.expire_due(), 1)
        self.assertEqual(sorted(self.vb.items), [b"b", b"c"])

    def test_a_replica_hides_but_does_not_delete(self) -> None:
        """Only the active copy decides the end; a replica just does not show what is over."""
        copy = VBucket(0, self.ledger, self.clock.seconds, state="replica")
        copy.apply(self.vb.store(SET, b"k", b"v", expiry=1).copy())
        self.clock.advance(5)
        self.assertIsNone(copy.get(b"k"))
        self.assertEqual((copy.high_seqno, list(copy.items), copy.expire_due()), (1, [b"k"], 0))


class Locks(VBucketCase):
    """Get-locked and unlock."""

    def setUp(self) -> None:
        """Lock a document."""
        super().setUp()
        self.old = self.vb.store(SET, b"k", b"5", flags=1)
        self.locked = self.vb.lock(b"k", 10)

    def test_readers(self) -> None:
        """The value is still readable; the CAS is hidden, and the lock's is a new one."""
        self.assertEqual(self.value(), b"5")
        self.assertEqual(self.vb.visible_cas(self.locked), LOCKED_CAS)
        self.assertGreater(self.locked.cas, self.old.cas)

    def test_others_are_refused(self) -> None:
        """Everything that writes is refused without the lock's CAS, also with the old one."""
        for cas in (0, self.old.cas, LOCKED_CAS):
            self.assertRefused(Status.LOCKED, self.vb.store, SET, b"k", b"", cas=cas)
            self.assertRefused(Status.LOCKED, self.vb.store, REPLACE, b"k", b"", cas=cas)
            self.assertRefused(Status.LOCKED, self.vb.delete, b"k", cas)
            self.assertRefused(Status.LOCKED, self.vb.concat, b"k", b"", cas, before=True)
        self.assertRefused(Status.LOCKED, self.vb.increment, b"k", 1)
        self.assertRefused(Status.LOCKED, self.vb.touch, b"k", 1)
        self.assertRefused(Status.LOCKED, self.vb.lock, b"k")
        self.assertRefused(Status.LOCKED, self.vb.unlock, b"k", self.old.cas)
        self.assertRefused(Status.KEY_EEXISTS, self.vb.store, ADD, b"k", b"")

    def test_the_holder_stores_or_deletes(self) -> None:
        """A store or delete with the lock's CAS succeeds and releases the lock."""
        self.vb.store(SET, b"k", b"6", cas=self.locked.cas)
        self.vb.store(SET, b"k", b"7")
        again = self.vb.lock(b"k")
        self.vb.delete(b"k", again.cas)
        self.assertIsNone(self.value())

    def test_unlock(self) -> None:
        """After unlock the lock's CAS is the document's; a second unlock finds no lock."""
        self.vb.unlock(b"k", self.locked.cas)
        self.assertRefused(Status.NOT_LOCKED, self.vb.unlock, b"k", self.locked.cas)
        self.assertRefused(Status.KEY_ENOENT, self.vb.unlock, b"other", 1)
        self.vb.store(SET, b"k", b"6", cas=self.locked.cas)

    def test_lasts_through_its_last_second(self) -> None:
        """A lock of 10 s holds at 10.9 s and not at 11."""
        self.clock.advance(10.9)
        self.assertRefused(Status.LOCKED, self.vb.delete, b"k")
        self.clock.advance(0.1)
        self.assertRefused(Status.NOT_LOCKED, self.vb.unlock, b"k", self.locked.cas)
        self.vb.delete(b"k")

    def test_times_out_of_range_become_15(self) -> None:
        """0 and more than 30 seconds are 15; 30 is 30."""
        self.vb.unlock(b"k", self.locked.cas)
        for asked, got in ((0, 15), (31, 15), (2**32 - 1, 15), (30, 30), (1, 1)):
            item = self.vb.lock(b"k", asked)
            self.assertEqual(item.lock_until - NOW, got, asked)
            self.vb.unlock(b"k", item.cas)

    def test_is_neither_stored_nor_copied(self) -> None:
        """A lock makes no change to write, and a copy for a replica does not have it."""
        self.assertEqual((self.locked.seqno, self.vb.dirty[b"k"]), (1, self.old))
        self.assertEqual(self.locked.copy().lock_until, 0)


class SyncWrites(VBucketCase):
    """Writes that are prepared first."""

    def test_invisible_until_committed(self) -> None:
        """Readers see the old version and writers are refused until the commit."""
        old = self.vb.store(SET, b"k", b"1")
        new = self.vb.store(SET, b"k", b"2", durable=True)
        self.assertEqual((self.value(), new.seqno), (b"1", 2))
        for action in (
            lambda: self.vb.store(ADD, b"k", b""),
            lambda: self.vb.delete(b"k"),
            lambda: self.vb.increment(b"k", 1),
            lambda: self.vb.concat(b"k", b"", before=True),
            lambda: self.vb.touch(b"k", 1),
            lambda: self.vb.lock(b"k"),
            lambda: self.vb.store(SET, b"k", b"", cas=old.cas),
        ):
            self.assertRefused(Status.SYNC_WRITE_IN_PROGRESS, action)
        self.vb.commit(b"k")
        self.assertIs(self.vb.get(b"k"), new)
        self.vb.store(SET, b"k", b"3", cas=new.cas)

    def test_abort_leaves_the_old_version_to_be_written_again(self) -> None:
        """After an abort the store is given the old version, for the new one may be there."""
        old = self.vb.store(SET, b"k", b"1")
        self.vb.store(SET, b"k", b"2", durable=True)
        self.vb.store(SET, b"n", b"2", durable=True)
        self.vb.take_changes()
        memory = self.ledger.memory_bytes
        self.vb.abort(b"k")
        self.vb.abort(b"n")
        changes = self.vb.take_changes()
        self.assertIs(changes[b"k"], old)
        self.assertTrue(changes[b"n"].deleted)
        self.assertEqual((self.value(), self.value(b"n")), (b"1", None))
        self.assertEqual(memory - self.ledger.memory_bytes, 2 * (2 + ITEM_OVERHEAD_BYTES))


class JsonBit(SynchronousTestCase):
    """Which values are JSON."""

    def test_by_the_value_alone(self) -> None:
        """Bare scalars are JSON; broken and binary values are not."""
        for value in (b"{}", b' [1, "x"]\n', b"5", b"-1.5e3", b'"x"', b"null", b"true"):
            self.assertTrue(is_json(value), value)
        for value in (b"", b"{", b"nul", b"\x80\x81", b"{'a':1}", b"1 2", b"[" * 5000, b'"\xff"'):
            self.assertFalse(is_json(value), value)

    def test_long_values(self) -> None:
        """They are checked piece by piece, with the same result."""
        filling = b"[1,2]," * 50
        values = (
            b"[%b5]" % filling,
            b'[%b"x"]\n' % filling,
            b"[%b" % filling,
            b"[%b5]]" % filling,
            b"5" * 300,
        )
        values += (b"[%b\xff]" % filling, b"[%bNaN]" % filling, b'[%b"\\ud800"]' % filling, b"[" * 2000)
        for value in values:
            expected = is_json(value)
            with (
                mock.patch("couchnode.data.item.LONG_BYTES", 200),
                mock.patch("couchnode.data.item.parse_json", side_effect=AssertionError),
            ):
                self.assertEqual(is_json(value), expected, value[-20:])


class AgainstAModel(RuleBasedStateMachine):
    """Random histories against a dictionary: readable documents, charged memory, queued changes."""

    keys = st.sampled_from([b"a", b"b", b"c"])
    values = st.binary(max_size=8)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.clock.advance(NOW)
        self.ledger = Ledger(2**30)
        self.vb = VBucket(0, self.ledger, self.clock.seconds, keeps_changes=True, max_tombstones=2)
        self.copy = VBucket(0, Ledger(2**30), self.clock.seconds, state="replica", listener=None)
        self.vb._listener = self
        self.model: dict[bytes, tuple[bytes, int]] = {}
        self.disk: dict[bytes, bytes] = {}
        self.last_cas = 0

    # The vbucket reports its changes here, as to a bucket.

    def changed(self, vbucket: VBucket, item: Item) -> None:
        """Give the change to the replica, and see that CAS and sequence number grow."""
        assert item.cas > self.last_cas and item.seqno == self.copy.high_seqno + 1
        self.last_cas = item.cas
        self.copy.apply(item.copy())

    def prepared(self, vbucket: VBucket, item: Item) -> None:
        """Nothing here is prepared."""
        raise AssertionError

    settled: Any = prepared

    def _forget_expired(self) -> None:
        now = int(self.clock.seconds())
        self.model = {k: (v, e) for k, (v, e) in self.model.items() if not e or e >= now}

    @rule(key=keys, value=values, mode=st.sampled_from(StoreMode), expiry=st.sampled_from([0, 1, 5]))
    def store(self, key: bytes, value: bytes, mode: StoreMode, expiry: int) -> None:
        """A store succeeds exactly if its mode fits the existing document."""
        fits = mode == SET or (mode == ADD) == (key not in self.model)
        try:
            self.vb.store(mode, key, value, expiry=expiry)
        except StatusError:
            assert not fits
        else:
            assert fits
            self.model[key] = value, int(self.clock.seconds()) + expiry if expiry else 0

    @rule(key=keys)
    def delete(self, key: bytes) -> None:
        """A deletion succeeds exactly if there is something."""
        try:
            self.vb.delete(key)
        except StatusError:
            assert key not in self.model
        else:
            del self.model[key]

    @rule(key=keys, value=values)
    def append(self, key: bytes, value: bytes) -> None:
        """Append adds to an existing value."""
        try:
            self.vb.concat(key, value, before=False)
        except StatusError:
            assert key not in self.model
        else:
            old, expiry = self.model[key]
            self.model[key] = old + value, expiry

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.clock.advance(seconds)
        self._forget_expired()

    @rule()
    def page(self) -> None:
        """The pager runs."""
        self.vb.expire_due()
        self.vb.purge_tombstones(int(self.clock.seconds()) - 3)

    @precondition(lambda self: self.vb.dirty)
    @rule(works=st.booleans())
    def write(self, works: bool) -> None:
        """A batch is written, or comes back."""
        record, changes = self.vb.record(), self.vb.take_changes()
        if not works:
            self.vb.return_changes(changes)
            return
        for key, item in changes.items():
            self.disk.pop(key, None)
            if not item.deleted:
                self.disk[key] = item.value
        self.vb.persisted_seqno = record.high_seqno

    @invariant()
    def readers_see_the_model(self) -> None:
        """Both copies show exactly what the model holds."""
        for key in (b"a", b"b", b"c"):
            for copy in (self.copy, self.vb):
                item = copy.get(key)
                assert (None if item is None else item.value) == self.model.get(key, (None, 0))[0]

    @invariant()
    def accounts_are_exact(self) -> None:
        """Memory and queue are charged exactly, to the byte."""
        for vb in (self.vb, self.copy):
            held = [*vb.items.values(), *vb.tombstones.values(), *vb.pending.values()]
            assert vb._ledger.memory_bytes == sum(item.size for item in held)
        assert self.ledger.queued_items == len(self.vb.dirty)
        assert self.ledger.queued_bytes == sum(len(item.value) for item in self.vb.dirty.values())

    @invariant()
    def persisted_means_on_the_disk(self) -> None:
        """Documents reported as persisted are those that a restart would read."""
        for key, item in self.vb.items.items():
            if self.vb.is_persisted(item):
                assert self.disk.get(key) == item.value
        for key, item in self.vb.tombstones.items():
            if self.vb.is_persisted(item):
                assert key not in self.disk


class RandomHistories(SynchronousTestCase):
    """The model, run."""

    def test_against_a_model(self) -> None:
        """No history of stores, deletions, expiries and writes distinguishes the vbucket from the model."""
        limits = settings(max_examples=tries(40), stateful_step_count=30, deadline=None)
        run_state_machine_as_test(AgainstAModel, settings=limits)
