"""Bytes in flight, and the queue of waiters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reactor.window import Window


class WindowTests(SynchronousTestCase):
    """Bytes in flight, and the queue of waiters."""

    def setUp(self) -> None:
        """Make one of 100 bytes."""
        self.clock = Clock()
        self.window = Window(100, self.clock, lambda: ValueError("too late"))
        self.begun: list[str] = []

    def enter(self, name: str, size: int, seconds: float = 5.0) -> Deferred[None]:
        entered = self.window.enter(size, seconds)
        entered.addCallback(lambda _: self.begun.append(name))
        return entered

    def test_in_order(self) -> None:
        """No waiter overtakes another, even if there is room for it; freed bytes go to the first in the
        queue."""
        for name, size in (("a", 90), ("b", 90), ("c", 1), ("d", 1)):
            self.enter(name, size)
        self.assertEqual((self.begun, len(self.window)), (["a", "b"], 2))
        self.window.adjust(-90)
        self.assertEqual(self.begun, ["a", "b", "c", "d"])
        self.assertEqual((self.window.used, self.clock.getDelayedCalls()), (92, []))

    def test_larger_than_the_window(self) -> None:
        """Such a one passes when it is its turn, alone."""
        self.enter("a", 1000)
        self.enter("b", 1000)
        self.assertEqual(self.begun, ["a"])
        self.window.adjust(-1000)
        self.assertEqual(self.begun, ["a", "b"])

    def test_too_late(self) -> None:
        """A wait that times out fails with the true reason, takes nothing, and leaves no timer."""
        self.enter("a", 100)
        late = self.enter("b", 100, 2.0)
        self.clock.advance(1.9)
        self.assertNoResult(late)
        self.clock.advance(0.1)
        self.failureResultOf(late, ValueError)
        self.assertEqual((self.window.used, len(self.window), self.clock.getDelayedCalls()), (100, 0, []))

    def test_cancelled(self) -> None:
        """A waiter that leaves the queue leaves nothing behind and does not delay the next one."""
        self.enter("a", 100)
        gone = self.enter("b", 100)
        self.enter("c", 100)
        gone.cancel()
        self.failureResultOf(gone)
        self.window.adjust(-100)
        self.assertEqual((self.begun, self.window.used), (["a", "c"], 100))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(st.lists(st.tuples(st.integers(1, 150), st.integers(0, 3)), max_size=40))
    def test_any_order(self, steps: list[tuple[int, int]]) -> None:
        """With any order of arrivals, ends and cancellations, a full window starts nothing, all start in
        order, and none is lost."""
        window = Window(100, Clock())
        waiting: list[tuple[int, Deferred[None]]] = []
        running: list[int] = []
        begun: list[int] = []
        for number, (size, action) in enumerate(steps):
            if action <= 1:

                def begin(_: None, number: int = number, size: int = size) -> None:
                    self.assertLess(window.used - size, 100)
                    begun.append(number)
                    running.append(size)

                entered = window.enter(size, 1e9)
                waiting.append((number, entered.addCallback(begin)))
            elif action == 2 and running:
                window.adjust(-running.pop(0))
            elif action == 3 and waiting:
                _, entered = waiting.pop(size % len(waiting))
                entered.addErrback(lambda _: None)
                entered.cancel()
            self.assertEqual(window.used, sum(running))
        while running:
            window.adjust(-running.pop(0))
        self.assertEqual((len(window), window.used, begun), (0, 0, sorted(begun)))
