"""The answers of a batch: one JSON object for each operation.

The JSON of a value is copied as it is stored.
"""

from __future__ import annotations

from collections.abc import Generator

from couchbase.result import ValueResult
from gateway.dialect.errors import Fault
from gateway.dialect.jsontools import dumps
from gateway.dialect.values import BATCH, value_member_steps
from gateway.operations.kind import Kind

__all__ = ["failure_line", "success_line", "success_steps"]


def success_line(index: int, key_json: bytes, kind: Kind, result: object) -> bytes:
    """Return the answer to an operation that succeeded, one JSON object without a newline.

    :param key_json: the key as JSON.
    """
    return b'{"index":%d,"key":%b,"status":200%b' % (index, key_json, kind.render(result))


def success_steps(
    index: int, key_json: bytes, kind: Kind, result: ValueResult
) -> Generator[None, None, bytes]:
    """Do the same as :func:`success_line`, for a long value; yields after each step of work."""
    member = yield from value_member_steps(BATCH, result.flags, result.value)
    head = b'{"index":%d,"key":%b,"status":200,"cas":"%08x","flags":%d,' % (
        index,
        key_json,
        result.cas,
        result.flags,
    )
    return b"".join((head, member, b"}"))


def failure_line(index: int, key_json: bytes, fault: Fault) -> bytes:
    """Return the answer to an operation that failed."""
    error = dumps(fault.fields())
    return b'{"index":%d,"key":%b,"status":%d,"error":%b}' % (
        index,
        key_json,
        fault.problem.status,
        error,
    )
