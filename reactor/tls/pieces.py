"""Cuts and joins what is written, so that TLS gets neither tiny nor huge parts."""

from __future__ import annotations

from collections import deque

__all__ = ["PIECE_BYTES", "RECORD_BYTES", "SLICE_BYTES", "TURN_BYTES", "next_piece"]

RECORD_BYTES = 2**14
"""Most plain bytes of one record."""
SLICE_BYTES = 2 * RECORD_BYTES
"""Most encrypted bytes that OpenSSL gets at once."""
TURN_BYTES = 2**20
"""Most plain bytes encrypted in one turn of the reactor; the rest follows in the next one."""
PIECE_BYTES = 2**16
"""Most plain bytes that are encrypted before they are handed to the stream below."""


def next_piece(queue: deque[bytes | memoryview]) -> memoryview:
    """Remove the next bytes to encrypt from a queue: several small parts, or a piece of a large one.

    :param queue: one part at least; none is empty.
    """
    first = queue.popleft()
    size = len(first)
    if size > PIECE_BYTES:
        whole = memoryview(first)
        queue.appendleft(whole[PIECE_BYTES:])
        return whole[:PIECE_BYTES]
    if not queue or size + len(queue[0]) > PIECE_BYTES:
        return memoryview(first)
    parts = [first]
    while queue and size + len(queue[0]) <= PIECE_BYTES:
        size += len(queue[0])
        parts.append(queue.popleft())
    return memoryview(b"".join(parts))
