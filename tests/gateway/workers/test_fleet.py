"""The fleet: workers that end are started again, and all are replaced one by one. No processes here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from gateway.metricvalues import MetricValues
from gateway.settings import Settings, resolve
from gateway.workers.child import WorkerFailed
from gateway.workers.fleet import CLOSE_SECONDS, KILL_SECONDS, MAX_DRAINING, STARTS, Fleet
from gateway.workers.slot import Backoff

SETTINGS = resolve({"cluster": "couchbase://h"}, {})


class FakeWorker:
    """A worker that does what the test says."""

    def __init__(self, number: int, settings: Settings, now: float) -> None:
        self.number = number
        self.settings = settings
        self.started_at = now
        self.ready: Deferred[None] = Deferred()
        self.closed: Deferred[None] = Deferred()
        self.ended: Deferred[str] = Deferred()
        self.is_ready = False
        self.metrics = MetricValues()
        self.pid: int | None = 1000
        self.sent: list[str] = []
        self.is_stuck = False

    def send(self, kind: str, **members: object) -> None:
        self.sent.append(kind)
        if kind == "drain" and not self.is_stuck:
            self.closed.callback(None)

    def ask_metrics(self) -> Deferred[None]:
        return succeed(None)

    def kill(self) -> None:
        self.sent.append("KILL")
        self.ends()

    def becomes_ready(self) -> None:
        self.is_ready = True
        self.ready.callback(None)

    def ends(self, by_itself: bool = False, how: str = "of something") -> None:
        if not self.is_ready:
            self.ready.errback(WorkerFailed(how, by_itself=by_itself))
        self.is_ready = False
        if not self.closed.called:
            self.closed.callback(None)
        self.ended.callback(how)


class FleetTestCase(SynchronousTestCase):
    """Two workers on a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.spawned: list[FakeWorker] = []
        self.failures: list[str] = []
        self.spawn_error: OSError | None = None
        self.fleet = Fleet(self.clock, 2, self.spawn, SETTINGS, self.failures.append)
        self.fleet.start()

    def spawn(self, number: int, settings: Settings) -> FakeWorker:
        if self.spawn_error is not None:
            raise self.spawn_error
        self.spawned.append(FakeWorker(number, settings, self.clock.seconds()))
        return self.spawned[-1]

    def new(self) -> FakeWorker:
        """Return the one worker that was spawned since the last call."""
        (worker,) = self.spawned
        self.spawned.clear()
        return worker

    def up(self) -> list[FakeWorker]:
        """Have both become ready, and return them."""
        workers = self.spawned.copy()
        self.spawned.clear()
        for worker in workers:
            worker.becomes_ready()
        return workers


class StartTests(FleetTestCase):
    """The first workers."""

    def test_started(self) -> None:
        """The fleet is up when all are."""
        self.assertEqual([worker.number for worker in self.spawned], [1, 2])
        self.spawned[0].becomes_ready()
        self.assertNoResult(self.fleet.started)
        self.spawned[1].becomes_ready()
        self.successResultOf(self.fleet.started)
        self.assertEqual(self.fleet.serving, 2)

    def test_cannot_serve(self) -> None:
        """If workers end before one was ready, this is reported once, and nothing is tried again."""
        first, second = self.spawned
        first.ends(by_itself=True, how="the key is no key")
        second.ends(by_itself=True, how="the key is no key")
        self.assertEqual(self.failures, ["the key is no key"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cannot_be_spawned(self) -> None:
        """The same if there are no processes to be had."""
        self.spawn_error = OSError("no processes")
        failures: list[str] = []
        Fleet(self.clock, 2, self.spawn, SETTINGS, failures.append).start()
        self.assertEqual(failures, ["no processes"])

    def test_killed_while_starting(self) -> None:
        """One that is killed is started again: that says nothing about settings."""
        self.spawned.pop(0).ends(by_itself=False)
        self.spawned.clear()
        self.clock.advance(Backoff.FIRST)
        self.assertEqual((self.new().number, self.failures), (1, []))

    def test_only_one_works(self) -> None:
        """Once one has served, those that do not start are tried again and again."""
        self.spawned[0].becomes_ready()
        self.spawned.pop(1).ends(by_itself=True)
        self.spawned.clear()
        self.clock.advance(Backoff.FIRST)
        self.assertEqual((self.new().number, self.failures), (2, []))


class RestartTests(FleetTestCase):
    """A worker that ends."""

    def test_backoff(self) -> None:
        """Pauses double up to five seconds, and are short again after a life of ten."""
        backoff = Backoff()
        pauses = [backoff.pause_after(0) for _ in range(8)]
        self.assertEqual(pauses, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
        self.assertEqual(backoff.pause_after(9.9), 5.0)
        self.assertEqual([backoff.pause_after(10), backoff.pause_after(0)], [0.1, 0.2])

    def test_restart(self) -> None:
        """Another takes its place after the pause; the other worker is left alone."""
        first, second = self.up()
        first.ends()
        self.assertEqual(self.fleet.serving, 1)
        self.clock.advance(0.09)
        self.assertEqual(self.spawned, [])
        self.clock.advance(0.02)
        again = self.new()
        again.becomes_ready()
        self.assertEqual((again.number, self.fleet.serving, self.fleet.restarts), (1, 2, 1))
        again.ends()
        self.clock.advance(0.15)
        self.assertEqual(self.spawned, [])
        self.clock.advance(0.1)
        self.assertEqual(self.new().number, 1)
        self.assertEqual(second.sent, [])

    def test_log(self) -> None:
        """A worker that ends, or whose successor cannot start, is logged with the pause until the next start
        and the number of workers that serve."""
        first, second = self.up()
        said = []
        for worker, by_itself in ((first, False), (None, True), (second, False)):
            with capturedLogs() as logs:
                (worker or self.new()).ends(by_itself, how="of X")
            said += [formatEvent(event) for event in logs]
            if worker is first:
                self.clock.advance(Backoff.FIRST)
        self.assertEqual(
            said,
            [
                "worker 1 has ended: of X; the next one starts in 0.1 s; 1 of 2 workers serve",
                "worker 1 did not start: of X; the next one starts in 0.2 s; 1 of 2 workers serve",
                "worker 2 has ended: of X; the next one starts in 0.1 s; 0 of 2 workers serve",
            ],
        )
        self.assertEqual(self.failures, [])

    def test_cannot_be_spawned_again(self) -> None:
        """This is another reason to wait."""
        self.up()[0].ends()
        self.spawn_error = OSError("no processes")
        self.clock.advance(0.1)
        self.spawn_error = None
        self.clock.advance(0.15)
        self.assertEqual(self.spawned, [])
        self.clock.advance(0.1)
        self.assertEqual(self.new().number, 1)

    def test_figures(self) -> None:
        """Its counts remain in the sums."""
        first, second = self.up()
        for worker in (first, second):
            worker.metrics.counters["n",] = [3]
        first.ends()
        self.assertEqual(self.fleet.totals.total().counters, {("n",): [6]})


class RollTests(FleetTestCase):
    """All replaced."""

    new_settings = replace(SETTINGS, timeout=9.0)

    def roll(self) -> Deferred[Any]:
        rolled: Deferred[Any] = self.fleet.roll(self.new_settings)
        return rolled

    def test_one_after_the_other(self) -> None:
        """An old one drains when its successor is ready, and the next follows."""
        first, second = self.up()
        rolled = self.roll()
        one = self.new()
        self.assertEqual((one.number, one.settings, first.sent), (1, self.new_settings, []))
        one.becomes_ready()
        self.assertEqual((first.sent, second.sent), (["drain"], []))
        two = self.new()
        self.assertEqual(two.number, 2)
        two.becomes_ready()
        self.assertEqual(second.sent, ["drain"])
        self.assertTrue(self.successResultOf(rolled))
        self.assertEqual(self.fleet.serving, 2)
        first.ends()
        self.clock.advance(100)
        self.assertEqual((self.spawned, self.fleet.restarts), ([], 0))

    def test_old_ones_still_accept(self) -> None:
        """The replacement ends when no old one accepts connections; it waits so long for one that is stuck,
        which does not delay the others."""
        for reacts in (True, False):
            self.setUp()
            first, second = self.up()
            first.is_stuck = second.is_stuck = True
            rolled = self.roll()
            self.new().becomes_ready()
            self.new().becomes_ready()
            self.assertEqual((first.sent, second.sent), (["drain"], ["drain"]))
            second.closed.callback(None)
            self.clock.advance(CLOSE_SECONDS / 2)
            self.assertNoResult(rolled)
            with capturedLogs() as logs:
                if reacts:
                    first.closed.callback(None)
                else:
                    self.clock.advance(CLOSE_SECONDS / 2)
            self.assertTrue(self.successResultOf(rolled))
            self.assertEqual(
                [formatEvent(event) for event in logs],
                []
                if reacts
                else [
                    "worker 1 that was replaced has not closed its sockets in 2 s; it may still accept"
                    " connections"
                ],
            )

    def test_new_one_fails(self) -> None:
        """The old ones continue with their settings, and later ones get these, too."""
        first, second = self.up()
        rolled = self.roll()
        self.new().ends(by_itself=True)
        self.assertFalse(self.successResultOf(rolled))
        self.assertEqual((first.sent, second.sent, self.fleet.serving), ([], [], 2))
        second.ends()
        self.clock.advance(0.1)
        self.assertIs(self.new().settings, SETTINGS)
        self.assertEqual(self.failures, [])

    def test_old_one_ends_meanwhile(self) -> None:
        """Its successor is coming already; if that fails, it is started again after all."""
        first, _ = self.up()
        rolled = self.roll()
        one = self.new()
        first.ends()
        self.clock.advance(1)
        self.assertEqual(self.spawned, [])
        one.ends(by_itself=True)
        self.assertFalse(self.successResultOf(rolled))
        self.clock.advance(0.2)
        self.assertEqual(self.new().number, 1)

    def test_new_one_is_killed(self) -> None:
        """That says nothing about the settings: it is started again after a pause, and the rest follow."""
        first, second = self.up()
        rolled = self.roll()
        self.new().ends(how="killed by signal 9")
        self.assertEqual((self.spawned, first.sent, self.fleet.serving), ([], [], 2))
        self.clock.advance(Backoff.FIRST)
        again = self.new()
        self.assertEqual((again.number, again.settings), (1, self.new_settings))
        again.becomes_ready()
        self.assertEqual(first.sent, ["drain"])
        self.new().becomes_ready()
        self.assertTrue(self.successResultOf(rolled))
        self.assertEqual((second.sent, self.fleet.serving, self.failures), (["drain"], 2, []))

    def test_both_are_killed(self) -> None:
        """The old one, and then its successor, or the other way round: one worker is started for both."""
        for order in ("old", "new"):
            self.setUp()
            first, _ = self.up()
            rolled = self.roll()
            one = self.new()
            for worker in (first, one) if order == "old" else (one, first):
                worker.ends()
            self.clock.advance(1)
            again = self.new()
            self.assertEqual((again.number, again.settings), (1, self.new_settings))
            self.clock.advance(10)
            self.assertEqual(self.spawned, [])
            again.becomes_ready()
            self.new().becomes_ready()
            self.assertTrue(self.successResultOf(rolled))
            self.assertEqual(self.fleet.serving, 2)

    def test_new_one_is_killed_always(self) -> None:
        """After so many starts the replacement ends, and the old ones stay, or are started again."""
        for survives in (True, False):
            self.setUp()
            first, second = self.up()
            rolled = self.roll()
            for start in range(STARTS):
                self.assertNoResult(rolled)
                self.new().ends(how="killed by signal 9")
                if start == 0 and not survives:
                    first.ends()
                if start < STARTS - 1:
                    self.clock.advance(Backoff.LONGEST)
            self.assertFalse(self.successResultOf(rolled))
            self.assertEqual((first.sent, second.sent), ([], []))
            self.clock.advance(Backoff.LONGEST)
            started = [(worker.number, worker.settings) for worker in self.spawned]
            self.assertEqual(started, [] if survives else [(1, SETTINGS)])

    def test_stop_while_one_waits(self) -> None:
        """A stop, or its announcement, between two starts of a new worker ends the replacement."""
        for call in ("stop", "leave"):
            self.setUp()
            first, second = self.up()
            rolled = self.roll()
            self.new().ends()
            if call == "stop":
                self.fleet.stop(10)
                first.ends()
                second.ends()
            else:
                self.fleet.leave()
                self.clock.advance(1)
            self.assertFalse(self.successResultOf(rolled))
            self.assertEqual((self.spawned, self.clock.getDelayedCalls()), ([], []))

    def test_while_one_waits_to_be_started(self) -> None:
        """The replacement starts it, and nothing else does."""
        first, second = self.up()
        first.ends()
        rolled = self.roll()
        one = self.new()
        self.clock.advance(1)
        self.assertEqual(self.spawned, [])
        one.becomes_ready()
        self.new().becomes_ready()
        self.assertTrue(self.successResultOf(rolled))
        self.assertEqual((self.fleet.serving, second.sent), (2, ["drain"]))

    def test_again_and_again(self) -> None:
        """Old ones drain side by side, up to so many; the next roll waits for one of them to end, and says
        what keeps it."""
        first, second = self.up()
        first.metrics.gauges.update({("client_connections",): [20], ("requests_under_way",): [2]})
        for _ in range(MAX_DRAINING):
            rolled = self.roll()
            for _ in range(2):
                worker = self.new()
                worker.becomes_ready()
                worker.metrics.gauges.update({("client_connections",): [2], ("requests_under_way",): [0]})
            self.assertTrue(self.successResultOf(rolled))
        self.assertFalse(self.fleet.must_wait)
        second.metrics.gauges.update({("client_connections",): [10], ("requests_under_way",): [0]})
        rolled = self.roll()
        self.assertEqual(self.spawned, [])
        self.assertTrue(self.fleet.must_wait)
        self.assertEqual(
            self.fleet.waiting_for(),
            "waiting for 6 replaced workers with 36 idle connections and 2 requests under way",
        )
        second.metrics.gauges.clear()
        self.assertEqual(self.fleet.waiting_for(), "waiting for 6 replaced workers")
        second.ends()
        self.new().becomes_ready()
        self.assertEqual(self.spawned, [])
        first.ends()
        self.new().becomes_ready()
        self.assertTrue(self.successResultOf(rolled))

    def test_drains_for_ever(self) -> None:
        """One that does not end in the time that it has is killed."""
        first, _ = self.up()
        self.roll()
        self.new().becomes_ready()
        limits = SETTINGS.limits
        self.clock.advance(limits.drain_seconds + limits.grace_seconds + KILL_SECONDS - 1)
        self.assertEqual(first.sent, ["drain"])
        self.clock.advance(1)
        self.assertEqual(first.sent, ["drain", "KILL"])


class LeaveTests(FleetTestCase):
    """The phase before the stop."""

    def test_leave(self) -> None:
        """Every worker is notified, also one that is replacing another; none is replaced."""
        first, second = self.up()
        self.fleet.leave()
        self.assertEqual((first.sent, second.sent), (["leave"], ["leave"]))
        second.ends()
        self.clock.advance(1)
        self.assertEqual(self.new().sent, ["leave"])
        self.assertFalse(self.successResultOf(self.fleet.roll(SETTINGS)))


class StopTests(FleetTestCase):
    """The end."""

    def test_stop(self) -> None:
        """All are notified, also those that drain; the stop is complete when all have ended, and none is
        restarted."""
        first, second = self.up()
        self.fleet.roll(SETTINGS)
        one = self.new()
        one.becomes_ready()
        coming = self.new()
        closed, ended = self.fleet.stop(10)
        for worker in (one, second, coming):
            self.assertEqual(worker.sent, ["stop"])
        self.assertEqual(first.sent, ["drain", "stop"])
        for worker in (second, one):
            worker.closed.callback(None)
        self.assertNoResult(closed)
        coming.ends()
        self.successResultOf(closed)
        for worker in (first, second, one):
            self.assertNoResult(ended)
            worker.ends()
        self.successResultOf(ended)
        self.assertEqual((self.spawned, self.clock.getDelayedCalls()), ([], []))

    def test_stuck(self) -> None:
        """Sockets are closed without one that does not answer; in the end it is killed."""
        first, second = self.up()
        closed, ended = self.fleet.stop(10)
        first.ends()
        self.clock.advance(3)
        self.successResultOf(closed)
        self.clock.advance(11)
        self.assertEqual(second.sent, ["stop"])
        self.clock.advance(1)
        self.assertEqual(second.sent, ["stop", "KILL"])
        self.successResultOf(ended)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_while_one_waits_to_be_started(self) -> None:
        """It is not started any more."""
        first, second = self.up()
        first.ends()
        _, ended = self.fleet.stop(10)
        self.clock.advance(1)
        second.ends()
        self.successResultOf(ended)
        self.assertEqual(self.spawned, [])
