"""``POST .../batch``: any number of operations in one request, answered in order as they finish.

Reading the body, running operations and writing answers all happen at the same time. The memory in between is
bounded: no more operations are started while the client reads slowly, and no more of the body is read while
the number of running operations is at its limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from couchbase.result import ValueResult
from gateway.batches.accounting import Account
from gateway.batches.answers import failure_line, success_steps
from gateway.batches.context import BatchContext
from gateway.batches.fastpath import FastSlot, Places, checked, fast_slot
from gateway.batches.lines import DenseLine, read_operation, reading, start
from gateway.batches.slot import Slot
from gateway.batches.splitter import BodySplitter, SplitError, TooLong, element_fault
from gateway.batches.writer import ARRAY, LINES, AnswerWriter
from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import LineCheck
from gateway.dialect.errors import describe, public_code
from gateway.dialect.places import DEFAULT_PLACE, Place
from gateway.fairness.steps import AT_ONCE_BYTES
from gateway.http.request import BodyStream
from gateway.http.response import BodySink
from gateway.operations.kind import Kind
from reactor.window import Window
from txcouchbase.connection import Connection

__all__ = ["AFTER", "Batch", "Phase"]

# An operation up to this size is read even if the memory of all requests is used up.
_SPARED_BYTES = 2**16


class Phase(Enum):
    """How far a batch has come."""

    READING = "reading"
    """More of the body may come."""
    ENDING = "ending"
    """The body is complete, or the rest of it is not read; operations are running or waiting."""
    OVER = "over"
    """Everything is answered, or the client is gone: no operation is running, and none will be started."""


AFTER: dict[Phase, frozenset[Phase]] = {
    Phase.READING: frozenset({Phase.ENDING, Phase.OVER}),
    Phase.ENDING: frozenset({Phase.OVER}),
    Phase.OVER: frozenset(),
}
"""Phase -> the phases that may follow."""


class Batch:
    """The operations of one request: takes the body, and produces the answer.

    :param connection: a leased connection; returned through ``on_end``.
    :param window: limit on bytes requested from the cluster, shared with all other users of the connection.
    :param form: content type of the answer; ``None`` to answer in the form of the body.
    :param on_form: called once with the answer's content type, when it is known.
    :param on_end: called once, when no operation is running and none will follow.
    :param place: the collection for operations that name none.
    """

    def __init__(
        self,
        connection: GatewayConnection,
        window: Window,
        context: BatchContext,
        form: bytes | None,
        on_form: Callable[[bytes], None],
        on_end: Callable[[], None],
        place: Place = DEFAULT_PLACE,
    ) -> None:
        self.phase = Phase.READING
        self._connection = connection
        self._window = window
        starts = connection.start if isinstance(connection, Connection) else None
        self._places = Places(connection.keyspace, place)
        self._clock, self._now, self._limits, self._budget = context[:4]
        self._steps, self._count_operation, self.log_bug, self._forms, self._line_check = context[4:]
        self._starts = starts
        if starts is not None:
            self._forms.follow(connection.timeout)
        self.check_with(self._line_check)
        self._on_form: Callable[[bytes], None] | None = on_form
        self._on_end = on_end
        self._stream: BodyStream | None = None
        self._splitter = BodySplitter(self._limits.max_line)
        self._waiting: deque[bytes | TooLong | SplitError] = deque()
        self._slots: deque[Slot | FastSlot] = deque()
        self._account = Account(self._limits.batch_bytes, self._budget, window)
        self._writer = AnswerWriter(self._slots, self._account, form)
        self._next_index = 0
        self._input_paused = False
        self._no_room = False
        self._turn: IDelayedCall | None = None
        self._counts: dict[tuple[str, str], int] = {}
        # Long texts that are processed in steps: answers, and the operation to be started next.
        self._long: set[Deferred[Any]] = set()
        self._is_reading = False

    def _move(self, phase: Phase) -> None:
        assert phase in AFTER[self.phase], f"a batch cannot go from {self.phase} to {phase}"
        self.phase = phase

    def check_with(self, check: LineCheck | None) -> None:
        """Set how the operations that are started from now on are checked."""
        starts, self._line_check = self._starts, check
        self._carry_out = starts if starts is None or check is None else checked(starts, check)

    def read(self, stream: BodyStream) -> None:
        """Begin to read the request's body."""
        self._stream = stream
        stream.deliver_to(self)

    # ---- the body --------------------------------------------------------------------------------

    def body_received(self, data: bytes) -> None:
        """Take a part of the body."""
        if self.phase is not Phase.READING:
            return
        splitter = self._splitter
        try:
            self._waiting.extend(splitter.feed(data))
        except SplitError as error:
            self._waiting.append(error)
            self._move(Phase.ENDING)
        if self._on_form is not None and splitter.is_array is not None:
            self._decide_form(ARRAY if splitter.is_array else LINES)
        self._charge()
        if self._budget.is_full and splitter.held > _SPARED_BYTES:
            # All requests together hold too much memory: the rest of this operation is not read.
            splitter.skip()
            self._no_room = True
        self._start_operations()

    def body_finished(self) -> None:
        """Note the end of the body."""
        if self.phase is not Phase.READING:
            return
        self._move(Phase.ENDING)
        try:
            self._waiting.extend(self._splitter.finish())
        except SplitError as error:
            self._waiting.append(error)
        if self._on_form is not None:
            self._decide_form(LINES)
        self._start_operations()
        self._soon()

    def body_lost(self) -> None:
        """Note that the client is gone."""
        self.cancel()

    def _decide_form(self, form: bytes) -> None:
        writer = self._writer
        writer.form = form = writer.form or form
        on_form, self._on_form = self._on_form, None
        if on_form is not None:
            on_form(form)

    # ---- the operations --------------------------------------------------------------------------

    def _start_operations(self) -> None:
        """Start waiting operations while there is room, and read more only when none waits."""
        waiting = self._waiting
        if waiting and self._may_start():
            if self._window.has_room:
                self._start_some()
            else:
                self._window.queue(self, self._has_turn)
        self._charge()
        stream = self._stream
        if stream is None:
            return
        if waiting or self._account.held >= self._limits.batch_bytes:
            if not self._input_paused and self.phase is Phase.READING:
                self._input_paused = True
                stream.pause()
        elif self._input_paused and self.phase is not Phase.OVER:
            self._input_paused = False
            stream.resume()

    def _may_start(self) -> bool:
        return self.phase is not Phase.OVER and not self._writer.is_paused

    def _has_turn(self) -> None:
        """Continue: there is room in the window again."""
        if self._waiting and self._may_start():
            self._start_some()
            self._charge()
            self._soon()

    def _start_some(self) -> None:
        """Start waiting operations while there is room for them here."""
        waiting = self._waiting
        account = self._account
        limits = self._limits
        most = limits.batch_bytes
        # This changes only when _charge() is called.
        is_full = self._budget.is_full
        while waiting and not self._is_reading:
            operations = account.operations
            if operations >= limits.batch_operations or (
                operations
                and (
                    is_full
                    or account.held >= most
                    or account.reads * account.value_bytes + account.ready >= most
                )
            ):
                break
            self._start(waiting.popleft())

    def _charge(self) -> None:
        self._account.settle(self._splitter.held)

    def _start(self, element: bytes | TooLong | SplitError) -> None:
        index = self._next_index
        self._next_index = index + 1
        if type(element) is bytes and len(element) > AT_ONCE_BYTES:
            self._start_long(index, element)
            return
        carry_out = self._carry_out
        if carry_out is not None and type(element) is bytes:
            fast = fast_slot(element, self._places, self._forms)
            if fast is not None:
                fast.batch = self
                fast.index = index
                self._account.hold(fast, len(element), fast.kind)
                self._slots.append(fast)
                try:
                    carry_out(fast, fast.form.seconds)
                except Exception as error:  # noqa: BLE001  # becomes the answer to this operation
                    fast.fail(error)
                return
        self._start_read(index, element)

    def _start_long(self, index: int, element: bytes) -> None:
        """Read a long operation in steps; those behind it wait, since they may have the same key."""
        slot = Slot(self, index)
        self._hold(slot, len(element), None)
        self._is_reading = True

        def read(_: Any) -> None:
            self._long.discard(reads)
            if self.phase is Phase.OVER:
                return
            self._is_reading = False
            kind = slot.operation.kind
            assert kind is not None
            if kind.is_read:
                self._account.expect(slot, self._account.value_bytes)
            self._carry_out_read(slot, kind)
            self._start_operations()

        def failed(failure: Failure) -> None:
            self._long.discard(reads)
            if self.phase is Phase.OVER:
                return
            self._is_reading = False
            kind = slot.operation.kind
            if kind is not None and kind.is_read:
                self._account.expect(slot, 0)
            slot.failed(failure)
            self._start_operations()

        reads = self._steps.run(reading(element, slot.operation))
        self._long.add(reads)
        reads.addCallbacks(read, failed)

    def _start_read(self, index: int, element: bytes | TooLong | SplitError) -> None:
        """Parse a whole operation of any form, and start it."""
        slot = Slot(self, index)
        operation = slot.operation
        held = len(element) if type(element) is bytes else 0
        try:
            if type(element) is not bytes:
                no_room, self._no_room = self._no_room, False
                raise element_fault(element, self._limits.max_line, no_room)
            read_operation(element, operation)
            kind = operation.kind
            assert kind is not None
        except DenseLine:
            assert type(element) is bytes
            self._start_long(index, element)
            return
        except Exception:  # noqa: BLE001  # becomes the answer to this operation
            self._hold(slot, held, operation.kind)
            slot.failed(Failure())
            return
        self._hold(slot, held, kind)
        self._carry_out_read(slot, kind)

    def _carry_out_read(self, slot: Slot, kind: Kind) -> None:
        try:
            slot.deferred = deferred = start(
                self._connection, slot.operation, self._now(), self._places.place, self._line_check
            )
        except Exception:  # noqa: BLE001  # as above
            slot.failed(Failure())
            return
        deferred.addCallbacks(slot.succeeded, slot.failed)

    def _hold(self, slot: Slot, held: int, kind: Kind | None) -> None:
        self._account.hold(slot, held, kind)
        self._slots.append(slot)

    def render_long(self, slot: Slot | FastSlot, key_json: bytes, kind: Kind, result: ValueResult) -> None:
        """Render the answer to an operation that has read a long value, in steps."""

        def rendered(answer: bytes) -> None:
            self._long.discard(rendering)
            slot.answer = answer
            self.slot_done(slot, len(answer), "ok")

        def failed(failure: Failure) -> None:
            self._long.discard(rendering)
            if self.phase is Phase.OVER:
                return
            assert failure.value is not None
            self.log_bug(failure)
            fault = describe(failure.value, kind.name)
            slot.answer = failure_line(slot.index, key_json, fault)
            self.slot_done(slot, len(slot.answer), public_code(fault.problem))

        # Running operations need not wait for this answer.
        if self._account.grow(len(result.value)):
            self._take_back()
        rendering = self._steps.run(success_steps(slot.index, key_json, kind, result))
        self._long.add(rendering)
        rendering.addCallbacks(rendered, failed)

    def slot_done(self, slot: Slot | FastSlot, answer_bytes: int, outcome: str) -> None:
        """Note that a slot's answer is ready."""
        kind = slot.kind
        if kind is None:
            counted = ("batch", outcome)
            is_read = False
        else:
            counted = kind.success if outcome == "ok" else (kind.name, outcome)
            is_read = kind.is_read
        if self._account.answered(slot, answer_bytes, is_read=is_read):
            self._take_back()
        counts = self._counts
        counts[counted] = counts.get(counted, 0) + 1
        if self._turn is None:
            self._soon()

    def _take_back(self) -> None:
        """Cancel the last reads, to repeat them later: documents proved to be larger than estimated.

        Only reads at the end, with nothing started behind them, so that the order of operations stays.
        """
        slots = self._slots
        while len(slots) > 1 and self._account.is_over:
            slot = slots[-1]
            if type(slot) is not FastSlot or slot.done or not slot.form.is_get:
                break
            slots.pop()
            self._account.take_back(slot)
            self._next_index -= 1
            place = self._places.members(slot.keyspace)
            self._waiting.appendleft(b'{"op":"get",%b"key":%b}' % (place, slot.key_json))

    # ---- the answer ------------------------------------------------------------------------------

    def start(self, sink: BodySink) -> None:
        """Begin to write the answers."""
        self._writer.start(sink)
        self._soon()

    def pause(self) -> None:
        """Stop writing answers and starting operations: the client reads slowly."""
        self._writer.is_paused = True

    def resume(self) -> None:
        """Continue: the client has caught up."""
        self._writer.is_paused = False
        self._soon()

    def cancel(self) -> None:
        """Cancel all operations: the client is gone."""
        if self.phase is Phase.OVER:
            return
        self._move(Phase.OVER)
        self._waiting.clear()
        for work in list(self._long):
            work.cancel()
        for slot in list(self._slots):
            if slot.answer is None:
                self._account.give_up(slot)
        self._slots.clear()
        self._writer.drop()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._end()

    def _soon(self) -> None:
        """Write all answers of this reactor turn at once."""
        if self._turn is None and self.phase is not Phase.OVER:
            self._turn = self._clock.callLater(0, self._advance)

    def _advance(self) -> None:
        self._turn = None
        writer = self._writer
        if not writer.can_write or self.phase is Phase.OVER:
            return
        if not writer.is_paused and writer.write():
            self._count()
        self._start_operations()
        is_empty = not (self._slots or self._waiting) and writer.is_idle
        if self.phase is Phase.ENDING and is_empty and self._turn is None:
            self._finish()

    def _count(self) -> None:
        counts, self._counts = self._counts, {}
        for (name, outcome), count in counts.items():
            self._count_operation(name, outcome, count)

    def _finish(self) -> None:
        self._move(Phase.OVER)
        self._writer.finish()
        self._end()
        self._writer.close()

    def _end(self) -> None:
        self._window.leave(self)
        self._account.close()
        self._on_end()
