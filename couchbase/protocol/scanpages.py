"""The answers to a range scan: keys, or documents, packed one after the other."""

from __future__ import annotations

import json
from struct import Struct
from typing import Any, NamedTuple

from couchbase.protocol.constants import Datatype
from couchbase.protocol.leb128 import decode_leb128

_DOCUMENT = Struct(">IIQQB")
_U32 = Struct(">I")
_XATTR = int(Datatype.XATTR)


class Document(NamedTuple):
    """One document of a scan."""

    key: bytes
    value: bytes
    flags: int
    expiry: int
    """Unix time in seconds, 0 for never."""
    cas: int
    datatype: int
    attributes: bytes = b""
    """Its extended attributes, as a JSON object; empty if it has none, or they were not requested."""


# Faster than the class: a scan has millions.
_new_document: Any = tuple.__new__


def unpack_keys(content: bytes) -> list[bytes]:
    """Return the keys in the answer to a scan of keys.

    :raises ValueError: the answer is malformed.
    """
    keys: list[bytes] = []
    add, at, end = keys.append, 0, len(content)
    while at < end:
        size, begin = content[at], at + 1
        if size > 0x7F:
            size, begin = decode_leb128(content, at)
        at = begin + size
        add(content[begin:at])
    if at != end:
        raise ValueError("a key is cut off")
    return keys


def unpack_documents(content: bytes) -> list[Document]:
    """Return the documents in the answer to a scan of documents.

    :raises ValueError: the answer is malformed.
    """
    documents: list[Document] = []
    add, new, unpack, head_bytes = documents.append, _new_document, _DOCUMENT.unpack_from, _DOCUMENT.size
    at, end = 0, len(content)
    while at < end:
        if at + head_bytes >= end:
            raise ValueError("a document is cut off")
        flags, expiry, _, cas, datatype = unpack(content, at)
        at += head_bytes + 1
        size = content[at - 1]
        if size > 0x7F:
            size, at = decode_leb128(content, at - 1)
        key = content[at : at + size]
        at += size
        # Nearly all lengths take one or two bytes; longer ones are left to the general function.
        size = content[at] if at < end else 0x80
        if size < 0x80:
            at += 1
        elif at + 1 < end and 0 < content[at + 1] < 0x80:
            size += (content[at + 1] << 7) - 0x80
            at += 2
        else:
            size, at = decode_leb128(content, at)
        value = content[at : at + size]
        at += size
        if at > end:
            raise ValueError("a document is cut off")
        attributes = b""
        if datatype & _XATTR:
            attributes, value = split_attributes(value)
        add(new(Document, (key, value, flags, expiry, cas, datatype, attributes)))
    return documents


def split_attributes(value: bytes) -> tuple[bytes, bytes]:
    """Return the extended attributes that a value begins with, as a JSON object, and the body.

    :raises ValueError: they are malformed.
    """
    if len(value) < _U32.size:
        raise ValueError("the attributes are cut off")
    (size,) = _U32.unpack_from(value)
    at, end = _U32.size, _U32.size + size
    members = []
    while at < end:
        if at + _U32.size > len(value):
            raise ValueError("the attributes are cut off")
        (length,) = _U32.unpack_from(value, at)
        name, nul, text = value[at + _U32.size : at + _U32.size + length].partition(b"\0")
        if not nul or not text.endswith(b"\0"):
            raise ValueError("an attribute is cut off")
        members.append(json.dumps(name.decode()).encode() + b":" + text[:-1])
        at += _U32.size + length
    if at != end or end > len(value):
        raise ValueError("the attributes are cut off")
    return b"{%b}" % b",".join(members), value[end:]
