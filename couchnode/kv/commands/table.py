"""The table from opcode to handler, and the checks that every request passes first.

The form of a request is data: a :class:`Command` row defines its length of extras, the presence of key and
value, CAS and datatype, and its scope. A handler gets only valid requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, IntEnum
from struct import Struct
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from couchbase.protocol.constants import (
    Datatype,
    DurabilityLevel,
    FrameInfo,
    Magic,
    Opcode,
    Status,
)
from couchbase.protocol.frames import Frame, FrameError, decode_frame_infos
from couchnode.access.rights import NAMES
from couchnode.data.bucket import NodeBucket
from couchnode.data.item import StatusError
from couchnode.data.vbucket import VBucket
from couchnode.kv.commands.request import Answer, CommandRequest, require, resolve_key
from couchnode.kv.privileges import NEEDS, Needs
from couchnode.kv.session import Session
from couchnode.kv.snappy import inflate

_U16 = Struct(">H")
_SNAPPY = int(Datatype.SNAPPY)
_UNKNOWN = (Status.UNKNOWN_COLLECTION, Status.UNKNOWN_SCOPE)
_EXTRA_PRIVILEGE, _IMPERSONATE_TOKEN = 6, 7
_REMEMBERED = frozenset(map(int, (FrameInfo.IMPERSONATE, FrameInfo.PRESERVE_TTL, FrameInfo.DURABILITY)))
"""Frame infos of which the fast path takes combinations that were accepted once."""

_EXTRA_PRIVILEGES = {name.lower(): privilege for privilege, name in NAMES.items()}


class Presence(Enum):
    """Whether a part of a request must, may or must not be there."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    FORBIDDEN = "forbidden"


class CasRule(Enum):
    """Which CAS a request may carry."""

    ANY = "any"
    ZERO = "zero"
    NON_ZERO = "non-zero"


class Scope(IntEnum):
    """The scope of a command, which must exist before it runs."""

    HANDSHAKE = 0
    """Nothing: allowed before authentication."""
    SESSION = 1
    """An admitted connection."""
    BUCKET = 2
    """A selected bucket, ready or not."""
    DATA = 3
    """A selected bucket whose warm-up is done."""
    ACTIVE = 4
    """The active copy of the request's vbucket."""
    REPLICA = 5
    """A replica of it."""
    HOSTED = 6
    """Either of both."""


class NotMyVBucket(Exception):
    """The vbucket of the request is not on this node, or not in the required state."""


Handler = Callable[[CommandRequest], Answer]


class Command(NamedTuple):
    """One row of the table: the form of a request, and its handler.

    ``quiet`` is the status that is not reported (the quiet twins). A ``barrier`` holds back
    every request behind it until it is answered. ``needs`` is the privilege that it needs.
    """

    handler: Handler
    scope: Scope
    extras: frozenset[int] | None
    key: Presence
    value: Presence
    cas: CasRule
    datatypes: int
    durability: bool
    preserve_expiry: bool
    quiet: Status | None
    barrier: bool
    zero_vbucket: bool
    needs: Needs


COMMANDS: list[Command | None] = [None] * 256
"""Opcode to command; ``None`` for unknown opcodes."""


# Many parameters: the columns of the table of commands; keywords.
def command(
    opcode: Opcode,
    *,
    scope: Scope,
    extras: Iterable[int] | None = (0,),
    key: Presence = Presence.FORBIDDEN,
    value: Presence = Presence.FORBIDDEN,
    cas: CasRule = CasRule.ZERO,
    datatypes: int = 0,
    durability: bool = False,
    preserve_expiry: bool = False,
    quiet_twin: Opcode | None = None,
    quiet: Status = Status.SUCCESS,
    barrier: bool = False,
    zero_vbucket: bool = False,
) -> Callable[[Handler], Handler]:
    """Register a handler for an opcode, and for its quiet twin where there is one.

    :param extras: their lengths; ``None`` if the handler reads them with all that they mean.
    :param quiet: the status that the quiet twin does not report; the twin takes no durability.
    """

    def register(handler: Handler) -> Handler:
        row = Command(
            handler, scope, None if extras is None else frozenset(extras), key, value, cas, datatypes,
            durability, preserve_expiry, None, barrier, zero_vbucket, NEEDS[opcode],
        )  # fmt: skip
        COMMANDS[opcode] = row
        if quiet_twin is not None:
            COMMANDS[quiet_twin] = row._replace(quiet=quiet, durability=False)
        return handler

    return register


def dispatch(session: Session, frame: Frame) -> Answer:
    """Check a request and run it. Never raises: every outcome is an answer (or silence)."""
    if frame.magic == Magic.CLIENT_RESPONSE:
        return None
    row = COMMANDS[frame.opcode]
    try:
        if row is None:
            if not session.is_admitted:
                raise StatusError(Status.EACCESS, "authenticate first")
            raise StatusError(Status.UNKNOWN_COMMAND, f"opcode 0x{frame.opcode:02x} is not known")
        answer = row.handler(_checked(session, row, frame))
    except Exception as error:  # noqa: BLE001  # a bug in one handler is an answer, not the end of the node
        return _answer_to(session, row, frame, error)
    if isinstance(answer, Deferred):
        if row.quiet == Status.SUCCESS:
            answer.addCallback(lambda _: b"")
        return answer.addErrback(_answer_to_failure, session, row, frame)
    return None if row.quiet == Status.SUCCESS else answer


def _answer_to_failure(failure: Failure, session: Session, row: Command | None, frame: Frame) -> bytes:
    error = failure.value
    if not isinstance(error, Exception):
        failure.raiseException()
    return _answer_to(session, row, frame, error) or b""


def _answer_to(session: Session, row: Command | None, frame: Frame, error: BaseException) -> bytes | None:
    if isinstance(error, StatusError):
        if row is not None and row.quiet == error.status:
            return None
        manifest = None
        if error.status in _UNKNOWN and session.bucket is not None:
            manifest = f"{session.bucket.collections.manifest.uid:x}"
        return session.refusal(frame, error.status, error.context, manifest)
    if isinstance(error, NotMyVBucket):
        return session.not_my_vbucket(frame)
    session.log.failure("opcode {opcode:#x} failed", Failure(error), opcode=frame.opcode)
    return session.refusal(frame, Status.EINTERNAL, "an error inside the node; its log has more")


def _checked(session: Session, row: Command, frame: Frame) -> CommandRequest:
    scope = row.scope
    # The form is checked first, but an unauthenticated client only learns that it is one.
    if scope and not session.is_admitted:
        raise StatusError(Status.EACCESS, "authenticate first")
    request = CommandRequest(session, frame)
    _check_form(row, frame, row.datatypes & session.accepted_datatypes)
    if frame.datatype & _SNAPPY:
        request.frame = frame._replace(value=inflate(frame.value))
    if frame.framing:
        _read_frame_infos(request, row)
    if scope >= Scope.BUCKET:
        bucket = session.bucket
        if bucket is None:
            raise StatusError(Status.NO_BUCKET, "select a bucket first")
        request.bucket = bucket
    limits = request.limits
    if limits is not None and (row.key is not Presence.REQUIRED or not limits.bucket):
        limits.require(row.needs, frame.opcode)
    if scope <= Scope.BUCKET:
        return request
    bucket = request.bucket
    if bucket.state != "ready":
        raise StatusError(Status.ETMPFAIL, f"bucket {bucket.name}: {bucket.state}")
    if row.key is Presence.REQUIRED:
        request.collection, request.key = resolve_key(session, bucket, frame.key)
        if limits is not None:
            require(request, row.needs.one_of, request.collection)
    if scope > Scope.DATA:
        request.vbucket = find_vbucket(bucket, frame.specific, scope)
    return request


def find_vbucket(bucket: NodeBucket, vbid: int, scope: Scope) -> VBucket:
    """Return the vbucket in the state that ``scope`` requires.

    :raises NotMyVBucket: it is not here in that state.
    """
    vbucket = bucket.vbuckets[vbid] if vbid < len(bucket.vbuckets) else None
    if vbucket is None or (scope != Scope.HOSTED and (vbucket.state == "active") != (scope == Scope.ACTIVE)):
        raise NotMyVBucket
    return vbucket


def _check_form(row: Command, frame: Frame, datatypes: int) -> None:
    if row.extras is not None and len(frame.extras) not in row.extras:
        wanted = " or ".join(str(size) for size in sorted(row.extras))
        raise StatusError(Status.EINVAL, f"extras have {wanted} bytes, not {len(frame.extras)}")
    # In the words of the server here and below: programs look for some of them.
    _check_presence("key", row.key, frame.key)
    _check_presence("value", row.value, frame.value)
    if frame.cas:
        if row.cas is CasRule.ZERO:
            raise StatusError(Status.EINVAL, "CAS must be 0")
    elif row.cas is CasRule.NON_ZERO:
        raise StatusError(Status.EINVAL, "CAS must not be 0")
    if frame.datatype & ~datatypes:
        raise StatusError(Status.EINVAL, "Request datatype invalid")
    if row.zero_vbucket and frame.specific:
        raise StatusError(Status.EINVAL, "the vbucket field must be 0")


def _check_presence(part: str, rule: Presence, data: bytes) -> None:
    if data:
        if rule is Presence.FORBIDDEN:
            raise StatusError(Status.EINVAL, f"Request must not include {part}")
    elif rule is Presence.REQUIRED:
        raise StatusError(Status.EINVAL, f"Request must include {part}")


def _read_frame_infos(request: CommandRequest, row: Command) -> None:
    try:
        infos = decode_frame_infos(request.frame.framing)
    except FrameError as error:
        raise StatusError(Status.EINVAL, str(error)) from error
    user: str | None = None
    extra = 0
    for identifier, payload in infos:
        if identifier == FrameInfo.DURABILITY:
            _read_durability(request, row, payload)
        elif identifier == FrameInfo.PRESERVE_TTL:
            if payload:
                raise StatusError(Status.EINVAL, "preserve TTL takes no argument")
            if not row.preserve_expiry:
                raise StatusError(Status.NOT_SUPPORTED, "this command cannot preserve the expiry")
            request.preserve_expiry = True
        elif identifier == FrameInfo.BARRIER:
            # Answers leave in the order of their requests, so the barrier holds anyway.
            if payload:
                raise StatusError(Status.EINVAL, "a barrier takes no argument")
        elif identifier == FrameInfo.DCP_STREAM_ID:
            raise StatusError(Status.EINVAL, "a stream id belongs to DCP")
        elif identifier == FrameInfo.IMPERSONATE:
            user = _text_of(payload)
        elif identifier == _EXTRA_PRIVILEGE:
            extra |= _extra_privilege(payload)
        elif identifier == _IMPERSONATE_TOKEN:
            raise StatusError(Status.EACCESS, "tokens are not known here")
        else:
            raise StatusError(Status.UNKNOWN_FRAME_INFO, f"frame info {identifier} is not known")
    if user is not None:
        _act_for(request, user, extra)
    if extra or not (user is not None or request.level):
        return
    if request.level <= DurabilityLevel.MAJORITY and {identifier for identifier, _ in infos} <= _REMEMBERED:
        framing, keeps = request.frame.framing, request.preserve_expiry
        request.session.remember(framing, request.limits, keeps_expiry=keeps, durable=request.level != 0)


def _act_for(request: CommandRequest, user: str, extra: int) -> None:
    """Give a request the rights of the user that it names, as far as the connection has them too.

    :param extra: privileges that the user need not have, if the connection has them.
    """
    own, session = request.session.limits, request.session
    limits = session.limits_for(user, request.frame.opcode)
    # Only administrators may act for others, and they have every right that a user can have.
    if limits is not None and extra:
        if own is not None:
            extra &= own.bucket.mask
        limits = limits.with_more(extra)
    request.limits = limits


def _text_of(payload: bytes) -> str:
    if not payload:
        raise StatusError(Status.EINVAL, "a user or privilege name is missing")
    return payload.decode("utf-8", "replace")


def _extra_privilege(payload: bytes) -> int:
    privilege = _EXTRA_PRIVILEGES.get(_text_of(payload).lower())
    if privilege is None:
        raise StatusError(Status.EINVAL, "there is no privilege of that name")
    return privilege


def _read_durability(request: CommandRequest, row: Command, payload: bytes) -> None:
    if len(payload) not in (1, 3):
        raise StatusError(Status.EINVAL, f"durability has 1 or 3 bytes, not {len(payload)}")
    if not row.durability:
        raise StatusError(Status.EINVAL, "this command takes no durability requirements")
    level = payload[0]
    if not DurabilityLevel.MAJORITY <= level <= DurabilityLevel.PERSIST_TO_MAJORITY:
        raise StatusError(Status.DURABILITY_INVALID_LEVEL, f"durability level {level} does not exist")
    request.level = level
    if len(payload) == 3:
        (milliseconds,) = _U16.unpack_from(payload, 1)
        if milliseconds in (0, 0xFFFF):
            raise StatusError(Status.DURABILITY_INVALID_LEVEL, "the durability timeout has 1 to 65534 ms")
        request.timeout = milliseconds / 1000


STORE_DATATYPES = int(Datatype.JSON | Datatype.SNAPPY)
"""Datatype bits that a store may claim. Clients set JSON whether negotiated or not, and it is ignored;
Snappy has to be negotiated, and the value is inflated before the command runs."""
