"""Changes of one document other than stores, and observation, for the fast path.

Each function takes a request of the usual form and returns what the answer needs; it returns ``None`` for one
of another form, which is left to the general path with nothing changed. Refusals are raised, as there.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from couchbase.protocol.constants import DEFAULT_LOCK_SECONDS, LOCKED_CAS, Opcode
from couchnode.data.bucket import NodeBucket
from couchnode.data.item import LONG_BYTES, Item
from couchnode.data.keys import DEFAULT_PREFIX, MAX_NAMED_KEY_BYTES
from couchnode.data.vbucket import VBucket
from couchnode.kv.commands.status import observed

# vbucket, held key, extras, value, CAS -> the new version, and the value of the answer.
Edit = Callable[[VBucket, bytes, bytes, bytes, int], "tuple[Item, bytes] | None"]

_U32, _U64, _COUNTER = Struct(">I"), Struct(">Q"), Struct(">QQI")
_OBSERVE_KEY, _OBSERVE_STATE, _SAME_HISTORY = Struct(">HH"), Struct(">BQ"), Struct(">BHQQQ")
_KEY_HEADER_BYTES = _OBSERVE_KEY.size
_USUAL_KEY_BYTES = len(DEFAULT_PREFIX) + MAX_NAMED_KEY_BYTES
_OBSERVE = int(Opcode.OBSERVE)
_NONE = Item(b"", b"", 0, 0, 0, 0, 0)
# Longer lists are worked through in several turns of the reactor.
_MOST_OBSERVED_BYTES = 16 * 2**10


def _touched(
    vbucket: VBucket, key: bytes, extras: bytes, value: bytes, cas: int
) -> tuple[Item, bytes] | None:
    if len(extras) != _U32.size or value or cas:
        return None
    return vbucket.touch(key, _U32.unpack(extras)[0]), b""


def _fetched(
    vbucket: VBucket, key: bytes, extras: bytes, value: bytes, cas: int
) -> tuple[Item, bytes] | None:
    if len(extras) != _U32.size or value or cas:
        return None
    if len(vbucket.items.get(key, _NONE).value) >= LONG_BYTES:  # its datatype may have to be found first
        return None
    return vbucket.touch(key, _U32.unpack(extras)[0]), b""


def _locked(vbucket: VBucket, key: bytes, extras: bytes, value: bytes, cas: int) -> tuple[Item, bytes] | None:
    if len(extras) not in (0, _U32.size) or value or cas:
        return None
    if len(vbucket.items.get(key, _NONE).value) >= LONG_BYTES:
        return None
    return vbucket.lock(key, _U32.unpack(extras)[0] if extras else DEFAULT_LOCK_SECONDS), b""


def _unlocked(
    vbucket: VBucket, key: bytes, extras: bytes, value: bytes, cas: int
) -> tuple[Item, bytes] | None:
    if extras or value or cas in (0, LOCKED_CAS):
        return None
    return vbucket.unlock(key, cas), b""


def _incremented(
    vbucket: VBucket, key: bytes, extras: bytes, value: bytes, cas: int
) -> tuple[Item, bytes] | None:
    if len(extras) != _COUNTER.size or value or cas:
        return None
    item, number = vbucket.increment(key, *_COUNTER.unpack(extras))
    return item, _U64.pack(number)


def _decremented(
    vbucket: VBucket, key: bytes, extras: bytes, value: bytes, cas: int
) -> tuple[Item, bytes] | None:
    if len(extras) != _COUNTER.size or value or cas:
        return None
    item, number = vbucket.decrement(key, *_COUNTER.unpack(extras))
    return item, _U64.pack(number)


def _appended(
    vbucket: VBucket, key: bytes, extras: bytes, value: bytes, cas: int
) -> tuple[Item, bytes] | None:
    return None if extras else (vbucket.concat(key, value, cas, before=False), b"")


def _prepended(
    vbucket: VBucket, key: bytes, extras: bytes, value: bytes, cas: int
) -> tuple[Item, bytes] | None:
    return None if extras else (vbucket.concat(key, value, cas, before=True), b"")


EDITS: dict[int, Edit] = {
    int(Opcode.TOUCH): _touched,
    int(Opcode.GAT): _fetched,
    int(Opcode.GET_LOCKED): _locked,
    int(Opcode.UNLOCK): _unlocked,
    int(Opcode.INCREMENT): _incremented,
    int(Opcode.DECREMENT): _decremented,
    int(Opcode.APPEND): _appended,
    int(Opcode.PREPEND): _prepended,
}
"""Opcode -> what it does. Their requests carry no datatype."""

FETCHING = frozenset({int(Opcode.GAT), int(Opcode.GET_LOCKED)})
"""Those that answer with the document."""

CAS_ONLY = {int(Opcode.TOUCH): True, int(Opcode.UNLOCK): False}
"""Those whose answer is a header without a token -> whether it has the document's CAS."""

STORING = frozenset({int(Opcode.INCREMENT), int(Opcode.DECREMENT), int(Opcode.APPEND), int(Opcode.PREPEND)})
"""Those that count as stores."""

OBSERVES = frozenset({_OBSERVE, int(Opcode.OBSERVE_SEQNO)})


def observation(
    bucket: NodeBucket, opcode: int, vbucket: VBucket | None, value: bytes, *, prefixed: bool
) -> bytes | None:
    """Return the value of the answer to an OBSERVE or OBSERVE_SEQNO.

    :param vbucket: the one in the header of the request, in any state.
    :param prefixed: whether keys begin with the prefix of a collection.
    """
    if opcode != _OBSERVE:
        if vbucket is None or value != _U64.pack(vbucket.uuid):
            return None
        return _SAME_HISTORY.pack(0, vbucket.id, vbucket.uuid, vbucket.persisted_seqno, vbucket.high_seqno)
    vbuckets, collections = bucket.vbuckets, bucket.collections
    at, end = 0, len(value)
    if end > _MOST_OBSERVED_BYTES:
        return None
    answer: list[bytes] = []
    while at < end:
        key_at = at + _KEY_HEADER_BYTES
        if key_at > end:
            return None
        vbid, size = _OBSERVE_KEY.unpack_from(value, at)
        key_end = key_at + size
        if key_end > end or vbid >= len(vbuckets):
            return None
        key = value[key_at:key_end]
        if not prefixed:
            key = DEFAULT_PREFIX + key
        copy = vbuckets[vbid]
        if copy is None or not 1 < len(key) <= _USUAL_KEY_BYTES or key[0] not in collections.quick:
            return None
        answer += value[at:key_end], _OBSERVE_STATE.pack(*observed(copy, key))
        at = key_end
    return b"".join(answer) if answer else None
