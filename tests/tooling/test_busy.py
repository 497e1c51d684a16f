"""The generator of load is bounded."""

from __future__ import annotations

import os
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.tooling.busy import compute, main, read


class BusyTests(SynchronousTestCase):
    """``python -m tests.tooling.busy``."""

    def test_arguments(self) -> None:
        """Numbers within bounds; anything else says what is taken."""
        self.assertEqual(read([]), (8, 60.0))
        self.assertEqual(read(["2", "0.5"]), (2, 0.5))
        for wrong in (["0"], ["65"], ["x"], ["1", "0"], ["1", "3601"], ["1", "nan"], ["1", "1", "1"]):
            error = self.assertRaises(SystemExit, read, wrong)
            self.assertIn("usage", str(error))

    def test_it_ends(self) -> None:
        """When its time is over, and when its parent is gone."""
        compute(time.monotonic() - 1, os.getppid())
        compute(time.monotonic() + 3600, -1)
        main(["2", "0.01"])
