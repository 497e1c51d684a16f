"""Names of scopes and collections in paths."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gateway.dialect import places
from gateway.dialect.places import NOT_USED, collection_names
from gateway.http.known import Known


class RememberedTests(SynchronousTestCase):
    """Names that were seen before."""

    def test_no_long_ones(self) -> None:
        """Names that no collection can have, which may be as long as a head, take no memory."""
        known: Known[tuple[bytes, bytes], places.Place] = Known(8)
        self.patch(places, "_known", known)
        for _ in range(2):
            self.assertEqual(collection_names({"scope": b"s", "collection": b"c" * 10_000}), ("s", NOT_USED))
            self.assertEqual(collection_names({"scope": b"s", "collection": b"c"}), ("s", "c"))
        self.assertEqual(list(known), [(b"s", b"c")])
