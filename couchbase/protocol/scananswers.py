"""The meaning of the statuses of answers to a scan's requests."""

from __future__ import annotations

from typing import Any

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.failures import error_context, status_name
from couchbase.protocol.frames import Frame
from couchbase.protocol.plans import Undo
from couchbase.protocol.statuses import result_code

OPERATION = "scan"

_ID_BYTES = 16

GONE = frozenset(
    {Status.KEY_ENOENT, Status.RANGE_SCAN_CANCELLED, Status.NOT_MY_VBUCKET, Status.UNKNOWN_COLLECTION}
)
"""Answers after which a new scan is created."""

LATER = frozenset({Status.ETMPFAIL, Status.EBUSY, Status.NOT_MY_VBUCKET, Status.NOT_INITIALIZED})
"""Answers after which the same request is repeated."""

UNSUPPORTED = frozenset({Status.UNKNOWN_COMMAND, Status.NOT_SUPPORTED})
"""Answers of a server without the requested feature."""


def malformed(fault: ValueError) -> CouchbaseError:
    """Return the error for an answer that violates the protocol."""
    message = f"the answer to a scan is malformed: {fault}"
    return error_of(exceptions.PROTOCOL_ERROR, message, operation=OPERATION)


def refused(answer: Frame) -> CouchbaseError:
    """Return the error for an answer that ends a scan."""
    status = answer.specific
    if status in UNSUPPORTED:
        message = "scan failed: the server has neither range scans nor lists of keys for this bucket"
        return error_of(exceptions.NOT_SUPPORTED, message, operation=OPERATION)
    code = result_code("get", status)
    return error_of(
        exceptions.ERROR if code == exceptions.KEY_ENOENT else code,
        f"scan failed: the server answered {status_name(status)}",
        status=int(status),
        operation=OPERATION,
        context=error_context(answer),
    )


def _undo_create(fields: dict[str, Any], answer: Frame) -> tuple[int, dict[str, Any]] | None:
    """Return the request that ends a scan whose creation nobody waits for any more."""
    if answer.specific != Status.SUCCESS or "vbucket" not in fields:
        # A HELLO, too, is a part of this step.
        return None
    return int(Opcode.RANGE_SCAN_CANCEL), {"extras": answer.value, "vbucket": fields["vbucket"]}


def _undo_continue(fields: dict[str, Any], answer: Frame) -> tuple[int, dict[str, Any]] | None:
    """Return the request that ends a scan whose rows nobody waits for any more."""
    if answer.specific != Status.RANGE_SCAN_MORE:
        return None
    identifier = fields["extras"][:_ID_BYTES]
    return int(Opcode.RANGE_SCAN_CANCEL), {"extras": identifier, "vbucket": fields["vbucket"]}


UNDO: dict[int, Undo] = {
    Opcode.RANGE_SCAN_CREATE: _undo_create,
    Opcode.RANGE_SCAN_CONTINUE: _undo_continue,
}
"""Opcode -> what undoes an answer that a scan does not get, for :class:`couchbase.protocol.plans.Ask`."""
