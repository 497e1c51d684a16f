"""The flusher: for any order of events, the disk gets the content of memory, and waiters are notified
once."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from couchbase.protocol.constants import Status
from couchnode.data.flusher import PERSISTENCE_WAIT_SECONDS, RETRY_SECONDS, WRITE_DELAY_SECONDS
from couchnode.data.item import StatusError
from couchnode.data.storage import StoreError
from tests import SHARED, tries
from tests.couchnode.data.test_bucket import BucketCase

VBIDS = st.integers(0, 3)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), VBIDS, st.sampled_from([b"\0a", b"\0b", b"\0c"])),
        st.tuples(st.just("delete"), VBIDS, st.sampled_from([b"\0a", b"\0b", b"\0c"])),
        st.tuples(st.just("replace"), VBIDS),
        st.tuples(st.just("wait"), VBIDS, st.integers(0, 3)),
        st.tuples(st.just("pass"), st.sampled_from([0.0, WRITE_DELAY_SECONDS, RETRY_SECONDS])),
        st.tuples(st.sampled_from(["finish", "refuse", "hurry", "drain"])),
    ),
    max_size=30,
)


class HistoryTests(BucketCase):
    """Any history, on a disk whose writes end when the history says so."""

    def begin(self) -> None:
        """Start a bucket, and what is known of its waiters."""
        self.setUp()
        self.store.is_slow = True
        self.flusher = self.bucket.flusher
        self.waits: list[tuple[int, str, int, Deferred[object]]] = []
        self.endings: list[int] = []
        self.drains: list[Deferred[None]] = []

    def happen(self, event: str, number: int, *arguments: object) -> None:
        """Let one event happen, if it can."""
        getattr(self, f"do_{event}")(number, *arguments)
        self.assertLessEqual(len(self.store._waiting), 1, "one batch at a time")
        for vbucket in self.bucket.vbuckets:
            assert vbucket is not None
            written = self.store.records.get(vbucket.id)
            on_disk = written.high_seqno if written and written.failover_log[0][0] == vbucket.uuid else 0
            self.assertLessEqual(vbucket.persisted_seqno, on_disk, "counted as persisted before it is")

    def do_store(self, number: int, vbid: int, key: bytes) -> None:
        self.set(key, b"%d" % number, vbid)

    def do_delete(self, number: int, vbid: int, key: bytes) -> None:
        if self.vb(vbid).get(key) is not None:
            self.vb(vbid).delete(key)

    def do_replace(self, number: int, vbid: int) -> None:
        states = ["active"] * 4
        self.bucket.set_topology([*states[:vbid], "dead", *states[vbid + 1 :]])  # type: ignore[list-item]
        self.bucket.set_topology(states)  # type: ignore[arg-type]

    def do_wait(self, number: int, vbid: int, ahead: int) -> None:
        vbucket = self.vb(vbid)
        seqno = vbucket.high_seqno + ahead - 1
        waiting: Deferred[object] = self.flusher.wait(vbucket, seqno)  # type: ignore[assignment]

        def ended(outcome: object) -> None:
            self.endings.append(number)
            if self.flusher._phase.name == "CLOSED" or vbucket is not self.bucket.vbuckets[vbid]:
                self.assertIsInstance(outcome, Failure)
            if isinstance(outcome, Failure):
                outcome.trap(StatusError)
                self.assertEqual(outcome.value.status, Status.ETMPFAIL)
                self.assertLess(vbucket.persisted_seqno, seqno)
            else:
                self.assertGreaterEqual(vbucket.persisted_seqno, seqno)

        waiting.addBoth(ended)
        self.waits.append((number, vbucket.uuid, seqno, waiting))  # type: ignore[arg-type]

    def do_pass(self, number: int, seconds: float) -> None:
        self.clock.advance(seconds)

    def do_finish(self, number: int) -> None:
        if self.store._waiting:
            self.store.finish()

    def do_refuse(self, number: int) -> None:
        if self.store._waiting:
            self.store.refuse()

    def do_hurry(self, number: int) -> None:
        self.flusher.hurry()

    def do_drain(self, number: int) -> None:
        draining = self.flusher.drain()
        draining.addErrback(lambda failure: failure.trap(StoreError) and None)
        self.drains.append(draining)

    def settle(self) -> None:
        """Let the disk take everything."""
        for _ in range(20):
            self.clock.advance(RETRY_SECONDS)
            if self.store._waiting:
                self.store.finish()
        self.assertEqual(self.store._waiting, [])

    @settings(max_examples=tries(300), deadline=None, suppress_health_check=SHARED)
    @given(EVENTS)
    @example([("store", 0, b"\0a"), ("pass", WRITE_DELAY_SECONDS), ("replace", 0), ("refuse",)])
    @example([("store", 0, b"\0a"), ("replace", 0)])
    @example([("wait", 0, 2), ("replace", 0), ("store", 0, b"\0a")])
    def test_any_history(self, events: list[tuple[object, ...]]) -> None:
        """In the end the disk has what memory has, nothing is left to do, and each waiter heard once."""
        self.begin()
        for number, (event, *arguments) in enumerate(events):
            self.happen(str(event), number, *arguments)
        self.settle()
        live = {
            (vbucket.id, item.key): item.value
            for vbucket in self.bucket.vbuckets
            if vbucket is not None
            for item in vbucket.items.values()
        }
        self.assertEqual({place: item.value for place, item in self.store.documents.items()}, live)
        for vbid in range(4):
            self.assertEqual(
                (self.vb(vbid).dirty, self.vb(vbid).persisted_seqno), ({}, self.vb(vbid).high_seqno)
            )
        self.assertEqual((self.bucket.ledger.queued_items, self.flusher.write_error), (0, None))
        self.assertEqual([draining.called for draining in self.drains], [True] * len(self.drains))
        self.clock.advance(PERSISTENCE_WAIT_SECONDS)
        self.assertEqual(sorted(self.endings), sorted(number for number, *_ in self.waits))
        self.assertEqual(
            [len(group) for group in self.flusher._waits.values()], [0] * len(self.flusher._waits)
        )

    @settings(max_examples=tries(100), deadline=None, suppress_health_check=SHARED)
    @given(EVENTS)
    def test_stop_at_any_moment(self, events: list[tuple[object, ...]]) -> None:
        """A stopped flusher has no timer, no waiter waits on, and only drain() writes."""
        self.begin()
        for number, (event, *arguments) in enumerate(events):
            self.happen(str(event), number, *arguments)
        self.bucket.pager.stop()
        self.flusher.stop()
        self.assertEqual(sorted(self.endings), sorted(number for number, *_ in self.waits))
        if self.store._waiting:
            self.store.finish()
        while not all(draining.called for draining in self.drains):
            self.store.finish()
        before = len(self.store.batches)
        self.set(b"\0late")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(60)
        self.assertEqual(len(self.store.batches), before)
        draining = self.flusher.drain()
        self.store.finish()
        self.successResultOf(draining)
        self.assertEqual(self.store.documents[0, b"\0late"].value, b"v")


class DrainTests(BucketCase):
    """Writing everything now."""

    def test_a_store_that_cannot_write(self) -> None:
        """It fails with the reason, and the changes are not lost: the next one writes them."""
        self.store.is_slow = True
        self.set(b"\0a")
        draining = self.bucket.flusher.drain()
        self.store.refuse()
        failure = self.failureResultOf(draining, StoreError)
        self.assertIn("bucket b: not everything is written: the disk is full", str(failure.value))
        again = self.bucket.flusher.drain()
        self.store.finish()
        self.successResultOf(again)
        self.assertEqual(self.store.values(), {b"a": b"v"})

    def test_counts(self) -> None:
        """Batches, failures and documents are counted, a failed batch's documents once they are written."""
        self.store.is_slow = True
        self.set(b"\0a")
        self.set(b"\0b", vbid=1)
        self.tick()
        self.store.refuse()
        flusher = self.bucket.flusher
        self.assertEqual((flusher.written, flusher.batches, flusher.failures), (0, 0, 1))
        self.clock.advance(RETRY_SECONDS)
        self.store.finish()
        self.assertEqual((flusher.written, flusher.batches, flusher.failures), (2, 1, 1))
