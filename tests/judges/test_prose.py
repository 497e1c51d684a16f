"""Vale reads the pages with the rules of ``tests/tooling/prose``, and agrees with our own reading of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.tooling.prose.rules import FOLDER
from tests.tooling.sources import ROOT, tracked_files
from tests.tooling.test_prose import found, paragraphs

VALE = ROOT / "build" / "judges" / "vale"

# A paragraph for each rule that breaks it, and the rule.
WRONG = {
    "It waits for ever.": "Words",
    "The client is told.": "Words",
    "It ends. Of these one is left.": "Fronted",
    "There is a word word too many.": "Twice",
    "Its behavior differs.": "Spelling",
    f"It has {'word and ' * 31}another.": "Long",
}


class ValeTests(SynchronousTestCase):
    """The linter itself."""

    def setUp(self) -> None:
        self.vale = str(VALE) if VALE.exists() else shutil.which("vale")
        if self.vale is None:
            raise SkipTest("no vale on the path, and make judges could not build it")

    def read(self, *pages: Path) -> list[tuple[str, int, str]]:
        """Return the page, line and rule of each finding of Vale."""
        assert self.vale is not None
        command = [self.vale, f"--config={FOLDER / 'vale.ini'}", "--output=JSON", "--no-exit"]
        done = subprocess.run(
            [*command, *map(str, pages)], capture_output=True, text=True, check=True, cwd=ROOT
        )
        made: dict[str, list[dict[str, object]]] = json.loads(done.stdout or "{}")
        return [
            (name, int(str(one["Line"])), str(one["Check"]).removeprefix("House."))
            for name, all_of_it in made.items()
            for one in all_of_it
        ]

    def test_pages(self) -> None:
        """It finds nothing in the pages."""
        pages = [path for path in tracked_files() if path.suffix == ".md"]
        self.assertGreater(len(pages), 30)
        self.assertEqual(self.read(*pages), [])

    def test_same_findings(self) -> None:
        """It finds what our own reading finds, in the same lines."""
        page = Path(self.mktemp()).with_suffix(".md")
        page.write_text("\n\n".join(WRONG), encoding="utf-8")
        lines = {2 * number + 1: rule for number, rule in enumerate(WRONG.values())}
        self.assertEqual({line: rule for _, line, rule in self.read(page.resolve())}, lines)
        ours = found(paragraphs(page.read_text(encoding="utf-8")))
        self.assertEqual({line: one.rule for line, one in ours}, lines)
