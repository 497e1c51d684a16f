"""The written pages: links work, and nothing in the repository depends on one machine."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.sources import ROOT, tracked_files

# Also around a picture, as [![...](picture)](page); and the target of a reference, as in "[name]: page.md".
LINK = re.compile(
    r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|^ {0,3}\[[^\]^]+\]:\s+<?([^\s>]+)|\b(?:href|src)=\"([^\"]+)\"",
    re.MULTILINE,
)
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
# A page that a message, a help text, a docstring or a comment sends its reader to.
MENTION = re.compile(r"(?<![\w./-])(?:docs|examples|deploy|gateway|tests)/[\w./-]*\w\.md(#[\w-]+)?")
FENCE = re.compile(r"^(```|~~~)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
CONFLICT = re.compile(r"^[<>]{7} .*$", re.MULTILINE)
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|farm|home/\w+|Users/\w+)/\w")


def pages() -> list[Path]:
    """Return every Markdown page of the repository."""
    return [path for path in tracked_files() if path.suffix == ".md"]


def prose(text: str) -> list[str]:
    """Return the lines of a page that are outside of fenced code."""
    lines, fenced = [], False
    for line in text.splitlines():
        if FENCE.match(line.lstrip()):
            fenced = not fenced
        elif not fenced:
            lines.append(line)
    return lines


def links(text: str) -> list[str]:
    """Return the targets of a page's links and pictures; what is in code is none."""
    return ["".join(found) for found in LINK.findall(CODE.sub("``", "\n".join(prose(text))))]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, made as the usual Markdown hosts make them."""
    found: dict[str, int] = {}
    names = set()
    for line in prose(text):
        heading = HEADING.match(line)
        if heading:
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1)).lower()
            slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
            count = found.get(slug, 0)
            found[slug] = count + 1
            names.add(f"{slug}-{count}" if count else slug)
    return names


def broken_links(page: Path) -> list[str]:
    """Return the links of one page that lead nowhere inside the repository."""
    broken = []
    for link in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists():
            broken.append(f"{page.relative_to(ROOT)}: {link}")
        elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text(encoding="utf-8")):
            broken.append(f"{page.relative_to(ROOT)}: {link} (no such heading)")
    return broken


class LinkTests(SynchronousTestCase):
    """Links between pages."""

    def test_links_resolve(self) -> None:
        """Each relative link names a file of the repository, and its fragment a heading there."""
        self.assertEqual([link for page in pages() for link in broken_links(page)], [])

    def test_every_page_is_reachable(self) -> None:
        """Each page under docs/ is linked from another page, so a reader can come across it."""
        linked = set()
        for page in pages():
            for link in links(page.read_text(encoding="utf-8")):
                if "://" not in link and link.partition("#")[0]:
                    linked.add((page.parent / link.partition("#")[0]).resolve())
        lonely = [path for path in pages() if (ROOT / "docs") in path.parents and path not in linked]
        self.assertEqual([str(path.relative_to(ROOT)) for path in lonely], [])

    def test_mentioned_pages_exist(self) -> None:
        """A page that code names exists, and its heading too: messages and help texts send readers there."""
        wrong, count = [], 0
        for path in tracked_files():
            if path.suffix not in (
                ".py",
                ".sh",
                ".toml",
                ".yaml",
                ".yml",
                ".service",
                ".js",
                ".mjs",
                ".html",
            ):
                continue
            for found in MENTION.finditer(path.read_text(encoding="utf-8")):
                count += 1
                name, _, anchor = found.group().partition("#")
                page = ROOT / name
                if not page.is_file() or (anchor and anchor not in anchors(page.read_text(encoding="utf-8"))):
                    wrong.append(f"{path.relative_to(ROOT)}: {found.group()}")
        self.assertEqual(wrong, [])
        self.assertGreater(count, 10)

    def test_pages_begin_with_a_sentence(self) -> None:
        """Under its title each page says in words what it is for, before pictures, tables and commands."""
        wrong = []
        for path in pages():
            # A decision begins with its state and its date.
            if (
                path.parts[len(ROOT.parts)] in ("docs", "examples", "gateway")
                and path.parent.name != "decisions"
            ):
                title, _, rest = path.read_text(encoding="utf-8").partition("\n\n")
                if not title.startswith("# ") or not re.match(r"[A-Za-z`\[]", rest):
                    wrong.append(f"{path.relative_to(ROOT)}: {rest[:40]!r}")
        self.assertEqual(wrong, [])

    def test_link_rule(self) -> None:
        """Every form of a link counts, also around a picture; code that looks like one does not."""
        text = (
            '[a](b.md) ![c](d.png "title") [![e](f.svg)](g.md#h) [i [j]](k.md) <img src="l.svg">\n'
            "[m]: n.md\n`[o](p.md)` ``[q](`r`.md)`` [s\nt](u.md) [v](<w.md>)\n```\n[x](y.md)\n```\n"
        )
        self.assertEqual(
            links(text),
            ["b.md", "d.png", "f.svg", "g.md#h", "k.md", "l.svg", "n.md", "u.md", "w.md"],
        )

    def test_anchor_rule(self) -> None:
        """Headings become anchors as readers know them; code that looks like a heading does not."""
        text = "# The `way` of a request\n```\n# no heading\n```\n## Twice\n## Twice\n"
        self.assertEqual(anchors(text), {"the-way-of-a-request", "twice", "twice-1"})


class MachineTests(SynchronousTestCase):
    """Nothing in the repository depends on where it was written."""

    def test_no_machine_paths(self) -> None:
        """No tracked text file names a folder of a developer's machine."""
        found = []
        for path in tracked_files():
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError:
                continue
            found += [
                f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
                for number, line in enumerate(lines, 1)
                if MACHINE_PATH.search(line)
            ]
        self.assertEqual(found, [])

    def test_no_lines_of_a_merge(self) -> None:
        """No tracked text file has the lines with which git marks a conflict."""
        found = []
        for path in tracked_files():
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            found += [f"{path.relative_to(ROOT)}: {line}" for line in CONFLICT.findall(text)]
        self.assertEqual(found, [])
        self.assertEqual(len(CONFLICT.findall("<" * 7 + " HEAD\na\n" + "=" * 7 + "\n" + ">" * 7 + " b\n")), 2)

    def test_path_rule(self) -> None:
        """The pattern finds a machine's path and accepts a URL or a system path."""
        self.assertTrue(MACHINE_PATH.search("cd /ro" + "ot/x"))
        self.assertFalse(MACHINE_PATH.search("https://example.org/work/x and /var/lib/couchgateway"))
