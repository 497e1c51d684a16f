"""The workers: restarted when they end, and replaced one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.metricvalues import MetricValues
from gateway.settings import Settings
from gateway.workers.child import WorkerFailed
from gateway.workers.slot import IWorker, WorkerSlot
from gateway.workers.totals import Totals
from reactor.deferreds import own

__all__ = ["CLOSE_SECONDS", "KILL_SECONDS", "MAX_DRAINING", "STARTS", "Fleet"]

CLOSE_SECONDS = 2.0
"""Timeout in seconds for workers to close their listening sockets, at shutdown and when they are replaced."""

MAX_DRAINING = 3
"""Limit on replaced workers per slot that are still alive. They wait for idle connections, which proxies keep
open for a long time. A SIGHUP must not wait for them, but the number of processes must stay bounded."""

KILL_SECONDS = 5.0
"""How long a worker may outlive its grace time before it is killed, in seconds."""

STARTS = 4
"""How often a replacement starts a new worker that is killed before it is ready."""


class Fleet:
    """N workers.

    :param spawn: starts a worker: number and settings -> worker; raises OSError if that fails.
    :param settings: handed to ``spawn``.
    :param on_failure: called once, with a reason, if the first workers cannot serve.
    :ivar started: fires when each slot has had a worker that was ready.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        size: int,
        spawn: Callable[[int, Settings], IWorker],
        settings: Settings,
        on_failure: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._spawn = spawn
        self.settings = settings
        self._on_failure = on_failure
        self._slots = [WorkerSlot(number) for number in range(1, size + 1)]
        self._alive: set[IWorker] = set()
        self._draining: list[IWorker] = []
        self._room: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None
        self._was_ready: set[int] = set()
        self._stopping = False
        self._is_leaving = False
        self.totals = Totals(clock, self._alive)
        self.restarts = 0
        self.started: Deferred[None] = Deferred()

    def start(self) -> None:
        """Start all workers."""
        for slot in self._slots:
            self._fill(slot)

    @property
    def must_wait(self) -> bool:
        """Whether a replacement has to wait until earlier replaced workers have ended."""
        return self._room is not None

    @property
    def serving(self) -> int:
        """Number of workers that accept connections."""
        return sum(slot.worker is not None and slot.worker.is_ready for slot in self._slots)

    def __len__(self) -> int:
        """Return the configured number of workers."""
        return len(self._slots)

    def __iter__(self) -> Iterator[IWorker]:
        """Iterate over all live workers, including those that are being replaced."""
        return iter(list(self._alive))

    def named_metrics(self) -> Iterator[tuple[str, MetricValues]]:
        """Yield name and metrics of each live worker. A successor has the same name; workers that are being
        replaced are numbered separately, and the oldest one is 1."""
        for slot in self._slots:
            if slot.worker is not None:
                yield f"worker-{slot.number}", slot.worker.metrics
        for number, worker in enumerate(self._draining, 1):
            yield f"replaced-{number}", worker.metrics

    # ---- a worker in each slot -------------------------------------------------------------------

    def _begin(self, slot: WorkerSlot, settings: Settings) -> IWorker:
        worker = self._spawn(slot.number, settings)
        self._alive.add(worker)
        if self._is_leaving:
            worker.send("leave")
        worker.ended.addCallback(self._ended, slot, worker)
        return worker

    def _fill(self, slot: WorkerSlot) -> None:
        slot.timer = None
        try:
            worker = slot.worker = self._begin(slot, self.settings)
        except OSError as error:
            self._not_filled(slot, WorkerFailed(str(error), by_itself=True), 0.0)
            return
        worker.ready.addCallbacks(
            self._filled, self._failed, callbackArgs=(slot, worker), errbackArgs=(slot, worker)
        )

    def _filled(self, _: object, slot: WorkerSlot, worker: IWorker) -> None:
        self.log.info("worker {number} is ready, process {pid}", number=slot.number, pid=worker.pid)
        self._is_up(slot)

    def _is_up(self, slot: WorkerSlot) -> None:
        self._was_ready.add(slot.number)
        if len(self._was_ready) == len(self._slots) and not self.started.called:
            self.started.callback(None)

    def _failed(self, failure: Failure, slot: WorkerSlot, worker: IWorker) -> None:
        error = failure.value
        assert isinstance(error, WorkerFailed)
        if slot.worker is worker:
            slot.worker = None
            self._not_filled(slot, error, self._clock.seconds() - worker.started_at)

    def _not_filled(self, slot: WorkerSlot, error: WorkerFailed, lived: float) -> None:
        if self._stopping:
            return
        if error.by_itself and not self._was_ready:
            # No worker has ever become ready, so another try would fail as well.
            self._stopping = True
            self._on_failure(str(error))
            return
        self._fill_later(slot, f"did not start: {error}", lived)

    def _ended(self, how: str, slot: WorkerSlot, worker: IWorker) -> str:
        self._alive.discard(worker)
        self.totals.retire(worker)
        if worker in self._draining:
            self._draining.remove(worker)
            self.log.info("worker {number} that was replaced has ended: {how}", number=slot.number, how=how)
            room, self._room = self._room, None
            if room is not None:
                room.callback(None)
        elif slot.worker is worker:
            slot.worker = None
            if not self._stopping:
                self._fill_later(slot, f"has ended: {how}", self._clock.seconds() - worker.started_at)
        return how

    def _fill_later(self, slot: WorkerSlot, what: str, lived: float) -> None:
        if slot.coming is not None:
            self.log.error("worker {number} {what}; it is restarted", number=slot.number, what=what)
            return
        pause = self._pause_before_next(slot, f"worker {slot.number} {what}", lived)
        self.restarts += 1
        slot.timer = self._clock.callLater(pause, self._fill, slot)

    def _pause_before_next(self, slot: WorkerSlot, what: str, lived: float) -> float:
        """Return the pause in seconds before another start in a slot, and log why, and how many serve."""
        pause = slot.backoff.pause_after(lived)
        self.log.error(
            "{what}; the next one starts in {pause:g} s; {serving} of {size} workers serve",
            what=what,
            pause=pause,
            serving=self.serving,
            size=len(self),
        )
        return pause

    def waiting_for(self) -> str:
        """Return a text for the log that says what the replaced workers still wait for."""
        count = len(self._draining)
        text = f"waiting for {count} replaced worker{'s' if count != 1 else ''}"
        gauges = [worker.metrics.gauges for worker in self._draining]
        try:
            connections = sum(int(each["client_connections",][0]) for each in gauges)
            under_way = sum(int(each["requests_under_way",][0]) for each in gauges)
        except KeyError:
            # The metrics plugin is left out.
            return text
        idle = max(0, connections - under_way)
        return f"{text} with {idle} idle connections and {under_way} requests under way"

    # ---- replacing all workers -------------------------------------------------------------------

    @inlineCallbacks
    def roll(self, settings: Settings) -> Any:
        """Replace all workers, one at a time: an old worker stops when the new one is ready.

        The old ones may end later, unless there are too many of them; see :data:`MAX_DRAINING`.

        :returns: fires with true when all are replaced and the old ones accept no more connections (after
            :data:`CLOSE_SECONDS`, one that does not react is logged); with false if a new worker could not
            serve: the remaining old ones stay.
        """
        before = self.settings.limits
        replaced: list[IWorker] = []
        for slot in self._slots:
            while len(self._draining) >= len(self._slots) * MAX_DRAINING:
                self.log.info("SIGHUP: {waiting}", waiting=self.waiting_for())
                self._room = Deferred()
                yield self._room
            if self._stopping or self._is_leaving:
                return False
            worker = yield self._replacement(slot, settings)
            if worker is None:
                return False
            self.settings = settings
            old, slot.worker, slot.coming = slot.worker, worker, None
            self.log.info(
                "worker {number} is ready, process {pid} in place of {old}",
                number=slot.number,
                pid=worker.pid,
                old=old.pid if old is not None else "one that had ended",
            )
            self._is_up(slot)
            if old is not None:
                self._draining.append(old)
                old.send("drain")
                replaced.append(old)
                self._kill_after(before.drain_seconds + before.grace_seconds, old)
        yield self._closed(replaced)
        for worker in replaced:
            if not worker.closed.called:
                self.log.warn(
                    "worker {number} that was replaced has not closed its sockets in {seconds:g} s; it may"
                    " still accept connections",
                    number=worker.number,
                    seconds=CLOSE_SECONDS,
                )
        return True

    @inlineCallbacks
    def _replacement(self, slot: WorkerSlot, settings: Settings) -> Any:
        """Start a new worker for a slot; fires with it when it is ready, with ``None`` if it cannot serve.

        A worker that is killed has not decided anything about the settings: it is started again, after a
        pause, up to :data:`STARTS` times.
        """
        for start in range(1, STARTS + 1):
            slot.forget_timer()
            began = self._clock.seconds()
            try:
                worker = slot.coming = self._begin(slot, settings)
                yield worker.ready
                return worker
            except (OSError, WorkerFailed) as error:
                was_killed = isinstance(error, WorkerFailed) and not error.by_itself
                if was_killed and start < STARTS and not self._stopping:
                    # The slot keeps the dead worker as the coming one, so that nobody else fills it.
                    what = f"the new worker {slot.number} did not start: {error}"
                    pause = self._pause_before_next(slot, what, self._clock.seconds() - began)
                    self._pause = deferLater(self._clock, pause)
                    # A stop ends it.
                    yield self._pause.addErrback(lambda failure: failure.trap(CancelledError))
                    if not self._stopping and not self._is_leaving:
                        continue
                slot.coming = None
                self._not_replaced(error, slot)
                return None
        return None

    def _not_replaced(self, error: Exception, slot: WorkerSlot) -> None:
        if self._stopping:
            return
        self.log.error(
            "the new worker {number} did not start: {error}; the others are not replaced",
            number=slot.number,
            error=error,
        )
        if slot.worker is None:
            self._fill_later(slot, "has ended", 0.0)

    # ---- the end ---------------------------------------------------------------------------------

    def leave(self) -> None:
        """Make all workers, including those started later, announce the stop and continue to serve."""
        self._is_leaving = True
        for worker in self:
            worker.send("leave")

    def stop(self, grace_seconds: float) -> tuple[Deferred[Any], Deferred[Any]]:
        """Stop all workers; kill those that do not stop in time.

        :returns: a Deferred that fires when no worker accepts connections any more (or soon will), and one
            that fires when all have ended.
        """
        self._stopping = True
        for slot in self._slots:
            slot.forget_timer()
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)
        if self._pause is not None:
            self._pause.cancel()
        alive = list(self._alive)
        for worker in alive:
            worker.send("stop")
            self._kill_after(grace_seconds, worker)
        return self._closed(alive), DeferredList([own(worker.ended) for worker in alive])

    def _closed(self, workers: Iterable[IWorker]) -> Deferred[Any]:
        """Wait until workers accept no more connections, at most :data:`CLOSE_SECONDS`."""
        closed: Deferred[Any] = DeferredList([own(worker.closed) for worker in workers], consumeErrors=True)
        return closed.addTimeout(CLOSE_SECONDS, self._clock)

    def _kill_after(self, seconds: float, worker: IWorker) -> None:
        timer = self._clock.callLater(seconds + KILL_SECONDS, self._kill, worker)

        def ended(how: str) -> str:
            if timer.active():
                timer.cancel()
            return how

        worker.ended.addCallback(ended)

    def _kill(self, worker: IWorker) -> None:
        self.log.error("worker {number} did not stop in time", number=worker.number)
        worker.kill()
