"""Turns of the reactor for what takes long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reactor.turns import OneByOne


class OneByOneTests(SynchronousTestCase):
    """Separate turns."""

    def test_one_a_turn(self) -> None:
        """One is called in each turn, in order, also after one that failed."""
        # A clock of twisted.internet.task runs in one go what a reactor leaves to its next turn.
        later: list[Any] = []
        called: list[int] = []
        turns = OneByOne(SimpleNamespace(callLater=lambda seconds, call: later.append(call)))  # type: ignore[arg-type]
        turns.add(lambda: called.append(1))
        turns.add(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        turns.add(lambda: called.append(3))
        seen = []
        while later:
            seen.append(list(called))
            later.pop()()
            self.assertLessEqual(len(later), 1)
        seen.append(list(called))
        self.assertEqual(seen, [[], [1], [1], [1, 3]])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(turns), 0)
