"""Errors of the query service as errors of the dialect.

The service answers ``{"code": 3000, "msg": "syntax error - ..."}``; its codes are listed on the page "N1QL
error codes" of Couchbase Server's documentation. The service's own errors are included as ``errors``.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from gateway.dialect.errors import Refusal, Retry

__all__ = ["StatementRefusal", "refusal_of"]

MOST_ERRORS = 16
"""Largest number of the service's errors that an error of the dialect includes."""

_LONGEST_TEXT = 2000


class _Row(NamedTuple):
    low: int
    high: int
    code: str


# The first match wins.
_ROWS = [
    _Row(1000, 1000, "ServiceForbidden"),  # not read-only
    _Row(1080, 1080, "DeadlineExceeded"),
    _Row(1180, 1182, "TemporarilyUnavailable"),
    _Row(1191, 1192, "TemporarilyUnavailable"),
    _Row(1196, 1196, "TemporarilyUnavailable"),
    _Row(1199, 1199, "TemporarilyUnavailable"),
    _Row(1201, 1201, "TemporarilyUnavailable"),
    _Row(1203, 1203, "DeadlineExceeded"),
    _Row(1204, 1204, "TemporarilyUnavailable"),
    _Row(1000, 1999, "InvalidStatement"),
    _Row(2120, 2120, "InvalidAuth"),
    _Row(3000, 3999, "InvalidStatement"),
    _Row(4000, 4000, "IndexNotFound"),
    _Row(4035, 4035, "IndexNotFound"),
    _Row(4100, 4100, "IndexNotFound"),
    _Row(4115, 4120, "IndexNotFound"),
    _Row(4380, 4380, "IndexNotFound"),
    _Row(4000, 4999, "InvalidStatement"),
    _Row(5003, 5003, "InvalidStatement"),
    _Row(5201, 5202, "NoReadAccess"),
    _Row(5411, 5411, "IndexNotFound"),
    _Row(10000, 10000, "InvalidAuth"),
    _Row(12003, 12003, "CollectionNotFound"),
    _Row(12004, 12004, "IndexNotFound"),
    _Row(12015, 12015, "DeadlineExceeded"),
    _Row(12016, 12016, "IndexNotFound"),
    _Row(12020, 12020, "BucketNotFound"),
    _Row(12021, 12021, "ScopeNotFound"),
    _Row(12033, 12033, "CasMismatch"),
    _Row(13014, 13014, "NoReadAccess"),
    _Row(17012, 17012, "DocumentExists"),
]

_OF_STATUS = {
    401: "InvalidAuth",
    403: "NoReadAccess",
    429: "TemporarilyUnavailable",
    503: "TemporarilyUnavailable",
}
"""HTTP status -> code, if the service sends no error of its own."""

_OF_WRITES = re.compile(
    r"\b(INSERT|UPSERT|UPDATE|DELETE|MERGE|CREATE|DROP|ALTER|BUILD|GRANT|REVOKE|write|manage)\b"
)

# Errors after which the service has done nothing, and may succeed later.
_NOTHING_DONE = frozenset({"TemporarilyUnavailable"})


class StatementRefusal(Refusal):
    """A statement has failed.

    :param errors: the service's errors.
    """

    def __init__(self, code: str, message: str | None, errors: list[Any], retry: Retry | None = None) -> None:
        super().__init__(code, message)
        self.errors = errors[:MOST_ERRORS]
        self.further = {"errors": self.errors}
        if retry is not None:
            self.problem = self.problem._replace(retry=retry)


def refusal_of(errors: list[Any], http_status: int, *, is_read: bool) -> StatementRefusal:
    """Return the error of the dialect for a failed statement.

    :param errors: the service's errors, as it sent them.
    :param http_status: HTTP status of the service's answer.
    :param is_read: whether the statement cannot have changed anything.
    """
    first = errors[0] if errors and isinstance(errors[0], dict) else {}
    number = first.get("code")
    text = str(first.get("msg") or first.get("message") or "")[:_LONGEST_TEXT]
    code = _code(number, text, http_status)
    message = None
    if text:
        message = f"{text} (error {number} of the query service)"
    elif http_status != 200:
        message = f"The query service answered with HTTP status {http_status}."
    retry = None
    if code == "DeadlineExceeded":
        retry = Retry.SAFE if is_read else Retry.AMBIGUOUS
    elif code == "StatementFailed" and not is_read:
        # The statement may have changed some documents before it failed.
        retry = Retry.AMBIGUOUS
    elif first.get("retry") is True and code not in _NOTHING_DONE and is_read:
        retry = Retry.SAFE
    return StatementRefusal(code, message, errors, retry)


def _code(number: object, text: str, http_status: int) -> str:
    if isinstance(number, int):
        for row in _ROWS:
            if row.low <= number <= row.high:
                if row.code == "NoReadAccess" and _OF_WRITES.search(text):
                    return "NoWriteAccess"
                return row.code
        return "StatementFailed"
    return _OF_STATUS.get(http_status, "StatementFailed")
