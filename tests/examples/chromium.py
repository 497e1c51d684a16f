"""Chromium without a window, controlled by its DevTools protocol over a pipe."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import protocol, reactor
from twisted.internet.defer import Deferred

EVENTS = frozenset(
    {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Page.javascriptDialogOpening"}
)
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """Return the path of a Chromium, ``None`` if there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class DevToolsError(Exception):
    """Chromium refused a command, or a script in the page failed."""


class Chromium(protocol.ProcessProtocol):
    """One Chromium with one page.

    :param folder: for its profile; it must not exist.
    :param options: further ones of the command line.
    :param environment: its variables; ``None`` for those of this process.
    :ivar events: what happened in the page, as (method, parameters): errors, dialogs, log entries.
    """

    def __init__(
        self, path: str, folder: Path, *options: str, environment: dict[str, str] | None = None
    ) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.ended: Deferred[None] = Deferred()
        self._buffer = b""
        self._waiting: dict[int, Deferred[dict[str, Any]]] = {}
        self._loads: list[Deferred[None]] = []
        self._number = 0
        self._session: str | None = None
        command = [
            path, "--headless", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--no-first-run",
            "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
            *options, "about:blank",
        ]  # fmt: skip
        # Commands go in by descriptor 3, answers come by 4; each ends with a zero byte.
        descriptors: Any = {0: "w", 1: "r", 2: "r", 3: "w", 4: "r"}
        self._process: Any = reactor.spawnProcess(self, path, command, env=environment, childFDs=descriptors)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Twisted: something was printed, or a message came."""
        if childFD == 4:
            *messages, self._buffer = (self._buffer + data).split(b"\0")
            for message in messages:
                self._received(json.loads(message))

    def processEnded(self, reason: Any) -> None:
        """Twisted: it is gone."""
        for waiting in self._waiting.values():
            waiting.errback(DevToolsError("Chromium ended"))
        self.ended.callback(None)

    def _received(self, message: dict[str, Any]) -> None:
        if "id" in message:
            waiting = self._waiting.pop(message["id"])
            if "error" in message:
                waiting.errback(DevToolsError(message["error"]))
            else:
                waiting.callback(message["result"])
        elif message["method"] == "Page.loadEventFired":
            loads, self._loads = self._loads, []
            for load in loads:
                load.callback(None)
        elif message["method"] in EVENTS:
            self.events.append((message["method"], message["params"]))

    def ask(self, method: str, **parameters: Any) -> Deferred[dict[str, Any]]:
        """Send a command; fires with its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._process.writeToChild(3, json.dumps(message).encode() + b"\0")
        answer: Deferred[dict[str, Any]] = Deferred()
        self._waiting[self._number] = answer
        return answer

    async def start(self) -> None:
        """Attach to the page."""
        target = (await self.ask("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.ask(f"{domain}.enable")

    async def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""
        await self.loading(lambda: self.ask("Page.navigate", url=url))

    async def loading(self, action: Callable[[], Any]) -> None:
        """Run an action that loads another page, and wait until it is loaded."""
        loaded: Deferred[None] = Deferred()
        self._loads.append(loaded)
        await action()
        await loaded

    async def run(self, script: str) -> Any:
        """Evaluate an expression in the page; a promise is waited for."""
        result = await self.ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in result:
            raise DevToolsError(result["exceptionDetails"])
        return result["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until an expression is true in the page."""
        look = f"const look = () => ({condition}) ? done() : setTimeout(look, 10); look();"
        await self.run(f"new Promise(done => {{ {look} }})")

    async def key(self, name: str) -> None:
        """Press a key."""
        codes = {"Tab": 9, "Enter": 13}
        common = {"key": name, "windowsVirtualKeyCode": codes[name]}
        text = {"text": "\r"} if name == "Enter" else {}
        await self.ask("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    async def close(self) -> None:
        """End it."""
        if not self.ended.called:
            self._process.signalProcess("KILL")
        await self.ended
