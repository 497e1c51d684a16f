"""Workers in their places: started again when they end, replaced one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.figures import Figures
from gateway.options import Settings
from gateway.workers.child import WorkerFailed
from gateway.workers.place import IWorker, Place
from gateway.workers.totals import Totals
from reactor.sharing import own

__all__ = ["CLOSE_SECONDS", "KILL_SECONDS", "MAX_DRAINING", "Fleet"]

CLOSE_SECONDS = 2.0
"""For workers to close their listening sockets at the end."""

MAX_DRAINING = 3
"""Replaced workers for each place that may be there at the same time. They wait for idle connections, which
proxies keep for long; a SIGHUP must not wait for them, and yet there must not be any number of processes."""

KILL_SECONDS = 5.0
"""For which a worker may go on beyond the time that it has; then it is killed."""


class Fleet:
    """N workers.

    :param spawn: starts a worker: number and settings -> worker; raises OSError if it cannot.
    :param settings: handed to ``spawn``.
    :param on_failure: called once, with a reason, if workers cannot serve from the beginning.
    :ivar started: fires when each place has had a worker that was ready.
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
        self._places = [Place(number) for number in range(1, size + 1)]
        self._alive: set[IWorker] = set()
        self._draining: list[IWorker] = []
        self._room: Deferred[None] | None = None
        self._was_ready: set[int] = set()
        self._stopping = False
        self._is_leaving = False
        self.totals = Totals(clock, self._alive)
        self.restarts = 0
        self.started: Deferred[None] = Deferred()

    def start(self) -> None:
        """Start all workers."""
        for place in self._places:
            self._fill(place)

    @property
    def must_wait(self) -> bool:
        """Whether a replacement waits for workers to end that were replaced before."""
        return self._room is not None

    @property
    def serving(self) -> int:
        """How many take connections."""
        return sum(place.worker is not None and place.worker.is_ready for place in self._places)

    def __len__(self) -> int:
        """Return how many there shall be."""
        return len(self._places)

    def __iter__(self) -> Iterator[IWorker]:
        """Iterate over all that are alive, those that are being replaced too."""
        return iter(list(self._alive))

    def named_figures(self) -> Iterator[tuple[str, Figures]]:
        """Yield a name and the figures of each that is alive, the same name for each successor; those that
        are being replaced have numbers of their own, the longest-serving 1."""
        for place in self._places:
            if place.worker is not None:
                yield f"worker-{place.number}", place.worker.figures
        for number, worker in enumerate(self._draining, 1):
            yield f"replaced-{number}", worker.figures

    # ---- a worker in each place ------------------------------------------------------------------

    def _begin(self, place: Place, settings: Settings) -> IWorker:
        worker = self._spawn(place.number, settings)
        self._alive.add(worker)
        if self._is_leaving:
            worker.send("leave")
        worker.ended.addCallback(self._ended, place, worker)
        return worker

    def _fill(self, place: Place) -> None:
        place.timer = None
        try:
            worker = place.worker = self._begin(place, self.settings)
        except OSError as error:
            self._not_filled(place, WorkerFailed(str(error), by_itself=True), 0.0)
            return
        worker.ready.addCallbacks(
            self._filled, self._failed, callbackArgs=(place, worker), errbackArgs=(place, worker)
        )

    def _filled(self, _: object, place: Place, worker: IWorker) -> None:
        self.log.info("worker {number} is ready, process {pid}", number=place.number, pid=worker.pid)
        self._is_up(place)

    def _is_up(self, place: Place) -> None:
        self._was_ready.add(place.number)
        if len(self._was_ready) == len(self._places) and not self.started.called:
            self.started.callback(None)

    def _failed(self, failure: Failure, place: Place, worker: IWorker) -> None:
        error = failure.value
        assert isinstance(error, WorkerFailed)
        if place.worker is worker:
            place.worker = None
            self._not_filled(place, error, self._clock.seconds() - worker.started_at)

    def _not_filled(self, place: Place, error: WorkerFailed, lived: float) -> None:
        if self._stopping:
            return
        if error.by_itself and not self._was_ready:
            # Nothing has ever worked, so another try would not either.
            self._stopping = True
            self._on_failure(str(error))
            return
        self._fill_later(place, f"did not start: {error}", lived)

    def _ended(self, how: str, place: Place, worker: IWorker) -> str:
        self._alive.discard(worker)
        self.totals.retire(worker)
        if worker in self._draining:
            self._draining.remove(worker)
            self.log.info("worker {number} that was replaced has ended: {how}", number=place.number, how=how)
            room, self._room = self._room, None
            if room is not None:
                room.callback(None)
        elif place.worker is worker:
            place.worker = None
            if not self._stopping:
                self._fill_later(place, f"has ended: {how}", self._clock.seconds() - worker.started_at)
        return how

    def _fill_later(self, place: Place, what: str, lived: float) -> None:
        if place.coming is not None:
            self.log.error("worker {number} {what}; another is coming", number=place.number, what=what)
            return
        pause = place.backoff.pause_after(lived)
        self.log.error(
            "worker {number} {what}; the next one starts in {pause:g} s",
            number=place.number,
            what=what,
            pause=pause,
        )
        self.restarts += 1
        place.timer = self._clock.callLater(pause, self._fill, place)

    def waiting_for(self) -> str:
        """Return what keeps the workers that were replaced, for the log."""
        count = len(self._draining)
        text = f"waiting for {count} replaced worker{'s' if count != 1 else ''}"
        gauges = [worker.figures.gauges for worker in self._draining]
        try:
            connections = sum(int(told["client_connections",][0]) for told in gauges)
            under_way = sum(int(told["requests_under_way",][0]) for told in gauges)
        except KeyError:
            # The plugin that counts is left out.
            return text
        idle = max(0, connections - under_way)
        return f"{text} with {idle} idle connections and {under_way} requests under way"

    # ---- all of them replaced --------------------------------------------------------------------

    @inlineCallbacks
    def roll(self, settings: Settings) -> Any:
        """Replace all workers, one after the other: the old one goes when the new one is ready.

        Nobody waits for the old ones to end, unless there are too many of them; see :data:`MAX_DRAINING`.

        :returns: fires with true when all are replaced; with false, and those that are left stay,
            if a new one could not serve.
        """
        before = self.settings.limits
        for place in self._places:
            while len(self._draining) >= len(self._places) * MAX_DRAINING:
                self.log.info("SIGHUP: {waiting}", waiting=self.waiting_for())
                self._room = Deferred()
                yield self._room
            if self._stopping or self._is_leaving:
                return False
            place.forget_timer()
            try:
                worker = place.coming = self._begin(place, settings)
                yield worker.ready
            except (OSError, WorkerFailed) as error:
                place.coming = None
                if not self._stopping:
                    self.log.error(
                        "the new worker {number} did not start: {error}; the others are not replaced",
                        number=place.number,
                        error=error,
                    )
                    if place.worker is None:
                        self._fill_later(place, "has ended", 0.0)
                return False
            self.settings = settings
            old, place.worker, place.coming = place.worker, worker, None
            self.log.info(
                "worker {number} is ready, process {pid} in place of {old}",
                number=place.number,
                pid=worker.pid,
                old=old.pid if old is not None else "one that had ended",
            )
            self._is_up(place)
            if old is not None:
                self._draining.append(old)
                old.send("drain")
                self._kill_after(before.drain_seconds + before.grace_seconds, old)
        return True

    # ---- the end ---------------------------------------------------------------------------------

    def leave(self) -> None:
        """Have all workers tell that they will stop, and serve on; those that are started later, too."""
        self._is_leaving = True
        for worker in self:
            worker.send("leave")

    def stop(self, grace_seconds: float) -> tuple[Deferred[Any], Deferred[Any]]:
        """Stop all workers; those that do not stop in time are killed.

        :returns: a Deferred that fires when none takes connections any more (or soon will), and one
            that fires when all have ended.
        """
        self._stopping = True
        for place in self._places:
            place.forget_timer()
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)
        alive = list(self._alive)
        for worker in alive:
            worker.send("stop")
            self._kill_after(grace_seconds, worker)
        closed: Deferred[Any] = DeferredList([own(worker.closed) for worker in alive], consumeErrors=True)
        closed.addTimeout(CLOSE_SECONDS, self._clock)
        return closed, DeferredList([own(worker.ended) for worker in alive])

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
