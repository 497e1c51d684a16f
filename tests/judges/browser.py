"""A browser for tests of pages: Chromium with axe, and everything a page must not do.

``make judges`` fetches both: Chromium from Debian, axe from npm.
"""

from __future__ import annotations

import json
import os
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any

from tests.examples.chromium import Chromium
from tests.judges.programs import ROOT

FETCHED = ROOT / "build" / "judges" / "chromium"
"""The folder in which ``make judges`` unpacks Chromium and its libraries."""
AXE = ROOT / "build" / "judges" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
NAMES = ("chromium", "chromium-browser", "google-chrome")
DESKTOP = (1280, 800)
PHONE = (320, 640)

# What axe is asked: the rules of WCAG 2.2 A and AA, and its own best practices.
_RUN_AXE = """
(async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  return found.violations.map(({id, help, nodes}) => ({
    id, help, nodes: nodes.map(node => `${node.target.join(" ")}: ${node.failureSummary}`)
  }));
})()
"""

_WATCH_POLICY = """
addEventListener("securitypolicyviolation", ({violatedDirective, blockedURI, sample, lineNumber}) =>
  console.error("policy", violatedDirective, blockedURI, sample, lineNumber));
"""

_KEYS: dict[str, tuple[int, str]] = {
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    " ": (32, " "),
    "End": (35, ""),
    "Home": (36, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
    "Backspace": (8, ""),
    "Delete": (46, ""),
}
_MODIFIERS = {"Alt": 1, "Control": 2, "Shift": 8}


def find() -> str | None:
    """Return the path of a Chromium: an installed one, or what ``make judges`` brought."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    fetched = FETCHED / "usr" / "lib" / "chromium" / "chromium"
    return found or (str(fetched) if fetched.exists() else None)


def missing() -> str | None:
    """Return why pages cannot be tried; ``None`` if they can."""
    if find() is None:
        return "no Chromium (make judges fetches Debian's)"
    if not AXE.exists():
        return "axe-core is not there (make judges fetches it from npm)"
    return None


def _environment(path: str) -> dict[str, str] | None:
    """Return the environment for a Chromium: one that was only unpacked finds its libraries by it."""
    if not path.startswith(str(FETCHED)):
        return None
    folders = FETCHED.glob("usr/lib/*-linux-gnu*")
    libraries = [str(one) for place in folders for one in (place, place / "pulseaudio")]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}


class Browser(Chromium):
    """One page in a browser.

    :param folder: for its profile; it must not exist.
    :param options: further ones of the command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        path = find()
        assert path is not None, missing()
        super().__init__(path, folder, *options, environment=_environment(path))

    async def start(self) -> None:
        """Attach to a page of a desktop's size."""
        await super().start()
        await self.ask("Network.enable")
        await self.ask("Page.addScriptToEvaluateOnNewDocument", source=_WATCH_POLICY)
        await self.resize(*DESKTOP)

    async def resize(self, width: int, height: int) -> None:
        """Change the size of the page, in CSS pixels."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    async def prefer(self, scheme: str) -> None:
        """Prefer ``light`` or ``dark``, without movement."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        await self.ask("Emulation.setEmulatedMedia", features=features)

    async def violations(self) -> list[str]:
        """Return what axe finds on the page as it is now, one line each; none if all is well."""
        if not await self.run("typeof axe === 'object'"):
            # DevTools may do what the page's policy forbids to the page.
            await self.run(AXE.read_text(encoding="utf-8") + "; true")
        found = await self.run(_RUN_AXE)
        return [f"{one['id']}: {one['help']}: {node}" for one in found for node in one["nodes"]]

    def mishaps(self, *expected: int) -> list[str]:
        """Return what went wrong on the page since the last call: exceptions, errors and warnings of its
        scripts, violations of its policy, dialogs, files that cannot be loaded.

        :param expected: statuses of answers that the test provokes.
        """
        found = []
        for method, parameters in self.events:
            text = json.dumps(parameters)
            if method == "Log.entryAdded":
                entry = parameters["entry"]
                words = "status of {} ".format
                if any(words(status) in entry["text"] for status in expected):
                    continue
            if method == "Runtime.consoleAPICalled" and parameters["type"] not in (
                "error",
                "warning",
                "assert",
            ):
                continue
            found.append(f"{method}: {text}")
        self.events.clear()
        return found

    async def press(self, key: str, *modifiers: str) -> None:
        """Press a key, as ``Tab`` or ``a``, with ``Control``, ``Shift`` or ``Alt``."""
        code, text = _KEYS.get(key, (ord(key.upper()) if len(key) == 1 else 0, key))
        bits = sum(_MODIFIERS[modifier] for modifier in modifiers)
        common: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code, "modifiers": bits}
        typed = {"text": text} if text and not bits & ~_MODIFIERS["Shift"] else {}
        await self.ask("Input.dispatchKeyEvent", type="keyDown" if typed else "rawKeyDown", **common, **typed)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    async def type(self, text: str) -> None:
        """Enter text at the focus."""
        await self.ask("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        """Click on the middle of the first element that a selector finds."""
        found = json.dumps(selector)
        place = await self.run(
            f"""(() => {{
              const element = document.querySelector({found});
              if (!element) return null;
              element.scrollIntoView({{block: "center", inline: "center", behavior: "instant"}});
              const {{x, y, width, height}} = element.getBoundingClientRect();
              return {{x: x + width / 2, y: y + height / 2}};
            }})()"""
        )
        if place is None:
            raise AssertionError(f"nothing on the page is {selector}")
        for kind in ("mousePressed", "mouseReleased"):
            await self.ask("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    async def focused(self) -> str:
        """Return the text, or else the label, of the focused element."""
        return str(
            await self.run(
                "(e => (e.getAttribute('aria-label') || e.innerText || e.labels?.[0]?.innerText || e.tagName)"
                ".trim())(document.activeElement)"
            )
        )

    async def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Save a picture of the page as PNG.

        :param whole: also what is below the window.
        """
        taken = await self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(b64decode(taken["data"]))
