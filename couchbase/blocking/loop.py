"""The event loop of a blocking client, which runs inside each call: sockets, timers, questions and plans."""

from __future__ import annotations

import heapq
import time
from collections.abc import Generator, Iterable
from typing import Any, Callable

from couchbase.blocking.node import NodeConnection
from couchbase.blocking.poller import Poller
from couchbase.blocking.question import Question
from couchbase.protocol.frames import Frame
from couchbase.protocol.peer import refusal_of
from couchbase.protocol.plans import Ask, Pause


class Loop:
    """Waits for sockets and timers; nothing happens outside its methods."""

    host_timeout = 2.0
    peers: dict[tuple[str, int], Any]
    """The nodes of the map, by host and port."""
    servers: list[Any]
    """The nodes by their index in the map; ``None`` for a node without a key-value port."""

    def __init__(self) -> None:
        self.seconds: Callable[[], float] = time.monotonic
        self.selector: Any = Poller()
        self.dirty: list[NodeConnection] = []
        """Nodes that have something to send."""
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_number = 0

    def catch_up(self) -> None:
        """Process the events since the last call."""
        raise NotImplementedError

    def _abandon(self, calls: Iterable[Any]) -> None:
        """Drop everything that an unexpected exception may have left half done."""
        raise NotImplementedError

    def renew_selector(self) -> None:
        """Forget sockets and timers, after a fork."""
        self.selector.close()
        self.selector = Poller()
        self.dirty = []
        self._timers.clear()

    def turn(self, until: float) -> None:
        """Send pending data, wait for an event (no longer than ``until``), and handle it."""
        self.flush()
        timers = self._timers
        if timers and timers[0][0] < until:
            until = timers[0][0]
        wait = until - self.seconds()
        self.selector.wait(wait if wait > 0 else 0)
        if timers:
            now = self.seconds()
            while timers and timers[0][0] <= now:
                heapq.heappop(timers)[2]()

    def flush(self) -> None:
        """Send pending data."""
        while self.dirty:
            self.dirty.pop().flush()

    def call_at(self, when: float, function: Callable[[], None]) -> None:
        """Call a function in the first turn after a given time."""
        self._timer_number += 1
        heapq.heappush(self._timers, (when, self._timer_number, function))

    def wait_for(self, done: Callable[[], bool], deadline: float) -> bool:
        """Run turns until a condition is true; return false if the deadline passes first."""
        try:
            while not done():
                if self.seconds() >= deadline:
                    return False
                self.turn(deadline)
        except BaseException:
            self._abandon(())
            raise
        return True

    def pause(self, until: float) -> None:
        """Run turns until a given time."""
        self.wait_for(lambda: False, until)

    # ---- questions and plans ---------------------------------------------------------------------

    def ask(self, step: Ask, deadline: float) -> list[Frame | None]:
        """Send one request to each of several nodes, all at once; returns the answers, ``None`` for a missing
        one.

        :raises CouchbaseError: BucketNotFoundError or AuthError, the nodes refuse connections.
        """
        questions = step.questions
        answers: list[Frame | None] = [None] * len(questions)
        open_ = [len(questions)]
        asked: list[Question] = []

        def listener(index: int) -> Callable[[Frame | None], bool | None]:
            def answered(frame: Frame | None) -> None:
                answers[index] = frame
                open_[0] -= 1

            return step.listener(answered)

        for index, (server, opcode, fields) in enumerate(questions):
            node = self.servers[server] if server < len(self.servers) else None
            if node is None:
                open_[0] -= 1
            else:
                asked.append(node.ask(opcode, listener(index), fields))
        try:
            self.wait_for(lambda: not open_[0], deadline)
        finally:
            for question in asked:
                question.forget(step)
        if not (open_[0] or any(answers)):
            refused = refusal_of(self.servers)
            if refused is not None:
                raise refused
        return answers

    def run_plan(self, plan: Generator[Any, Any, Any], deadline: float) -> Any:
        """Drive a plan that asks nodes of the cluster; returns its result."""
        self.catch_up()
        advance: Callable[[Any], Any] = plan.send
        value: Any = None
        while True:
            try:
                step = advance(value)
            except StopIteration as done:
                return done.value
            try:
                if isinstance(step, Pause):
                    limit = self.seconds() + step.seconds
                    self.pause(limit)
                    value = None
                elif isinstance(step, Ask):
                    limit = max(deadline, self.seconds() + 0.001)
                    value = self.ask(step, min(limit, self.seconds() + self.host_timeout))
                else:
                    raise TypeError(f"the cluster cannot perform {step!r}")
                advance = plan.send
            except BaseException as failure:  # noqa: BLE001  # thrown into the plan, which decides
                advance, value = plan.throw, failure
