"""Extended attributes: the named JSON values that a document has beside its body.

They are stored as one compact JSON object, name -> value, with sorted keys at every level; ``b""`` if there
are none. Names that begin with an underscore are system attributes, which the tombstone of a deleted document
keeps. Names that begin with a dollar sign are virtual attributes, which are never stored.
"""

from __future__ import annotations

import json
import string
from struct import Struct
from typing import Any, NoReturn

from couchbase.protocol.jsontext import at_once, members, whole_number

MAX_KEY_BYTES = 15
"""Longest name."""

MAX_SYSTEM_BYTES = 2**20
"""Largest encoded size in bytes of all system attributes of one document."""

_U32 = Struct(">I")
_SYSTEM, _VIRTUAL = b"_$"
_RESERVED = frozenset(string.punctuation.encode()) - {_SYSTEM, _VIRTUAL}
_FIRST_PRINTABLE, _DELETE = 0x20, 0x7F


def key_of(path: bytes) -> bytes | None:
    """Return the name of the attribute that a path begins with; ``None`` if the name is invalid."""
    end = min(at if at >= 0 else len(path) for at in (path.find(b"."), path.find(b"[")))
    key = path[:end]
    if not 0 < end <= MAX_KEY_BYTES or b"\0" in path:
        return None
    first = key[0]
    if first in _RESERVED or first < _FIRST_PRINTABLE or first == _DELETE:
        return None
    if end == 1 and first in (_SYSTEM, _VIRTUAL):
        return None
    try:
        path.decode()
    except UnicodeDecodeError:
        return None
    return key


def is_virtual(key: bytes) -> bool:
    """Return whether an attribute is computed, and cannot be stored."""
    return key[0] == _VIRTUAL


def is_system(key: str) -> bool:
    """Return whether an attribute is a system attribute."""
    return key.startswith("_")


def canonical(text: bytes) -> bytes:
    """Return the stored form of attributes, given as a JSON object.

    :raises ValueError: the attributes cannot be encoded again, because a number is too large or a string is
        not valid Unicode.
    """
    return _stored(_decoded(text))


def _stored(attributes: dict[str, Any]) -> bytes:
    if not attributes:
        return b""
    text = json.dumps(attributes, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def _decoded(text: bytes) -> dict[str, Any]:
    attributes: dict[str, Any] = (
        json.loads(text, parse_int=whole_number, parse_constant=_refuse) if text else {}
    )
    return attributes


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def names(xattrs: bytes) -> list[str]:
    """Return the names of attributes, in order."""
    return list(_decoded(xattrs))


def system_only(xattrs: bytes) -> bytes:
    """Return the attributes that the tombstone keeps when their document is deleted."""
    if b'"_' not in xattrs:
        return b""
    return _stored({key: value for key, value in _decoded(xattrs).items() if is_system(key)})


def section(xattrs: bytes, with_system: bool = True) -> bytes:
    """Return attributes as the section that precedes a body whose datatype has the XATTR bit; empty if there
    are none.

    :param with_system: include the system attributes.
    """
    pairs = []
    # The stored values have the form of the section; parsing them would take seconds for some megabytes.
    for name, start, end in at_once(members(xattrs, 0)) if xattrs else ():
        key = json.loads(name)
        if with_system or not is_system(key):
            pair = b"%b\0%b\0" % (key.encode(), xattrs[start:end])
            pairs.append(_U32.pack(len(pair)) + pair)
    if not pairs:
        return b""
    joined = b"".join(pairs)
    return _U32.pack(len(joined)) + joined


def section_bytes(xattrs: bytes) -> tuple[int, int]:
    """Return the sizes in bytes of the section's two parts: the user attributes; and the system attributes
    with the section's length field."""
    if not xattrs:
        return 0, 0
    whole, own = len(section(xattrs)), len(section(xattrs, with_system=False))
    if not own:
        return 0, whole
    return own - _U32.size, whole - own + _U32.size
