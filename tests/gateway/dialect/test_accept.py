"""``Accept``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.dialect.accept import parse_accept
from gateway.dialect.errors import Refusal


class AcceptTests(SynchronousTestCase):
    """Types and weights."""

    def test_types(self) -> None:
        """Types keep their order, in lower case; other parameters than the weight do not matter."""
        for given_, expected in (
            (b"", []),
            (b", ,", []),
            (b"Text/HTML", [(b"text/html", 1.0)]),
            (b"a/b;q=0.5 , c/d ; version=1;q=1.000", [(b"a/b", 0.5), (b"c/d", 1.0)]),
            (b"a/b;Q=0", [(b"a/b", 0.0)]),
        ):
            self.assertEqual(parse_accept(given_), expected)

    def test_invalid_weights(self) -> None:
        """A weight outside of 0 to 1, or with four decimals, is refused and quoted."""
        for wrong in (b"q=2", b"q=-1", b"q=x", b"q=0.1234", b"q="):
            refusal = self.assertRaises(Refusal, parse_accept, b"a/b;" + wrong)
            self.assertIn(wrong.decode(), str(refusal))

    @given(st.binary(max_size=60))
    def test_any_bytes(self, value: bytes) -> None:
        """Any header is read, or refused with 400."""
        try:
            found = parse_accept(value)
        except Refusal as refusal:
            self.assertEqual(refusal.problem.status, 400)
        else:
            self.assertTrue(all(name and 0 <= weight <= 1 for name, weight in found))
