"""CRC-32C (Castagnoli), the checksum of bodies in ``$document`` and in macros."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["crc32c"]

_POLYNOMIAL = 0x82F63B78


def _make_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _make_table()


def plain_crc32c(data: bytes) -> int:
    """Return the CRC-32C of ``data``, by a table."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


crc32c: Callable[[bytes], int]
try:
    from google_crc32c import value as crc32c
except ImportError:  # PyPy, whose compiler makes the loop fast
    crc32c = plain_crc32c
