"""Operations on parts of a document, by opcode: pure functions from text to text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntFlag
from typing import Any, NamedTuple

from couchbase.protocol.constants import Opcode, Status
from couchnode.data.item import StatusError, is_json, parse_json
from couchnode.kv.jsonpath import (
    Component,
    child,
    descend,
    find,
    insert_before,
    insert_first,
    insert_last,
    members,
    parse_path,
    remove,
    splice,
    wrap,
)

MAX_SPECS = 16
"""Operations in one multi-path command."""

MAX_NESTING = 32
"""Deepest nesting of a document that is changed by path."""

_INT64 = 2**63
_CONTAINERS = b"[{"


class PathFlag(IntFlag):
    """Flags of one path."""

    CREATE_PARENTS = 0x01
    XATTR = 0x04
    EXPAND_MACROS = 0x10
    BINARY = 0x20


class Change(NamedTuple):
    """The result of one operation on a document; ``answer`` is ``None`` without one."""

    text: bytes
    answer: bytes | None = None


# ---- lookups -------------------------------------------------------------------------------------


def lookup(opcode: int, text: bytes, path: bytes) -> bytes:
    """Look up a path in a JSON text: the value, its count, or only its existence.

    :raises StatusError: SUBDOC_PATH_ENOENT, SUBDOC_PATH_MISMATCH, SUBDOC_PATH_EINVAL,
        SUBDOC_PATH_E2BIG; SUBDOC_INVALID_COMBO for an opcode that is no lookup.
    """
    if opcode not in LOOKUPS:
        raise StatusError(Status.SUBDOC_INVALID_COMBO)
    if not path and opcode != Opcode.SUBDOC_GET_COUNT:
        raise StatusError(Status.SUBDOC_PATH_EINVAL)
    span = find(text, parse_path(path))
    if opcode == Opcode.SUBDOC_EXISTS:
        return b""
    if opcode == Opcode.SUBDOC_GET:
        return text[span.start : span.end]
    if text[span.start] not in _CONTAINERS:
        raise StatusError(Status.SUBDOC_PATH_MISMATCH)
    return b"%d" % sum(1 for _ in members(text, span))


LOOKUPS = frozenset({Opcode.SUBDOC_GET, Opcode.SUBDOC_EXISTS, Opcode.SUBDOC_GET_COUNT})


# ---- mutations -----------------------------------------------------------------------------------


def mutate(opcode: int, text: bytes, path: bytes, value: bytes, flags: int = 0) -> Change:
    """Change a JSON text at a path and return the new one.

    :param value: a JSON fragment; for the array operations one or several, separated by commas;
        for the counter a signed decimal.
    :param flags: :class:`PathFlag`; only CREATE_PARENTS has a meaning here.
    :raises StatusError: a SUBDOC status; SUBDOC_INVALID_COMBO for an opcode that is no mutation.
    """
    operation = MUTATIONS.get(opcode)
    if operation is None:
        raise StatusError(Status.SUBDOC_INVALID_COMBO)
    if not path and opcode not in _ON_THE_WHOLE:
        raise StatusError(Status.SUBDOC_PATH_EINVAL)
    if bool(value) == (opcode == Opcode.SUBDOC_DELETE):
        raise StatusError(Status.EINVAL, "a value is missing, or there must not be one")
    change = operation(text, parse_path(path), value, bool(flags & PathFlag.CREATE_PARENTS))
    if nesting(change.text) > MAX_NESTING:
        deep = nesting(text) > MAX_NESTING
        raise StatusError(Status.SUBDOC_DOC_E2DEEP if deep else Status.SUBDOC_VALUE_ETOODEEP)
    return change


def nesting(text: bytes) -> int:
    """Return how many containers are open at the deepest place of a text, counted up to the limit
    and one beyond."""
    level = [parse_json(text)]
    depth = 0
    while depth <= MAX_NESTING:
        inner: list[Iterable[Any]] = []
        for value in level:
            if isinstance(value, dict):
                inner.append(value.values())
            elif isinstance(value, list):
                inner.append(value)
        if not inner:
            break
        depth += 1
        level = [value for values in inner for value in values]
    return depth


def _put(can_add: bool, can_replace: bool) -> Callable[[bytes, list[Component], bytes, bool], Change]:
    def operation(text: bytes, steps: list[Component], value: bytes, create_parents: bool) -> Change:
        _require_json(value)
        if can_add and not isinstance(steps[-1], bytes):
            raise StatusError(Status.SUBDOC_PATH_EINVAL)
        span, left = descend(text, steps)
        if not left:
            if not can_replace:
                raise StatusError(Status.SUBDOC_PATH_EEXISTS)
            return Change(splice(text, span, value))
        if not can_add or (len(left) > 1 and not create_parents):
            raise StatusError(Status.SUBDOC_PATH_ENOENT)
        return Change(_add_member(text, steps, left, value))

    return operation


def _add_member(text: bytes, steps: list[Component], left: list[Component], value: bytes) -> bytes:
    """Add the missing rest of a path to the object that its beginning leads to."""
    key = left[0]
    if not isinstance(key, bytes):
        raise StatusError(Status.SUBDOC_PATH_ENOENT)
    container = find(text, steps[: len(steps) - len(left)])
    return insert_last(text, container, b'"' + key + b'":' + wrap(left[1:], value))


def _delete(text: bytes, steps: list[Component], value: bytes, create_parents: bool) -> Change:
    container = find(text, steps[:-1])
    member = child(text, container, steps[-1])
    if member is None:
        raise StatusError(Status.SUBDOC_PATH_ENOENT)
    return Change(remove(text, container, member))


def _push(at_end: bool) -> Callable[[bytes, list[Component], bytes, bool], Change]:
    def operation(text: bytes, steps: list[Component], value: bytes, create_parents: bool) -> Change:
        _require_elements(value)
        span, left = descend(text, steps)
        if left:
            return Change(_new_array(text, steps, left, value, create_parents))
        _require_array(text, span.start)
        return Change(insert_last(text, span, value) if at_end else insert_first(text, span, value))

    return operation


def _new_array(
    text: bytes, steps: list[Component], left: list[Component], value: bytes, create_parents: bool
) -> bytes:
    if not create_parents:
        raise StatusError(Status.SUBDOC_PATH_ENOENT)
    return _add_member(text, steps, left, b"[" + value + b"]")


def _insert(text: bytes, steps: list[Component], value: bytes, create_parents: bool) -> Change:
    _require_elements(value)
    index = steps[-1]
    if not isinstance(index, int) or index < 0:
        raise StatusError(Status.SUBDOC_PATH_EINVAL)
    container = find(text, steps[:-1])
    _require_array(text, container.start)
    count = 0
    for member in members(text, container):
        if count == index:
            return Change(insert_before(text, member, value))
        count += 1
    if count != index:
        raise StatusError(Status.SUBDOC_PATH_ENOENT)
    return Change(insert_last(text, container, value))


def _add_unique(text: bytes, steps: list[Component], value: bytes, create_parents: bool) -> Change:
    _require_json(value)
    value = value.strip()
    if value[0] in _CONTAINERS:
        raise StatusError(Status.SUBDOC_VALUE_CANTINSERT)
    span, left = descend(text, steps)
    if left:
        return Change(_new_array(text, steps, left, value, create_parents))
    _require_array(text, span.start)
    for member in members(text, span):
        element = text[member.value.start : member.value.end]
        if element[0] in _CONTAINERS:
            raise StatusError(Status.SUBDOC_PATH_MISMATCH)
        if element == value:
            raise StatusError(Status.SUBDOC_PATH_EEXISTS)
    return Change(insert_last(text, span, value))


def new_document(path: bytes) -> bytes:
    """Return the empty document for a first mutation at that path."""
    steps = parse_path(path)
    return b"{}" if steps and isinstance(steps[0], bytes) else b"[]"


def _counter(text: bytes, steps: list[Component], value: bytes, create_parents: bool) -> Change:
    delta = _to_int64(value)
    if not delta:
        raise StatusError(Status.SUBDOC_DELTA_EINVAL)
    span, left = descend(text, steps)
    if left:
        if len(left) > 1 and not create_parents:
            raise StatusError(Status.SUBDOC_PATH_ENOENT)
        answer = b"%d" % delta
        return Change(_add_member(text, steps, left, answer), answer)
    present = text[span.start : span.end]
    if present[:1] not in b"-0123456789" or not present.lstrip(b"-").isdigit():
        raise StatusError(Status.SUBDOC_PATH_MISMATCH)
    number = _to_int64(present)
    if number is None:
        raise StatusError(Status.SUBDOC_NUM_ERANGE)
    total = number + delta
    if not -_INT64 <= total < _INT64:
        raise StatusError(Status.SUBDOC_VALUE_CANTINSERT)
    answer = b"%d" % total
    return Change(splice(text, span, answer), answer)


def _to_int64(text: bytes) -> int | None:
    digits = text[1:] if text[:1] in (b"-", b"+") else text
    if not digits.isdigit() or len(digits) > 19:
        return None
    number = int(text)
    return number if -_INT64 <= number < _INT64 else None


def _require_json(fragment: bytes) -> None:
    if not is_json(fragment.strip()):
        raise StatusError(Status.SUBDOC_VALUE_CANTINSERT)


def _require_elements(fragment: bytes) -> None:
    if not fragment.strip() or not is_json(b"[" + fragment + b"]"):
        raise StatusError(Status.SUBDOC_VALUE_CANTINSERT)


def _require_array(text: bytes, start: int) -> None:
    if text[start] != b"["[0]:
        raise StatusError(Status.SUBDOC_PATH_MISMATCH)


MUTATIONS: dict[int, Callable[[bytes, list[Component], bytes, bool], Change]] = {
    Opcode.SUBDOC_DICT_ADD: _put(can_add=True, can_replace=False),
    Opcode.SUBDOC_DICT_UPSERT: _put(can_add=True, can_replace=True),
    Opcode.SUBDOC_REPLACE: _put(can_add=False, can_replace=True),
    Opcode.SUBDOC_DELETE: _delete,
    Opcode.SUBDOC_ARRAY_PUSH_LAST: _push(at_end=True),
    Opcode.SUBDOC_ARRAY_PUSH_FIRST: _push(at_end=False),
    Opcode.SUBDOC_ARRAY_INSERT: _insert,
    Opcode.SUBDOC_ARRAY_ADD_UNIQUE: _add_unique,
    Opcode.SUBDOC_COUNTER: _counter,
}
"""Mutations by opcode."""

_ON_THE_WHOLE = frozenset(
    {
        Opcode.SUBDOC_ARRAY_PUSH_LAST,
        Opcode.SUBDOC_ARRAY_PUSH_FIRST,
        Opcode.SUBDOC_ARRAY_ADD_UNIQUE,
        Opcode.SUBDOC_COUNTER,
    }
)
"""Mutations that take an empty path, which means the document itself."""
