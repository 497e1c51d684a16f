"""``python -m examples.beer``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from twisted.internet import protocol, reactor
from twisted.internet.defer import Deferred

from tests.examples.support import SAMPLE, BeerCase
from tests.tooling.forking import spawn

ROOT = SAMPLE.parents[1]


class _Process(protocol.ProcessProtocol):
    """A process whose output is kept, and which can be waited for."""

    def __init__(self) -> None:
        self.output: dict[int, str] = {1: "", 2: ""}
        self.ended: Deferred[int] = Deferred()
        self._waiting: tuple[str, Deferred[re.Match[str]]] | None = None

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Twisted: output came."""
        self.output[childFD] += data.decode()
        found = self._waiting and re.search(self._waiting[0], self.output[1])
        if self._waiting and found:
            waiting, self._waiting = self._waiting[1], None
            waiting.callback(found)

    def processEnded(self, reason: Any) -> None:
        """Twisted: it ended."""
        if self._waiting:
            self._waiting[1].errback(AssertionError(self.output))
        self.ended.callback(reason.value.exitCode)

    def wait_for(self, pattern: str) -> Deferred[re.Match[str]]:
        """Fire when the output has this."""
        self._waiting = pattern, Deferred()
        return self._waiting[1]


class CommandTests(BeerCase):
    """Starting and ending, and the reasons not to."""

    def run_it(self, *arguments: str, anew: bool = False) -> tuple[_Process, Any]:
        """Start the application as a process: a new interpreter, or a fork."""
        process = _Process()
        if anew:
            command = [sys.executable, "-m", "examples.beer", *arguments]
            transport: Any = reactor
            return process, transport.spawnProcess(process, command[0], command, None, str(ROOT))
        transport = spawn(process, ["-m", "examples.beer", *arguments], folder=str(ROOT))
        return process, transport

    async def test_against_a_cluster(self) -> None:
        """It prints its address, loads the sample, and ends on command."""
        process, transport = self.run_it(self.node.connection_string, "--port", "0", "--load", anew=True)
        found = await process.wait_for("Open (http://[^ ]+/)")
        self.assertIn("201 documents added", process.output[1])
        page = await self.browser.get(found[1] + "brewery/amber_lock_brewpub")
        self.assertEqual(page.heading, "Amber Lock Brewpub")
        transport.signalProcess("TERM")
        await process.ended
        self.assertEqual(process.output[2], "")

    async def test_on_a_node_of_its_own(self) -> None:
        """--embedded needs no cluster, and --data-dir keeps what was stored."""
        folder = Path(self.mktemp()).resolve()
        for counts in ("201 documents added, 0", "0 documents added, 201"):
            process, transport = self.run_it("--embedded", "--data-dir", str(folder), "--port", "0", "--load")
            found = await process.wait_for("Open (http://[^ ]+/)")
            self.assertIn(counts, process.output[1])
            self.assertEqual(len((await self.browser.get(found[1])).names), 20)
            transport.signalProcess("INT")
            await process.ended
            self.assertEqual(process.output[2], "")

    async def test_what_cannot_be(self) -> None:
        """The command ends with a sentence that says what is wrong."""
        missing = Path(self.mktemp()).resolve()
        for arguments, status, words in (
            ((), 2, "name a connection string, or --embedded"),
            (("couchbase://x", "--embedded"), 2, "not both"),
            (("couchbase://x", "--data-dir", "x"), 2, "--data-dir is for --embedded"),
            (("couchbase://x", "--port", "70000"), 2, "0 to 65535"),
            (("--embedded", "--username", "x"), 2, "are for a connection string"),
            (("nonsense://x",), 1, "nonsense"),
            (("couchbase://127.0.0.1:1",), 1, "Is the cluster running"),
            ((f"{self.node.connection_string}/no_such_bucket",), 1, "no_such_bucket"),
            ((self.node.connection_string, "--password-file", str(missing)), 1, "--password-file"),
            ((self.node.connection_string, "--load", str(missing)), 1, f"{missing} cannot be read"),
        ):
            process, _ = self.run_it(*arguments)
            self.assertEqual(await process.ended, status, process.output)
            self.assertIn(words, process.output[2])
            self.assertNotIn("Traceback", process.output[2])
