"""Unsigned LEB128 numbers: the collection ids in keys, and the lengths of entries in range scans.

Seven bits a byte, the lowest first; the top bit says that another byte follows.
"""

from __future__ import annotations

MAX_NUMBER = 2**32 - 1
"""Largest number: 32 bits, as collection ids have."""

MAX_BYTES = 5
"""Longest encoding of a number, in bytes."""


def encode_leb128(number: int) -> bytes:
    """Return the shortest encoding of a number.

    :raises ValueError: the number is negative, or needs more than 32 bits.
    """
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"{number} is not a number of 32 bits")
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def decode_leb128(data: bytes, at: int = 0) -> tuple[int, int]:
    """Return the number that begins at ``at``, and the position after it.

    :raises ValueError: it is cut off, not in its shortest form, or needs more than 32 bits.
    """
    number = shift = 0
    for place in range(at, min(at + MAX_BYTES, len(data))):
        byte = data[place]
        number |= (byte & 0x7F) << shift
        if not byte & 0x80:
            if (shift and not byte) or number > MAX_NUMBER:
                break
            return number, place + 1
        shift += 7
    raise ValueError("not a complete LEB128 number of 32 bits in its shortest form")
