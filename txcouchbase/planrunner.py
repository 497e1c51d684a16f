"""Drives plans that ask nodes of the cluster, on Twisted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from couchbase.protocol.conversation import Conversation
from couchbase.protocol.frames import Frame
from couchbase.protocol.peer import refusal_of
from couchbase.protocol.plans import Ask, Pause
from reactor.clock import cancel_timer
from reactor.kinds import IReactor
from txcouchbase.link import Link
from txcouchbase.node import NodeProtocol

__all__ = ["PlanRunner"]


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

    def run(self, plan: Generator[Any, Any, Any]) -> Deferred[Any]:
        """Drive a plan; fires with its result. Cancelling ends the plan, and forgets its open questions."""
        running = _Running(self._reactor, self._servers, self._timeout, plan)
        running.go_on(None)
        return running.done


class _Running:
    """A plan that is being carried out: one Deferred for all of it, since questions are many.

    :ivar done: fires with its result.
    """

    def __init__(
        self,
        reactor: IReactor,
        servers: Callable[[], Sequence[Link | None]],
        timeout: float,
        plan: Generator[Any, Any, Any],
    ) -> None:
        self.done: Deferred[Any] = Deferred(self._cancelled)
        self._reactor = reactor
        self._servers = servers
        self._timeout = timeout
        self._plan = plan
        # The timer of a pause, or of a step; it is kept for the next step.
        self._timer: Any = None
        # The answers of the present step, how many are to come, and what they are awaited from.
        self._frames: list[Frame | None] = []
        self._open = 0
        self._asked: list[tuple[int, Conversation, int, dict[str, Any]]] = []
        self._step: Ask | None = None
        self._connecting: list[Deferred[Any]] = []

    def go_on(self, result: Any) -> None:
        """Pass the result of a step to the plan, and carry out the next ones, until one has to wait."""
        try:
            while True:
                step = self._plan.send(result)
                if isinstance(step, Pause):
                    cancel_timer(self._timer)
                    self._timer = self._reactor.callLater(step.seconds, self._paused)
                    return
                if not isinstance(step, Ask):
                    raise TypeError(f"the cluster cannot perform {step!r}")
                self._ask(step)
                if self.done.called:
                    return
                if self._open:
                    # One timer for all questions: a scan has many.
                    if self._timer is not None and self._timer.active():
                        self._timer.reset(self._timeout)
                    else:
                        self._timer = self._reactor.callLater(self._timeout, self._end_step)
                    return
                result = self._taken()
        except StopIteration as ended:
            cancel_timer(self._timer)
            self.done.callback(ended.value)
        except Exception:  # noqa: BLE001  # the outcome of the plan
            self._fail(Failure())

    def _ask(self, step: Ask) -> None:
        servers, questions = self._servers(), step.questions
        self._frames = [None] * len(questions)
        self._asked, self._connecting, self._step = [], [], step
        # One more than there are, so that answers that come at once do not end the step.
        self._open = 1
        for index, (server, opcode, fields) in enumerate(questions):
            link = servers[server] if server < len(servers) else None
            if link is None:
                continue
            if link.protocol is None and not step.connect and refusal_of(servers) is None:
                continue
            self._open += 1
            if link.protocol is not None:
                self._put(link.protocol, index, opcode, fields, step)
            else:
                connecting = link.up().addCallback(self._put, index, opcode, fields, step)
                connecting.addErrback(self._not_asked)
                self._connecting.append(connecting)
        self._open -= 1

    def _put(
        self, protocol: NodeProtocol | None, index: int, opcode: int, fields: dict[str, Any], step: Ask
    ) -> None:
        if protocol is None:
            self._answered(index, None)
            return
        conversation = protocol.conversation
        listener = step.listener(partial(self._answered, index))
        self._asked.append((index, conversation, conversation.ask(opcode, listener, fields), fields))

    def _answered(self, index: int, frame: Frame | None) -> None:
        self._frames[index] = frame
        self._open -= 1
        if not self._open:
            self._end_step()

    def _not_asked(self, failure: Failure) -> None:
        # A step that has ended has cancelled its attempts.
        if self._open:
            self._fail(failure)

    def _end_step(self) -> None:
        """Go on with the answers that have come; those that have not are ``None``."""
        if self._open:
            self._forget()
        elif self._connecting and not any(self._frames):
            refused = refusal_of(self._servers())
            if refused is not None:
                self._fail(Failure(refused))
                return
        self.go_on(self._taken())

    def _taken(self) -> list[Frame | None]:
        """Return the answers for the plan, which is responsible for them from now on."""
        self._step = None
        return self._frames

    def _paused(self) -> None:
        self._timer = None
        self.go_on(None)

    def _forget(self) -> None:
        """Take no more answers to the questions of this step."""
        self._open = 0
        cancel_timer(self._timer)
        self._timer = None
        if self._step is not None:
            for index, conversation, number, fields in self._asked:
                if self._frames[index] is None:
                    self._step.give_up(conversation, number, fields)
        for connecting in self._connecting:
            connecting.cancel()

    def _fail(self, failure: Failure) -> None:
        if not self.done.called:
            self._cancelled(None)
            self.done.errback(failure)

    def _cancelled(self, _: object) -> None:
        self._forget()
        step, self._step = self._step, None
        if step is not None:
            for index, conversation, _, fields in self._asked:
                frame = self._frames[index]
                if frame is not None:
                    step.revoke(conversation, fields, frame)
        self._plan.close()
