"""The programs of docs/moving/sdk-4.md: the one for the official SDK and the one for ours print the same."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SkipTest, TestCase

from couchnode.service import EmbeddedNode
from tests.interop.test_official_client import ROOT, interpreter

PROGRAMS = ROOT / "examples" / "moving"


class MovingTests(TestCase):
    """Both programs on a node each."""

    timeout = 120

    def test_both_programs(self) -> Any:
        """Line by line, they print the same."""
        python = interpreter()
        if python is None:
            raise SkipTest("the official client is not installed: make interop builds its environment")
        return ensureDeferred(self._compare(python))

    async def _compare(self, python: Path) -> None:
        official, ours = await gatherResults(
            [
                ensureDeferred(self._output(python, "stock_sdk4.py")),
                ensureDeferred(self._output(Path(sys.executable), "stock.py")),
            ]
        )
        self.assertEqual(official, ours)
        self.assertEqual(ours.count("\n"), 6)

    async def _output(self, python: Path, name: str) -> str:
        """Run a program against a new node; return what it prints."""
        folder = Path(self.mktemp())
        node = EmbeddedNode(
            folder, users=[("Administrator", "password")], buckets=[("default", "bucket-password")]
        )
        await node.start()
        self.addCleanup(node.stop)
        password = folder / "password.txt"
        password.write_text("bucket-password\n", encoding="utf-8")
        output, errors, status = await getProcessOutputAndValue(
            str(python),
            [str(PROGRAMS / name), node.connection_string, "default", str(password.absolute())],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": "" if "sdk4" in name else str(ROOT)},
        )
        self.assertEqual(status, 0, errors.decode("utf-8", "replace"))
        return str(output.decode("utf-8"))
