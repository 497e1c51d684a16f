"""The samples in README.md and docs/ print what the pages say."""

from __future__ import annotations

import difflib
import shutil
import unittest

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling import console
from tests.tooling.sources import ROOT


@unittest.skipIf(
    shutil.which("curl") is None or shutil.which("bash") is None, "the samples use curl and bash"
)
class PageTests(SynchronousTestCase):
    """Every sample of a page, in order, against a gateway started for it."""

    def check(self, name: str) -> None:
        """Run the samples of one page and compare."""
        page = (ROOT / name).read_text(encoding="utf-8")
        self.assertTrue(console.BLOCK.search(page), f"{name} has no samples")
        with console.gateway() as place:
            now = console.rerun(page, place)
        difference = "\n".join(difflib.unified_diff(page.splitlines(), now.splitlines(), name, "printed now"))
        self.assertEqual(difference, "", f"make docs updates the page\n{difference}")


def _test_of(name: str) -> object:
    def test(self: PageTests) -> None:
        self.check(name)

    test.__doc__ = f"The samples of {name} print what it says."
    return test


for _name in console.PAGES:
    setattr(
        PageTests, "test_" + _name.replace("/", "_").replace("-", "_").removesuffix(".md"), _test_of(_name)
    )


class ParsingTests(SynchronousTestCase):
    """Recognition of samples, and of equal outputs."""

    def test_commands_and_outputs(self) -> None:
        """A command runs on after a backslash; all up to the next one is its output."""
        found = console.samples("$ curl -s \\\n    url\none\ntwo\n$ true\n")
        self.assertEqual(found, [("curl -s \\\n    url", "one\ntwo"), ("true", "")])

    def test_what_differs_between_runs(self) -> None:
        """A new CAS is the same output; another status or value is not."""
        one = 'HTTP/1.1 200 OK\r\nETag: 18a1\r\n\r\n{"cas":"18a1","value":1}'
        other = 'HTTP/1.1 200 OK\nETag: 77\n\n{"cas":"77","value":1}\n'
        self.assertEqual(console.blurred(one), console.blurred(other))
        self.assertNotEqual(console.blurred(one), console.blurred(other.replace("200", "404")))
        self.assertNotEqual(console.blurred(one), console.blurred(other.replace('"value":1', '"value":2')))
