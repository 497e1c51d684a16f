"""The end of a connection.

A connection whose client may still be sending is closed in stages (RFC 9112 9.6): if received bytes were left
unread, the kernel would reset the connection, and the client might never see the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.http.phases import ConnectionPhase
from reactor.gate import unread_bytes

if TYPE_CHECKING:
    from gateway.http.ports import Connection

__all__ = ["LINGER_BYTES", "LINGER_IDLE_SECONDS", "LINGER_SECONDS", "LingeringClose"]

# The same time as in nginx.
LINGER_SECONDS = 30.0
"""Longest time for which the rest of a refused request is read and dropped, in seconds."""
LINGER_IDLE_SECONDS = 5.0
"""Longest time to wait without receiving anything, in seconds."""
LINGER_BYTES = 2**26
"""Largest number of bytes that are read this way, unless the request has announced more."""


class LingeringClose:
    """The end of a connection, after the last answer: received bytes are not served any more.

    :param announced: number of bytes of a body that have not arrived yet.
    """

    def __init__(self, channel: Connection, announced: int) -> None:
        self._channel = channel
        self._discarded = 0
        self._most = max(LINGER_BYTES, announced)

    def begin(self, *, in_stages: bool) -> None:
        """Close as soon as everything is written.

        :param in_stages: whether the client may still be sending.
        """
        transport = self._channel.transport
        # A registered producer would hold the connection open.
        transport.unregisterProducer()
        # TLS waits for the client's closing message, too.
        self._channel.read_on()
        if self._can_close_half and (in_stages or unread_bytes(transport)):
            self._channel.factory.lingers(self._channel)
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    @property
    def _can_close_half(self) -> bool:
        # TLS does this itself: it sends its closing message, and reads until the client's arrives.
        return hasattr(type(self._channel.transport), "loseWriteConnection")

    def discard(self, size: int) -> None:
        """Drop bytes that arrive after the last answer."""
        if self._channel.phase is ConnectionPhase.LINGERING:
            self._channel.since = None
        self._discarded += size
        if self._discarded > self._most:
            self.stop()

    def stop(self) -> None:
        """Stop waiting for the client to close its half."""
        if self._can_close_half:
            self._channel.transport.loseConnection()
        else:
            self._channel.abort()
