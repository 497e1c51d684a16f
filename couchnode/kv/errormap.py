"""The meaning of the statuses that this node sends, in the form of GET_ERROR_MAP.

A client decides by a status's attributes how to handle a status that it does not know.
"""

from __future__ import annotations

from typing import Any

from couchbase.protocol.constants import Status

ERROR_MAP_VERSION = 2
ERROR_MAP_REVISION = 1

_ROWS: tuple[tuple[Status, str, tuple[str, ...]], ...] = (
    (Status.SUCCESS, "Success", ("success",)),
    (Status.KEY_ENOENT, "No such document", ("item-only",)),
    (Status.KEY_EEXISTS, "The document exists, or was changed since its CAS was read", ("item-only",)),
    (Status.E2BIG, "The value is too large", ("item-only", "invalid-input")),
    (Status.EINVAL, "The request is malformed", ("internal", "invalid-input")),
    (Status.NOT_STORED, "There is no document to append or prepend to", ("item-only",)),
    (Status.DELTA_BADVAL, "The document is not a number that can be counted", ("item-only", "invalid-input")),
    (Status.NOT_MY_VBUCKET, "The vbucket is on another node", ("fetch-config", "invalid-input")),
    (Status.NO_BUCKET, "No bucket is selected", ("conn-state-invalidated",)),
    (Status.LOCKED, "The document is locked", ("item-locked", "item-only", "retry-now")),
    (Status.NOT_LOCKED, "The document is not locked", ("item-only",)),
    (Status.AUTH_ERROR, "Authentication failed", ("conn-state-invalidated", "auth")),
    (Status.AUTH_CONTINUE, "Authentication goes on", ("special-handling",)),
    (Status.EACCESS, "Not permitted", ("support", "auth")),
    (Status.UNKNOWN_FRAME_INFO, "A frame info is not known", ("support",)),
    (Status.UNKNOWN_COMMAND, "The opcode is not known", ("support",)),
    (Status.ENOMEM, "The memory quota of the bucket is used up", ("temp", "retry-later")),
    (Status.NOT_SUPPORTED, "Not supported here", ("support",)),
    (Status.EINTERNAL, "An error inside the node", ("internal", "conn-state-invalidated")),
    (Status.ETMPFAIL, "Temporarily unavailable", ("temp", "retry-later")),
    (Status.UNKNOWN_COLLECTION, "No such collection", ("item-only", "support")),
    (Status.UNKNOWN_SCOPE, "No such scope", ("item-only", "support")),
    (
        Status.DURABILITY_INVALID_LEVEL,
        "The durability level is not possible here",
        ("invalid-input", "support"),
    ),
    (Status.DURABILITY_IMPOSSIBLE, "Too few copies for the durability level", ("item-only", "support")),
    (
        Status.SYNC_WRITE_IN_PROGRESS,
        "A synchronous write of the document is under way",
        ("item-only", "retry-later"),
    ),
    (Status.SYNC_WRITE_AMBIGUOUS, "The synchronous write may or may not hold", ("item-only",)),
    (Status.EBUSY, "Too many range scans are open", ("temp", "retry-later")),
    (Status.RANGE_SCAN_CANCELLED, "The range scan was cancelled", ("special-handling",)),
    (Status.RANGE_SCAN_MORE, "The range scan has more", ("special-handling", "success")),
    (Status.RANGE_SCAN_COMPLETE, "The range scan is complete", ("special-handling", "success")),
    (Status.VBUUID_NOT_EQUAL, "The vbucket has another history than the token", ("item-only",)),
    (Status.SUBDOC_PATH_ENOENT, "The path is not in the document", ("item-only", "subdoc")),
    (Status.SUBDOC_PATH_MISMATCH, "The path goes through a value of another type", ("item-only", "subdoc")),
    (Status.SUBDOC_PATH_EINVAL, "The path is malformed", ("invalid-input", "subdoc")),
    (Status.SUBDOC_PATH_E2BIG, "The path is too long or too deep", ("invalid-input", "subdoc")),
    (Status.SUBDOC_DOC_E2DEEP, "The document is nested too deeply", ("item-only", "subdoc")),
    (Status.SUBDOC_VALUE_CANTINSERT, "The value cannot be inserted there", ("invalid-input", "subdoc")),
    (Status.SUBDOC_DOC_NOT_JSON, "The document is not JSON", ("item-only", "subdoc")),
    (Status.SUBDOC_NUM_ERANGE, "The number in the document is out of range", ("item-only", "subdoc")),
    (
        Status.SUBDOC_DELTA_EINVAL,
        "The delta is 0, not an integer or out of range",
        ("invalid-input", "subdoc"),
    ),
    (Status.SUBDOC_PATH_EEXISTS, "The path exists", ("item-only", "subdoc")),
    (
        Status.SUBDOC_VALUE_ETOODEEP,
        "The value would nest the document too deeply",
        ("invalid-input", "subdoc"),
    ),
    (Status.SUBDOC_INVALID_COMBO, "These operations cannot be combined", ("invalid-input", "subdoc")),
    (Status.SUBDOC_MULTI_PATH_FAILURE, "Some of the operations failed", ("special-handling", "subdoc")),
    (Status.SUBDOC_SUCCESS_DELETED, "Done, on a deleted document", ("success", "item-deleted", "subdoc")),
    (
        Status.SUBDOC_XATTR_INVALID_FLAG_COMBO,
        "These path flags cannot be combined",
        ("invalid-input", "subdoc"),
    ),
    (Status.SUBDOC_XATTR_UNKNOWN_VATTR, "No such virtual attribute", ("invalid-input", "subdoc")),
    (Status.SUBDOC_XATTR_CANT_MODIFY_VATTR, "Virtual attributes are read only", ("invalid-input", "subdoc")),
    (
        Status.SUBDOC_MULTI_PATH_FAILURE_DELETED,
        "Some of the operations on a deleted document failed",
        ("special-handling", "item-deleted", "subdoc"),
    ),
    (Status.XATTR_EINVAL, "The attribute's name or value is malformed", ("invalid-input", "subdoc")),
    (Status.SUBDOC_XATTR_UNKNOWN_MACRO, "No such macro", ("invalid-input", "subdoc")),
    (Status.SUBDOC_XATTR_UNKNOWN_VATTR_MACRO, "No such macro of an attribute", ("invalid-input", "subdoc")),
    (Status.SUBDOC_CAN_ONLY_REVIVE_DELETED, "The document is not deleted", ("item-only", "subdoc")),
    (
        Status.SUBDOC_DELETED_CANT_HAVE_VALUE,
        "A deleted document cannot have a body",
        ("invalid-input", "subdoc"),
    ),
    (Status.SUBDOC_FIELD_NOT_BINARY_VALUE, "The attribute is not binary", ("item-only", "subdoc")),
    (Status.SUBDOC_INVALID_XATTR_ORDER, "Attributes come before the document", ("invalid-input", "subdoc")),
)

KNOWN_STATUSES = frozenset(status for status, _, _ in _ROWS)
"""Every status that this node sends."""


def error_map(version: int) -> dict[str, Any]:
    """Return the error map as JSON data: hexadecimal status to name, description and attributes."""
    errors = {
        f"{int(status):x}": {"name": status.name, "desc": description, "attrs": list(attributes)}
        for status, description, attributes in _ROWS
    }
    return {"version": version, "revision": ERROR_MAP_REVISION, "errors": errors}
