"""The pictures in docs/pictures: as the program draws them, within their card, legible in both schemes."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling import figures
from tests.tooling.drawing import WIDTH, width_of
from tests.tooling.figures import FOLDER, PERFORMANCE, profile
from tests.tooling.sources import ROOT, tracked_files

SVG = "{http://www.w3.org/2000/svg}"
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)")


def luminance(color: str) -> float:
    """Return the relative luminance of a color, as WCAG defines it."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colors, from 1 to 21."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


class FigureTests(SynchronousTestCase):
    """Every picture."""

    def test_files(self) -> None:
        """The files are what ``python -m tests.tooling.figures`` draws."""
        for name, text in figures.figures().items():
            self.assertEqual((FOLDER / name).read_text("utf-8"), text, f"{name}: run make docs")
        self.assertEqual({path.name for path in FOLDER.glob("*.svg")}, set(figures.figures()))

    def test_all_are_shown_with_words(self) -> None:
        """Each picture is on a page; each image on a page has an alternative that says what it shows."""
        shown = set()
        for path in tracked_files():
            if path.suffix == ".md":
                for words, target in IMAGE.findall(path.read_text("utf-8")):
                    self.assertGreater(len(words), 20, f"{path.relative_to(ROOT)}: {target}")
                    shown.add((path.parent / target).resolve())
        self.assertEqual([path.name for path in FOLDER.glob("*.svg") if path not in shown], [])

    def test_nothing_is_cut_off(self) -> None:
        """Every line of text ends within the card, by its estimated width."""
        for name, text in figures.figures().items():
            for found in ElementTree.fromstring(text).iter(f"{SVG}text"):
                wide = width_of(found.text or "", float(found.get("font-size") or 13))
                shift = {"middle": wide / 2, "end": wide}.get(found.get("text-anchor") or "start", 0.0)
                left = float(found.get("x") or 0) - shift
                self.assertGreaterEqual(left, 0, f"{name}: {found.text}")
                self.assertLessEqual(left + wide, WIDTH, f"{name}: {found.text}")

    def test_contrast(self) -> None:
        """In both schemes text stands out by 4.5 from every ground that it is on, and lines by 3."""
        style = figures.figures()["request.svg"].partition("<style>")[2].partition("</style>")[0]
        light, _, dark = style.partition("@media")
        for scheme in (light, dark):
            color = dict(re.findall(r"^(?:text)?\.?([\w.]*) \{ fill: (#\w{6})", scheme, re.MULTILINE))
            self.assertEqual(
                set(color), {"ground", "box", "strong", "note", "bar", "head", "", "faint", "bad"}
            )
            for ground in ("ground", "box", "strong", "note"):
                self.assertGreaterEqual(contrast(color[""], color[ground]), 7)
            for text in ("faint", "bad"):
                self.assertGreaterEqual(contrast(color[text], color["ground"]), 4.5)
            for line in re.findall(r"stroke: (#\w{6}); stroke-width", scheme) + [color["bar"]]:
                self.assertGreaterEqual(contrast(line, color["ground"]), 3)
        self.assertEqual(contrast("#000000", "#ffffff"), 21)
        self.assertTrue(all(contrast(a, a) == 1 for a, _ in combinations(["#123456", "#fedcba"], 2)))

    def test_profile(self) -> None:
        """The bars are the rows of the table, without its sum; an error names a missing table."""
        found = profile()
        self.assertGreater(len(found), 8)
        self.assertNotIn("together", [row.name for row in found])
        self.assertLess(abs(sum(row.share for row in found) - 100), 1)
        self.patch(figures, "PERFORMANCE", ROOT / "README.md")
        self.assertRaisesRegex(ValueError, "README.md has no table with the heading: stage", profile)
        self.assertTrue(PERFORMANCE.is_file())
