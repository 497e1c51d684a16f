"""The beer application as a browser without scripts sees it, over a node that is real."""

from __future__ import annotations

import re
from typing import Any

from examples.beer.kinds import KINDS
from examples.beer.pages import address
from tests.examples.support import HOSTILE, BeerCase, Page, sample_documents, together


class ListTests(BeerCase):
    """Lists and search, over the sample."""

    sample = True

    async def everything(self, page: Page) -> list[str]:
        """Follow the pages of a list to its end, and return all names."""
        names = page.names
        while page.has_link("Next page"):
            page = await page.follow("Next page")
            self.assertTrue(page.has_link("First page"))
            names += page.names
        return names

    async def test_every_document_is_listed_once_by_name(self) -> None:
        """The pages of a list, one after the other, have every document once, in order."""
        for kind in KINDS.values():
            names = await self.everything(await self.browser.get(address(kind)))
            wanted = sorted(doc["name"] for _, doc in sample_documents() if doc["type"] == kind.name)
            self.assertEqual(sorted(names), wanted)
            self.assertEqual(names, sorted(names, key=lambda name: name.lower().replace("ä", "a")))

    async def test_pages_of_namesakes(self) -> None:
        """A new page can begin between documents of the same name."""
        await self.brewery()
        for number in range(45):
            await self.beer(f"same-{number:02}", "Same Name")
        names = await self.everything(await self.browser.get("/brewery/mill"))
        self.assertEqual(names, ["Same Name"] * 45)
        names = await self.everything(await self.browser.get("/beer?from=same+name&key=same-00"))
        self.assertEqual(names.count("Same Name"), 45)

    async def test_search(self) -> None:
        """Words in names that begin with what was typed are found, in any case."""
        page = await self.browser.get("/beer")
        wanted = sorted(
            doc["name"]
            for _, doc in sample_documents()
            if doc["type"] == "beer" and re.search(r"\bsaison", doc["name"], re.IGNORECASE)
        )
        found = await page.search().submit(q="SAIS")
        self.assertEqual(sorted(found.names), wanted)
        self.assertTrue(found.has_link("All beers"))
        self.assertFalse(found.has_link("First page"))
        self.assertEqual(found.by_id("q").get("value"), "SAIS")
        self.assertEqual(found.text(found.by_id("found")), f"{len(wanted)} beers with “SAIS”.")
        found = await page.search().submit(q="  weaver   por")
        self.assertTrue(found.names and all("Weaver Porter" in name for name in found.names), found.names)
        found = await page.search().submit(q="orter")
        self.assertEqual(found.text(found.by_id("found")), "0 beers with “orter”.")
        self.assertTrue(found.has_link("All beers"))
        found = await page.search().submit(q="por")
        # By name, as the table's caption says, whichever word was found.
        self.assertGreater(len(found.names), 3)
        self.assertEqual(found.names, sorted(found.names, key=str.lower))
        found = await (await self.browser.get("/brewery")).search().submit(q="amber lo")
        self.assertEqual(found.names, ["Amber Lock Brewpub"])

    async def test_search_finds_much_or_nothing_to_look_for(self) -> None:
        """The first twenty are shown of what is more; what has no letters shows the list."""
        found = await self.browser.get("/beer?q=a")
        everything = {
            doc["name"] for _, doc in sample_documents() if re.search(r"\ba", doc["name"], re.IGNORECASE)
        }
        self.assertTrue(len(found.names) == 20 and set(found.names) <= everything)
        self.assertRegex(found.text(found.by_id("found")), "^20 of the beers with “a”; type more")
        for nothing in ("", "  ", "-", "(.)"):
            page = await self.browser.get("/beer", params={"q": nothing})
            self.assertEqual((len(page.names), page.has_link("Next page")), (20, True))
        for hostile in (*HOSTILE, "x" * 5000, "\x00", "\uffff", '"]}', "\\"):
            page = await self.browser.get("/beer", params={"q": hostile})
            self.assertEqual((page.status, page.heading), (200, "Beers"), hostile)

    async def test_search_shows_a_document_once(self) -> None:
        """Also if several words of its name begin with what is searched for."""
        await self.brewery("one", "Zyx Zyxling")
        self.assertEqual((await self.browser.get("/brewery?q=zyx")).names, ["Zyx Zyxling"])
        for number in range(21):
            await self.brewery(f"twin-{number}", f"Quux Quuxling {number:02} quux")
        found = await self.browser.get("/brewery?q=quux")
        self.assertEqual((len(found.names), len(set(found.names))), (20, 20))
        self.assertIn("20 of the breweries", found.text())
        await self.connection.delete("twin-7")
        found = await self.browser.get("/brewery?q=quux")
        self.assertEqual((len(found.names), len(set(found.names))), (20, 20))
        self.assertIn("20 breweries with", found.text(found.by_id("found")))

    async def test_search_follows_changes_at_once(self) -> None:
        """A document that has just been stored is found."""
        page = await (await self.browser.get("/new/brewery")).form.submit(name="Zebra Crossing Brewery")
        self.assertEqual(
            (await self.browser.get("/brewery?q=cross")).names.count("Zebra Crossing Brewery"), 1
        )
        await (await page.follow("Delete …")).form.submit()
        self.assertNotIn("Zebra Crossing Brewery", (await self.browser.get("/brewery?q=cross")).names)


class DocumentTests(BeerCase):
    """Show, create, edit, delete."""

    async def test_nothing_yet(self) -> None:
        """Empty lists say so."""
        for path, words in (("/", "No beers yet."), ("/brewery", "No breweries yet.")):
            page = await self.browser.get(path)
            self.assertEqual((page.status, page.text(page.by_id("found"))), (200, words))

    async def test_a_brewery_and_its_beers(self) -> None:
        """From an empty bucket to a beer, by links and forms alone."""
        page = await (await self.browser.get("/")).follow("New brewery")
        page = await page.form.submit(
            name="Mill & Sons", city="Grauheim", country="Rheinmark", address="1 Road\r\nYard", code="D-9",
            website="https://mill.example/", phone="555-0151", description="One.\r\n\r\nTwo.", state="Ober",
        )  # fmt: skip
        self.assertEqual((page.status, page.heading), (200, "Mill & Sons"))
        self.assertIn("It was created.", page.text())
        self.assertIn("It has no beers yet.", page.text())
        stored = await self.stored("mill_sons")
        self.assertRegex(stored.pop("updated"), r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$")
        self.assertEqual(
            stored,
            {
                "type": "brewery", "name": "Mill & Sons", "city": "Grauheim", "country": "Rheinmark",
                "address": ["1 Road", "Yard"], "code": "D-9", "website": "https://mill.example/",
                "phone": "555-0151", "description": "One.\n\nTwo.", "state": "Ober",
            },
        )  # fmt: skip
        page = await page.follow("Add a beer")
        self.assertEqual(page.form.fields["brewery_id"], "mill_sons")
        page = await page.form.submit(name="Old Stout", abv="4,5", style="Stout")
        self.assertEqual((page.status, page.heading), (200, "Old Stout"))
        stored = await self.stored("mill_sons-old_stout")
        self.assertEqual((stored["abv"], stored["brewery_id"], stored["type"]), (4.5, "mill_sons", "beer"))
        page = await page.follow("Mill & Sons")
        self.assertEqual((page.names, page.text(page.by_id("beers"))), (["Old Stout"], "Beers (1)"))
        page = await self.browser.get("/beer")
        self.assertEqual(page.rows, [["Old Stout", "Mill & Sons", "Stout", "4.5 %", "0"]])

    async def test_mistakes_are_shown_next_to_their_fields(self) -> None:
        """All mistakes are shown at once, at their fields and at the top; the input is kept."""
        await self.brewery()
        typed = {
            "name": " ",
            "abv": "strong",
            "ibu": "-1",
            "srm": "1e9",
            "upc": "x",
            "description": "d" * 4001,
        }
        page = await (await self.browser.get("/new/beer")).form.submit(None, **typed)
        self.assertEqual(page.status, 422)
        problems = page.problems()
        self.assertEqual(set(problems), {*typed, "brewery_id"})
        self.assertEqual(problems["name"], "Error: Enter the name.")
        self.assertEqual(problems["brewery_id"], "Error: Choose a brewery.")
        self.assertIn("at most 4000", problems["description"])
        self.assertEqual({name: page.form.fields[name] for name in typed}, typed)
        self.assertTrue(page.text(page.all("title")[0]).startswith("Error: "))
        (summary,) = page.all("div", role="alert")
        links = {one.get("href"): page.text(one) for one in summary.iter("a")}
        self.assertEqual(
            links, {f"#f-{name}": words.removeprefix("Error: ") for name, words in problems.items()}
        )
        page = await page.form.submit(
            name="Fine", brewery_id="mill", abv="", ibu="", srm="", upc="12", description=""
        )
        self.assertEqual((page.status, page.heading), (200, "Fine"))

    async def test_two_of_one_name(self) -> None:
        """A second one of the same name is refused, with a link; names that differ only in signs are
        different."""
        form = (await self.browser.get("/new/brewery")).form
        await form.submit(name="Mill")
        page = await form.submit(name="MILL", city="Elsewhere")
        self.assertEqual((page.status, set(page.problems())), (409, {"name"}))
        self.assertEqual(page.form.fields["city"], "Elsewhere")
        self.assertEqual((await page.follow("See the brewery of this name")).heading, "Mill")
        page = await form.submit(name="Mill!")
        self.assertTrue(page.url.startswith(self.base + "brewery/mill_2?"), page.url)
        await self.put("other", type="something else")
        page = await form.submit(name="Other")
        self.assertEqual(page.heading, "Other")
        self.assertEqual(await self.stored("other"), {"type": "something else"})

    async def test_no_bar_code(self) -> None:
        """A bar code of zeros is none, and is not shown."""
        await self.brewery()
        for code, is_shown in ((0, False), ("000", False), (70, True)):
            await self.beer(upc=code)
            page = await self.browser.get("/beer/mill-stout")
            self.assertEqual("Bar code" in page.text(), is_shown, code)

    async def test_edit(self) -> None:
        """Fields of the form are stored; unknown members are kept."""
        await self.brewery()
        await self.beer(abv=4.5, style="Stout", geo={"lat": 1}, upc=7)
        page = await (await self.browser.get("/beer/mill-stout")).follow("Edit")
        self.assertEqual((page.form.fields["abv"], page.form.fields["upc"]), ("4.5", "7"))
        page = await page.form.submit(name="Stouter", abv="5", style="")
        self.assertEqual((page.status, page.heading), (200, "Stouter"))
        self.assertIn("Your changes were saved.", page.text())
        stored = await self.stored("mill-stout")
        del stored["updated"]
        wanted = {"name": "Stouter", "abv": 5.0, "geo": {"lat": 1}, "upc": 7}
        self.assertEqual(stored, {"type": "beer", "brewery_id": "mill", **wanted})
        page = await (await self.browser.get("/beer/mill-stout/edit")).form.submit(name="")
        self.assertEqual((page.status, set(page.problems())), (422, {"name"}))

    async def test_nothing_changed(self) -> None:
        """A form sent as it came stores nothing."""
        await self.brewery()
        before = (await self.connection.get("mill")).cas
        page = await (await self.browser.get("/brewery/mill/edit")).form.submit()
        self.assertIn("Nothing was different", page.text())
        self.assertEqual((await self.connection.get("mill")).cas, before)

    async def test_delete_a_beer(self) -> None:
        """After a question, the beer goes, and its likes with it."""
        await self.brewery()
        await self.beer()
        page = await self.browser.get("/beer/mill-stout")
        await page.form.submit()
        page = await page.follow("Delete …")
        self.assertEqual((page.status, page.heading), (200, "Delete Stout?"))
        page = await page.form.submit()
        self.assertIn("It was deleted.", page.text())
        self.assertEqual(
            (await self.stored("mill-stout"), await self.stored("likes-mill-stout")), (None, None)
        )
        self.assertEqual((await self.browser.get("/beer/mill-stout")).status, 404)

    async def test_a_beer_moves(self) -> None:
        """A beer can be given to another brewery; to one that is gone it cannot."""
        await self.brewery()
        await self.brewery("yard", "Yard")
        await self.beer()
        form = (await self.browser.get("/beer/mill-stout/edit")).form
        page = await form.submit(brewery_id="nowhere")
        self.assertEqual((page.status, set(page.problems())), (422, {"brewery_id"}))
        page = await form.submit(brewery_id="yard")
        self.assertTrue(page.has_link("Yard"))
        self.assertEqual((await self.browser.get("/brewery/mill")).names, [])
        self.assertEqual((await self.browser.get("/brewery/yard")).names, ["Stout"])

    async def test_a_beer_of_no_brewery(self) -> None:
        """A beer whose brewery does not exist is shown as it is, and can be given one."""
        await self.beer(brewery="gone")
        await self.brewery()
        page = await self.browser.get("/beer/mill-stout")
        self.assertIn("gone (there is no such brewery)", page.text())
        self.assertEqual((await self.browser.get("/beer")).rows, [["Stout", "gone", "", "", "0"]])
        form = (await page.follow("Edit")).form
        self.assertEqual(form.fields["brewery_id"], "gone")
        self.assertEqual((await form.submit(abv="5")).status, 200)
        form = (await self.browser.get("/beer/mill-stout/edit")).form
        self.assertTrue((await form.submit(brewery_id="mill")).has_link("Mill"))


class ConflictTests(BeerCase):
    """Two people at one document."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Store a brewery and a beer, and open the form in two browsers."""
        await super().setUp()
        await self.brewery()
        await self.beer(abv=4.5, style="Stout", extra=1)
        self.mine = (await self.browser.get("/beer/mill-stout/edit")).form
        self.theirs = (await self.another_browser().get("/beer/mill-stout/edit")).form

    async def test_both_versions_are_shown_and_the_user_decides(self) -> None:
        """The later one sees what differs; nothing of his is stored until he says so."""
        self.assertEqual((await self.theirs.submit(abv="6", description="theirs")).status, 200)
        page = await self.mine.submit(abv="5", style="Porter", description="mine")
        self.assertEqual((page.status, page.heading), (409, "Somebody else changed Stout"))
        rows = [
            [page.text(cell) for cell in row]
            for row in page.by_id("versions").iter("tr")
            if row.find("td") is not None
        ]
        self.assertEqual(
            rows,
            [
                ["Style", "Stout", "Porter"],
                ["Alcohol (% by volume)", "6", "5"],
                ["Description", "theirs", "mine"],
            ],
        )
        self.assertEqual((await self.stored("mill-stout"))["abv"], 6.0)
        kept = await page.follow("Keep the stored version")
        self.assertIn("6", kept.text())
        self.assertEqual(page.form.fields["style"], "Porter")
        page = await page.form.submit(description="both")
        self.assertIn("Your changes were saved.", page.text())
        stored = await self.stored("mill-stout")
        self.assertEqual(
            [stored[name] for name in ("abv", "style", "description", "extra")], [5.0, "Porter", "both", 1]
        )

    async def test_again_and_again(self) -> None:
        """A conflict while a conflict is decided is one more conflict."""
        await self.theirs.submit(abv="6")
        page = await self.mine.submit(abv="5")
        await (await self.another_browser().get("/beer/mill-stout/edit")).form.submit(abv="7")
        page = await page.form.submit()
        self.assertEqual(page.status, 409)
        self.assertIn("7", page.text(page.by_id("versions")))
        self.assertEqual((await page.form.submit()).status, 200)
        self.assertEqual((await self.stored("mill-stout"))["abv"], 5.0)

    async def test_a_conflict_in_the_last_moment(self) -> None:
        """A change between the look at the document and the write is caught by the node."""
        replace = self.connection.replace

        async def late(key: str, value: Any, **options: Any) -> Any:
            self.connection.replace = replace  # type: ignore[method-assign]
            await self.theirs.submit(abv="6")
            return await replace(key, value, **options)

        self.connection.replace = late  # type: ignore[method-assign, assignment]
        page = await self.mine.submit(abv="5")
        self.assertEqual(page.status, 409)
        self.assertEqual((await self.stored("mill-stout"))["abv"], 6.0)

    async def test_the_same_change_twice_is_no_conflict(self) -> None:
        """If both made the same change, there is no conflict."""
        await self.theirs.submit(abv="6")
        page = await self.mine.submit(abv="6.0")
        self.assertEqual(page.status, 200)
        self.assertIn("Nothing was different", page.text())

    async def test_two_at_once(self) -> None:
        """If two arrive together, one is stored and the other is refused."""
        pages = await together(self.mine.submit(abv="5"), self.theirs.submit(abv="6"))
        self.assertEqual(sorted(page.status for page in pages), [200, 409])

    async def test_deleted_meanwhile(self) -> None:
        """The input is not lost with the document: it can be created again."""
        await (await self.browser.get("/beer/mill-stout/delete")).form.submit()
        page = await self.mine.submit(abv="5", name="Stouter")
        self.assertEqual((page.status, page.heading), (409, "Somebody else deleted it"))
        page = await page.form.submit()
        self.assertEqual(page.heading, "Stouter")
        self.assertEqual((await self.stored("mill-stouter"))["abv"], 5.0)

    async def test_changed_before_it_was_deleted(self) -> None:
        """A document that changed after the confirmation page is not deleted; the page is shown again."""
        form = (await self.another_browser().get("/beer/mill-stout/delete")).form
        await self.mine.submit(description="precious")
        page = await form.submit()
        self.assertEqual(page.status, 409)
        self.assertIn("precious", page.text())
        self.assertIsNotNone(await self.stored("mill-stout"))
        await page.form.submit()
        self.assertIsNone(await self.stored("mill-stout"))

    async def test_deleted_twice(self) -> None:
        """The second delete finds nothing, and says so."""
        form = (await self.browser.get("/beer/mill-stout/delete")).form
        await form.submit()
        self.assertEqual((await form.submit()).status, 404)


class BreweryDeletionTests(BeerCase):
    """A brewery with beers is not deleted."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Store a brewery with a beer."""
        await super().setUp()
        await self.brewery()
        await self.beer()

    async def test_refused_until_the_beers_are_gone(self) -> None:
        """The page names the beers; without them the brewery can go."""
        for number in range(25):
            await self.beer(f"mill-ale-{number}", f"Ale {number}")
        form = (await self.browser.get("/brewery/mill/delete")).form
        page = await form.submit()
        self.assertEqual((page.status, page.heading), (409, "Mill was not deleted"))
        self.assertIn("It still has 26 beers.", page.text())
        self.assertIn("… and 6 more.", page.text())
        for number in range(25):
            await self.connection.delete(f"mill-ale-{number}")
        page = await form.submit()
        self.assertIn("It still has 1 beer.", page.text())
        page = await page.follow("Stout")
        await (await page.follow("Delete …")).form.submit()
        page = await form.submit()
        self.assertEqual((page.status, page.heading), (200, "Breweries"))
        self.assertIsNone(await self.stored("mill"))

    async def test_being_refused_is_no_change(self) -> None:
        """An edit of the brewery at the same time has no conflict."""
        form = (await self.browser.get("/brewery/mill/edit")).form
        await (await self.another_browser().get("/brewery/mill/delete")).form.submit()
        self.assertEqual((await form.submit(city="Grauheim")).status, 200)

    async def test_no_beer_for_a_brewery_that_is_going(self) -> None:
        """While a brewery is locked for its deletion no beer is stored, and the page explains why."""
        lock = await self.connection.lock("mill", ttl=15)
        page = await (await self.browser.get("/new/beer?brewery=mill")).form.submit(name="Late")
        self.assertEqual((page.status, set(page.problems())), (422, {"brewery_id"}))
        self.assertIsNone(await self.stored("mill-late"))
        for path in ("/brewery/mill/edit", "/brewery/mill/delete"):
            self.assertEqual((await self.browser.get(path)).status, 409)
        await self.connection.unlock("mill", lock.cas)

    async def test_locked_between_question_and_answer(self) -> None:
        """Forms that come while the brewery is locked are refused, and work afterwards."""
        edit = (await self.browser.get("/brewery/mill/edit")).form
        delete = (await self.browser.get("/brewery/mill/delete")).form
        lock = await self.connection.lock("mill", ttl=15)
        for form in (edit, delete):
            page = await form.submit(name="Other")
            self.assertEqual((page.status, page.heading), (409, "Somebody is just deleting this"))
        await self.connection.unlock("mill", lock.cas)

    async def test_a_beer_stored_as_its_brewery_goes(self) -> None:
        """For any order of steps, a brewery is not deleted if a beer of it remains."""
        await self.connection.delete("mill-stout")
        add, outcome = self.connection.add, []
        delete = (await self.another_browser().get("/brewery/mill/delete")).form

        async def late(key: str, value: Any) -> Any:
            outcome.append((await delete.submit()).status)
            return await add(key, value)

        self.connection.add = late  # type: ignore[method-assign, assignment]
        page = await (await self.browser.get("/new/beer?brewery=mill")).form.submit(name="Late")
        self.assertEqual((page.status, set(page.problems()), outcome), (422, {"brewery_id"}, [200]))
        self.assertEqual((await self.stored("mill"), await self.stored("mill-late")), (None, None))

    async def test_a_brewery_deleted_as_a_beer_comes(self) -> None:
        """A beer stored after the first look is found by the second, and the lock is undone."""
        await self.connection.delete("mill-stout")
        lock = self.connection.lock

        async def late(key: str, ttl: int) -> Any:
            await self.beer("mill-late", "Late")
            return await lock(key, ttl=ttl)

        self.connection.lock = late  # type: ignore[method-assign, assignment]
        page = await (await self.browser.get("/brewery/mill/delete")).form.submit()
        self.assertEqual((page.status, page.heading), (409, "Mill was not deleted"))
        self.assertEqual((await self.browser.get("/brewery/mill/edit")).status, 200)

    async def test_a_beer_moved_to_a_brewery_that_goes(self) -> None:
        """The beer goes back to where it was."""
        await self.brewery("yard", "Yard")
        replace = self.connection.replace

        async def late(key: str, value: Any, **options: Any) -> Any:
            self.connection.replace = replace  # type: ignore[method-assign]
            await self.connection.delete("yard")
            return await replace(key, value, **options)

        self.connection.replace = late  # type: ignore[method-assign, assignment]
        page = await (await self.browser.get("/beer/mill-stout/edit")).form.submit(brewery_id="yard", abv="9")
        self.assertEqual((page.status, set(page.problems())), (422, {"brewery_id"}))
        self.assertEqual(
            await self.stored("mill-stout"), {"type": "beer", "name": "Stout", "brewery_id": "mill"}
        )


class LikeTests(BeerCase):
    """Likes are counters."""

    async def test_one(self) -> None:
        """A like is counted, and shown on the page and in the list."""
        await self.brewery()
        await self.beer()
        page = await self.browser.get("/beer/mill-stout")
        self.assertEqual(page.text(page.by_id("likes")), "Nobody likes it yet.")
        page = await page.form.submit()
        self.assertIn("Thank you", page.text())
        self.assertEqual(page.text(page.by_id("likes")), "1 person likes it.")
        self.assertEqual((await self.browser.get("/beer")).rows[0][-1], "1")

    async def test_many_at_once(self) -> None:
        """None of many likes at the same time is lost."""
        await self.brewery()
        await self.beer()
        forms = [(await self.another_browser().get("/beer/mill-stout")).form for _ in range(5)]
        await together(*(form.submit() for form in forms * 10))
        page = await self.browser.get("/beer/mill-stout")
        self.assertEqual(page.text(page.by_id("likes")), "50 people like it.")

    async def test_what_cannot_be_liked(self) -> None:
        """No counter is created for a document that is not a beer."""
        await self.brewery()
        await self.beer()
        form = (await self.browser.get("/beer/mill-stout")).form
        for key in ("nothing", "mill"):
            form.action = f"{self.base}beer/{key}/like"
            self.assertEqual((await form.submit()).status, 404)
            self.assertIsNone(await self.stored(f"likes-{key}"))
