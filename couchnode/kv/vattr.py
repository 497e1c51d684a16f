"""Virtual attributes: the node's metadata of a document, readable by path.

Attributes that clients store themselves (XATTRs) do not exist here: reading one finds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from couchbase.protocol.constants import LOCKED_CAS, Datatype, Opcode, Status
from couchnode.data.item import Item, StatusError
from couchnode.data.vbucket import VBucket
from couchnode.kv.session import to_json
from couchnode.kv.subdoc import lookup

_NANOSECONDS = 10**9
_MAX_CRC_BYTES = 256 * 2**10
_CRC32C_POLYNOMIAL = 0x82F63B78


def look_up_attribute(opcode: int, path: bytes, vbucket: VBucket, item: Item) -> bytes:
    """Look up a path in a document's attributes.

    :raises StatusError: SUBDOC_XATTR_UNKNOWN_VATTR for a virtual one that does not exist, and the
        statuses of :func:`couchnode.kv.subdoc.lookup`.
    """
    if opcode == Opcode.SUBDOC_GET and path in _NUMBERS:
        return _NUMBERS[path](item)
    name = path.partition(b".")[0].partition(b"[")[0]
    if not path:
        raise StatusError(Status.SUBDOC_PATH_EINVAL)
    if not name.startswith(b"$"):
        raise StatusError(Status.SUBDOC_PATH_ENOENT)
    if opcode not in (Opcode.SUBDOC_GET, Opcode.SUBDOC_EXISTS):
        raise StatusError(Status.SUBDOC_XATTR_CANT_MODIFY_VATTR)
    attributes: dict[str, Any]
    if name == b"$document":
        attributes = {"$document": _document(vbucket, item, with_crc=path in (b"$document", _CRC_PATH))}
    elif name == b"$vbucket":
        now = str(int(vbucket.now()))
        attributes = {"$vbucket": {"HLC": {"now": now, "mode": "real"}}}
    elif name == b"$XTOC":
        attributes = {"$XTOC": []}
    else:
        raise StatusError(Status.SUBDOC_XATTR_UNKNOWN_VATTR)
    return lookup(opcode, to_json(attributes), path)


_CRC_PATH = b"$document.value_crc32c"
# The attributes that clients request with every read of a document and its expiry: no JSON is built for
# these.
_NUMBERS: dict[bytes, Callable[[Item], bytes]] = {
    b"$document.exptime": lambda item: b"%d" % (0 if item.deleted else item.expiry),
    b"$document.flags": lambda item: b"%d" % item.flags,
}


def _document(vbucket: VBucket, item: Item, with_crc: bool) -> dict[str, Any]:
    cas = vbucket.visible_cas(item)
    fields: dict[str, Any] = {
        "CAS": f"0x{cas:016x}",
        "vbucket_uuid": f"0x{vbucket.uuid:016x}",
        "seqno": f"0x{item.seqno:016x}",
        "revid": str(item.revid),
        "exptime": 0 if item.deleted else item.expiry,
        "value_bytes": len(item.value),
        "datatype": ["json" if item.datatype & Datatype.JSON else "raw"],
        "deleted": item.deleted,
        "flags": item.flags,
    }
    if cas != LOCKED_CAS:
        # The CAS is a clock reading; a lock's is the time of the lock, and hidden.
        fields["last_modified"] = str(item.cas // _NANOSECONDS)
    if with_crc and len(item.value) <= _MAX_CRC_BYTES:
        # Only on request, and not for large values: it reads every byte, in the reactor.
        fields["value_crc32c"] = f"0x{crc32c(item.value):08x}"
    return fields


def _make_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_CRC32C_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _make_table()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of ``data``."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
