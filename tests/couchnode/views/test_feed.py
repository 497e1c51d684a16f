"""Updates of an index: after every update it has exactly the existing documents."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchnode.data.bucket import NodeBucket, VBucketState
from couchnode.data.changes import ChangeLog
from couchnode.data.edits import Edit, edit
from couchnode.data.item import Item
from couchnode.data.keys import DEFAULT_PREFIX
from couchnode.data.storemode import StoreMode
from couchnode.data.vbucket import VBucket
from couchnode.views.feed import BATCH_CHANGES, LOOKED_AT, Mark, steps
from tests import SHARED, tries
from tests.couchnode.nodes import UUID
from tests.couchnode.stores import ManualStore

NOW = 1_800_000_000
VBUCKETS = 4


class Mirror:
    """An index that keeps documents instead of rows."""

    def __init__(self, wanted: Collection[int] | None = None) -> None:
        self.documents: dict[tuple[int, bytes], bytes] = {}
        self.marks: dict[int, Mark] = {}
        self.position: int | None = None
        self.wanted = wanted
        self.applied = 0

    def update(self, bucket: NodeBucket) -> list[str]:
        """Take every step to now; return their kinds."""
        log = bucket.change_log
        assert log is not None
        for _ in log.expire_due(bucket):
            pass
        changed = log.since(self.position) if self.position is not None else None
        position = log.end
        kinds = []
        for kind, content in steps(bucket, self.marks, changed, self.wanted):
            kinds.append(kind)
            getattr(self, kind)(**content)
        self.position = position
        return kinds

    def apply(self, changes: list[tuple[object, ...]], marks: dict[int, Mark]) -> None:
        """Take documents and deletions."""
        self.applied += len(changes)
        for vbid, key, value, *_ in changes:
            self.documents.pop((vbid, key), None)  # type: ignore[arg-type]
            if value is not None:
                self.documents[vbid, key] = value  # type: ignore[index, assignment]
        self.marks.update(marks)

    def reconcile(self, vb: int, keys: list[bytes]) -> None:
        """Drop documents that are not in ``keys``."""
        self.documents = {
            place: value for place, value in self.documents.items() if place[0] != vb or place[1] in set(keys)
        }

    def drop(self, vbs: list[int]) -> None:
        """Drop whole vbuckets."""
        self.documents = {place: value for place, value in self.documents.items() if place[0] not in vbs}
        for vbid in vbs:
            self.marks.pop(vbid, None)


class FeedCase(SynchronousTestCase):
    """A bucket of four vbuckets with a change log, and a mirror of it."""

    def setUp(self) -> None:
        """Start it."""
        self.clock = Clock()
        self.clock.advance(NOW)
        self.store = ManualStore()
        self.start()
        self.mirror = Mirror()

    def start(self) -> None:
        """Start the bucket over what the store has."""
        self.bucket = NodeBucket(
            "b", UUID, vbucket_count=VBUCKETS, quota_bytes=2**24, store=self.store, clock=self.clock
        )
        self.bucket.flush_enabled = True
        self.successResultOf(self.bucket.start())
        self.log = self.bucket.change_log = ChangeLog()

    def vb(self, vbid: int = 0) -> VBucket:
        """Return an existing vbucket."""
        vbucket = self.bucket.vbuckets[vbid]
        assert vbucket is not None
        return vbucket

    def set(self, key: bytes, value: bytes = b"1", vbid: int = 0, expiry: int = 0) -> None:
        """Store a document."""
        self.vb(vbid).store(StoreMode.SET, DEFAULT_PREFIX + key, value, expiry=expiry)

    def live(self) -> dict[tuple[int, bytes], bytes]:
        """Return the documents of active vbuckets."""
        return {
            (vbucket.id, item.key[1:]): item.value
            for vbucket in self.bucket.vbuckets
            if vbucket is not None and vbucket.state == "active"
            for item in vbucket.items.values()
        }

    def check(self) -> list[str]:
        """Update the mirror and compare; return the kinds of steps."""
        kinds = self.mirror.update(self.bucket)
        self.assertEqual(self.mirror.documents, self.live())
        return kinds


class FeedTests(FeedCase):
    """Single events."""

    def test_what_changed_is_all_that_is_sent(self) -> None:
        """After the first update, a document costs one change, and without changes nothing is sent."""
        for number in range(50):
            self.set(b"k%d" % number, vbid=number % VBUCKETS)
        self.check()
        self.assertEqual(self.mirror.applied, 50)
        self.assertEqual(self.check(), [])
        self.set(b"k1", b"2", 1)
        self.set(b"k1", b"3", 1)
        self.vb(2).delete(b"\0k2")
        self.assertEqual(self.check(), ["apply"])
        self.assertEqual(self.mirror.applied, 52)

    def test_attributes(self) -> None:
        """A document is sent with its attributes, and again when only these change."""
        self.set(b"k")
        self.check()
        vbucket, xattrs = self.vb(), b'{"u":1}'
        change = Edit(b"1", 0, 0, xattrs, False, lambda cas, seqno: xattrs)
        edit(vbucket, b"\0k", vbucket.get(b"\0k"), change, preserve_expiry=False, durable=False)
        _, content = next(steps(self.bucket, {0: (vbucket.uuid, 1)}, None, {0}))
        self.assertEqual([(one[1], one[9]) for one in content["changes"]], [(b"k", xattrs)])
        self.assertEqual(self.check(), ["apply"])

    def test_batches(self) -> None:
        """Many documents, or long ones, come in several steps; the marks come with the last of a vbucket."""
        for number in range(BATCH_CHANGES * 2 + 1):
            self.set(b"k%d" % number)
        kinds = [content["marks"] for _, content in steps(self.bucket, {}, None)]
        uuid = self.vb().uuid
        self.assertEqual(kinds, [{0: (uuid, 0)}, {}, {0: (uuid, BATCH_CHANGES * 2 + 1)}])
        self.bucket.flush_all()
        for number in range(4):
            self.set(b"k%d" % number, b'"' + b"x" * 700_000 + b'"')
        self.assertEqual([len(content["changes"]) for _, content in steps(self.bucket, {}, None)], [2, 2, 0])

    def test_an_update_that_ends_early(self) -> None:
        """Documents of a vbucket that was indexed in part only leave no row when they go, or it does."""
        for event in ("delete", "purge", "move"):
            self.setUp()
            for number in range(BATCH_CHANGES + 1):
                self.set(b"k%d" % number)
            _, content = next(steps(self.bucket, {}, None))
            self.mirror.apply(**content)
            self.assertEqual(len(self.mirror.documents), BATCH_CHANGES)
            self.vb().delete(b"\0k0")
            if event == "purge":
                self.vb().purge_tombstones(NOW + 10**9)
            elif event == "move":
                self.bucket.set_topology(["replica", "active", "active", "active"])
            self.check()

    def test_expiry(self) -> None:
        """A document whose time has come is gone with the next update, without any access to it."""
        self.set(b"short", expiry=10)
        self.set(b"long", expiry=1000)
        self.check()
        self.clock.advance(11)
        self.check()
        self.assertEqual(list(self.mirror.documents), [(0, b"long")])

    def test_expiry_of_documents_that_were_there_before(self) -> None:
        """Expiries are also known after a restart."""
        self.set(b"short", expiry=10)
        self.check()
        self.successResultOf(self.bucket.close())
        self.start()
        self.mirror.position = None
        self.clock.advance(11)
        self.check()
        self.assertEqual(self.mirror.documents, {})

    def test_expiry_of_documents_that_were_replicas(self) -> None:
        """Expiries of a vbucket that becomes active are known, although they were not recorded before."""
        self.bucket.set_topology(["replica", "active", "active", "active"])
        self.check()
        self.vb().apply(Item(b"\0short", b"1", 0, expiry=NOW + 10, seqno=1, cas=1, revid=1))
        self.clock.advance(5)
        self.check()
        self.bucket.set_topology(["active"] * VBUCKETS)
        self.check()
        self.assertEqual(list(self.mirror.documents), [(0, b"short")])
        self.clock.advance(6)
        self.check()
        self.assertEqual(self.mirror.documents, {})

    def test_many_expiries(self) -> None:
        """Learning of many documents, and deleting as many, happens in pieces between which others work."""
        for number in range(LOOKED_AT + 1):
            self.set(b"k%d" % number, expiry=10)
        self.assertEqual(len(list(self.log.expire_due(self.bucket))), 1)
        self.clock.advance(11)
        self.assertGreater(len(list(self.log.expire_due(self.bucket))), 5)
        self.check()
        self.assertEqual(self.mirror.documents, {})

    def test_pauses(self) -> None:
        """A search that finds little also pauses."""
        for number in range(LOOKED_AT * 2 + 1):
            self.set(b"k%d" % number)
        self.check()
        self.set(b"k0", b"2")
        self.mirror.position = None
        self.assertEqual(self.check(), ["apply"] * 3)

    def test_prepared_writes(self) -> None:
        """A prepared write is not shown; when it is committed after later writes were, it is not missed."""
        self.set(b"a")
        self.vb().store(StoreMode.SET, b"\0slow", b"1", durable=True)
        self.set(b"b")
        self.check()
        self.assertEqual(self.mirror.marks[0][1], 1)  # a restart would begin before the prepared one
        self.vb().commit(b"\0slow")
        self.check()
        self.assertIn((0, b"slow"), self.mirror.documents)

    def test_prepared_writes_and_a_lost_log(self) -> None:
        """The same if only marks show what is known."""
        self.vb().store(StoreMode.SET, b"\0slow", b"1", durable=True)
        self.set(b"b")
        self.check()
        self.vb().commit(b"\0slow")
        self.log.forget_all()
        self.check()
        self.assertIn((0, b"slow"), self.mirror.documents)

    def test_forgotten_deletions(self) -> None:
        """Deletions whose tombstones went are found by comparing keys."""
        self.set(b"kept")
        self.set(b"gone")
        self.check()
        self.vb().delete(b"\0gone")
        self.clock.advance(4 * 24 * 3600)
        self.vb().purge_tombstones(int(self.clock.seconds()))
        self.log.forget_all()
        self.assertIn("reconcile", self.check())

    def test_lost_changes(self) -> None:
        """Documents that were indexed and then lost in a crash are removed, and their replacements are
        added."""
        self.set(b"safe")
        self.clock.advance(1)  # on the disk
        self.store.is_slow = True
        self.set(b"lost")
        self.check()
        self.store.clean = False
        self.store.is_slow = False
        self.store._waiting.clear()
        self.start()
        self.set(b"other")
        self.mirror.position = None
        self.assertEqual(self.check()[0], "drop")
        self.assertEqual({key for _, key in self.mirror.documents}, {b"safe", b"other"})

    def test_log_that_was_cut(self) -> None:
        """An index that fell behind what the log remembers finds everything from its marks."""
        self.log = self.bucket.change_log = ChangeLog(limit=10)
        self.check()
        for number in range(100):
            self.set(b"k%d" % number)
        self.vb().delete(b"\0k5")
        self.assertIsNone(self.log.since(self.mirror.position or 0))
        self.check()

    def test_moved_vbuckets(self) -> None:
        """Rows of a vbucket that went elsewhere go; it comes back with all its documents."""
        self.set(b"k", vbid=1)
        self.check()
        states: list[VBucketState] = ["active", "replica", "active", "active"]
        self.bucket.set_topology(states)
        self.assertEqual(self.check(), ["drop"])
        self.bucket.set_topology(["active"] * VBUCKETS)
        self.check()
        self.assertIn((1, b"k"), self.mirror.documents)

    def test_subset(self) -> None:
        """An index of some vbuckets gets changes of those only, and drops other documents."""
        self.mirror = Mirror(wanted=(1,))
        self.mirror.marks = {2: (7, 3)}
        self.mirror.documents[2, b"x"] = b"1"
        for vbid in range(VBUCKETS):
            self.set(b"k%d" % vbid, vbid=vbid)
        self.mirror.update(self.bucket)
        self.assertEqual(set(self.mirror.documents), {(1, b"k1")})

    def test_keys_that_are_no_text(self) -> None:
        """Documents without a name in UTF-8 are passed over."""
        self.set(b"\xff\xfe")
        self.set("ü".encode())
        self.mirror.update(self.bucket)
        self.set(b"\xff\xfe", b"2")
        self.mirror.update(self.bucket)
        self.assertEqual(set(self.mirror.documents), {(0, "ü".encode())})


KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
VBIDS = st.integers(0, VBUCKETS - 1)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), VBIDS, KEYS),
        st.tuples(st.just("brief"), VBIDS, KEYS),
        st.tuples(st.just("delete"), VBIDS, KEYS),
        st.tuples(st.just("prepare"), VBIDS, KEYS),
        st.tuples(st.just("commit"), VBIDS, KEYS),
        st.tuples(st.just("abort"), VBIDS, KEYS),
        st.tuples(st.sampled_from(["wait", "flush", "update", "forget", "restart", "crash", "purge"])),
        st.tuples(st.just("topology"), st.lists(st.sampled_from(["active", "replica", "dead"]), min_size=4)),
    ),
    max_size=40,
)


class HistoryTests(FeedCase):
    """Arbitrary histories."""

    @settings(max_examples=tries(300), deadline=None, suppress_health_check=SHARED)
    @given(EVENTS)
    def test_any_history(self, events: list[tuple[object, ...]]) -> None:
        """Whatever happens in whatever order, an updated index holds the live documents and no others."""
        self.setUp()
        for number, (event, *arguments) in enumerate(events):
            self.happen(str(event), number, *arguments)
        self.check()
        self.check()

    def happen(self, event: str, number: int, *arguments: object) -> None:
        """Let one event happen, if it can."""
        if event == "update":
            self.check()
        elif event == "wait":
            self.clock.advance(50)
        elif event == "forget":
            self.log.forget_all()
        elif event == "flush":
            self.bucket.flush_all()
        elif event == "topology":
            self.bucket.set_topology(arguments[0][:VBUCKETS])  # type: ignore[index]
        elif event == "purge":
            for vbucket in self.bucket.vbuckets:
                if vbucket is not None:
                    vbucket.purge_tombstones(int(self.clock.seconds()) + 10**9)
        elif event in ("restart", "crash"):
            if event == "restart":
                self.successResultOf(self.bucket.close())
            else:
                self.store.clean = False
            self.start()
            self.mirror.position = None
        else:
            self.write(event, number, *arguments)

    def write(self, event: str, number: int, vbid: int, key: bytes) -> None:
        """Change a document, if its vbucket is active and nothing stands in the way."""
        key = DEFAULT_PREFIX + key
        vbucket = self.bucket.vbuckets[vbid]
        if vbucket is None or vbucket.state != "active":
            return
        if event in ("commit", "abort"):
            if key in vbucket.pending:
                getattr(vbucket, event)(key)
        elif key not in vbucket.pending:
            if event == "delete":
                if vbucket.get(key) is not None:
                    vbucket.delete(key)
            else:
                vbucket.store(
                    StoreMode.SET,
                    key,
                    b"%d" % number,
                    expiry=20 if event == "brief" else 0,
                    durable=event == "prepare",
                )
