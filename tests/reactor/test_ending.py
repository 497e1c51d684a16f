"""Whether a reactor ran and has stopped."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reactor.clock import cancel_timer
from reactor.ending import has_ended, watch_end


class Reactor(Clock):
    """A reactor as far as it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.running = False
        self.waiting: list[tuple[object, ...]] = []

    def callWhenRunning(self, *work: object) -> None:
        """Keep it for :meth:`run`, or do it now."""
        self.waiting.append(work)
        if self.running:
            self.run()

    def run(self) -> None:
        """Begin."""
        self.running = True
        for function, *args in self.waiting:
            function(*args)  # type: ignore[operator]
        self.waiting = []


class EndTests(SynchronousTestCase):
    """From before the start to after the end."""

    def test_life(self) -> None:
        """A reactor has ended once it ran and runs no more; not before, and not if nobody watched it."""
        for early in (True, False):
            reactor, other = Reactor(), Reactor()
            if early:
                watch_end(reactor)
                watch_end(reactor)
            self.assertFalse(has_ended(reactor))
            reactor.run()
            other.run()
            watch_end(reactor)
            watch_end(reactor)
            self.assertEqual(reactor.waiting, [])
            self.assertFalse(has_ended(reactor))
            reactor.running = other.running = False
            self.assertTrue(has_ended(reactor))
            self.assertFalse(has_ended(other))

    def test_others(self) -> None:
        """A clock of a test never ends, nor does a reactor whose loop somebody else runs."""
        clock, foreign = Clock(), Reactor()
        watch_end(clock)
        watch_end(foreign)
        self.assertFalse(has_ended(clock))
        self.assertFalse(has_ended(foreign))

    def test_timers(self) -> None:
        """A timer is cancelled that can be; one that fired, was cancelled or is none is let be."""
        clock = Clock()
        fired, cancelled, waits = (clock.callLater(delay, lambda: None) for delay in (1, 2, 2))
        clock.advance(1)
        cancelled.cancel()
        for timer in (None, fired, cancelled, waits):
            cancel_timer(timer)
        self.assertEqual(clock.getDelayedCalls(), [])
