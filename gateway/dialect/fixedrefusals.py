"""Refusals made without an exception: the document of an operation is missing, or exists already."""

from __future__ import annotations

from couchbase import exceptions
from gateway.dialect.errors import describe, public_code
from gateway.http.refusal import FixedRefusal, Refusal

__all__ = ["MISSING", "fields_of", "refusal_of"]

MISSING = FixedRefusal("DocumentNotFound")
"""The refusal if the document of an operation does not exist. Its answer equals the one made from the SDK's
exception."""

_OF_CODES = {
    exceptions.KEY_ENOENT: MISSING,
    exceptions.NOT_STORED: FixedRefusal("DocumentNotFound"),
    exceptions.KEY_EEXISTS: FixedRefusal("DocumentExists"),
}


def refusal_of(code: int) -> FixedRefusal:
    """Return the refusal for the result of a quiet operation whose document is missing, or exists but should
    be new. It equals the one made from the SDK's exception.

    :param code: result code.
    """
    return _OF_CODES[code]


def fields_of(refusal: Refusal) -> dict[str, object]:
    """Return the same as ``describe(refusal).fields()``, in fewer steps."""
    if type(refusal) is FixedRefusal:
        for code, known in _OF_CODES.items():
            if refusal is known:
                return describe(exceptions.error_of(code), "add").fields()
    problem = refusal.problem
    # The value of ``retry``, without the enumeration's property.
    retry = problem.retry._value_
    return {"code": public_code(problem), "message": refusal.message, "retry": retry}
