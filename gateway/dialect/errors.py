"""The table that maps failures to HTTP answers.

Codes and statuses are those of Couchbase's Data API if it covers the failure. Handlers never catch
exceptions: they raise a :class:`Refusal`, or let the SDK's exception pass, and
:func:`describe` finds the row. Surprising statuses of the Data API (409 for a CAS mismatch, 400 for unlocking
an unlocked document, 413 with ``InvalidArgument``) are intended: its clients rely on them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError

from couchbase import exceptions
from couchbase.protocol.constants import Status
from gateway.http.refusal import (
    PROBLEMS,
    Problem,
    Refusal,
    Retry,
    bad_request,
    declare,
    too_large,
)

__all__ = [
    "PROBLEMS",
    "READS",
    "Fault",
    "PathMismatch",
    "Problem",
    "Refusal",
    "Retry",
    "bad_request",
    "describe",
    "too_large",
]


# General codes (InvalidArgument, PayloadTooLarge ...) are defined with HTTP; two get the gateway's own texts.
declare(
    [
        ("Overloaded", 503, Retry.SAFE, "The gateway has no room for more requests."),
        ("Internal", 500, Retry.NEVER, "The gateway failed; its log has details under the request id."),
        # the caller
        ("Unauthorized", 401, Retry.NEVER, "Credentials are required: HTTP Basic."),
        ("AccessDenied", 403, Retry.NEVER, "No rule allows this."),
        ("InvalidAuth", 403, Retry.NEVER, "The cluster refused the user name or password."),
        ("TooManyRequests", 429, Retry.SAFE, "The limit of requests is reached."),
        ("ForbiddenHost", 403, Retry.NEVER, "Host is neither an address nor a name that --allow-host names."),
        (
            "ForbiddenOrigin",
            403,
            Retry.NEVER,
            "A page of another origin sent this; --allow-host names hosts.",
        ),
        ("NoReadAccess", 403, Retry.NEVER, "The user may not read this bucket, or it does not exist."),
        ("NoWriteAccess", 403, Retry.NEVER, "The user may not write to this bucket, or it does not exist."),
        ("ServiceForbidden", 403, Retry.NEVER, "The gateway does not pass this request on to the service."),
        # resources
        ("BucketNotFound", 404, Retry.NEVER, "There is no such bucket, or the user may not see it."),
        ("ScopeNotFound", 404, Retry.NEVER, "There is no such scope."),
        ("CollectionNotFound", 404, Retry.NEVER, "There is no such collection."),
        ("DocumentNotFound", 404, Retry.NEVER, "There is no such document."),
        ("DesignDocumentNotFound", 404, Retry.NEVER, "There is no such design document."),
        ("ViewNotFound", 404, Retry.NEVER, "The design document has no such view."),
        # the document's state
        ("DocumentExists", 409, Retry.NEVER, "The document exists already."),
        ("CasMismatch", 409, Retry.NEVER, "The document is not the version that If-Match names."),
        (
            "PreconditionFailed",
            412,
            Retry.NEVER,
            "The condition of the request is false.",
        ),
        ("DocumentLocked", 409, Retry.SAFE, "The document is locked."),
        ("DocumentNotLocked", 400, Retry.NEVER, "The document is not locked."),
        ("DocumentNotNumeric", 400, Retry.NEVER, "The document is not an unsigned decimal number."),
        ("DocumentNotJson", 400, Retry.NEVER, "The document is not JSON."),
        ("DocumentTooDeep", 400, Retry.NEVER, "The document is nested too deep."),
        ("PathNotFound", 400, Retry.NEVER, "The document has no such path."),
        ("PathExists", 409, Retry.NEVER, "The document has the path, or the array the value, already."),
        ("PathMismatch", 400, Retry.NEVER, "The path leads through a value of another type."),
        ("ValueTooLarge", 400, Retry.NEVER, "The document would be larger than the cluster allows."),
        # views
        ("InvalidDesignDocument", 400, Retry.NEVER, "The design document cannot be used."),
        ("ViewFailed", 500, Retry.NEVER, "The view cannot be computed."),
        # statements
        ("InvalidStatement", 400, Retry.NEVER, "The statement cannot be used."),
        ("IndexNotFound", 404, Retry.NEVER, "There is no index that the statement can use."),
        ("StatementFailed", 500, Retry.NEVER, "The statement failed."),
        # durability
        (
            "DurabilityImpossible",
            400,
            Retry.NEVER,
            "The bucket has fewer copies than requested, or no disk.",
        ),
        ("DurabilityAmbiguous", 408, Retry.AMBIGUOUS, "Durability was not reached in time."),
        ("DurableWriteInProgress", 409, Retry.SAFE, "Another durable write of the document is under way."),
        # the cluster, the gateway
        ("NotSupported", 501, Retry.NEVER, "The cluster does not offer this operation."),
        ("TemporarilyUnavailable", 503, Retry.SAFE, "The cluster is overloaded or warming up."),
        ("OutOfMemory", 503, Retry.SAFE, "The bucket has no memory left."),
        ("UnderlyingServiceUnavailable", 503, Retry.SAFE, "The cluster cannot be reached."),
        ("ShuttingDown", 503, Retry.SAFE, "The gateway is stopping."),
        ("DeadlineExceeded", 504, Retry.SAFE, "The cluster did not answer in time."),
        ("ServerError", 500, Retry.NEVER, "The cluster answered with an error."),
    ]
)


class PathMismatch(Refusal):
    """A sub-document path leads through a value of another type.

    :param path: the path; it is added to the error's resource.
    """

    def __init__(self, path: str) -> None:
        super().__init__("PathMismatch")
        self.path = path


class _Rule(NamedTuple):
    """A row of the table; ``None`` in a condition matches anything."""

    exception: type[BaseException]
    code: str
    status: frozenset[int] | None = None
    operations: frozenset[str] | None = None
    cas_given: bool | None = None
    rc: int | None = None


def _rule(
    exception: type[BaseException],
    code: str,
    *status: int,
    on: str = "",
    cas: bool | None = None,
    rc: int | None = None,
) -> _Rule:
    operations = frozenset(on.split()) if on else None
    return _Rule(exception, code, frozenset(status) or None, operations, cas, rc)


_READS = (
    "get get_replica observe endure lookup_in scan stats exists query statement design_get design_list "
    "scope_list"
)
READS = frozenset(_READS.split())
"""Operations that require the right to read; all others require the right to write."""

_COUNTERS = "incr decr"

_INPUT = (
    *(exceptions.EINVAL, exceptions.ERANGE, exceptions.EMPTY_KEY, exceptions.OPTIONS_CONFLICT),
    exceptions.SUBDOC_INVALID_COMBO,
)

# Invalid input of the caller: a path, a value, a delta, or a macro.
_WRONG_PATHS = (
    *(exceptions.SubdocPathInvalidError, exceptions.SubdocPathTooBigError, exceptions.SubdocEmptyPathError),
    *(exceptions.SubdocCantInsertValueError, exceptions.SubdocValueTooDeepError),
    *(exceptions.SubdocNumberTooBigError, exceptions.SubdocBadDeltaError, exceptions.SubdocXattrError),
)

# The first match wins. A status is more specific than the exception's class, so those rows come first.
_RULES = [
    _rule(exceptions.CouchbaseError, "DocumentExists", Status.KEY_EEXISTS, on="add insert_in"),
    _rule(exceptions.CouchbaseError, "CasMismatch", Status.LOCKED, on="unlock"),
    _rule(exceptions.CouchbaseError, "DocumentLocked", Status.LOCKED),
    _rule(exceptions.CouchbaseError, "DocumentNotLocked", Status.NOT_LOCKED),
    _rule(exceptions.CouchbaseError, "CasMismatch", Status.KEY_EEXISTS, cas=True),
    # Old servers answer a write without a CAS with "exists" only if the document is locked.
    _rule(exceptions.CouchbaseError, "DocumentLocked", Status.KEY_EEXISTS, cas=False),
    _rule(exceptions.CouchbaseError, "BucketNotFound", Status.NO_BUCKET),
    _rule(exceptions.ScopeNotFoundError, "ScopeNotFound"),
    _rule(exceptions.CollectionNotFoundError, "CollectionNotFound"),
    _rule(exceptions.CouchbaseError, "BucketNotFound", Status.EACCESS, on="open"),
    _rule(exceptions.CouchbaseError, "NoReadAccess", Status.EACCESS, on=_READS),
    _rule(exceptions.CouchbaseError, "NoWriteAccess", Status.EACCESS),
    _rule(exceptions.CouchbaseError, "ValueTooLarge", Status.E2BIG, on="append prepend mutate_in"),
    _rule(exceptions.CouchbaseError, "InvalidArgument", Status.E2BIG, on="insert_in"),
    _rule(exceptions.CouchbaseError, "PayloadTooLarge", Status.E2BIG),
    _rule(exceptions.CouchbaseError, "InvalidArgument", Status.EINVAL, Status.ERANGE),
    _rule(
        exceptions.CouchbaseError,
        "DurabilityImpossible",
        Status.DURABILITY_IMPOSSIBLE,
        Status.DURABILITY_INVALID_LEVEL,
    ),
    _rule(
        exceptions.CouchbaseError,
        "DurableWriteInProgress",
        Status.SYNC_WRITE_IN_PROGRESS,
        Status.SYNC_WRITE_RE_COMMIT_IN_PROGRESS,
    ),
    _rule(exceptions.CouchbaseError, "DurabilityAmbiguous", Status.SYNC_WRITE_AMBIGUOUS),
    # Sent by servers without extended errors, and by CouchbaseMock.
    _rule(exceptions.TemporaryFailError, "DocumentLocked", Status.ETMPFAIL, on="lock"),
    # Sent by servers before 7.6, which answer a CAS other than the lock's with LOCKED.
    _rule(exceptions.TemporaryFailError, "DocumentNotLocked", Status.ETMPFAIL, on="unlock"),
    # Next come the SDK's classes.
    _rule(exceptions.NotFoundError, "DocumentNotFound"),
    _rule(exceptions.NotStoredError, "DocumentNotFound"),
    _rule(exceptions.KeyExistsError, "DocumentExists", on="add insert_in"),
    _rule(exceptions.KeyExistsError, "CasMismatch"),
    _rule(exceptions.DeltaBadvalError, "DocumentNotNumeric"),
    _rule(exceptions.TooBigError, "ValueTooLarge", on="append prepend"),
    _rule(exceptions.TooBigError, "PayloadTooLarge"),
    _rule(exceptions.SubdocPathNotFoundError, "PathNotFound"),
    _rule(exceptions.SubdocPathExistsError, "PathExists"),
    _rule(exceptions.SubdocPathMismatchError, "PathMismatch"),
    _rule(exceptions.DocumentNotJsonError, "DocumentNotJson"),
    _rule(exceptions.DocumentTooDeepError, "DocumentTooDeep"),
    *(_rule(kind, "InvalidArgument") for kind in _WRONG_PATHS),
    _rule(exceptions.AuthError, "InvalidAuth"),
    _rule(exceptions.BucketNotFoundError, "BucketNotFound"),
    _rule(exceptions.ArgumentError, "DurabilityImpossible", rc=exceptions.DURABILITY_ETOOMANY),
    _rule(exceptions.ArgumentError, "InvalidArgument"),
    _rule(exceptions.ValueFormatError, "InvalidArgument"),
    # The SDK refused an operation's arguments; other input errors (host names, handles) are bugs of the
    # gateway.
    *(_rule(exceptions.CouchbaseError, "InvalidArgument", rc=rc) for rc in _INPUT),
    _rule(exceptions.NoMemoryError, "OutOfMemory"),
    _rule(exceptions.TemporaryFailError, "TemporarilyUnavailable"),
    _rule(exceptions.BusyError, "TemporarilyUnavailable"),
    _rule(exceptions.ClientTemporaryFailError, "UnderlyingServiceUnavailable"),
    _rule(exceptions.NotSupportedError, "NotSupported"),
    _rule(exceptions.CouchbaseError, "NotSupported", rc=exceptions.UNKNOWN_COMMAND),
    _rule(exceptions.CouchbaseError, "UnderlyingServiceUnavailable", rc=exceptions.NO_MATCHING_SERVER),
    _rule(exceptions.TimeoutError, "DeadlineExceeded"),
    _rule(exceptions.CouchbaseNetworkError, "UnderlyingServiceUnavailable"),
    _rule(exceptions.CouchbaseError, "InvalidArgument", rc=exceptions.EINVAL),
    _rule(exceptions.CouchbaseError, "ServerError"),
    _rule(CancelledError, "RequestCanceled"),
]


class _HttpRule(NamedTuple):
    """The meaning of an HTTP status of the cluster. Empty or ``None`` matches anything."""

    code: str
    status: int
    operations: frozenset[str] = frozenset()
    words: re.Pattern[str] | None = None
    """Text to find in the cluster's message, whose wording differs between versions."""


_QUERY = frozenset({"query"})
_DESIGN_WRITES = frozenset({"design_create", "design_publish", "design_delete"})
_SCOPE_WRITES = frozenset({"scope_create", "scope_drop", "collection_create", "collection_drop"})

# The first match wins; a status without a row is a ServerError.
_HTTP_RULES = [
    _HttpRule("InvalidAuth", 401),
    _HttpRule("NoWriteAccess", 403, _DESIGN_WRITES | _SCOPE_WRITES),
    _HttpRule("NoReadAccess", 403),
    _HttpRule("ViewNotFound", 404, _QUERY, re.compile(r"^View |\bview\b.*\bnot\b", re.IGNORECASE)),
    _HttpRule("BucketNotFound", 404, words=re.compile(r"no_db_file|requested resource", re.IGNORECASE)),
    _HttpRule("DesignDocumentNotFound", 404),
    _HttpRule("InvalidDesignDocument", 400, _DESIGN_WRITES),
    _HttpRule("InvalidArgument", 400),
    _HttpRule("PayloadTooLarge", 413),
    _HttpRule("ViewFailed", 500, _QUERY),
    _HttpRule("TemporarilyUnavailable", 503),
]

_EXPLAINED_BY_CLUSTER = frozenset({"InvalidArgument", "InvalidDesignDocument", "ViewFailed"})

# The driver's own messages, which contain nothing of a document.
_EXPLAINED_BY_DRIVER = frozenset(
    {"UnderlyingServiceUnavailable", "DeadlineExceeded", "ScopeNotFound", "CollectionNotFound"}
)

_MAX_REASON = 2000


def _of_http(error: exceptions.HTTPError, operation: str) -> tuple[Problem, str]:
    """Return problem and message for an HTTP answer of the cluster outside 200..299."""
    answer = error.objextra
    status = getattr(answer, "http_status", 0)
    value = getattr(answer, "value", None)
    if isinstance(value, dict):
        value = value.get("reason") or value.get("error")
    reason = str(value or error.context or "").strip()
    for rule in _HTTP_RULES:
        if (
            status == rule.status
            and (not rule.operations or operation in rule.operations)
            and (rule.words is None or rule.words.search(reason))
        ):
            problem = PROBLEMS[rule.code]
            detail = reason[:_MAX_REASON] if rule.code in _EXPLAINED_BY_CLUSTER else ""
            return problem, detail or problem.text
    return PROBLEMS["ServerError"], f"The cluster answered with HTTP status {status}."


@lru_cache(maxsize=1024)
def _problem_of(
    kind: type[BaseException],
    operation: str,
    status: int | None,
    rc: int,
    cas_given: bool,
    durable: bool,
    ambiguous: bool = False,
) -> Problem:
    if durable and issubclass(kind, exceptions.TimeoutError):
        return PROBLEMS["DurabilityAmbiguous"]
    if ambiguous and status is None and issubclass(kind, exceptions.KeyExistsError):
        # The write was made, then another write replaced it during the wait for copies.
        return PROBLEMS["DurabilityAmbiguous"]
    for rule in _RULES:
        if (
            issubclass(kind, rule.exception)
            and (rule.status is None or status in rule.status)
            and (rule.operations is None or operation in rule.operations)
            and (rule.cas_given is None or rule.cas_given == cas_given)
            and (rule.rc is None or rule.rc == rc)
        ):
            return PROBLEMS[rule.code]
    return PROBLEMS["Internal"]


def _kind(error: BaseException) -> Any:
    # Any, because mypy considers exception classes unhashable.
    return type(error)


class Fault(NamedTuple):
    """The report of a failure to the caller."""

    problem: Problem
    message: str
    rc: int | None
    """The SDK's result code; ``None`` unless the SDK raised."""
    exception: str | None
    """Name of the SDK's class to catch, for example ``NotFoundError``."""
    retry: Retry
    is_bug: bool
    """Whether the failure was unexpected, to be logged with its traceback."""

    def fields(self) -> dict[str, object]:
        """Return the members of the JSON answer: code, message and others, without the request id."""
        members: dict[str, object] = {"code": public_code(self.problem), "message": self.message}
        if self.exception is not None:
            members["rc"] = self.rc
            members["exception"] = self.exception
        members["retry"] = self.retry.value
        return members


_PUBLIC_CODES = {"PayloadTooLarge": "InvalidArgument"}


def public_code(problem: Problem) -> str:
    """Return the code as sent: the Data API's 413 is ``InvalidArgument`` too."""
    return _PUBLIC_CODES.get(problem.code, problem.code)


_names: dict[type, str] = {}


def _sdk_name(kind: type) -> str:
    """Return the name of the public class to catch: classes made for a single code have no public name."""
    name = _names.get(kind)
    if name is None:
        public = (base for base in kind.__mro__ if vars(exceptions).get(base.__name__) is base)
        name = _names[kind] = next(public).__name__
    return name


def describe(
    error: BaseException, operation: str = "", *, cas_given: bool = False, durable: bool = False
) -> Fault:
    """Return the answer to a failure.

    :param operation: SDK name of the operation (``"add"``, ``"set"``, ...; ``"open"`` while connecting),
        because a status means different things for different operations.
    :param cas_given: whether the caller gave a CAS.
    :param durable: whether the caller asked for durability; a timeout then leaves the outcome of the write
        unknown, which has its own code.
    """
    if isinstance(error, Refusal):
        problem = error.problem
        return Fault(problem, error.message, None, None, problem.retry, False)
    if isinstance(error, MemoryError):
        # The failure may have happened at any point, so the outcome of the write is unknown.
        problem = PROBLEMS["Overloaded"]
        return Fault(problem, "The gateway has no memory left.", None, None, Retry.AMBIGUOUS, False)
    if isinstance(error, exceptions.HTTPError):
        problem, message = _of_http(error, operation)
        return Fault(problem, message, error.rc, "HTTPError", problem.retry, False)
    if isinstance(error, exceptions.CouchbaseError):
        problem = _problem_of(
            _kind(error), operation, error.status, error.rc, cas_given, durable, error.ambiguous
        )
        in_doubt = error.ambiguous or operation in _DESIGN_WRITES
        retry = problem.retry
        if in_doubt and (error.ambiguous or retry is Retry.SAFE):
            retry = Retry.AMBIGUOUS
        # The exception's message may quote the document; the table's message never does.
        message = problem.text
        if isinstance(error, (exceptions.ArgumentError, exceptions.ValueFormatError)) and error.message:
            message = error.message
        elif isinstance(error, exceptions.NotSupportedError) and error.status is None and error.message:
            message = error.message  # the message names what the server lacks
        elif operation in _DESIGN_WRITES and isinstance(error, exceptions.TimeoutError) and error.message:
            message = error.message  # the message says whether the change was made
        elif problem.code == "DurabilityAmbiguous" and isinstance(error, exceptions.KeyExistsError):
            done = "removed" if operation == "delete" else "stored"
            message = f"The document was {done}, then overtaken by another write while waiting for copies."
        elif error.path_index is not None:
            message = f"operations[{error.path_index}]: {exceptions.describe(error.rc)}."
        elif problem.code == "DurabilityImpossible" and error.context:
            message = f"{problem.text[:-1]}: {error.context[:_MAX_REASON]}."
        elif problem.code in _EXPLAINED_BY_DRIVER and error.message:
            # The exception's message names the node, and its error.
            message = f"{problem.text[:-1]}: {error.message}"
        elif problem.code == "ServerError" or (problem.code == "InvalidArgument" and error.rc in _INPUT):
            message = f"{problem.text[:-1]}: {exceptions.describe(error.rc)}."
        return Fault(problem, message, error.rc, _sdk_name(type(error)), retry, False)
    problem = _problem_of(_kind(error), operation, None, 0, cas_given, durable)
    return Fault(problem, problem.text, None, None, problem.retry, problem.code == "Internal")
