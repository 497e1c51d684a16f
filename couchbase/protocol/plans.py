"""The steps of a plan: the requests of a flow to its driver.

A plan is a generator. It yields one of the steps below and is sent the result; the exception of a failed
step is thrown into the plan. Each flow (handshake, store-then-wait-for-durability) is thus written once, and
every driver runs it in its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Callable, NamedTuple, Optional

from couchbase.protocol.frames import Frame

Undo = Callable[[dict[str, Any], Frame], Optional[tuple[int, dict[str, Any]]]]


class RoundTrip(NamedTuple):
    """Send these encoded requests on this connection, in one write; the result is their answers.

    Each of ``requests`` is ``(opcode, keywords)`` for
    :func:`couchbase.protocol.frames.encode_request`; the driver chooses the opaques. The step
    yields one response frame for each, in order, whatever their statuses.
    """

    requests: Sequence[tuple[int, dict[str, Any]]]


class Ask(NamedTuple):
    """Send one request to each of several nodes; the result is a list of their answers, in order.

    ``questions`` are ``(server index, opcode, keywords)``. An answer is the response
    :class:`couchbase.protocol.frames.Frame`, or ``None`` if the node could not be asked or did not answer:
    one lost node must not fail the whole round. The step fails if no node answers, none is connected, and one
    has refused the connection: :func:`couchbase.protocol.peer.refusal_of`.
    """

    questions: Sequence[tuple[int, int, dict[str, Any]]]
    connect: bool = False
    """Whether to wait for a missing connection, within the timeout of an answer."""
    partial: int | None = None
    """The status of an answer that is a part of one: more follow, and their values are joined."""
    undo: Undo | None = None
    """Returns the request that undoes what was done, from the keywords of a question and an answer that the
    plan does not get: it came late, or the plan has ended. ``None`` if there is nothing to undo."""

    def listener(self, answered: Callable[[Frame | None], None]) -> Callable[[Frame | None], bool | None]:
        """Return the listener to one question, for :meth:`couchbase.protocol.conversation.Conversation.ask`.

        :param answered: called once with the complete answer, or with ``None``.
        """
        if self.partial is None:
            return answered
        parts: list[bytes] = []

        def take(frame: Frame | None) -> bool:
            if frame is not None:
                if frame.specific == self.partial:
                    parts.append(frame.value)
                    return True
                if parts:
                    frame = frame._replace(value=b"".join([*parts, frame.value]))
            answered(frame)
            return False

        return take

    def give_up(self, conversation: Any, number: int, fields: dict[str, Any]) -> None:
        """Take no answer to a question; what an answer says was done is undone.

        :param conversation: the :class:`couchbase.protocol.conversation.Conversation` that has the question.
        :param number: the question's number there.
        :param fields: its keywords.
        """
        if self.undo is None:
            conversation.forget(number)
        else:
            conversation.forget(number, partial(self._came_late, conversation, fields))

    def _came_late(self, conversation: Any, fields: dict[str, Any], frame: Frame | None) -> bool:
        if frame is None:
            return False
        if frame.specific == self.partial:
            return True
        self.revoke(conversation, fields, frame)
        return False

    def revoke(self, conversation: Any, fields: dict[str, Any], frame: Frame) -> None:
        """Undo what an answer says was done, as its plan has ended."""
        request = None if self.undo is None else self.undo(fields, frame)
        if request is not None:
            conversation.ask(request[0], _ignore, request[1])


def _ignore(frame: Frame | None) -> None:
    """Take the answer to a request that undoes another one."""


class Compute(NamedTuple):
    """Call a function that takes milliseconds, outside the event loop; the result is the function's
    result."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Pause(NamedTuple):
    """Wait for some seconds; the result is ``None``."""

    seconds: float
