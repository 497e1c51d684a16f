"""Which vbucket a key belongs to."""

from __future__ import annotations

from zlib import crc32


def vbucket_of(key: bytes, count: int) -> int:
    """Return the vbucket of ``key`` among ``count`` of them.

    The upper half of the key's CRC-32, 15 bits of it, modulo the number of vbuckets. The key is
    the logical one, without a collection prefix.
    """
    return ((crc32(key) >> 16) & 0x7FFF) % count
