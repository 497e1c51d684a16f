"""Attributes that are not JSON: base64 in a JSON string, marked by a prefix."""

from __future__ import annotations

from base64 import b64decode, b64encode

from couchbase.protocol.constants import Status
from couchnode.data.item import StatusError

_PREFIX = b"cb-content-base64-encoded:"
_QUOTE = b'"'


def encode(value: bytes) -> bytes:
    """Return the JSON string that encodes these bytes."""
    return _QUOTE + _PREFIX + b64encode(value) + _QUOTE


def decode(text: bytes) -> bytes:
    """Return the bytes that a JSON string encodes.

    :raises ValueError: the string does not encode a binary value.
    """
    if text[:1] == _QUOTE and text[-1:] == _QUOTE and len(text) > 1:
        text = text[1:-1]
    if not text.startswith(_PREFIX):
        raise ValueError("the value is not binary")
    return b64decode(text[len(_PREFIX) :], validate=True)


def check_embedded(value: bytes) -> None:
    """Check the first binary value in a JSON text, if it has one.

    :raises StatusError: XATTR_EINVAL for bad base64.
    """
    start = value.find(_PREFIX)
    if start < 0:
        return
    if start > 1 or (start == 1 and value[:1] != _QUOTE):
        end = value.find(_QUOTE, start)
        value = value[start:end] if end >= 0 else b""
    try:
        decode(value)
    except ValueError:
        raise StatusError(Status.XATTR_EINVAL, "Incorrectly encoded binary value") from None
