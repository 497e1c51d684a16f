"""Pages of other origins in Chromium: what its rules and the gateway's allow them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from gateway.service import GatewayService
from gateway.settings import resolve
from tests.examples import chromium

PATH = chromium.find()
LOOPBACK = "tcp:0:interface=127.0.0.1"
DOCUMENT = "/v1/buckets/default/documents/k"

# Result of a request: the status, or that the page may not see it.
FETCH = """fetch({url!r}, {options}).then(answer => String(answer.status), error => "blocked")"""
FORM = """new Promise(done => {{
  const frame = document.createElement("iframe");
  frame.name = "target" + document.forms.length;
  const form = document.createElement("form");
  Object.assign(form, {{method: "POST", action: {url!r}, enctype: "text/plain", target: frame.name}});
  const field = document.createElement("input");
  Object.assign(field, {{name: '{{"op":"delete","key":"k","x":"', value: '"}}'}});
  form.append(field);
  document.body.append(form, frame);
  frame.onload = () => done("sent");
  form.submit();
}})"""


class Page(Resource):
    """An empty page, at every path."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """Return it."""
        return b"<!doctype html><title>page</title><body></body>"


class BrowserTests(TestCase):
    """A page at one port of this machine, the gateway at another: two origins."""

    timeout = 120
    if PATH is None:
        skip = f"none of {', '.join(chromium.NAMES)} is on PATH, so no browser was asked"

    async def begin(self, **given: Any) -> None:
        """Start a server of pages, a gateway, and the browser on the page."""
        self.server = reactor.listenTCP(0, Site(Page()), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(self.server.stopListening)
        self.origin = f"http://127.0.0.1:{self.server.getHost().port}"
        named = [self.origin] if given.pop("named", False) else []
        options = {"listen": [LOOPBACK], "ephemeral": True, "cors-origin": named, **given}
        if not named:
            del options["cors-origin"]
        self.service = GatewayService(resolve(options, {}))
        self.service.privilegedStartService()
        self.service.startService()
        self.addCleanup(self.service.stopService)
        await self.service.started
        self.url = self.service.urls[0]
        assert PATH is not None
        rebound = "--host-resolver-rules=MAP evil.example 127.0.0.1"
        self.browser = chromium.Chromium(PATH, Path(self.mktemp()).resolve(), rebound)
        self.addCleanup(self.browser.close)
        await self.browser.start()
        await self.browser.open(self.origin)

    async def fetch(self, url: str, options: str = "{}") -> Any:
        """Fetch as a script of the page."""
        return await self.browser.run(FETCH.format(url=url, options=options))

    @inlineCallbacks
    def stored(self, auth: Any = None) -> Any:
        """Return the status of the document, asked by a program."""
        answer = yield treq.get(self.url + DOCUMENT, auth=auth, persistent=False)
        yield answer.content()
        return answer.code

    async def test_nobody_asked_for_a_password(self) -> None:
        """A foreign page can neither write nor read; the user's own pages at the gateway can."""
        await self.begin()
        put = await treq.put(self.url + DOCUMENT, b"1", persistent=False)
        await put.content()
        for url in (self.url, self.url.replace("127.0.0.1", "localhost")):
            self.assertEqual(await self.fetch(url + DOCUMENT), "blocked")
            for options in (
                "{method: 'PUT', body: '2'}",
                "{method: 'DELETE'}",
                '{method: \'POST\', body: \'{"op":"delete","key":"k"}\'}',
                '{method: \'POST\', mode: \'no-cors\', body: \'{"op":"delete","key":"k"}\'}',
            ):
                await self.fetch(url + "/v1/buckets/default/batch", options)
                await self.fetch(url + DOCUMENT, options)
            await self.browser.run(FORM.format(url=url + "/v1/buckets/default/batch"))
            self.assertEqual(await self.stored(), 200)
        await self.browser.open(self.url + "/health")
        self.assertEqual(await self.fetch(DOCUMENT), "200")
        self.assertEqual(await self.fetch(DOCUMENT, "{method: 'PUT', body: '2'}"), "200")
        self.assertEqual(await self.fetch(DOCUMENT, "{method: 'DELETE'}"), "200")

    async def test_rebinding(self) -> None:
        """A page whose own name leads to the gateway is of one origin with it, and still gets nothing."""
        await self.begin()
        port = self.url.rpartition(":")[2]
        await self.browser.open(f"http://evil.example:{port}/health")
        for method in ("GET", "PUT", "DELETE"):
            body = "'1'" if method == "PUT" else "undefined"
            status = await self.fetch(DOCUMENT, f"{{method: '{method}', body: {body}}}")
            self.assertEqual(status, "403")
        self.assertEqual(await self.stored(), 404)

    async def test_a_page_that_was_named(self) -> None:
        """With ``--cors-origin`` it reads and writes, and sees the dialect's headers."""
        await self.begin(named=True)
        options = (
            "{method: 'PUT', body: '2', headers: {'X-CB-Flags': '7', 'Content-Type': 'application/json'}}"
        )
        self.assertEqual(await self.fetch(self.url + DOCUMENT, options), "200")
        script = f"fetch({self.url + DOCUMENT!r}).then(answer => answer.headers.get('X-CB-Flags'))"
        self.assertEqual(await self.browser.run(script), "7")

    async def test_with_credentials(self) -> None:
        """With ``--auth passthrough`` a page of any origin may call, with the credentials that it has."""
        path = self.mktemp()
        FilePath(path).setContent(b"secret")
        await self.begin(**{"auth": "passthrough", "user": "admin", "password-file": path})
        header = "'Authorization': 'Basic ' + btoa('admin:secret')"
        self.assertEqual(await self.fetch(self.url + DOCUMENT), "401")
        for method, body in (("PUT", "'1'"), ("GET", "undefined")):
            headers = f"headers: {{{header}, 'Content-Type': 'application/json'}}"
            options = f"{{method: '{method}', body: {body}, {headers}}}"
            self.assertEqual(await self.fetch(self.url + DOCUMENT, options), "200")
        script = f"fetch({self.url + DOCUMENT!r}, {{headers: {{{header}}}}})"
        self.assertTrue(await self.browser.run(f"{script}.then(answer => answer.headers.get('ETag'))"))
        await self.browser.run(FORM.format(url=self.url + "/v1/buckets/default/batch"))
        self.assertEqual(await self.stored(("admin", "secret")), 200)
