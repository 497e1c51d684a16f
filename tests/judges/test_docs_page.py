"""The page ``/docs`` in a browser: axe finds nothing, its policy is kept, requests can be tried."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import TestCase

from tests.judges import browser
from tests.judges.programs import Process, free_port, twistd

LINE = "document.querySelector('#put_document .curl').textContent"
OUTCOME = "document.querySelector('#{} .outcome')"


class PageTests(TestCase):
    """One gateway, one browser."""

    timeout = 180
    if browser.missing():
        skip = browser.missing()

    def setUp(self) -> None:
        self.port = free_port()
        self.gateway: Process = twistd(
            "couchgateway", "--ephemeral", "--listen", f"tcp:{self.port}:interface=127.0.0.1"
        )
        self.addCleanup(self.gateway.stop)
        self.gateway.until_answers(self.port, "/ready")

    def test_page(self) -> Deferred[None]:
        """On a desktop and a phone, light and dark; then the search, and requests from the page."""
        return ensureDeferred(self.page())

    async def page(self) -> None:
        shown = browser.Browser(Path(self.mktemp()))
        self.addCleanup(lambda: ensureDeferred(shown.close()))
        await shown.start()
        await shown.open(f"http://127.0.0.1:{self.port}/docs")
        for size in (browser.DESKTOP, browser.PHONE):
            for scheme in ("light", "dark"):
                await shown.resize(*size)
                await shown.prefer(scheme)
                self.assertEqual(await shown.violations(), [], f"{size} {scheme}")
                wide = await shown.run("document.documentElement.scrollWidth - innerWidth")
                self.assertLessEqual(wide, 0, "the page scrolls sideways")
                picture = os.environ.get("SCREENSHOTS")
                if picture:
                    await shown.screenshot(Path(picture) / f"docs-{size[0]}-{scheme}.png")
        await shown.resize(*browser.DESKTOP)
        await self.search(shown)
        await self.request(shown)
        self.assertEqual(await shown.violations(), [], "with an outcome")
        self.assertEqual(shown.mishaps(), [])

    async def search(self, shown: browser.Browser) -> None:
        """A slash leads to the search, which leaves what fits."""
        await shown.press("/")
        self.assertEqual(await shown.focused(), "Search")
        await shown.type("increment")
        await shown.until("document.querySelector('#found').textContent === '2 found'")
        left = "[...document.querySelectorAll('article[data-words]:not([hidden])')].map(one => one.id)"
        self.assertEqual(await shown.run(left), ["increment_document", "increment_document_in_collection"])
        for _ in "increment":
            await shown.press("Backspace")
        await shown.until("document.querySelector('#found').textContent === ''")

    async def request(self, shown: browser.Browser) -> None:
        """A document with a hostile key and body is stored, and shown as text."""
        hostile = "<img src=x onerror=alert(1)>'\"/%"
        await self.enter(shown, "#put_document-path-key", hostile)
        line = await shown.run(LINE)
        self.assertIn("-X PUT", line)
        self.assertIn("%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E", line)
        await self.enter(shown, "#put_document textarea", '{"a": "</textarea><script>alert(2)</script>"}')
        await shown.click("#put_document [type=submit]")
        outcome = OUTCOME.format("put_document")
        await shown.until(f"{outcome}.innerText.startsWith('200')")
        self.assertIn("x-cb-mutationtoken: default:", await shown.run(f"{outcome}.innerText"))
        await self.enter(shown, "#get_document-path-key", hostile)
        await shown.click("#get_document [type=submit]")
        outcome = OUTCOME.format("get_document")
        await shown.until(f"{outcome}.innerText.includes('</textarea><script>')")
        self.assertEqual(await shown.run(f"{outcome}.querySelectorAll('script, img').length"), 0)

    async def enter(self, shown: browser.Browser, selector: str, text: str) -> None:
        """Replace the text of a field."""
        await shown.run(f"(e => {{ e.select(); e.focus() }})(document.querySelector('{selector}'))")
        await shown.type(text)
