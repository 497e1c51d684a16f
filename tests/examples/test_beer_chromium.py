"""The beer application in Chromium: the effects of its script and its style sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import TimeoutError as DeferredTimeout

from tests.examples import chromium
from tests.examples.support import HOSTILE, BeerCase

PATH = chromium.find()

# The lowest contrast of text and background, over all elements that contain text.
LEAST_CONTRAST = """
(() => {
  const texts = element => [...element.childNodes].filter(one => one.nodeType === 3).map(one => one.data);
  const parts = color => color.match(/[0-9.]+/g).map(Number);
  const linear = part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) =>
    0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const color = parts(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  let least = {ratio: 21, text: ""};
  for (const element of document.body.querySelectorAll("*")) {
    const text = texts(element).join("").trim();
    if (text) {
      const front = parts(getComputedStyle(element).color);
      const pair = [light(front), light(behind(element))].sort((a, b) => b - a);
      const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
      if (ratio < least.ratio) least = {ratio, text};
    }
  }
  return least;
})()
"""


class ChromiumTests(BeerCase):
    """With scripts, style, and a keyboard."""

    sample = True
    if PATH is None:
        skip = f"none of {', '.join(chromium.NAMES)} is on PATH, so the script and the style were not tried"

    async def setUp(self) -> None:  # type: ignore[override]
        """Start Chromium as well."""
        await super().setUp()
        assert PATH is not None
        self.chromium = chromium.Chromium(PATH, Path(self.mktemp()).resolve())
        self.addCleanup(self.chromium.close)
        await self.chromium.start()

    async def open(self, path: str) -> None:
        """Go to a page, and mark it: another one has no mark."""
        await self.chromium.open(self.base + path)
        await self.chromium.run("window.mark = true")

    async def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(
            await self.chromium.run(f"document.querySelector({json.dumps(selector)}).textContent.trim()")
        )

    async def type(self, text: str) -> None:
        """Type at the focus, a letter at a time."""
        for letter in text:
            await self.chromium.ask("Input.insertText", text=letter)

    async def check_quiet(self) -> None:
        """Find that nothing went wrong in the page: no exception, no blocked file, no dialog."""
        self.assertEqual(self.chromium.events, [])

    async def test_search_as_you_type(self) -> None:
        """Results follow the letters without another page; the address follows too, and the change is
        announced."""
        await self.open("beer")
        await self.chromium.run("document.getElementById('q').focus()")
        await self.type("weaver sai")
        await self.chromium.until("document.getElementById('found')?.textContent.includes('“weaver sai”')")
        names = await self.chromium.run(
            "[...document.querySelectorAll('tbody th')].map(one => one.textContent)"
        )
        self.assertTrue(names and all("Weaver Saison" in name for name in names), names)
        await self.chromium.until("document.getElementById('live').textContent.includes('“weaver sai”')")
        self.assertEqual(await self.chromium.run("location.search"), "?q=weaver+sai")
        self.assertEqual(await self.chromium.run("document.activeElement.id"), "q")
        await self.chromium.run("document.getElementById('q').select()")
        await self.chromium.ask("Input.insertText", text="")
        await self.chromium.run("document.getElementById('q').dispatchEvent(new Event('input'))")
        await self.chromium.until("document.querySelectorAll('tbody tr').length === 20 && !location.search")
        self.assertTrue(await self.chromium.run("window.mark"))
        await self.check_quiet()

    async def test_search_says_when_it_fails(self) -> None:
        """A failure is shown, and Enter asks for a whole page."""
        await self.open("beer")
        search = self.store.search

        async def fail(*_: Any) -> Any:
            raise DeferredTimeout

        self.store.search = fail  # type: ignore[method-assign, assignment]
        await self.chromium.run("document.getElementById('q').focus()")
        await self.type("x")
        await self.chromium.until("document.getElementById('live').className === 'problem'")
        self.assertIn("Press Enter", await self.text("#live"))
        self.store.search = search  # type: ignore[method-assign]
        await self.chromium.loading(lambda: self.chromium.key("Enter"))
        self.assertEqual(await self.text("#found"), "0 beers with “x”.")

    async def test_like_without_another_page(self) -> None:
        """The count changes in place, the change is announced, and the focus stays."""
        await self.open("beer/amber_lock_brewpub-honest_weaver_porter")
        await self.chromium.run("document.querySelector('#like button').focus()")
        for words in ("1 person likes it.", "2 people like it."):
            await self.chromium.key("Enter")
            await self.chromium.until(f"document.getElementById('likes').textContent === '{words}'")
            await self.chromium.until(f"document.getElementById('live').textContent === '{words}'")
        self.assertTrue(await self.chromium.run("window.mark && document.activeElement.tagName === 'BUTTON'"))
        self.assertEqual(await self.stored("likes-amber_lock_brewpub-honest_weaver_porter"), 2)
        await self.check_quiet()

    async def test_a_form_by_keyboard(self) -> None:
        """The first stop of the Tab key leads past the navigation; mistakes get the focus; saving works."""
        await self.open("new/brewery")
        await self.chromium.key("Tab")
        self.assertEqual(await self.chromium.run("document.activeElement.textContent"), "Skip to the content")
        self.assertTrue(await self.chromium.run("document.activeElement.getBoundingClientRect().left >= 0"))
        await self.chromium.run("document.getElementById('f-name').focus()")
        await self.chromium.loading(lambda: self.chromium.key("Enter"))
        self.assertIn("There is a problem", await self.chromium.run("document.activeElement.textContent"))
        await self.chromium.run("document.getElementById('f-name').focus()")
        await self.type("Key & Board")
        await self.chromium.loading(lambda: self.chromium.key("Enter"))
        self.assertEqual(await self.text("h1"), "Key & Board")

    async def test_hostile_names(self) -> None:
        """Nothing that a name says is run, not even when a search brings it in by script."""
        for number, name in enumerate(HOSTILE):
            await self.brewery(f"hostile-{number}", f"Hostile {name}", website=name, description=name)
            await self.open(f"brewery/hostile-{number}")
            self.assertEqual(await self.text("h1"), f"Hostile {name}")
        await self.open("brewery")
        await self.chromium.run("document.getElementById('q').focus()")
        await self.type("hostile")
        await self.chromium.until(f"document.querySelectorAll('tbody tr').length === {len(HOSTILE)}")
        self.assertEqual(
            await self.chromium.run("document.querySelectorAll('main script, img, b').length"), 0
        )
        await self.check_quiet()

    async def test_small_screens_and_contrast(self) -> None:
        """At 320 pixels nothing needs scrolling sideways; the contrast of text is 4.5 or more, always."""
        await self.chromium.ask(
            "Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=1, mobile=True
        )
        beer = "beer/amber_lock_brewpub-honest_weaver_porter"
        paths = [
            "nothing",
            "beer",
            "brewery",
            beer,
            f"{beer}/edit",
            f"{beer}/delete",
            "brewery/amber_lock_brewpub",
            "new/beer",
        ]
        for path in paths:
            for scheme in ("light", "dark"):
                features = [{"name": "prefers-color-scheme", "value": scheme}]
                await self.chromium.ask("Emulation.setEmulatedMedia", features=features)
                await self.open(path)
                width = await self.chromium.run("document.documentElement.scrollWidth")
                self.assertLessEqual(width, 320, path)
                least = await self.chromium.run(LEAST_CONTRAST)
                self.assertGreaterEqual(least["ratio"], 4.5, (path, scheme, least))
