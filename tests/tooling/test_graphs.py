"""Graphs of the pages as the site draws them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.drawing import WIDTH
from tests.tooling.graphs import drawn, layers_of, parsed
from tests.tooling.sources import tracked_files

SVG = "{http://www.w3.org/2000/svg}"
NAMES = some.sampled_from("abcdefgh")


class GraphTests(SynchronousTestCase):
    """Reading and drawing."""

    def test_flowchart(self) -> None:
        """Boxes have their names, also those without arrows."""
        text = 'flowchart TD\n    r0["x.y"]\n    r1["z"]\n    r2["alone"]\n    r1 --> r0\n'
        self.assertEqual(parsed(text), {"x.y": [], "z": ["x.y"], "alone": []})

    def test_states(self) -> None:
        """A life begins with the first state; its begin and end are no states."""
        text = "stateDiagram-v2\n[*] --> B\nA --> B\nB --> A\nA --> [*]\n"
        self.assertEqual(parsed(text), {"B": ["A"], "A": ["B"]})
        self.assertEqual(layers_of(parsed(text)), ({"B": 0, "A": 1}, {("A", "B")}))

    def test_wrong(self) -> None:
        """What cannot be drawn is named."""
        self.assertRaisesRegex(ValueError, "'pie'", parsed, "pie\n")
        self.assertRaisesRegex(ValueError, "'a ==> b'", parsed, "flowchart TD\na ==> b\n")

    def test_pages(self) -> None:
        """Every graph of the pages can be drawn; its words name each box that has arrows."""
        count = 0
        for path in tracked_files():
            if path.suffix != ".md":
                continue
            for text in re.findall(r"^```mermaid\n(.*?)^```", path.read_text("utf-8"), re.M | re.S):
                count += 1
                picture, words = drawn(text)
                ElementTree.fromstring(picture)
                self.assertEqual(
                    [name for name, others in parsed(text).items() if others and name not in words], []
                )
        self.assertGreater(count, 3)

    @given(some.lists(some.tuples(NAMES, NAMES), min_size=1, max_size=25, unique=True))
    def test_any_graph(self, arrows: list[tuple[str, str]]) -> None:
        """Also with circles, each box and arrow is drawn within the card, and only arrows back lead up."""
        text = "stateDiagram-v2\n" + "\n".join(f"{one} --> {other}" for one, other in arrows)
        layer, back = layers_of(parsed(text))
        self.assertEqual([one for one in arrows if one not in back and layer[one[0]] >= layer[one[1]]], [])
        found = ElementTree.fromstring(drawn(text)[0])
        boxes = [one for one in found.iter(f"{SVG}rect") if one.get("class") == "box"]
        self.assertEqual(len(boxes), len({name for arrow in arrows for name in arrow}))
        self.assertEqual(len([one for one in found.iter(f"{SVG}path") if one.get("marker-end")]), len(arrows))
        for box in boxes:
            x, wide = float(box.get("x") or 0), float(box.get("width") or 0)
            self.assertTrue(x >= 0 and x + wide <= WIDTH)
