"""The programs of docs/languages: each runs against a gateway of its own and prints what its page says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SkipTest, TestCase
from twisted.web.server import Site
from twisted.web.static import File

from gateway.server import plugins_for
from gateway.service import GatewayService
from gateway.settings import resolve
from tests.judges import browser
from tests.judges.languages import LANGUAGES, PROGRAMS

EXPECTED = (PROGRAMS / "output.txt").read_text(encoding="utf-8")
LOOPBACK = "tcp:0:interface=127.0.0.1"
BUCKET = "/v1/buckets/default"

# The page's text as soon as the last line, or a failure, is there.
_AT_THE_END = """new Promise(done => {
  const look = () => {
    const text = document.querySelector("pre")?.textContent ?? "";
    if (/^visitors: 2$|^failed/m.test(text)) done(text); else setTimeout(look, 20);
  };
  look();
})"""


class LanguageTests(TestCase):
    """One program a language."""

    timeout = 120

    async def begin(self, **given: Any) -> str:
        """Start a gateway with a new node; return the URL of its bucket."""
        settings = resolve({"listen": [LOOPBACK], "ephemeral": True, **given}, {})
        service = GatewayService(settings, plugins_for(settings))
        service.privilegedStartService()
        service.startService()
        self.addCleanup(service.stopService)
        await service.started
        return str(service.urls[0]) + BUCKET

    def program(self, name: str) -> Deferred[None]:
        """Run a program; compare what it prints."""
        reason = LANGUAGES[name].missing()
        if reason is not None:
            raise SkipTest(reason)
        return ensureDeferred(self._compare(name))

    async def _compare(self, name: str) -> None:
        url = await self.begin()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        printed = ""
        for words, variables in LANGUAGES[name].commands(url):
            output, errors, status = await getProcessOutputAndValue(
                "/usr/bin/env",
                words,
                env={**os.environ, "LC_ALL": "C.UTF-8", **variables},
                path=str(folder),
            )
            printed = output.decode("utf-8")
            complaint = f"{words}:\n{printed}{errors.decode('utf-8', 'replace')}"
            self.assertEqual(status, 0, complaint)
        self.assertEqual(printed, EXPECTED, complaint)

    def test_browser(self) -> Deferred[None]:
        """JavaScript in Chromium, in a page of another origin, which the gateway lets call."""
        if browser.find() is None:
            raise SkipTest(str(browser.missing()))
        return ensureDeferred(self._in_browser())

    async def _in_browser(self) -> None:
        server = reactor.listenTCP(  # type: ignore[attr-defined]
            0, Site(File(str(PROGRAMS / "browser"))), interface="127.0.0.1"
        )
        self.addCleanup(server.stopListening)
        origin = f"http://127.0.0.1:{server.getHost().port}"
        url = await self.begin(**{"cors-origin": [origin]})
        page = browser.Browser(Path(self.mktemp()).resolve())
        self.addCleanup(lambda: ensureDeferred(page.close()))
        await page.start()
        await page.open(f"{origin}/tickets.html?bucket={url}")
        self.assertEqual(await page.run(_AT_THE_END), EXPECTED)
        # Statuses of 400 and more are in the log of a page whose script expects them, too.
        self.assertEqual(page.mishaps(404, 409), [])

    def test_csharp(self) -> Deferred[None]:
        """C#: HttpClient and System.Text.Json."""
        return self.program("csharp")

    def test_elixir(self) -> Deferred[None]:
        """Elixir: httpc and jiffy."""
        return self.program("elixir")

    def test_go(self) -> Deferred[None]:
        """Go: net/http."""
        return self.program("go")

    def test_java(self) -> Deferred[None]:
        """Java: java.net.http and Jackson."""
        return self.program("java")

    def test_lua(self) -> Deferred[None]:
        """Lua: LuaSocket and lua-cjson."""
        return self.program("lua")

    def test_node(self) -> Deferred[None]:
        """JavaScript in Node.js: fetch."""
        return self.program("node")

    def test_php(self) -> Deferred[None]:
        """PHP: the curl extension."""
        return self.program("php")

    def test_python(self) -> Deferred[None]:
        """Python: httpx."""
        return self.program("python")

    def test_ruby(self) -> Deferred[None]:
        """Ruby: net/http."""
        return self.program("ruby")

    def test_rust(self) -> Deferred[None]:
        """Rust: ureq and serde."""
        return self.program("rust")

    def test_shell(self) -> Deferred[None]:
        """Shell: curl and jq."""
        return self.program("shell")

    def test_typescript(self) -> Deferred[None]:
        """TypeScript: openapi-fetch, with the types of the gateway's OpenAPI document."""
        return self.program("typescript")
