"""A node, as the dispatcher sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from couchbase.exceptions import AuthError, BucketNotFoundError, CouchbaseError, error_of
from couchbase.protocol.call import Call
from couchbase.protocol.conversation import Conversation

__all__ = ["REFUSALS", "Peer", "refusal_of", "takes_all"]

REFUSALS = (AuthError, BucketNotFoundError)
"""Errors of a handshake that end the operations that wait for the connection."""


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


def refusal_of(peers: Iterable[Peer | None]) -> CouchbaseError | None:
    """Return the error of requests that no node has answered, if a node has refused the connection: the
    bucket was deleted, or the user. ``None`` if any node is connected, as it may know a newer map.
    """
    found = None
    for peer in peers:
        if peer is None:
            continue
        if peer.conversation is not None:
            return None
        if isinstance(peer.last_error, REFUSALS):
            found = found or peer.last_error
    return None if found is None else error_of(found.rc, str(found.message or found), inner_cause=found)
