"""The site: its sidebar follows the index, and links to files lead to pages."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.sitepages import FOLDERS, inside, listing, module_of, place_of, repaired, sections, sidebar
from tests.tooling.sources import ROOT

INDEX = """# Index

Text with [a link](elsewhere.md).

## First

- [one](one.md): words
- [two](howto/two.md#part), and [three](three.md)

### Second

- [four](../four/README.md)
- no link
"""


class SidebarTests(SynchronousTestCase):
    """The table of contents of the site."""

    def test_sections(self) -> None:
        """The first link of each list item that is a page, by heading, in the order of the index."""
        self.assertEqual(sections(INDEX), {"First": ["docs/one"], "Second": ["four/README"]})

    def test_new_pages_appear(self) -> None:
        """A page that the index does not list is under the heading of its folder, after the listed ones."""
        text = sidebar(
            INDEX + "## How to run it\n- [x](howto/x.md)\n", ["docs/howto/new", "docs/index", "NEW"]
        )
        self.assertTrue(text.startswith("```{toctree}\n:hidden:\n:caption: First\n\n/docs/one\n```\n\n"))
        self.assertIn(":caption: How to run it\n\n/docs/howto/x\n/docs/howto/new\n```", text)
        self.assertTrue(text.endswith(":caption: Project\n\n/NEW\n```\n"))
        self.assertNotIn("docs/index", text)

    def test_folders_with_an_index(self) -> None:
        """Their pages are below that index, in the order of its links; new ones come last."""
        pages = ["docs/index", "docs/new", "docs/x/index", "docs/x/a", "docs/x/b", "docs/x/c"]
        text = sidebar("## One\n- [x](x/index.md)\n", pages)
        self.assertIn(":caption: One\n\n/docs/x/index\n```", text)
        self.assertIn("/docs/new\n", text)
        self.assertNotIn("docs/x/a", text)
        below = inside(
            "[b](b.md#p) and [e](https://e.org/c.md) [a](a.md) [b](b.md) [n](../new.md)",
            "docs/x/index",
            pages,
        )
        self.assertEqual(below, "```{toctree}\n:hidden:\n\n/docs/x/b\n/docs/x/a\n/docs/x/c\n```\n")
        self.assertEqual(inside("", "docs/y/index", pages), "")

    def test_the_index(self) -> None:
        """Each page that the index lists exists once; headings are kinds of pages."""
        found = sections((ROOT / "docs" / "index.md").read_text("utf-8"))
        entries = [page for pages in found.values() for page in pages]
        self.assertEqual([page for page in entries if not (ROOT / f"{page}.md").is_file()], [])
        self.assertEqual(len(entries), len(set(entries)))
        self.assertEqual((next(iter(found)), list(found)[-2:]), ("Tutorial", ["Reference", "Explanation"]))
        self.assertGreater(len(entries), 30)
        self.assertEqual([name for name in FOLDERS.values() if name not in found], [])


class PlaceTests(SynchronousTestCase):
    """Pages of files."""

    def test_places(self) -> None:
        """A file's page has its path, a folder's page is its index, a module's API page its dotted name."""
        self.assertEqual(place_of("deploy"), "deploy/index")
        self.assertEqual(place_of("deploy/couchgateway.toml"), "deploy/couchgateway.toml")
        self.assertEqual(module_of("couchbase/__init__.py"), "couchbase")
        self.assertEqual(module_of("couchbase/views/rows.py"), "couchbase.views.rows")

    def test_listing(self) -> None:
        """A folder's page lists the files below it, without caches."""
        found = listing(ROOT / "deploy")
        self.assertIn("systemd/couchgateway.service", found)
        self.assertEqual([name for name in found if "__pycache__" in name or name.startswith(".")], [])


class RepairTests(SynchronousTestCase):
    """What the theme leaves out."""

    def test_repaired(self) -> None:
        """Keyboard, levels of headings, names of landmarks, empty heads; a second time changes nothing."""
        page = (
            '<aside class="sidebar-drawer"><p role="heading">x</p></aside><pre>y</pre>'
            '<div class="table-wrapper docutils"><th class="head"><p></p></th>'
            '<th class="head"><p>z</p></th></div>'
            '<aside class="toc-drawer no-toc"></aside>'
        )
        better = (
            '<aside aria-label="Pages" class="sidebar-drawer"><p role="heading" aria-level="2">x</p>'
            '</aside><pre tabindex="0">y</pre><div tabindex="0" class="table-wrapper docutils"><td></td>'
            '<th class="head"><p>z</p></th></div>'
            '<aside aria-label="On this page" class="toc-drawer no-toc"></aside>'
        )
        self.assertEqual(repaired(page), better)
        self.assertEqual(repaired(better), better)
