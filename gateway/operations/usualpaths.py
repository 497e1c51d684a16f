"""Specs of usual bodies of lookup and mutate: operations on paths of a document's body, without flags."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from couchbase.paths import PreparedLookup, PreparedMutation
from couchbase.protocol.subdocument import MAX_PATH_BYTES, MAX_SPECS, MUTATION_SPEC, Spec
from couchbase.subdocument import StoreSemantics
from gateway.dialect.subdocuments import only_operations
from gateway.operations.subdocuments import LOOKUPS, MUTATIONS, NEEDS_DOCUMENT, SEMANTICS, LookupIn

__all__ = ["usual_lookup", "usual_mutation"]


_UNUSUAL = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Raised by a member of another type, a missing or unknown one, half of a surrogate pair, or many levels."""

_WITH_VALUE, _WITHOUT_VALUE = itemgetter("operation", "path", "value"), itemgetter("operation", "path")
_LOOKED_UP = {name: int(form.opcode) for name, form in LOOKUPS.items()}
_TAKING_VALUE = {name: int(form.opcode) for name, form in MUTATIONS.items() if form.has_value}
# By name and number of members.
_TAKING_NONE = {(name, 2): int(form.opcode) for name, form in MUTATIONS.items() if not form.has_value}
_pack = MUTATION_SPEC.pack
_new_spec: Any = tuple.__new__


def usual_lookup(body: bytes) -> LookupIn | None:
    """Return the plan of a body with usual operations only: on paths of the document's body, without flags.

    ``None`` for any other body, and for one that has to be refused, which are left to the general parser.
    """
    specs: list[Spec] = []
    try:
        for members in only_operations(body)[0]:
            name, path = _WITHOUT_VALUE(members)
            path = path.encode()
            if len(members) != 2 or not 0 < len(path) <= MAX_PATH_BYTES:
                return None
            specs.append(_new_spec(Spec, (_LOOKED_UP[name], 0, path, b"")))
    except _UNUSUAL:
        return None
    return LookupIn(PreparedLookup(specs), False) if 0 < len(specs) <= MAX_SPECS else None


def usual_mutation(body: bytes) -> tuple[PreparedMutation, StoreSemantics] | None:
    """Return the specs of a body with usual operations only: on paths of the document's body, without flags;
    and its semantics.

    ``None`` for any other body, and for one that has to be refused, which are left to the general parser.
    """
    specs: list[Spec] = []
    encoded = b""
    try:
        operations, text_of, semantics = only_operations(body, "storeSemantic")
        store_semantics = SEMANTICS["Replace" if semantics is None else semantics]
        for members in operations:
            if len(members) == 3:
                name, path, value = _WITH_VALUE(members)
                if value is None:
                    return None
                opcode, text = _TAKING_VALUE[name], text_of(value)
            else:
                (name, path), text = _WITHOUT_VALUE(members), b""
                opcode = _TAKING_NONE[name, len(members)]
            path = path.encode()
            if not 0 < len(path) <= MAX_PATH_BYTES:
                return None
            specs.append(_new_spec(Spec, (opcode, 0, path, text)))
            encoded += _pack(opcode, 0, len(path), len(text)) + path + text
    except _UNUSUAL:
        return None
    if not 0 < len(specs) <= MAX_SPECS:
        return None
    if store_semantics is StoreSemantics.UPSERT and any(spec[0] in NEEDS_DOCUMENT for spec in specs):
        return None
    return PreparedMutation.of_body(specs, encoded), store_semantics
