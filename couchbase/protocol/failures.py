"""Failed operations: the exceptions for a server's error answers, and for failures that no server
reported."""

from __future__ import annotations

import json
from collections.abc import Sequence

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.constants import Datatype, Status
from couchbase.protocol.errormap import ServerStatus
from couchbase.protocol.frames import Frame
from couchbase.protocol.keyspace import KeyspaceState
from couchbase.protocol.request import Request
from couchbase.protocol.statuses import result_code
from couchbase.result import Result


def failed_result(request: Request, code: int) -> Result:
    """Return the result of a failed operation in ``all_results``."""
    failed = request.operation.result(code)
    failed._key = request.key
    return failed


_TLS = (exceptions.SSL_ERROR, exceptions.SSL_CANTVERIFY)

_EXPLAINED: dict[int, str] = {
    Status.EACCESS: "the user lacks the permission; ",
    Status.AUTH_STALE: "the user has changed since the connection was made; ",
}


def error_for(
    request: Request, status: int, context: str | None = None, result: Result | None = None
) -> CouchbaseError:
    """Return the exception for a status."""
    name = request.operation.name
    code = status.code if isinstance(status, ServerStatus) else result_code(name, status)
    why = _EXPLAINED.get(status, "")
    return error_of(
        code,
        f"{name} failed: {why}the server answered {status_name(status)}",
        key=request.key,
        status=int(status),
        operation=name,
        result=failed_result(request, code) if result is None else result,
        context=context,
        ambiguous=status == Status.SYNC_WRITE_AMBIGUOUS,
    )


def seed_error(failures: Sequence[CouchbaseError]) -> CouchbaseError:
    """Return the error of a seed whose ports were tried one after the other: key-value, then HTTP.

    This is the last error, unless an earlier attempt failed in TLS, which is more informative than an
    unreachable port. The message has the causes of all attempts.
    """
    chosen = next((failure for failure in failures if failure.rc in _TLS), failures[-1])
    others = [str(failure.message) for failure in failures if failure is not chosen and failure.message]
    new = [other for other in dict.fromkeys(others) if other not in str(chosen.message)]
    chosen.message = "; ".join([str(chosen.message), *new])
    return chosen


def client_error(request: Request, code: int, message: str, ambiguous: bool = False) -> CouchbaseError:
    """Return the exception for a failure that no server reported: network, time, queue.

    :param ambiguous: whether the request may have been executed; only for mutations.
    """
    ambiguous = ambiguous and request.operation.mutates
    if ambiguous:
        message += "; it may or may not have been executed"
    return error_of(
        code,
        message,
        key=request.key,
        operation=request.operation.name,
        result=failed_result(request, code),
        ambiguous=ambiguous,
    )


def no_such_replica(request: Request) -> CouchbaseError:
    """Return the error for a replica that the bucket does not have."""
    return client_error(request, exceptions.NO_MATCHING_SERVER, "the bucket has no such replica of the key")


def timeout_error(request: Request, why: str | None, was_sent: bool) -> CouchbaseError:
    """Return the exception for an operation that timed out.

    :param why: the reason why its node has no connection, if it has none.
    :param was_sent: whether the request may have been executed; only used for mutations.
    """
    where = f" ({why})" if why else ""
    if request.keyspace.state is not KeyspaceState.KNOWN:
        where += f"; no node returned the id of collection {request.keyspace.path.decode()}"
    return client_error(request, exceptions.ETIMEDOUT, f"no answer in time{where}", ambiguous=was_sent)


def status_name(status: int) -> str:
    """Return ``NAME (0xNN)`` for people."""
    if isinstance(status, ServerStatus):
        return status.words
    try:
        return f"{Status(status).name} (0x{status:02x})"
    except ValueError:
        return f"0x{status:02x}"


def error_context(frame: Frame) -> str | None:
    """Return the server's explanation of an error answer (``error.context``), if it sent one."""
    value = frame.value
    if not value.startswith(b"{"):
        return None
    try:
        context = json.loads(value)["error"]["context"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return context if isinstance(context, str) else None


class PathsRefused(CouchbaseError):
    """A server does not support a requested virtual attribute; a simpler request is possible."""


def paths_refused(request: Request, statuses: tuple[int, ...]) -> CouchbaseError:
    """Return the error for a lookup whose paths the server refused with these statuses."""
    refused = ", ".join(status_name(status) for status in statuses if status)
    return PathsRefused(
        {
            "rc": exceptions.NOT_SUPPORTED,
            "key": request.key,
            "operation": request.operation.name,
            "message": f"the server cannot read a document's expiry: {refused}",
        }
    )


def malformed_answer(request: Request, what: str) -> CouchbaseError:
    """Return the error for an answer that violates the protocol; ``what`` says how."""
    return error_of(
        exceptions.PROTOCOL_ERROR,
        f"the answer to {request.operation.name} is malformed: {what}",
        key=request.key,
        operation=request.operation.name,
    )


def foreign_datatype(request: Request, datatype: int, node: str) -> CouchbaseError:
    """Return the error for a successful answer whose value has a form that HELLO did not request."""
    named = [bit.name.lower() for bit in (Datatype.SNAPPY, Datatype.XATTR) if bit.name and datatype & bit]
    name, what = request.operation.name, f"datatype 0x{datatype:02x} ({', '.join(named) or 'unknown'})"
    return error_of(
        exceptions.PROTOCOL_ERROR,
        f"{node} answered {name} with {what}, which was not negotiated",
        key=request.key,
        operation=name,
        # The operation succeeded, whatever the answer's content.
        ambiguous=request.operation.mutates,
    )


def too_many(call: Request, most: int) -> CouchbaseError:
    """Return the error for an operation that is refused because too many operations wait for its node."""
    return client_error(call, exceptions.CLIENT_ETMPFAIL, f"{most} operations wait for this node")


def refusal(call: Request, error: BaseException) -> CouchbaseError:
    """Convert a connection's failure into the failure of one operation that waited for it."""
    code = error.rc if isinstance(error, CouchbaseError) else exceptions.NETWORK_ERROR
    refused = client_error(call, code, str(getattr(error, "message", None) or error))
    refused.inner_cause = error
    return refused
