"""The beer application and what is made to hurt it, or goes wrong; and who it must not shut out."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

from couchbase.user_constants import FMT_BYTES
from examples.beer.guard import Guard
from examples.beer.site import MAX_FORM_BYTES
from examples.beer.store import DESIGN
from tests.examples.support import HOSTILE, BeerCase, Page


class HostileTests(BeerCase):
    """Names, keys and documents that are made to hurt."""

    async def check(self, page: Page) -> None:
        """Find nothing in a page that this application did not put there."""
        self.assertEqual(len(page.all("script")), 1)
        self.assertEqual(page.all("img") + page.all("b"), [])
        for element in page.root.iter():
            self.assertEqual([name for name in element.attrib if name.startswith("on")], [])
            for name in ("href", "src", "action"):
                self.assertRegex(element.get(name, "/"), "^(/|#|https://)")

    async def test_names_are_text_everywhere(self) -> None:
        """A name is shown as it was typed, on every page that shows it."""
        for number, name in enumerate(HOSTILE):
            page = await (await self.browser.get("/new/brewery")).form.submit(
                name=name, city=name, description=name
            )
            shown = " ".join(name.split())
            self.assertEqual((page.status, page.heading), (200, shown))
            brewery = page.url.split("?")[0]
            page = await (await page.follow("Add a beer")).form.submit(name=name, style=name)
            self.assertEqual((page.status, page.heading), (200, shown))
            beer = page.url.split("?")[0]
            pages = [page]
            for path in (brewery, "/", "/brewery"):
                pages.append(await self.browser.get(path))
            pages.append(await self.browser.get("/beer", params={"q": name}))
            for url in (beer, brewery):
                pages += [await self.browser.get(f"{url}/{action}") for action in ("edit", "delete")]
            mine = pages[5].form
            pages.append(await mine.submit(abv="no"))
            await (await self.browser.get(f"{beer}/edit")).form.submit(style="x", name=f"{name}{number}")
            pages.append(await mine.submit(abv="5"))
            self.assertEqual((pages[-2].status, pages[-1].status), (422, 409))
            pages.append(await pages[8].form.submit())
            self.assertEqual(pages[-1].heading, f"{shown} was not deleted")
            for page in pages:
                await self.check(page)
                self.assertIn(shown, page.text() + page.form_texts)

    async def test_keys_of_any_kind(self) -> None:
        """Documents of other programs can be shown, edited, liked and deleted, with any key."""
        await self.brewery()
        for key in (
            "a/b",
            "..",
            ".",
            "~2F",
            "?x=1#y",
            "%41%2f",
            "Bräu 🍺",
            "<b>\"'&",
            "\\",
            "a//b/",
            "edit",
            "x" * 250,
        ):
            await self.beer(key, "Odd")
            page = await (await self.browser.get("/brewery/mill")).follow("Odd")
            self.assertEqual((page.status, page.heading), (200, "Odd"), key)
            page = await page.form.submit()
            self.assertEqual(page.text(page.by_id("likes")), "1 person likes it.", key)
            page = await (await page.follow("Edit")).form.submit(abv="5")
            self.assertIn("saved", page.text(), key)
            self.assertEqual((await self.stored(key))["abv"], 5.0, key)
            await (await page.follow("Delete …")).form.submit()
            self.assertIsNone(await self.stored(key), key)

    async def test_documents_of_other_programs(self) -> None:
        """Whatever is in a document, its page and the lists can be shown."""
        await self.brewery()
        odd: tuple[dict[str, Any], ...] = (
            {"name": None}, {"name": ["a"]}, {"name": {"x": 1}}, {"name": ""}, {"name": 5},
            {"name": "n" * 5000}, {"name": "a\x00\uffffb"},
            {"brewery_id": 5}, {"brewery_id": None}, {"brewery_id": ""}, {"brewery_id": "b" * 300},
            {"brewery_id": "mill-stout"}, {"abv": "<b>"}, {"abv": [1]}, {"abv": 1e300}, {"abv": True},
            {"style": {"a": "<script>"}}, {"description": 7}, {"upc": -1},
        )  # fmt: skip
        for number, members in enumerate(odd):
            await self.put(
                f"odd-{number}", **{"type": "beer", "name": "Odd", "brewery_id": "mill", **members}
            )
            page = await self.browser.get(f"/beer/odd-{number}")
            self.assertEqual(page.status, 200, members)
            await self.check(page)
            for action in ("edit", "delete"):
                self.assertEqual(
                    (await self.browser.get(f"/beer/odd-{number}/{action}")).status, 200, members
                )
        for website in ("javascript:alert(1)", "JavaScript:x", "//evil.example", 5):
            await self.brewery("web", "Web", website=website)
            page = await self.browser.get("/brewery/web")
            self.assertNotIn(str(website), [one.get("href") for one in page.all("a")])
        for path in ("/beer", "/brewery", "/brewery/mill", "/beer?q=odd", "/new/beer"):
            page = await self.browser.get(path)
            self.assertEqual(page.status, 200)
            await self.check(page)

    async def test_what_is_no_document(self) -> None:
        """Values that are no object, no JSON, or of another type are not shown."""
        for key, value in (("n", b"5"), ("l", b"[]"), ("s", b'"x"'), ("t", b'{"type":"user"}'), ("j", b"{")):
            await self.connection.set(key, value, format=FMT_BYTES)
            self.assertEqual((await self.browser.get(f"/beer/{key}")).status, 404)
        await self.brewery()
        self.assertEqual((await self.browser.get("/beer/mill")).status, 404)


class ForgeryTests(BeerCase):
    """Forms of other sites change nothing."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Store a brewery and a beer, and open a form."""
        await super().setUp()
        await self.brewery()
        await self.beer()
        self.form = (await self.browser.get("/beer/mill-stout")).form

    async def likes(self) -> Any:
        """Return the beer's likes."""
        return await self.stored("likes-mill-stout")

    async def test_no_form_passes_without_its_token(self) -> None:
        """Every address that takes a form refuses one without token, with a wrong one, with another's."""
        rules = [rule for rule in self.app.app.url_map.iter_rules() if "POST" in (rule.methods or ())]
        self.assertEqual(len(rules), 4)
        other = (await self.another_browser().get("/beer/mill-stout")).form.fields["token"]
        for rule in rules:
            path = re.sub("<any[^>]*>", "beer", rule.rule).replace("<segment>", "mill-stout")
            for data in ({}, {"token": ""}, {"token": "x"}, {"token": "é"}, {"token": other}):
                page = await self.browser.post(path, {"name": "Forged", "cas": "1", **data})
                self.assertEqual((page.status, page.heading), (403, "The form cannot be accepted"), path)
        page = await self.form.submit(self.another_browser())
        self.assertEqual(page.status, 403)
        self.assertIsNone(await self.likes())
        self.assertEqual(page.all("form"), [])

    async def test_no_form_passes_from_another_site(self) -> None:
        """Even with its token: browsers say where a form comes from."""
        own = self.base.rstrip("/")
        for headers, status in (
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": own + "1"}, 403),
            ({"Origin": "http://[::1"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Origin": own, "Sec-Fetch-Site": "same-origin"}, 200),
        ):
            page = await self.browser.post(self.form.action, self.form.fields, headers=headers)
            self.assertEqual(page.status, status, headers)
        self.assertEqual(await self.likes(), 1)

    async def test_the_cookie(self) -> None:
        """Scripts and other sites do not get it; it is set once."""
        page = await self.another_browser().get("/new/brewery")
        self.assertRegex(
            page.header("Set-Cookie"), "^beer_browser=[0-9a-f]{32}; Path=/; HttpOnly; SameSite=lax$"
        )
        self.assertEqual((await page.browser.get("/new/brewery")).header("Set-Cookie"), "")

    async def test_a_form_from_before_a_restart(self) -> None:
        """The page says what to do, and doing that helps."""
        self.app.guard = Guard()
        page = await self.form.submit()
        self.assertEqual(page.status, 403)
        self.assertIn("reload the page, and send it again", page.text())
        self.assertEqual((await (await self.browser.get("/beer/mill-stout")).form.submit()).status, 200)

    async def test_forms_that_nothing_here_makes(self) -> None:
        """No version, or none that can be: never a write without a CAS."""
        form = (await self.browser.get("/beer/mill-stout/edit")).form
        for cas in ("", "0", "-1", "x", "٣", "1" * 30, str(2**64 - 1)):
            for action in ("edit", "delete"):
                form.action = f"{self.base}beer/mill-stout/{action}"
                self.assertEqual((await form.submit(cas=cas, name="Forged")).status, 400)
        self.assertEqual((await self.stored("mill-stout"))["name"], "Stout")
        raw = f"token={form.fields['token']}&name=%ff".encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        page = await self.browser.post("/new/brewery", raw, headers=headers)
        self.assertEqual(page.status, 400)


class ProblemTests(BeerCase):
    """Errors are pages that say what to do."""

    async def test_nothing_there(self) -> None:
        """Unknown addresses, documents, and paths that are no text."""
        for path in ("/nothing", "/beer/nothing", "/beer/a/b/c", "/beer/", "/static/..%2fapp.py", "/static/x",
                     "/beer/%ff%fe", "/beer/" + "x" * 300, "/new/wine", "/brewery/x/like"):  # fmt: skip
            page = await self.browser.get(path)
            self.assertIn((page.status, page.heading[:8]), ((404, "There is"), (405, "That can")), path)
            self.assertTrue(page.has_link("All beers"), path)

    async def test_other_methods(self) -> None:
        """The methods of an address are listed; HEAD is like GET, without the body."""
        page = await self.browser.request("PUT", "/beer")
        self.assertEqual((page.status, page.header("Allow")), (405, "GET, HEAD"))
        page = await self.browser.request("HEAD", "/beer")
        self.assertEqual((page.status, page.body), (200, ""))

    async def test_too_long_a_form(self) -> None:
        """It is refused as soon as that is known: from its head, or when its pieces get too many."""
        head = b"POST /new/beer HTTP/1.1\r\nHost: x\r\n"
        length = b"Content-Length: %d\r\n\r\n" % (MAX_FORM_BYTES + 1)
        pieces = b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n" % (1000, b"x" * 1000) * 70
        for request in (head + length, head + pieces):
            answer = await self.send(request)
            self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer)
            self.assertEqual(answer.count(b"HTTP/1.1"), 1)
        page = await self.browser.post("/new/beer", b"x" * MAX_FORM_BYTES)
        self.assertEqual(page.status, 403)

    async def send(self, request: bytes) -> bytes:
        """Send bytes, and return what comes until the connection ends."""
        received: list[bytes] = []
        lost: Deferred[None] = Deferred()
        conversation = Protocol()
        conversation.dataReceived = received.append  # type: ignore[method-assign, assignment]
        conversation.connectionLost = lambda *_: lost.callback(None)  # type: ignore[method-assign]
        url = urlsplit(self.base)
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", url.port or 0), conversation)
        conversation.transport.write(request)  # type: ignore[union-attr]
        await lost
        return b"".join(received)

    async def test_headers(self) -> None:
        """Browsers may run and load nothing but this application's files, and keep no page."""
        page = await self.browser.get("/beer")
        policy = page.header("Content-Security-Policy")
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertEqual(page.header("Cache-Control"), "no-store")
        self.assertEqual(page.header("X-Content-Type-Options"), "nosniff")
        self.assertEqual(page.header("Content-Type"), "text/html; charset=utf-8")
        files = [one.get("src") or one.get("href") or "" for one in [*page.all("script"), *page.all("link")]]
        self.assertEqual(len(files), 3)
        for path in files:
            answer = await self.browser.get(path)
            self.assertEqual(answer.status, 200)
            self.assertIn("immutable", answer.header("Cache-Control"))

    async def test_no_database(self) -> None:
        """While the database does not answer, every page says so and when to come again."""
        await self.brewery()
        self.connection.timeout = 0.2
        await self.node.stop()
        for path in ("/beer", "/brewery/mill"):
            page = await self.browser.get(path)
            self.assertEqual((page.status, page.heading), (503, "The database does not answer"))
            self.assertEqual(page.header("Retry-After"), "5")
        self.assertIsNone(self.flushLoggedErrors() or None)

    async def test_views_that_were_deleted(self) -> None:
        """The page says that a restart helps; the restart creates the views."""
        await self.brewery()
        self.assertFalse(await self.store.prepare())
        await self.connection.design_delete(DESIGN, use_devmode=False, syncwait=10)
        page = await self.browser.get("/brewery")
        self.assertEqual((page.status, page.heading), (503, "The lists are not available"))
        self.assertTrue(await self.store.prepare())
        self.assertEqual((await self.browser.get("/brewery")).names, ["Mill"])

    async def test_views_of_an_earlier_version(self) -> None:
        """Other views under the name are replaced at the start."""
        old = {"views": {"beer": {"map": "function (doc) {}"}}}
        await self.connection.design_create(DESIGN, old, use_devmode=False, syncwait=10)
        self.assertTrue(await self.store.prepare())
        await self.brewery()
        self.assertEqual((await self.browser.get("/brewery")).names, ["Mill"])

    async def test_a_mistake_in_the_application(self) -> None:
        """It is logged, and shown as a mistake of the application."""

        async def broken(*_: Any) -> Any:
            raise ZeroDivisionError("secret")

        self.store.page = broken  # type: ignore[method-assign, assignment]
        page = await self.browser.get("/beer")
        self.assertEqual(page.status, 500)
        self.assertNotIn("secret", page.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class AccessibilityTests(BeerCase):
    """Requirements of users with a screen reader, or only a keyboard, on every page."""

    async def test_every_page(self) -> None:
        """One main heading, labels for controls, headers for tables, and references that lead somewhere."""
        await self.brewery()
        await self.beer()
        paths = ["/beer", "/brewery", "/beer?q=stout", "/beer/mill-stout", "/brewery/mill", "/nothing"]
        paths += [f"/beer/mill-stout/{action}" for action in ("edit", "delete")]
        paths += [f"/brewery/mill/{action}" for action in ("edit", "delete")]
        pages = [await self.browser.get(path) for path in [*paths, "/new/beer", "/new/brewery"]]
        pages.append(await pages[10].form.submit(abv="x"))
        pages.append(await pages[9].form.submit())
        for page in pages:
            self.assertEqual(page.root.get("lang"), "en")
            self.assertEqual(
                [len(page.all(tag)) for tag in ("h1", "main", "title", "header", "footer")], [1] * 5
            )
            ids = [one.get("id") for one in page.root.iter() if one.get("id")]
            self.assertEqual(len(ids), len(set(ids)), page.url)
            for element in page.root.iter():
                for name in ("for", "aria-describedby", "aria-labelledby"):
                    self.assertLessEqual(set((element.get(name) or "").split()), set(ids), page.url)
                if (element.get("href") or "").startswith("#"):
                    self.assertIn(element.get("href", "")[1:], ids)
                if element.tag in ("input", "select", "textarea") and element.get("type") != "hidden":
                    self.assertEqual(len(page.all("label", for_=element.get("id", ""))), 1, page.url)
            for table in page.all("table"):
                self.assertIsNotNone(table.find("caption"))
                self.assertTrue(all(one.get("scope") for one in table.iter("th")))
            self.assertTrue(all(page.text(one) for one in [*page.all("a"), *page.all("button")]), page.url)
