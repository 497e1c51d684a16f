"""The table from opcode to handler, and the checks that every request passes first.

The form of a request is data: a :class:`Command` row defines its length of extras, the presence of key and
value, CAS and datatype, and its scope. A handler gets only valid requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, IntEnum
from struct import Struct
from typing import NamedTuple, Union

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
from couchbase.protocol.leb128 import decode_leb128
from couchnode.data.bucket import NodeBucket
from couchnode.data.item import Item, StatusError
from couchnode.data.keys import DEFAULT_PREFIX, longest_key
from couchnode.data.manifest import DEFAULT_ID, Collection
from couchnode.data.vbucket import VBucket
from couchnode.kv.session import Session
from couchnode.kv.snappy import inflate

Answer = Union[bytes, "Deferred[bytes]", None]
"""An encoded response, a Deferred of one, or ``None``."""

_U16 = Struct(">H")
_SNAPPY = int(Datatype.SNAPPY)
_UNKNOWN = (Status.UNKNOWN_COLLECTION, Status.UNKNOWN_SCOPE)
_KNOWN_TO_OTHERS = frozenset({4, 6, 7})
"""Impersonation and the like: known, but never granted here."""


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


class CommandRequest:
    """A request that passed its checks.

    ``collection`` is the one that the key is in, for commands with a key; ``key`` is then the held key, as
    vbuckets take it (:mod:`couchnode.data.keys`). ``level`` is the durability level (0 for none) and
    ``timeout`` its time limit in seconds, if one was given.
    """

    __slots__ = (
        "bucket",
        "collection",
        "frame",
        "key",
        "level",
        "preserve_expiry",
        "session",
        "timeout",
        "vbucket",
    )

    bucket: NodeBucket
    collection: Collection
    vbucket: VBucket

    def __init__(self, session: Session, frame: Frame) -> None:
        self.session = session
        self.frame = frame
        self.key = frame.key
        self.level = 0
        self.timeout: float | None = None
        self.preserve_expiry = False

    def durable(self) -> bool:
        """Return whether the write has to be prepared and wait for other copies, at the level of the request
        or the bucket's least one.

        :raises StatusError: the level is not possible here and now.
        """
        level = self.level = max(self.level, self.bucket.min_level)
        return level != 0 and self.bucket.check_durability(self.vbucket, level)

    def finish(self, item: Item, durable: bool, answer: Callable[[], bytes]) -> Answer:
        """Answer a mutation; a prepared one is answered after its commit."""
        if not durable:
            return answer()
        settled = self.bucket.settle(self.vbucket, item, self.level, self.timeout)
        return settled.addCallback(lambda _: answer())


Handler = Callable[[CommandRequest], Answer]


class Command(NamedTuple):
    """One row of the table: the form of a request, and its handler.

    ``quiet`` is the status that is not reported (the quiet twins). A ``barrier`` holds back
    every request behind it until it is answered.
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
            durability, preserve_expiry, None, barrier, zero_vbucket,
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
    request = CommandRequest(session, frame)
    scope = row.scope
    # The form is checked first, but an unauthenticated client only learns that it is one.
    if scope and not session.is_admitted:
        raise StatusError(Status.EACCESS, "authenticate first")
    _check_form(row, frame, row.datatypes & session.accepted_datatypes)
    if frame.datatype & _SNAPPY:
        request.frame = frame._replace(value=inflate(frame.value))
    if frame.framing:
        _read_frame_infos(request, row)
    if scope < Scope.BUCKET:
        return request
    bucket = session.bucket
    if bucket is None:
        raise StatusError(Status.NO_BUCKET, "select a bucket first")
    request.bucket = bucket
    if scope == Scope.BUCKET:
        return request
    if bucket.state != "ready":
        raise StatusError(Status.ETMPFAIL, f"bucket {bucket.name}: {bucket.state}")
    if row.key is Presence.REQUIRED:
        request.collection, request.key = resolve_key(session, bucket, frame.key)
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


def resolve_key(session: Session, bucket: NodeBucket, key: bytes) -> tuple[Collection, bytes]:
    """Return the collection that the key of a request is in, and the key under which vbuckets hold it.

    :raises StatusError: EINVAL for a bad length or prefix, UNKNOWN_COLLECTION for one that is not in the
        manifest.
    """
    number, size = DEFAULT_ID, len(DEFAULT_PREFIX)
    if not session.collections:
        key = DEFAULT_PREFIX + key
    else:
        try:
            number, size = decode_leb128(key)
        except ValueError as fault:
            raise StatusError(Status.EINVAL, f"the collection id of the key: {fault}") from fault
        if size == len(key):
            raise StatusError(Status.EINVAL, "the key holds a collection id and nothing else")
    longest = longest_key(number)
    if not 0 < len(key) - size <= longest:
        raise StatusError(
            Status.EINVAL,
            f"a key in collection 0x{number:x} has 1 to {longest} bytes, not {len(key) - size}",
        )
    return find_collection(bucket, number), key


def find_collection(bucket: NodeBucket, number: int) -> Collection:
    """Return the collection of that id.

    :raises StatusError: UNKNOWN_COLLECTION: it is not in the manifest.
    """
    collection = bucket.collections.by_id.get(number)
    if collection is None:
        raise StatusError(
            Status.UNKNOWN_COLLECTION,
            f"collection 0x{number:x} is not in the manifest 0x{bucket.collections.manifest.uid:x}",
        )
    return collection


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
        elif identifier in _KNOWN_TO_OTHERS:
            if not payload:
                raise StatusError(Status.EINVAL, "a user or privilege name is missing")
            raise StatusError(Status.EACCESS, "impersonation is not granted")
        else:
            raise StatusError(Status.UNKNOWN_FRAME_INFO, f"frame info {identifier} is not known")


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
