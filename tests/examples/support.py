"""The beer application over its own node, and a browser without scripts."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from xml.etree import ElementTree

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from couchnode.embedded import EmbeddedNode
from examples.beer.app import BeerApp
from examples.beer.site import BeerSite
from examples.beer.store import Store
from txcouchbase.connection import Connection

SAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sample-breweries.jsonl"
HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</title></textarea></option><b>",
    "a & b &lt; c",
    "‮evil‬ 🍺 Zażółć",
    "{{7*7}} ${7*7} %s %(name)s",
)
"""Names that would do something if a page did not escape them."""


class Form:
    """A form of a page, filled in as the page filled it in.

    :ivar fields: name -> value, to be changed.
    """

    def __init__(self, element: ElementTree.Element, page: Page) -> None:
        self.page = page
        self.method = element.get("method", "get").upper()
        self.action = urljoin(page.url, element.get("action", ""))
        self.fields: dict[str, str] = {}
        for control in element.iter():
            name = control.get("name")
            if name is None:
                continue
            if control.tag == "input":
                self.fields[name] = control.get("value", "")
            elif control.tag == "textarea":
                self.fields[name] = control.text or ""
            elif control.tag == "select":
                options = list(control.iter("option"))
                chosen = [option for option in options if option.get("selected")] or options[:1]
                self.fields[name] = chosen[0].get("value", "")

    async def submit(self, browser: Browser | None = None, **fields: str) -> Page:
        """Fill in some fields and send the form, from the browser that has the page or from another."""
        browser = browser or self.page.browser
        data = {**self.fields, **fields}
        if self.method == "GET":
            return await browser.get(self.action, params=data)
        return await browser.post(self.action, data)


class Page:
    """An answer. Its HTML is parsed as XML, so that nothing badly escaped passes."""

    def __init__(self, browser: Browser, response: Any, body: bytes) -> None:
        self.browser = browser
        self.status = response.code
        self.headers = response.headers
        self.url = response.request.absoluteURI.decode()
        self.body = body.decode()
        self.root = (
            ElementTree.fromstring(self.body.removeprefix("<!DOCTYPE html>\n"))
            if self.body.startswith("<!DOCTYPE")
            else ElementTree.Element("nothing")
        )

    def header(self, name: str) -> str:
        """Return a header, ``""`` without it."""
        return ", ".join(self.headers.getRawHeaders(name, []))

    def all(self, tag: str, **attributes: str) -> list[ElementTree.Element]:
        """Return the elements with this tag and these attributes; ``class_`` stands for class."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            one
            for one in self.root.iter(tag)
            if all(one.get(name) == value for name, value in wanted.items())
        ]

    def by_id(self, name: str) -> ElementTree.Element:
        """Return the one element with an id."""
        (found,) = [one for one in self.root.iter() if one.get("id") == name]
        return found

    def text(self, element: ElementTree.Element | None = None) -> str:
        """Return the text of an element, of the main content by default."""
        return " ".join("".join((self.by_id("content") if element is None else element).itertext()).split())

    @property
    def heading(self) -> str:
        """The text of the first heading."""
        return self.text(self.all("h1")[0])

    @property
    def names(self) -> list[str]:
        """Return the first column of the table of results."""
        return [self.text(one) for body in self.all("tbody") for one in body.iter("th")]

    @property
    def form(self) -> Form:
        """The one form that is posted."""
        (element,) = self.all("form", method="post")
        return Form(element, self)

    def search(self) -> Form:
        """Return the search form."""
        return Form(self.by_id("search"), self)

    @property
    def form_texts(self) -> str:
        """Return the contents of the page's fields."""
        values = [one.get("value", "") for one in self.all("input")]
        return " ".join([*values, *(one.text or "" for one in self.all("textarea"))])

    def problems(self) -> dict[str, str]:
        """Return what the page says is wrong, by field, as found next to the fields."""
        found = {}
        for control in self.root.iter():
            if control.get("aria-invalid") == "true":
                described = (control.get("aria-describedby") or "").split()
                errors = [self.by_id(one) for one in described if one.endswith("-error")]
                found[control.get("name", "")] = " ".join(self.text(one) for one in errors)
        return found

    @property
    def rows(self) -> list[list[str]]:
        """The cells of the table of results."""
        return [[self.text(cell) for cell in row] for body in self.all("tbody") for row in body]

    async def follow(self, label: str) -> Page:
        """Follow the one link with this text."""
        addresses = {one.get("href", "") for one in self.all("a") if self.text(one) == label}
        assert len(addresses) == 1, (label, addresses)
        return await self.browser.get(urljoin(self.url, addresses.pop()))

    def has_link(self, label: str) -> bool:
        """Return whether there is a link with this text."""
        return any(self.text(one) == label for one in self.all("a"))


class Browser:
    """Keeps cookies and follows redirects; runs no scripts."""

    def __init__(self, base: str, pool: HTTPConnectionPool) -> None:
        self.base = base
        self._client = HTTPClient(Agent(reactor, pool=pool))

    async def request(self, method: str, path: str, **options: Any) -> Page:
        """Make a request, and follow where it leads."""
        response = await self._client.request(method, urljoin(self.base, path), **options)
        return Page(self, response, await response.content())

    async def get(self, path: str, **options: Any) -> Page:
        """Open a page."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, data: Any, **options: Any) -> Page:
        """Send a form."""
        return await self.request("POST", path, data=data, **options)


class BeerCase(TestCase):
    """The beer application on a free port, over its own node.

    :cvar sample: whether the sample is loaded.
    """

    timeout = 120
    sample = False

    async def setUp(self) -> None:  # type: ignore[override]
        """Start node and application, and open a browser."""
        self.node = EmbeddedNode(None)
        await self.node.start()
        self.addCleanup(self.node.stop)
        self.connection = Connection(
            bucket="default", connection_string=self.node.connection_string, reactor=reactor
        )
        self.addCleanup(self.connection._close)
        self.store = Store(self.connection, reactor)
        await self.store.prepare()
        if self.sample:
            await self.store.load(SAMPLE)
        self.app = BeerApp(self.store)
        site: Any = BeerSite(self.app.app.resource(), reactor)
        port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(site.close)
        self.base = f"http://127.0.0.1:{port.getHost().port}/"
        self.pool = HTTPConnectionPool(reactor)
        self.addCleanup(self.pool.closeCachedConnections)
        self.browser = self.another_browser()

    def another_browser(self) -> Browser:
        """Open one that shares no cookies with the others."""
        return Browser(self.base, self.pool)

    async def put(self, key: str, **document: Any) -> None:
        """Store a document as another program would."""
        await self.connection.set(key, document)

    async def brewery(self, key: str = "mill", name: str = "Mill", **more: Any) -> str:
        """Store a brewery, and return its key."""
        await self.put(key, type="brewery", name=name, **more)
        return key

    async def beer(
        self, key: str = "mill-stout", name: str = "Stout", brewery: str = "mill", **more: Any
    ) -> str:
        """Store a beer, and return its key."""
        await self.put(key, type="beer", name=name, brewery_id=brewery, **more)
        return key

    async def stored(self, key: str) -> Any:
        """Return a document's value, ``None`` if there is none."""
        result = await self.connection.get(key, quiet=True)
        return result.value if result.success else None


def sample_documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield keys and values of the sample."""
    for line in SAMPLE.read_text().splitlines():
        entry = json.loads(line)
        yield entry["id"], entry["doc"]


def together(*waiting: Coroutine[Any, Any, Any]) -> Deferred[list[Any]]:
    """Run some coroutines at the same time."""
    return gatherResults([ensureDeferred(one) for one in waiting], consumeErrors=True)
