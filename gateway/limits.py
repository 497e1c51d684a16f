"""How much of everything is allowed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Budget", "Limits"]

MEBIBYTE = 2**20

SMALL_BYTES = 2**16
"""Up to this size there is room for a body also when large ones have used up theirs."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what clients can make the gateway hold or wait for; sizes in bytes, times in seconds."""

    max_body: int = 20 * MEBIBYTE
    """Body of a request that is not a batch: what a document may have."""
    max_headers: int = 16384
    """Request line and headers together."""
    max_buffered: int = 256 * MEBIBYTE
    """Bodies of all requests, and what batches hold, together."""
    max_clients: int = 10000
    """Open client connections."""
    max_connections: int = 64
    """Open connections to the cluster, each of one bucket and user."""
    max_line: int = 28 * MEBIBYTE
    """One operation of a batch: a document of 20 MiB in base64, and its frame."""
    batch_operations: int = 1024
    """Operations of one batch under way."""
    batch_bytes: int = 16 * MEBIBYTE
    """Operations and answers of one batch that are held at once."""
    header_seconds: float = 10.0
    """From the first byte of a request to the end of its headers."""
    body_seconds: float = 120.0
    """From there to the end of the body, and one more for each 64 KiB of it that were received; for a batch,
    between two parts of it."""
    idle_seconds: float = 60.0
    """Between two requests of a connection."""
    stall_seconds: float = 60.0
    """For which a client may not read its answer."""
    grace_seconds: float = 10.0
    """For requests under way to finish when the gateway stops."""
    drain_seconds: float = 120.0
    """For the connections of a worker that was replaced to end by themselves."""


class Budget:
    """Bytes that all clients together may make the gateway hold.

    :param limit: of them.
    """

    __slots__ = ("_for_large", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        # An eighth is left to small ones, so that large ones cannot shut them out.
        self._for_large = limit - limit // 8

    def take(self, size: int) -> bool:
        """Reckon with ``size`` more bytes; false, and nothing is changed, if there is no room."""
        if self.used + size > (self.limit if size <= SMALL_BYTES else self._for_large):
            return False
        self.used += size
        return True

    def adjust(self, difference: int) -> None:
        """Follow what is held already; this may go beyond the limit, for a moment."""
        self.used += difference

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be held."""
        return self.used >= self.limit
