"""Commands on parts of a document, its body and its attributes: one path or several at a time."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from couchbase.protocol.constants import LOCKED_CAS, Datatype, Opcode, Status
from couchnode.access.rights import SYSTEM_XATTR_READ, SYSTEM_XATTR_WRITE
from couchnode.data.attributes import key_of
from couchnode.data.edits import Edit, edit
from couchnode.data.item import Item, StatusError
from couchnode.kv.aside import InTurn, then, work_aside
from couchnode.kv.commands.request import Answer, CommandRequest, has
from couchnode.kv.commands.table import CasRule, Presence, Scope, command, find_vbucket
from couchnode.kv.draft import Draft, decoded, look_up_text
from couchnode.kv.macros import Macros
from couchnode.kv.specs import (
    RULES,
    DocFlag,
    Form,
    PathFlag,
    Spec,
    needs_system_attributes,
    read_multi,
    read_single,
)
from couchnode.kv.vattr import look_up_virtual

_LOOKUP_RESULT = Struct(">HI")
_MUTATION_RESULT = Struct(">BHI")
_MUTATION_FAILURE = Struct(">BH")
_ACCESS_DELETED, _ADD = int(DocFlag.ACCESS_DELETED), int(DocFlag.ADD)
_REVIVE, _REPLICA_READ = int(DocFlag.REVIVE), int(DocFlag.REPLICA_READ)
_BINARY = int(PathFlag.BINARY)
_MAX_TRIES = 100
"""How often a mutation starts again because the document has changed in the meantime."""

_T = TypeVar("_T")


def _may_use_system_attributes(request: CommandRequest, writes: bool) -> bool:
    """Return whether the user of a request may read, or write, system attributes."""
    return has(request, SYSTEM_XATTR_WRITE if writes else SYSTEM_XATTR_READ)


def _is_denied(request: CommandRequest, form: Form, writes: bool) -> bool:
    return needs_system_attributes(form) and not _may_use_system_attributes(request, writes)


def _read_single(request: CommandRequest) -> Form:
    frame = request.frame
    return read_single(frame.opcode, frame.extras, frame.value, frame.cas, request.session.xattrs)


def _read_multi(request: CommandRequest, mutates: bool) -> Form:
    frame = request.frame
    return read_multi(mutates, frame.extras, frame.value, frame.cas, request.session.xattrs)


# ---- lookups -------------------------------------------------------------------------------------


def _single_lookup(request: CommandRequest) -> Answer:
    """MCBP: subdoc get, exists and get count."""
    form = _read_single(request)
    spec = form.specs[0]
    item = _document(request, form)
    if _is_denied(request, form, False):
        raise StatusError(Status.EACCESS)
    cas = request.vbucket.visible_cas(item)
    has_value = spec.opcode != Opcode.SUBDOC_EXISTS

    def answer(found: bytes) -> bytes:
        return request.session.success(
            request.frame,
            value=found,
            cas=cas,
            datatype=Datatype.JSON if has_value and not spec.flags & _BINARY else 0,
            status=Status.SUBDOC_SUCCESS_DELETED if item.deleted else Status.SUCCESS,
        )

    return then(_aside(request, item, 1, lambda: _look_up(request, item, spec)), answer)


def _multi_lookup(request: CommandRequest) -> Answer:
    """MCBP: subdoc multi lookup. Each path has a status of its own."""
    form = _read_multi(request, False)
    item = _document(request, form)
    denied = _is_denied(request, form, False)
    cas = request.vbucket.visible_cas(item)

    def look_up_all() -> tuple[bool, bytes]:
        results: list[bytes] = []
        failed = False
        for spec in form.specs:
            try:
                if denied and spec.on_attributes:
                    raise StatusError(Status.EACCESS)
                status, found = Status.SUCCESS, _look_up(request, item, spec)
            except StatusError as refusal:
                status, found, failed = refusal.status, b"", True
            results += (_LOOKUP_RESULT.pack(status, len(found)), found)
        return failed, b"".join(results)

    def answer(outcome: tuple[bool, bytes]) -> bytes:
        failed, value = outcome
        if item.deleted:
            header = Status.SUBDOC_MULTI_PATH_FAILURE_DELETED if failed else Status.SUBDOC_SUCCESS_DELETED
        else:
            header = Status.SUBDOC_MULTI_PATH_FAILURE if failed else Status.SUCCESS
        return request.session.success(request.frame, value=value, cas=cas, status=header)

    return then(_aside(request, item, len(form.specs), look_up_all), answer)


def _aside(request: CommandRequest, item: Item | None, count: int, work: Callable[[], _T]) -> _T | InTurn[_T]:
    """Do some work on a document, in a thread if it is a large one for so many operations: each of them reads
    all of it."""
    size = len(request.frame.value)
    if item is not None:
        size += (len(item.value) + len(item.xattrs)) * count
    return work_aside(request.session.node.cluster.clock, size, work)


def _document(request: CommandRequest, form: Form) -> Item:
    """Return what a lookup reads: a document, or its tombstone if that was asked for."""
    scope = Scope.REPLICA if form.doc_flags & _REPLICA_READ else Scope.ACTIVE
    vbucket = request.vbucket = find_vbucket(request.bucket, request.frame.specific, scope)
    item = vbucket.find(request.key) if form.doc_flags & _ACCESS_DELETED else vbucket.get(request.key)
    request.bucket.gets += 1
    if item is None:
        request.bucket.misses += 1
        raise StatusError(Status.KEY_ENOENT)
    if request.frame.cas and request.frame.cas != vbucket.visible_cas(item):
        raise StatusError(Status.KEY_EEXISTS)
    if form.doc_flags & _REVIVE and not item.deleted:
        raise StatusError(Status.SUBDOC_CAN_ONLY_REVIVE_DELETED)
    return item


def _look_up(request: CommandRequest, item: Item, spec: Spec) -> bytes:
    opcode = spec.opcode
    if spec.on_attributes:
        key = key_of(spec.path)
        if key is not None and key[:1] == b"$":
            with_system = key != b"$XTOC" or _may_use_system_attributes(request, False)
            found = look_up_virtual(opcode, spec.path, key, request.vbucket, item, with_system)
            return decoded(found) if spec.flags & _BINARY else found
        return look_up_text(opcode, item.xattrs or b"{}", spec)
    if opcode == Opcode.GET:
        if item.deleted:
            raise StatusError(Status.SUBDOC_PATH_ENOENT)
        return item.value
    if not item.datatype & Datatype.JSON:
        raise StatusError(Status.SUBDOC_DOC_NOT_JSON)
    return look_up_text(opcode, item.value, spec)


# ---- mutations -----------------------------------------------------------------------------------


class _PathError(StatusError):
    """One operation of the command failed; ``index`` is its position."""

    def __init__(self, refusal: StatusError, index: int) -> None:
        super().__init__(refusal.status, refusal.context)
        self.index = index


def _single_mutation(request: CommandRequest) -> Answer:
    """MCBP: a subdoc mutation of one path."""
    return _mutate(request, _read_single(request), is_multi=False)


def _multi_mutation(request: CommandRequest) -> Answer:
    """MCBP: subdoc multi mutation. All operations are applied, or none."""

    def failed(failure: Failure) -> bytes:
        failure.trap(_PathError)
        return _failed_answer(request, cast("_PathError", failure.value))

    try:
        answer = _mutate(request, _read_multi(request, True), is_multi=True)
    except _PathError as refusal:
        return _failed_answer(request, refusal)
    return answer.addErrback(failed) if isinstance(answer, Deferred) else answer


def _failed_answer(request: CommandRequest, refusal: _PathError) -> bytes:
    failure = _MUTATION_FAILURE.pack(refusal.index, refusal.status)
    return request.session.success(request.frame, value=failure, status=Status.SUBDOC_MULTI_PATH_FAILURE)


def _mutate(request: CommandRequest, form: Form, is_multi: bool, tries: int = 1) -> Answer:
    """Apply all operations to the document and store it."""
    vbucket = request.vbucket = find_vbucket(request.bucket, request.frame.specific, Scope.ACTIVE)
    old = _target(request, form)
    durable = request.durable()
    macros = Macros(vbucket, old)
    draft = Draft(form, old, macros)
    if form.doc_flags & _REVIVE and not draft.was_deleted:
        raise StatusError(Status.SUBDOC_CAN_ONLY_REVIVE_DELETED)
    if _is_denied(request, form, True):
        raise _PathError(StatusError(Status.EACCESS), 0)

    def apply_all() -> tuple[list[bytes | None], bytes]:
        answers: list[bytes | None] = []
        for index, spec in enumerate(form.specs):
            try:
                answers.append(draft.apply(spec))
            except StatusError as refusal:
                raise _PathError(refusal, index) from refusal
        return answers, draft.attributes()

    def store(outcome: tuple[list[bytes | None], bytes]) -> Answer:
        if isinstance(applied, InTurn) and _has_changed(request, form, old):
            # Another client has changed the document meanwhile.
            if tries == _MAX_TRIES:
                raise StatusError(Status.ETMPFAIL)
            return _mutate(request, form, is_multi, tries + 1)
        if old is not None:
            vbucket.check_cas(old, request.frame.cas)
        answers, xattrs = outcome
        item = _store(request, form, old, draft, macros, xattrs, durable)
        deleted = draft.was_deleted and not form.doc_flags & _REVIVE
        status = Status.SUBDOC_SUCCESS_DELETED if deleted else Status.SUCCESS
        return request.finish(item, durable, lambda: _mutated(request, item, status, answers, is_multi))

    applied = _aside(request, old, len(form.specs), apply_all)
    if isinstance(applied, InTurn):
        return cast("Answer", applied.addCallback(store))
    return store(applied)


def _store(
    request: CommandRequest,
    form: Form,
    old: Item | None,
    draft: Draft,
    macros: Macros,
    xattrs: bytes,
    durable: bool,
) -> Item:
    """Store the result of a draft."""
    body, flags = draft.body, form.item_flags
    if flags is None:
        flags = old.flags if old is not None else 0
    request.bucket.stores += 1
    return edit(
        request.vbucket,
        request.key,
        old,
        Edit(
            body,
            flags,
            form.expiry,
            xattrs,
            draft.is_deleted,
            lambda cas, seqno: macros.settle(xattrs, cas, seqno, body),
        ),
        preserve_expiry=request.preserve_expiry,
        durable=durable,
    )


def _has_changed(request: CommandRequest, form: Form, old: Item | None) -> bool:
    """Return whether a document is not what it was before some time passed.

    :raises StatusError, NotMyVBucket: the command is not possible any more.
    """
    bucket = request.bucket
    if bucket.state != "ready":
        raise StatusError(Status.ETMPFAIL, f"bucket {bucket.name}: {bucket.state}")
    vbucket = find_vbucket(bucket, request.frame.specific, Scope.ACTIVE)
    return vbucket is not request.vbucket or _target(request, form) is not old


def _target(request: CommandRequest, form: Form) -> Item | None:
    """Return what a mutation changes: a document, or its tombstone if that was asked for; ``None`` for a
    document to be made."""
    vbucket, key, flags = request.vbucket, request.key, form.doc_flags
    if key in vbucket.pending:
        raise StatusError(Status.SYNC_WRITE_IN_PROGRESS)
    old = vbucket.find(key) if flags & _ACCESS_DELETED else vbucket.get(key)
    if old is None:
        if not form.creates:
            raise StatusError(Status.KEY_ENOENT)
    elif flags & _ADD:
        raise StatusError(Status.KEY_EEXISTS)
    elif request.frame.cas in (0, LOCKED_CAS) or not vbucket.is_locked(old):
        # With some other CAS, whether it opens the lock is found out at the end.
        vbucket.check_cas(old, request.frame.cas)
    return old


def _mutated(
    request: CommandRequest, item: Item, status: Status, answers: list[bytes | None], is_multi: bool
) -> bytes:
    session = request.session
    if is_multi:
        value, datatype = b"", 0
        for index, answer in enumerate(answers):
            if answer is not None:
                value += _MUTATION_RESULT.pack(index, Status.SUCCESS, len(answer)) + answer
    else:
        value = answers[0] or b""
        datatype = int(Datatype.JSON) if value else 0
    return session.success(
        request.frame,
        extras=session.token(request.vbucket.uuid, item.seqno),
        value=value,
        cas=item.cas,
        datatype=datatype,
        status=status,
    )


# ---- the table -----------------------------------------------------------------------------------

# The form of these is read by couchnode.kv.specs, in the order and with the texts of the server, and before
# the vbucket is looked for.
for _opcode, _rule in RULES.items():
    if _rule.whole:
        continue
    command(
        Opcode(_opcode), scope=Scope.DATA, extras=None, key=Presence.REQUIRED, value=Presence.OPTIONAL,
        cas=CasRule.ANY, durability=_rule.mutates, preserve_expiry=_rule.mutates,
    )(_single_mutation if _rule.mutates else _single_lookup)  # fmt: skip
for _opcode, _handler, _mutates in (
    (Opcode.SUBDOC_MULTI_LOOKUP, _multi_lookup, False),
    (Opcode.SUBDOC_MULTI_MUTATION, _multi_mutation, True),
):
    command(
        _opcode, scope=Scope.DATA, extras=None, key=Presence.REQUIRED, value=Presence.OPTIONAL,
        cas=CasRule.ANY, durability=_mutates, preserve_expiry=_mutates,
    )(_handler)  # fmt: skip
