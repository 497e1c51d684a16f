"""What handlers answer with. Nothing here knows of a transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.jsontools import dumps

__all__ = ["BodyProducer", "BodySink", "Headers", "Response", "json_response"]

Headers = Sequence[tuple[bytes, bytes]]

JSON_TYPE = (b"Content-Type", b"application/json")


class BodySink(Protocol):
    """Where a :class:`BodyProducer` puts the body."""

    def write(self, data: bytes) -> None:
        """Send a part of the body, of any size but not empty."""

    def finish(self) -> None:
        """The body is complete."""

    def abort(self) -> None:
        """The body cannot be completed: close the connection so that the caller sees the cut.

        What was written before is delivered.
        """


class BodyProducer(Protocol):
    """A body made while it is sent.

    After ``start`` it may write at any time, except between ``pause`` and ``resume``.
    """

    def start(self, sink: BodySink) -> None:
        """Begin to write into ``sink``."""

    def pause(self) -> None:
        """The client reads slower than this writes: write nothing more."""

    def resume(self) -> None:
        """The client has caught up."""

    def cancel(self) -> None:
        """The client is gone: stop all work; the sink takes nothing more."""


class Response:
    """Status, headers and body of an answer.

    :param headers: name and value pairs, in order; content length, date, connection and request
        id are the channel's business.
    :param body: bytes, or a producer for a body whose length nobody knows yet.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Headers = (), body: bytes | BodyProducer = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body


def json_response(value: object, status: int = 200, headers: Headers = ()) -> Response:
    """Return ``value`` as an ``application/json`` answer."""
    return Response(status, [JSON_TYPE, *headers], dumps(value))
