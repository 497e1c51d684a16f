"""Values that a client has compressed with Snappy (raw block format).

They are stored uncompressed: a server never has to compress an answer, and all code that reads the
content of a document (sub-documents, views, counters) can use it directly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from couchbase.protocol.constants import MAX_VALUE_BYTES, Feature, Status
from couchnode.data.item import StatusError

_decompress: Callable[[bytes], Any] | None = None
try:
    import cramjam
except ImportError:  # a platform without a wheel
    pass
else:
    _decompress = cramjam.snappy.decompress_raw

MAX_INFLATED_BYTES = 30 * 2**20
"""Uncompressed values above this are invalid (the server's limit on a packet), and values above
``MAX_VALUE_BYTES`` are too long to store. Both are checked in the block's header, before inflating."""

FEATURES: frozenset[Feature] = (
    frozenset() if _decompress is None else frozenset({Feature.SNAPPY, Feature.SNAPPY_EVERYWHERE})
)
"""The features of HELLO for compressed values; none if the library is not installed."""

_MAX_LENGTH_BYTES = 5


def inflate(block: bytes) -> bytes:
    """Return the value in ``block``.

    :raises StatusError: EINVAL if ``block`` is not one Snappy block, or its value is longer than
        :data:`MAX_INFLATED_BYTES`; E2BIG if the value is longer than a document may be.
    """
    size = _inflated_length(block)
    if size > MAX_INFLATED_BYTES:
        raise StatusError(Status.EINVAL, "Inflated data is too big")
    if size > MAX_VALUE_BYTES:
        raise StatusError(Status.E2BIG)
    assert _decompress is not None  # the feature is not granted otherwise
    try:
        return bytes(_decompress(block))
    except Exception as error:  # the library's error has no public name in every version
        raise StatusError(Status.EINVAL, "Failed to inflate payload") from error


def _inflated_length(block: bytes) -> int:
    """Return the length in the header of a block, without checking the rest."""
    size = 0
    for at, byte in enumerate(block[:_MAX_LENGTH_BYTES]):
        size |= (byte & 0x7F) << (7 * at)
        if not byte & 0x80:
            return size
    raise StatusError(Status.EINVAL, "Failed to inflate payload")
