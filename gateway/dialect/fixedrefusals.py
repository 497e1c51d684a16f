"""Refusals made without an exception: those of a node, because of the state of a document."""

from __future__ import annotations

from typing import Any

from couchbase import exceptions
from couchbase.protocol.refused import Kind
from gateway.dialect.errors import describe, public_code
from gateway.http.known import Known
from gateway.http.refusal import FixedRefusal, Refusal
from gateway.http.request import Request

__all__ = ["fields_of", "refusal_of"]

# Clients choose among few operations, but there may be 16 paths in each.
_known: Known[tuple[Kind, str, Any], FixedRefusal] = Known(1024)


def refusal_of(result: Any, request: Request) -> FixedRefusal:
    """Return the refusal for the result of an operation that a node has refused.

    It equals the one made from the SDK's exception.

    :param result: a :class:`couchbase.protocol.refused.Refused`.
    """
    if result.path is not None:
        request.failed_part = result.path
    try:
        return _known[result.kind, request.operation, request.context]
    except KeyError:
        facts = result.kind, request.operation, request.context
        return _known.learn(facts, _refusal(*facts))


def _refusal(kind: Kind, operation: str, asked: Any) -> FixedRefusal:
    error = exceptions.error_of(kind.rc, status=kind.status, path_index=kind.path_index)
    cas_given, durable = asked or (False, False)
    fault = describe(error, operation, cas_given=cas_given, durable=durable)
    refusal = FixedRefusal(fault.problem.code, fault.message)
    refusal.members = fault.fields()
    return refusal


def fields_of(refusal: Refusal) -> dict[str, object]:
    """Return the same as ``describe(refusal).fields()``, in fewer steps; for the refusals of
    :func:`refusal_of`, the members that belong to the SDK's exception."""
    if type(refusal) is FixedRefusal and refusal.members is not None:
        return dict(refusal.members)
    problem = refusal.problem
    # The value of ``retry``, without the enumeration's property.
    retry = problem.retry._value_
    return {"code": public_code(problem), "message": refusal.message, "retry": retry}
