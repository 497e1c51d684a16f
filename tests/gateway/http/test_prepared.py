"""Bodies that are prepared once."""

from __future__ import annotations

import gzip

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.prepared import preparing, takes_gzip


class PreparedTests(SynchronousTestCase):
    """In steps, and in either coding."""

    @given(st.lists(st.binary(max_size=100), max_size=5), st.integers(0, 200_000))
    def test_steps(self, parts: list[bytes], long: int) -> None:
        """Parts of any size become one body, which the compressed form decompresses to."""
        parts = [*parts, b"x" * long]
        steps = preparing(parts, b"text/plain")
        while True:
            try:
                next(steps)
            except StopIteration as done:
                prepared = done.value
                break
        self.assertEqual(prepared.body, b"".join(parts))
        self.assertEqual(gzip.decompress(prepared.compressed), prepared.body)

    def test_accepted(self) -> None:
        """Gzip is taken where it is named, unless with the weight 0."""
        for accepted, expected in (
            (b"gzip", True),
            (b"br, GZIP;q=0.1", True),
            (b"x-gzip", True),
            (b"gzip; q=1.0", True),
            (b"gzip;q=0", False),
            (b"gzip; q=0.000", False),
            (b"br", False),
            (b"*", False),
            (b"", False),
        ):
            self.assertIs(takes_gzip(accepted), expected, accepted)
