"""Commands that read and change one document."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import cast

from couchbase.protocol.constants import (
    DEFAULT_LOCK_SECONDS,
    LOCKED_CAS,
    Datatype,
    Feature,
    Opcode,
    Status,
)
from couchbase.protocol.frames import encode_response
from couchnode.access.rights import SYSTEM_XATTR_READ
from couchnode.data.attributes import section
from couchnode.data.item import Item, StatusError
from couchnode.data.storemode import StoreMode
from couchnode.kv.aside import with_datatype
from couchnode.kv.commands.request import Answer, CommandRequest, has
from couchnode.kv.commands.table import STORE_DATATYPES, CasRule, Handler, Presence, Scope, command

_U32 = Struct(">I")
_U64 = Struct(">Q")
_STORE_EXTRAS = Struct(">II")
_COUNTER_EXTRAS = Struct(">QQI")
_META_EXTRAS = Struct(">IIIQ")
_REQUIRED = Presence.REQUIRED
_OPTIONAL = Presence.OPTIONAL


def _when_known(request: CommandRequest, item: Item | None, answer: Callable[[], Answer]) -> Answer:
    """Answer when the datatype of a document is known, if the connection wants to know it."""
    if not request.session.datatype_mask:
        return answer()
    return cast("Answer", with_datatype(request.session.node.cluster.clock, item, answer))


def _get(request: CommandRequest, key: bytes = b"") -> Answer:
    item = request.vbucket.get(request.key)
    return _when_known(request, item, lambda: _found(request, item, key))


def _found(request: CommandRequest, item: Item | None, key: bytes = b"", cas: int | None = None) -> bytes:
    """Answer with a document; ``cas`` if it differs from the CAS for readers."""
    bucket = request.bucket
    bucket.gets += 1
    if item is None:
        bucket.misses += 1
        raise StatusError(Status.KEY_ENOENT)
    return request.session.success(
        request.frame,
        extras=_U32.pack(item.flags),
        key=key,
        value=item.value,
        cas=request.vbucket.visible_cas(item) if cas is None else cas,
        datatype=item.datatype if request.session.datatype_mask else 0,
    )


@command(Opcode.GET, scope=Scope.ACTIVE, key=_REQUIRED, quiet_twin=Opcode.GETQ, quiet=Status.KEY_ENOENT)
def get(request: CommandRequest) -> Answer:
    """MCBP: get. A locked document is readable; its CAS is hidden."""
    return _get(request)


@command(Opcode.GETK, scope=Scope.ACTIVE, key=_REQUIRED, quiet_twin=Opcode.GETKQ, quiet=Status.KEY_ENOENT)
def get_with_key(request: CommandRequest) -> Answer:
    """MCBP: getk. The answer repeats the requested key, collection prefix included."""
    return _get(request, request.frame.key)


@command(Opcode.GET_REPLICA, scope=Scope.REPLICA, key=_REQUIRED)
def get_replica(request: CommandRequest) -> Answer:
    """MCBP: get replica. Only a node that holds the vbucket as a replica answers."""
    return _get(request)


@command(Opcode.GETEX, scope=Scope.ACTIVE, key=_REQUIRED)
def get_with_attributes(request: CommandRequest) -> Answer:
    """MCBP: getex. The value is the section of attributes, if there are any, and the body behind it."""
    return _found_with_attributes(request)


@command(Opcode.GETEX_REPLICA, scope=Scope.REPLICA, key=_REQUIRED)
def get_replica_with_attributes(request: CommandRequest) -> Answer:
    """MCBP: getex replica."""
    return _found_with_attributes(request)


_GETEX_FEATURES = frozenset({Feature.SNAPPY_EVERYWHERE, Feature.XATTR, Feature.JSON})


def _found_with_attributes(request: CommandRequest) -> Answer:
    session, bucket = request.session, request.bucket
    if not session.features >= _GETEX_FEATURES:
        raise StatusError(
            Status.NOT_SUPPORTED, "it needs SNAPPY_EVERYWHERE (0x13), XATTR (0x06) and JSON (0x0b)"
        )
    item = request.vbucket.get(request.key)
    bucket.gets += 1
    if item is None:
        bucket.misses += 1
        raise StatusError(Status.KEY_ENOENT)
    found = item

    def answer() -> bytes:
        attributes = section(found.xattrs, has(request, SYSTEM_XATTR_READ)) if found.xattrs else b""
        return encode_response(
            request.frame.opcode,
            extras=_U32.pack(found.flags),
            value=attributes + found.value,
            opaque=request.frame.opaque,
            cas=request.vbucket.visible_cas(found),
            datatype=found.datatype | (Datatype.XATTR if attributes else 0),
        )

    return _when_known(request, item, answer)


@command(Opcode.GET_META, scope=Scope.ACTIVE, key=_REQUIRED, extras=(0, 1),
         quiet_twin=Opcode.GET_METAQ, quiet=Status.KEY_ENOENT)  # fmt: skip
def get_meta(request: CommandRequest) -> Answer:
    """MCBP: get meta, versions 1 and 2. A remembered tombstone counts as found."""
    extras = request.frame.extras
    version = extras[0] if extras else 1
    if version > 2:
        raise StatusError(Status.EINVAL, f"get meta version {version} does not exist")
    item = request.vbucket.find(request.key)
    if item is None:
        raise StatusError(Status.KEY_ENOENT)
    found = item

    def answer() -> bytes:
        meta = _META_EXTRAS.pack(int(found.deleted), found.flags, found.expiry, found.revid)
        if version == 2:
            meta += bytes((found.datatype | (Datatype.XATTR if found.xattrs else 0),))
        return request.session.success(request.frame, extras=meta, cas=request.vbucket.visible_cas(found))

    if version == 1:
        return answer()
    # It has the datatype whatever the connection negotiated.
    return cast("Answer", with_datatype(request.session.node.cluster.clock, found, answer))


def _store(mode: StoreMode) -> Handler:
    def handler(request: CommandRequest) -> Answer:
        frame, vbucket = request.frame, request.vbucket
        flags, expiry = _STORE_EXTRAS.unpack(frame.extras)
        durable = request.durable()
        item = vbucket.store(
            mode, request.key, frame.value, flags, expiry, frame.cas,
            preserve_expiry=request.preserve_expiry, durable=durable,
        )  # fmt: skip
        request.bucket.stores += 1
        return _mutated(request, item, durable)

    handler.__doc__ = f"MCBP: {mode.name.lower()}."
    return handler


def _mutated(request: CommandRequest, item: Item, durable: bool, value: bytes = b"") -> Answer:
    session, frame, uuid = request.session, request.frame, request.vbucket.uuid
    return request.finish(item, durable, lambda: session.mutation(frame, uuid, item.seqno, item.cas, value))


for _mode, _opcode, _twin in (
    (StoreMode.SET, Opcode.SET, Opcode.SETQ),
    (StoreMode.ADD, Opcode.ADD, Opcode.ADDQ),
    (StoreMode.REPLACE, Opcode.REPLACE, Opcode.REPLACEQ),
):
    command(
        _opcode, scope=Scope.ACTIVE, extras=(8,), key=_REQUIRED, value=_OPTIONAL, datatypes=STORE_DATATYPES,
        cas=CasRule.ZERO if _mode == StoreMode.ADD else CasRule.ANY, durability=True,
        preserve_expiry=_mode != StoreMode.ADD, quiet_twin=_twin,
    )(_store(_mode))  # fmt: skip


def _concat(before: bool) -> Handler:
    def handler(request: CommandRequest) -> Answer:
        durable = request.durable()
        item = request.vbucket.concat(
            request.key, request.frame.value, request.frame.cas, before=before, durable=durable
        )
        request.bucket.stores += 1
        return _mutated(request, item, durable)

    handler.__doc__ = "MCBP: prepend." if before else "MCBP: append."
    return handler


for _before, _opcode, _twin in (
    (False, Opcode.APPEND, Opcode.APPENDQ),
    (True, Opcode.PREPEND, Opcode.PREPENDQ),
):
    command(
        _opcode, scope=Scope.ACTIVE, key=_REQUIRED, value=_OPTIONAL, cas=CasRule.ANY,
        datatypes=STORE_DATATYPES, durability=True, preserve_expiry=True, quiet_twin=_twin,
    )(_concat(_before))  # fmt: skip


@command(Opcode.DELETE, scope=Scope.ACTIVE, key=_REQUIRED, cas=CasRule.ANY, durability=True,
         quiet_twin=Opcode.DELETEQ)  # fmt: skip
def delete(request: CommandRequest) -> Answer:
    """MCBP: delete. The CAS of the answer is the tombstone's."""
    durable = request.durable()
    return _mutated(request, request.vbucket.delete(request.key, request.frame.cas, durable=durable), durable)


def _counter(sign: int) -> Handler:
    def handler(request: CommandRequest) -> Answer:
        delta, initial, expiry = _COUNTER_EXTRAS.unpack(request.frame.extras)
        durable = request.durable()
        if sign > 0:
            item, number = request.vbucket.increment(request.key, delta, initial, expiry, durable=durable)
        else:
            item, number = request.vbucket.decrement(request.key, delta, initial, expiry, durable=durable)
        request.bucket.stores += 1
        return _mutated(request, item, durable, _U64.pack(number))

    handler.__doc__ = "MCBP: increment." if sign > 0 else "MCBP: decrement."
    return handler


for _sign, _opcode, _twin in (
    (1, Opcode.INCREMENT, Opcode.INCREMENTQ),
    (-1, Opcode.DECREMENT, Opcode.DECREMENTQ),
):
    command(
        _opcode, scope=Scope.ACTIVE, extras=(20,), key=_REQUIRED, durability=True, preserve_expiry=True,
        quiet_twin=_twin,
    )(_counter(_sign))  # fmt: skip


@command(Opcode.TOUCH, scope=Scope.ACTIVE, extras=(4,), key=_REQUIRED, durability=True)
def touch(request: CommandRequest) -> Answer:
    """MCBP: touch. The answer has no mutation token, even if tokens were negotiated."""
    durable, item = _touched(request)
    return request.finish(item, durable, lambda: request.session.success(request.frame, cas=item.cas))


@command(Opcode.GAT, scope=Scope.ACTIVE, extras=(4,), key=_REQUIRED, durability=True,
         quiet_twin=Opcode.GATQ, quiet=Status.KEY_ENOENT)  # fmt: skip
def get_and_touch(request: CommandRequest) -> Answer:
    """MCBP: get and touch."""
    durable, item = _touched(request)

    def finish() -> Answer:
        return request.finish(item, durable, lambda: _found(request, item, cas=item.cas))

    return _when_known(request, item, finish)


def _touched(request: CommandRequest) -> tuple[bool, Item]:
    (expiry,) = _U32.unpack(request.frame.extras)
    durable = request.durable()
    before = request.vbucket.high_seqno
    item = request.vbucket.touch(request.key, expiry, durable=durable)
    # The same expiry again changes nothing, so there is nothing to wait for.
    return durable and request.vbucket.high_seqno > before, item


@command(Opcode.GET_LOCKED, scope=Scope.ACTIVE, extras=(0, 4), key=_REQUIRED)
def get_locked(request: CommandRequest) -> Answer:
    """MCBP: get-locked. The CAS of the answer releases the lock."""
    extras = request.frame.extras
    seconds = _U32.unpack(extras)[0] if extras else DEFAULT_LOCK_SECONDS
    item = request.vbucket.lock(request.key, seconds)
    return _when_known(request, item, lambda: _found(request, item, cas=item.cas))


@command(Opcode.UNLOCK, scope=Scope.ACTIVE, key=_REQUIRED, cas=CasRule.NON_ZERO)
def unlock(request: CommandRequest) -> Answer:
    """MCBP: unlock key."""
    if request.frame.cas == LOCKED_CAS:
        # The CAS that readers get for a locked document unlocks nothing.
        raise StatusError(Status.LOCKED)
    request.vbucket.unlock(request.key, request.frame.cas)
    return request.session.success(request.frame)
