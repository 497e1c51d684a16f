"""Check a built site: ``python -m tests.tooling.sitelinks FOLDER`` lists links that lead nowhere.

Sphinx checks the links that it makes; this reads what a browser gets, so it also sees the theme, templates,
pictures, and links between Sphinx's pages and those of the API. The exit status is 1 if one is broken.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LINKS = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src", "iframe": "src"}


class Page(HTMLParser):
    """The links and anchors of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Take the link and the anchors of an element."""
        for name, value in attributes:
            if value is None:
                continue
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value)
            if name == LINKS.get(tag):
                self.links.append(value)


def broken(folder: Path) -> list[str]:
    """Return the links between pages of a site that lead nowhere: no such file, or no such anchor in it."""
    root = folder.resolve()
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(root.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            where = f"{path.relative_to(root)}: {link}"
            if target != root and root not in target.parents:
                found.append(f"{where} (outside of the site)")
            elif target.is_dir() or not target.exists():
                found.append(f"{where} (no such file)")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{where} (no such anchor)")
    return found


def main(folder: str) -> int:
    """Print broken links; return the exit status."""
    found = broken(Path(folder))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
