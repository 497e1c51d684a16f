"""The cache that forgets everything when it is full."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.known import Known


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
