"""Limits on what clients can make the gateway hold or wait for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Budget", "Limits"]

MEBIBYTE = 2**20

SMALL_BYTES = 2**16
"""Bodies up to this size always have memory left: large bodies cannot take the last eighth of it."""


@dataclass(frozen=True)
class Limits:
    """Limits of one gateway; sizes in bytes, times in seconds."""

    max_body: int = 20 * MEBIBYTE
    """Size of a request body outside a batch: that of the largest document."""
    max_headers: int = 16384
    """Size of request line and headers together."""
    max_buffered: int = 256 * MEBIBYTE
    """Memory for the bodies of all requests, batches included."""
    max_clients: int = 10000
    """Client connections open at once."""
    max_connections: int = 64
    """Connections to the cluster open at once, one per bucket and user."""
    max_line: int = 28 * MEBIBYTE
    """Size of one operation of a batch: a document of 20 MiB in base64, and the members around it."""
    batch_operations: int = 1024
    """Operations of one batch that run at once."""
    batch_bytes: int = 16 * MEBIBYTE
    """Memory for the operations and answers of one batch."""
    header_seconds: float = 10.0
    """Timeout from the first byte of a request to the end of its headers."""
    body_seconds: float = 120.0
    """Timeout from there to the end of the body, plus 1 s for each 64 KiB received; in a batch, between two
    parts of the body."""
    idle_seconds: float = 60.0
    """How long a connection may be idle between two requests."""
    stall_seconds: float = 60.0
    """How long a client may leave its answer unread."""
    grace_seconds: float = 10.0
    """How long requests may still run after the gateway was told to stop."""
    drain_seconds: float = 120.0
    """How long a replaced worker waits for its connections to close."""


class Budget:
    """Memory that all clients together may use.

    :param limit: in bytes.
    """

    __slots__ = ("_for_large", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        # Large bodies leave an eighth to small ones, so that they cannot shut them out.
        self._for_large = limit - limit // 8

    def take(self, size: int) -> bool:
        """Reserve ``size`` bytes. Return false, and reserve nothing, if they do not fit."""
        if self.used + size > (self.limit if size <= SMALL_BYTES else self._for_large):
            return False
        self.used += size
        return True

    def adjust(self, difference: int) -> None:
        """Add ``difference`` bytes without a check: the memory is in use already. May exceed the limit."""
        self.used += difference

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be held."""
        return self.used >= self.limit
