"""Helpers for parsers of long JSON texts."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.jsonparsing import first_repeated, without_collecting


class RepeatedTests(SynchronousTestCase):
    """The name that is reported."""

    def test_the_first_that_comes_again(self) -> None:
        """It is the one whose second appearance is first."""
        self.assertEqual(first_repeated(iter(["a", "b", "c", "b", "a"])), "b")
        self.assertRaises(ValueError, first_repeated, ["a", "b"])


class CollectorTests(SynchronousTestCase):
    """The garbage collector."""

    def test_state(self) -> None:
        """It is off inside, and as before afterwards, also after an error."""
        self.addCleanup(gc.enable)
        for switch, before in ((gc.enable, True), (gc.disable, False)):
            switch()
            with without_collecting():
                self.assertFalse(gc.isenabled())
            self.assertIs(gc.isenabled(), before)
            with self.assertRaises(KeyError), without_collecting():
                raise KeyError
            self.assertIs(gc.isenabled(), before)
