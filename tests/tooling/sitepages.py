"""What the site adds to Sphinx: the sidebar from the index, and a page for each file that a page links to.

``docs/conf.py`` loads this module as an extension. It runs in the environment of ``make site``, so everything
that needs Sphinx is imported in the functions that use it; the rest is plain and has tests.
"""

from __future__ import annotations

import posixpath
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from tests.tooling.graphs import drawn
from tests.tooling.sources import ROOT

INDEX = "docs/index"
API = "api"
"""Folder of the site in which pydoctor writes the pages of the SDK."""
API_PAGE = "docs/api"
"""Page whose links to modules lead to their API pages, where a code host shows their source."""

FOLDERS = {
    "docs/howto": "How to run it",
    "docs/languages": "From other languages",
    "docs/moving": "How to move here",
    "docs/decisions": "Explanation",
    "docs": "Reference",
}
"""Section of the sidebar for pages that the index does not list, by folder; others go to ``REST``."""
REST = "Project"

_HEADING = re.compile(r"^#{2,3}\s+(.*?)\s*$")
_PAGE = re.compile(r"\]\(([^)\s#:]+\.md)")
_ENTRY = re.compile(r"^- \[[^\]]*\]\(([^)\s#]+\.md)\)")


def sections(text: str, folder: str = "docs") -> dict[str, list[str]]:
    """Return the pages that an index lists, by heading, in its order.

    :param text: the index; an entry is a list item that begins with a link to a page.
    :param folder: the index's own, relative to the root.
    """
    found: dict[str, list[str]] = {}
    heading = ""
    for line in text.splitlines():
        title, entry = _HEADING.match(line), _ENTRY.match(line)
        if title:
            heading = title.group(1)
        elif entry:
            page = posixpath.normpath(posixpath.join(folder, entry.group(1)))
            found.setdefault(heading, []).append(page.removesuffix(".md"))
    return found


def contents(pages: Iterable[str], caption: str = "") -> str:
    """Return a table of contents that shows in the sidebar only."""
    lines = [f"In a minute </{page}>" if page == "README" else f"/{page}" for page in pages]
    head = ["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else []), ""]
    return "\n".join([*head, *lines, "```\n"])


def sidebar(text: str, pages: Iterable[str]) -> str:
    """Return the tables of contents for the end of the index: its sections, then what it does not list.

    :param pages: names of all pages, without ``.md``. A folder with an index lists its pages there.
    """
    listed = sections(text)
    known = {page for entries in listed.values() for page in entries} | {INDEX}
    for page in sorted(set(pages) - known):
        folder = posixpath.dirname(page)
        if folder == posixpath.dirname(INDEX) or f"{folder}/index" not in known:
            listed.setdefault(FOLDERS.get(folder, REST), []).append(page)
    return "\n".join(contents(entries, heading) for heading, entries in listed.items())


def inside(text: str, name: str, pages: Iterable[str]) -> str:
    """Return the table of contents for a folder's index: its pages in the order of its links, then others."""
    folder = posixpath.dirname(name)
    links = [posixpath.normpath(f"{folder}/{link}").removesuffix(".md") for link in _PAGE.findall(text)]
    there = {page for page in pages if posixpath.dirname(page) == folder and page != name}
    ordered = dict.fromkeys([page for page in links if page in there] + sorted(there))
    return contents(ordered) if ordered else ""


def module_of(path: str) -> str:
    """Return the dotted name of a module's file, relative to the root."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def place_of(path: str) -> str:
    """Return the name of the page that shows a file or folder of the repository."""
    return f"{path}/index" if (ROOT / path).is_dir() else path


def listing(folder: Path) -> list[str]:
    """Return the files below a folder, relative to it, without hidden ones and what programs leave behind."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        path.as_posix()
        for path in found
        if not any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    ]


def with_sidebar(app: Any, name: str, source: list[str]) -> None:
    """Append its tables of contents to an index when Sphinx reads it."""
    if name == INDEX:
        source[0] += "\n" + sidebar(source[0], app.env.found_docs)
    elif posixpath.basename(name) == "index":
        source[0] += "\n" + inside(source[0], name, app.env.found_docs)


def link_files(app: Any, tree: Any) -> None:
    """Let links to files and folders of the repository lead to pages that show them."""
    from docutils import nodes
    from sphinx import addnodes

    name = app.env.docname
    shown = app.env.__dict__.setdefault("files_shown", set())
    for node in [*tree.findall(addnodes.download_reference), *tree.findall(addnodes.pending_xref)]:
        target = node.get("reftarget", "")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if node.get("refdomain") == "doc" or not target or not (ROOT / path).exists():
            continue
        if name == API_PAGE and path.endswith(".py"):
            page = f"{API}/{module_of(path)}"
        else:
            page = place_of(path)
            shown.add(path)
        link = nodes.reference("", "", internal=True, refuri=app.builder.get_relative_uri(name, page))
        link += node.children
        node.replace_self(link)


def draw_graphs(app: Any, tree: Any) -> None:
    """Draw the graphs in Mermaid's notation; one that cannot be drawn is a warning."""
    from docutils import nodes
    from sphinx.util import logging

    for node in list(tree.findall(nodes.literal_block)):
        if node.get("language") != "mermaid":
            continue
        try:
            picture, words = drawn(node.astext())
        except ValueError as error:
            logging.getLogger(__name__).warning(str(error), location=node)
            continue
        data = b64encode(picture.encode()).decode()
        image = f'<img class="graph" alt="{escape(words)}" src="data:image/svg+xml;base64,{data}">'
        node.replace_self(nodes.raw("", image, format="html"))


def page_of_file(app: Any, path: str) -> tuple[str, dict[str, str], str]:
    """Return the page that shows one text file with its syntax coloured."""
    from pygments.lexers import guess_lexer_for_filename
    from pygments.util import ClassNotFound

    text = (ROOT / path).read_text("utf-8")
    try:
        language = guess_lexer_for_filename(path, text).aliases[0]
    except ClassNotFound:
        language = "text"
    code = app.builder.highlighter.highlight_block(text, language)
    body = f'<h1>{escape(path)}</h1>\n<div class="highlight-{language} notranslate">{code}</div>'
    return path, {"title": path, "body": body}, "page.html"


REPAIRS = [
    # What scrolls sideways has to be reachable by keyboard.
    (re.compile(r"<pre(?! tabindex)"), '<pre tabindex="0"'),
    (re.compile(r'<div class="table-wrapper'), '<div tabindex="0" class="table-wrapper'),
    # A heading has a level, a landmark a name, and the first corner of a table heads nothing.
    (re.compile(r'role="heading"(?! aria-level)'), 'role="heading" aria-level="2"'),
    (re.compile(r'<aside class="sidebar-drawer"'), '<aside aria-label="Pages" class="sidebar-drawer"'),
    (re.compile(r'<aside class="toc-drawer'), '<aside aria-label="On this page" class="toc-drawer'),
    (re.compile(r'<th class="head[^"]*">(<p></p>)?</th>'), "<td></td>"),
]
"""What the theme leaves out for readers without a mouse or without sight, and what to write in its place."""


def repaired(page: str) -> str:
    """Return a page of the theme with what axe misses in it."""
    for pattern, better in REPAIRS:
        page = pattern.sub(better, page)
    return page


def repair(app: Any, failure: Exception | None) -> None:
    """Repair every page when all are written, but not what pydoctor writes meanwhile."""
    if failure is None:
        root = Path(app.outdir)
        for path in root.rglob("*.html"):
            if path.relative_to(root).parts[0] != API:
                path.write_text(repaired(path.read_text("utf-8")), "utf-8")


def collect_pages(app: Any) -> Iterator[tuple[str, dict[str, str], str]]:
    """Yield pages of linked files and folders, and one at the root of the site that leads to the index."""
    shown: set[str] = app.env.__dict__.get("files_shown", set())
    files = {path for path in shown if (ROOT / path).is_file()}
    for path in sorted(shown - files):
        names = listing(ROOT / path)
        files.update(f"{path}/{name}" for name in names)
        # A page of Markdown in it is a page of the site.
        links = [(name.removesuffix(".md"), name) for name in names]
        items = "".join(f'<li><a href="{escape(page)}.html">{escape(name)}</a></li>' for page, name in links)
        body = f"<h1>{escape(path)}</h1>\n<ul>{items}</ul>"
        yield f"{path}/index", {"title": path, "body": body}, "page.html"
    for path in sorted(files):
        if path.removesuffix(".md") not in app.env.found_docs:
            yield page_of_file(app, path)
    yield "index", {"target": f"{INDEX}.html"}, "redirect.html"


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    from pygments.lexers.special import TextLexer

    app.add_lexer("mermaid", TextLexer)
    app.connect("source-read", with_sidebar)
    app.connect("doctree-read", link_files)
    app.connect("doctree-read", draw_graphs)
    app.connect("html-collect-pages", collect_pages)
    app.connect("build-finished", repair)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
