"""Pages of another origin in Chromium: what CORS lets them send and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase
from twisted.web.server import Site

from gateway.service import GatewayService
from gateway.settings import resolve
from tests.gateway.clients.test_browser import DOCUMENT, LOOPBACK, Page
from tests.judges import browser

BATCH = "/v1/buckets/default/batch"
LISTING = "/v1/buckets/default/documents"
AUTH = "Authorization: 'Basic ' + btoa('admin:secret')"
# What a page can find out about an answer: status, a header, the body; or that the browser hides all of it.
SEEN = """fetch({url!r}, {options}).then(
  async answer => ({{
    status: answer.status, header: answer.headers.get({header!r}), body: await answer.text()
  }}),
  error => "hidden")"""


class OriginTests(TestCase):
    """A page at one port, the gateway at another."""

    timeout = 180
    if browser.find() is None:
        skip = browser.missing()

    async def begin(self, **options: Any) -> None:
        """Start a server of pages, a gateway, and the browser on the page."""
        server = reactor.listenTCP(0, Site(Page()), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(server.stopListening)
        self.origin = f"http://127.0.0.1:{server.getHost().port}"
        path = self.mktemp()
        FilePath(path).setContent(b"secret")
        given = {
            "listen": [LOOPBACK], "ephemeral": True, "auth": "passthrough", "user": "admin",
            "password-file": path, "timeout": "30", **options,
        }  # fmt: skip
        if "cors-origin" in given:
            given["cors-origin"] = [self.origin]
        service = GatewayService(resolve(given, {}))
        service.privilegedStartService()
        service.startService()
        self.addCleanup(service.stopService)
        await service.started
        self.url = service.urls[0]
        self.browser = browser.Browser(Path(self.mktemp()).resolve())
        self.addCleanup(lambda: ensureDeferred(self.browser.close()))
        await self.browser.start()
        await self.browser.open(self.origin)

    async def see(
        self,
        path: str,
        method: str = "GET",
        body: str = "",
        headers: str = AUTH,
        header: str = "ETag",
        more: str = "",
    ) -> Any:
        """Return what the page sees of an answer."""
        sent = f", body: {body!r}" if body else ""
        options = f"{{method: {method!r}, headers: {{{headers}}}{sent}{more}}}"
        return await self.browser.run(SEEN.format(url=self.url + path, options=options, header=header))

    def test_any_origin(self) -> Deferred[None]:
        """As with the Data API, a page of any origin calls with a password: documents, batches, listings,
        errors, and what the connection itself refuses."""
        return ensureDeferred(self.any_origin())

    async def any_origin(self) -> None:
        await self.begin()
        json = f"{AUTH}, 'Content-Type': 'application/json'"
        stored = await self.see(DOCUMENT, "PUT", "1", json)
        self.assertEqual(stored["status"], 200)
        self.assertTrue(stored["header"])
        read = await self.see(DOCUMENT)
        self.assertEqual((read["status"], read["header"], read["body"]), (200, stored["header"], "1"))
        batch = await self.see(BATCH, "POST", '{"op":"get","key":"k"}', json, "X-Request-Id")
        self.assertEqual(batch["status"], 200)
        self.assertTrue(batch["header"])
        self.assertIn('"value":1', batch["body"])
        listing = await self.see(LISTING)
        self.assertEqual(listing["status"], 200)
        self.assertIn('"k"', listing["body"])
        challenged = await self.see(DOCUMENT, headers="", header="WWW-Authenticate")
        self.assertEqual(challenged["status"], 401)
        self.assertIn("Basic", challenged["header"])
        missing = await self.see("/nothing")
        self.assertEqual(missing["status"], 404)
        # Without a header of its own, for which the browser would ask first, at the same address.
        large = await self.see(DOCUMENT + "?project=" + "x" * 30_000, headers="")
        self.assertEqual(large["status"], 431)
        # A preflight names the methods of the resource, so this one is not even sent.
        self.assertEqual(await self.see(BATCH, "PUT", "1", json), "hidden")
        # With * a browser refuses to send what it has stored itself.
        self.assertEqual(await self.see(DOCUMENT, more=", credentials: 'include'"), "hidden")
        form = await self.see(BATCH, "POST", '{"op":"delete","key":"k"}', "")
        self.assertEqual(form["status"], 403)

    def test_options(self) -> Deferred[None]:
        """A named origin may send what is configured, and with credentials unless that is switched off."""
        return ensureDeferred(self.options())

    async def options(self) -> None:
        await self.begin(**{
            "cors-origin": [], "cors-method": ["GET", "PUT"], "cors-header": ["Authorization", "X-CB-Flags"],
            "cors-expose": ["Vary"],
        })  # fmt: skip
        stored = await self.see(DOCUMENT, "PUT", "1", f"{AUTH}, 'X-CB-Flags': '7'")
        self.assertEqual(stored["status"], 200)
        included = await self.see(DOCUMENT, header="Vary", more=", credentials: 'include'")
        self.assertEqual((included["status"], included["header"]), (200, "Origin"))
        self.assertEqual(await self.see(DOCUMENT, "DELETE"), "hidden")
        self.assertEqual(await self.see(DOCUMENT, headers=f"{AUTH}, 'If-Match': '1'"), "hidden")
        refused = await self.see(BATCH, "POST", "{}", "")
        self.assertEqual(refused["status"], 403)
        kept = await self.see(DOCUMENT)
        self.assertEqual(kept["status"], 200)

    def test_without_credentials(self) -> Deferred[None]:
        """The browser adds nothing; a page that knows the password can still send it."""
        return ensureDeferred(self.without_credentials())

    async def without_credentials(self) -> None:
        await self.begin(**{"cors-origin": [], "cors-without-credentials": True})
        self.assertEqual(await self.see(DOCUMENT, more=", credentials: 'include'"), "hidden")
        self.assertEqual((await self.see(DOCUMENT))["status"], 404)
