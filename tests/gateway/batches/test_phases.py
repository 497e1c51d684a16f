"""A batch's life: its phases, in any order of events, and an account that is even at the end."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from couchbase import exceptions
from gateway.batches.batch import AFTER, Phase
from tests.gateway.batches.test_fastpath import FastPathCase
from tests.gateway.support import Answer, error

LINE = b'{"op":"get","key":"k"}\n'
EVENTS = {
    "line": lambda case: case.batch.body_received(LINE),
    "half a line": lambda case: case.batch.body_received(LINE[:9]),
    "wrong line": lambda case: case.batch.body_received(b"nonsense\n"),
    "broken array": lambda case: case.batch.body_received(b"]"),
    "end": lambda case: case.batch.body_finished(),
    "lost": lambda case: case.batch.body_lost(),
    "cancel": lambda case: case.batch.cancel(),
    "pause": lambda case: case.batch.pause(),
    "resume": lambda case: case.batch.resume(),
    "answers": lambda case: case.connection.end(Answer(b'{"n":1}')),
    "large answers": lambda case: case.connection.end(Answer(b'"%b"' % (b"x" * 300_000))),
    "failures": lambda case: case.connection.end(error(exceptions.ETMPFAIL)),
    "turn": lambda case: case.clock.advance(0),
}


class PhaseTests(FastPathCase):
    """Every event in every phase."""

    def check(self, before: Phase) -> None:
        """The phase is the one before, or one that may follow it; possibly by way of another."""
        reached = {before} | AFTER[before] | {last for one in AFTER[before] for last in AFTER[one]}
        self.assertIn(self.batch.phase, reached)

    def give_all(self) -> None:
        """End all running operations."""
        for _ in range(60):
            self.batch.resume()
            # Cancelled ones too: their answers still arrive.
            self.connection.end(Answer(b'{"n":1}'))
            self.clock.advance(0)

    @given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=25))
    def test_any_order(self, events: list[str]) -> None:
        """Each event has an answer in each phase; there is one end; nothing stays held."""
        self.setUp()
        for event in events:
            before = self.batch.phase
            EVENTS[event](self)
            self.check(before)
            if before is Phase.OVER:
                self.assertEqual(self.ended, 1, event)
        self.batch.body_finished()
        self.give_all()
        self.assertIs(self.batch.phase, Phase.OVER)
        self.assertEqual(self.ended, 1)
        account: Any = self.batch._account
        numbers = (account.held, account.ready, account.operations, account.reads)
        self.assertEqual((self.batch._budget.used, self.window.used, numbers), (0, 0, (0, 0, 0, 0)))
        self.flushLoggedErrors()

    def test_what_may_follow(self) -> None:
        """Nothing follows the end, and reading never begins again; the batch itself watches over that."""
        self.assertEqual(AFTER[Phase.OVER], frozenset())
        self.assertTrue(all(Phase.READING not in after for after in AFTER.values()))
        self.assertEqual(AFTER.keys(), set(Phase))
        self.batch._move(Phase.OVER)
        for phase in Phase:
            self.assertRaises(AssertionError, self.batch._move, phase)
