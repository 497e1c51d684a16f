"""The messages between supervisor and workers: one JSON object per line, over two pipes.

Each has a ``type``.

To a worker: ``serve`` (the first message: settings, sockets, counts, copies of files, cluster), ``cluster``
(the embedded node has started), ``hindrance`` (why the node cannot write to disk, or that it can again),
``ask`` (request for metrics), ``total`` (the sums that the worker requested), ``leave`` (a stop will follow),
``drain``, ``stop``.

To the supervisor: ``ready``, ``failed`` (the reason why it cannot serve), ``metrics``, ``gather`` (request
for the sums), ``closed`` (it no longer accepts connections), ``log``.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["MAX_MESSAGE_BYTES", "ChannelError", "MessageReader", "encode"]

MAX_MESSAGE_BYTES = 4 * 2**20
"""Longest accepted message, in bytes."""

Message = dict[str, Any]


class ChannelError(Exception):
    """The peer violated the protocol; further messages cannot be understood."""


def encode(kind: str, **members: object) -> bytes:
    """Return a message as bytes."""
    return json.dumps({"type": kind, **members}, separators=(",", ":")).encode("ascii") + b"\n"


class MessageReader:
    """Splits received bytes into messages."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held = 0

    def receive(self, data: bytes) -> list[Message]:
        """Take received bytes, and return the messages that they complete.

        :raises ChannelError: the bytes are not a message, or too long for one.
        """
        if b"\n" not in data:
            self._hold(data)
            return []
        first, *others = data.split(b"\n")
        self._hold(first)
        lines = [b"".join(self._parts), *others[:-1]]
        self._parts, self._held = [], 0
        self._hold(others[-1])
        return [_decode(line) for line in lines]

    def _hold(self, data: bytes) -> None:
        self._held += len(data)
        if self._held > MAX_MESSAGE_BYTES:
            raise ChannelError(f"a message of more than {MAX_MESSAGE_BYTES} bytes")
        if data:
            self._parts.append(data)


def _decode(line: bytes) -> Message:
    # The error does not quote the line: settings contain passwords.
    try:
        message = json.loads(line)
    except ValueError:
        raise ChannelError(f"a line of {len(line)} bytes that is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ChannelError(f"a line of {len(line)} bytes that is not an object with a type")
    return message
