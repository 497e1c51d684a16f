"""Refusals for the results of operations whose document is missing, or there: without an exception."""

from __future__ import annotations

from couchbase import exceptions
from gateway.dialect.errors import describe, public_code
from gateway.http.refusal import FixedRefusal, Refusal

__all__ = ["MISSING", "fields_of", "refusal_of"]

MISSING = FixedRefusal("DocumentNotFound")
"""There is no such document: what the SDK's exception would say, without it."""

_OF_CODES = {
    exceptions.KEY_ENOENT: MISSING,
    exceptions.NOT_STORED: FixedRefusal("DocumentNotFound"),
    exceptions.KEY_EEXISTS: FixedRefusal("DocumentExists"),
}


def refusal_of(code: int) -> FixedRefusal:
    """Return what is answered for the result of a quiet operation whose document is missing, or was to be new
    and is there: what the SDK's exception would say, without it.

    :param code: the result's.
    """
    return _OF_CODES[code]


def fields_of(refusal: Refusal) -> dict[str, object]:
    """Return what ``describe(refusal).fields()`` does, in fewer steps."""
    if type(refusal) is FixedRefusal:
        for code, known in _OF_CODES.items():
            if refusal is known:
                return describe(exceptions.error_of(code), "add").fields()
    problem = refusal.problem
    # The value of ``retry``, without the enumeration's property.
    retry = problem.retry._value_
    return {"code": public_code(problem), "message": refusal.message, "retry": retry}
