"""What is given in one turn of the reactor: operations are routed and encoded together, and leave together.

Starting an operation only puts it into a list; all of them then go through one loop, which costs far less
than a few calls for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from couchbase.protocol.call import Call
from couchbase.protocol.conversation import Conversation
from couchbase.protocol.dispatch import Dispatcher
from reactor.clock import cancel_timer
from reactor.kinds import IReactor

MAX_GIVEN = 4096
"""So many operations are sent at once, though the turn has not ended."""


class Turn:
    """The operations that were given and not sent yet.

    :param reactor: provides time.
    :param dispatcher: what operations are sent by.
    :param watch: called when something is sent: time limits are to be looked after.
    """

    def __init__(
        self,
        reactor: IReactor,
        dispatcher: Dispatcher,
        watch: Callable[[], None],
    ) -> None:
        self.given: list[Call] = _AtOnce(self)
        """Append operations here; call :meth:`wake` before the first, and when they are ``MAX_GIVEN``."""
        self.held = False
        """Whether answers are being handed out, after which somebody calls :meth:`drain`."""
        self.timeout = 2.5
        """Seconds that an operation may take; set with :meth:`set_timeout`."""
        self._dispatcher = dispatcher
        self._reactor = reactor
        self._watch = watch
        self._timer: Any = None

    def open(self) -> None:
        """There is a map, so operations can be sent."""
        if type(self.given) is _AtOnce:
            self.given = []

    def close(self) -> list[Call]:
        """Send nothing any more: what is given later is submitted at once. Returns what was not sent."""
        calls = self.given
        self.given = _AtOnce(self)
        cancel_timer(self._timer)
        self._timer = None
        return calls

    def more_for(self, size: int) -> float:
        """Return the seconds that a value of that many bytes is given beyond :attr:`timeout`."""
        return self._dispatcher.more_for(size)

    def set_timeout(self, seconds: float) -> None:
        """Change the time of the operations to come; those already given keep theirs."""
        self.drain()
        self.timeout = seconds

    def wake(self) -> None:
        """See to it that what is given is sent by the end of this turn; at once, if that is much already."""
        if len(self.given) >= MAX_GIVEN:
            self.drain()
        # Who gives operations may let go of the connection at once: whoever watches the time keeps it.
        self._watch()
        if self._timer is None and not self.held and type(self.given) is not _AtOnce:
            self._timer = self._reactor.callLater(0, self._end)

    def give_all(self, calls: Sequence[Call]) -> None:
        """Send many operations together."""
        self.wake()
        self.given.extend(calls)

    def submit_now(self, call: Call) -> None:
        """Send one operation by itself, after those that were given before."""
        self.drain(later=True)
        self.submit(call)

    def submit(self, call: Call) -> None:
        """Send one operation by itself."""
        call.deadline = self._reactor.seconds() + self.timeout + self.more_for(len(call.value))
        self._dispatcher.submit(call)

    def _end(self) -> None:
        self._timer = None
        self.drain()

    def drain(self, reading: Conversation | None = None, later: bool = False) -> None:
        """Send everything that was given.

        :param reading: the conversation whose connection calls this at the end of its answers, and flushes
            itself. What is for others leaves in the next turn then, together with what their own answers give
            rise to.
        :param later: only put it in front of what is sent next, and leave by the end of the turn.
        """
        given = self.given
        if not given:
            return
        calls = given[:]
        # The same list: whoever made it full is about to append to it.
        given.clear()
        self._watch()
        for conversation in self._dispatcher.send_all(calls, self._reactor.seconds() + self.timeout):
            if reading is None and not later:
                conversation.line.flush()
            elif conversation is not reading:
                conversation.line.schedule()


class _AtOnce(list[Call]):
    """Stands in for the list while nothing can be sent: before there is a map, and after the end.

    Operations then wait elsewhere or fail, and that at once.
    """

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._turn = turn

    def append(self, call: Call) -> None:
        """Submit an operation."""
        self._turn.submit(call)

    def extend(self, calls: Iterable[Call]) -> None:
        """Submit operations."""
        for call in calls:
            self.append(call)
