"""The check of a built site finds each kind of broken link."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.sitelinks import broken, main

GOOD = (
    '<h1 id="top">x</h1><a name="old"></a><a href="#top"></a><a href="sub/b.html#é"></a><img src="a%20b.svg">'
    '<a href="https://example.org/x#y"></a><a href="mailto:a@example.org"></a><a href></a>'
)


class BrokenTests(SynchronousTestCase):
    """A small site."""

    def site(self, body: str) -> Path:
        """Write a site of two pages and a picture."""
        folder = Path(self.mktemp())
        (folder / "sub").mkdir(parents=True)
        (folder / "a b.svg").write_text("<svg/>", "utf-8")
        (folder / "a.html").write_text(body, "utf-8")
        (folder / "sub" / "b.html").write_text('<p id="é"><a href="../a.html#old">x</a>', "utf-8")
        return folder

    def test_good(self) -> None:
        """Anchors by id and name, quoted paths, addresses elsewhere: nothing is wrong."""
        self.assertEqual(broken(self.site(GOOD)), [])

    def test_broken(self) -> None:
        """A missing file, anchor or picture, a folder, and whatever is outside of the site."""
        wrong = {
            '<a href="c.html">': "c.html (no such file)",
            '<a href="#none">': "#none (no such anchor)",
            '<a href="sub/b.html#none">': "sub/b.html#none (no such anchor)",
            '<img src="none.svg">': "none.svg (no such file)",
            '<link href="none.css">': "none.css (no such file)",
            '<a href="sub/">': "sub/ (no such file)",
            '<a href="/a.html">': "/a.html (outside of the site)",
            '<a href="../README.md">': "../README.md (outside of the site)",
        }
        for element, told in wrong.items():
            self.assertEqual(broken(self.site(GOOD + element)), [f"a.html: {told}"])

    def test_status(self) -> None:
        """The command lists them and fails."""
        errors = StringIO()
        self.patch(sys, "stderr", errors)
        self.assertEqual(main(str(self.site(GOOD + '<a href="c.html">'))), 1)
        self.assertEqual(errors.getvalue(), "a.html: c.html (no such file)\n")
