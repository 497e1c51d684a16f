"""The clock of timers is never set; the Unix time is elsewhere."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reactor.clock import stopwatch_of, unix_time_of, use_monotonic_clock


class ReactorTests(SynchronousTestCase):
    """Changes to a reactor."""

    def test_seconds(self) -> None:
        """``seconds`` continues from its value and never goes back; ``unix_time_of`` returns the Unix time,
        ``stopwatch_of`` the time of another clock that never goes back."""
        clock: Any = Clock()
        clock.advance(1000)
        self.assertEqual((unix_time_of(clock)(), stopwatch_of(clock)()), (1000, 1000))
        use_monotonic_clock(clock)
        before = clock.seconds()
        self.assertGreaterEqual(before, 1000)
        self.assertIs(stopwatch_of(clock), time.monotonic)
        self.assertLess(before, 1000 + 3600)
        self.patch(time, "time", lambda: 5.0)
        again: Any = Clock()
        use_monotonic_clock(again)
        self.assertEqual(unix_time_of(again)(), 5.0)
        self.assertGreaterEqual(clock.seconds(), before)
        kept = clock.seconds
        use_monotonic_clock(clock)
        self.assertIs(clock.seconds, kept)
