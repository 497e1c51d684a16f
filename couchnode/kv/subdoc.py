"""Operations on parts of a document, by opcode: pure functions from text to text.

Each checks the path first, then the fragment, then the document down to the path's position, and then the
value there. The first error decides the status.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from couchbase.protocol.constants import Opcode, Status
from couchnode.data.item import StatusError, is_json
from couchnode.kv.jsonpath import (
    MAX_LEVELS,
    Span,
    descend,
    find,
    insert_before,
    insert_last,
    levels,
    members,
    reach,
    remove,
    splice,
    wrap,
)
from couchnode.kv.paths import Steps, parse_path

_INT64 = 2**63
_CONTAINERS = b"[{"
_SPACES = b" \t\r\n"
_DELTA = re.compile(rb"-?[1-9][0-9]{0,18}")
_WHOLE_NUMBER = re.compile(rb"-?[0-9]+")


class Change(NamedTuple):
    """The result of one operation on a document; ``answer`` is ``None`` if the operation has none."""

    text: bytes
    answer: bytes | None = None


# ---- lookups -------------------------------------------------------------------------------------


def lookup(opcode: int, text: bytes, path: bytes) -> bytes:
    """Look up a path in a JSON text: the value, its count, or only its existence.

    :raises StatusError: SUBDOC_PATH_ENOENT, SUBDOC_PATH_MISMATCH, SUBDOC_PATH_EINVAL, SUBDOC_PATH_E2BIG,
        SUBDOC_DOC_E2DEEP, SUBDOC_DOC_NOT_JSON for a text that is a scalar.
    """
    span = find(text, parse_path(path))
    if opcode == Opcode.SUBDOC_EXISTS:
        return b""
    if opcode == Opcode.SUBDOC_GET:
        return text[span.start : span.end]
    if text[span.start] not in _CONTAINERS:
        raise StatusError(Status.SUBDOC_PATH_MISMATCH)
    return b"%d" % sum(1 for _ in members(text, span))


# ---- mutations -----------------------------------------------------------------------------------


def mutate(opcode: int, text: bytes, path: bytes, value: bytes, create_parents: bool = False) -> Change:
    """Change a JSON text at a path and return the new one.

    :param value: a JSON fragment; for the array operations one or several, separated by commas;
        for the counter a signed decimal.
    :param create_parents: create missing objects on the path.
    :raises StatusError: a SUBDOC status.
    """
    return MUTATIONS[opcode](text, parse_path(path), value, create_parents)


def _put(can_add: bool, can_replace: bool) -> Callable[[bytes, Steps, bytes, bool], Change]:
    def operation(text: bytes, steps: Steps, value: bytes, create_parents: bool) -> Change:
        if not is_json(value.strip(_SPACES)):
            raise StatusError(Status.SUBDOC_VALUE_CANTINSERT)
        _check_levels(value, len(steps))
        span, left = descend(text, steps)
        if can_add and not isinstance(steps[-1], bytes):
            raise StatusError(Status.SUBDOC_PATH_EINVAL)
        if not left:
            if not can_replace:
                raise StatusError(Status.SUBDOC_PATH_EEXISTS)
            return Change(splice(text, span, value))
        if not can_add or (len(left) > 1 and not create_parents):
            raise StatusError(Status.SUBDOC_PATH_ENOENT)
        return Change(_add_member(text, span, left, value))

    return operation


def _add_member(text: bytes, container: Span, left: Steps, value: bytes) -> bytes:
    """Add the missing rest of a path to the innermost existing object."""
    key = left[0]
    if not isinstance(key, bytes):
        raise StatusError(Status.SUBDOC_PATH_ENOENT)
    return insert_last(text, container, b'"' + key + b'":' + wrap(left[1:], value))


def _delete(text: bytes, steps: Steps, value: bytes, create_parents: bool) -> Change:
    member, left = reach(text, steps)
    if left:
        raise StatusError(Status.SUBDOC_PATH_ENOENT)
    return Change(remove(text, member))


def _push_last(text: bytes, steps: Steps, value: bytes, create_parents: bool) -> Change:
    _require_elements(value, len(steps) + 1)
    if not steps:
        return Change(_push_to_root(text, value))
    span, left = descend(text, steps)
    if left:
        return Change(_new_array(text, span, left, value, create_parents))
    _require_array(text, span.start)
    return Change(insert_last(text, span, value))


def _push_to_root(text: bytes, value: bytes) -> bytes:
    """Append to a document that is an array; only its last characters are examined."""
    body = text.rstrip(_SPACES)
    if not body.endswith(b"]"):
        mismatch = body.endswith(b"}")
        raise StatusError(Status.SUBDOC_PATH_MISMATCH if mismatch else Status.SUBDOC_DOC_NOT_JSON)
    before = body[:-1].rstrip(_SPACES)
    return before + (b"" if before.endswith(b"[") else b",") + value + b"]"


def _push_first(text: bytes, steps: Steps, value: bytes, create_parents: bool) -> Change:
    _require_elements(value, len(steps) + 1)
    first, left = reach(text, (*steps, 0))
    if not left:
        return Change(insert_before(text, first, value))
    if len(left) == 1:
        return Change(insert_last(text, first.value, value))
    return Change(_new_array(text, first.value, left[:-1], value, create_parents))


def _new_array(text: bytes, container: Span, left: Steps, value: bytes, create_parents: bool) -> bytes:
    if not create_parents:
        raise StatusError(Status.SUBDOC_PATH_ENOENT)
    return _add_member(text, container, left, b"[" + value + b"]")


def _insert(text: bytes, steps: Steps, value: bytes, create_parents: bool) -> Change:
    _require_elements(value, len(steps))
    index = steps[-1]
    if not isinstance(index, int) or index < 0:
        raise StatusError(Status.SUBDOC_PATH_EINVAL)
    found, left = reach(text, steps)
    if not left:
        return Change(insert_before(text, found, value))
    if len(left) > 1 or index != sum(1 for _ in members(text, found.value)):
        raise StatusError(Status.SUBDOC_PATH_ENOENT)
    return Change(insert_last(text, found.value, value))


def _add_unique(text: bytes, steps: Steps, value: bytes, create_parents: bool) -> Change:
    scalar = value.strip(_SPACES)
    if not is_json(scalar) or scalar[0] in _CONTAINERS:
        raise StatusError(Status.SUBDOC_VALUE_CANTINSERT)
    _check_levels(value, len(steps) + 1)
    span, left = descend(text, steps)
    if left:
        return Change(_new_array(text, span, left, value, create_parents))
    _require_array(text, span.start)
    for member in members(text, span):
        element = text[member.value.start : member.value.end]
        if element[0] in _CONTAINERS:
            raise StatusError(Status.SUBDOC_PATH_MISMATCH)
        if element == scalar:
            raise StatusError(Status.SUBDOC_PATH_EEXISTS)
    return Change(insert_last(text, span, value))


def _counter(text: bytes, steps: Steps, value: bytes, create_parents: bool) -> Change:
    delta = int(value) if _DELTA.fullmatch(value) else _INT64
    if not -_INT64 <= delta < _INT64:
        raise StatusError(Status.SUBDOC_DELTA_EINVAL)
    span, left = descend(text, steps)
    if left:
        if (len(left) > 1 and not create_parents) or text[span.start] != b"{"[0]:
            raise StatusError(Status.SUBDOC_PATH_ENOENT)
        if not isinstance(steps[-1], bytes):
            raise StatusError(Status.SUBDOC_PATH_EINVAL)
        answer = b"%d" % delta
        return Change(_add_member(text, span, left, answer), answer)
    present = text[span.start : span.end]
    if not _WHOLE_NUMBER.fullmatch(present):
        raise StatusError(Status.SUBDOC_PATH_MISMATCH)
    number = int(present) if len(present) <= len(str(-_INT64)) else _INT64
    if not -_INT64 <= number < _INT64:
        raise StatusError(Status.SUBDOC_NUM_ERANGE)
    total = number + delta
    if not -_INT64 <= total < _INT64:
        raise StatusError(Status.SUBDOC_VALUE_CANTINSERT)
    answer = b"%d" % total
    return Change(splice(text, span, answer), answer)


def _require_elements(fragment: bytes, above: int) -> None:
    """Refuse a text that is not a list of array elements, or too deeply nested for its position."""
    if not fragment.strip(_SPACES) or not is_json(b"[" + fragment + b"]"):
        raise StatusError(Status.SUBDOC_VALUE_CANTINSERT)
    _check_levels(fragment, above)


def _check_levels(fragment: bytes, above: int) -> None:
    if above + levels(fragment) > MAX_LEVELS:
        raise StatusError(Status.SUBDOC_VALUE_ETOODEEP)


def _require_array(text: bytes, start: int) -> None:
    if text[start] != b"["[0]:
        raise StatusError(Status.SUBDOC_PATH_MISMATCH)


MUTATIONS: dict[int, Callable[[bytes, Steps, bytes, bool], Change]] = {
    Opcode.SUBDOC_DICT_ADD: _put(can_add=True, can_replace=False),
    Opcode.SUBDOC_DICT_UPSERT: _put(can_add=True, can_replace=True),
    Opcode.SUBDOC_REPLACE: _put(can_add=False, can_replace=True),
    Opcode.SUBDOC_DELETE: _delete,
    Opcode.SUBDOC_ARRAY_PUSH_LAST: _push_last,
    Opcode.SUBDOC_ARRAY_PUSH_FIRST: _push_first,
    Opcode.SUBDOC_ARRAY_INSERT: _insert,
    Opcode.SUBDOC_ARRAY_ADD_UNIQUE: _add_unique,
    Opcode.SUBDOC_COUNTER: _counter,
}
"""Mutations by opcode; the path of those that take an empty one is then the document itself."""
