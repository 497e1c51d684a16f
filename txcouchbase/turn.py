"""The operations of one reactor turn, which are routed, encoded and sent together.

Starting an operation only appends it to a list; one loop then processes the list, which costs far less than a
few calls for each operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from couchbase.protocol.call import Call
from couchbase.protocol.conversation import Conversation
from couchbase.protocol.dispatch import Dispatcher
from reactor.clock import cancel_timer
from reactor.kinds import IReactor

_Send = Callable[[Sequence[Call], float], list[Conversation]]

MAX_QUEUED = 4096
"""Number of operations that are sent immediately, before the turn ends."""


class Turn:
    """The operations that were started and not sent yet.

    :param reactor: provides time.
    :param dispatcher: sends the operations.
    :param watch: called when something is sent, to start the timeout sweep.
    """

    def __init__(
        self,
        reactor: IReactor,
        dispatcher: Dispatcher,
        watch: Callable[[], None],
    ) -> None:
        self.queued: list[Call] = _Unqueued(self)
        """Append operations here; call :meth:`wake` before the first, and when they are ``MAX_QUEUED``."""
        self.has_levels = False
        """Whether there are synchronous writes among them, which hold their keys until they are decided; set
        when one is appended."""
        self.is_delivering = False
        """Whether answers are being delivered, after which :meth:`drain` is called."""
        self.timeout = 2.5
        """Timeout of an operation in seconds; set with :meth:`set_timeout`."""
        self._dispatcher = dispatcher
        self._reactor = reactor
        self._watch = watch
        self._timer: Any = None
        self.limits: dict[Call, float] = {}
        """The timeouts of operations that have their own, in seconds; set before they are appended."""

    def open(self) -> None:
        """Begin to send operations: there is a map."""
        if type(self.queued) is _Unqueued:
            self.queued = []

    def close(self) -> list[Call]:
        """Stop sending: later operations are submitted immediately. Returns the operations not sent."""
        calls = self.queued
        self.queued = _Unqueued(self)
        self.limits.clear()
        cancel_timer(self._timer)
        self._timer = None
        return calls

    def more_for(self, size: int) -> float:
        """Return the seconds, in addition to :attr:`timeout`, for a value of this size in bytes."""
        return self._dispatcher.more_for(size)

    def set_timeout(self, seconds: float) -> None:
        """Change the timeout of later operations; those already started keep theirs."""
        self.drain()
        self.timeout = seconds

    def wake(self) -> None:
        """Make sure that the operations are sent by the end of this turn; immediately, if there are many."""
        queued = self.queued
        if queued and len(queued) >= MAX_QUEUED:
            self.drain()
        # Callers may drop the connection right after starting operations: the timeout sweep keeps it alive.
        self._watch()
        if not self.is_delivering and self._timer is None and type(queued) is not _Unqueued:
            self._timer = self._reactor.callLater(0, self._end)

    def queue_all(self, calls: Sequence[Call]) -> None:
        """Send many operations together."""
        self.wake()
        self.queued.extend(calls)

    def submit_now(self, call: Call, seconds: float | None = None) -> None:
        """Send one operation separately, after those started before.

        :param seconds: its timeout; ``None`` for :attr:`timeout`.
        """
        self.drain(later=True)
        self.submit(call, seconds)

    def submit(self, call: Call, seconds: float | None = None) -> None:
        """Send one operation separately."""
        granted = self.timeout if seconds is None else seconds
        call.deadline = self._reactor.seconds() + granted + self.more_for(len(call.value))
        self._dispatcher.submit(call)

    def _end(self) -> None:
        self._timer = None
        self.drain()

    def drain(self, reading: Conversation | None = None, later: bool = False) -> None:
        """Send all started operations.

        :param reading: the conversation whose connection calls this at the end of its answers, and flushes
            itself. Data for others is then sent in the next turn, together with the operations that their own
            answers start.
        :param later: only queue the operations before later ones, to be sent by the end of the turn.
        """
        queued = self.queued
        if not queued:
            return
        now = self._reactor.seconds()
        touched: Sequence[Conversation]
        if len(queued) == 1 and not self.has_levels and not self.limits:
            touched = self._dispatcher.send_one(queued.pop(), now + self.timeout)
        else:
            calls = queued[:]
            # Keep the same list: the caller that filled it is about to append to it.
            queued.clear()
            touched = self._send(calls, now)
        for conversation in touched:
            if reading is None and not later:
                conversation.line.flush()
            elif conversation is not reading:
                conversation.line.schedule()

    def _send(self, calls: Sequence[Call], now: float) -> list[Conversation]:
        send: _Send = self._dispatcher.send_all
        if self.has_levels:
            self.has_levels = False
            send = self._dispatcher.send_in_order
        if self.limits:
            return self._send_limited(calls, now, send)
        return send(calls, now + self.timeout)

    def _send_limited(self, calls: Sequence[Call], now: float, send: _Send) -> list[Conversation]:
        """Send operations of which some have timeouts of their own: those with the same one together."""
        limits, self.limits = self.limits, {}
        touched: list[Conversation] = []
        for seconds, together in groupby(calls, limits.get):
            deadline = now + (self.timeout if seconds is None else seconds)
            touched += send(list(together), deadline)
        return touched


class _Unqueued(list[Call]):
    """Replaces the list while nothing can be sent: before there is a map, and after the end.

    Operations then wait elsewhere or fail, immediately.
    """

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._turn = turn

    def append(self, call: Call) -> None:
        """Submit an operation."""
        turn = self._turn
        turn.submit(call, turn.limits.pop(call, None))

    def extend(self, calls: Iterable[Call]) -> None:
        """Submit operations."""
        for call in calls:
            self.append(call)
