"""Drawings are well-formed, have words, and stay within their card."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.drawing import WIDTH, Bar, Panel, bars, panels, sequence, width_of, wrapped

SVG = "{http://www.w3.org/2000/svg}"
WORDS = some.text(alphabet=some.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)


def texts(picture: str) -> list[str]:
    """Return what is written in a picture."""
    return [found.text or "" for found in ElementTree.fromstring(picture).iter(f"{SVG}text")]


class SequenceTests(SynchronousTestCase):
    """Who sends what to whom."""

    def test_steps(self) -> None:
        """Lanes, messages, answers, losses and notes are drawn, and told in words."""
        picture = sequence("A <title>", "a | b\na -> b: one: <x>\n@ b: two\nb --> a: three\nb -x a: four")
        self.assertEqual(texts(picture), ["a", "b", "one: <x>", "two", "three", "four"])
        found = ElementTree.fromstring(picture)
        self.assertEqual(found.findtext(f"{SVG}title"), "A <title>")
        self.assertIn("Between a, b. a -> b: one: <x>. @ b: two.", found.findtext(f"{SVG}desc") or "")
        kinds = [one.get("class") for one in found.iter(f"{SVG}path") if one.get("marker-end")]
        self.assertEqual(kinds, ["line", "line back", "line lost"])

    def test_wrong(self) -> None:
        """A line of no known form, and a lane that is not there, are named."""
        self.assertRaisesRegex(ValueError, "no step: 'a => b'.*expected", sequence, "", "a | b\na => b")
        self.assertRaisesRegex(ValueError, "no lane c in 'a -> c: x'.*a, b", sequence, "", "a | b\na -> c: x")
        self.assertRaisesRegex(ValueError, "no lane d", sequence, "", "a | b\n@ d: x")

    @given(some.lists(WORDS, min_size=1, max_size=6))
    def test_words(self, words: list[str]) -> None:
        """Any words give a well-formed picture that has them."""
        picture = sequence("t", "a | b\n" + "\n".join(f"a -> b: .{word}" for word in words))
        self.assertEqual(texts(picture)[2:], [f".{word}" for word in words])


class ChartTests(SynchronousTestCase):
    """Bars and boxes."""

    def test_bars(self) -> None:
        """The longest bar ends within the card, the others are in proportion, each figure is written."""
        picture = bars("t", "us", [Bar("first", 50.0, "5.0"), Bar("second", 25.0, "2.5")])
        found = [
            one for one in ElementTree.fromstring(picture).iter(f"{SVG}rect") if one.get("class") == "bar"
        ]
        first, second = (float(one.get("width") or 0) for one in found)
        self.assertAlmostEqual(first, 2 * second, places=2)
        self.assertLess(float(found[0].get("x") or 0) + first, WIDTH - 100)
        self.assertEqual(texts(picture), ["first", "5.0 us, 50%", "second", "2.5 us, 25%"])

    def test_panels(self) -> None:
        """Columns of boxes; those that begin with a star stand out; words are wrapped."""
        picture = panels("t", [Panel("one", ["a / b", "*c"], "d e"), Panel("two", ["f"], "g " * 60)])
        self.assertEqual(texts(picture)[:4], ["one", "a", "b", "c"])
        self.assertEqual(len(re.findall('class="strong"', picture)), 1)
        self.assertGreater(texts(picture).count("g") + picture.count(">g g"), 1)
        self.assertIn("one: a, b, then c. d e two: f.", picture)

    def test_wrapped(self) -> None:
        """No line is wider than it may be, unless it is one word; nothing is lost."""
        lines = wrapped("a bb ccc dddd eeeee ffffff " * 5, 80)
        self.assertTrue(all(width_of(line, 12.5) <= 80 for line in lines))
        self.assertEqual(" ".join(lines).split(), ("a bb ccc dddd eeeee ffffff " * 5).split())
        self.assertEqual(wrapped("w" * 40, 10), ["w" * 40])
