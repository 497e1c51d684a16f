"""Virtual attributes: what the node knows about a document and its vbucket, readable by path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from couchbase.protocol.constants import LOCKED_CAS, Datatype, Opcode, Status
from couchnode.data.attributes import is_system, names
from couchnode.data.item import Item, StatusError
from couchnode.data.vbucket import VBucket
from couchnode.kv.checksums import crc32c
from couchnode.kv.session import to_json
from couchnode.kv.subdoc import lookup

_NANOSECONDS = 10**9


def look_up_virtual(
    opcode: int, path: bytes, key: bytes, vbucket: VBucket, item: Item, with_system: bool
) -> bytes:
    """Look up a path that begins with a virtual attribute.

    :param key: the attribute's name, with which the path begins.
    :param with_system: list the system attributes too, in ``$XTOC``.
    :raises StatusError: SUBDOC_XATTR_UNKNOWN_VATTR if the attribute does not exist, and the statuses of
        :func:`couchnode.kv.subdoc.lookup`.
    """
    if opcode == Opcode.SUBDOC_GET and path in _NUMBERS:
        return _NUMBERS[path](item)
    value: Any
    if key == b"$document":
        value = document_fields(vbucket, item)
        if path in (key, _CRC_PATH):
            # Only on request: it reads every byte of the body.
            value["value_crc32c"] = f"0x{crc32c(item.value):08x}"
    elif key == b"$vbucket":
        now, stands_still = vbucket.hybrid_now()
        value = {"HLC": {"mode": "logical" if stands_still else "real", "now": str(now)}}
    elif key == b"$XTOC":
        value = [name for name in names(item.xattrs) if with_system or not is_system(name)]
    else:
        raise StatusError(Status.SUBDOC_XATTR_UNKNOWN_VATTR)
    return lookup(opcode, to_json({key.decode(): value}), path)


_CRC_PATH = b"$document.value_crc32c"
# The attributes that clients request with every read of a document and its expiry: no JSON is built for
# these.
_NUMBERS: dict[bytes, Callable[[Item], bytes]] = {
    b"$document.exptime": lambda item: b"%d" % (0 if item.deleted else item.expiry),
    b"$document.flags": lambda item: b"%d" % item.flags,
}


def document_fields(vbucket: VBucket, item: Item | None) -> dict[str, Any]:
    """Return ``$document`` without the checksum of the body; without a document, all fields are zero."""
    if item is None:
        item, uuid = Item(b"", b"", 0, 0, 0, 0, 0), 0
    else:
        uuid = vbucket.uuid
    cas = vbucket.visible_cas(item)
    kinds = {"json": item.datatype & Datatype.JSON, "xattr": item.xattrs}
    fields: dict[str, Any] = {
        "CAS": f"0x{cas:016x}",
        "datatype": [name for name, has in kinds.items() if has] or ["raw"],
        "deleted": item.deleted,
        "exptime": 0 if item.deleted else item.expiry,
        "flags": item.flags,
        "revid": str(item.revid),
        "seqno": f"0x{item.seqno:016x}",
        "value_bytes": len(item.value),
        "vbucket_uuid": f"0x{uuid:016x}",
    }
    if cas and cas != LOCKED_CAS:
        # The CAS is a clock reading. The CAS of a lock is the time of the lock, which stays hidden.
        fields["last_modified"] = str(item.cas // _NANOSECONDS)
    return fields
