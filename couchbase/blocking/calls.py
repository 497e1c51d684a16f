"""Operations under way in a blocking call."""

from __future__ import annotations

from typing import Any, Callable

from couchbase.protocol.operations import Operation, Request


class Batch:
    """Counts the calls that somebody waits for."""

    __slots__ = ("remaining",)

    def __init__(self, remaining: int) -> None:
        self.remaining = remaining


class Call(Request):
    """One operation under way. A finished call ignores everything that still arrives for it."""

    __slots__ = (
        "attempts",
        "batch",
        "done",
        "ended",
        "error",
        "last_status",
        "opaque",
        "pending",
        "result",
    )

    batch: Batch
    """The calls that it is waited for with."""
    opaque: int
    pending: dict[int, Call] | None
    """The table of the connection that it was handed to, so that the server may carry it out; ``None``
    before, and again when that connection is lost or the operation put off."""
    done: bool
    result: Any
    """What came of it, ``None`` if it failed."""
    error: Exception | None
    attempts: int
    """How often it was put off because of a temporary failure."""
    last_status: int
    """Status of the answer that put it off."""
    ended: Callable[[Call], None] | None
    """Told when the call is over, however it ends."""

    def __init__(
        self,
        operation: Operation,
        key: Any,
        key_bytes: bytes,
        quiet: bool = False,
        decode_value: Callable[[bytes, int], Any] | None = None,
    ) -> None:
        # Request.__init__, by hand: every operation comes through here.
        self.operation = operation
        self.key = key
        self.key_bytes = key_bytes
        self.extras = self.value = self.framing = b""
        self.cas = self.attempts = self.last_status = 0
        self.quiet = quiet
        self.decode_value = decode_value
        self.done = False
        self.replica = self.pending = self.ended = self.result = self.error = None

    def succeed(self, result: Any) -> None:
        """End with a result."""
        if not self.done:
            self.done = True
            self.result = result
            self.batch.remaining -= 1
            if self.ended is not None:
                self.ended(self)

    def fail(self, error: Exception) -> None:
        """End with an error."""
        if not self.done:
            self.done = True
            self.error = error
            self.batch.remaining -= 1
            if self.ended is not None:
                self.ended(self)

    def leave(self) -> None:
        """Leave the table of the connection that waits for the answer, which is ignored then."""
        pending = self.pending
        if pending is not None:
            # Once answered it is not there any more; its number may even be another's.
            if pending.get(self.opaque) is self:
                del pending[self.opaque]
            self.pending = None

    def another(self) -> Call:
        """Return a fresh call for the same request."""
        copy = Call(self.operation, self.key, self.key_bytes)
        copy.extras, copy.value, copy.framing, copy.cas = self.extras, self.value, self.framing, self.cas
        copy.quiet, copy.decode_value, copy.replica = self.quiet, self.decode_value, self.replica
        return copy

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.operation.name} {self.key!r}>"
