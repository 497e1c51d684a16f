"""Commands for the state of documents and vbuckets: observed, persisted, replicated."""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise
from struct import Struct

from couchbase.protocol.constants import Datatype, Feature, ObserveState, Opcode, Status
from couchbase.protocol.frames import encode_response
from couchbase.protocol.leb128 import encode_leb128
from couchnode.access.rights import READ, SYSTEM_XATTR_READ
from couchnode.data.attributes import section
from couchnode.data.item import StatusError
from couchnode.data.keys import document_key
from couchnode.data.manifest import DEFAULT_ID
from couchnode.data.randomitem import random_item
from couchnode.data.vbucket import VBucket
from couchnode.kv.aside import then, with_datatype, work_in_turns
from couchnode.kv.commands.request import (
    Answer,
    CommandRequest,
    find_collection,
    has,
    require,
    require_visible,
    resolve_key,
)
from couchnode.kv.commands.table import CasRule, Presence, Scope, command, find_vbucket

_U32 = Struct(">I")
_U64 = Struct(">Q")
_OBSERVE_KEY = Struct(">HH")
_OBSERVE_STATE = Struct(">BQ")
_SAME_HISTORY = Struct(">BHQQQ")
_OTHER_HISTORY = Struct(">BHQQQQQ")
_LOG_ENTRY = Struct(">QQ")
# A look-up of an enumeration's member takes as long as that of the document.
_STATES = ObserveState.FOUND, ObserveState.PERSISTED
_GONE, _NOT_YET_GONE = ObserveState.NOT_FOUND, ObserveState.LOGICALLY_DELETED
_OBSERVED_A_TURN = 2000


@command(Opcode.OBSERVE, scope=Scope.DATA, value=Presence.REQUIRED)
def observe(request: CommandRequest) -> Answer:
    """MCBP: observe, for any number of keys in vbuckets of this node, active or replica."""
    observed_all = work_in_turns(request.session.node.cluster.clock, _observe(request))
    return then(observed_all, lambda value: request.session.success(request.frame, value=value))


def _observe(request: CommandRequest) -> Generator[None, None, bytes]:
    """Return the value of the answer to OBSERVE, after some keys in each turn of the reactor."""
    data, session, bucket = request.frame.value, request.session, request.bucket
    answer = bytearray()
    at = count = 0
    while at < len(data):
        count += 1
        if count % _OBSERVED_A_TURN == 0:
            yield
            if bucket.state != "ready":
                raise StatusError(Status.ETMPFAIL, f"bucket {bucket.name}: {bucket.state}")
        if len(data) - at < _OBSERVE_KEY.size:
            raise StatusError(Status.EINVAL, "the list of keys is cut off")
        vbid, size = _OBSERVE_KEY.unpack_from(data, at)
        at += _OBSERVE_KEY.size
        key = data[at : at + size]
        if len(key) != size:
            raise StatusError(Status.EINVAL, "the list of keys is cut off")
        at += size
        vbucket = find_vbucket(bucket, vbid, Scope.HOSTED)
        collection, held_key = resolve_key(session, bucket, key)
        require_visible(request, collection)
        state, cas = observed(vbucket, held_key)
        answer += _OBSERVE_KEY.pack(vbid, size) + key + _OBSERVE_STATE.pack(state, cas)
    return bytes(answer)


def observed(vbucket: VBucket, key: bytes) -> tuple[ObserveState, int]:
    """Return OBSERVE's result for one key on this copy: its state and its CAS (0 if unknown)."""
    item = vbucket.get(key)
    if item is not None:
        return _STATES[vbucket.is_persisted(item)], vbucket.visible_cas(item)
    tombstone = vbucket.tombstone(key)
    if tombstone is None:
        return _GONE, 0
    return _GONE if vbucket.is_persisted(tombstone) else _NOT_YET_GONE, tombstone.cas


@command(Opcode.OBSERVE_SEQNO, scope=Scope.HOSTED, value=Presence.REQUIRED, cas=CasRule.ANY)
def observe_seqno(request: CommandRequest) -> Answer:
    """MCBP: observe seqno. A uuid of an older branch gets the second form of the answer."""
    value, vbucket = request.frame.value, request.vbucket
    if len(value) != _U64.size:
        raise StatusError(Status.EINVAL, f"the vbucket uuid has 8 bytes, not {len(value)}")
    (uuid,) = _U64.unpack(value)
    have = (vbucket.persisted_seqno, vbucket.high_seqno)
    if uuid == vbucket.uuid:
        answer = _SAME_HISTORY.pack(0, vbucket.id, uuid, *have)
        return request.session.success(request.frame, value=answer)
    log = vbucket.failover_log
    for newer, (older_uuid, _) in pairwise(log):
        if older_uuid == uuid:
            # The branch ended where the next newer one began.
            answer = _OTHER_HISTORY.pack(1, vbucket.id, vbucket.uuid, *have, uuid, newer[1])
            return request.session.success(request.frame, value=answer)
    raise StatusError(Status.KEY_ENOENT, "the vbucket has no history of that uuid")


@command(Opcode.GET_FAILOVER_LOG, scope=Scope.HOSTED, cas=CasRule.ANY)
def get_failover_log(request: CommandRequest) -> Answer:
    """MCBP: get failover log, newest entry first."""
    entries = (_LOG_ENTRY.pack(uuid, seqno) for uuid, seqno in request.vbucket.failover_log)
    return request.session.success(request.frame, value=b"".join(entries))


@command(Opcode.SEQNO_PERSISTENCE, scope=Scope.HOSTED, extras=(8,))
def seqno_persistence(request: CommandRequest) -> Answer:
    """MCBP: seqno persistence: answer once that sequence number is on the disk."""
    (seqno,) = _U64.unpack(request.frame.extras)
    waiting = request.bucket.flusher.wait(request.vbucket, seqno)
    return waiting.addCallback(lambda _: request.session.success(request.frame))


@command(Opcode.GET_RANDOM_KEY, scope=Scope.DATA, extras=(0, 4, 5))
def get_random_key(request: CommandRequest) -> Answer:
    """MCBP: get random key, with the flags in the extras. A fifth byte of the request's extras that is not 0
    asks for the document's attributes before its body."""
    session, extras = request.session, request.frame.extras
    if bool(extras) != session.collections:
        raise StatusError(
            Status.EINVAL, "extras hold a collection id, with collections enabled and only then"
        )
    with_attributes = bool(extras[4:].strip(b"\0"))
    if with_attributes and Feature.GET_RANDOM_KEY_INCLUDE_XATTR not in session.features:
        raise StatusError(Status.EINVAL, "attributes need GET_RANDOM_KEY_INCLUDE_XATTR (0x24)")
    (number,) = _U32.unpack_from(extras) if extras else (DEFAULT_ID,)
    request.collection = find_collection(request.bucket, number)
    require(request, (READ,), request.collection)
    item = random_item(request.bucket, encode_leb128(number))
    if item is None:
        raise StatusError(Status.KEY_ENOENT)
    key = item.key if session.collections else document_key(item.key)
    attributes = b""
    if with_attributes and item.xattrs:
        attributes = section(item.xattrs, has(request, SYSTEM_XATTR_READ))
    found, mask = item, session.datatype_mask

    def answer() -> bytes:
        datatype = found.datatype & mask if mask else 0
        return encode_response(
            request.frame.opcode,
            extras=_U32.pack(found.flags),
            key=key,
            value=attributes + found.value,
            opaque=request.frame.opaque,
            cas=found.cas,
            datatype=datatype | Datatype.XATTR if attributes else datatype,
        )

    return with_datatype(session.node.cluster.clock, found if mask else None, answer)
