"""The pages for people who change the project name files, tests and commands that exist."""

from __future__ import annotations

import re

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.sources import ROOT

CODE = re.compile(r"`([^`]+)`")
FILE = re.compile(
    r"[a-z][\w/.-]*/[\w.-]+\.(?:py|mjs|md|yaml|yml|toml|txt)|(?:setup\.py|deploy/Containerfile)"
)
TEST = re.compile(r"tests(?:\.\w+)+")
RECORDS = ROOT / "docs" / "decisions"
SECTIONS = ["Context", "Decision", "Consequences", "Alternatives considered"]


def rows(name: str) -> list[list[str]]:
    """Return the cells of every row of a page's tables, without their heads."""
    lines = (ROOT / "docs" / name).read_text(encoding="utf-8").splitlines()
    found = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")
    ]
    return [
        cells
        for cells in found
        if not set(cells[0]) <= {"-"} and cells[0] not in ("I want to change", "record")
    ]


class MapTests(SynchronousTestCase):
    """docs/changing.md."""

    def test_rows(self) -> None:
        """Each row names at least one file and one test, and what it names exists."""
        found = rows("changing.md")
        self.assertGreaterEqual(len(found), 30)
        for what, place, test in found:
            files = [name for name in CODE.findall(place) if FILE.fullmatch(name)]
            missing = [name for name in files if not (ROOT / name).exists()]
            self.assertEqual(missing, [], what)
            self.assertTrue(files or "python -m" in place or "page" in place, what)
            tests = [name for name in CODE.findall(test) if TEST.fullmatch(name)]
            self.assertTrue(tests, what)
            for name in tests:
                self.assertIsNotNone(namedAny(name), what)

    def test_names_in_parentheses(self) -> None:
        """What a row names in parentheses after a file is defined there."""
        for what, place, _ in rows("changing.md"):
            for name, inner in re.findall(r"`([\w/.]+\.py)` \(`(\w+)`\)", place):
                source = (ROOT / name).read_text(encoding="utf-8")
                defined = re.search(rf"^(?:class |def |){inner}\b", source, re.MULTILINE)
                self.assertIsNotNone(defined, f"{what}: {inner} in {name}")


class RecordTests(SynchronousTestCase):
    """docs/decisions."""

    def test_index(self) -> None:
        """The index has a row for each record, in their order, and numbers have no gaps."""
        names = sorted(path.name for path in RECORDS.glob("[0-9]*.md"))
        linked = [re.findall(r"\]\(([^)]+)\)", cells[0])[0] for cells in rows("decisions/index.md")]
        self.assertEqual(linked, names)
        self.assertEqual([int(name[:4]) for name in names], list(range(1, len(names) + 1)))
        self.assertGreaterEqual(len(names), 20)

    def test_form(self) -> None:
        """Each record has number, status, date and the four sections, and fits on a page."""
        for path in sorted(RECORDS.glob("[0-9]*.md")):
            text = path.read_text(encoding="utf-8")
            self.assertTrue(text.startswith(f"# {int(path.name[:4])}. "), path.name)
            self.assertRegex(text, r"\n- Status: (accepted|replaced by \[decision \d+\])", path.name)
            self.assertRegex(text, r"\n- Date: \d{4}-\d{2}-\d{2}", path.name)
            self.assertEqual(re.findall(r"^## (.+)$", text, re.MULTILINE), SECTIONS, path.name)
            self.assertTrue(25 <= text.count("\n") <= 60, path.name)

    def test_names(self) -> None:
        """Files and tests that a record names exist."""
        for path in sorted(RECORDS.glob("*.md")):
            for name in CODE.findall(path.read_text(encoding="utf-8")):
                if TEST.fullmatch(name):
                    self.assertIsNotNone(namedAny(name), path.name)
                elif FILE.fullmatch(name) and "/" in name and name.split("/")[0] in TOP:
                    self.assertTrue((ROOT / name).exists(), f"{path.name}: {name}")


TOP = {path.name for path in ROOT.iterdir() if path.is_dir()}


class CommandTests(SynchronousTestCase):
    """CONTRIBUTING.md and docs/contributing.md."""

    def test_targets(self) -> None:
        """Every ``make TARGET`` of these pages and of the templates is a target."""
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
        pages = ["CONTRIBUTING.md", "docs/contributing.md", ".github/pull_request_template.md"]
        for name in pages:
            used = re.findall(
                r"(?:^    |`|\$ )make ([a-z]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE
            )
            self.assertTrue(used, name)
            self.assertEqual(set(used) - targets, set(), name)

    def test_issue_forms(self) -> None:
        """Each form has a name, a description and fields with labels, and asks for no private matter."""
        for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[0-9]*.yml")):
            text = path.read_text(encoding="utf-8")
            for word in ("name: ", "description: ", "body:", "required: true"):
                self.assertIn(word, text, path.name)
            fields = len(re.findall(r"^  - type: (?!markdown)", text, re.MULTILINE))
            self.assertEqual(len(re.findall(r"^      label: ", text, re.MULTILINE)), fields, path.name)
