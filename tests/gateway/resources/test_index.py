"""``/``: links, or a page."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gateway.http.response import Response
from gateway.resources.index import prefers_page
from tests.gateway.openapi.support import own_plugins
from tests.gateway.support import Site, passthrough

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"


class IndexTests(SynchronousTestCase):
    """The entry."""

    def test_links(self) -> None:
        """Programs get name, version and the addresses that exist, without credentials."""
        site = Site(plugins=own_plugins(), authorizer=passthrough())
        reply = site.request("GET", "/")
        self.assertEqual(reply.status, 200)
        index = reply.json()
        self.assertEqual(sorted(index), ["links", "name", "version"])
        self.assertEqual(index["name"], "couchgateway")
        self.assertEqual(index["links"]["buckets"], "/v1/buckets")
        self.assertEqual(index["links"]["metrics"], "/metrics")
        for path in index["links"].values():
            self.assertNotEqual(site.request("GET", path).status, 404, path)
        self.assertEqual(reply.header("Vary"), "Accept")

    def test_without_plugins(self) -> None:
        """What a plugin would add is missing; browsers get the links, too."""
        site = Site()
        self.assertNotIn("metrics", site.request("GET", "/").json()["links"])
        self.assertEqual(
            site.request("GET", "/", headers={"Accept": CHROMIUM}).json()["name"], "couchgateway"
        )

    def test_page(self) -> None:
        """Whoever prefers HTML gets the page, and nobody else."""
        for accept, expected in (
            (CHROMIUM, True),
            ("text/html", True),
            ("application/xhtml+xml", True),
            ("text/html, */*", True),
            ("text/html;q=0.9, application/json;q=0.8", True),
            ("", False),
            ("*/*", False),
            ("application/json", False),
            ("application/json, text/html", False),
            ("text/html;q=0.8, application/json", False),
            ("text/html;q=0", False),
            ("text/html;q=0.5, */*", False),
            ("image/png", False),
        ):
            self.assertIs(prefers_page(accept.encode()), expected, accept)

        class Plugin:
            """Offers a page."""

            name = "page"

            def attach(self, gateway: Any) -> None:
                """Offer it."""
                gateway.index.page = lambda request: Response(200, (), b"page")

            def routes(self, app: Any) -> None:
                """Declare nothing."""

        site = Site(plugins=[Plugin()])
        self.assertEqual(site.request("GET", "/", headers={"Accept": CHROMIUM}).body, b"page")
        self.assertEqual(site.request("GET", "/").json()["name"], "couchgateway")

    def test_mistakes(self) -> None:
        """A parameter, a weight that is none, and another method are refused."""
        site = Site()
        self.assertEqual(site.request("GET", "/?x=1").status, 400)
        self.assertEqual(site.request("GET", "/", headers={"Accept": "text/html;q=7"}).status, 400)
        self.assertEqual(site.request("POST", "/").status, 405)
        self.assertEqual(site.request("HEAD", "/").status, 200)
        for path in ("//", "/%2F", "/x"):
            self.assertEqual(site.request("GET", path).status, 404, path)
