"""Running operations: a request, and its progress.

A call is the request itself with a few more fields, so that an operation costs one object. The holder of a
call (a conversation, a queue) can drop it at any time; a finished call ignores later answers."""

from __future__ import annotations

from typing import Any, Callable

from couchbase.protocol.constants import Magic
from couchbase.protocol.frames import HEADER, Frame
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace
from couchbase.protocol.request import Operation, Request

_REQUEST = int(Magic.REQUEST)
_ALT_REQUEST = int(Magic.ALT_REQUEST)
_pack = HEADER.pack


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
    """Time of the driver's clock at which the operation times out."""
    opaque: int
    pending: dict[int, Call] | None
    """The table of the conversation that the call was passed to; from then on the server may execute it.
    ``None`` before that, and again when that conversation is lost or the operation is postponed."""
    done: bool
    attempts: int
    """Number of times that it was postponed because of a temporary failure."""
    last_status: int
    """Status of the answer because of which it was postponed."""
    since: float
    """Time of the first answer that only the server's error map explains; not set until then."""
    following: Callable[[Call, Any], bool] | None
    """Hook between the answer and the caller (to wait for copies): called with the call and its result;
    returns true if it takes over the call. For drivers that wait in callbacks."""
    takes_frames = False
    """Whether :meth:`take` handles every answer except plain successes."""
    ended: Callable[[Call], None] | None
    """Notified when the call is over, however it ends."""

    def __init__(
        self,
        operation: Operation,
        key: object,
        key_bytes: bytes,
        quiet: int = False,
        decode_value: Callable[[bytes, int], Any] | None = None,
        keyspace: Keyspace = DEFAULT_KEYSPACE,
    ) -> None:
        # Request.__init__ is inlined: every operation is created here, and the call would double the cost.
        self.operation = operation
        self.key = key
        self.key_bytes = key_bytes
        self.keyspace = keyspace
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

    def take(self, frame: Frame) -> None:
        """Handle an answer that is no plain success; see :attr:`takes_frames`."""
        raise NotImplementedError

    def enter(self, conversation: Any, prefix: bytes, vbucket: int) -> bytes:
        """Join the operations of a conversation that wait for answers, with the next number.

        :param prefix: prefix of the key on this connection: the id of its collection, or nothing.
        :returns: the bytes before the value: header, framing extras, extras and key. The value is not copied;
            send it right after them.
        """
        conversation.opaque = self.opaque = opaque = (conversation.opaque + 1) & 0xFFFFFFFF
        self.pending = pending = conversation.pending
        pending[opaque] = self
        self.vbucket = vbucket
        key, extras, framing, code = prefix + self.key_bytes, self.extras, self.framing, self.operation.opcode
        size, more = len(key), len(extras)
        body = size + more + len(self.value)
        if not framing:
            return _pack(_REQUEST, code, size, more, 0, vbucket, body, opaque, self.cas) + extras + key
        size |= len(framing) << 8
        body += len(framing)
        head = _pack(_ALT_REQUEST, code, size, more, 0, vbucket, body, opaque, self.cas)
        return head + framing + extras + key

    def leave(self) -> None:
        """Remove the call from its conversation's table; its answer is ignored from then on."""
        pending = self.pending
        if pending is not None:
            # An answered call is no longer in the table; its number may belong to another call already.
            if pending.get(self.opaque) is self:
                del pending[self.opaque]
            self.pending = None

    def abandon(self) -> None:
        """Cancel the call: its result is no longer wanted. A second cancellation does nothing."""
        self.leave()
        if not self.done:
            self._end()

    def give_up(self, gone: Callable[[], None]) -> None:
        """Cancel the call, with a notification when it is no longer in flight.

        :param gone: called once: immediately if the call was not sent, otherwise when its answer has arrived
            (and was dropped unread) or can no longer arrive. Until then, later answers have to wait.
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
    """The result, ``None`` if it failed."""
    error: BaseException | None

    def __init__(
        self,
        operation: Operation,
        key: object,
        key_bytes: bytes,
        quiet: int = False,
        decode_value: Callable[[bytes, int], Any] | None = None,
        keyspace: Keyspace = DEFAULT_KEYSPACE,
    ) -> None:
        super().__init__(operation, key, key_bytes, quiet, decode_value, keyspace)
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
