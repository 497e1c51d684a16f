"""The running operations of a blocking call."""

from __future__ import annotations

from typing import Any

from couchbase.protocol.call import Call, Step


class WaitGroup:
    """Counts the calls that a blocking method waits for."""

    __slots__ = ("remaining",)

    def __init__(self, remaining: int) -> None:
        self.remaining = remaining


LEAST_PURGED = 1024
"""Length of a queue from which abandoned operations are removed; then each time it has doubled."""


class WaitingCalls(list["BlockingCall"]):
    """The operations that wait for a connection."""

    def __init__(self) -> None:
        super().__init__()
        self._purge_at = LEAST_PURGED

    def add(self, call: Any) -> None:
        """Add an operation, after removing abandoned ones if there are many."""
        if len(self) >= self._purge_at:
            # Callers wait for their open operations, so their own memory is the limit. Abandoned operations
            # (of a killed greenlet) have no caller.
            self[:] = [one for one in self if not one.done]
            self._purge_at = max(LEAST_PURGED, 2 * len(self))
        self.append(call)

    def take(self) -> list[Any]:
        """Remove all; returns those that are not over."""
        waiting = [call for call in self if not call.done]
        self.clear()
        return waiting


class BlockingCall(Step):
    """One running operation, which keeps its outcome: ``result`` and ``error`` are set when it ends."""

    __slots__ = ("group",)

    group: WaitGroup
    """The group that waits for this call; set when it is given to the loop."""

    # Step's own sets what the end sets, too, and would cost each operation a third of a call's construction.
    __init__ = Call.__init__

    def succeed(self, result: object) -> None:
        """End with a result."""
        if not self.done:
            self.done = True
            self.result = result
            self.error = None
            self.group.remaining -= 1
            if self.ended is not None:
                self.ended(self)

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        if not self.done:
            self.done = True
            self.result = None
            self.error = error
            self.group.remaining -= 1
            if self.ended is not None:
                self.ended(self)

    def another(self) -> BlockingCall:
        """Return a new call for the same request."""
        copy = type(self)(self.operation, self.key, self.key_bytes)
        copy.extras, copy.value, copy.framing, copy.cas = self.extras, self.value, self.framing, self.cas
        copy.quiet, copy.decode_value, copy.replica = self.quiet, self.decode_value, self.replica
        copy.keyspace = self.keyspace
        if hasattr(self, "specs"):
            copy.specs = self.specs
        return copy
