"""Running operations: a request, and its progress.

A call is the request itself with a few more fields, so that an operation costs one object. The holder of a
call (a conversation, a queue) can drop it at any time; a finished call ignores everything that still arrives
for it."""

from __future__ import annotations

from typing import Any, Callable

from couchbase.protocol.request import Operation, Request


class Call(Request):
    """One running operation. Drivers subclass it to handle its end."""

    __slots__ = (
        "attempts",
        "deadline",
        "done",
        "ended",
        "following",
        "last_status",
        "opaque",
        "pending",
        "since",
    )

    deadline: float
    """Instant of the driver's clock at which the caller gives up."""
    opaque: int
    pending: dict[int, Call] | None
    """The table of the conversation that it was handed to, so that the server may carry it out; ``None``
    before, and again when that conversation is lost or the operation put off."""
    done: bool
    attempts: int
    """How often it was put off because of a temporary failure."""
    last_status: int
    """Status of the answer that put it off."""
    since: float
    """Instant of the first answer that only the server's error map explains; not set before."""
    following: Callable[[Call, Any], bool] | None
    """What happens between the answer and the caller (waiting for copies): called with the call and
    its result; true if it takes over. For drivers that wait in callbacks."""
    ended: Callable[[Call], None] | None
    """Told when the call is over, however it ends."""

    def __init__(
        self,
        operation: Operation,
        key: object,
        key_bytes: bytes,
        quiet: bool = False,
        decode_value: Callable[[bytes, int], Any] | None = None,
    ) -> None:
        # Without Request.__init__: every operation comes through here, and a call costs as much as these
        # lines.
        self.operation = operation
        self.key = key
        self.key_bytes = key_bytes
        self.extras = self.value = self.framing = b""
        self.cas = self.attempts = self.last_status = 0
        self.quiet = quiet
        self.decode_value = decode_value
        self.done = False
        self.replica = self.pending = self.following = self.ended = None

    def succeed(self, result: object) -> None:
        """End with a result."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        raise NotImplementedError

    def _end(self) -> None:
        self.done = True
        if self.ended is not None:
            self.ended(self)

    def leave(self) -> None:
        """Leave the table of the conversation that waits for the answer, which is ignored then."""
        pending = self.pending
        if pending is not None:
            # An answered call is no longer in the table; its number may even belong to another.
            if pending.get(self.opaque) is self:
                del pending[self.opaque]
            self.pending = None

    def abandon(self) -> None:
        """Cancel the call: its result is not wanted any more. A second call does nothing."""
        self.leave()
        if not self.done:
            self._end()

    def give_up(self, gone: Callable[[], None]) -> None:
        """Cancel the call, with a notification when nothing of it is in flight any more.

        :param gone: called once: immediately if it was not sent, else when its answer has come (and was
            dropped unread) or can no longer come. Until then the answers behind it have to wait.
        """
        if self.done:
            gone()
            return
        pending = self.pending
        was_sent = pending is not None and pending.get(self.opaque) is self
        if was_sent and pending is not None:
            heir = _GivenUp(self.operation, self.key, self.key_bytes)
            heir.gone, heir.deadline = gone, self.deadline
            heir.opaque, heir.pending = self.opaque, pending
            pending[self.opaque] = heir
            self.pending = None
        self._end()
        if not was_sent:
            gone()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.operation.name} {self.key!r}>"


class Step(Call):
    """A call that stores its outcome, for the owner to read when ``ended`` is called, or later."""

    __slots__ = ("error", "result")

    result: Any
    """What came of it, ``None`` if it failed."""
    error: BaseException | None

    def __init__(
        self,
        operation: Operation,
        key: object,
        key_bytes: bytes,
        quiet: bool = False,
        decode_value: Callable[[bytes, int], Any] | None = None,
    ) -> None:
        super().__init__(operation, key, key_bytes, quiet, decode_value)
        self.result = self.error = None

    def succeed(self, result: object) -> None:
        """Keep the result."""
        if not self.done:
            self.result = result
            self._end()

    def fail(self, error: BaseException) -> None:
        """Keep the error."""
        if not self.done:
            self.error = error
            self._end()


class _GivenUp(Call):
    """Replaces a cancelled call in the table."""

    __slots__ = ("gone",)

    gone: Callable[[], None]

    def succeed(self, result: object) -> None:
        """Drop the answer."""
        if not self.done:
            self.done = True
            self.gone()

    def fail(self, error: BaseException) -> None:
        """Drop the error."""
        self.succeed(None)
