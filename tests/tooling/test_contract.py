"""docs/sdk-1.2.md: every row has a state, and every test that it names exists."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.sources import ROOT, nodes_of, parsed

PAGE = ROOT / "docs" / "sdk-1.2.md"
NAME = re.compile(r"`(tests(?:\.\w+)+)`")
ROW = re.compile(r"^\| (.+) \| (.+) \|$")
STATE = re.compile(r"(done: `tests\.|not done: \w|not copied, on purpose: \w)")
SECTIONS = 20


def rows(text: str) -> list[tuple[str, str]]:
    """Return what stands in both columns of the page's tables."""
    found = (ROW.match(line) for line in text.splitlines())
    pairs = [(row[1], row[2]) for row in found if row]
    return [pair for pair in pairs if pair[1] != "State" and set(pair[1]) != {"-"}]


def missing(name: str) -> str:
    """Return what is wrong with the dotted name of a test; nothing if it names one."""
    parts = name.split(".")
    if len(parts) < 4 or not parts[-1].startswith("test_"):
        return f"{name}: not MODULE.CLASS.test_NAME"
    module, cls, method = ".".join(parts[:-2]), parts[-2], parts[-1]
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in (
            "tests",
            "couchbase",
            "txcouchbase",
            "gcouchbase",
        ):
            return f"{name}: there is no module {error.name}"
        # It needs a package that is not installed; its source shows at least the class.
        return missing_in_source(name, ROOT.joinpath(*parts[:-2]).with_suffix(".py"), cls)
    found = getattr(getattr(found, cls, None), method, None)
    return "" if callable(found) else f"{name}: there is no such test"


def missing_in_source(name: str, path: Path, cls: str) -> str:
    """Look for a class in a file that cannot be imported here."""
    classes = [node.name for node in nodes_of(parsed(path), ast.ClassDef)]
    return "" if cls in classes else f"{name}: {path.name} has no class {cls}"


class PageTests(SynchronousTestCase):
    """The page as it is."""

    def setUp(self) -> None:
        self.text = PAGE.read_text(encoding="utf-8")

    def test_names(self) -> None:
        """Every dotted name is that of a test."""
        names = sorted(set(NAME.findall(self.text)))
        self.assertGreater(len(names), 100)
        self.assertEqual([wrong for wrong in map(missing, names) if wrong], [])

    def test_rows(self) -> None:
        """Every row is done, with a test, or says why not."""
        found = rows(self.text)
        self.assertGreater(len(found), 300)
        self.assertEqual([row for row in found if not STATE.match(row[1])], [])
        lines = [line for line in self.text.splitlines() if line.startswith("|")]
        self.assertEqual(len(lines) - len(found), 2 * self.text.count("| State |"))

    def test_sections(self) -> None:
        """All twenty exist, in order, each with rows."""
        parts = re.split(r"^## (\d+)\. .*$", self.text, flags=re.M)
        self.assertEqual([int(number) for number in parts[1::2]], list(range(1, SECTIONS + 1)))
        for number, part in zip(parts[1::2], parts[2::2], strict=True):
            self.assertTrue(rows(part), f"section {number} has no rows")


class NamesTests(SynchronousTestCase):
    """The rule by which names are judged."""

    def test_wrong_names(self) -> None:
        """Missing modules, classes and methods, and names that are not tests, are found."""
        here = "tests.tooling.test_contract"
        self.assertEqual(missing(f"{here}.PageTests.test_names"), "")
        for name in (
            "tests.tooling.no_such_module.PageTests.test_names",
            f"{here}.NoSuchTests.test_names",
            f"{here}.PageTests.test_nothing",
            f"{here}.PageTests.setUp",
            here,
        ):
            self.assertIn(name, missing(name))
        path = Path(__file__)
        self.assertEqual(missing_in_source("x", path, "PageTests"), "")
        self.assertIn("NoSuchTests", missing_in_source("x", path, "NoSuchTests"))
