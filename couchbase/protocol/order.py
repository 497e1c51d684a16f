"""Repeats operations that nodes did not execute, in order for each key. The driver has the clock: it
resubmits an operation after a given number of seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from typing import Any, Callable

from couchbase.exceptions import CouchbaseError
from couchbase.protocol import offers
from couchbase.protocol.call import Call, Step
from couchbase.protocol.conversation import LARGE_BYTES
from couchbase.protocol.errormap import ServerStatus
from couchbase.protocol.frames import Frame
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE
from couchbase.protocol.request import Request
from couchbase.protocol.statuses import Action, retry_delay


class Order:
    """The part of a dispatcher that repeats operations, in order for each key.

    A postponed operation waits for a while; later operations on its key wait for it.
    """

    map: Any
    peers: dict[tuple[str, int], Any]
    """The nodes of the map, by host and port."""
    seconds: Callable[[], float]
    """Returns the current time of the driver's clock."""
    least_rate: float
    """Bytes a second at which a large value is expected to be sent at least."""

    def __init__(self) -> None:
        super().__init__()
        # Key -> postponed operations, for which later operations on the same key wait.
        self._parked: dict[Any, deque[Call]] = {}
        # How often a key was held so far.
        self._holds = 0
        # How often operations were sent so far.
        self._rounds = 0
        # Key -> the operation that was sent last; an index, made when _rounds was _indexed.
        self._last_sent: dict[Any, Call] = {}
        self._indexed = -1

    # ---- what others provide ---------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Send an operation to the node that owns its key, now or as soon as possible."""
        raise NotImplementedError

    def adopt_from(self, conversation: Any, config: bytes) -> None:
        """Use the map that a node sent, if it is newer than the one in use."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Ask any connected node for its map."""
        raise NotImplementedError

    def submit_later(self, call: Call, seconds: float) -> None:
        """Submit an operation after a pause, unless it has ended by then."""
        raise NotImplementedError

    # ---- putting off -----------------------------------------------------------------------------

    def put_off(self, conversation: Any, call: Call, frame: Frame, action: Action) -> None:
        """Take back an operation that a node did not execute.

        :param action: ``SURFACE`` for an operation that is over, but whose answer requires a newer map.
        """
        call.pending = None
        known: int = conversation.session.error_map.get(frame.specific, frame.specific)
        if action is Action.SURFACE:
            # The caller has the answer; the server announces a newer map.
            self.refresh()
            return
        call.last_status = known
        if action is Action.REMAP:
            before = self.map
            if frame.value:
                self.adopt_from(conversation, frame.value)
            else:
                self.refresh()
            if self.map is not before and not call.attempts and call.identity not in self._parked:
                self.submit(call)
                return
        self.submit_again(call)

    def submit_again(self, call: Call) -> None:
        """Send an operation again after a pause; later ones on its key wait for it."""
        if call.done:
            return
        if call.ended is None:
            waiting = self._parked.get(call.identity)
            if waiting is not None:
                # Another operation on this key is being retried or has no answer yet. This one was sent at
                # the same time, so it goes before those that were never sent.
                if call.last_status:
                    at = next((n for n, other in enumerate(waiting) if not other.last_status), len(waiting))
                else:
                    at = len(waiting)
                waiting.insert(at, call)
                return
            self._hold(call, call.identity)
        attempt, call.attempts = call.attempts, call.attempts + 1
        delay = None
        if isinstance(call.last_status, ServerStatus):
            delay = call.last_status.delay(attempt)
        self.submit_later(call, retry_delay(attempt) if delay is None else delay)

    def _hold(self, call: Call, identity: Any) -> None:
        """Make later operations on an operation's key wait until the operation is over.

        :param identity: the operation's.
        """
        self._holds += 1
        self._parked[identity] = deque()
        call.ended = self._release

    def _release(self, ended: Call) -> None:
        """Resubmit the operations that waited for another one."""
        identity = ended.identity
        waiting = self._parked.pop(identity, None)
        while waiting:
            call = waiting.popleft()
            if not call.done:
                self.submit(call)
                held = self._parked.get(identity)
                if held is not None:
                    # The key is held again, by this call or for it. So the others continue to wait, before
                    # operations that arrived meanwhile.
                    if held and held[0] is call:
                        waiting.appendleft(held.popleft())
                    held.extendleft(reversed(waiting))
                    return

    # ---- synchronous writes ----------------------------------------------------------------------

    def _waits_for(self, call: Call) -> bool:
        """Hold the key of a synchronous write; return true if the write itself has to wait for an earlier
        one.

        Until the write is decided, readers see the previous version and later writes fail.
        """
        before = self._sent_before(call.identity)
        if before is None:
            self._hold(call, call.identity)
            return False
        self._hold(before, before.identity)
        self._parked[call.identity].append(call)
        return True

    def in_order(self, calls: Iterable[Call], deadline: float) -> list[Call]:
        """Return those of many operations, given together, that are to be sent now.

        The others wait for their keys. Synchronous writes hold theirs; see :meth:`_waits_for`.

        :param deadline: of all of them.
        """
        parked, release = self._parked, self._release
        free: list[Call] = []
        # Neither sent nor in the index yet.
        others: dict[Any, Call] = {}
        # The index, once a synchronous write has made it; nothing is sent meanwhile.
        sent: dict[Any, Call] | None = None
        known, durable = b"", False
        for call in calls:
            if call.done:
                continue
            keyspace, framing = call.keyspace, call.framing
            identity = call.key_bytes if keyspace is DEFAULT_KEYSPACE else (keyspace, call.key_bytes)
            if call.ended is None:
                if identity in parked:
                    call.deadline = deadline + self.more_for(len(call.value))
                    parked[identity].append(call)
                    continue
                if framing is not known:
                    known, durable = framing, offers.is_durable(framing)
                # Without an id nothing is sent: it is submitted again when the id is known.
                if durable and keyspace.prefix:
                    before = others.get(identity) if others else None
                    if before is None or before.ended is not None:
                        before = None
                        if sent is None or identity in sent:
                            before = self._sent_before(identity)
                            sent = self._last_sent
                    if before is None:
                        # _hold, inlined.
                        self._holds += 1
                        parked[identity] = deque()
                        call.ended = release
                        free.append(call)
                    else:
                        self._hold(before, identity)
                        call.deadline = deadline + self.more_for(len(call.value))
                        parked[identity].append(call)
                    continue
            others[identity] = call
            free.append(call)
        if others:
            self._rounds += 1
        return free

    def more_for(self, size: int) -> float:
        """Return by how many seconds a value of that many bytes extends the timeout."""
        return size / self.least_rate if size >= LARGE_BYTES else 0.0

    def _sent_before(self, identity: Any) -> Call | None:
        """Return the operation on a key that was sent last and has no answer, if there is one."""
        if self._indexed != self._rounds:
            # Once for all synchronous writes that are submitted together.
            self._indexed = self._rounds
            self._last_sent = {
                call.identity: call
                for peer in self.peers.values()
                if peer.conversation is not None
                for call in peer.conversation.pending.values()
            }
        before = self._last_sent.get(identity)
        if before is None or before.done or before.pending is None or before.ended is not None:
            return None
        return before

    # ---- nodes that lack a feature ---------------------------------------------------------------

    def adapt(self, conversation: Any, call: Call) -> bool:
        """Adapt an operation to a node's features; return false if it must not be sent (now)."""
        if call.ended is None and call.identity in self._parked:
            # This operation waited for the connection together with the one that now holds the key.
            self._parked[call.identity].append(call)
            return False
        try:
            if call.replica is not None:
                offers.check_replica_read(call, conversation.session.features, conversation.name)
            adapted = offers.adapt(call, conversation.lacking, conversation.name)
        except CouchbaseError as error:
            call.fail(error)
            return False
        if adapted is offers.Adapted.SEND:
            return True
        if call.ended is None:
            self._hold(call, call.identity)
        lacking = set(conversation.lacking)
        plan = offers.keep_expiry if adapted is offers.Adapted.KEEP_EXPIRY else offers.read_expiry
        self._advance(conversation, call, plan(call, lacking), lacking, None)
        return False

    def _advance(
        self,
        conversation: Any,
        call: Call,
        plan: Generator[Any, Any, Any],
        lacking: set[int],
        step: Step | None,
    ) -> None:
        """Pass the outcome of the last step to a plan that replaces an operation."""
        if call.done:
            return
        call.pending = None
        try:
            if step is None:
                request = next(plan)
            elif step.error is not None:
                request = plan.throw(step.error)
            else:
                request = plan.send(step.result)
        except StopIteration as done:
            conversation.lacking |= lacking
            call.succeed(done.value)
            return
        except Exception as error:  # noqa: BLE001  # the outcome of the operation
            conversation.lacking |= lacking
            call.fail(offers.as_of(call, error))
            return
        step = self._step_of(call, request)
        release = call.ended
        if request.operation.mutates:
            # If the operation times out from now on, it may have been executed.
            call.opaque, call.pending = 0, {}

        def over(ended: Call) -> None:
            """Note that the operation ended before its step."""
            call.ended = release
            step.ended = None
            step.leave()
            step.done = True
            if release is not None:
                release(ended)

        def advance(_: Call) -> None:
            call.ended = release
            self._advance(conversation, call, plan, lacking, step)

        call.ended = over
        step.ended = advance
        self.submit(step)

    @staticmethod
    def _step_of(call: Call, request: Request) -> Step:
        """Return a call for a request that is one step of another call."""
        step = Step(request.operation, request.key, request.key_bytes, request.quiet, request.decode_value)
        step.extras, step.value, step.framing = request.extras, request.value, request.framing
        step.cas, step.deadline, step.keyspace = request.cas, call.deadline, call.keyspace
        return step
