"""The documents of one vbucket and collection: range scans, by key range or as a random sample, and lists of
keys."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, NamedTuple

from twisted.internet.task import Cooperator

from couchbase.protocol.constants import MAX_KEY_BYTES, Datatype, Feature, Opcode, Status
from couchbase.protocol.frames import encode_response
from couchnode.access.rights import RANGE_SCAN, SYSTEM_XATTR_READ
from couchnode.data.item import StatusError
from couchnode.data.keys import end_of
from couchnode.data.rangescan import ID_BYTES, RangeScan, Selection
from couchnode.data.vbucket import VBucket
from couchnode.kv.aside import with_datatype
from couchnode.kv.commands.request import Answer, CommandRequest, find_collection, has, require
from couchnode.kv.commands.table import Presence, Scope, command

MAX_NAME_BYTES = 50
"""Longest name of a scan."""

DEFAULT_KEYS, MOST_KEYS = 1000, 100_000
"""Keys in the answer to GET_KEYS, without a number and at most."""

_U16 = Struct(">H")
_U32 = Struct(">I")
_CONTINUE = Struct(f">{ID_BYTES}sIII")
_KEYS, _DOCUMENTS = b"\0\0\0\0", b"\0\0\0\1"
_MAX_BODY_BYTES = 16 * 1024
_JSON = int(Datatype.JSON)


class SnapshotRequirements(NamedTuple):
    """What a scan has to include.

    :ivar uuid: the vbucket's history that ``seqno`` belongs to.
    :ivar must_exist: whether there must be a document or a deletion at exactly ``seqno``.
    """

    uuid: int
    seqno: int
    must_exist: bool = False


class ScanRequest(NamedTuple):
    """The body of RANGE_SCAN_CREATE.

    :ivar start, end: the scan has the keys with ``start <= key < end``; ``end`` is ``None`` for no limit.
    :ivar with_attributes: whether documents have their extended attributes; ``None`` if not mentioned.
    """

    collection: int
    keys_only: bool
    start: bytes
    end: bytes | None
    samples: int | None
    seed: int
    requirements: SnapshotRequirements | None
    with_attributes: bool | None


def read_scan_request(body: bytes) -> ScanRequest:
    """Read the JSON body of RANGE_SCAN_CREATE; members that are not known are ignored.

    :raises StatusError: EINVAL, with the member that is wrong.
    """
    try:
        if len(body) > _MAX_BODY_BYTES:
            raise ValueError(f"the body has at most {_MAX_BODY_BYTES} bytes")
        members = _object(json.loads(body), "the body")
        return _read(members)
    except (ValueError, RecursionError) as fault:
        raise StatusError(Status.EINVAL, f"range scan: {fault}") from None


def _read(members: Mapping[str, Any]) -> ScanRequest:
    keys_only = bool(_boolean(members, "key_only"))
    attributes = _boolean(members, "include_xattrs")
    if attributes and keys_only:
        raise ValueError("include_xattrs and key_only exclude each other")
    name = members.get("name", "")
    if not isinstance(name, str) or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise ValueError(f"name is a string of at most {MAX_NAME_BYTES} bytes")
    start, end, samples, seed = b"", None, None, 0
    if "range" in members:
        if "sampling" in members:
            raise ValueError("range and sampling exclude each other")
        start, end = _range(_object(members["range"], "range"))
    elif "sampling" in members:
        sampling = _object(members["sampling"], "sampling")
        samples, seed = _unsigned(sampling, "samples"), _unsigned(sampling, "seed", 0)
    requirements = None
    if "snapshot_requirements" in members:
        requirements = _requirements(_object(members["snapshot_requirements"], "snapshot_requirements"))
    collection = _collection(members.get("collection", "0"))
    return ScanRequest(collection, keys_only, start, end, samples, seed, requirements, attributes)


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a JSON object")
    return value


def _boolean(members: Mapping[str, Any], name: str) -> bool | None:
    value = members.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{name} is true or false")
    return value


def _unsigned(members: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = members.get(name, default)
    if type(value) is not int or not 0 <= value < 2**64:
        raise ValueError(f"{name} is an integer from 0 to 2^64-1")
    return value


def _collection(text: Any) -> int:
    if not isinstance(text, str) or not text.isascii() or not 0 < len(text) <= 10:
        raise ValueError("collection is a number of 32 bits in hexadecimal")
    number = int(text, 16) if text.isalnum() else -1
    if not 0 <= number < 2**32:
        raise ValueError("collection is a number of 32 bits in hexadecimal")
    return number


def _range(members: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the first key of the range, and the first after it."""
    start, is_open = _bound(members, "start", "excl_start")
    end, ends_before = _bound(members, "end", "excl_end")
    # The next key after one is that with a NUL behind it.
    return start + b"\0" if is_open else start, end if ends_before else end + b"\0"


def _bound(members: Mapping[str, Any], inclusive: str, exclusive: str) -> tuple[bytes, bool]:
    if (inclusive in members) == (exclusive in members):
        raise ValueError(f"range has either {inclusive} or {exclusive}")
    name = inclusive if inclusive in members else exclusive
    try:
        key = b64decode(members[name], validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ValueError(f"{name} is a key in base64") from None
    if len(key) > MAX_KEY_BYTES:
        raise ValueError(f"{name} has at most {MAX_KEY_BYTES} bytes")
    return key, name == exclusive


def _requirements(members: Mapping[str, Any]) -> SnapshotRequirements:
    uuid = members.get("vb_uuid")
    if not isinstance(uuid, str) or not uuid.isascii() or not uuid.isdigit() or len(uuid) > 20:
        raise ValueError("vb_uuid is a decimal number in a string")
    _unsigned(members, "timeout_ms", 0)
    return SnapshotRequirements(
        int(uuid), _unsigned(members, "seqno"), bool(_boolean(members, "seqno_exists"))
    )


@command(Opcode.RANGE_SCAN_CREATE, scope=Scope.ACTIVE, value=Presence.REQUIRED, datatypes=_JSON)
def create(request: CommandRequest) -> Answer:
    """MCBP: range scan create. The answer has the scan's id.

    A scan shows what is in memory, so a sequence number of this vbucket's history never has to be waited for.
    """
    frame, session, bucket, vbucket = request.frame, request.session, request.bucket, request.vbucket
    if frame.datatype != _JSON or Feature.JSON not in session.features:
        raise StatusError(Status.EINVAL, "the body is JSON, and says so")
    wanted = read_scan_request(frame.value)
    if wanted.with_attributes is not None and Feature.XATTR not in session.features:
        raise StatusError(Status.NOT_SUPPORTED, "include_xattrs needs XATTR (0x06)")
    request.collection = find_collection(bucket, wanted.collection)
    require(request, (RANGE_SCAN,), request.collection)
    prefix = request.collection.prefix
    if wanted.requirements is not None:
        _check_requirements(vbucket, wanted.requirements)
    bucket.scans.check_room()
    end = end_of(prefix) if wanted.end is None else prefix + wanted.end
    selection = Selection(prefix + wanted.start, end, wanted.samples, wanted.seed & 0xFFFFFFFF)
    scan = RangeScan(
        vbucket,
        selection,
        len(prefix),
        keys_only=wanted.keys_only,
        with_attributes=bool(wanted.with_attributes),
        with_system=has(request, SYSTEM_XATTR_READ),
    )

    def opened() -> bytes:
        if scan.is_over:
            raise StatusError(Status.KEY_ENOENT)
        return session.success(frame, value=bucket.scans.add(scan))

    return _collected(request, scan, opened)


def _check_requirements(vbucket: VBucket, wanted: SnapshotRequirements) -> None:
    if wanted.uuid != vbucket.uuid:
        raise StatusError(Status.VBUUID_NOT_EQUAL, "the vbucket's newest history has another uuid")
    if wanted.seqno > vbucket.high_seqno:
        raise StatusError(Status.ETMPFAIL, f"sequence number {wanted.seqno} is not given yet")
    if wanted.must_exist and not any(
        item.seqno == wanted.seqno for held in (vbucket.items, vbucket.tombstones) for item in held.values()
    ):
        raise StatusError(Status.NOT_STORED, f"there is no document at sequence number {wanted.seqno}")


@command(Opcode.RANGE_SCAN_CONTINUE, scope=Scope.ACTIVE, extras=(_CONTINUE.size,))
def resume(request: CommandRequest) -> Answer:
    """MCBP: range scan continue: the next documents, in one or more answers.

    The time limit is always kept, as a page never takes that long.
    """
    first = _find(request, request.frame.extras[:ID_BYTES]).first
    needed = first if request.session.datatype_mask else None
    return with_datatype(request.session.node.cluster.clock, needed, lambda: _next_page(request))


def _next_page(request: CommandRequest) -> bytes:
    frame, session, bucket = request.frame, request.session, request.bucket
    identifier, items, _, size = _CONTINUE.unpack(frame.extras)
    scan = _find(request, identifier)
    page = scan.page(items, size, session.datatype_mask & _JSON)
    status = Status.RANGE_SCAN_MORE
    if page.is_last:
        status = Status.RANGE_SCAN_COMPLETE
        bucket.scans.remove(identifier)
    extras = _KEYS if scan.keys_only else _DOCUMENTS
    *partial, last = page.pieces
    answers = [
        encode_response(frame.opcode, 0, extras=extras, value=piece, opaque=frame.opaque) for piece in partial
    ]
    answers.append(encode_response(frame.opcode, status, extras=extras, value=last, opaque=frame.opaque))
    return b"".join(answers)


def _find(request: CommandRequest, identifier: bytes) -> RangeScan:
    """Return the scan, unless its vbucket was emptied or its collection dropped since.

    :raises StatusError: KEY_ENOENT, RANGE_SCAN_CANCELLED or UNKNOWN_COLLECTION.
    """
    scans = request.bucket.scans
    scan = scans.find(identifier, request.vbucket.id)
    if not request.bucket.collections.has(scan.start):
        scans.remove(identifier)
        raise StatusError(Status.UNKNOWN_COLLECTION, "the collection was dropped")
    if scan.vbucket is not request.vbucket:
        scans.remove(identifier)
        raise StatusError(Status.RANGE_SCAN_CANCELLED, "the bucket was flushed, or the vbucket has moved")
    return scan


@command(Opcode.RANGE_SCAN_CANCEL, scope=Scope.ACTIVE, extras=(ID_BYTES,))
def cancel(request: CommandRequest) -> Answer:
    """MCBP: range scan cancel."""
    scans, identifier = request.bucket.scans, request.frame.extras
    scans.find(identifier, request.vbucket.id)
    scans.remove(identifier)
    return request.session.success(request.frame)


@command(Opcode.GET_KEYS, scope=Scope.ACTIVE, key=Presence.REQUIRED, extras=(0, _U32.size))
def get_keys(request: CommandRequest) -> Answer:
    """MCBP: get keys: those of the key's collection from that one on, each behind its length.

    Couchbase Server lists what is on disk; this node includes what is in memory.
    """
    frame, session = request.frame, request.session
    (count,) = _U32.unpack(frame.extras) if frame.extras else (DEFAULT_KEYS,)
    prefix = request.collection.prefix
    cut = 0 if session.collections else len(prefix)
    selection = Selection(request.key, end_of(prefix))
    scan = RangeScan(request.vbucket, selection, cut, keys_only=True)

    def listed() -> bytes:
        keys = scan.keys(min(count, MOST_KEYS))
        return session.success(frame, value=b"".join([_U16.pack(len(key)) + key for key in keys]))

    return _collected(request, scan, listed)


def _collected(request: CommandRequest, scan: RangeScan, answer: Callable[[], bytes]) -> Answer:
    """Answer when the documents of a scan are collected."""
    steps = scan.collect()
    if next(steps, steps) is steps:
        return answer()
    clock = request.session.node.cluster.clock
    cooperator = Cooperator(scheduler=lambda work: clock.callLater(0, work))
    return cooperator.coiterate(steps).addCallback(lambda _: answer())
