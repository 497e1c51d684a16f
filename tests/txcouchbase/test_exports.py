"""The imports from ``txcouchbase``, and the programs on its page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap

from twisted.internet.defer import inlineCallbacks
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase

import txcouchbase
from tests.tooling.sources import ROOT
from tests.txcouchbase.test_connection import NodeTestCase

BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def programs() -> list[str]:
    """Return the complete programs of docs/sdk.md: those that run a reactor."""
    page = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")
    blocks = [textwrap.dedent(block) for _, block in BLOCK.findall(page)]
    return [block for block in blocks if "react(main" in block]


class ExportTests(SynchronousTestCase):
    """The package's own names."""

    def test_every_name(self) -> None:
        """Each name exists, is listed, and is the one of its module; other names are not attributes."""
        for name in txcouchbase.__all__:
            self.assertIn(name, dir(txcouchbase))
            value = getattr(txcouchbase, name)
            if name != "__version__":
                self.assertIs(value, getattr(sys.modules[value.__module__], name))
        with self.assertRaises(AttributeError):
            _ = txcouchbase.Connexion

    def test_nothing_is_loaded_before_it_is_used(self) -> None:
        """Importing the package costs nothing, so that its protocol's users need no Twisted."""
        program = (
            "import sys, txcouchbase; print('twisted' in sys.modules, 'couchbase' in sys.modules);"
            "from txcouchbase import Query; print('twisted' in sys.modules, Query.__name__)"
        )
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT)
        self.assertEqual(told.stdout.decode().split("\n")[:2], ["False False", "False Query"])


class PageTests(NodeTestCase):
    """docs/sdk.md."""

    timeout = 120

    @inlineCallbacks
    def test_programs_run(self):
        """Each complete program, as printed there, does what it says."""
        told = []
        for program in programs():
            path = self.mktemp()
            with open(path, "w", encoding="utf-8") as file:
                file.write(program)
            out, errors, status = yield getProcessOutputAndValue(
                sys.executable,
                [path, self.node.connection_string],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            self.assertEqual(status, 0, errors)
            told.append(out.decode().strip())
        self.assertEqual(told, ["{'n': 1}", "stored"])
