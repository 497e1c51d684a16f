"""The counting of work, on which budgets of other tests rely."""

from __future__ import annotations

import gc
import sys

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests import work


class Garbage:
    """An object that only the collector ends, by calling Python code."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        self.itself = None  # type: ignore[assignment]


def allocating() -> None:
    """Make so many objects that the collector would run."""
    for _ in range(50):
        [[] for _ in range(100)]


class WorkTests(SynchronousTestCase):
    """Counts that are the same each time."""

    def test_garbage_of_others(self) -> None:
        """What the garbage collector calls for earlier objects is not counted, and it is on afterwards."""
        if sys.version_info[:2] not in work.INSTRUCTIONS_OF:
            raise SkipTest("instructions are not counted on this Python")
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        gc.collect()
        clean = work.instructions(allocating), work.calls(allocating)
        for allocated in range(20, 100, 4):
            for _ in range(50):
                Garbage()
            # So that the collector would run in the middle, most often outside the function that counts.
            gc.set_threshold(gc.get_count()[0] + allocated)
            self.assertEqual((work.instructions(allocating), work.calls(allocating)), clean)
            gc.set_threshold(10_000)
        self.assertTrue(gc.isenabled())
