"""The driver's own requests, to a node that may have no connection yet."""

from __future__ import annotations

from typing import Any

from couchbase.protocol.conversation import Conversation, Listener
from couchbase.protocol.plans import Ask


class Question:
    """One of the driver's own requests, sent now or once there is a connection."""

    __slots__ = ("_conversation", "_number", "_opcode_and_fields", "listener")

    def __init__(self, opcode: int, listener: Listener, fields: dict[str, Any]) -> None:
        self.listener: Listener | None = listener
        self._opcode_and_fields = opcode, fields
        self._conversation: Conversation | None = None
        self._number = 0

    def put(self, conversation: Conversation) -> None:
        """Send the request, unless it was forgotten."""
        if self.listener is not None:
            self._conversation = conversation
            opcode, fields = self._opcode_and_fields
            self._number = conversation.ask(opcode, self.listener, fields)

    def forget(self, step: Ask | None = None) -> None:
        """Stop listening for answers.

        :param step: the step of a plan that has asked.
        """
        self.listener = None
        if self._conversation is None:
            return
        if step is None:
            self._conversation.forget(self._number)
        else:
            step.give_up(self._conversation, self._number, self._opcode_and_fields[1])

    def lose(self) -> None:
        """Report that no connection can be opened."""
        if self.listener is not None:
            self.listener(None)
