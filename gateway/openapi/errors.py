"""The error codes that an endpoint may answer with."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.dialect.errors import PROBLEMS, READS, public_code
from gateway.http.endpoints import Endpoint
from gateway.http.refusal import Problem
from gateway.openapi.description import Description
from gateway.openapi.paths import names_in
from gateway.openapi.schemas import Schema, named, text, thing

__all__ = ["ERROR", "LINE_ERROR", "codes_of", "example_of", "statuses_of"]

_HTTP = (
    "InvalidArgument",
    "HeadersTooLarge",
    "RequestTimeout",
    "TooManyRequests",
    "Overloaded",
    "ShuttingDown",
    "Internal",
)
_PAGES = ("ForbiddenHost", "ForbiddenOrigin")
_CALLER = ("Unauthorized", "AccessDenied", "InvalidAuth")
_CLUSTER = (
    *("TemporarilyUnavailable", "UnderlyingServiceUnavailable", "DeadlineExceeded", "ServerError"),
    "NotSupported",
)
_COPIES = ("DurabilityImpossible", "DurabilityAmbiguous", "DurableWriteInProgress")

_MEMBERS = {
    "code": text("The error; programs should use it and the status."),
    "message": text("A text for people, which may change."),
    "rc": {
        "type": "integer",
        "description": "The SDK's result code, if the SDK reported the failure.",
    },
    "exception": text("The name of the SDK's exception class; only together with `rc`."),
    "retry": {
        "type": "string",
        "enum": ["never", "safe", "ambiguous"],
        "description": "Whether the request may be repeated: `never`, the same request will fail "
        "again; `safe`, nothing was changed; `ambiguous`, a write may have happened.",
    },
}

ERROR = named(
    "Error",
    thing(
        {
            **_MEMBERS,
            "resource": text("The resource concerned, or empty."),
            "rule": text("The rule that comes nearest to allowing it; only with `AccessDenied`."),
            "requestId": text("The request's id, as in the header `X-Request-Id` and in the log."),
        },
        "code message retry resource requestId",
        more=True,
    ),
)
"""The body of every answer with a status of 400 or more."""

LINE_ERROR = named("BatchError", thing(_MEMBERS, "code message retry", more=True))
"""The error of one operation of a batch."""


def codes_of(rule: str, endpoint: Endpoint, description: Description, *, has_callers: bool) -> list[str]:
    """Return the codes of the errors that one path of an endpoint may answer with, in the table's order.

    :param has_callers: whether the gateway requires credentials.
    """
    names = names_in(rule)
    found = {*_HTTP, *_PAGES, *description.errors}
    if description.body is not None or endpoint.streamed:
        found.add("PayloadTooLarge")
    if description.credentials:
        found.update(_CLUSTER)
        if has_callers:
            found.update(_CALLER)
        if "bucket" in names:
            found |= {"BucketNotFound", "NoReadAccess" if endpoint.operation in READS else "NoWriteAccess"}
            if endpoint.operation not in READS:
                found.add("OutOfMemory")
        if "scope" in names:
            found.add("ScopeNotFound")
        if "collection" in names:
            found.add("CollectionNotFound")
    if b"x-cb-durabilitylevel" in endpoint.takes:
        found.update(_COPIES)
    return [code for code in PROBLEMS if code in found]


def statuses_of(codes: Iterable[str]) -> dict[int, list[Problem]]:
    """Return the problems of codes by their statuses; 499 is never sent."""
    found: dict[int, list[Problem]] = {}
    for code in codes:
        found.setdefault(PROBLEMS[code].status, []).append(PROBLEMS[code])
    found.pop(499, None)
    return dict(sorted(found.items()))


def example_of(problem: Problem) -> Schema:
    """Return the answer to a request that fails with a problem."""
    return {
        "code": public_code(problem),
        "message": problem.text,
        "retry": problem.retry.value,
        "resource": "",
        "requestId": "5f3c1a2b-7",
    }
