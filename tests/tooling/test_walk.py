"""The ways through the code, and the page that shows them."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.picture import PAGE
from tests.tooling.walk import BEGIN, END, WAYS, Call, Walk, drawn, rows, walk

FIRST = """
from walked import second

def begin():
    [number for number in range(3)]
    second.middle()
    back()
    second.middle()

def back():
    return len([])
"""
SECOND = """
import json

def middle():
    json.dumps({})
    inner()

def inner():
    pass
"""


class WalkTests(SynchronousTestCase):
    """What counts."""

    def test_a_package(self) -> None:
        """Calls of the package's functions count, in their order; of others, and comprehensions, do not."""
        root = Path(self.mktemp()).resolve()
        folder = root / "walked"
        folder.mkdir(parents=True)
        for name, text in (("__init__", ""), ("first", FIRST), ("second", SECOND)):
            (folder / f"{name}.py").write_text(text, "utf-8")
        self.patch(sys, "path", [str(root), *sys.path])
        self.addCleanup(lambda: [sys.modules.pop(name) for name in list(sys.modules) if name[:6] == "walked"])
        first = importlib.import_module("walked.first")
        found = walk(first.begin, packages=("walked",), root=root)
        self.assertEqual(
            [call.function for call in found.calls], ["begin", "middle", "inner", "back", "middle", "inner"]
        )
        self.assertEqual((found.files, found.moves, found.returns), (2, 4, 2))
        self.assertEqual(
            str(found).splitlines()[:2], ["walked/first.py: begin", "walked/second.py: middle inner"]
        )
        self.assertEqual(walk(first.begin, packages=("other",), root=root), Walk(()))

    def test_a_failure(self) -> None:
        """The profiler of before is back, also after a step that fails."""
        before = sys.getprofile()
        self.assertRaises(ZeroDivisionError, walk, lambda: 1 // 0)
        self.assertIs(sys.getprofile(), before)


class PageTests(SynchronousTestCase):
    """The table of docs/architecture.md."""

    def test_page(self) -> None:
        """It has every way, and no number that is a tenth off; ``python -m tests.tooling.walk`` writes it."""
        table = PAGE.read_text("utf-8").partition(BEGIN)[2].partition(END)[0].splitlines()
        if sys.version_info[:2] != (3, 11):
            self.assertEqual([row.split(" | ")[0] for row in table[2:]], [f"| {name}" for name in WAYS])
            return
        for shown, counted in zip(table, rows(), strict=True):
            old, new = (
                [int(one) for one in re.findall(r"(?<=\| )[0-9]+(?= \|)", row)] for row in (shown, counted)
            )
            self.assertEqual(re.sub("[0-9]+", "", shown), re.sub("[0-9]+", "", counted))
            for before, now in zip(old, new, strict=True):
                self.assertLessEqual(abs(before - now), 2 + now // 10, f"run make docs: {shown} is {counted}")

    def test_rows(self) -> None:
        """A row has the four numbers of its way."""
        way = Walk((Call("a", "f"), Call("b", "g"), Call("b", "h"), Call("a", "f")))
        self.assertEqual(list(rows({"x": lambda: way}))[2:], ["| x | 4 | 2 | 3 | 1 |"])

    def test_no_place(self) -> None:
        """A page without a place for the table is refused by name."""
        self.assertRaisesRegex(ValueError, "the ways", drawn, "", "")
        self.assertEqual(drawn(f"a\n{BEGIN}old\n{END}b\n", "new\n"), f"a\n{BEGIN}new\n{END}b\n")
