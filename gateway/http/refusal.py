"""Refusals, and answers to failures: a code, a status, and whether to retry.

Handlers do not catch exceptions: they raise a :class:`Refusal`, or let exceptions pass. An application adds
its own codes with :func:`declare`, and explains other exceptions with
:meth:`gateway.http.application.Application.explain`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError

__all__ = [
    "PROBLEMS",
    "Explanation",
    "FixedRefusal",
    "Problem",
    "Refusal",
    "Retry",
    "bad_request",
    "declare",
    "explain",
    "members_of",
    "no_memory",
    "no_route",
    "too_large",
]


class Retry(Enum):
    """Whether the same request may be sent again."""

    NEVER = "never"  # the same request will fail again
    SAFE = "safe"  # nothing was changed; repeat after a pause
    AMBIGUOUS = "ambiguous"  # the change may have happened; only the caller can find out


class Problem(NamedTuple):
    """One error code."""

    code: str
    status: int
    retry: Retry
    text: str
    """Default message, for failures without a more specific one."""


PROBLEMS: dict[str, Problem] = {}
"""Code -> its row. The rows below are those of HTTP; :func:`declare` adds others."""


def declare(rows: Iterable[tuple[str, int, Retry, str]]) -> None:
    """Add codes, each with status, retry and text, or give a known code another text.

    Call it once, when the module of an application is imported.
    """
    PROBLEMS.update((row[0], Problem(*row)) for row in rows)


declare(
    [
        ("InvalidArgument", 400, Retry.NEVER, "The request is malformed."),
        ("PayloadTooLarge", 413, Retry.NEVER, "The request body is too large."),
        ("RequestTimeout", 408, Retry.SAFE, "The request did not arrive in time."),
        ("HeadersTooLarge", 431, Retry.NEVER, "Request line and headers are too large."),
        ("RouteNotFound", 404, Retry.NEVER, "There is no such resource."),
        ("MethodNotAllowed", 405, Retry.NEVER, "The resource does not take this method."),
        ("Overloaded", 503, Retry.SAFE, "There is no room for more requests."),
        ("RequestCanceled", 499, Retry.AMBIGUOUS, "The request was cancelled."),
        ("Internal", 500, Retry.NEVER, "The request failed; the log has details under its id."),
    ]
)


class Refusal(Exception):
    """A request is refused.

    Handlers raise it, or return it, which costs less; it is also a handler itself, one that refuses.

    :param code: a key of :data:`PROBLEMS`.
    :param message: says what was wrong and what was expected; ``None`` for the table's message.
    :param resource: the resource concerned, in the application's notation; ``""`` for none, ``None`` to let
        the application find out.
    :param headers: further response headers.
    """

    further: Mapping[str, object] = {}
    """Further members of the answer's JSON."""

    def __init__(
        self,
        code: str,
        message: str | None = None,
        resource: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        # Exception.__init__ is not called: it does nothing that is needed here.
        self.problem = problem = PROBLEMS[code]
        self.message = message or problem.text
        self.resource = resource
        self.headers = headers

    def __str__(self) -> str:
        return f"{self.problem.code}: {self.message}"

    def __call__(self, request: object) -> Refusal:
        """Refuse a request."""
        return self


class FixedRefusal(Refusal):
    """A refusal that is the same object for many requests, so that its answer is prepared once.

    It must not be raised, only returned: an exception collects the tracebacks of all its raises.
    """

    prepared: tuple[int, str, bytes, bytes, Callable[[Any], bytes] | None] | None = None
    """Status and code of the answer, its headers, its body up to the resource's value, and the function that
    returns this value for a request; ``None``: it is in the body. Made at the first use."""
    members: Mapping[str, object] | None = None
    """Members of the answer's JSON other than ``resource`` and the request's id; ``None`` for the usual
    ones."""

    @classmethod
    def of(cls, refusal: Refusal) -> FixedRefusal:
        """Return an equal refusal that can be used for many requests."""
        return cls(refusal.problem.code, refusal.message, refusal.resource, refusal.headers)


def bad_request(message: str) -> Refusal:
    """Return the refusal (400 InvalidArgument) of a malformed request."""
    return Refusal("InvalidArgument", message, resource="")


def too_large(message: str) -> Refusal:
    """Return the refusal (413 PayloadTooLarge) of a body over the limit."""
    return Refusal("PayloadTooLarge", message, resource="")


def no_route(path: bytes) -> Refusal:
    """Return the refusal (404 RouteNotFound) of a path without a route."""
    return Refusal("RouteNotFound", resource="")


def no_memory() -> Refusal:
    """Return the refusal of a request that was not served, because there is no memory to read it."""
    return Refusal("Overloaded", "There is no memory left.", "")


class Explanation(NamedTuple):
    """The answer to a failure."""

    problem: Problem
    members: Mapping[str, object]
    """Members of the answer's JSON, without the request's id."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    is_bug: bool = False
    """Whether the failure was unexpected, to be logged with its traceback."""


def explain(error: BaseException) -> Explanation:
    """Explain a failure that does not depend on the application."""
    if isinstance(error, Refusal):
        problem = error.problem
        return Explanation(problem, _members(problem, error.message, error.resource), error.headers)
    if isinstance(error, MemoryError):
        # The failure may have happened at any point, so the outcome is unknown.
        problem = PROBLEMS["Overloaded"]._replace(retry=Retry.AMBIGUOUS)
        return Explanation(problem, _members(problem, "There is no memory left."))
    is_bug = not isinstance(error, CancelledError)
    problem = PROBLEMS["Internal" if is_bug else "RequestCanceled"]
    return Explanation(problem, _members(problem, problem.text), is_bug=is_bug)


def members_of(refusal: Refusal) -> dict[str, object]:
    """Return the members of the answer to a refusal, but ``resource`` and the request's id."""
    problem = refusal.problem
    return {"code": problem.code, "message": refusal.message, "retry": problem.retry.value}


def _members(problem: Problem, message: str, resource: str | None = None) -> dict[str, object]:
    return {
        "code": problem.code,
        "message": message,
        "retry": problem.retry.value,
        "resource": resource or "",
    }
