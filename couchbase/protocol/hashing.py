"""Which vbucket a key belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32


def vbucket_of(key: bytes, count: int) -> int:
    """Return the vbucket of ``key`` among ``count`` of them.

    The upper half of the key's CRC-32, 15 bits of it, modulo the number of vbuckets. The key is
    the logical one, without a collection prefix.
    """
    return ((crc32(key) >> 16) & 0x7FFF) % count


def vbuckets_of(keys: Iterable[bytes], count: int) -> list[int]:
    """Return the vbucket of each key, as :func:`vbucket_of` does, without a call for each."""
    return [((crc32(key) >> 16) & 0x7FFF) % count for key in keys]
