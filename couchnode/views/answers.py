"""The answers of queries that are being sent: their number is limited, and slow readers are cut off."""

from __future__ import annotations

from time import monotonic
from typing import Any

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from couchnode.views.errors import QueryError
from couchnode.views.workerclient import WorkerClient, WorkerConnection, WorkerError

MAX_QUERIES = 100
"""Most answers sent at a time; further queries wait for one of them to end."""

QUEUE_SECONDS = 10.0
"""Longest wait for a place; then the query is refused with 503."""

STALLED_SECONDS = 60.0
"""A client that reads nothing for this time is disconnected."""

SLOW_SECONDS = 5.0
"""The same limit while other queries wait."""


class Answers:
    """The answers of one node process.

    :param worker: makes the answers.
    :ivar open: the connections over which an answer arrives.
    :ivar places: each answer holds one place.
    """

    def __init__(self, worker: WorkerClient, clock: IReactorTime) -> None:
        self.open: set[WorkerConnection] = set()
        self.places = DeferredSemaphore(MAX_QUERIES)
        self._worker = worker
        self._clock = clock
        self._watch = LoopingCall(self.cut_slow, STALLED_SECONDS)
        self._watch.clock = clock

    def start(self) -> None:
        """Begin to look for clients that do not read."""
        if not self._watch.running:
            self._watch.start(SLOW_SECONDS, now=False)

    def stop(self) -> None:
        """Stop looking for clients that do not read."""
        if self._watch.running:
            self._watch.stop()

    async def ask(self, request: dict[str, Any]) -> WorkerConnection:
        """Ask the worker; return the connection with the body of the answer."""
        await self._place()
        try:
            connection = await self._worker.query_connection()
        except BaseException:
            self.places.release()
            raise
        self.open.add(connection)

        def ended(_: None) -> None:
            self.open.discard(connection)
            self.places.release()

        connection.ended.addCallback(ended)
        try:
            reply = await connection.ask_anything(("query", request))
        except BaseException:
            connection.close()
            raise
        if reply[0] == "head":
            return connection
        if reply[0] == "refused":
            connection.finish()
            raise QueryError(reply[1]["status"], reply[1]["error"], reply[1]["reason"])
        connection.close()
        raise WorkerError(str(reply[1]))

    async def _place(self) -> None:
        """Wait until there is room for one more answer; answers whose clients do not read make room."""
        patience = QUEUE_SECONDS
        while True:
            place = self.places.acquire()
            if not place.called:
                self.cut_slow(SLOW_SECONDS, most=len(self.places.waiting))
            step = min(patience, 1.0)
            patience -= step
            try:
                await place.addTimeout(step, self._clock)
                return
            except DeferredTimeout:
                if patience <= 0:
                    raise QueryError(
                        503, "too_many_requests", "too many queries at a time; try again later"
                    ) from None

    def cut_slow(self, seconds: float, most: int = MAX_QUERIES) -> None:
        """Disconnect up to ``most`` clients that have read nothing for ``seconds``, slowest first."""
        before = monotonic() - seconds
        slow = [
            (connection.paused_since, id(connection), connection)
            for connection in self.open
            if connection.paused_since is not None and connection.paused_since <= before
        ]
        for _, _, connection in sorted(slow)[:most]:
            connection.cut()
