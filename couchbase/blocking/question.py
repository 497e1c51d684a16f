"""The driver's own requests, to a node that may have no connection yet."""

from __future__ import annotations

from typing import Any

from couchbase.protocol.conversation import Conversation, Listener


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

    def forget(self) -> None:
        """Stop listening for answers."""
        self.listener = None
        if self._conversation is not None:
            self._conversation.forget(self._number)

    def lose(self) -> None:
        """Report that no connection can be opened."""
        if self.listener is not None:
            self.listener(None)
