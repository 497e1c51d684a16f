"""Keys as vbuckets hold them: the id of the collection, then the document's own key.

The id is a LEB128 number, as in requests of clients that support collections, so their keys are used
unchanged. No encoded id is a prefix of another one, so two documents never share a held key.
"""

from __future__ import annotations

from couchbase.protocol.constants import MAX_KEY_BYTES
from couchbase.protocol.leb128 import decode_leb128, encode_leb128

DEFAULT_PREFIX = b"\0"
"""Prefix of the keys in the default collection."""

MAX_NAMED_KEY_BYTES = 246
"""Longest key in bytes, without its prefix, in a collection other than the default one."""


def longest_key(collection_id: int) -> int:
    """Return the length in bytes of the longest key in a collection, without its prefix."""
    return MAX_NAMED_KEY_BYTES if collection_id else MAX_KEY_BYTES


def prefix_of(key: bytes) -> bytes:
    """Return the encoded id of the collection that a held key belongs to."""
    at = 0
    while key[at] & 0x80:
        at += 1
    return key[: at + 1]


def held_key(collection_id: int, key: bytes) -> bytes:
    """Return the key under which a vbucket holds a document."""
    return encode_leb128(collection_id) + key


def document_key(key: bytes) -> bytes:
    """Return the document's own key: a held key without its prefix."""
    return key[decode_leb128(key)[1] :]


def described(key: object) -> str:
    """Return a held key for a message: the document's key, and its collection unless that is the default one.

    Any bytes are accepted, because a damaged key can be anything.
    """
    if not isinstance(key, bytes):
        return f"{key!r}"
    try:
        number, at = decode_leb128(key)
    except ValueError:
        return f"{key!r} (no collection)"
    return f"{key[at:]!r}" + (f" of collection 0x{number:x}" if number else "")


def end_of(prefix: bytes) -> bytes:
    """Return the first key after all keys of a collection."""
    # The last byte of an encoded id has no top bit, so adding one cannot overflow.
    return prefix[:-1] + bytes((prefix[-1] + 1,))
