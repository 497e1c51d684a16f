"""Copies of a vbucket on other nodes, and writes that wait for them."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import DurabilityLevel, Status
from couchnode.data.bucket import NodeBucket
from couchnode.data.durability import Copies, satisfied
from couchnode.data.flusher import WRITE_DELAY_SECONDS
from couchnode.data.item import StatusError
from couchnode.data.storage import MemoryStore
from couchnode.data.storemode import StoreMode
from couchnode.data.vbucket import VBucket
from tests.couchnode.nodes import UUID
from tests.couchnode.stores import ManualStore

MAJORITY = DurabilityLevel.MAJORITY
ON_ACTIVE = DurabilityLevel.MAJORITY_AND_PERSIST_ON_MASTER
ON_MAJORITY = DurabilityLevel.PERSIST_TO_MAJORITY


class ClusterCase(SynchronousTestCase):
    """Three nodes with one vbucket: active on the first, replicas on the others."""

    replicas = 2

    def setUp(self) -> None:
        """Start and wire the nodes."""
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.stores = [ManualStore() for _ in range(self.replicas + 1)]
        self.buckets = [self.make(store) for store in self.stores]
        self.wire()
        for bucket in self.buckets:
            self.successResultOf(bucket.start())
        self.turn()

    def make(self, store: Any) -> NodeBucket:
        """Make one node's part of the bucket."""
        return NodeBucket(
            "b", UUID, vbucket_count=1, quota_bytes=2**24, store=store, clock=self.clock, flush_enabled=True,
            replica_count=self.replicas,
        )  # fmt: skip

    def wire(self) -> None:
        """Set the roles of the nodes."""
        for bucket, state in zip(self.buckets, ["active"] + ["replica"] * self.replicas, strict=True):
            bucket.set_topology([state])  # type: ignore[list-item]
        self.buckets[0].set_replicas(0, self.buckets[1:])

    def turn(self) -> None:
        """Let the reactor turn a few times without time passing."""
        for _ in range(4):
            self.clock.advance(0)

    def vb(self, node: int = 0) -> VBucket:
        """Return one node's copy."""
        vbucket = self.buckets[node].vbuckets[0]
        assert vbucket is not None
        return vbucket

    def set(self, key: bytes, value: bytes = b"v", **options: Any) -> Any:
        """Store a document on the active copy."""
        return self.vb().store(StoreMode.SET, key, value, **options)

    def assertLevel(self) -> None:
        """Assert that every replica is as the active copy is."""
        for node in range(1, len(self.buckets)):
            copy = self.vb(node)
            self.assertEqual(describe(copy), describe(self.vb()), node)
            self.assertEqual((copy.high_seqno, copy.uuid), (self.vb().high_seqno, self.vb().uuid))


def one_turn(clock: Clock) -> None:
    """Run what is due, but not the calls that it schedules; ``advance(0)`` would run those too."""
    for call in [call for call in clock.getDelayedCalls() if call.getTime() <= clock.seconds()]:
        run = partial(call.func, *call.args, **call.kw)  # type: ignore[attr-defined]
        call.cancel()
        run()


def describe(vbucket: VBucket) -> dict[bytes, tuple[Any, ...]]:
    """Return the documents of a copy with their numbers."""
    return {
        key: (item.value, item.flags, item.expiry, item.cas, item.seqno, item.revid)
        for key, item in vbucket.items.items()
    }


class Following(ClusterCase):
    """Replicas have what the active copy has, one turn later."""

    def test_changes_arrive_after_the_turn(self) -> None:
        """Stores, deletions and expiries arrive in order with the same numbers, as other objects."""
        self.set(b"\0a", b"1", flags=5, expiry=50)
        self.assertEqual(self.vb(1).items, {})
        self.set(b"\0a", b"2", expiry=50)
        self.set(b"\0b")
        self.turn()
        self.assertLevel()
        self.assertIsNot(self.vb(1).items[b"\0b"], self.vb().items[b"\0b"])
        self.vb().delete(b"\0b")
        self.clock.advance(60)
        self.assertIsNone(self.vb().get(b"\0a"))
        self.turn()
        self.assertLevel()
        self.assertEqual(self.vb(2).items, {})

    def test_each_copy_has_its_own_disk(self) -> None:
        """A replica reports as persisted what is on its own disk, independently of the others."""
        self.stores[1].is_slow = True
        item = self.set(b"\0a")
        self.turn()
        self.clock.advance(WRITE_DELAY_SECONDS)
        persisted = [self.vb(node).persisted_seqno >= item.seqno for node in range(3)]
        self.assertEqual(persisted, [True, False, True])
        self.stores[1].finish()
        self.assertEqual(self.vb(1).persisted_seqno, item.seqno)
        self.assertEqual(self.stores[1].values(), {b"a": b"v"})

    def test_locks_stay_on_the_active_copy(self) -> None:
        """A locked document is not locked on a replica."""
        self.set(b"\0a")
        self.vb().lock(b"\0a")
        self.turn()
        self.assertFalse(self.vb(1).is_locked(self.vb(1).items[b"\0a"]))

    def test_many_documents_come_over_several_turns(self) -> None:
        """Catching up is done in pieces, and changes made meanwhile come after it."""
        self.buckets[0].set_replicas(0, [])
        for n in range(5000):
            self.set(b"\0%d" % n)
        self.buckets[0].set_replicas(0, self.buckets[1:])
        one_turn(self.clock)
        self.set(b"\0late")
        one_turn(self.clock)
        self.assertTrue(0 < len(self.vb(1).items) < 5000, len(self.vb(1).items))
        self.turn()
        self.assertLevel()

    def test_replica_that_lacks_the_last_changes(self) -> None:
        """With a shared history only the missing changes are sent, including deletions."""
        self.set(b"\0a")
        self.set(b"\0b")
        self.turn()
        kept = self.vb(1).items[b"\0a"]
        self.buckets[0].set_replicas(0, [])
        self.vb().delete(b"\0b")
        self.set(b"\0c")
        self.buckets[0].set_replicas(0, self.buckets[1:])
        self.turn()
        self.assertLevel()
        self.assertIs(self.vb(1).items[b"\0a"], kept)

    def test_replica_with_another_history(self) -> None:
        """A replica with changes that the active copy does not have is filled from the start, also on
        disk."""
        self.set(b"\0a")
        self.turn()
        stranger = NodeBucket(
            "b", UUID, vbucket_count=1, quota_bytes=2**24, store=ManualStore(), clock=self.clock
        )
        self.successResultOf(stranger.start())
        theirs = stranger.vbuckets[0]
        assert theirs is not None
        theirs.store(StoreMode.SET, b"\0x", b"theirs")
        self.clock.advance(1)
        stranger.set_topology(["replica"])
        self.buckets[2] = stranger
        self.buckets[0].set_replicas(0, self.buckets[1:])
        self.turn()
        self.assertLevel()
        self.clock.advance(1)
        self.assertEqual(list(stranger._store.values()), [b"a"])  # type: ignore[attr-defined]

    def test_missed_deletions_that_are_forgotten(self) -> None:
        """If tombstones were purged that the replica never got, it is filled from nothing."""
        self.set(b"\0a")
        self.set(b"\0b")
        self.turn()
        self.buckets[0].set_replicas(0, [])
        self.vb().delete(b"\0a")
        self.clock.advance(1)
        self.vb().purge_tombstones(int(self.clock.seconds()) + 1)
        self.set(b"\0c")
        self.buckets[0].set_replicas(0, self.buckets[1:])
        self.turn()
        self.assertLevel()

    def test_flush(self) -> None:
        """When all nodes flush, in any order, replicas follow the new history."""
        self.set(b"\0a")
        self.turn()
        for bucket in self.buckets:
            self.successResultOf(bucket.flush_all())
        self.set(b"\0b")
        self.turn()
        self.assertLevel()
        for bucket in reversed(self.buckets):
            self.successResultOf(bucket.flush_all())
            self.set(b"\0c")
        self.turn()
        self.assertLevel()

    def test_failover(self) -> None:
        """A promoted replica serves what it has and feeds the copy that is left."""
        self.set(b"\0a")
        self.turn()
        self.buckets[1].set_topology(["active"])
        self.buckets[1].set_replicas(0, [self.buckets[2]])
        self.successResultOf(self.buckets[0].close())
        self.turn()
        item = self.vb(1).store(StoreMode.SET, b"\0b", b"v")
        self.turn()
        self.assertEqual(item.seqno, 2)
        self.assertEqual(describe(self.vb(2)), describe(self.vb(1)))
        self.assertEqual(self.vb(2).uuid, self.vb(1).uuid)

    def test_a_copy_that_is_closed_or_late(self) -> None:
        """A closed replica is left alone; one that starts later is brought level then."""
        self.successResultOf(self.buckets[1].close())
        self.set(b"\0a")
        self.turn()
        self.assertFalse(self.buckets[0].replicator.streams_of(0)[0].connected)
        late = self.buckets[1] = self.make(ManualStore())
        late.set_topology(["replica"])
        self.buckets[0].set_replicas(0, self.buckets[1:])
        self.turn()
        self.assertFalse(self.buckets[0].replicator.streams_of(0)[0].connected)
        self.successResultOf(late.start())
        self.turn()
        self.assertLevel()


class Durability(ClusterCase):
    """Synchronous writes over three copies: a majority is two."""

    def durable(self, key: bytes, value: bytes, level: int, seconds: float | None = None) -> Any:
        """Begin a synchronous write; return its Deferred."""
        self.assertTrue(self.buckets[0].check_durability(self.vb(), level))
        item = self.set(key, value, durable=True)
        return self.buckets[0].settle(self.vb(), item, level, seconds)

    def value(self, node: int) -> bytes | None:
        """Return what readers of one copy see."""
        item = self.vb(node).get(b"\0k")
        return None if item is None else item.value

    def test_majority(self) -> None:
        """The write commits when a replica has it; from then on readers see it, also on replicas."""
        self.set(b"\0k", b"old")
        self.turn()
        writing = self.durable(b"\0k", b"new", MAJORITY)
        self.assertNoResult(writing)
        self.assertEqual(self.value(0), b"old")
        self.turn()
        self.successResultOf(writing)
        self.assertEqual([self.value(node) for node in range(3)], [b"new"] * 3)
        self.assertLevel()
        self.assertEqual([self.vb(node).pending for node in range(3)], [{}] * 3)

    def test_persist_on_active(self) -> None:
        """The write waits for the disk of the active copy, and for no other."""
        for store in self.stores:
            store.is_slow = True
        writing = self.durable(b"\0k", b"new", ON_ACTIVE)
        self.turn()
        self.stores[1].batches.clear()
        self.clock.advance(WRITE_DELAY_SECONDS)
        self.stores[1].finish()
        self.assertNoResult(writing)
        self.stores[0].finish()
        self.successResultOf(writing)

    def test_persist_to_majority(self) -> None:
        """It waits for the disks of the active copy and of one replica."""
        for store in self.stores:
            store.is_slow = True
        writing = self.durable(b"\0k", b"new", ON_MAJORITY)
        self.turn()
        self.clock.advance(WRITE_DELAY_SECONDS)
        self.stores[0].finish()
        self.assertNoResult(writing)
        self.assertIsNone(self.value(0))
        self.stores[2].finish()
        self.successResultOf(writing)
        self.assertEqual(self.value(0), b"new")

    def test_timeout(self) -> None:
        """After the timeout the outcome is ambiguous, the old version remains and other clients may write."""
        self.set(b"\0k", b"old")
        self.turn()
        for store in self.stores:
            store.is_slow = True
        writing = self.durable(b"\0k", b"new", ON_MAJORITY, 2.0)
        self.clock.advance(1.9)
        self.assertNoResult(writing)
        self.clock.advance(0.1)
        self.assertEqual(self.failureResultOf(writing, StatusError).value.status, Status.SYNC_WRITE_AMBIGUOUS)
        self.assertEqual(self.value(0), b"old")
        self.set(b"\0k", b"newer")
        self.turn()
        self.assertLevel()
        self.assertEqual(self.vb(1).pending, {})

    def test_too_few_copies(self) -> None:
        """With one copy of three there is no majority, at any level."""
        self.buckets[0].set_replicas(0, [])
        for level in (MAJORITY, ON_ACTIVE, ON_MAJORITY):
            refusal = self.assertRaises(StatusError, self.buckets[0].check_durability, self.vb(), level)
            self.assertEqual(refusal.status, Status.DURABILITY_IMPOSSIBLE)

    def test_three_replicas_are_refused(self) -> None:
        """As on the server, buckets with three replicas refuse synchronous writes."""
        self.buckets[0].replica_count = 3
        refusal = self.assertRaises(StatusError, self.buckets[0].check_durability, self.vb(), MAJORITY)
        self.assertEqual(refusal.status, Status.DURABILITY_IMPOSSIBLE)

    def test_an_ephemeral_bucket_has_no_disk(self) -> None:
        """Levels that need a disk are invalid there; majority is not."""
        bucket = NodeBucket(
            "e", UUID, vbucket_count=1, quota_bytes=2**20, store=MemoryStore(), clock=self.clock
        )
        self.successResultOf(bucket.start())
        vbucket = bucket.vbuckets[0]
        assert vbucket is not None
        self.assertFalse(bucket.check_durability(vbucket, MAJORITY))
        refusal = self.assertRaises(StatusError, bucket.check_durability, vbucket, ON_ACTIVE)
        self.assertEqual(refusal.status, Status.DURABILITY_INVALID_LEVEL)

    def test_a_write_under_way_when_the_vbucket_leaves(self) -> None:
        """Clients that wait when the copy is demoted or closed get an ambiguous result."""
        writing = self.durable(b"\0k", b"new", MAJORITY)
        self.buckets[0].set_topology(["replica"])
        self.failureResultOf(writing, StatusError)
        self.assertEqual(self.vb().pending, {})

    def test_promotion_takes_prepared_writes_as_committed(self) -> None:
        """A replica that has a prepared write, but not its commit, has the write when it is promoted."""
        self.durable(b"\0k", b"new", ON_MAJORITY).addErrback(lambda failure: failure.trap(StatusError))
        self.stores[0].is_slow = True
        self.turn()
        self.assertIsNone(self.value(1))
        self.buckets[1].set_topology(["active"])
        self.assertEqual(self.value(1), b"new")


class Majorities(SynchronousTestCase):
    """The arithmetic of levels."""

    def test_levels(self) -> None:
        """Each level holds exactly when its copies have the number, in memory or on disk."""
        for level, active, memory, disk, holds in (
            (MAJORITY, 0, [5, 0], [0, 0], True),
            (MAJORITY, 9, [4, 4], [9, 9], False),
            (ON_ACTIVE, 4, [5, 5], [5, 5], False),
            (ON_ACTIVE, 5, [5, 0], [0, 0], True),
            (ON_ACTIVE, 5, [0, 0], [0, 0], False),
            (ON_MAJORITY, 5, [5, 5], [4, 4], False),
            (ON_MAJORITY, 0, [5, 5], [5, 5], True),
            (ON_MAJORITY, 5, [5, 0], [5, 0], True),
        ):
            copies = Copies(active, memory, disk, 2)
            self.assertEqual(satisfied(level, 5, copies), holds, (level, active, memory, disk))
