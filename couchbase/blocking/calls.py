"""The running operations of a blocking call."""

from __future__ import annotations

from couchbase.protocol.call import Step


class WaitGroup:
    """Counts the calls that a blocking method waits for."""

    __slots__ = ("remaining",)

    def __init__(self, remaining: int) -> None:
        self.remaining = remaining


class BlockingCall(Step):
    """One running operation, which keeps its outcome."""

    __slots__ = ("group",)

    group: WaitGroup
    """The group that waits for this call."""

    def succeed(self, result: object) -> None:
        """End with a result."""
        if not self.done:
            self.done = True
            self.result = result
            self.group.remaining -= 1
            if self.ended is not None:
                self.ended(self)

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        if not self.done:
            self.done = True
            self.error = error
            self.group.remaining -= 1
            if self.ended is not None:
                self.ended(self)

    def another(self) -> BlockingCall:
        """Return a new call for the same request."""
        copy = BlockingCall(self.operation, self.key, self.key_bytes)
        copy.extras, copy.value, copy.framing, copy.cas = self.extras, self.value, self.framing, self.cas
        copy.quiet, copy.decode_value, copy.replica = self.quiet, self.decode_value, self.replica
        copy.keyspace = self.keyspace
        if hasattr(self, "specs"):
            copy.specs = self.specs
        return copy
