"""A batch operation that needs the general parser, from its text to its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gateway.batches.answers import failure_line, success_line
from gateway.batches.fastpath import SlotOwner
from gateway.batches.lines import LineOperation
from gateway.dialect.errors import describe, public_code
from gateway.operations.kind import Kind
from gateway.operations.lineresults import LongValue

__all__ = ["Slot"]


class Slot:
    """One operation, from its text to its answer."""

    __slots__ = ("answer", "batch", "deferred", "held", "index", "operation")

    def __init__(self, batch: SlotOwner, index: int) -> None:
        self.batch = batch
        self.index = index
        self.held = 0
        self.operation = LineOperation()
        self.answer: bytes | None = None
        self.deferred: Deferred[Any] | None = None

    @property
    def kind(self) -> Kind | None:
        """The row of the operation, ``None`` until its name is known."""
        return self.operation.kind

    def cancel(self, gone: Callable[[], None]) -> None:
        """Cancel the operation; there will be no answer."""
        if self.deferred is not None:
            self.deferred.cancel()
        gone()

    def succeeded(self, result: object) -> None:
        """Render the answer for a result."""
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
        """Render the answer for an error."""
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
