"""The pictures of docs/architecture.md are those of the imports."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.picture import PAGE, drawn, mermaid, pictures, reduced
from tests.tooling.shape import whole


class PictureTests(SynchronousTestCase):
    """Drawing."""

    def test_page(self) -> None:
        """The page shows today's imports; ``python -m tests.tooling.picture`` draws them."""
        page = PAGE.read_text("utf-8")
        self.assertEqual(page, drawn(page, whole()))

    def test_reduced(self) -> None:
        """An arrow that only shortens a path is left out; every path remains."""
        graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
        self.assertEqual(reduced(graph), {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()})

    def test_circle(self) -> None:
        """Rooms that import each other cannot be drawn."""
        self.assertRaisesRegex(ValueError, "a', 'b", reduced, {"a": {"b"}, "b": {"a"}})

    def test_mermaid(self) -> None:
        """Rooms and arrows are named, in order."""
        text = mermaid({"b": {"a"}, "a": set()})
        self.assertEqual(text, '```mermaid\nflowchart TD\n    r0["a"]\n    r1["b"]\n    r1 --> r0\n```\n')

    def test_no_place(self) -> None:
        """A page without a place for a picture is refused by name."""
        self.assertRaisesRegex(ValueError, "picture of the packages", drawn, "", whole())

    def test_rooms(self) -> None:
        """Each picture has the rooms of its package."""
        found = dict(pictures(whole()))
        self.assertIn('["couchbase.protocol"]', found["the packages"])
        self.assertIn('["operations"]', found["gateway/"])
        self.assertIn('["kv"]', found["couchnode/"])
