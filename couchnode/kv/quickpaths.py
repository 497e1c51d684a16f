"""The usual operations on paths of a document's body, for the fast path: those that are refused, or on other
parts of a document, or on a large one, are left to the general path."""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from couchbase.protocol.constants import Datatype, Opcode, Status
from couchnode.data.item import Item, StatusError
from couchnode.kv.aside import LARGE_BYTES
from couchnode.kv.specs import MAX_PATH_BYTES, MAX_SPECS, RULES, DocFlag, PathFlag
from couchnode.kv.subdoc import MUTATIONS, lookup, mutate

MOST_LOOKUP_BYTES = 512
"""Longest list of paths that is decoded here, since those are cached."""

PATH_FAILED = int(Status.SUBDOC_MULTI_PATH_FAILURE)
"""Status of the answer if an operation failed."""

_LOOKUP_SPEC, _LOOKUP_RESULT = Struct(">BBH"), Struct(">HI")
_MUTATION_SPEC, _MUTATION_RESULT, _MUTATION_FAILURE = Struct(">BBHI"), Struct(">BHI"), Struct(">BH")
_LOOKUPS = frozenset({Opcode.SUBDOC_GET, Opcode.SUBDOC_EXISTS, Opcode.SUBDOC_GET_COUNT})
_JSON = int(Datatype.JSON)
_U32, _MKDOC = Struct(">I"), int(DocFlag.MKDOC)
# Opcode, flags of the path, and whether the document may be created -> whether there is a value.
_MUTATES = {
    (int(opcode), flags, creates): RULES[opcode].has_value
    for opcode in MUTATIONS
    for flags in (0, int(PathFlag.CREATE_PARENTS))
    for creates in (False, True)
    if not flags & ~RULES[opcode].path_flags and (not creates or RULES[opcode].doc_flags & _MKDOC)
}


@lru_cache(maxsize=1024)
def lookups_of(value: bytes) -> tuple[tuple[int, bytes], ...] | None:
    """Return opcode and path of each operation of a lookup; ``None`` if it may be refused, or does not only
    read paths of the body."""
    found = []
    at, end = 0, len(value)
    while at < end:
        if at + _LOOKUP_SPEC.size > end:
            return None
        opcode, flags, size = _LOOKUP_SPEC.unpack_from(value, at)
        at += _LOOKUP_SPEC.size + size
        if opcode not in _LOOKUPS or flags or not size or at > end:
            return None
        found.append((opcode, value[at - size : at]))
    return tuple(found) if 0 < len(found) <= MAX_SPECS else None


def looked_up(item: Item, operations: tuple[tuple[int, bytes], ...]) -> tuple[int, bytes] | None:
    """Return status and value of the answer to a lookup in a document.

    ``None`` if the document is not JSON, or a large one for that many operations.

    :param operations: see :func:`lookups_of`.
    """
    text = item.value
    size = (len(text) + len(item.xattrs)) * len(operations)
    if size >= LARGE_BYTES - MOST_LOOKUP_BYTES or not item.datatype & _JSON:
        return None
    outcome = 0
    results: list[bytes] = []
    for opcode, path in operations:
        try:
            found = lookup(opcode, text, path)
        except StatusError as refusal:
            outcome = PATH_FAILED
            results.append(_LOOKUP_RESULT.pack(refusal.status, 0))
        else:
            results += _LOOKUP_RESULT.pack(0, len(found)), found
    return outcome, b"".join(results)


def mutation_options(extras: bytes) -> tuple[int, bool] | None:
    """Return the expiry in the extras of a mutation, and whether a missing document is created.

    ``None`` if they have another form, or other flags.
    """
    size = len(extras)
    flags = extras[-1] if size in (1, 5) else 0
    if size not in (0, 1, 4, 5) or flags not in (0, _MKDOC):
        return None
    return _U32.unpack_from(extras)[0] if size >= 4 else 0, flags == _MKDOC


def changed(
    old: Item | None, data: bytes, at: int, end: int, creates: bool = False
) -> tuple[bytes | None, bytes] | None:
    """Return the body of a document after a mutation of its paths, and the value of the answer. There is no
    body if the last operation failed.

    ``None`` if the command has another form, the document has attributes, or it is a large one for that many
    operations.

    :param at: where in ``data`` the operations begin; they end at ``end``.
    :param creates: whether a missing document would have been created, so that all parents are.
    :raises StatusError: an earlier operation failed; the form of the later ones has to be checked first.
    """
    if old is None or old.deleted or old.xattrs or at == end:
        return None
    text = old.value
    if len(text) + end - at >= LARGE_BYTES or not old.datatype & _JSON:
        return None
    answers = b""
    for index in range(MAX_SPECS):
        path_at = at + _MUTATION_SPEC.size
        if path_at > end or index * len(text) >= LARGE_BYTES:
            return None
        opcode, flags, path_bytes, value_bytes = _MUTATION_SPEC.unpack_from(data, at)
        value_at = path_at + path_bytes
        at = value_at + value_bytes
        if (
            _MUTATES.get((opcode, flags, creates)) is not (value_bytes > 0)
            or not 0 < path_bytes <= MAX_PATH_BYTES
        ):
            return None
        if at > end:
            return None
        try:
            text, answer = mutate(
                opcode, text, data[path_at:value_at], data[value_at:at], creates or flags != 0
            )
        except StatusError as refusal:
            if at < end:
                raise
            return None, _MUTATION_FAILURE.pack(index, refusal.status)
        if answer is not None:
            answers += _MUTATION_RESULT.pack(index, 0, len(answer)) + answer
        if at == end:
            return text, answers
    return None
