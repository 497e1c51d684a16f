"""Commands on parts of a document, one path or several at a time."""

from __future__ import annotations

from enum import IntFlag
from struct import Struct
from typing import NamedTuple

from couchbase.protocol.constants import Datatype, Opcode, Status
from couchnode.data.item import Item, StatusError
from couchnode.data.vbucket import StoreMode
from couchnode.kv.commands.table import (
    STORE_DATATYPES,
    Answer,
    CasRule,
    CommandRequest,
    Presence,
    Scope,
    command,
    find_vbucket,
)
from couchnode.kv.subdoc import LOOKUPS, MAX_SPECS, MUTATIONS, PathFlag, lookup, mutate, new_document
from couchnode.kv.vattr import look_up_attribute

_U32 = Struct(">I")
_PATH_EXTRAS = Struct(">HB")
_LOOKUP_SPEC = Struct(">BBH")
_MUTATION_SPEC = Struct(">BBHI")
_LOOKUP_RESULT = Struct(">HI")
_MUTATION_RESULT = Struct(">BHI")
_MUTATION_FAILURE = Struct(">BH")
_WHOLE_GET, _WHOLE_SET, _WHOLE_DELETE = int(Opcode.GET), int(Opcode.SET), int(Opcode.DELETE)
_WHOLE = frozenset({_WHOLE_GET, _WHOLE_SET, _WHOLE_DELETE})


class DocFlag(IntFlag):
    """Flags of the whole command."""

    MKDOC = 0x01
    ADD = 0x02
    ACCESS_DELETED = 0x04
    CREATE_AS_DELETED = 0x08
    REVIVE = 0x10
    REPLICA_READ = 0x20


_LOOKUP_FLAGS = DocFlag.ACCESS_DELETED | DocFlag.REPLICA_READ
_MUTATION_FLAGS = DocFlag.MKDOC | DocFlag.ADD | DocFlag.ACCESS_DELETED
_UNSUPPORTED_FLAGS = DocFlag.CREATE_AS_DELETED | DocFlag.REVIVE


class Spec(NamedTuple):
    """One operation of a command."""

    opcode: int
    flags: int
    path: bytes
    value: bytes = b""


# ---- lookups -------------------------------------------------------------------------------------


def _single_lookup(request: CommandRequest) -> Answer:
    """MCBP: subdoc get, exists and get count."""
    extras, frame = request.frame.extras, request.frame
    size, path_flags = _PATH_EXTRAS.unpack_from(extras)
    if size != len(frame.value):
        raise StatusError(Status.EINVAL, "the value of a lookup is its path and nothing else")
    item = _document(request, extras[3] if len(extras) > 3 else 0)
    found = _look_up(request, item, Spec(frame.opcode, path_flags, frame.value))
    return request.session.success(
        frame,
        value=found,
        cas=request.vbucket.visible_cas(item),
        datatype=Datatype.JSON if found else 0,
        status=Status.SUBDOC_SUCCESS_DELETED if item.deleted else Status.SUCCESS,
    )


for _opcode in (Opcode.SUBDOC_GET, Opcode.SUBDOC_EXISTS, Opcode.SUBDOC_GET_COUNT):
    command(
        _opcode, scope=Scope.HOSTED, extras=(3, 4), key=Presence.REQUIRED, value=Presence.OPTIONAL,
        cas=CasRule.ANY,
    )(_single_lookup)  # fmt: skip


@command(Opcode.SUBDOC_MULTI_LOOKUP, scope=Scope.HOSTED, extras=(0, 1), key=Presence.REQUIRED,
         value=Presence.REQUIRED, cas=CasRule.ANY)  # fmt: skip
def multi_lookup(request: CommandRequest) -> Answer:
    """MCBP: subdoc multi lookup. Each path has a status of its own."""
    specs = _read_lookups(request.frame.value)
    item = _document(request, request.frame.extras[0] if request.frame.extras else 0)
    results: list[bytes] = []
    failed = False
    for spec in specs:
        try:
            status, found = Status.SUCCESS, _look_up(request, item, spec)
        except StatusError as refusal:
            status, found, failed = refusal.status, b"", True
        results += (_LOOKUP_RESULT.pack(status, len(found)), found)
    if item.deleted:
        header = Status.SUBDOC_MULTI_PATH_FAILURE_DELETED if failed else Status.SUBDOC_SUCCESS_DELETED
    else:
        header = Status.SUBDOC_MULTI_PATH_FAILURE if failed else Status.SUCCESS
    cas = request.vbucket.visible_cas(item)
    return request.session.success(request.frame, value=b"".join(results), cas=cas, status=header)


def _document(request: CommandRequest, flags: int) -> Item:
    if flags & ~_LOOKUP_FLAGS:
        raise StatusError(Status.EINVAL, f"document flags 0x{flags:02x} do not fit a lookup")
    scope = Scope.REPLICA if flags & DocFlag.REPLICA_READ else Scope.ACTIVE
    vbucket = request.vbucket = find_vbucket(request.bucket, request.frame.specific, scope)
    item = vbucket.find(request.key) if flags & DocFlag.ACCESS_DELETED else vbucket.get(request.key)
    request.bucket.gets += 1
    if item is None:
        request.bucket.misses += 1
        raise StatusError(Status.KEY_ENOENT)
    return item


def _look_up(request: CommandRequest, item: Item, spec: Spec) -> bytes:
    opcode, flags, path, _ = spec
    if flags & ~(PathFlag.CREATE_PARENTS | PathFlag.XATTR | PathFlag.BINARY):
        raise StatusError(Status.SUBDOC_XATTR_INVALID_FLAG_COMBO)
    if flags & PathFlag.XATTR:
        return look_up_attribute(opcode, path, request.vbucket, item)
    if opcode == _WHOLE_GET:
        if item.deleted:
            raise StatusError(Status.KEY_ENOENT)
        return item.value
    if item.deleted:
        raise StatusError(Status.SUBDOC_PATH_ENOENT)
    if not item.datatype & Datatype.JSON:
        raise StatusError(Status.SUBDOC_DOC_NOT_JSON)
    return lookup(opcode, item.value, path)


def _read_lookups(data: bytes) -> list[Spec]:
    specs: list[Spec] = []
    at = 0
    while at < len(data):
        if len(data) - at < _LOOKUP_SPEC.size:
            raise StatusError(Status.EINVAL, "the list of paths is cut off")
        opcode, flags, size = _LOOKUP_SPEC.unpack_from(data, at)
        at += _LOOKUP_SPEC.size
        specs.append(Spec(opcode, flags, _piece(data, at, size)))
        at += size
        if opcode not in LOOKUPS and opcode != _WHOLE_GET:
            raise StatusError(Status.SUBDOC_INVALID_COMBO, f"opcode 0x{opcode:02x} is no lookup")
    _check_specs(specs)
    return specs


def _piece(data: bytes, at: int, size: int) -> bytes:
    piece = data[at : at + size]
    if len(piece) != size:
        raise StatusError(Status.EINVAL, "the list of paths is cut off")
    return piece


def _check_specs(specs: list[Spec]) -> None:
    if len(specs) > MAX_SPECS:
        raise StatusError(Status.SUBDOC_INVALID_COMBO, f"{len(specs)} paths; {MAX_SPECS} are accepted")
    body_began = False
    for spec in specs:
        is_attribute = bool(spec.flags & PathFlag.XATTR)
        if is_attribute and body_began:
            raise StatusError(Status.SUBDOC_INVALID_XATTR_ORDER)
        body_began = body_began or not is_attribute
        if spec.opcode in _WHOLE and spec.path:
            raise StatusError(Status.EINVAL, "an operation on the whole document has no path")


# ---- mutations -----------------------------------------------------------------------------------


class _Settings(NamedTuple):
    """Settings of a mutation command apart from its operations; ``expiry`` is ``None`` to keep it."""

    doc_flags: int
    expiry: int | None
    item_flags: int | None = None


def _single_mutation(request: CommandRequest) -> Answer:
    """MCBP: a subdoc mutation of one path."""
    frame, extras = request.frame, request.frame.extras
    size, path_flags = _PATH_EXTRAS.unpack_from(extras)
    path, value = frame.value[:size], frame.value[size:]
    if len(path) != size:
        raise StatusError(Status.EINVAL, "the path is longer than the value that holds it")
    settings = _Settings(
        doc_flags=extras[-1] if len(extras) in (4, 8) else 0,
        expiry=_U32.unpack_from(extras, 3)[0] if len(extras) >= 7 else None,
    )
    answers: list[bytes | None] = []
    spec = Spec(frame.opcode, path_flags, path, value)
    durable, item = _mutate(request, [spec], settings, answers)
    uuid, session = request.vbucket.uuid, request.session
    return request.finish(
        item, durable, lambda: session.mutation(frame, uuid, item.seqno, item.cas, answers[0] or b"")
    )


for _mutation in MUTATIONS:
    command(
        Opcode(_mutation), scope=Scope.ACTIVE, extras=(3, 4, 7, 8), key=Presence.REQUIRED,
        value=Presence.OPTIONAL, cas=CasRule.ANY, datatypes=STORE_DATATYPES, durability=True,
        preserve_expiry=True,
    )(_single_mutation)  # fmt: skip


@command(Opcode.SUBDOC_MULTI_MUTATION, scope=Scope.ACTIVE, extras=(0, 1, 4, 5, 8, 9), key=Presence.REQUIRED,
         value=Presence.REQUIRED, cas=CasRule.ANY, datatypes=STORE_DATATYPES, durability=True,
         preserve_expiry=True)  # fmt: skip
def multi_mutation(request: CommandRequest) -> Answer:
    """MCBP: subdoc multi mutation. All operations are applied, or none."""
    frame, session = request.frame, request.session
    specs = _read_mutations(frame.value)
    answers: list[bytes | None] = []
    try:
        durable, item = _mutate(request, specs, _read_settings(frame.extras), answers)
    except _PathError as refusal:
        failure = _MUTATION_FAILURE.pack(len(answers), refusal.status)
        return session.success(frame, value=failure, status=Status.SUBDOC_MULTI_PATH_FAILURE)
    results = b"".join(
        _MUTATION_RESULT.pack(index, Status.SUCCESS, len(answer)) + answer
        for index, answer in enumerate(answers)
        if answer is not None
    )
    uuid = request.vbucket.uuid
    return request.finish(item, durable, lambda: session.mutation(frame, uuid, item.seqno, item.cas, results))


class _PathError(StatusError):
    """One operation failed, rather than the command; the answers show how many came before it."""


def _read_settings(extras: bytes) -> _Settings:
    size = len(extras)
    return _Settings(
        doc_flags=extras[-1] if size in (1, 5, 9) else 0,
        expiry=_U32.unpack_from(extras)[0] if size >= 4 else None,
        item_flags=_U32.unpack_from(extras, 4)[0] if size >= 8 else None,
    )


def _read_mutations(data: bytes) -> list[Spec]:
    specs: list[Spec] = []
    at = 0
    while at < len(data):
        if len(data) - at < _MUTATION_SPEC.size:
            raise StatusError(Status.EINVAL, "the list of operations is cut off")
        opcode, flags, path_size, value_size = _MUTATION_SPEC.unpack_from(data, at)
        at += _MUTATION_SPEC.size
        path = _piece(data, at, path_size)
        at += path_size
        specs.append(Spec(opcode, flags, path, _piece(data, at, value_size)))
        at += value_size
        if opcode not in MUTATIONS and opcode not in (_WHOLE_SET, _WHOLE_DELETE):
            if opcode == Opcode.SUBDOC_REPLACE_BODY_WITH_XATTR:
                raise StatusError(Status.NOT_SUPPORTED, "documents have no attributes of their own here")
            raise StatusError(Status.SUBDOC_INVALID_COMBO, f"opcode 0x{opcode:02x} is no mutation")
    _check_specs(specs)
    return specs


def _mutate(
    request: CommandRequest, specs: list[Spec], settings: _Settings, answers: list[bytes | None]
) -> tuple[bool, Item]:
    """Apply all operations to the document and store it; ``answers`` gets one entry for each that
    was applied. Returns whether the write is only prepared, and the new item."""
    vbucket, cas, flags = request.vbucket, request.frame.cas, settings.doc_flags
    _check_mutation(specs, flags, cas)
    if request.key in vbucket.pending:
        raise StatusError(Status.SYNC_WRITE_IN_PROGRESS)
    old = vbucket.get(request.key)
    if old is None:
        if cas or not flags & (DocFlag.MKDOC | DocFlag.ADD):
            raise StatusError(Status.KEY_ENOENT)
        text = new_document(specs[0].path)
    else:
        if flags & DocFlag.ADD:
            raise StatusError(Status.KEY_EEXISTS)
        vbucket.check_cas(old, cas)
        text = old.value
    durable = request.durable()
    if specs[0].opcode == _WHOLE_DELETE:
        answers.append(None)
        return durable, vbucket.delete(request.key, cas, durable=durable)
    is_json = old is None or bool(old.datatype & Datatype.JSON)
    for spec in specs:
        try:
            if spec.opcode == _WHOLE_SET:
                text, answer = spec.value, None
            elif not is_json:
                raise StatusError(Status.SUBDOC_DOC_NOT_JSON)
            else:
                text, answer = mutate(spec.opcode, text, spec.path, spec.value, spec.flags)
        except StatusError as refusal:
            raise _PathError(refusal.status, refusal.context) from refusal
        answers.append(answer)
    item_flags = settings.item_flags
    if item_flags is None:
        item_flags = old.flags if old is not None else 0
    item = vbucket.store(
        StoreMode.SET,
        request.key,
        text,
        item_flags,
        settings.expiry or 0,
        cas,
        preserve_expiry=request.preserve_expiry or settings.expiry is None,
        durable=durable,
    )
    request.bucket.stores += 1
    return durable, item


def _check_mutation(specs: list[Spec], flags: int, cas: int) -> None:
    if flags & _UNSUPPORTED_FLAGS:
        raise StatusError(Status.NOT_SUPPORTED, "documents cannot be created as deleted, or revived, here")
    if flags & ~_MUTATION_FLAGS:
        raise StatusError(Status.EINVAL, f"document flags 0x{flags:02x} do not fit a mutation")
    if flags & DocFlag.MKDOC and flags & DocFlag.ADD:
        raise StatusError(Status.EINVAL, "a document is either added or upserted")
    if flags & DocFlag.ADD and cas:
        raise StatusError(Status.EINVAL, "CAS must be 0 for a document that is added")
    for spec in specs:
        if spec.flags & PathFlag.XATTR:
            if spec.path[:1] == b"$":
                raise StatusError(Status.SUBDOC_XATTR_CANT_MODIFY_VATTR)
            raise StatusError(Status.NOT_SUPPORTED, "documents have no attributes of their own here")
        if spec.flags & (PathFlag.EXPAND_MACROS | PathFlag.BINARY):
            raise StatusError(Status.SUBDOC_XATTR_INVALID_FLAG_COMBO)
        if spec.flags & ~PathFlag.CREATE_PARENTS:
            raise StatusError(Status.EINVAL, f"path flags 0x{spec.flags:02x} are not known")
    whole = [spec for spec in specs if spec.opcode in _WHOLE]
    if whole and len(specs) > 1:
        raise StatusError(Status.SUBDOC_INVALID_COMBO, "an operation on the whole document stands alone")
