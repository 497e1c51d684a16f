"""What is given in one turn of the reactor: operations are routed and encoded together, and leave together.

Starting an operation only puts it into a list; all of them then go through one loop, which costs far less
than a few calls for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from zlib import crc32

from couchbase import exceptions as rc
from couchbase.protocol.frames import HEADER
from couchbase.protocol.operations import client_error
from txcouchbase.calls import Call
from txcouchbase.node import LARGE_BYTES, MAX_PENDING, NodeProtocol

MAX_GIVEN = 4096
"""So many operations are sent at once, though the turn has not ended."""


class Turn:
    """The operations that were given and not sent yet.

    :param reactor: provides time.
    :param submit: takes an operation that cannot simply be sent.
    :param parked: operations that wait for their key's turn, by key.
    :param watch: called when something is sent: time limits are to be looked after.
    """

    def __init__(
        self,
        reactor: Any,
        submit: Callable[[Call], None],
        parked: dict[bytes, Any],
        watch: Callable[[], None],
    ) -> None:
        self.given: list[Call] = _AtOnce(self)
        """Append operations here; call :meth:`wake` before the first, and when they are ``MAX_GIVEN``."""
        self.held = False
        """Whether answers are being handed out, after which somebody calls :meth:`drain`."""
        self.timeout = 2.5
        """Seconds that an operation may take; set with :meth:`set_timeout`."""
        self.rounds = 0
        """Changes whenever operations are sent."""
        self.least_rate = float("inf")
        """Bytes a second that a large value is reckoned to make at the least: its operation is given so much
        more time, so that it takes a dead peer and not a slow network to end it."""
        self._route: Sequence[NodeProtocol | None] = ()
        self._reactor = reactor
        self._submit = submit
        self._parked = parked
        self._watch = watch
        self._timer: Any = None

    def set_route(self, route: Sequence[NodeProtocol | None]) -> None:
        """Send to these connections, by vbucket; ``None`` where there is none that can send."""
        self._route = route
        if type(self.given) is _AtOnce:
            self.given = []

    def close(self) -> list[Call]:
        """Send nothing any more: what is given later is submitted at once. Returns what was not sent."""
        calls = self.given
        self.given = _AtOnce(self)
        self._route = [None] * len(self._route)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return calls

    def more_for(self, size: int) -> float:
        """Return the seconds that a value of that many bytes is given beyond :attr:`timeout`."""
        return size / self.least_rate if size >= LARGE_BYTES else 0.0

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
        call.deadline = self._reactor.seconds() + self.timeout + self.more_for(len(call.value))
        self._submit(call)

    def _end(self) -> None:
        self._timer = None
        self.drain()

    def drain(self, reading: NodeProtocol | None = None, later: bool = False) -> None:
        """Send everything that was given.

        :param reading: the connection that calls this at the end of its answers, and flushes itself. What is
            for others leaves in the next turn then, together with what their own answers give rise to.
        :param later: only put it in front of what is sent next, and leave by the end of the turn.
        """
        given = self.given
        if not given:
            return
        calls = given[:]
        # The same list: whoever made it full is about to append to it.
        given.clear()
        self.rounds += 1
        self._watch()
        deadline = self._reactor.seconds() + self.timeout
        route, parked, pack = self._route, self._parked, HEADER.pack
        count = len(route)
        touched: list[NodeProtocol] = []
        # What belongs to the connection of the operation before, which is mostly this one's, too.
        protocol: NodeProtocol | None = None
        pending: dict[int, Call] = {}
        opaque = room = 0
        add: Any = None
        for call in calls:
            if call.done:
                continue
            call.deadline = deadline
            key = call.key_bytes
            # couchbase.protocol.hashing.vbucket_of, by hand, as is operations.head below: every operation
            # comes through here.
            vbucket = ((crc32(key) >> 16) & 0x7FFF) % count
            owner = route[vbucket]
            if owner is not protocol or not room:
                if protocol is not None:
                    protocol.opaque = opaque
                protocol = owner
                if owner is None or parked or len(owner.pending) >= MAX_PENDING:
                    # No room, so that the next one comes here again, whoever its owner is.
                    protocol, room = None, 0
                    call.deadline = deadline + self.more_for(len(call.value))
                    if owner is None or parked:
                        self._submit(call)
                    else:
                        _refuse(call)
                    # Whatever that led to may have changed the map.
                    route = self._route
                    count = len(route)
                    continue
                pending, opaque = owner.pending, owner.opaque
                room = MAX_PENDING - len(pending)
                add = owner.out.append
                if not owner.out:
                    touched.append(owner)
            room -= 1
            opaque = (opaque + 1) & 0xFFFFFFFF
            call.opaque = opaque
            call.pending = pending
            call.vbucket = vbucket
            pending[opaque] = call
            size = len(key)
            extras, value, framing = call.extras, call.value, call.framing
            if framing:
                before, more = len(framing), len(extras)
                body = before + more + size + len(value)
                if body >= LARGE_BYTES:
                    call.deadline = deadline + body / self.least_rate
                    owner.has_large = True  # type: ignore[union-attr]  # it has room, so it is there
                size |= before << 8
                add(pack(0x08, call.operation.opcode, size, more, 0, vbucket, body, opaque, call.cas))
                add(framing + extras + key)
                add(value)
            elif extras or value:
                more = len(extras)
                body = size + more + len(value)
                if body >= LARGE_BYTES:
                    call.deadline = deadline + body / self.least_rate
                    owner.has_large = True  # type: ignore[union-attr]  # it has room, so it is there
                add(pack(0x80, call.operation.opcode, size, more, 0, vbucket, body, opaque, call.cas))
                add(extras + key)
                add(value)
            else:
                add(pack(0x80, call.operation.opcode, size, 0, 0, vbucket, size, opaque, call.cas))
                add(key)
        if protocol is not None:
            protocol.opaque = opaque
        for protocol in touched:
            if reading is None and not later:
                protocol.flush()
            elif protocol is not reading:
                protocol.schedule()


class _AtOnce(list[Call]):
    """Stands in for the list while nothing can be sent: before there is a map, and after the end.

    Operations then wait elsewhere or fail, and that at once.
    """

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._turn = turn

    def append(self, call: Call) -> None:
        """Submit an operation."""
        turn = self._turn
        call.deadline = turn._reactor.seconds() + turn.timeout + turn.more_for(len(call.value))
        turn._submit(call)

    def extend(self, calls: Iterable[Call]) -> None:
        """Submit operations."""
        for call in calls:
            self.append(call)


def _refuse(call: Call) -> None:
    """Fail an operation because too many wait for its node."""
    message = f"{MAX_PENDING} operations wait for this node"
    call.fail(client_error(call, rc.CLIENT_ETMPFAIL, message))
