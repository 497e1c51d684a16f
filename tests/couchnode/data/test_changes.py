"""The log of changes: it either has all changes or knows that it has not, and it stays small."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from couchnode.data.changes import _LOOKED_AT, ChangeLog
from couchnode.data.item import Item
from tests import SHARED, tries
from tests.couchnode.data.test_bucket import NOW, BucketCase

ENTRIES = st.tuples(st.integers(0, 3), st.sampled_from([b"\0a", b"\0b", b"\0c", b"\0d"]))


def item(key: bytes, expiry: int = 0) -> Item:
    """Return a document."""
    return Item(key, b"1", 0, expiry=expiry, seqno=1, cas=1, revid=1)


class PositionTests(BucketCase):
    """Statements about a position."""

    @settings(max_examples=tries(300), deadline=None, suppress_health_check=SHARED)
    @given(st.lists(st.one_of(ENTRIES, st.none()), max_size=60), st.integers(2, 20))
    def test_any_history(self, events: list[tuple[int, bytes] | None], limit: int) -> None:
        """At each position ever reached: exactly the keys noted after it, or that they are unknown; the last
        half of the limit is known."""
        log = ChangeLog(limit)
        positions = [log.end]
        noted: list[tuple[int, bytes]] = []
        voided = 0  # entries before this one are void
        for event in events:
            if event is None:
                log.forget_all()
                voided = len(noted)
                positions = [-1] * len(noted) + [log.end]
            else:
                log.note(event[0], item(event[1]))
                noted.append(event)
                positions.append(log.end)
            self.assertLessEqual(len(log._entries), limit)
        self.assertEqual(len(set(positions[voided:])), len(positions[voided:]))
        for at in range(voided, len(positions)):
            expected: dict[int, set[bytes]] = {}
            for vbid, key in noted[at:]:
                expected.setdefault(vbid, set()).add(key)
            found = log.since(positions[at])
            if found is None:
                self.assertGreater(len(noted) - at, limit // 2 - 1, "forgotten too early")
            else:
                self.assertEqual(found, expected)

    def test_void(self) -> None:
        """After forget_all() no earlier position is known, not even the last one."""
        log = ChangeLog()
        before = log.end
        log.forget_all()
        self.assertIsNone(log.since(before))
        self.assertEqual((log.since(log.end), log.voids), ({}, 1))


class ExpiryTests(BucketCase):
    """Expiries to come, of a bucket."""

    def setUp(self) -> None:
        """Attach a log to the bucket."""
        super().setUp()
        self.log = self.bucket.change_log = ChangeLog()

    def expire(self) -> int:
        """Delete what is due; returns in how many pieces."""
        return len(list(self.log.expire_due(self.bucket))) + 1

    @settings(max_examples=tries(200), deadline=None, suppress_health_check=SHARED)
    @given(st.lists(st.tuples(ENTRIES, st.sampled_from([0, 5, 50, 500]), st.integers(0, 60)), max_size=30))
    def test_any_history(self, writes: list[tuple[tuple[int, bytes], int, int]]) -> None:
        """After each call the documents are those whose time has not come, and the log says which went."""
        self.setUp()
        self.bucket.pager.stop()
        expected: dict[tuple[int, bytes], int] = {}
        for (vbid, key), seconds, pause in writes:
            expiry = int(self.clock.seconds()) + seconds if seconds else 0
            self.set(key, vbid=vbid, expiry=expiry)
            expected[vbid, key] = expiry
            self.clock.advance(pause)
            position = self.log.end
            self.expire()
            now = int(self.clock.seconds())
            gone = {place for place, due in expected.items() if 0 < due < now}
            expected = {place: due for place, due in expected.items() if place not in gone}
            found = {(vb.id, name) for vb in self.bucket.vbuckets if vb is not None for name in vb.items}
            self.assertEqual(found, set(expected))
            changed = self.log.since(position)
            assert changed is not None
            self.assertEqual({(vbid, key) for vbid, keys in changed.items() for key in keys}, gone)

    def test_expiries_do_not_pile_up(self) -> None:
        """A document that is stored again and again is remembered a bounded number of times."""
        self.expire()
        for _ in range(5000):
            self.set(b"\0k", b"1", expiry=NOW + 1000)
            self.assertLess(len(self.log._expiries or ()), 1100)
        self.expire()
        self.clock.advance(1001)
        self.expire()
        self.assertEqual(self.bucket.item_count, 0)

    def test_a_log_that_is_voided_while_it_learns(self) -> None:
        """It begins again, so no expiry is missed."""
        self.bucket.ledger.quota_bytes = 2**30
        for number in range(_LOOKED_AT + 1):
            self.set(b"\0k%d" % number, b"1", expiry=NOW + 10)
        working = self.log.expire_due(self.bucket)
        next(working)
        self.log.forget_all()
        self.assertEqual(len(list(working)), 1)
        working.close()
        self.assertEqual(list(self.log.expire_due(self.bucket)), [])
