"""The meaning of a response status for a client: a result code and an action.

The meaning depends on the operation: 0x02 is "exists already" to an add and "changed since you
read it" to a store with a CAS; 0x09 (locked) is a temporary failure to a second lock and a
failed precondition to a store. One table serves all drivers.
"""

from __future__ import annotations

from enum import Enum

from couchbase import exceptions
from couchbase.protocol.constants import Status


class Action(Enum):
    """What a driver does with an answer, by its status."""

    SURFACE = "surface"
    """Pass the answer to the caller."""
    RETRY = "retry"
    """Nothing was executed: repeat after a pause, within the operation's timeout."""
    REMAP = "remap"
    """The node does not own the key: adopt a newer map, then repeat."""
    RECONNECT = "reconnect"
    """The connection's session is no longer valid: nothing was executed; use a new connection."""


RC_OF_STATUS: dict[int, int] = {
    Status.SUCCESS: exceptions.SUCCESS,
    Status.KEY_ENOENT: exceptions.KEY_ENOENT,
    Status.KEY_EEXISTS: exceptions.KEY_EEXISTS,
    Status.E2BIG: exceptions.E2BIG,
    Status.EINVAL: exceptions.EINVAL,
    Status.NOT_STORED: exceptions.NOT_STORED,
    Status.DELTA_BADVAL: exceptions.DELTA_BADVAL,
    Status.NOT_MY_VBUCKET: exceptions.NOT_MY_VBUCKET,
    Status.NO_BUCKET: exceptions.BUCKET_ENOENT,
    Status.LOCKED: exceptions.KEY_EEXISTS,
    Status.EWOULD_THROTTLE: exceptions.ETMPFAIL,
    Status.ECONFIG_ONLY: exceptions.ETMPFAIL,
    Status.NOT_LOCKED: exceptions.ETMPFAIL,
    Status.CAS_VALUE_INVALID: exceptions.EINVAL,
    Status.AUTH_STALE: exceptions.AUTH_ERROR,
    Status.AUTH_ERROR: exceptions.AUTH_ERROR,
    Status.AUTH_CONTINUE: exceptions.AUTH_CONTINUE,
    Status.ERANGE: exceptions.ERANGE,
    Status.EACCESS: exceptions.AUTH_ERROR,
    Status.NOT_INITIALIZED: exceptions.ETMPFAIL,
    Status.EXPIRY_OVERFLOW: exceptions.EINVAL,
    Status.LOCK_EXPIRY_OVERFLOW: exceptions.EINVAL,
    Status.RATE_LIMITED_NETWORK_INGRESS: exceptions.EBUSY,
    Status.RATE_LIMITED_NETWORK_EGRESS: exceptions.EBUSY,
    Status.RATE_LIMITED_MAX_CONNECTIONS: exceptions.EBUSY,
    Status.RATE_LIMITED_MAX_COMMANDS: exceptions.EBUSY,
    Status.BUCKET_SIZE_LIMIT_EXCEEDED: exceptions.ENOMEM,
    Status.BUCKET_RESIDENT_RATIO_TOO_LOW: exceptions.ENOMEM,
    Status.BUCKET_DATA_SIZE_TOO_BIG: exceptions.ENOMEM,
    Status.BUCKET_DISK_SPACE_TOO_LOW: exceptions.ENOMEM,
    Status.BUCKET_PAUSED: exceptions.ETMPFAIL,
    Status.CANCELLED: exceptions.ETMPFAIL,
    Status.UNKNOWN_FRAME_INFO: exceptions.NOT_SUPPORTED,
    Status.UNKNOWN_COMMAND: exceptions.UNKNOWN_COMMAND,
    Status.ENOMEM: exceptions.ENOMEM,
    Status.NOT_SUPPORTED: exceptions.NOT_SUPPORTED,
    Status.EINTERNAL: exceptions.EINTERNAL,
    Status.EBUSY: exceptions.EBUSY,
    Status.ETMPFAIL: exceptions.ETMPFAIL,
    Status.XATTR_EINVAL: exceptions.EINVAL,
    Status.UNKNOWN_COLLECTION: exceptions.COLLECTION_ENOENT,
    Status.UNKNOWN_SCOPE: exceptions.SCOPE_ENOENT,
    Status.DURABILITY_INVALID_LEVEL: exceptions.EINVAL,
    Status.DURABILITY_IMPOSSIBLE: exceptions.DURABILITY_ETOOMANY,
    Status.SYNC_WRITE_IN_PROGRESS: exceptions.ETMPFAIL,
    Status.SYNC_WRITE_AMBIGUOUS: exceptions.ETIMEDOUT,
    Status.SYNC_WRITE_RE_COMMIT_IN_PROGRESS: exceptions.ETMPFAIL,
    Status.SUBDOC_PATH_ENOENT: exceptions.SUBDOC_PATH_ENOENT,
    Status.SUBDOC_PATH_MISMATCH: exceptions.SUBDOC_PATH_MISMATCH,
    Status.SUBDOC_PATH_EINVAL: exceptions.SUBDOC_PATH_EINVAL,
    Status.SUBDOC_PATH_E2BIG: exceptions.SUBDOC_PATH_E2BIG,
    Status.SUBDOC_DOC_E2DEEP: exceptions.SUBDOC_DOC_E2DEEP,
    Status.SUBDOC_VALUE_CANTINSERT: exceptions.SUBDOC_VALUE_CANTINSERT,
    Status.SUBDOC_DOC_NOT_JSON: exceptions.SUBDOC_DOC_NOTJSON,
    Status.SUBDOC_NUM_ERANGE: exceptions.SUBDOC_NUM_ERANGE,
    Status.SUBDOC_DELTA_EINVAL: exceptions.SUBDOC_BAD_DELTA,
    Status.SUBDOC_PATH_EEXISTS: exceptions.SUBDOC_PATH_EEXISTS,
    Status.SUBDOC_VALUE_ETOODEEP: exceptions.SUBDOC_VALUE_E2DEEP,
    Status.SUBDOC_INVALID_COMBO: exceptions.SUBDOC_INVALID_COMBO,
    Status.SUBDOC_XATTR_INVALID_FLAG_COMBO: exceptions.SUBDOC_XATTR_INVALID_FLAG_COMBO,
    Status.SUBDOC_XATTR_INVALID_KEY_COMBO: exceptions.SUBDOC_XATTR_INVALID_KEY_COMBO,
    Status.SUBDOC_XATTR_UNKNOWN_MACRO: exceptions.SUBDOC_XATTR_UNKNOWN_MACRO,
    Status.SUBDOC_XATTR_UNKNOWN_VATTR: exceptions.SUBDOC_XATTR_UNKNOWN_VATTR,
    Status.SUBDOC_XATTR_CANT_MODIFY_VATTR: exceptions.SUBDOC_XATTR_CANT_MODIFY_VATTR,
    Status.SUBDOC_INVALID_XATTR_ORDER: exceptions.SUBDOC_INVALID_XATTR_ORDER,
    Status.SUBDOC_XATTR_UNKNOWN_VATTR_MACRO: exceptions.SUBDOC_XATTR_UNKNOWN_MACRO,
    # The document is alive.
    Status.SUBDOC_CAN_ONLY_REVIVE_DELETED: exceptions.KEY_EEXISTS,
    Status.SUBDOC_DELETED_CANT_HAVE_VALUE: exceptions.SUBDOC_INVALID_COMBO,
}
"""Status -> result code, for statuses that mean the same for all operations; others are
``exceptions.ERROR``."""

_LOCK_OPERATIONS = ("lock", "unlock", "incr", "decr")

RC_OF_OPERATION_STATUS: dict[tuple[str, int], int] = {
    **{(name, int(Status.LOCKED)): exceptions.ETMPFAIL for name in _LOCK_OPERATIONS},
    # Servers before 3.0 answer "not stored" to these two.
    ("add", int(Status.NOT_STORED)): exceptions.KEY_EEXISTS,
    ("replace", int(Status.NOT_STORED)): exceptions.KEY_ENOENT,
    # A document that must not exist was created by another client at the same moment.
    ("mutate_in", int(Status.NOT_STORED)): exceptions.KEY_EEXISTS,
    # A real server answers 0x05 for a missing document, some others 0x01; programs expect one code.
    ("append", int(Status.KEY_ENOENT)): exceptions.NOT_STORED,
    ("prepend", int(Status.KEY_ENOENT)): exceptions.NOT_STORED,
    # As in SDK 1.2, a CAS that does not match is a temporary failure of unlock.
    ("unlock", int(Status.KEY_EEXISTS)): exceptions.ETMPFAIL,
}
"""(operation, status) -> result code, where the meaning depends on the operation."""

_RETRIED = frozenset(
    {
        Status.EWOULD_THROTTLE,
        Status.ECONFIG_ONLY,
        Status.EBUSY,
        Status.ETMPFAIL,
        Status.CANCELLED,
        Status.SYNC_WRITE_IN_PROGRESS,
        Status.SYNC_WRITE_RE_COMMIT_IN_PROGRESS,
    }
)
_RECONNECTED = frozenset({Status.AUTH_STALE, Status.NOT_INITIALIZED})

RETRY_DELAYS = (0.001, 0.01, 0.05, 0.1, 0.5, 1.0)
"""Seconds to wait before the first, second ... retry; the last value applies to all later ones."""


def result_code(operation: str, status: int) -> int:
    """Return the result code of ``status`` in answer to ``operation``."""
    special = RC_OF_OPERATION_STATUS.get((operation, status))
    return RC_OF_STATUS.get(status, exceptions.ERROR) if special is None else special


def action_for(operation: str, status: int, xerror: bool) -> Action:
    """Return what to do with an answer.

    :param xerror: whether the connection negotiated extended statuses. Without them 0x86 also means
        "locked", and a retry would hide that.
    """
    if status == Status.NOT_MY_VBUCKET:
        return Action.REMAP
    if status in _RETRIED:
        # For an unlock, this status means that the document is not locked (servers before 7.6), or not with
        # that CAS: a retry cannot help. For a lock it may mean that the document is already locked
        # (CouchbaseMock, with extended statuses), which lasts for seconds; SDK 1.2 has the same error for
        # both.
        if status == Status.ETMPFAIL and (
            operation in ("lock", "unlock") or (not xerror and operation in _LOCK_OPERATIONS)
        ):
            return Action.SURFACE
        return Action.RETRY
    if status in _RECONNECTED:
        return Action.RECONNECT
    return Action.SURFACE


def retry_delay(attempt: int) -> float:
    """Return the seconds to wait before retry number ``attempt`` (the first is 0)."""
    return RETRY_DELAYS[min(attempt, len(RETRY_DELAYS) - 1)]
