"""The requests of sub-document commands: their form, and every check that needs no document.

The order of the checks and the texts are those of Couchbase Server, because programs recognise errors by
their texts.
"""

from __future__ import annotations

from enum import IntFlag
from struct import Struct
from typing import NamedTuple

from couchbase.protocol.constants import Opcode, Status
from couchnode.data.attributes import is_virtual, key_of
from couchnode.data.item import StatusError
from couchnode.kv.binaryvalues import check_embedded
from couchnode.kv.macros import check_macro

MAX_SPECS = 16
"""Most operations in one multi-path command."""

MAX_PATH_BYTES = 1024
"""Longest path, in bytes."""

_U32 = Struct(">I")
_PATH_EXTRAS = Struct(">HB")
_LOOKUP_SPEC = Struct(">BBH")
_MUTATION_SPEC = Struct(">BBHI")
_KNOWN_DOC_FLAGS = 0x3F


class PathFlag(IntFlag):
    """Flags of one path."""

    CREATE_PARENTS = 0x01
    XATTR = 0x04
    EXPAND_MACROS = 0x10
    BINARY = 0x20


class DocFlag(IntFlag):
    """Flags of the whole command."""

    MKDOC = 0x01
    ADD = 0x02
    ACCESS_DELETED = 0x04
    CREATE_AS_DELETED = 0x08
    REVIVE = 0x10
    REPLICA_READ = 0x20


# Plain numbers: operations on members of an enumeration run Python code.
_P, _X, _M, _B = (int(flag) for flag in PathFlag)
_K, _A, _D, _C, _V, _R = (int(flag) for flag in DocFlag)


class Rule(NamedTuple):
    """The rules of one operation.

    :ivar whole: the operation is on the whole document, and allowed only in a multi-path command.
    """

    mutates: bool
    has_value: bool
    path_flags: int
    doc_flags: int
    empty_path: bool = False
    whole: bool = False
    mandatory_flags: int = 0


RULES: dict[int, Rule] = {
    Opcode.SUBDOC_GET: Rule(False, False, _X | _B, _D | _V | _R),
    Opcode.SUBDOC_EXISTS: Rule(False, False, _X, _D | _V | _R),
    Opcode.SUBDOC_GET_COUNT: Rule(False, False, _X, _D | _V | _R, empty_path=True),
    Opcode.SUBDOC_DICT_ADD: Rule(True, True, _P | _X | _M | _B, _K | _A | _D | _C | _V),
    Opcode.SUBDOC_DICT_UPSERT: Rule(True, True, _P | _X | _M | _B, _K | _A | _D | _C | _V),
    Opcode.SUBDOC_DELETE: Rule(True, False, _X, _D | _V),
    Opcode.SUBDOC_REPLACE: Rule(True, True, _X | _M | _B, _A | _D | _V),
    Opcode.SUBDOC_ARRAY_PUSH_LAST: Rule(True, True, _P | _X | _M, _K | _A | _D | _C | _V, empty_path=True),
    Opcode.SUBDOC_ARRAY_PUSH_FIRST: Rule(True, True, _P | _X | _M, _K | _A | _D | _C | _V, empty_path=True),
    Opcode.SUBDOC_ARRAY_INSERT: Rule(True, True, _X | _M, _A | _D | _C | _V),
    Opcode.SUBDOC_ARRAY_ADD_UNIQUE: Rule(True, True, _P | _X, _K | _A | _D | _C | _V, empty_path=True),
    Opcode.SUBDOC_COUNTER: Rule(True, True, _P | _X, _K | _A | _D | _C | _V),
    Opcode.SUBDOC_REPLACE_BODY_WITH_XATTR: Rule(True, False, _X | _B, _D | _V, mandatory_flags=_X),
    Opcode.GET: Rule(False, False, 0, _D | _V | _R, empty_path=True, whole=True),
    Opcode.SET: Rule(True, True, 0, _K | _A, empty_path=True, whole=True),
    Opcode.DELETE: Rule(True, False, 0, _D | _V, empty_path=True, whole=True),
}
"""Opcode -> its rules, for every operation that a command may have."""

PUSHES = frozenset(
    {Opcode.SUBDOC_ARRAY_PUSH_LAST, Opcode.SUBDOC_ARRAY_PUSH_FIRST, Opcode.SUBDOC_ARRAY_ADD_UNIQUE}
)
"""Operations that create a missing document as an array if their path is empty."""


class Spec(NamedTuple):
    """One operation of a command."""

    opcode: int
    flags: int
    path: bytes
    value: bytes = b""

    @property
    def on_attributes(self) -> bool:
        """Whether its path leads into the attributes."""
        return bool(self.flags & _X)


class Form(NamedTuple):
    """A command, decoded and checked as far as possible without its document.

    :ivar expiry: as on the wire; 0 if the request has none.
    :ivar item_flags: ``None`` if the document keeps its flags.
    """

    specs: list[Spec]
    doc_flags: int = 0
    expiry: int = 0
    item_flags: int | None = None

    @property
    def creates(self) -> bool:
        """Whether a missing document is created, with all parents on a path."""
        return bool(self.doc_flags & (_K | _A))


def needs_system_attributes(form: Form) -> bool:
    """Return whether an operation of the command reads a system attribute (for mutations: writes one), for
    which the user needs a separate privilege."""
    return any(spec.on_attributes and spec.path[:1] == b"_" for spec in form.specs)


def read_single(opcode: int, extras: bytes, value: bytes, cas: int, xattrs_on: bool) -> Form:
    """Read a command on one path.

    :param xattrs_on: whether the connection has negotiated attributes.
    :raises StatusError: EINVAL and others, each with the text of the server.
    """
    rule, size = RULES[opcode], len(extras)
    doc_flags = extras[-1] if size in (4, 8, 12) else 0
    if size not in (3, 4, 7, 8, 11, 12) or doc_flags & ~_KNOWN_DOC_FLAGS:
        raise StatusError(Status.EINVAL, "Invalid extras section")
    path_size, flags = _PATH_EXTRAS.unpack_from(extras)
    if path_size > MAX_PATH_BYTES:
        raise StatusError(Status.EINVAL, "Request path length exceeds maximum")
    if path_size > len(value):
        raise StatusError(Status.EINVAL, "Path length can't exceed value")
    spec = Spec(opcode, flags, value[:path_size], value[path_size:])
    _check_value(rule, spec)
    _check_flags(rule, spec, doc_flags)
    if doc_flags & _C:
        if not doc_flags & (_K | _A):
            raise StatusError(Status.EINVAL, "CreateAsDeleted requires Mkdoc or Add")
        if not flags & _X:
            raise StatusError(Status.EINVAL, "CreateAsDeleted does not support body path")
    _check_semantics(doc_flags, cas)
    _check_attribute(rule, spec, xattrs_on)
    if not spec.path and not rule.empty_path:
        raise StatusError(Status.EINVAL, "Request must include path")
    if size > 4 and not rule.mutates:
        raise StatusError(Status.EINVAL, "Request extras invalid")
    return Form(
        [spec],
        doc_flags,
        expiry=_U32.unpack_from(extras, 3)[0] if size >= 7 else 0,
        item_flags=_U32.unpack_from(extras, 7)[0] if size >= 11 else None,
    )


def read_multi(mutates: bool, extras: bytes, value: bytes, cas: int, xattrs_on: bool) -> Form:
    """Read a command on several paths; otherwise as :func:`read_single`."""
    size = len(extras)
    doc_flags = extras[-1] if size in (1, 5, 9) else 0
    if size not in ((0, 1, 4, 5, 8, 9) if mutates else (0, 1)) or doc_flags & ~_KNOWN_DOC_FLAGS:
        raise StatusError(Status.EINVAL, "Request extras invalid")
    _check_semantics(doc_flags, cas)
    if doc_flags & _V:
        if not doc_flags & _D:
            raise StatusError(Status.EINVAL, "ReviveDocument can't be used without AccessDeleted")
        if doc_flags & _C:
            raise StatusError(Status.EINVAL, "ReviveDocument can't be used with CreateAsDeleted")
    specs: list[Spec] = []
    body_began = False
    at = 0
    while at < len(value):
        if len(specs) == MAX_SPECS:
            raise StatusError(Status.SUBDOC_INVALID_COMBO, f"Request must contain at most {MAX_SPECS} paths")
        if specs and specs[-1].opcode == Opcode.DELETE:
            raise StatusError(Status.SUBDOC_INVALID_COMBO, _BAD_COMBINATION)
        spec, at = _cut_mutation(value, at) if mutates else _cut_lookup(value, at)
        _check_spec(spec, mutates, doc_flags, xattrs_on)
        if body_began and spec.on_attributes:
            raise StatusError(Status.SUBDOC_INVALID_XATTR_ORDER)
        if body_began and spec.opcode == Opcode.DELETE:
            raise StatusError(Status.SUBDOC_INVALID_COMBO, _BAD_COMBINATION)
        body_began = body_began or not spec.on_attributes
        specs.append(spec)
    if not specs:
        raise StatusError(Status.SUBDOC_INVALID_COMBO, "Request must contain at least one path")
    return Form(
        specs,
        doc_flags,
        expiry=_U32.unpack_from(extras)[0] if size >= 4 else 0,
        item_flags=_U32.unpack_from(extras, 4)[0] if size >= 8 else None,
    )


_BAD_COMBINATION = "Request contains an invalid combination of commands"


def _cut_lookup(data: bytes, at: int) -> tuple[Spec, int]:
    """Return the lookup that begins at that position, and its end."""
    if len(data) - at < _LOOKUP_SPEC.size:
        raise StatusError(Status.EINVAL, "Multi lookup spec truncated")
    opcode, flags, size = _LOOKUP_SPEC.unpack_from(data, at)
    at += _LOOKUP_SPEC.size
    end = at + size
    if end > len(data):
        raise StatusError(Status.EINVAL, "Multi lookup path truncated")
    return Spec(opcode, flags, data[at:end]), end


def _cut_mutation(data: bytes, at: int) -> tuple[Spec, int]:
    """Return the mutation that begins at that position, and its end."""
    if len(data) - at < _MUTATION_SPEC.size:
        raise StatusError(Status.EINVAL, "Multi mutation spec truncated")
    opcode, flags, path_size, value_size = _MUTATION_SPEC.unpack_from(data, at)
    at += _MUTATION_SPEC.size
    middle, end = at + path_size, at + path_size + value_size
    if end > len(data):
        raise StatusError(Status.EINVAL, "Multi mutation path and value truncated")
    return Spec(opcode, flags, data[at:middle], data[middle:end]), end


def _check_spec(spec: Spec, mutates: bool, doc_flags: int, xattrs_on: bool) -> None:
    rule = RULES.get(spec.opcode)
    if rule is None:
        raise StatusError(Status.SUBDOC_INVALID_COMBO, "Subdoc and MCBP command must not both be invalid")
    if rule.mutates != mutates:
        text = "Mutation opcodes only permitted for mutation commands"
        raise StatusError(Status.SUBDOC_INVALID_COMBO, text)
    _check_flags(rule, spec, doc_flags)
    if len(spec.path) > MAX_PATH_BYTES:
        raise StatusError(Status.EINVAL, "Request path length exceeds maximum")
    if rule.whole and spec.path:
        raise StatusError(Status.EINVAL, "Request must not include path for wholedoc operations")
    _check_attribute(rule, spec, xattrs_on)
    if not spec.path and not rule.empty_path:
        raise StatusError(Status.EINVAL, "Request must include path")
    _check_value(rule, spec)


def _check_value(rule: Rule, spec: Spec) -> None:
    if rule.has_value and not spec.value:
        raise StatusError(Status.EINVAL, "Request must include value")
    if spec.value and not rule.has_value:
        raise StatusError(Status.EINVAL, "Request must not include value")


def _check_flags(rule: Rule, spec: Spec, doc_flags: int) -> None:
    if spec.flags & ~rule.path_flags:
        raise StatusError(Status.EINVAL, "Request flags invalid")
    if rule.mandatory_flags & ~spec.flags:
        raise StatusError(Status.EINVAL, "Request missing mandatory flags")
    if doc_flags & ~rule.doc_flags:
        raise StatusError(Status.EINVAL, "Request document flags invalid")


def _check_semantics(doc_flags: int, cas: int) -> None:
    if doc_flags & _A and cas:
        raise StatusError(Status.EINVAL, "Request with add flag must have CAS 0")
    if doc_flags & _A and doc_flags & _K:
        raise StatusError(Status.EINVAL, "Request must not contain both add and mkdoc flags")


def _check_attribute(rule: Rule, spec: Spec, xattrs_on: bool) -> None:
    flags = spec.flags
    if not flags & (_X | _M | _B):
        return
    if not flags & _X:
        name = "EXPAND_MACROS" if flags & _M else "BINARY_VALUE"
        text = f"{name} flag requires XATTR flag to be set"
        raise StatusError(Status.SUBDOC_XATTR_INVALID_FLAG_COMBO, text)
    if flags & _B and flags & _M:
        text = "BINARY_VALUE can't be used together with EXPAND_MACROS"
        raise StatusError(Status.SUBDOC_XATTR_INVALID_FLAG_COMBO, text)
    if not xattrs_on:
        raise StatusError(Status.NOT_SUPPORTED, "Connection not XATTR enabled")
    key = key_of(spec.path)
    if key is None:
        raise StatusError(Status.XATTR_EINVAL, "Request XATTR key invalid")
    if rule.mutates and is_virtual(key):
        raise StatusError(Status.SUBDOC_XATTR_CANT_MODIFY_VATTR)
    check_embedded(spec.value)
    if flags & _M:
        check_macro(spec.value)
