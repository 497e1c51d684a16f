"""The console's files as they are served; tests.judges.test_console tries the console in a browser."""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from gateway.interfaces import IGatewayPlugin
from gateway.pages.shared import POLICY
from gateway.plugins.console import FOLDER, Console
from tests.gateway.support import Reply, Site, passthrough

HTML = {"Accept": "text/html"}


def policy(reply: Reply) -> dict[str, str]:
    """Return the directives of an answer's policy."""
    parts = (reply.header("Content-Security-Policy") or "").split("; ")
    return {name: value for name, _, value in (part.partition(" ") for part in parts)}


class ConsoleTests(SynchronousTestCase):
    """Without a browser."""

    def setUp(self) -> None:
        self.site = Site(plugins=[Console()], authorizer=passthrough())

    def page(self, **headers: str) -> Reply:
        """Ask for the page."""
        return self.site.request("GET", "/", headers={**HTML, **headers})

    def test_interface(self) -> None:
        """It is a plugin, and its hooks cost nothing."""
        plugin = Console()
        self.assertEqual({plugin.on_request, plugin.on_response, plugin.on_end, plugin.on_operation}, {None})
        for hook in ("on_request", "on_response", "on_end", "on_operation"):
            setattr(plugin, hook, getattr(_Hooks, hook))
        verifyObject(IGatewayPlugin, plugin)

    def test_left_out(self) -> None:
        """Without it there is neither the page nor its files."""
        site = Site()
        self.assertEqual(site.request("GET", "/", headers=HTML).header("Content-Type"), "application/json")
        self.assertEqual(site.request("GET", "/console/x/style.css").status, 404)

    def test_page(self) -> None:
        """It needs no credentials, refers to files that exist, and says what to do without scripts."""
        reply = self.page()
        self.assertEqual(reply.status, 200)
        text = reply.body.decode()
        self.assertNotIn("{", re.sub(r"\{&quot;|\{\"greeting\"", "", text))
        files = re.findall(r'(?:href|src)="(console/[^"]+)"', text)
        self.assertGreater(len(files), 2)
        for file in files:
            found = self.site.request("GET", "/" + file)
            self.assertEqual(found.status, 200, file)
            self.assertIn("immutable", found.header("Cache-Control") or "")
        self.assertIn("<noscript>", text)
        self.assertIn("curl http://localhost/", text)
        tag = reply.header("ETag") or ""
        self.assertEqual(self.page(**{"If-None-Match": tag}).status, 304)

    def test_hosts_in_the_page(self) -> None:
        """The name by which the browser called is shown if it is one, and as text."""
        for host, shown in (
            (b"gateway.example:81", b"curl http://gateway.example:81/"),
            (b"a&b.example", b"curl http://127.0.0.1:8080/"),
            (b"a'b.example", b"curl http://127.0.0.1:8080/"),
            (b"", b"curl http://127.0.0.1:8080/"),
        ):
            transport = self.site.client()
            self.site.send(transport, b"GET / HTTP/1.1\r\nAccept: text/html\r\nHost: %b\r\n\r\n" % host)
            self.assertIn(shown, transport.value(), host)
        transport = self.site.client()
        self.site.send(transport, b"GET / HTTP/1.1\r\nAccept: text/html\r\nHost: [::1]:81\r\n\r\n")
        self.assertIn(b"curl http://[::1]:81/", transport.value())

    def test_policy(self) -> None:
        """Nothing from other servers, nothing inline, no frames; on the files, too."""
        found = policy(self.page())
        self.assertEqual(found["default-src"], "'none'")
        for directive in ("script-src", "style-src", "connect-src", "img-src"):
            self.assertEqual(found[directive], "'self'", directive)
        for directive in ("frame-ancestors", "base-uri", "form-action", "trusted-types"):
            self.assertEqual(found[directive], "'none'", directive)
        self.assertNotIn("unsafe", POLICY)
        self.assertEqual(policy(self.site.request("GET", "/console/x/icon.svg")), found)
        self.assertEqual(self.page().header("X-Content-Type-Options"), "nosniff")

    def test_sources(self) -> None:
        """The scripts cannot make markup or code of a text, nor ask another server."""
        for path in sorted(FOLDER.iterdir()):
            text = path.read_text("utf-8")
            for forbidden in (
                *("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"),
                *("srcdoc", "createContextualFragment", "DOMParser", "setHTML", "style=", "onclick="),
                *("javascript:", "@import", "importScripts"),
            ):
                self.assertNotIn(forbidden, text, path.name)
            addresses = set(re.findall(r"https?://[^\s\"'`<>)]+", text))
            self.assertEqual(addresses - {"http://www.w3.org/2000/svg"}, set(), path.name)

    def test_modules(self) -> None:
        """Each script imports scripts of the folder only, all of them are used, and none is long."""
        names = {path.name for path in FOLDER.glob("*.mjs")}
        imported = {"app.mjs"}
        for path in sorted(FOLDER.glob("*.mjs")):
            text = path.read_text("utf-8")
            found = set(re.findall(r'from "\./([^"]+)"', text))
            self.assertEqual(
                len(re.findall(r"^import |\bimport\(", text, re.MULTILINE)), len(found), path.name
            )
            self.assertEqual(found - names, set(), path.name)
            imported |= found
            self.assertLess(text.count("\n"), 450, path.name)
        self.assertEqual(imported, names)


class _Hooks:
    """Hooks that do nothing."""

    @staticmethod
    def on_request(request: Any) -> None:
        """Take a request."""

    @staticmethod
    def on_response(request: Any, response: Any, seconds: float) -> None:
        """Take an answer."""

    @staticmethod
    def on_end(request: Any, status: int, seconds: float) -> None:
        """Take an end."""

    @staticmethod
    def on_operation(operation: str, outcome: str, count: int) -> None:
        """Take an operation."""
