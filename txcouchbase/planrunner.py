"""Drives plans that ask nodes of the cluster, on Twisted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure

from couchbase.protocol.frames import Frame
from couchbase.protocol.plans import Ask, Pause
from reactor.clock import cancel_timer
from reactor.kinds import IReactor
from txcouchbase.link import Link
from txcouchbase.node import NodeProtocol


class PlanRunner:
    """Drives plans.

    :param reactor: provides time.
    :param servers: returns the nodes by their index in the map; ``None`` for one without a key-value port.
    :param timeout: timeout of a node's answer, in seconds.
    """

    def __init__(
        self, reactor: IReactor, servers: Callable[[], Sequence[Link | None]], timeout: float
    ) -> None:
        self._reactor = reactor
        self._servers = servers
        self._timeout = timeout

    @inlineCallbacks
    def run(self, plan: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Drive a plan; fires with its result."""
        answer: Any = None
        while True:
            try:
                step = plan.send(answer)
                if isinstance(step, Pause):
                    answer = yield self._sleep(step.seconds)
                elif isinstance(step, Ask):
                    answer = yield self._ask(step)
                else:
                    raise TypeError(f"the cluster cannot perform {step!r}")
            except StopIteration as done:
                return done.value

    def _sleep(self, seconds: float) -> Deferred[None]:
        slept: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer: Any = self._reactor.callLater(seconds, slept.callback, None)
        return slept

    @inlineCallbacks
    def _ask(self, step: Ask) -> Generator[Any, Any, list[Frame | None]]:
        servers = self._servers()
        asked = _Questions()
        for server, opcode, fields in step.questions:
            link = servers[server] if server < len(servers) else None
            if link is None or (link.protocol is None and not step.connect):
                asked.add(None)
            elif link.protocol is not None:
                asked.add(link.protocol.ask_once(opcode, fields, step))
            else:
                asked.add(link.up().addCallback(_ask_once, opcode, fields, step))
        # One timer for all questions: a scan has many.
        timer = self._reactor.callLater(self._timeout, asked.give_up)
        frames: list[Frame | None] = []
        try:
            for answer in asked.answers:
                frames.append(None if answer is None else (yield answer))
        finally:
            cancel_timer(timer)
            asked.give_up()
        return frames


class _Questions:
    """The questions of one step, which end together.

    :ivar answers: one for each; ``None`` for a node that cannot be asked.
    """

    def __init__(self) -> None:
        self.answers: list[Deferred[Frame | None] | None] = []
        self._are_given_up = False

    def add(self, answer: Deferred[Frame | None] | None) -> None:
        """Add one."""
        self.answers.append(answer)
        if answer is not None:
            answer.addErrback(self._ended)

    def give_up(self) -> None:
        """Answer the open ones with ``None``."""
        self._are_given_up = True
        for answer in self.answers:
            if answer is not None:
                answer.cancel()
                # After a failure nothing waits for the others.
                answer.addErrback(lambda _: None)

    def _ended(self, failure: Failure) -> Any:
        # What the caller cancels stays cancelled.
        return None if self._are_given_up else failure


def _ask_once(protocol: NodeProtocol | None, opcode: int, fields: dict[str, Any], step: Ask) -> Any:
    return None if protocol is None else protocol.ask_once(opcode, fields, step)
