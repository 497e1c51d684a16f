"""Places, of which no caller takes more than half."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.fairness.shares import Shares


class SharesTests(SynchronousTestCase):
    """:class:`Shares`."""

    def test_half(self) -> None:
        """One caller gets half, two get all, and a place that is given back can be taken."""
        shares = Shares(4)
        self.assertEqual([shares.take("a") for _ in range(3)], [True, True, False])
        self.assertEqual([shares.take("b") for _ in range(3)], [True, True, False])
        self.assertFalse(shares.take("c"))
        shares.give("b")
        self.assertFalse(shares.take("a"))
        self.assertTrue(shares.take("c"))

    def test_unknown_callers(self) -> None:
        """Callers that cannot be told apart have all places together; one place can be taken."""
        shares = Shares(2)
        self.assertEqual([shares.take(None) for _ in range(3)], [True, True, False])
        self.assertEqual([Shares(1).take("a"), Shares(1).take(None)], [True, True])

    @given(st.integers(1, 9), st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", None]))))
    def test_any_order(self, limit: int, steps: list[tuple[bool, str | None]]) -> None:
        """Nothing is over its limit, or stays counted, in whatever order places are taken and given."""
        shares = Shares(limit)
        held: list[str | None] = []
        for takes, owner in steps:
            if takes and shares.take(owner):
                held.append(owner)
            elif not takes and owner in held:
                held.remove(owner)
                shares.give(owner)
            self.assertEqual(shares.used, len(held))
            self.assertLessEqual(len(held), limit)
            for one in ("a", "b"):
                self.assertLessEqual(held.count(one), max(1, limit // 2))
        for owner in held:
            shares.give(owner)
        self.assertEqual((shares.used, shares._taken), (0, {}))
