"""pydoctor on the docstrings of the SDK, as ``make api`` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.sources import ROOT
from tests.tooling.test_api import PACKAGES

RENDER_SECONDS = 300


class PydoctorTests(SynchronousTestCase):
    """The pages of the API."""

    if find_spec("pydoctor") is None:
        skip = "pydoctor is not installed: it is a tool for development"

    def test_finds_nothing_wrong(self) -> None:
        """No link is broken, no documented parameter is missing in the code, nothing is malformed."""
        done = subprocess.run(
            [sys.executable, "-m", "pydoctor", "--html-output", os.path.abspath(self.mktemp()), *PACKAGES],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RENDER_SECONDS,
        )
        self.assertEqual((done.returncode, done.stdout), (0, ""))
