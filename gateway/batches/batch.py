"""``POST .../batch``: any number of operations in one request, answered in order as they finish.

Reading the body, running operations and writing answers all happen at the same time. The memory in between is
bounded: with a slow reader no more operations are started, and when the limit of running operations is
reached, no more of the body is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gateway.batches.answers import failure_line, success_line, success_steps
from gateway.batches.direct import DirectSlot, direct_slot
from gateway.batches.lines import Operation, read_operation, reading, start
from gateway.batches.splitter import BodySplitter, SplitError, TooLong
from gateway.cluster.connection import GatewayConnection
from gateway.dialect.errors import Refusal, bad_request, describe, public_code
from gateway.fairness.steps import AT_ONCE_BYTES, StepRunner
from gateway.http.exchange import SLICED_BYTES
from gateway.http.limits import Budget
from gateway.http.request import BodyStream
from gateway.http.response import BodySink
from gateway.limits import Limits
from gateway.operations.kind import Kind
from gateway.operations.shown import LongValue
from reactor.window import Window
from txcouchbase.connection import Connection

__all__ = ["ARRAY", "LINES", "Batch", "CountOperation"]

LINES = b"application/x-ndjson"
ARRAY = b"application/json"

CountOperation = Callable[[str, str, int], None]

# Reads that are started while the size of the documents is unknown; the first answer decides how many more
# may follow.
_FIRST_READS = 4

# An operation up to this size is read even when there is no room left.
_SPARED_BYTES = 2**16


class _Slot:
    """One operation, from its text to its answer."""

    __slots__ = ("answer", "batch", "deferred", "held", "index", "operation")

    def __init__(self, batch: Batch, index: int) -> None:
        self.batch = batch
        self.index = index
        self.held = 0
        self.operation = Operation()
        self.answer: bytes | None = None
        self.deferred: Deferred[Any] | None = None

    @property
    def kind(self) -> Kind | None:
        return self.operation.kind

    def cancel(self, gone: Callable[[], None]) -> None:
        if self.deferred is not None:
            self.deferred.cancel()
        gone()

    def succeeded(self, result: object) -> None:
        operation = self.operation
        assert operation.kind is not None
        self.deferred = None
        try:
            self.answer = answer = success_line(self.index, operation.key_json, operation.kind, result)
        except LongValue:
            self.batch.render_long(self, operation.key_json, operation.kind, result)
            return
        except Exception:  # noqa: BLE001  # becomes the 500 of this operation, and is logged
            self.failed(Failure())
            return
        self.batch.slot_done(self, len(answer), "ok")

    def failed(self, failure: Failure) -> None:
        self.deferred = None
        batch = self.batch
        operation = self.operation
        error = failure.value
        assert error is not None
        fault = describe(error, operation.name, cas_given=operation.cas_given, durable=operation.durable)
        if fault.is_bug:
            batch.log_bug(failure)
        self.answer = failure_line(self.index, operation.key_json, fault)
        batch.slot_done(self, len(self.answer), public_code(fault.problem))


class Batch:
    """One request's operations: takes the body, and produces the answer.

    :param connection: leased; returned through ``on_end``.
    :param window: limit on bytes requested from the cluster, shared with all other users of the connection.
    :param steps: processes long texts.
    :param form: content type of the answer; ``None`` to answer in the form of the body.
    :param on_form: called once, with the content type, when it is known.
    :param on_end: called once, when no operation is running and none will follow.
    """

    def __init__(
        self,
        connection: GatewayConnection,
        window: Window,
        clock: IReactorTime,
        now: Callable[[], float],
        limits: Limits,
        budget: Budget,
        steps: StepRunner,
        count_operation: CountOperation,
        log_bug: Callable[[Failure], None],
        form: bytes | None,
        on_form: Callable[[bytes], None],
        on_end: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._window = window
        self._carry_out = connection.start if isinstance(connection, Connection) else None
        self._clock = clock
        self._now = now
        self._limits = limits
        self._budget = budget
        self._steps = steps
        self._count_operation = count_operation
        self.log_bug = log_bug
        self._form = form
        self._on_form: Callable[[bytes], None] | None = on_form
        self._on_end: Callable[[], None] | None = on_end
        self._stream: Any = None
        self._sink: BodySink | None = None
        self._splitter = BodySplitter(limits.max_line)
        self._waiting: deque[bytes | TooLong | SplitError] = deque()
        self._slots: deque[_Slot | DirectSlot] = deque()
        self._next_index = 0
        self._held = 0
        self._charged = 0
        # Bytes of finished answers; running reads, and the bytes estimated for each.
        self._ready = 0
        self._reads = 0
        self._value_bytes = limits.batch_bytes // _FIRST_READS
        self._knows_size = False
        # The bytes reserved in the window.
        self._taken = 0
        self._input_paused = False
        self._output_paused = False
        self._body_ended = False
        self._no_room = False
        self._cancelled = False
        self._finished = False
        self._turn: Any = None
        self._written_any = False
        self._counts: dict[tuple[str, str], int] = {}
        # Long texts that are processed in steps: answers, and the operation to be started next.
        self._long: set[Deferred[Any]] = set()
        self._is_reading = False
        # The rest of large answers that are being written.
        self._pieces: deque[memoryview] = deque()

    def read(self, stream: BodyStream) -> None:
        """Begin to read the request's body."""
        self._stream = stream
        stream.deliver_to(self)

    # ---- the body --------------------------------------------------------------------------------

    def body_received(self, data: bytes) -> None:
        """Take a part of the body."""
        if self._body_ended or self._cancelled:
            return
        splitter = self._splitter
        try:
            self._waiting.extend(splitter.feed(data))
        except SplitError as error:
            self._stop_reading(error)
        if self._on_form is not None and splitter.is_array is not None:
            self._decide_form(ARRAY if splitter.is_array else LINES)
        self._charge()
        if self._budget.is_full and splitter.held > _SPARED_BYTES:
            # All requests together hold too much memory: this operation is not even read to its end.
            splitter.skip()
            self._no_room = True
        self._start_operations()

    def body_finished(self) -> None:
        """Note the end of the body."""
        if self._body_ended or self._cancelled:
            return
        self._body_ended = True
        try:
            self._waiting.extend(self._splitter.finish())
        except SplitError as error:
            self._stop_reading(error)
        if self._on_form is not None:
            self._decide_form(LINES)
        self._start_operations()
        self._soon()

    def body_lost(self) -> None:
        """The client is gone."""
        self.cancel()

    def _stop_reading(self, error: SplitError) -> None:
        self._waiting.append(error)
        self._body_ended = True

    def _decide_form(self, form: bytes) -> None:
        self._form = self._form or form
        on_form, self._on_form = self._on_form, None
        if on_form is not None:
            on_form(self._form)

    # ---- the operations --------------------------------------------------------------------------

    def _start_operations(self) -> None:
        """Start waiting operations while there is room, and read more only when none waits."""
        waiting = self._waiting
        if waiting and not self._output_paused and not self._cancelled:
            if self._window.has_room:
                self._start_some()
            else:
                self._window.queue(self, self._has_turn)
        self._charge()
        if waiting or self._held >= self._limits.batch_bytes:
            if not self._input_paused and not self._body_ended:
                self._input_paused = True
                self._stream.pause()
        elif self._input_paused and not self._cancelled:
            self._input_paused = False
            self._stream.resume()

    def _has_turn(self) -> None:
        """Continue: there is room in the window again."""
        if self._waiting and not self._output_paused and not self._cancelled:
            self._start_some()
            self._charge()
            self._soon()

    def _start_some(self) -> None:
        """Start waiting operations while there is room for them here."""
        waiting = self._waiting
        slots = self._slots
        limits = self._limits
        most = limits.batch_bytes
        # It changes only when _charge() is called.
        is_full = self._budget.is_full
        while waiting and not self._is_reading:
            if len(slots) >= limits.batch_operations or (
                slots
                and (is_full or self._held >= most or self._reads * self._value_bytes + self._ready >= most)
            ):
                break
            self._start(waiting.popleft())

    def _charge(self) -> None:
        held = self._held + self._splitter.held
        self._budget.adjust(held - self._charged)
        self._charged = held
        taken = max(self._held - self._ready, self._reads * self._value_bytes)
        if taken != self._taken:
            # Set first: this call may begin operations of this batch, too.
            more, self._taken = taken - self._taken, taken
            self._window.adjust(more)

    def _start(self, element: bytes | TooLong | SplitError) -> None:
        index = self._next_index
        self._next_index = index + 1
        if type(element) is bytes and len(element) > AT_ONCE_BYTES:
            self._start_long(index, element)
            return
        carry_out = self._carry_out
        if carry_out is not None and type(element) is bytes:
            direct = direct_slot(element)
            if direct is not None:
                direct.batch = self
                direct.index = index
                self._hold(direct, len(element), direct.kind)
                try:
                    carry_out(direct)
                except Exception as error:  # noqa: BLE001  # becomes the answer to this operation
                    direct.fail(error)
                return
        self._start_read(index, element)

    def _start_long(self, index: int, element: bytes) -> None:
        """Read a long operation in steps; those behind it wait, since they may have the same key."""
        slot = _Slot(self, index)
        self._hold(slot, len(element), None)
        self._is_reading = True

        def read(_: Any) -> None:
            self._long.discard(reads)
            if self._cancelled:
                return
            self._is_reading = False
            kind = slot.operation.kind
            assert kind is not None
            if kind.is_read:
                self._reads += 1
                self._held += self._value_bytes
                slot.held += self._value_bytes
            self._carry_out_read(slot, kind)
            self._start_operations()

        def failed(failure: Failure) -> None:
            self._long.discard(reads)
            if self._cancelled:
                return
            self._is_reading = False
            kind = slot.operation.kind
            if kind is not None and kind.is_read:
                self._reads += 1
            slot.failed(failure)
            self._start_operations()

        reads = self._steps.run(reading(element, slot.operation))
        self._long.add(reads)
        reads.addCallbacks(read, failed)

    def _start_read(self, index: int, element: bytes | TooLong | SplitError) -> None:
        """Start an operation of any form after reading all of it."""
        slot = _Slot(self, index)
        operation = slot.operation
        held = len(element) if type(element) is bytes else 0
        try:
            if type(element) is not bytes:
                no_room, self._no_room = self._no_room, False
                raise _element_fault(element, self._limits.max_line, no_room)
            read_operation(element, operation)
            kind = operation.kind
            assert kind is not None
        except Exception:  # noqa: BLE001  # becomes the answer to this operation
            self._hold(slot, held, operation.kind)
            slot.failed(Failure())
            return
        self._hold(slot, held, kind)
        self._carry_out_read(slot, kind)

    def _carry_out_read(self, slot: _Slot, kind: Kind) -> None:
        try:
            slot.deferred = deferred = start(self._connection, slot.operation, self._now())
        except Exception:  # noqa: BLE001  # as above
            slot.failed(Failure())
            return
        deferred.addCallbacks(slot.succeeded, slot.failed)

    def _hold(self, slot: _Slot | DirectSlot, held: int, kind: Kind | None) -> None:
        if kind is not None and kind.is_read:
            # Use the size of earlier documents as the estimate, until this one arrives.
            held += self._value_bytes
            self._reads += 1
        slot.held = held
        self._held += held
        self._slots.append(slot)

    def render_long(self, slot: _Slot | DirectSlot, key_json: bytes, kind: Kind, result: Any) -> None:
        """Render the answer to an operation that has read a long value, in steps."""

        def rendered(answer: bytes) -> None:
            self._long.discard(rendering)
            slot.answer = answer
            self.slot_done(slot, len(answer), "ok")

        def failed(failure: Failure) -> None:
            self._long.discard(rendering)
            if self._cancelled:
                return
            assert failure.value is not None
            self.log_bug(failure)
            fault = describe(failure.value, kind.name)
            slot.answer = failure_line(slot.index, key_json, fault)
            self.slot_done(slot, len(slot.answer), public_code(fault.problem))

        if len(result.value) > self._value_bytes:
            # Running operations need not wait for this answer.
            self._grow(len(result.value))
        rendering = self._steps.run(success_steps(slot.index, key_json, kind, result))
        self._long.add(rendering)
        rendering.addCallbacks(rendered, failed)

    def slot_done(self, slot: _Slot | DirectSlot, answer_bytes: int, outcome: str) -> None:
        """Note that a slot has its answer."""
        kind = slot.kind
        if kind is None:
            counted = ("batch", outcome)
        else:
            counted = kind.success if outcome == "ok" else (kind.name, outcome)
            if kind.is_read:
                self._reads -= 1
                # The estimate grows at once and shrinks slowly: sixteen small documents outweigh a large one.
                known = self._value_bytes
                if answer_bytes > known:
                    self._grow(answer_bytes)
                elif self._knows_size:
                    self._value_bytes = known - (known - answer_bytes) // 16
                else:
                    self._value_bytes, self._knows_size = answer_bytes, True
        counts = self._counts
        counts[counted] = counts.get(counted, 0) + 1
        self._held += answer_bytes - slot.held
        self._ready += answer_bytes
        slot.held = answer_bytes
        if self._turn is None:
            self._soon()

    def _grow(self, size: int) -> None:
        """Raise the estimate: a document proved to be that large."""
        self._value_bytes = size
        if self._reads * size > self._limits.batch_bytes:
            self._take_back()

    def _take_back(self) -> None:
        """Cancel the last reads, to repeat them later: documents proved to be larger than estimated.

        Only reads at the end, with nothing started behind them, so that the order of operations stays.
        """
        slots = self._slots
        while len(slots) > 1 and self._reads * self._value_bytes > self._limits.batch_bytes:
            slot = slots[-1]
            if type(slot) is not DirectSlot or slot.done or not slot.kind.is_read:
                break
            slots.pop()
            self._give_up(slot)
            self._held -= slot.held
            self._reads -= 1
            self._next_index -= 1
            self._waiting.appendleft(b'{"op":"get","key":%b}' % slot.key_json)

    def _give_up(self, slot: _Slot | DirectSlot) -> None:
        """Cancel an operation; a sent one keeps its place in the window until its answer has come."""
        size = self._value_bytes
        self._window.adjust(size)
        slot.cancel(lambda: self._window.adjust(-size))

    # ---- the answer ------------------------------------------------------------------------------

    def start(self, sink: BodySink) -> None:
        """Begin to write the answers."""
        self._sink = sink
        self._soon()

    def pause(self) -> None:
        """Stop writing answers and starting operations: the client reads slowly."""
        self._output_paused = True

    def resume(self) -> None:
        """Continue: the client has caught up."""
        self._output_paused = False
        self._soon()

    def cancel(self) -> None:
        """Cancel all operations: the client is gone."""
        if self._cancelled or self._finished:
            return
        self._cancelled = True
        self._waiting.clear()
        for work in list(self._long):
            work.cancel()
        for slot in list(self._slots):
            if slot.answer is None:
                self._give_up(slot)
        self._slots.clear()
        self._pieces.clear()
        self._held = self._ready = self._reads = 0
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._end()

    def _soon(self) -> None:
        """Write all answers of this reactor turn at once."""
        if self._turn is None and not self._cancelled and not self._finished:
            self._turn = self._clock.callLater(0, self._advance)

    def _advance(self) -> None:
        self._turn = None
        sink = self._sink
        if sink is None or self._cancelled:
            return
        if not self._output_paused:
            self._write(sink)
        self._start_operations()
        if self._body_ended and not (self._slots or self._pieces or self._waiting) and self._turn is None:
            self._finish(sink)

    def _write(self, sink: BodySink) -> None:
        if not self._write_pieces(sink):
            return
        slots = self._slots
        answers: list[bytes] = []
        held = 0
        while slots and (answer := slots[0].answer) is not None:
            slot = slots.popleft()
            held += slot.held
            if slot.held < SLICED_BYTES:
                answers.append(answer)
                continue
            if answers:
                self._write_answers(sink, answers)
                answers = []
            pieces = self._pieces
            if self._form == ARRAY:
                pieces.append(memoryview(b",\n" if self._written_any else b"[\n"))
            pieces.append(memoryview(answer))
            if self._form != ARRAY:
                pieces.append(memoryview(b"\n"))
            self._written_any = True
            if not self._write_pieces(sink):
                break
        self._held -= held
        self._ready -= held
        if answers:
            self._write_answers(sink, answers)
        counts, self._counts = self._counts, {}
        for (name, outcome), count in counts.items():
            self._count_operation(name, outcome, count)

    def _write_answers(self, sink: BodySink, answers: list[bytes]) -> None:
        if self._form == ARRAY:
            start = b",\n" if self._written_any else b"[\n"
            sink.write(start + b",\n".join(answers))
        else:
            answers.append(b"")
            sink.write(b"\n".join(answers))
        self._written_any = True

    def _write_pieces(self, sink: BodySink) -> bool:
        """Write the rest of large answers while the client reads; return whether that was all."""
        pieces = self._pieces
        while pieces and not self._output_paused:
            piece = pieces.popleft()
            if len(piece) > SLICED_BYTES:
                pieces.appendleft(piece[SLICED_BYTES:])
                piece = piece[:SLICED_BYTES]
            sink.write(bytes(piece))
        return not pieces

    def _finish(self, sink: BodySink) -> None:
        self._finished = True
        if self._form == ARRAY:
            sink.write(b"\n]\n" if self._written_any else b"[]\n")
        self._end()
        sink.finish()

    def _end(self) -> None:
        self._budget.adjust(-self._charged)
        self._charged = 0
        self._window.leave(self)
        self._window.adjust(-self._taken)
        self._taken = 0
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()


def _element_fault(element: bytes | TooLong | SplitError, limit: int, no_room: bool) -> Exception:
    if isinstance(element, SplitError):
        return bad_request(f"{element}; nothing after this is read")
    assert isinstance(element, TooLong)
    if no_room and element.length <= limit:
        return Refusal("Overloaded")
    return bad_request(f"the operation has more than {limit} bytes")
