"""The site in a browser: readable for everybody, on every screen and on paper, and its search finds words."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTCP
from twisted.trial.unittest import TestCase
from twisted.web.server import Site
from twisted.web.static import File

from tests.judges import browser
from tests.judges.programs import ROOT

TOOLS = ROOT / ".venv-site" / "bin" / "python"
BUILD_SECONDS = 200
PAGES = (
    "docs/index",
    "docs/howto/views",
    "docs/rest-api",
    "docs/architecture",
    "search",
    "examples/guide/hello.py",
    "deploy/index",
)
HIDDEN = "[...document.querySelectorAll('.sidebar-drawer, .toc-drawer')].every(one => !one.offsetParent)"
RESULTS = "[...document.querySelectorAll('#search-results li a')].map(one => one.textContent)"


def missing() -> str | None:
    """Return why the site cannot be shown; ``None`` if it can."""
    return browser.missing() or (
        None if TOOLS.exists() else "no .venv-site (make judges or make site makes it)"
    )


class SiteTests(TestCase):
    """The built site on a port, and one browser."""

    timeout = 400
    if missing():
        skip = missing()

    def setUp(self) -> None:
        folder = Path(self.mktemp()).resolve()
        # Without the API, which is pydoctor's, and takes longer than all other pages.
        command = [str(TOOLS), "-m", "sphinx", "-c", "docs", "-E", "-q", "-W", "--keep-going"]
        done = subprocess.run(
            [*command, "-d", f"{folder}.read", ".", str(folder)],
            cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=BUILD_SECONDS,
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("url=docs/index.html", (folder / "index.html").read_text("utf-8"))
        port = IReactorTCP(reactor).listenTCP(0, Site(File(str(folder))), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}"

    def test_site(self) -> Deferred[None]:
        """Light and dark, wide and narrow, printed, searched: axe finds nothing."""
        return ensureDeferred(self.site())

    async def site(self) -> None:
        shown = browser.Browser(Path(self.mktemp()))
        self.addCleanup(lambda: ensureDeferred(shown.close()))
        await shown.start()
        found = []
        for page in PAGES:
            await shown.open(f"{self.url}/{page}.html")
            for size in (browser.DESKTOP, browser.PHONE):
                for scheme in ("light", "dark"):
                    await shown.resize(*size)
                    await shown.prefer(scheme)
                    where = f"{page} {size[0]} {scheme}"
                    found += [f"{where}: {one}" for one in await shown.violations()]
                    wide = await shown.run("document.documentElement.scrollWidth - innerWidth")
                    found += [f"{where}: scrolls sideways by {wide}"] if wide > 0 else []
                    await self.picture(shown, where)
        self.assertEqual(found, [], "\n" + "\n".join(found))
        await shown.resize(*browser.DESKTOP)
        await self.paper(shown)
        await self.search(shown)
        self.assertEqual(shown.mishaps(), [])

    async def paper(self, shown: browser.Browser) -> None:
        """Printed, a page is its text: no sidebar, and no light text on dark."""
        await shown.open(f"{self.url}/docs/howto/views.html")
        features = [{"name": "prefers-color-scheme", "value": "dark"}]
        await shown.ask("Emulation.setEmulatedMedia", media="print", features=features)
        self.assertTrue(await shown.run(HIDDEN), "navigation is printed")
        self.assertEqual(
            await shown.run("getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)"
        )
        await self.picture(shown, "paper")
        await shown.ask("Emulation.setEmulatedMedia", media="")

    async def search(self, shown: browser.Browser) -> None:
        """A word in the field of the sidebar leads to the pages that have it, and they can be followed."""
        await shown.open(f"{self.url}/docs/index.html")
        await shown.run("document.querySelector('.sidebar-search').focus()")
        await shown.type("durability")
        await shown.loading(lambda: shown.press("Enter"))
        self.assertEqual(await shown.run("location.pathname"), "/search.html")
        await shown.until("document.querySelectorAll('#search-results li').length > 3")
        await shown.until("document.querySelector('#search-results p').textContent.includes('found')")
        results = await shown.run(RESULTS)
        self.assertIn("REST reference", results)
        await self.picture(shown, "results")
        self.assertEqual(await shown.violations(), [])
        first = "document.querySelector('#search-results li a')"
        page = await shown.run(f"{first}.pathname")
        await shown.loading(lambda: shown.run(f"{first}.click()"))
        self.assertEqual(await shown.run("location.pathname"), page)

    async def picture(self, shown: browser.Browser, name: str) -> None:
        """Keep a picture if one is wanted."""
        folder = os.environ.get("SCREENSHOTS")
        if folder:
            await shown.screenshot(Path(folder) / f"site-{name.replace('/', '-').replace(' ', '-')}.png")
