"""The collections of a bucket on one node: their documents, their drop in the background, their copies."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import DurabilityLevel, Status
from couchnode.data import collectiondrop, flusher
from couchnode.data.bucket import NodeBucket
from couchnode.data.collections import Collections
from couchnode.data.flusher import RETRY_SECONDS
from couchnode.data.item import Item, Ledger, StatusError
from couchnode.data.keys import described, document_key, end_of, held_key, prefix_of
from couchnode.data.manifest import Manifest, restored_manifest
from couchnode.data.storemode import StoreMode
from tests import SHARED, tries
from tests.couchnode.data.test_bucket import BucketCase
from tests.couchnode.data.test_replication import ClusterCase, one_turn

DEFAULT = "_default"
IDS = st.one_of(st.sampled_from([0, 8, 127, 128, 16383, 16384, 2**32 - 1]), st.integers(8, 2**32 - 1))


def manifest_with(*names: str) -> Manifest:
    """Return a manifest with these collections in the default scope."""
    manifest = Manifest()
    for name in names:
        manifest = manifest.with_collection(DEFAULT, name)
    return manifest


class KeyTests(SynchronousTestCase):
    """Keys behind the ids of their collections."""

    @given(IDS, st.binary(min_size=1, max_size=20))
    def test_there_and_back(self, number: int, key: bytes) -> None:
        """The prefix and the document's key are found again, whatever bytes the key has."""
        held = held_key(number, key)
        prefix = prefix_of(held)
        self.assertEqual((held, document_key(held)), (prefix + key, key))
        self.assertTrue(prefix <= held < end_of(prefix))

    @given(IDS, IDS, st.binary(min_size=1, max_size=20))
    def test_collections_do_not_mix(self, one: int, other: int, key: bytes) -> None:
        """A key of a collection is outside the range of keys of any other."""
        if one != other:
            prefix = prefix_of(held_key(other, b"k"))
            self.assertFalse(prefix <= held_key(one, key) < end_of(prefix))

    def test_messages(self) -> None:
        """A key is named as its user knows it; a damaged one is shown as it is."""
        self.assertEqual(described(b"\0k"), "b'k'")
        self.assertEqual(described(b"\x80\x01k"), "b'k' of collection 0x80")
        self.assertEqual((described(b"\xff"), described(None)), ("b'\\xff' (no collection)", "None"))


class KnownTests(SynchronousTestCase):
    """What a node knows of its collections."""

    @given(st.sets(IDS, max_size=5), st.binary(max_size=8))
    def test_any_bytes_of_a_client(self, ids: set[int], key: bytes) -> None:
        """A prefix is known exactly if it is the shortest encoding of an existing id."""
        collections = [{"id": one, "name": f"c{one}", "maxTTL": 0} for one in ids]
        scope = {"id": 0, "name": DEFAULT, "collections": collections}
        manifest = restored_manifest({"uid": 1, "nextIds": [8, 2**32], "scopes": [scope]})
        known = Collections(manifest, Ledger(1))
        size = known.known_prefix(key)
        if size:
            self.assertTrue(known.has(key[:size] + b"k"))
            self.assertIn(prefix_of(key[:size]), known.by_prefix)
        for one in ids:
            held = held_key(one, key)
            self.assertEqual(known.known_prefix(held), len(held) - len(key))


class DropTests(BucketCase):
    """Dropped collections leave memory and disk, in bounded steps."""

    def drop(self, name: str) -> None:
        """Drop a collection."""
        self.bucket.set_manifest(self.bucket.collections.manifest.without_collection(DEFAULT, name))

    def test_in_steps(self) -> None:
        """A turn goes through a bounded number of keys; others are served in between, and nothing of theirs
        is lost."""
        self.bucket.set_manifest(manifest_with("a", "b"))
        for n in range(200):
            self.set(b"\x08%d" % n, vbid=n % 4)
            self.set(b"\x09%d" % n, vbid=n % 4)
        self.tick()
        with patch.object(collectiondrop, "_KEYS_A_TURN", 20):
            self.drop("a")
            turns = 0
            while self.bucket.dropper.is_busy:
                before = sum(len(vb.items) for vb in self.bucket.vbuckets if vb is not None)
                one_turn(self.clock)
                after = sum(len(vb.items) for vb in self.bucket.vbuckets if vb is not None)
                self.assertLessEqual(before - after, 40)
                self.set(b"\x09more%d" % turns, vbid=turns % 4)
                turns += 1
        self.assertGreaterEqual(turns, 20)
        self.clock.advance(10)
        self.assertEqual(len(self.store.documents), 200 + turns)
        self.assertTrue(all(key.startswith(b"\x09") for _, key in self.store.documents))
        self.assertEqual(self.bucket.item_count, 200 + turns)

    def test_many_collections(self) -> None:
        """A scope of many collections costs the store what its documents cost, in batches of bounded size:
        collections without a document cost nothing."""
        names = [f"c{number}" for number in range(300)]
        self.bucket.set_manifest(manifest_with(*names))
        for number, collection in enumerate(list(self.bucket.collections.by_id.values())):
            if collection.id and number % 3 == 0:
                for n in range(20):
                    self.set(collection.prefix + b"%d" % n, vbid=n % 4)
        self.tick()
        batches = len(self.store.batches)
        self.bucket.set_manifest(Manifest(10**6, (8, 10**6)))
        for _ in range(50):
            self.clock.advance(1)
        self.assertEqual(self.store.values(), {})
        drops = [one.drops for one in self.store.batches[batches:]]
        self.assertEqual(sum(map(len, drops)), 100 * 4)
        self.assertEqual(sum(sum(one.values()) for one in drops), 100 * 20)
        with patch.object(flusher, "_DROPPED_DOCUMENTS_A_BATCH", 30):
            self.bucket.set_manifest(manifest_with("a"))
            for n in range(100):
                self.set(b"\x08%d" % n, vbid=n % 4)
            self.tick()
            batches = len(self.store.batches)
            self.drop("a")
            for _ in range(50):
                self.clock.advance(1)
        sizes = [sum(one.drops.values()) for one in self.store.batches[batches:]]
        self.assertEqual(([size for size in sizes if size], self.store.values()), ([50, 50], {}))

    def test_a_second_drop_during_the_first(self) -> None:
        """Both are gone at the end."""
        self.bucket.set_manifest(manifest_with("a", "b", "c"))
        for prefix in (b"\x08", b"\x09", b"\x0a"):
            for n in range(40):
                self.set(prefix + b"%d" % n, vbid=n % 4)
        with patch.object(collectiondrop, "_KEYS_A_TURN", 10):
            self.drop("a")
            for _ in range(3):
                one_turn(self.clock)
            self.drop("b")
            self.clock.advance(0)
        self.tick()
        self.assertFalse(self.bucket.dropper.is_busy)
        self.assertEqual({key[:1] for _, key in self.store.documents}, {b"\x0a"})
        self.assertEqual(self.bucket.item_count, 40)

    def test_changes_that_could_not_be_written(self) -> None:
        """A batch under way at the drop, which the disk refuses, brings nothing back."""
        self.bucket.set_manifest(manifest_with("a"))
        self.store.is_slow = True
        self.set(b"\x08k")
        self.tick()
        self.drop("a")
        self.clock.advance(0)
        self.store.refuse()
        self.store.is_slow = False
        self.clock.advance(RETRY_SECONDS)
        self.clock.advance(10)
        self.assertEqual(self.store.values(), {})
        self.assertEqual((self.bucket.ledger.queued_items, self.bucket.ledger.queued_bytes), (0, 0))

    def test_what_a_crash_leaves(self) -> None:
        """Documents of a dropped collection on the disk are not loaded, and leave the disk."""
        self.bucket.set_manifest(manifest_with("a", "b"))
        for prefix in (b"\0", b"\x08", b"\x09"):
            self.set(prefix + b"k", vbid=1)
        self.tick()
        manifest = self.bucket.collections.manifest.without_collection(DEFAULT, "a")
        self.bucket = self.start(manifest=manifest.with_collection(DEFAULT, "a"))
        self.assertEqual(set(self.vb(1).items), {b"\0k", b"\x09k"})
        self.clock.advance(10)
        self.assertEqual({key for _, key in self.store.documents}, {b"\0k", b"\x09k"})

    def test_flush(self) -> None:
        """A flush empties every collection; all of them stay."""
        self.bucket.flush_enabled = True
        self.bucket.set_manifest(manifest_with("a"))
        self.set(b"\0k")
        self.set(b"\x08k")
        self.tick()
        self.successResultOf(self.bucket.flush_all())
        self.assertEqual((self.store.values(), self.bucket.item_count, self.bucket.memory_bytes), ({}, 0, 0))
        self.assertEqual(self.vb().count(b"\x08"), 0)
        self.set(b"\x08k")
        self.assertEqual(self.vb().count(b"\x08"), 1)

    def test_expiry_and_pager(self) -> None:
        """Expired documents of a named collection are counted out of it."""
        self.bucket.set_manifest(manifest_with("a"))
        self.set(b"\x08k", expiry=1)
        self.clock.advance(5)
        self.assertEqual(self.vb().count(b"\x08"), 1)
        self.assertIsNone(self.vb().get(b"\x08k"))
        self.assertEqual((self.vb().count(b"\x08"), self.vb().named), (0, {}))


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)),
        st.tuples(st.just("store"), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)),
        st.tuples(st.just("delete"), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)),
        st.tuples(st.just("create"), st.integers(1, 3)),
        st.tuples(st.just("drop"), st.integers(0, 3)),
        st.just(("turn",)),
        st.just(("finish",)),
        st.just(("refuse",)),
        st.just(("crash",)),
        st.just(("flush",)),
    ),
    max_size=40,
)


class History:
    """A bucket, and next to it which documents must be there."""

    def __init__(self, case: BucketCase) -> None:
        self.case = case
        case.store.is_slow = True
        case.bucket.flush_enabled = True
        self.model: dict[tuple[int, bytes], bytes] = {}
        self.written = 0

    @property
    def bucket(self) -> NodeBucket:
        """The bucket of this run."""
        return self.case.bucket

    def prefix(self, number: int) -> bytes | None:
        """Return the prefix of a collection, ``None`` if it does not exist."""
        scope = self.bucket.collections.manifest.scope(DEFAULT)
        found = scope.collections.get(f"c{number}" if number else DEFAULT)
        return None if found is None else found.prefix

    def store(self, number: int, vbid: int, key: int) -> None:
        """Store a document, if its collection exists."""
        prefix = self.prefix(number)
        if prefix is not None:
            self.written += 1
            name, value = prefix + b"%d" % key, b"%d" % self.written
            self.case.vb(vbid).store(StoreMode.SET, name, value)
            self.model[vbid, name] = value

    def delete(self, number: int, vbid: int, key: int) -> None:
        """Delete a document, if it exists."""
        name = (self.prefix(number) or b"?") + b"%d" % key
        if self.model.pop((vbid, name), None) is not None:
            self.case.vb(vbid).delete(name)

    def create(self, number: int) -> None:
        """Create a collection, if it does not exist."""
        if self.prefix(number) is None:
            manifest = self.bucket.collections.manifest
            self.bucket.set_manifest(manifest.with_collection(DEFAULT, f"c{number}"))

    def drop(self, number: int) -> None:
        """Drop a collection, if it exists."""
        prefix = self.prefix(number)
        if prefix is not None:
            name = f"c{number}" if number else DEFAULT
            self.bucket.set_manifest(self.bucket.collections.manifest.without_collection(DEFAULT, name))
            self.model = {at: value for at, value in self.model.items() if not at[1].startswith(prefix)}

    def turn(self) -> None:
        """Run what is due; time passes."""
        one_turn(self.case.clock)
        self.case.clock.advance(0.005)

    def finish(self) -> None:
        """Let a batch under way reach the disk."""
        if self.case.store._waiting:
            self.case.store.finish()

    def refuse(self) -> None:
        """Refuse a batch under way."""
        if self.case.store._waiting:
            self.case.store.refuse()

    def flush(self) -> None:
        """Empty the bucket."""
        self.bucket.flush_all().addErrback(lambda _: None)
        self.model.clear()

    def crash(self) -> None:
        """Start again on what the disk has, with the manifest."""
        manifest = self.bucket.collections.manifest
        self.bucket.state = "closed"
        self.case.store._waiting.clear()
        self.case.clock.calls.clear()
        disk = {at: item.value for at, item in self.case.store.documents.items()}
        self.case.bucket = self.case.start(manifest=manifest, flush_enabled=True)
        known = self.bucket.collections.has
        self.model = {at: value for at, value in disk.items() if known(at[1])}

    def settle(self) -> None:
        """Let everything end."""
        for _ in range(400):
            self.case.clock.advance(RETRY_SECONDS)
            self.finish()


class AnyHistory(BucketCase):
    """Stores, deletions, collections that come and go, a slow and refusing disk, crashes and flushes."""

    @settings(max_examples=tries(200), deadline=None, suppress_health_check=SHARED)
    @given(EVENTS, st.integers(1, 8))
    def test_any_order(self, events: list[tuple[Any, ...]], keys_a_turn: int) -> None:
        """At each moment what can be reached is right, and so are the counts; in the end memory and disk have
        exactly that: a dropped collection leaves nothing and nothing comes back under its name."""
        self.setUp()
        history = History(self)
        with patch.object(collectiondrop, "_KEYS_A_TURN", keys_a_turn):
            for event, *arguments in events:
                getattr(history, event)(*arguments)
                self.check(history)
            history.settle()
        self.check(history)
        held = {(vb.id, key) for vb in self.bucket.vbuckets if vb is not None for key in vb.items}
        self.assertEqual(held, set(history.model))
        disk = {place: item.value for place, item in self.store.documents.items()}
        self.assertEqual(disk, history.model)
        for vb in self.bucket.vbuckets:
            assert vb is not None
            self.assertTrue(all(map(self.bucket.collections.has, (*vb.tombstones, *vb.dirty, *vb.named))))
        ledger = self.bucket.ledger
        self.assertEqual((ledger.queued_items, ledger.queued_bytes), (0, 0))
        self.bucket.close()
        history.finish()

    def check(self, history: History) -> None:
        """Check what commands could reach, the counts, and the memory."""
        found, size = {}, 0
        for vb in self.bucket.vbuckets:
            assert vb is not None
            items = [item for item in vb.items.values() if self.bucket.collections.has(item.key)]
            found.update({(vb.id, item.key): item.value for item in items})
            for prefix in self.bucket.collections.by_prefix:
                self.assertEqual(vb.count(prefix), sum(item.key.startswith(prefix) for item in items))
            size += sum(item.size for held in (vb.items, vb.tombstones) for item in held.values())
        self.assertEqual(found, history.model)
        self.assertEqual(self.bucket.memory_bytes, size)


class CopiesTests(ClusterCase):
    """A collection that is dropped on three nodes."""

    def set_manifest(self, manifest: Manifest) -> None:
        """Apply a manifest on every node, as a cluster does, within one turn."""
        for bucket in self.buckets:
            bucket.set_manifest(manifest)

    def test_changes_on_their_way(self) -> None:
        """What is on its way to a replica at the drop does not arrive; what follows does, with the same
        numbers."""
        self.set_manifest(manifest_with("a", "b"))
        for prefix in (b"\x08", b"\x09"):
            self.set(prefix + b"k")
            self.set(prefix + b"deleted")
            self.vb().delete(prefix + b"deleted")
        self.set_manifest(self.buckets[0].collections.manifest.without_collection(DEFAULT, "a"))
        self.set(b"\x09last")
        self.turn()
        self.assertLevel()
        for node in range(3):
            self.assertEqual(set(self.vb(node).items), {b"\x09k", b"\x09last"})
            self.assertEqual(set(self.vb(node).tombstones), {b"\x09deleted"})
        self.clock.advance(10)
        for store in self.stores:
            self.assertEqual(set(store.values()), {b"k", b"last"})

    def test_a_new_replica_during_the_drop(self) -> None:
        """A replica that is filled before the active copy is through gets nothing of the collection."""
        self.set_manifest(manifest_with("a"))
        for n in range(50):
            self.set(b"\x08%d" % n)
        self.turn()
        with patch.object(collectiondrop, "_KEYS_A_TURN", 5):
            self.set_manifest(self.buckets[0].collections.manifest.without_collection(DEFAULT, "a"))
            self.buckets[1].reset_vbucket(0, self.vb())
            self.buckets[0].replicator.reconnect_all()
            for _ in range(50):
                self.clock.advance(0)
        for node in range(3):
            self.assertEqual(self.vb(node).items, {})
        self.set(b"\0k")
        self.turn()
        self.assertLevel()

    def test_synchronous_writes(self) -> None:
        """A prepared write in a dropped collection fails as ambiguous and is nowhere; one in another commits,
        and so does a write that follows."""
        self.set_manifest(manifest_with("a", "b"))
        self.turn()
        writes = []
        for prefix in (b"\x08", b"\x09"):
            item: Item = self.set(prefix + b"k", durable=True)
            writes.append(self.buckets[0].settle(self.vb(), item, DurabilityLevel.MAJORITY, None))
        self.set_manifest(self.buckets[0].collections.manifest.without_collection(DEFAULT, "a"))
        failure = self.failureResultOf(writes[0], StatusError)
        self.assertEqual(failure.value.status, Status.SYNC_WRITE_AMBIGUOUS)
        self.turn()
        self.assertEqual(self.successResultOf(writes[1]).key, b"\x09k")
        self.turn()
        for node in range(3):
            self.assertEqual((set(self.vb(node).items), self.vb(node).pending), ({b"\x09k"}, {}))
        self.clock.advance(10)
        for store in self.stores:
            self.assertEqual(store.values(), {b"k": b"v"})
