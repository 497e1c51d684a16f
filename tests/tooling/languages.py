"""Programs of examples in their pages: ``python -m tests.tooling.languages`` writes them there.

A page names a file of the repository in a comment, and its text follows as a fenced block:

    <!-- file: examples/languages/go/tickets.go -->
    ...
    <!-- end of the file -->
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.tooling.sources import ROOT

PAGES = ROOT / "docs" / "languages"
FOLDERS = (PAGES, ROOT / "docs" / "moving")
"""Folders of pages that show files."""
PLACE = re.compile(
    r"(?P<begin><!-- file: (?P<name>\S+) -->\n)(?P<text>.*?)(?P<end><!-- end of the file -->\n)", re.DOTALL
)

KINDS = {
    ".cs": "csharp",
    ".csproj": "xml",
    ".exs": "elixir",
    ".go": "go",
    ".html": "html",
    ".java": "java",
    ".json": "json",
    ".lua": "lua",
    ".mjs": "javascript",
    ".mod": "text",
    ".php": "php",
    ".py": "python",
    ".rb": "ruby",
    ".rs": "rust",
    ".sh": "bash",
    ".toml": "toml",
    ".ts": "typescript",
    ".txt": "text",
    ".xml": "xml",
}
"""End of a file's name -> what its block is marked with."""


def written(page: str) -> str:
    """Return a page's text with the files as they are now.

    :raises FileNotFoundError: it names a file that does not exist.
    """

    def block(place: re.Match[str]) -> str:
        path = ROOT / place["name"]
        text = path.read_text(encoding="utf-8").rstrip("\n")
        return f"{place['begin']}```{KINDS[path.suffix]}\n{text}\n```\n{place['end']}"

    return PLACE.sub(block, page)


def files_of(page: str) -> list[str]:
    """Return the names of the files that a page shows."""
    return [place["name"] for place in PLACE.finditer(page)]


def pages() -> list[Path]:
    """Return the pages, sorted."""
    return sorted(path for folder in FOLDERS for path in folder.glob("*.md"))


def main() -> None:
    """Write the pages whose files have changed."""
    for path in pages():
        before = path.read_text(encoding="utf-8")
        after = written(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: written")


if __name__ == "__main__":
    main()
