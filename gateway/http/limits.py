"""Limits on the memory and time that clients can take from a server."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Budget", "Limits"]

MEBIBYTE = 2**20

SMALL_BYTES = 2**16
"""Bodies up to this size in bytes may use all of the memory; larger ones must leave an eighth of it free."""


@dataclass(frozen=True)
class Limits:
    """Limits of one server; sizes in bytes, times in seconds."""

    max_body: int = 20 * MEBIBYTE
    """Largest size of a request body that is not streamed."""
    max_headers: int = 16384
    """Largest size of request line and headers together."""
    max_buffered: int = 256 * MEBIBYTE
    """Memory for the requests of all clients together."""
    max_clients: int = 10000
    """Largest number of open client connections."""
    max_streams: int = 100
    """Largest number of concurrent requests on one HTTP/2 connection."""
    header_seconds: float = 10.0
    """Timeout from the first byte of a request to the end of its headers."""
    body_seconds: float = 120.0
    """Timeout from the end of the headers to the end of the body, plus 1 s for each 64 KiB received; for a
    streamed body, between two parts."""
    idle_seconds: float = 60.0
    """How long a connection may be idle between two requests."""
    stall_seconds: float = 60.0
    """How long a client may leave its answer unread."""
    grace_seconds: float = 10.0
    """How long requests may still run after the server begins to stop."""


class Budget:
    """A limit on the memory that all clients use together.

    :param limit: in bytes.
    """

    __slots__ = ("_for_large", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        # Large bodies must leave an eighth of the memory to small ones, so that these are never locked out.
        self._for_large = limit - limit // 8

    def take(self, size: int) -> bool:
        """Reserve ``size`` bytes. Return false, and reserve nothing, if they do not fit."""
        if self.used + size > (self.limit if size <= SMALL_BYTES else self._for_large):
            return False
        self.used += size
        return True

    def adjust(self, difference: int) -> None:
        """Add ``difference`` bytes without a check, because the memory is in use already. The sum may exceed
        the limit."""
        self.used += difference

    @property
    def is_full(self) -> bool:
        """Whether the memory is used up."""
        return self.used >= self.limit
