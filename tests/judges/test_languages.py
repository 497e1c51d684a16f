"""The programs of docs/languages: each runs against a gateway of its own and prints what its page says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredSemaphore, ensureDeferred, gatherResults
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
AT_ONCE = 4

# The page's text as soon as the last line, or a failure, is there.
_AT_THE_END = """new Promise(done => {
  const look = () => {
    const text = document.querySelector("pre")?.textContent ?? "";
    if (/^visitors: 2$|^failed/m.test(text)) done(text); else setTimeout(look, 20);
  };
  look();
})"""


class Outcome(NamedTuple):
    """The end of a program."""

    printed: str
    """By its last command, as the others prepare it."""
    complaint: str
    """The command that failed, with its output; empty if none did."""


async def begin(case: TestCase, **given: Any) -> str:
    """Start a gateway with a new node until the end of a test; return the URL of its bucket."""
    settings = resolve({"listen": [LOOPBACK], "ephemeral": True, **given}, {})
    service = GatewayService(settings, plugins_for(settings))
    service.privilegedStartService()
    service.startService()
    case.addCleanup(service.stopService)
    await service.started
    return str(service.urls[0]) + BUCKET


class LanguageTests(TestCase):
    """One program a language. They mostly wait, so the first test runs all of them, a few at once."""

    timeout = 240
    outcomes: dict[str, Outcome] | None = None

    def setUp(self) -> Deferred[None]:
        """Run all programs once."""
        return ensureDeferred(self._run_all())

    async def _run_all(self) -> None:
        cls = type(self)
        if cls.outcomes is not None:
            return
        cls.outcomes = {}  # one try for all tests
        present = [name for name, language in LANGUAGES.items() if language.missing() is None]
        turns = DeferredSemaphore(AT_ONCE)
        found = await gatherResults(
            [turns.run(lambda name: ensureDeferred(self._run_one(name)), name) for name in present]
        )
        cls.outcomes = dict(zip(present, found, strict=True))

    async def _run_one(self, name: str) -> Outcome:
        """Run a program against a gateway of its own."""
        url = await begin(self)
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
            if status:
                return Outcome(printed, f"{words}:\n{printed}{errors.decode('utf-8', 'replace')}")
        return Outcome(printed, "")

    def check(self, name: str) -> None:
        """Compare what a program printed."""
        reason = LANGUAGES[name].missing()
        if reason is not None:
            raise SkipTest(reason)
        assert self.outcomes is not None
        outcome = self.outcomes[name]
        self.assertEqual(outcome.complaint, "")
        self.assertEqual(outcome.printed, EXPECTED)

    def test_csharp(self) -> None:
        """C#: HttpClient and System.Text.Json."""
        self.check("csharp")

    def test_elixir(self) -> None:
        """Elixir: httpc and jiffy."""
        self.check("elixir")

    def test_go(self) -> None:
        """Go: net/http."""
        self.check("go")

    def test_java(self) -> None:
        """Java: java.net.http and Jackson."""
        self.check("java")

    def test_lua(self) -> None:
        """Lua: LuaSocket and lua-cjson."""
        self.check("lua")

    def test_node(self) -> None:
        """JavaScript in Node.js: fetch."""
        self.check("node")

    def test_php(self) -> None:
        """PHP: the curl extension."""
        self.check("php")

    def test_python(self) -> None:
        """Python: httpx."""
        self.check("python")

    def test_ruby(self) -> None:
        """Ruby: net/http."""
        self.check("ruby")

    def test_rust(self) -> None:
        """Rust: ureq and serde."""
        self.check("rust")

    def test_shell(self) -> None:
        """Shell: curl and jq."""
        self.check("shell")

    def test_typescript(self) -> None:
        """TypeScript: openapi-fetch, with the types of the gateway's OpenAPI document."""
        self.check("typescript")


class BrowserTests(TestCase):
    """The program of browsers."""

    timeout = 120

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
        url = await begin(self, **{"cors-origin": [origin]})
        page = browser.Browser(Path(self.mktemp()).resolve())
        self.addCleanup(lambda: ensureDeferred(page.close()))
        await page.start()
        await page.open(f"{origin}/tickets.html?bucket={url}")
        self.assertEqual(await page.run(_AT_THE_END), EXPECTED)
        # Statuses of 400 and more are in the log of a page whose script expects them, too.
        self.assertEqual(page.mishaps(404, 409), [])
