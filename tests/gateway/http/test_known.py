"""The caches that forget everything when they are full."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.known import Known, KnownBySize


class KnownTests(SynchronousTestCase):
    """One cache."""

    @given(st.integers(1, 5), st.lists(st.integers(0, 9), max_size=40))
    def test_any_order(self, most: int, keys: list[int]) -> None:
        """It returns what it is taught, holds what was learned last, and never more than it may."""
        known: Known[int, str] = Known(most)
        for key in keys:
            self.assertEqual(known.learn(key, str(key)), str(key))
            self.assertEqual(known.get(key), str(key))
            self.assertLessEqual(len(known), most)
        self.assertTrue(all(value == str(key) and key in keys for key, value in known.items()))

    def test_full(self) -> None:
        """The first one beyond the limit makes it forget the others."""
        known: Known[str, int] = Known(2)
        for name in ("a", "b"):
            known.learn(name, 1)
        self.assertEqual(sorted(known), ["a", "b"])
        known.learn("c", 1)
        self.assertEqual(sorted(known), ["c"])


class KnownBySizeTests(SynchronousTestCase):
    """The cache with a limit on bytes."""

    @given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=40))
    def test_any_order(self, most: int, taught: list[tuple[int, int]]) -> None:
        """It returns what it is taught, and never holds more entries or bytes than it may."""
        known: KnownBySize[int, int] = KnownBySize(most, 100)
        for key, size in taught:
            known.pop(key, None)
            self.assertEqual(known.learn_sized(key, size, size), size)
            self.assertEqual(known.get(key), size if size <= 25 else None)
            self.assertLessEqual(len(known), most)
            self.assertLessEqual(sum(known.values()), 100)

    def test_cleared(self) -> None:
        """After a clear there is room for as much as at first."""
        known: KnownBySize[int, int] = KnownBySize(10, 100)
        for _ in range(2):
            for number in range(4):
                known.learn_sized(number, number, 25)
            self.assertEqual(len(known), 4)
            known.clear()
