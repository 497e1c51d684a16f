"""Specs of sub-document operations, named as in the SDKs after 1.2.

Programs import this module as ``SD``, and pass the results of its functions to ``lookup_in`` and
``mutate_in``::

    import couchbase.subdocument as SD

    found = connection.lookup_in("beer", SD.get("name"), SD.exists("brewery.city"))
    found[0], found.exists(1)
    connection.mutate_in("beer", SD.upsert("brewery.city", "Bamberg", create_parents=True))

Paths are those of Couchbase: ``a.b[0].c``, ``[-1]`` for the last element; a name with a dot or bracket is
written in backticks (:func:`escape` does so). With ``xattr=True`` a path names an extended attribute.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NamedTuple

from couchbase import exceptions
from couchbase.exceptions import ArgumentError, error_of
from couchbase.protocol.constants import Opcode
from couchbase.protocol.pathresults import SubdocResult
from couchbase.protocol.subdocument import (
    BINARY,
    CREATE_PARENTS,
    EXPAND_MACROS,
    MAX_PATH_BYTES,
    XATTR,
    Spec,
    binary_text,
)
from couchbase.transcoder import encode_value
from couchbase.user_constants import FMT_JSON

__all__ = [
    "LookupInMacro",
    "MutationMacro",
    "Spec",
    "StoreSemantics",
    "SubdocResult",
    "array_addunique",
    "array_append",
    "array_insert",
    "array_prepend",
    "count",
    "counter",
    "decrement",
    "escape",
    "exists",
    "get",
    "get_count",
    "get_full",
    "increment",
    "insert",
    "remove",
    "replace",
    "replace_body_with_xattr",
    "upsert",
    "upsert_full",
    "with_expiry",
]


class StoreSemantics(IntEnum):
    """The condition of ``mutate_in`` on the document as a whole."""

    REPLACE = 0
    """The document must exist."""
    UPSERT = 1
    """Create the document if it is missing."""
    INSERT = 2
    """The document must not exist, and is created."""


class MutationMacro(Enum):
    """Values that the server fills in when it stores an attribute; they imply ``xattr=True``."""

    CAS = "${Mutation.CAS}"
    """The document's new CAS: a string ``"0x..."``, its bytes in little-endian order."""
    SEQ_NO = "${Mutation.seqno}"
    """The mutation's sequence number."""
    VALUE_CRC32C = "${Mutation.value_crc32c}"
    """Checksum of the new body."""

    @classmethod
    def cas(cls) -> MutationMacro:
        """Return :attr:`CAS`."""
        return cls.CAS

    @classmethod
    def seq_no(cls) -> MutationMacro:
        """Return :attr:`SEQ_NO`."""
        return cls.SEQ_NO

    @classmethod
    def value_crc32c(cls) -> MutationMacro:
        """Return :attr:`VALUE_CRC32C`."""
        return cls.VALUE_CRC32C


class LookupInMacro:
    """Paths of virtual attributes, to be read with ``xattr=True``."""

    @staticmethod
    def document() -> str:
        """Return the path of all virtual attributes, as one object."""
        return "$document"

    @staticmethod
    def expiry_time() -> str:
        """Return the path of the expiry: Unix time, 0 for never."""
        return "$document.exptime"

    @staticmethod
    def flags() -> str:
        """Return the path of the document's flags, which the result then has as ``flags``."""
        return "$document.flags"

    @staticmethod
    def cas() -> str:
        """Return the path of the CAS."""
        return "$document.CAS"

    @staticmethod
    def seq_no() -> str:
        """Return the path of the sequence number."""
        return "$document.seqno"

    @staticmethod
    def last_modified() -> str:
        """Return the path of the time of the last change."""
        return "$document.last_modified"

    @staticmethod
    def is_deleted() -> str:
        """Return the virtual attribute that says whether the document is deleted."""
        return "$document.deleted"

    @staticmethod
    def value_size_bytes() -> str:
        """Return the path of the body's size in bytes."""
        return "$document.value_bytes"

    @staticmethod
    def rev_id() -> str:
        """Return the path of the revision number."""
        return "$document.revid"


def escape(name: str) -> str:
    """Return one name of a path in backticks, so that dots and brackets in it are ordinary characters.

    :raises SubdocPathInvalidError: an empty name, which no path can reach.
    """
    if not name:
        raise error_of(exceptions.SUBDOC_PATH_EINVAL, "a path cannot name the empty key")
    plain = name.replace("\\", "\\\\").replace('"', '\\"').replace("`", "``")
    return f"`{plain}`"


# ---- lookups -------------------------------------------------------------------------------------


def get(path: str, xattr: bool = False, binary: bool = False) -> Spec:
    """Read the value at a path; the empty path reads the whole document.

    :param binary: the value was stored with ``binary=True``, and the result has bytes. Only attributes have
        such values, so this implies ``xattr=True``.
    """
    if binary:
        return _spec(Opcode.SUBDOC_GET, path, True, BINARY)
    if not path and not xattr:
        return get_full()
    return _spec(Opcode.SUBDOC_GET, path, xattr)


def exists(path: str, xattr: bool = False) -> Spec:
    """Ask whether a path exists; its value in the result is a bool."""
    return _spec(Opcode.SUBDOC_EXISTS, path, xattr)


def count(path: str, xattr: bool = False) -> Spec:
    """Count the elements of an array, or the names of an object; the empty path is the document itself."""
    return _spec(Opcode.SUBDOC_GET_COUNT, path, xattr, may_be_empty=True)


get_count = count
"""SDK 2's name of :func:`count`."""


def get_full() -> Spec:
    """Read the whole document, which must be JSON."""
    return Spec(Opcode.GET, 0, b"")


def with_expiry() -> Spec:
    """Read the document's expiry: Unix time in seconds, 0 for never."""
    return get(LookupInMacro.expiry_time(), xattr=True)


# ---- mutations -----------------------------------------------------------------------------------


def insert(
    path: str, value: object, create_parents: bool = False, xattr: bool = False, binary: bool = False
) -> Spec:
    """Add a member to an object, which must not have it yet.

    :param value: any JSON value, or a :class:`MutationMacro`.
    :param create_parents: create missing parent objects.
    :param binary: ``value`` is bytes, which are stored as a text that :func:`get` decodes; implies
        ``xattr=True``. This is the form of servers since 7.6; older servers store it, too.
    """
    if binary:
        value, xattr = _binary(value), True
    return _storing(Opcode.SUBDOC_DICT_ADD, path, value, create_parents, xattr)


def upsert(
    path: str, value: object, create_parents: bool = False, xattr: bool = False, binary: bool = False
) -> Spec:
    """Set a member of an object; arguments as for :func:`insert`."""
    if binary:
        value, xattr = _binary(value), True
    return _storing(Opcode.SUBDOC_DICT_UPSERT, path, value, create_parents, xattr)


def replace(path: str, value: object, xattr: bool = False, binary: bool = False) -> Spec:
    """Replace an existing value, also an element of an array; the empty path replaces the whole document.

    :param binary: as for :func:`insert`.
    """
    if binary:
        value, xattr = _binary(value), True
    if not path and not xattr:
        return upsert_full(value)
    return _storing(Opcode.SUBDOC_REPLACE, path, value, False, xattr)


def remove(path: str, xattr: bool = False) -> Spec:
    """Remove a value, also an element of an array; the empty path removes the whole document."""
    if not path and not xattr:
        return Spec(Opcode.DELETE, 0, b"")
    return _spec(Opcode.SUBDOC_DELETE, path, xattr)


def array_append(path: str, *values: object, create_parents: bool = False, xattr: bool = False) -> Spec:
    """Add values at an array's end; the empty path is a document that is an array."""
    return _pushing(Opcode.SUBDOC_ARRAY_PUSH_LAST, path, values, create_parents, xattr)


def array_prepend(path: str, *values: object, create_parents: bool = False, xattr: bool = False) -> Spec:
    """Add values at an array's start; the empty path is a document that is an array."""
    return _pushing(Opcode.SUBDOC_ARRAY_PUSH_FIRST, path, values, create_parents, xattr)


def array_insert(path: str, *values: object, xattr: bool = False) -> Spec:
    """Insert values before the element that the path names, as in ``list[2]``."""
    return _pushing(Opcode.SUBDOC_ARRAY_INSERT, path, values, False, xattr, may_be_empty=False)


def array_addunique(path: str, value: object, create_parents: bool = False, xattr: bool = False) -> Spec:
    """Add a scalar to an array of scalars that does not have it."""
    return _pushing(Opcode.SUBDOC_ARRAY_ADD_UNIQUE, path, (value,), create_parents, xattr)


def counter(path: str, delta: int, create_parents: bool = False, xattr: bool = False) -> Spec:
    """Add to an integer, which is created if it is missing; the result has the new value.

    :param delta: a 64-bit integer other than 0; a negative one subtracts.
    :raises SubdocBadDeltaError: ``delta`` is something else.
    """
    if isinstance(delta, bool) or not isinstance(delta, int) or not delta or not -(2**63) <= delta < 2**63:
        raise error_of(
            exceptions.SUBDOC_BAD_DELTA, f"expected a whole number of 64 bits, not {delta!r}", path=path
        )
    flags = CREATE_PARENTS if create_parents else 0
    return _spec(Opcode.SUBDOC_COUNTER, path, xattr, flags, b"%d" % delta)


def increment(path: str, delta: int, create_parents: bool = False, xattr: bool = False) -> Spec:
    """Add a positive number; see :func:`counter`."""
    return counter(path, _positive(path, delta), create_parents, xattr)


def decrement(path: str, delta: int, create_parents: bool = False, xattr: bool = False) -> Spec:
    """Subtract a positive number; see :func:`counter`."""
    return counter(path, -_positive(path, delta), create_parents, xattr)


def upsert_full(value: object) -> Spec:
    """Replace the document's body; with ``StoreSemantics.UPSERT`` or ``INSERT`` create it."""
    return Spec(Opcode.SET, 0, b"", _json(value))


def replace_body_with_xattr(path: str) -> Spec:
    """Replace the document's body by the value of an attribute, which stays."""
    return _spec(Opcode.SUBDOC_REPLACE_BODY_WITH_XATTR, path, True)


def _positive(path: str, delta: int) -> int:
    if isinstance(delta, bool) or not isinstance(delta, int) or delta <= 0:
        raise error_of(
            exceptions.SUBDOC_BAD_DELTA, f"expected a whole number above 0, not {delta!r}", path=path
        )
    return delta


def _json(value: object) -> bytes:
    data: bytes = encode_value(value, FMT_JSON)[0]
    return data


class _Binary(NamedTuple):
    """The bytes of an attribute, encoded as text."""

    text: bytes


def _binary(value: object) -> _Binary:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise ArgumentError.pyexc("a binary value must be bytes", obj=value)
    return _Binary(binary_text(bytes(value)))


def _storing(opcode: int, path: str, value: object, create_parents: bool, xattr: bool) -> Spec:
    flags = CREATE_PARENTS if create_parents else 0
    if isinstance(value, MutationMacro):
        return _spec(opcode, path, True, flags | EXPAND_MACROS, _json(value.value))
    text = value.text if isinstance(value, _Binary) else _json(value)
    return _spec(opcode, path, xattr, flags, text)


def _pushing(
    opcode: int,
    path: str,
    values: tuple[object, ...],
    create_parents: bool,
    xattr: bool,
    may_be_empty: bool = True,
) -> Spec:
    if not values:
        raise ArgumentError.pyexc("no values given for the array", obj=path)
    flags = CREATE_PARENTS if create_parents else 0
    if any(isinstance(value, MutationMacro) for value in values):
        if len(values) > 1 or opcode == Opcode.SUBDOC_ARRAY_ADD_UNIQUE:
            raise ArgumentError.pyexc(
                "a macro must be the only value, and is not allowed in array_addunique", obj=values
            )
        flags |= EXPAND_MACROS
        xattr = True
    plain = [value.value if isinstance(value, MutationMacro) else value for value in values]
    return _spec(opcode, path, xattr, flags, b",".join(map(_json, plain)), may_be_empty)


def _spec(
    opcode: int, path: str, xattr: bool, flags: int = 0, value: bytes = b"", may_be_empty: bool = False
) -> Spec:
    if not isinstance(path, str):
        raise ArgumentError.pyexc("a path must be a str", obj=path)
    if not path and (xattr or not may_be_empty):
        raise error_of(exceptions.EMPTY_PATH, "this operation needs a path that is not empty")
    encoded = path.encode("utf-8", "surrogatepass")
    if len(encoded) > MAX_PATH_BYTES:
        raise error_of(
            exceptions.SUBDOC_PATH_E2BIG, f"the path has {len(encoded)} bytes; it may have {MAX_PATH_BYTES}"
        )
    return Spec(opcode, flags | (XATTR if xattr else 0), encoded, value)
