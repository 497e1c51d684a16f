"""Detecting that a reactor ran and has stopped."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reactor.clock import cancel_timer
from reactor.shutdown import has_ended, stop_once, watch_end


class Reactor(Clock):
    """The part of a reactor that these tests use."""

    def __init__(self) -> None:
        super().__init__()
        self.running = False
        self.before_shutdown: list[tuple[object, ...]] = []

    def addSystemEventTrigger(self, phase: str, event: str, *work: object) -> None:
        """Keep what is to be done before the end."""
        assert (phase, event) == ("before", "shutdown")
        self.before_shutdown.append(work)

    def stop(self) -> None:
        """Begin to end."""
        for function, *args in self.before_shutdown:
            function(*args)  # type: ignore[operator]


class EndTests(SynchronousTestCase):
    """From before the start to after the end."""

    def test_life(self) -> None:
        """A reactor has ended when it was stopped and no longer runs: not before it runs, nor during pauses
        and cleanup; and not if it was not watched."""
        reactor, other = Reactor(), Reactor()
        watch_end(reactor)
        watch_end(reactor)
        self.assertEqual(len(reactor.before_shutdown), 1)
        self.assertFalse(has_ended(reactor))
        for running in (True, False, True):
            reactor.running = other.running = running
            self.assertFalse(has_ended(reactor))
        reactor.stop()
        other.stop()
        self.assertFalse(has_ended(reactor))
        reactor.running = other.running = False
        self.assertTrue(has_ended(reactor))
        self.assertFalse(has_ended(other))

    def test_second_stop(self) -> None:
        """A second stop is only logged, even before the first one has begun; an error of the first is not
        hidden."""
        reactor: Any = Reactor()
        calls: list[str] = []

        def stop() -> None:
            if not reactor.running or calls:
                raise ReactorNotRunning
            calls.append("stop")

        reactor.stop = stop
        stop_once(reactor)
        self.assertRaises(ReactorNotRunning, reactor.stop)
        reactor.running = True
        reactor.stop()
        reactor.stop()
        reactor.stop()
        self.assertEqual(calls, ["stop"])

    def test_clocks(self) -> None:
        """A clock of a test never ends."""
        clock = Clock()
        watch_end(clock)
        self.assertFalse(has_ended(clock))

    def test_timers(self) -> None:
        """A timer is cancelled that can be; one that fired, was cancelled or is none is let be."""
        clock = Clock()
        fired, cancelled, waits = (clock.callLater(delay, lambda: None) for delay in (1, 2, 2))
        clock.advance(1)
        cancelled.cancel()
        for timer in (None, fired, cancelled, waits):
            cancel_timer(timer)
        self.assertEqual(clock.getDelayedCalls(), [])
