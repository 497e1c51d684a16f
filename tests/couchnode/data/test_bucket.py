"""A bucket on one node: writing behind, warm-up, flush, topology, timers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import Status
from couchnode.data.bucket import NodeBucket
from couchnode.data.flusher import PERSISTENCE_WAIT_SECONDS, RETRY_SECONDS, WRITE_DELAY_SECONDS
from couchnode.data.item import StatusError
from couchnode.data.pager import TOMBSTONE_SECONDS
from couchnode.data.randomitem import random_item
from couchnode.data.stats import bucket_stats
from couchnode.data.storage import MemoryStore, StoreClosedError, StoreError
from couchnode.data.storemode import StoreMode
from couchnode.data.vbucket import VBucket
from tests.couchnode.nodes import UUID
from tests.couchnode.stores import ManualStore

NOW = 1_800_000_000


class BucketCase(SynchronousTestCase):
    """Tests with a bucket of four vbuckets, a clock and a store that they hold in their hands."""

    def setUp(self) -> None:
        """Start a bucket."""
        self.clock = Clock()
        self.clock.advance(NOW)
        self.store = ManualStore()
        self.bucket = self.start()

    def start(self, **options: Any) -> NodeBucket:
        """Start a bucket over the store."""
        bucket = NodeBucket(
            "b", UUID, vbucket_count=4, quota_bytes=2**20, store=self.store, clock=self.clock, **options
        )
        self.successResultOf(bucket.start())
        return bucket

    def vb(self, vbid: int = 0) -> VBucket:
        """Return an existing vbucket."""
        vbucket = self.bucket.vbuckets[vbid]
        assert vbucket is not None
        return vbucket

    def set(self, key: bytes, value: bytes = b"v", vbid: int = 0, **options: Any) -> Any:
        """Store a document."""
        return self.vb(vbid).store(StoreMode.SET, key, value, **options)

    def tick(self) -> None:
        """Let what waits be written."""
        self.clock.advance(WRITE_DELAY_SECONDS)


class WritingBehind(BucketCase):
    """Changes are acknowledged first and written later, together."""

    def test_changes_of_a_while_share_a_batch(self) -> None:
        """Several changes make one batch with the latest version of each key, and its records."""
        for n in range(5):
            self.set(b"\0a", b"%d" % n)
        self.set(b"\0b", vbid=3)
        self.assertEqual(self.store.batches, [])
        self.tick()
        self.assertEqual(len(self.store.batches), 1)
        self.assertEqual(self.store.values(), {b"a": b"4", b"b": b"v"})
        self.assertEqual(self.store.records[0].high_seqno, 5)

    def test_persisted_only_after_the_commit(self) -> None:
        """A version counts as persisted once its batch is on the disk, and a newer one does not."""
        self.store.is_slow = True
        item = self.set(b"\0a")
        self.tick()
        self.assertFalse(self.vb().is_persisted(item))
        newer = self.set(b"\0a", b"newer")
        self.store.finish()
        self.assertTrue(self.vb().is_persisted(item))
        self.assertFalse(self.vb().is_persisted(newer))
        self.tick()
        self.store.finish()
        self.assertTrue(self.vb().is_persisted(newer))

    def test_one_batch_at_a_time(self) -> None:
        """During a batch changes are collected for the next one."""
        self.store.is_slow = True
        self.set(b"\0a")
        self.tick()
        self.set(b"\0b")
        self.clock.advance(60)
        self.assertEqual(len(self.store.batches), 1)
        self.store.finish()
        self.tick()
        self.assertEqual(len(self.store.batches), 2)

    def test_a_failed_batch_is_tried_again_with_what_came_since(self) -> None:
        """Nothing is lost by a full disk; newer versions win; the state is visible and passes."""
        self.store.is_slow = True
        self.set(b"\0a", b"1")
        old = self.set(b"\0b", b"1")
        self.tick()
        self.set(b"\0b", b"2")
        self.store.refuse()
        self.assertFalse(self.vb().is_persisted(old))
        self.assertEqual(self.bucket.flusher.write_error, "the disk is full")
        self.clock.advance(RETRY_SECONDS / 2)
        self.assertEqual(len(self.store.batches), 1)
        self.clock.advance(RETRY_SECONDS / 2)
        self.store.finish()
        self.assertEqual(self.store.values(), {b"a": b"1", b"b": b"2"})
        self.assertIsNone(self.bucket.flusher.write_error)

    def test_a_disk_that_stays_full_stops_writers(self) -> None:
        """If too many changes wait, writers get a temporary failure, and later succeed."""
        self.store.is_slow = True
        self.bucket.ledger.max_queued_items = 3
        for key in (b"a", b"b", b"c"):
            self.set(key)
        self.assertEqual(self.assertRaises(StatusError, self.set, b"d").status, Status.ETMPFAIL)
        self.tick()
        self.store.refuse()
        self.assertEqual(self.assertRaises(StatusError, self.set, b"d").status, Status.ETMPFAIL)
        self.clock.advance(RETRY_SECONDS)
        self.store.finish()
        self.set(b"\0d")

    def test_deletions_and_expiries_leave_the_disk(self) -> None:
        """A deleted document and one that the pager found are gone from the store."""
        self.set(b"\0deleted")
        self.set(b"\0expiring", expiry=10)
        self.tick()
        self.vb().delete(b"\0deleted")
        self.clock.advance(601)
        self.tick()
        self.assertEqual(self.store.values(), {})
        self.assertEqual(self.bucket.item_count, 0)

    def test_tombstones_end(self) -> None:
        """The pager forgets deletions after some days."""
        self.set(b"\0a")
        self.vb().delete(b"\0a")
        self.tick()
        self.clock.pump([600] * 3)
        self.assertEqual(len(self.vb().tombstones), 1)
        self.clock.pump([TOMBSTONE_SECONDS, 601])
        self.assertEqual(len(self.vb().tombstones), 0)
        self.assertEqual(self.bucket.memory_bytes, 0)

    def test_an_ephemeral_bucket_never_persists(self) -> None:
        """Nothing waits for a disk that does not exist."""
        bucket = NodeBucket(
            "e", UUID, vbucket_count=1, quota_bytes=2**20, store=MemoryStore(), clock=self.clock
        )
        self.successResultOf(bucket.start())
        vbucket = bucket.vbuckets[0]
        assert vbucket is not None
        item = vbucket.store(StoreMode.SET, b"\0k", b"v")
        self.clock.advance(60)
        self.assertFalse(vbucket.is_persisted(item))
        self.assertEqual((vbucket.dirty, bucket.ledger.queued_bytes), ({}, 0))
        self.assertEqual(
            self.assertRaises(StatusError, bucket.flusher.wait, vbucket, 1).status, Status.NOT_SUPPORTED
        )


class WaitingForTheDisk(BucketCase):
    """SEQNO_PERSISTENCE."""

    def test_fires_after_the_commit(self) -> None:
        """It hurries the write on, and fires when the number is on the disk."""
        self.store.is_slow = True
        item = self.set(b"\0a")
        waiting = self.bucket.flusher.wait(self.vb(), item.seqno)
        self.clock.advance(0)
        self.assertNoResult(waiting)
        self.store.finish()
        self.successResultOf(waiting)
        self.successResultOf(self.bucket.flusher.wait(self.vb(), item.seqno))

    def test_gives_up(self) -> None:
        """A number that does not come is a temporary failure after a while."""
        waiting = self.bucket.flusher.wait(self.vb(), 99)
        self.clock.advance(PERSISTENCE_WAIT_SECONDS)
        self.assertEqual(self.failureResultOf(waiting, StatusError).value.status, Status.ETMPFAIL)


class Restarting(BucketCase):
    """Close and warm-up."""

    def test_close_writes_everything_first(self) -> None:
        """Acknowledged writes are on the disk when close() fires, and a new start reads them."""
        self.store.is_slow = True
        self.set(b"\0a", b"1", flags=3)
        self.tick()
        self.set(b"\0b", b"2")
        closing = self.bucket.close()
        self.assertNoResult(closing)
        self.store.finish()
        self.assertNoResult(closing)
        self.store.finish()
        self.successResultOf(closing)
        self.assertEqual(self.store.ended, "closed")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        uuid, self.bucket = self.vb().uuid, self.start()
        found = self.vb().get(b"\0a")
        assert found is not None
        self.assertEqual((found.value, found.flags, self.vb().uuid), (b"1", 3, uuid))
        self.assertEqual((self.vb().high_seqno, self.vb().persisted_seqno), (2, 2))
        self.assertEqual(self.bucket.warmup.progress, (2, 2))

    def test_close_that_cannot_write_says_so(self) -> None:
        """If the last changes cannot be written the store is not marked clean, and close() fails."""
        self.store.is_slow = True
        self.set(b"\0a")
        closing = self.bucket.close()
        self.store.refuse()
        failure = self.failureResultOf(closing, StoreError)
        self.assertIn("the disk is full", str(failure.value))
        self.assertEqual(self.store.ended, "abandoned")

    def test_after_a_crash_history_branches(self) -> None:
        """A store that was not closed gives every vbucket with a past a new uuid, and keeps it."""
        self.set(b"\0a")
        self.tick()
        uuid = self.vb().uuid
        self.store.clean = False
        self.bucket = self.start()
        self.assertNotEqual(self.vb().uuid, uuid)
        self.assertEqual(self.vb().failover_log[0][1], 1)
        self.assertEqual(self.vb().failover_log[1], (uuid, 0))
        self.tick()
        self.assertEqual(self.store.records[0].failover_log[0][0], self.vb().uuid)

    def test_close_during_warmup_keeps_the_mark(self) -> None:
        """A bucket closed before it was ready has changed nothing, and says so in its store."""
        for clean, end in ((True, "closed"), (False, "abandoned")):
            store = self.store = ManualStore()
            store.clean = clean
            loading: Deferred[None] = Deferred()
            store.load = lambda consume, loading=loading: loading  # type: ignore[method-assign,misc]
            bucket = NodeBucket("b", UUID, vbucket_count=4, quota_bytes=2**20, store=store, clock=self.clock)
            starting = bucket.start()
            self.assertEqual(bucket.state, "warmup")
            self.successResultOf(bucket.close())
            loading.callback(None)
            self.failureResultOf(starting, StoreClosedError)
            self.assertEqual((bucket.state, store.ended), ("closed", end))


class Flushing(BucketCase):
    """Deleting everything."""

    def test_has_to_be_enabled(self) -> None:
        """It is refused by default."""
        self.assertEqual(self.assertRaises(StatusError, self.bucket.flush_all).status, Status.NOT_SUPPORTED)

    def test_empties_memory_and_disk(self) -> None:
        """Afterwards there are no documents, vbuckets have new uuids and start at 0, and CAS continues."""
        self.bucket.flush_enabled = True
        last = self.set(b"\0a")
        self.tick()
        self.set(b"\0b", vbid=2)
        uuid = self.vb().uuid
        self.successResultOf(self.bucket.flush_all())
        self.assertEqual(self.store.values(), {})
        self.assertEqual(
            (self.bucket.item_count, self.bucket.memory_bytes, self.bucket.ledger.queued_bytes), (0, 0, 0)
        )
        self.assertNotEqual(self.vb().uuid, uuid)
        again = self.set(b"\0a")
        self.assertEqual(again.seqno, 1)
        self.assertGreater(again.cas, last.cas)

    def test_a_disk_that_refuses(self) -> None:
        """The flush reports it; the documents are removed nevertheless, on the disk a little later."""
        self.bucket.flush_enabled = True
        self.set(b"\0a")
        self.tick()
        self.store.is_slow = True
        flushing = self.bucket.flush_all()
        self.store.refuse()
        self.failureResultOf(flushing, StoreError)
        self.assertEqual(self.store.values(), {b"a": b"v"})
        self.clock.advance(RETRY_SECONDS)
        self.store.finish()
        self.assertEqual(self.store.values(), {})

    def test_a_batch_under_way_does_not_come_back(self) -> None:
        """A batch that is being written during the flush is wiped after it, and reports nothing."""
        self.bucket.flush_enabled = True
        self.store.is_slow = True
        self.set(b"\0a")
        self.tick()
        flushing = self.bucket.flush_all()
        self.store.finish()
        self.assertNoResult(flushing)
        self.assertEqual(self.vb().persisted_seqno, 0)
        self.store.finish()
        self.successResultOf(flushing)
        self.assertEqual(self.store.values(), {})


class Topology(BucketCase):
    """The role of a node for each vbucket."""

    def test_dead_vbuckets_lose_their_documents(self) -> None:
        """A vbucket that leaves takes its rows along; one that comes back is new."""
        self.set(b"\0a", vbid=1)
        self.set(b"\0b", vbid=2)
        self.tick()
        uuid = self.vb(1).uuid
        self.bucket.set_topology(["active", "dead", "active", "replica"])
        self.assertIsNone(self.bucket.vbuckets[1])
        self.tick()
        self.assertEqual(self.store.values(), {b"b": b"v"})
        self.bucket.set_topology(["active"] * 4)
        self.assertNotEqual(self.vb(1).uuid, uuid)
        self.assertIsNone(self.vb(1).get(b"\0a"))

    def test_documents_of_foreign_vbuckets_are_not_loaded(self) -> None:
        """Documents in the store of a vbucket that has moved to another node are removed at the start."""
        self.set(b"\0a", vbid=1)
        self.tick()
        bucket = NodeBucket("b", UUID, vbucket_count=4, quota_bytes=2**20, store=self.store, clock=self.clock)
        bucket.set_topology(["active", "dead", "active", "active"])
        self.successResultOf(bucket.start())
        self.tick()
        self.assertEqual((self.store.values(), bucket.memory_bytes), ({}, 0))

    def test_promotion_keeps_documents_and_branches_history(self) -> None:
        """A replica that becomes active continues from its state, in a new branch."""
        self.bucket.set_topology(["replica"] * 4)
        item = self.start_item()
        self.vb().apply(item)
        uuid = self.vb().uuid
        self.bucket.set_topology(["active"] * 4)
        self.assertEqual(self.vb().state, "active")
        self.assertEqual(self.vb().failover_log[0][1], item.seqno)
        self.assertEqual(self.vb().failover_log[1][0], uuid)
        newer = self.set(b"\0a", cas=item.cas)
        self.assertEqual(newer.seqno, item.seqno + 1)

    def test_wrong_number_of_states(self) -> None:
        """One state a vbucket, or nothing changes."""
        self.assertRaises(ValueError, self.bucket.set_topology, ["active"])

    def start_item(self) -> Any:
        """Return a document as another node's active copy would send it."""
        other = VBucket(0, self.bucket.ledger, self.clock.seconds)
        for _ in range(5):
            item = other.store(StoreMode.SET, b"\0a", b"theirs")
        return item.copy()


class Numbers(BucketCase):
    """Statistics and the random key."""

    def test_groups(self) -> None:
        """Each group has its numbers; an unknown one is None; a vbucket can be asked for alone."""
        self.set(b"\0a")
        stats = dict(bucket_stats(self.bucket) or ())
        self.assertEqual(
            (stats["curr_items"], stats["ep_queue_size"], stats["vb_active_num"]), ("1", "1", "4")
        )
        self.assertEqual(dict(bucket_stats(self.bucket, b"warmup") or ())["ep_warmup_state"], "done")
        self.assertEqual(bucket_stats(self.bucket, b"vbucket 2"), [("vb_2", "active")])
        self.assertEqual(dict(bucket_stats(self.bucket, b"vbucket-details 0") or ())["vb_0:high_seqno"], "1")
        self.assertEqual(len(bucket_stats(self.bucket, b"vbucket") or ()), 4)
        self.assertEqual(
            dict(bucket_stats(self.bucket, b"memory") or ())["mem_used"], str(self.bucket.memory_bytes)
        )
        for unknown in (b"nonsense", b"vbucket 4", b"vbucket x", b"vbucket 99999999999", b"items 1"):
            self.assertIsNone(bucket_stats(self.bucket, unknown), unknown)

    def test_random_key(self) -> None:
        """Some live document of an active vbucket; none in an empty bucket."""
        self.assertIsNone(random_item(self.bucket))
        self.set(b"\0gone", vbid=1, expiry=1)
        self.clock.advance(5)
        self.assertIsNone(random_item(self.bucket))
        keys = {b"\0%d" % n for n in range(8)}
        for n in range(8):
            self.set(b"\0%d" % n, vbid=n % 4)
        found = {item.key for item in (random_item(self.bucket) for _ in range(200)) if item is not None}
        self.assertLessEqual(found, keys)
        self.assertGreater(len(found), 1)
