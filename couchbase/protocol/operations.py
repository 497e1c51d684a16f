"""Operations on documents: from arguments to a request, and from a response to a result.

An ``Operation`` is a row of the table: its name, its opcode, and the parser of its answer. A ``Request`` is
one operation to execute. The functions below build requests from arguments that are already checked and
encoded; :func:`complete` turns the answer into a result or an exception.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Any

from couchbase.protocol.constants import (
    COUNTER_NO_CREATE,
    SUCCESS_STATUSES,
    Datatype,
    FrameInfo,
    Opcode,
    Status,
)
from couchbase.protocol.errormap import ServerStatus
from couchbase.protocol.failures import (
    error_context,
    error_for,
    failed_result,
    foreign_datatype,
    malformed_answer,
    paths_refused,
)
from couchbase.protocol.frames import Frame, encode_frame_infos
from couchbase.protocol.pathresults import SubdocResult
from couchbase.protocol.refused import REFUSALS, STATUSES, refusals
from couchbase.protocol.request import Operation, Request
from couchbase.protocol.statuses import result_code
from couchbase.protocol.subdocument import (
    LOOKUP_IN,
    MUTATE_IN,
    ON_TOMBSTONE,
    XATTR,
    Spec,
    arrange,
    decode_lookup_entries,
    lookup_value,
)
from couchbase.result import ExpiryResult, OperationResult, ValueResult

_U32 = Struct(">I")
_STORE_EXTRAS = Struct(">II")
_COUNTER_EXTRAS = Struct(">QQI")
_ENTRY = Struct(">HI")
_DURABILITY = Struct(">BH")
_TOKEN_BYTES = 16
_unpack_u32 = _U32.unpack_from
_unpack_entry = _ENTRY.unpack_from
_ENTRY_BYTES = _ENTRY.size
_LENGTH_AT = _ENTRY_BYTES - 1
_LEAST_LOOKUP_BYTES = 3 * _ENTRY_BYTES
_new: Any = object.__new__

# Flags and expiry, by the bytes before the last entry of an answer to GET_WITH_EXPIRY.
_lookup_heads: dict[bytes, tuple[int, int]] = {}
_MAX_LOOKUP_HEADS = 1024
_MAX_LOOKUP_HEAD_BYTES = 64
# The length of those that were found last.
_usual_head_bytes = 0

# ---- reading answers -----------------------------------------------------------------------------


def _decode_get(request: Request, cas: int, data: bytes, at: int, middle: int, end: int) -> ValueResult:
    if middle - at != 4:
        raise malformed_answer(request, f"extras of {middle - at} bytes instead of 4 (flags)")
    (flags,) = _unpack_u32(data, at)
    decode = request.decode_value
    value: Any = data[middle:end]
    # ValueResult.__init__ is inlined: nearly every read ends here.
    result = _new(ValueResult)
    result._rc = 0
    result._cas = cas
    result._token = None
    result._value = value if decode is None else decode(value, flags)
    result._flags = flags
    result._key = request.key
    return result


def _decode_mutation(
    request: Request, cas: int, data: bytes, at: int, middle: int, end: int
) -> OperationResult:
    result = _new(OperationResult)
    result._rc = 0
    result._cas = cas
    result._token = (request.vbucket, data[at:middle]) if middle - at == _TOKEN_BYTES else None
    result._key = request.key
    return result


def _decode_plain(request: Request, cas: int, data: bytes, at: int, middle: int, end: int) -> OperationResult:
    result = OperationResult(0, cas)
    result._key = request.key
    return result


def _decode_counter(request: Request, cas: int, data: bytes, at: int, middle: int, end: int) -> ValueResult:
    if end - middle != 8:
        raise malformed_answer(request, f"a counter of {end - middle} bytes instead of 8")
    result = ValueResult(0, cas, int.from_bytes(data[middle:end], "big"), 0)
    result._key = request.key
    if middle - at == _TOKEN_BYTES:
        result._token = (request.vbucket, data[at:middle])
    return result


def _decode_text(request: Request, cas: int, data: bytes, at: int, middle: int, end: int) -> ValueResult:
    result = ValueResult(0, cas, data[middle:end].decode("utf-8", "replace"), 0)
    result._key = request.key
    return result


def _decode_lookup(request: Request, cas: int, data: bytes, at: int, middle: int, end: int) -> ExpiryResult:
    # Flags and expiry are two short texts before the body, mostly the same as in the last document: they
    # are cached by their bytes, which include lengths and statuses. At first, only texts as long as those of
    # the last document are looked for.
    head_end = middle + _usual_head_bytes
    body_at = head_end + _ENTRY_BYTES
    known = _lookup_heads.get(data[middle:head_end]) if body_at <= end else None
    if known is None or _unpack_entry(data, head_end) != (0, end - body_at):
        known, body_at = _find_lookup(request, data, middle, end)
    stored_flags, expiry = known
    decode = request.decode_value
    value: Any = data[body_at:end]
    result = _new(ExpiryResult)
    result._rc = 0
    result._cas = cas
    result._token = None
    result._value = value if decode is None else decode(value, stored_flags)
    result._flags = stored_flags
    result._expiry = expiry
    result._key = request.key
    return result


def _find_lookup(request: Request, data: bytes, middle: int, end: int) -> tuple[tuple[int, int], int]:
    """Return ``(flags, expiry)`` of a lookup's answer, and the offset of the document in ``data``."""
    global _usual_head_bytes
    # Lengths are in the last of their four bytes: longer texts are not cached.
    body_at = middle + _LEAST_LOOKUP_BYTES
    if body_at <= end:
        body_at += data[middle + _LENGTH_AT]
        if body_at <= end:
            # The status of the second text; its length ends just before it.
            head_end = body_at - _ENTRY_BYTES
            head_end += data[head_end - 1]
            body_at = head_end + _ENTRY_BYTES
            if body_at <= end and _unpack_entry(data, head_end) == (0, end - body_at):
                known = _lookup_heads.get(data[middle:head_end])
                if known is not None:
                    _usual_head_bytes = head_end - middle
                    return known, body_at
    known, body_at = _read_lookup(request, data[middle:end])
    return known, middle + body_at


def _read_lookup(request: Request, answer: bytes) -> tuple[tuple[int, int], int]:
    """Return ``(flags, expiry)`` of a lookup's answer, and the offset of the document in it."""
    entries = decode_lookup_entries(answer)
    if len(entries) != len(_EXPIRY_LOOKUP):
        raise malformed_answer(request, f"{len(entries)} entries instead of {len(_EXPIRY_LOOKUP)}")
    (flags_status, flags), (expiry_status, expiry), (body_status, body) = entries
    if flags_status or expiry_status or body_status:
        raise paths_refused(request, (flags_status, expiry_status, body_status))
    try:
        known = int(flags), int(expiry)
    except ValueError:
        raise malformed_answer(request, "$document.flags or $document.exptime is not a number") from None
    body_at = len(answer) - len(body)
    head = answer[: body_at - _ENTRY.size]
    if len(head) <= _MAX_LOOKUP_HEAD_BYTES:
        if len(_lookup_heads) >= _MAX_LOOKUP_HEADS:
            _lookup_heads.clear()
        _lookup_heads[head] = known
    return known, body_at


def _decode_expiry(request: Request, cas: int, data: bytes, at: int, middle: int, end: int) -> ExpiryResult:
    entries = decode_lookup_entries(data[middle:end])
    if len(entries) != 1:
        raise malformed_answer(request, f"{len(entries)} entries instead of 1")
    status, text = entries[0]
    if status:
        raise paths_refused(request, (status,))
    try:
        expiry = int(text)
    except ValueError:
        raise malformed_answer(request, "$document.exptime is not a number") from None
    result = ExpiryResult(0, cas, None, 0)
    result._expiry = expiry
    result._key = request.key
    return result


def _decode_get_without_expiry(
    request: Request, cas: int, data: bytes, at: int, middle: int, end: int
) -> ExpiryResult:
    plain = _decode_get(request, cas, data, at, middle, end)
    result = ExpiryResult(0, plain.cas, plain.value, plain.flags)
    result._expiry = 0
    result._key = request.key
    return result


# ---- the table -----------------------------------------------------------------------------------

GET = Operation("get", Opcode.GET, False, ValueResult, _decode_get)
GET_AND_TOUCH = Operation("get", Opcode.GAT, True, ValueResult, _decode_get)
GET_WITH_EXPIRY = Operation("get", Opcode.SUBDOC_MULTI_LOOKUP, False, ValueResult, _decode_lookup)
GET_EXPIRY = Operation("get", Opcode.SUBDOC_MULTI_LOOKUP, False, ValueResult, _decode_expiry)
GET_WITHOUT_EXPIRY = Operation("get", Opcode.GET, False, ValueResult, _decode_get_without_expiry)
GET_REPLICA = Operation("rget", Opcode.GET_REPLICA, False, ValueResult, _decode_get)
LOCK = Operation("lock", Opcode.GET_LOCKED, True, ValueResult, _decode_get)
UNLOCK = Operation("unlock", Opcode.UNLOCK, True, OperationResult, _decode_plain)
SET = Operation("set", Opcode.SET, True, OperationResult, _decode_mutation)
ADD = Operation("add", Opcode.ADD, True, OperationResult, _decode_mutation)
REPLACE = Operation("replace", Opcode.REPLACE, True, OperationResult, _decode_mutation)
APPEND = Operation("append", Opcode.APPEND, True, OperationResult, _decode_mutation)
PREPEND = Operation("prepend", Opcode.PREPEND, True, OperationResult, _decode_mutation)
DELETE = Operation("delete", Opcode.DELETE, True, OperationResult, _decode_mutation)
INCR = Operation("incr", Opcode.INCREMENT, True, ValueResult, _decode_counter)
DECR = Operation("decr", Opcode.DECREMENT, True, ValueResult, _decode_counter)
TOUCH = Operation("touch", Opcode.TOUCH, True, OperationResult, _decode_plain)
NOOP = Operation("noop", Opcode.NOOP, False, OperationResult, _decode_plain)
VERSION = Operation("version", Opcode.VERSION, False, ValueResult, _decode_text)
STATS = Operation("stats", Opcode.STAT, False, ValueResult, _decode_text)
OBSERVE = Operation("observe", Opcode.OBSERVE, False, ValueResult, _decode_text)
ENDURE = Operation("endure", Opcode.OBSERVE, False, OperationResult, _decode_plain)

OPERATIONS = (
    GET,
    GET_AND_TOUCH,
    GET_WITH_EXPIRY,
    GET_EXPIRY,
    GET_WITHOUT_EXPIRY,
    GET_REPLICA,
    LOCK,
    UNLOCK,
    SET,
    ADD,
    REPLACE,
    APPEND,
    PREPEND,
    DELETE,
    INCR,
    DECR,
    TOUCH,
    NOOP,
    VERSION,
    STATS,
    OBSERVE,
    ENDURE,
    LOOKUP_IN,
    MUTATE_IN,
)
"""Every row of the table."""


# ---- building requests ---------------------------------------------------------------------------


store_extras = _STORE_EXTRAS.pack
"""Extras of set, add and replace: called with flags and expiry."""


def expiry_extras(seconds: int) -> bytes:
    """Extras of touch, get-and-touch and lock."""
    return _U32.pack(seconds)


def counter_extras(delta: int, initial: int | None, expiry: int) -> bytes:
    """Extras of a counter; without ``initial`` a missing document is not created."""
    if initial is None:
        return _COUNTER_EXTRAS.pack(delta, 0, COUNTER_NO_CREATE)
    return _COUNTER_EXTRAS.pack(delta, initial, expiry)


PRESERVE_EXPIRY_FRAMING = encode_frame_infos([(FrameInfo.PRESERVE_TTL, b"")])
"""Framing extras of a mutation that keeps the expiry and has no durability level."""


# Few timeouts are in use at a time.
@lru_cache(maxsize=256)
def mutation_framing(durability_level: int, durability_timeout_ms: int, preserve_expiry: bool) -> bytes:
    """Framing extras of a mutation: preserve-expiry first, then durability, as official SDKs send.

    :param durability_level: 0 for none, else 1 to 3.
    :param durability_timeout_ms: limited to 16 bits, without the reserved values.
    """
    if preserve_expiry and not durability_level:
        return PRESERVE_EXPIRY_FRAMING
    infos: list[tuple[int, bytes]] = []
    if preserve_expiry:
        infos.append((FrameInfo.PRESERVE_TTL, b""))
    if durability_level:
        timeout = min(max(durability_timeout_ms, 1), 0xFFFE)
        infos.append((FrameInfo.DURABILITY, _DURABILITY.pack(durability_level, timeout)))
    return encode_frame_infos(infos)


_EXPIRY_LOOKUP = (
    Spec(Opcode.SUBDOC_GET, XATTR, b"$document.flags"),
    Spec(Opcode.SUBDOC_GET, XATTR, b"$document.exptime"),
    Spec(Opcode.GET, 0, b""),
)
EXPIRY_LOOKUP_VALUE = lookup_value(arrange(_EXPIRY_LOOKUP))
"""Value of the lookup that reads flags, expiry and body of a document in one answer.

Flags and expiry are virtual attributes (path flag 0x04), the whole document is opcode 0x00 with an
empty path; attributes come first, as the protocol demands.
"""

EXPIRY_ONLY_LOOKUP_VALUE = lookup_value(arrange(_EXPIRY_LOOKUP[1:2]))
"""Value of the lookup that reads a document's expiry."""

LOOKUP_REFUSALS = frozenset(
    {
        Status.EINVAL,
        Status.UNKNOWN_COMMAND,
        Status.NOT_SUPPORTED,
        Status.XATTR_EINVAL,
        *(status for status in Status if Status.SUBDOC_PATH_ENOENT <= status < 0xE0),
    }
)
"""Statuses of a server that cannot read virtual attributes, or not in this way."""


def downgrade(request: Request, status: int) -> bool:
    """Replace a request for which this server is too old by a simpler one; return false if there is none.

    Reading a document with its expiry needs virtual attributes (servers from 5.0 on, and not every
    stand-in for one). From other servers the simpler request reads only the document; its expiry is then 0.
    """
    if request.operation is GET_WITH_EXPIRY and status in LOOKUP_REFUSALS:
        read_plainly(request)
        return True
    return False


def read_plainly(request: Request) -> None:
    """Replace the read of a document with its expiry by a read of only the document."""
    request.operation = GET_WITHOUT_EXPIRY
    request.value = b""


# ---- completing ----------------------------------------------------------------------------------


def complete(
    request: Request, frame: Frame, explained: ServerStatus | None = None, node: str = "the server"
) -> Any:
    """Convert the answer to ``request`` into its result.

    :param explained: the status with its entry in the server's error map, if it is unknown.
    :param node: the node that answered, for messages.
    :raises CouchbaseError: of the class for operation and status. With ``request.quiet`` a missing document
        is a result instead, as an existing one is to an add; with ``REFUSALS`` each of ``STATUSES`` is.
        ProtocolError: the answer's value is compressed,
        or follows attributes; HELLO requested neither.
    """
    status = frame.specific
    if status == 0 or status in SUCCESS_STATUSES:
        if frame.datatype > Datatype.JSON:
            raise foreign_datatype(request, frame.datatype, node)
        extras = frame.extras
        body = extras + frame.value
        result = request.operation.decode(request, frame.cas, body, 0, len(extras), len(body))
        if status in ON_TOMBSTONE and isinstance(result, SubdocResult):
            result._is_deleted = True
        return result
    if explained is not None:
        raise error_for(request, explained, error_context(frame))
    if request.quiet == REFUSALS and status in STATUSES:
        return refusals[request.operation.name, status]
    failed = failed_result(request, result_code(request.operation.name, status))
    if request.quiet and status == (Status.KEY_EEXISTS if request.operation is ADD else Status.KEY_ENOENT):
        return failed
    raise error_for(request, status, error_context(frame), failed)
