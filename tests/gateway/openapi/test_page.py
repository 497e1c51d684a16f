"""The page of the OpenAPI document: complete, well-formed, and safe whatever the document says."""

from __future__ import annotations

import gzip
import re
from html.parser import HTMLParser
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from gateway.openapi.document import document
from gateway.openapi.page import render
from gateway.pages.shared import POLICY
from gateway.plugins.openapi import Reference
from tests.gateway.openapi.support import ABOUT, own_document, own_plugins, own_routes
from tests.gateway.support import Reply, Site, read_reply
from tests.gateway.test_behaviour import GatewayTestCase

VOID = frozenset({"br", "input", "link", "meta"})


class Checked(HTMLParser):
    """Reads a page, and notes what is wrong with it.

    :ivar faults: elements that are not closed in order, repeated ids, scripts and styles in the page,
        addresses elsewhere.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.ids: set[str] = set()
        self.targets: set[str] = set()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        self.faults += [f"not closed: {name}" for name in self.open]
        self.faults += [f"no such id: {name}" for name in sorted(self.targets - self.ids)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            text = value or ""
            if name == "id":
                if text in self.ids or not text:
                    self.faults.append(f"id twice: {text}")
                self.ids.add(text)
            if name in ("href", "src", "action", "for", "aria-labelledby"):
                if name in ("for", "aria-labelledby"):
                    self.targets.add(text)
                elif text.startswith("#"):
                    self.targets.add(text[1:])
                elif not re.fullmatch(r"/(docs|docs/[a-z]+\.[a-z]+|openapi\.json)", text):
                    self.faults.append(f"elsewhere: {text}")
            if name.startswith("on") or name == "style":
                self.faults.append(f"inline: {name}")
        if tag == "style" or (tag == "script" and "src" not in dict(attrs)):
            self.faults.append(f"inline: {tag}")

    def handle_endtag(self, tag: str) -> None:
        """Note its end."""
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"closed out of order: {tag} at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        """Note its text."""
        self.words.append(data)


class RenderTests(SynchronousTestCase):
    """From the document to HTML."""

    def test_whole(self) -> None:
        """It is well-formed, every link leads somewhere, and all is there without a script: operations, their
        parameters and command lines, errors, types."""
        made = own_document()
        checked = Checked(render(made))
        self.assertEqual(checked.faults, [])
        text = "".join(checked.words)
        for path, methods in made["paths"].items():
            for method, operation in methods.items():
                self.assertIn(operation["operationId"], checked.ids)
                self.assertIn(f"{method.upper()} {path}", text)
                self.assertIn(operation["summary"], text)
        for name in made["components"]["schemas"]:
            self.assertIn(f"type-{name}", checked.ids)
        for code in ("DocumentNotFound", "InvalidAuth", "ViewFailed"):
            self.assertIn(f"code-{code}", checked.ids)
        self.assertIn('curl -i "$GATEWAY/v1/buckets/default/documents/amber_ale"', text)

    def test_hostile(self) -> None:
        """Texts, names, examples and types of a document become text."""
        bad = "<script>alert(1)</script>\"'`<b>`&lt;"

        def hostile(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: one if name in KEPT else hostile(one) for name, one in value.items()}
            if isinstance(value, list):
                return [hostile(one) for one in value]
            return bad if isinstance(value, str) else value

        made = own_document()
        for methods in made["paths"].values():
            for operation in methods.values():
                operation["summary"] = bad
        made["info"] = {**made["info"], "title": bad, "version": bad, "description": bad}
        made["components"] = hostile(made["components"])
        page = render(made)
        checked = Checked(page)
        self.assertEqual([one for one in checked.faults if not one.startswith("no such id")], [])
        self.assertNotIn("<script>", page)
        self.assertNotIn("<b>`", page)
        self.assertIn("<script>alert(1)</script>\"'", "".join(checked.words))

    def test_credentials(self) -> None:
        """Fields for what the gateway asks for, and none if it asks for nothing."""
        fields = {"user", "password", "token", "key-X-API-Key"}
        for schemes, shown in (
            ({}, set()),
            (ABOUT.schemes, {"user", "password"}),
            ({"jwt": {"type": "http", "scheme": "bearer"}}, {"token"}),
            ({"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}, {"key-X-API-Key"}),
            ({"tls": {"type": "mutualTLS", "description": "A certificate."}}, set()),
        ):
            checked = Checked(render(document(own_routes(), ABOUT._replace(schemes=schemes))))
            self.assertEqual(checked.ids & fields, shown)
            self.assertEqual(checked.faults, [])


KEPT = frozenset({"$ref", "in", "name", "type", "scheme", "enum", "items", "properties", "required"})


class ServedTests(SynchronousTestCase):
    """The page and its files, as they are sent."""

    def setUp(self) -> None:
        self.site = Site(plugins=own_plugins())

    def get(self, path: str, **headers: str) -> Reply:
        """Return an answer, which takes some turns to make at first."""
        transport = self.site.client()
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.site.send(transport, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        turns = 0
        while not transport.value() and turns < 100_000:
            self.site.clock.advance(0)
            turns += 1
        return read_reply(transport.value())[0]

    def test_files(self) -> None:
        """Each has its type and the policy; another name is 404."""
        for name, kind in (
            ("/docs", "text/html; charset=utf-8"),
            ("/docs/page.css", "text/css; charset=utf-8"),
            ("/docs/colors.css", "text/css; charset=utf-8"),
            ("/docs/page.mjs", "text/javascript; charset=utf-8"),
            ("/docs/icon.svg", "image/svg+xml"),
        ):
            reply = self.get(name)
            self.assertEqual((reply.status, reply.headers["content-type"]), (200, [kind]), name)
            self.assertEqual(reply.headers["content-security-policy"], [POLICY])
            self.assertEqual(reply.headers["x-content-type-options"], ["nosniff"])
        for name in ("/docs/", "/docs/__init__.py", "/docs/..%2Fpage.py", "/docs/page.css/x"):
            self.assertEqual(self.get(name).status, 404, name)

    def test_coding_and_validator(self) -> None:
        """Gzip for those that take it; 304 for those that have it, in either coding."""
        for path in ("/docs", "/openapi.json"):
            plain = self.get(path)
            packed = self.get(path, Accept_Encoding="br, gzip;q=0.5")
            self.assertEqual(packed.headers["content-encoding"], ["gzip"])
            self.assertEqual(gzip.decompress(packed.body), plain.body)
            self.assertLess(len(packed.body), len(plain.body) / 5)
            self.assertNotIn("content-encoding", self.get(path, Accept_Encoding="gzip;q=0").headers)
            (tag,), (other,) = plain.headers["etag"], packed.headers["etag"]
            self.assertNotEqual(tag, other)
            for known in (tag, other, f'"x", {tag}', "*"):
                reply = self.get(path, If_None_Match=known)
                self.assertEqual((reply.status, reply.body), (304, b""), known)
            self.assertEqual(self.get(path, If_None_Match='"x"').status, 200)

    def test_attached_again(self) -> None:
        """A plugin that is attached to another gateway describes that one."""
        plugin = Reference()
        for schemes in (ABOUT.schemes, {}):
            site = Site(plugins=[plugin])
            site.gateway.security_schemes = schemes
            self.assertEqual(plugin.document()["components"]["securitySchemes"], schemes)

    def test_made_once(self) -> None:
        """Many that ask first share one making; one that leaves does not stop it."""
        made = []
        plugin = next(one for one in self.site.gateway.plugins if isinstance(one, Reference))
        whole = plugin.document
        self.patch(plugin, "document", lambda: made.append(1) or whole())
        clients = [self.site.client() for _ in range(5)]
        for client in clients:
            self.site.send(client, b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        clients[0].loseConnection()
        turns = 0
        while not clients[-1].value() and turns < 100_000:
            self.site.clock.advance(0)
            turns += 1
        replies = [read_reply(client.value())[0] for client in clients[1:]]
        self.assertEqual([reply.status for reply in replies], [200] * 4)
        self.assertEqual(len({reply.body for reply in replies}), 1)
        self.assertEqual(made, [1])

    def test_failure(self) -> None:
        """A making that fails is a 500 for those that wait, and is tried again by the next request."""
        plugin = next(one for one in self.site.gateway.plugins if isinstance(one, Reference))
        whole = plugin.document

        def fail() -> Any:
            plugin.document = whole
            raise ValueError("no document")

        self.patch(plugin, "document", fail)
        self.assertEqual(self.get("/docs").status, 500)
        self.assertEqual(self.get("/docs").status, 200)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)


class SteppedTests(GatewayTestCase):
    """While the page is made, others are served."""

    def plugins(self) -> list[Any]:
        """Return all of this project."""
        return own_plugins()

    @inlineCallbacks
    def test_first_request(self) -> Any:
        """Several first requests at once have the same answer."""
        asked = [self.ask("GET", "/docs") for _ in range(3)]
        pages = set()
        for one in asked:
            answer = yield one
            self.assertEqual(answer.status, 200)
            pages.add(answer.body)
        self.assertEqual(len(pages), 1)
