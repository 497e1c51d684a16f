"""A node, as the dispatcher sees it."""

from __future__ import annotations

from typing import Protocol

from couchbase.protocol.call import Call
from couchbase.protocol.conversation import Conversation

__all__ = ["Peer", "takes_all"]


class Peer(Protocol):
    """A driver's node: its connection, reopened when lost, and the operations that wait for it."""

    last_error: BaseException | None
    """Why the last attempt to connect failed, or why the last connection was lost."""

    @property
    def name(self) -> str:
        """``host:port`` of the node's key-value service."""

    @property
    def conversation(self) -> Conversation | None:
        """The conversation with the node, if its handshake is done."""

    @property
    def open_conversation(self) -> Conversation | None:
        """The same, if the connection takes operations now."""

    def send(self, call: Call, vbucket: int) -> None:
        """Send an operation through the conversation, now or when there is one."""

    def take_waiting(self) -> list[Call]:
        """Remove the operations that wait for the connection, and return them."""


def takes_all(peer: Peer | None) -> Conversation | None:
    """Return the conversation of a node if every operation can be sent there as it is."""
    conversation = None if peer is None else peer.open_conversation
    return conversation if conversation is not None and conversation.takes_all else None
