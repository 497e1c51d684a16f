"""Drives plans that ask nodes of the cluster, on Twisted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

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
        asked: list[Deferred[Frame | None] | None] = []
        for server, opcode, fields in step.questions:
            link = servers[server] if server < len(servers) else None
            if link is None or (link.protocol is None and not step.connect):
                asked.append(None)
            else:
                if link.protocol is not None:
                    answer = link.protocol.ask_once(opcode, fields, step)
                else:
                    answer = link.up().addCallback(_ask_once, opcode, fields, step)
                asked.append(answer)
        # One timer for all questions: a scan has many.
        timer = self._reactor.callLater(self._timeout, _give_up, asked)
        frames: list[Frame | None] = []
        try:
            for question in asked:
                frames.append(None if question is None else (yield question))
        finally:
            cancel_timer(timer)
            _give_up(asked)
        return frames


def _give_up(asked: Sequence[Deferred[Frame | None] | None]) -> None:
    """Answer the open questions with ``None``."""
    for question in asked:
        if question is not None and not question.called:
            question.addErrback(lambda _: None)
            question.cancel()


def _ask_once(protocol: NodeProtocol | None, opcode: int, fields: dict[str, Any], step: Ask) -> Any:
    return None if protocol is None else protocol.ask_once(opcode, fields, step)
