"""Pages show programs as they are, and those of docs/languages show all of examples/languages."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.judges.languages import LANGUAGES, PROGRAMS
from tests.tooling.languages import PAGES, files_of, pages, written
from tests.tooling.sources import ROOT, tracked_files

EVERY = {*LANGUAGES, "browser"}


class PageTests(SynchronousTestCase):
    """Page and program."""

    def test_written(self) -> None:
        """Each page has the text of its files (``python -m tests.tooling.languages`` writes them)."""
        for page in pages():
            text = page.read_text(encoding="utf-8")
            self.assertEqual(written(text), text, page.name)

    def test_complete(self) -> None:
        """Each language has a page, with all files of its folder and the output that the test compares."""
        self.assertEqual({page.stem for page in PAGES.glob("*.md")}, {*EVERY, "index"})
        for name in EVERY:
            shown = set(files_of((PAGES / f"{name}.md").read_text(encoding="utf-8")))
            folder = PROGRAMS / name
            there = {str(path.relative_to(ROOT)) for path in tracked_files() if folder in path.parents}
            self.assertEqual(shown, {*there, "examples/languages/output.txt"}, name)

    def test_index(self) -> None:
        """The index has a row for each."""
        index = (PAGES / "index.md").read_text(encoding="utf-8")
        for name in EVERY:
            self.assertIn(f"]({name}.md)", index)

    def test_writing(self) -> None:
        """The text between the comments is replaced, and nothing else."""
        name = "examples/languages/output.txt"
        page = f"before\n<!-- file: {name} -->\nold\n<!-- end of the file -->\nafter\n"
        text = (ROOT / name).read_text(encoding="utf-8")
        expected = f"before\n<!-- file: {name} -->\n```text\n{text}```\n<!-- end of the file -->\nafter\n"
        self.assertEqual(written(page), expected)
        self.assertEqual(written(expected), expected)
        self.assertRaises(FileNotFoundError, written, page.replace(name, "nothing.txt"))
