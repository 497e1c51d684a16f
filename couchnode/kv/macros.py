"""Macros: values of attributes that the node fills in when it stores them.

Values that depend on the change itself (its CAS, its sequence number, the checksum of the new body) are
unknown while the operations of a command run. A mark takes their place until the document is stored.
"""

from __future__ import annotations

import secrets

from couchbase.protocol.constants import Status
from couchnode.data.item import Item, StatusError
from couchnode.data.vbucket import VBucket
from couchnode.kv.checksums import crc32c
from couchnode.kv.session import to_json
from couchnode.kv.vattr import document_fields

_CAS, _SEQNO, _CRC = b'"${Mutation.CAS}"', b'"${Mutation.seqno}"', b'"${Mutation.value_crc32c}"'
_OF_THE_CHANGE = (_CAS, _SEQNO, _CRC)
_DOCUMENT, _END = b'"${$document', b'}"'
# Fields of the document before the change; without the checksum of its body.
_FIELDS = frozenset(
    {
        "CAS",
        "vbucket_uuid",
        "seqno",
        "revid",
        "exptime",
        "flags",
        "value_bytes",
        "datatype",
        "deleted",
        "last_modified",
    }
)


def check_macro(value: bytes) -> None:
    """Check that a value is exactly one macro.

    :raises StatusError: SUBDOC_XATTR_UNKNOWN_MACRO.
    """
    if value not in _OF_THE_CHANGE and not (value.startswith(_DOCUMENT) and value.endswith(_END)):
        raise StatusError(Status.SUBDOC_XATTR_UNKNOWN_MACRO)


class Macros:
    """The macros of one command.

    :param old: the document before the command, ``None`` if there is none.
    """

    def __init__(self, vbucket: VBucket, old: Item | None) -> None:
        self._vbucket = vbucket
        self._old = old
        self._marks: dict[bytes, bytes] = {}

    def expand(self, macro: bytes) -> bytes:
        """Return the JSON text of a macro, or the mark in its place.

        :raises StatusError: SUBDOC_XATTR_UNKNOWN_VATTR_MACRO for a field that ``$document`` does not
            have, or that is not a macro.
        """
        if macro in _OF_THE_CHANGE:
            mark = self._marks.get(macro)
            if mark is None:
                # The mark has the length of its replacement, so that size limits apply to the stored form. No
                # value of a client contains the mark, because clients cannot know it.
                size = 4 if macro == _CRC else 8
                mark = self._marks[macro] = b'"%b"' % secrets.token_urlsafe(size * 2)[: size * 2 + 2].encode()
            return mark
        fields = document_fields(self._vbucket, self._old)
        name = macro[len(_DOCUMENT) : -len(_END)].decode("utf-8", "replace")
        if not name:
            body = self._old.value if self._old is not None else b""
            return to_json({**fields, "value_crc32c": f"0x{crc32c(body):08x}"})
        if name[0] != "." or name[1:] not in _FIELDS & fields.keys():
            raise StatusError(Status.SUBDOC_XATTR_UNKNOWN_VATTR_MACRO)
        return to_json(fields[name[1:]])

    def settle(self, xattrs: bytes, cas: int, seqno: int, body: bytes) -> bytes:
        """Replace the marks by the values of the completed change."""
        for macro, mark in self._marks.items():
            if macro == _CAS:
                # In the byte order of the first servers that had macros, which all readers of it expect.
                value = f'"0x{cas.to_bytes(8, "little").hex()}"'
            elif macro == _SEQNO:
                value = f'"0x{seqno:016x}"'
            else:
                value = f'"0x{crc32c(body):08x}"'
            xattrs = xattrs.replace(mark, value.encode())
        return xattrs
