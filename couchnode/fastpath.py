"""GET and SET of the usual form, without the table's ceremony.

Two commands make up nearly all traffic. Whatever is unusual about one of them (a miss, a lock, an
expiry, an error) is left to :func:`couchnode.commands.dispatch`, which decides from scratch, so
the rules stay in one place.
"""

from __future__ import annotations

from struct import Struct

from couchbase.protocol.constants import MAX_KEY_BYTES, MAX_VALUE_BYTES, Magic, Opcode
from couchbase.protocol.frames import Frame
from couchnode.bucket import NodeBucket
from couchnode.item import Refused
from couchnode.session import Session
from couchnode.vbucket import StoreMode

_GET_ANSWER = Struct(">BBHBBHIIQI")
_SET_ANSWER = Struct(">BBHBBHIIQ")
_SET_TOKEN_ANSWER = Struct(">BBHBBHIIQQQ")
_STORE_EXTRAS = Struct(">II")
_GET, _SET = int(Opcode.GET), int(Opcode.SET)
_REQUEST, _RESPONSE = int(Magic.REQUEST), int(Magic.RESPONSE)
_FLAGS_BYTES, _TOKEN_BYTES = 4, 16
_DEFAULT_COLLECTION = b"\0"


def quick_answer(session: Session, bucket: NodeBucket, frame: Frame) -> bytes | None:
    """Answer a GET or SET of the usual form; ``None`` leaves the request as it was.

    :param bucket: the session's bucket, which must be ready.
    """
    magic, opcode, vbid, datatype, opaque, cas, _, extras, key, value = frame
    if opcode > _SET or magic != _REQUEST or cas or vbid >= len(bucket.vbuckets):
        return None
    vbucket = bucket.vbuckets[vbid]
    if vbucket is None or vbucket.state != "active":
        return None
    if session.collections:
        if key[:1] != _DEFAULT_COLLECTION:
            return None
        key = key[1:]
    if not 0 < len(key) <= MAX_KEY_BYTES:
        return None
    if opcode == _GET:
        item = vbucket.items.get(key)
        if item is None or item.expiry or item.lock_until or extras or value or datatype:
            return None
        bucket.gets += 1
        body = item.value
        kind = item.datatype & session.datatype_mask
        size = _FLAGS_BYTES + len(body)
        return (
            _GET_ANSWER.pack(_RESPONSE, _GET, 0, _FLAGS_BYTES, kind, 0, size, opaque, item.cas, item.flags)
            + body
        )
    if datatype > 1 or len(extras) != _STORE_EXTRAS.size or len(value) > MAX_VALUE_BYTES:
        return None
    flags, expiry = _STORE_EXTRAS.unpack(extras)
    try:
        item = vbucket.store(StoreMode.SET, key, value, flags, expiry)
    except Refused as refusal:
        return session.refusal(frame, refusal.status, refusal.context)
    bucket.stores += 1
    if not session.tokens:
        return _SET_ANSWER.pack(_RESPONSE, _SET, 0, 0, 0, 0, 0, opaque, item.cas)
    return _SET_TOKEN_ANSWER.pack(
        *(_RESPONSE, _SET, 0, _TOKEN_BYTES, 0, 0, _TOKEN_BYTES, opaque, item.cas),
        *(vbucket.uuid, item.seqno),
    )
