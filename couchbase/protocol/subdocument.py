"""Sub-document operations: several paths of one document read or changed by one request.

A :class:`Spec` is one of them. Requests always use the multi commands, which also take a single path. The
server requires attributes before paths of the body, and numbers paths in the order sent; callers see their
own order.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from struct import Struct
from struct import error as StructError
from typing import Any, NamedTuple

from couchbase.exceptions import CouchbaseError, ProtocolError
from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.failures import error_for, malformed_answer
from couchbase.protocol.pathresults import BINARY, SubdocResult
from couchbase.protocol.refused import PATH_STATUSES, REFUSALS, Refused, path_kinds
from couchbase.protocol.request import Operation, Request
from couchbase.result import OperationResult

MAX_SPECS = 16
"""Largest number of specs in one request."""
MAX_PATH_BYTES = 1024

CREATE_PARENTS = 0x01
XATTR = 0x04
EXPAND_MACROS = 0x10

UPSERT_DOCUMENT = 0x01
INSERT_DOCUMENT = 0x02
ACCESS_DELETED = 0x04
CREATE_AS_DELETED = 0x08
REVIVE = 0x10
REPLICA_READ = 0x20

_BINARY_PREFIX = b'"cb-content-base64-encoded:'

_ENTRY = Struct(">HI")
_CHANGED = Struct(">BHI")
_FAILED = Struct(">BH")
_LOOKUP_SPEC = Struct(">BBH")
MUTATION_SPEC = Struct(">BBHI")
_U32 = Struct(">I")
_TOKEN_BYTES = 16
_new: Any = object.__new__

LOOKUPS = frozenset({Opcode.GET, Opcode.SUBDOC_GET, Opcode.SUBDOC_EXISTS, Opcode.SUBDOC_GET_COUNT})
"""Opcodes of specs that read; those of all others change something."""


class Spec(NamedTuple):
    """One path of a request, with its operation."""

    opcode: int
    flags: int
    """Path flags: :data:`CREATE_PARENTS`, :data:`XATTR`, :data:`EXPAND_MACROS`, :data:`BINARY`."""
    path: bytes
    value: bytes = b""
    """JSON text; several values of an array are separated by commas."""

    @property
    def is_lookup(self) -> bool:
        """Whether the spec reads."""
        return self.opcode in LOOKUPS

    @property
    def is_exists(self) -> bool:
        """Whether the spec asks if the path exists."""
        return self.opcode == Opcode.SUBDOC_EXISTS


class Specs(NamedTuple):
    """The specs of a request."""

    given: tuple[Spec, ...]
    """In the caller's order."""
    order: tuple[int, ...] | None
    """Positions in :attr:`given` in the order that is sent; ``None`` if it is the same."""

    def position(self, sent: int) -> int:
        """Return the position in the caller's order of the spec that was sent as number ``sent``."""
        return sent if self.order is None else self.order[sent]


def arrange(specs: Sequence[Spec]) -> Specs:
    """Return the specs of a request, with attributes sent first."""
    given = tuple(specs)
    wanted = sorted(range(len(given)), key=lambda index: not given[index].flags & XATTR)
    return Specs(given, None if wanted == list(range(len(given))) else tuple(wanted))


def lookup_value(specs: Specs) -> bytes:
    """Return the value of a lookup's request."""
    pack = _LOOKUP_SPEC.pack
    return b"".join(
        [
            pack(opcode, flags & ~BINARY, len(path)) + path
            for opcode, flags, path, _ in map(specs.given.__getitem__, _order(specs))
        ]
    )


def mutation_value(specs: Specs) -> bytes:
    """Return the value of a mutation's request."""
    pack = MUTATION_SPEC.pack
    parts: list[bytes] = []
    for opcode, flags, path, value in map(specs.given.__getitem__, _order(specs)):
        parts += (pack(opcode, flags, len(path), len(value)), path, value)
    return b"".join(parts)


def _order(specs: Specs) -> Sequence[int]:
    return range(len(specs.given)) if specs.order is None else specs.order


def lookup_extras(document_flags: int) -> bytes:
    """Return the extras of a lookup's request."""
    return bytes((document_flags,)) if document_flags else b""


def mutation_extras(document_flags: int, expiry: int) -> bytes:
    """Return the extras of a mutation's request; expiry 0 is not sent, and means never."""
    extras = _U32.pack(expiry) if expiry else b""
    return extras + bytes((document_flags,)) if document_flags else extras


def binary_text(value: bytes) -> bytes:
    """Return the JSON text that encodes bytes in an attribute, in the form of servers since 7.6."""
    return _BINARY_PREFIX + b64encode(value) + b'"'


# ---- reading answers -----------------------------------------------------------------------------


def decode_lookup_entries(data: bytes, at: int = 0, end: int | None = None) -> list[tuple[int, bytes]]:
    """Split the answer to a sub-document lookup into ``(status, bytes)`` by path.

    :param at: where in ``data`` it begins; it ends at ``end``, by default with the data.
    :raises ProtocolError: an entry runs past the end.
    """
    entries = []
    unpack = _ENTRY.unpack_from
    if end is None:
        end = len(data)
    try:
        while at < end:
            status, size = unpack(data, at)
            begin = at + 6
            at = begin + size
            entries.append((status, data[begin:at]))
    except StructError:
        at = end + 1
    # One entry that runs past the end is the last one.
    if at != end:
        raise ProtocolError("a lookup answer ends inside an entry")
    return entries


def _new_result(request: Request, cas: int, answers: Sequence[tuple[int, bytes]]) -> SubdocResult:
    # SubdocResult.__init__, inlined.
    result: SubdocResult = _new(SubdocResult)
    result._rc = 0
    result._cas = cas
    result._key = request.key
    result._known = None
    result._specs = request.specs.given
    result._answers = answers
    result._is_deleted = False
    return result


def _decode_lookup_in(
    request: Request, cas: int, data: bytes, at: int, middle: int, end: int
) -> SubdocResult:
    given, order = request.specs
    try:
        answers = decode_lookup_entries(data, middle, end)
    except ProtocolError as error:
        raise malformed_answer(request, str(error.message)) from None
    if len(answers) != len(given):
        raise malformed_answer(request, f"{len(answers)} entries instead of {len(given)}")
    if order is not None:
        answers = [answer for _, answer in sorted(zip(order, answers))]
    result = _new_result(request, cas, answers)
    result._token = None
    return result


_CHANGED_NOTHING = tuple([((0, b""),) * count for count in range(MAX_SPECS + 1)])
"""The answers of a mutation without counters, by the number of its specs."""


def _decode_mutate_in(
    request: Request, cas: int, data: bytes, at: int, middle: int, end: int
) -> OperationResult:
    specs = request.specs
    if end - middle == _FAILED.size:
        sent, status = _FAILED.unpack_from(data, middle)
        if request.quiet == REFUSALS and status in PATH_STATUSES and sent < len(specs.given):
            position = specs.position(sent)
            path = specs.given[position].path.decode("utf-8", "replace")
            return Refused(path_kinds[status, position], path)
        raise _path_failed(request, sent, status)
    answers: Sequence[tuple[int, bytes]] = _CHANGED_NOTHING[len(specs.given)]
    if middle < end:
        answers = _changed_values(request, data, middle, end)
    result = _new_result(request, cas, answers)
    result._token = (request.vbucket, data[at:middle]) if middle - at == _TOKEN_BYTES else None
    return result


def _changed_values(request: Request, data: bytes, begin: int, end: int) -> Sequence[tuple[int, bytes]]:
    """Return the answers of a mutation with counters."""
    specs = request.specs
    answers = list(_CHANGED_NOTHING[len(specs.given)])
    while begin < end:
        if begin + _CHANGED.size > end:
            raise malformed_answer(request, "it ends inside an entry")
        sent, status, size = _CHANGED.unpack_from(data, begin)
        begin += _CHANGED.size
        if status or sent >= len(answers) or begin + size > end:
            raise malformed_answer(request, f"an entry for path {sent} with status 0x{status:02x}")
        answers[specs.position(sent)] = 0, data[begin : begin + size]
        begin += size
    return answers


def _path_failed(request: Request, sent: int, status: int) -> CouchbaseError:
    """Return the error for a mutation that changed nothing, because one path failed."""
    if sent >= len(request.specs.given):
        return malformed_answer(request, f"a failure of path {sent}")
    position = request.specs.position(sent)
    path = request.specs.given[position].path.decode("utf-8", "replace")
    error = error_for(request, status)
    error.message = f"{error.message} for path {path!r} (spec {position}); nothing was changed"
    error.path, error.path_index = path, position
    return error


def _failed(code: int) -> SubdocResult:
    return SubdocResult(code)


LOOKUP_IN = Operation("lookup_in", Opcode.SUBDOC_MULTI_LOOKUP, False, _failed, _decode_lookup_in)
MUTATE_IN = Operation("mutate_in", Opcode.SUBDOC_MULTI_MUTATION, True, _failed, _decode_mutate_in)

ON_TOMBSTONE = frozenset({Status.SUBDOC_SUCCESS_DELETED, Status.SUBDOC_MULTI_PATH_FAILURE_DELETED})
"""Statuses of answers about a deleted document."""
