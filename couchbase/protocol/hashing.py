"""The vbucket of a key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from zlib import crc32


class WithKey(Protocol):
    """An object about one document: a request, or a running operation."""

    key_bytes: bytes


def vbucket_of(key: bytes, count: int) -> int:
    """Return the vbucket of ``key``, if there are ``count`` vbuckets.

    The upper half of the key's CRC-32, 15 bits of it, modulo the number of vbuckets. The key has no
    collection prefix.
    """
    return ((crc32(key) >> 16) & 0x7FFF) % count


def vbuckets_of(requests: Iterable[WithKey], count: int) -> list[int]:
    """Return the vbucket of each request's key, as :func:`vbucket_of` does, without a call for each."""
    return [((crc32(request.key_bytes) >> 16) & 0x7FFF) % count for request in requests]
