"""The pager: expired documents are removed, others are not, and no turn is long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from couchnode.data import pager
from couchnode.data.pager import PAGER_SECONDS, TOMBSTONE_SECONDS, Pager
from tests import SHARED, tries
from tests.couchnode.data.test_bucket import NOW, BucketCase

TURN_SECONDS = 1.0

EXPIRIES = st.dictionaries(
    st.tuples(st.integers(0, 3), st.sampled_from([b"\0%d" % n for n in range(8)])),
    st.sampled_from([0, NOW + 1, NOW + 400, NOW + 700, NOW + 2000]),
    max_size=20,
)


class TurnClock(Clock):
    """A clock on which the reactor's next turn takes time, so that turns can be distinguished."""

    def callLater(self, when: float, what: Callable[..., object], *a: Any, **kw: Any) -> IDelayedCall:
        return super().callLater(when or TURN_SECONDS, what, *a, **kw)


class PagerTests(BucketCase):
    """A separate pager over a bucket's documents."""

    def begin(self) -> Pager:
        """Start a bucket whose pager is idle, and a pager on a separate clock."""
        self.setUp()
        self.bucket.pager.stop()
        self.turns = TurnClock()
        return Pager(self.bucket, self.turns)

    def later(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.clock.advance(seconds)
        self.turns.advance(seconds)

    @settings(max_examples=tries(100), deadline=None, suppress_health_check=SHARED)
    @given(EXPIRIES, st.integers(1, 5))
    def test_expired_and_nothing_else(self, expiries: dict[tuple[int, bytes], int], a_turn: int) -> None:
        """After a search the expired documents are removed, and counted, for any limit of a turn."""
        self.patch(pager, "_ITEMS_A_TURN", a_turn)
        searching = self.begin()
        for (vbid, key), expiry in expiries.items():
            self.set(key, vbid=vbid, expiry=expiry)
        searching.start()
        for _ in range(4):
            self.later(PAGER_SECONDS)
            now = self.clock.seconds()
            self.turns.pump([TURN_SECONDS] * 4)
            left = {place for place, expiry in expiries.items() if not 0 < expiry < now}
            found = {(vb.id, key) for vb in self.bucket.vbuckets if vb is not None for key in vb.items}
            self.assertEqual(found, left)
            self.assertEqual(searching.expired, len(expiries) - len(left))
        searching.stop()

    def test_a_turn_has_a_limit(self) -> None:
        """A search continues in further turns of the reactor, and the pause begins after the last one."""
        self.patch(pager, "_ITEMS_A_TURN", 10)
        searching = self.begin()
        for vbid in range(4):
            for number in range(10):
                self.set(b"\0%d" % number, vbid=vbid, expiry=NOW + 1)
        searching.start()
        gone = []
        self.later(PAGER_SECONDS)
        for _ in range(4):
            gone.append(searching.expired)
            self.turns.advance(TURN_SECONDS)
        self.assertEqual(gone, [10, 20, 30, 40])
        (pause,) = self.turns.getDelayedCalls()
        self.assertEqual(pause.getTime(), self.turns.seconds() - TURN_SECONDS + PAGER_SECONDS)

    def test_what_cannot_expire_is_not_read(self) -> None:
        """Vbuckets without an expiry cost one item of a turn, however many documents they have."""
        self.patch(pager, "_ITEMS_A_TURN", 10)
        searching = self.begin()
        for vbid in range(4):
            for number in range(100):
                self.set(b"\0%d" % number, vbid=vbid)
        searching.start()
        self.later(PAGER_SECONDS)
        (pause,) = self.turns.getDelayedCalls()
        self.assertEqual(pause.getTime(), 2 * PAGER_SECONDS)

    def test_tombstones_have_their_time(self) -> None:
        """A deletion is remembered for days, and not for longer."""
        searching = self.begin()
        self.set(b"\0a")
        self.vb().delete(b"\0a")
        self.tick()
        searching.start()
        for _ in range(int(TOMBSTONE_SECONDS / PAGER_SECONDS)):
            self.later(PAGER_SECONDS)
        self.assertEqual(list(self.vb().tombstones), [b"\0a"])
        self.later(PAGER_SECONDS)
        self.later(PAGER_SECONDS)
        self.assertEqual(list(self.vb().tombstones), [])

    def test_stop(self) -> None:
        """A stopped pager has no timer, also between two turns of a search; stop() twice is no error."""
        self.patch(pager, "_ITEMS_A_TURN", 1)
        searching = self.begin()
        searching.stop()
        searching.start()
        for number in range(3):
            self.set(b"\0%d" % number, expiry=NOW + 1, vbid=number)
        self.later(PAGER_SECONDS)
        self.assertEqual(searching.expired, 1)
        searching.stop()
        searching.stop()
        self.assertEqual(self.turns.getDelayedCalls(), [])
