"""The forms of the REST interface that create and edit a bucket.

A value is accepted if Couchbase Server 7.6, Enterprise Edition, accepts it; otherwise it is refused with the
server's text. Operators' fields without a meaning here (compaction, watermarks, ...) are ignored; a field
that no server has is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from couchnode.cluster.definition import (
    BUCKET_TYPES,
    DURABILITY_LEVELS,
    EVICTION_POLICIES,
    MAX_REPLICAS,
    MEBIBYTE,
    MIN_QUOTA_BYTES,
    VBUCKET_COUNTS,
    BucketDefinition,
    DefinitionError,
    bucket_name_fault,
)
from couchnode.cluster.passwords import UserError, check_password_text

MAX_TTL_SECONDS = 2**31 - 1
"""Largest ``maxTTL``."""

MIN_HISTORY_BYTES = 2**31
"""Smallest ``historyRetentionBytes`` other than 0."""

_MAX_HISTORY = 2**64 - 1

_IGNORED = frozenset(
    {
        "name",
        "accessScannerEnabled",
        "allowedTimeWindow[abortOutside]",
        "allowedTimeWindow[fromHour]",
        "allowedTimeWindow[fromMinute]",
        "allowedTimeWindow[toHour]",
        "allowedTimeWindow[toMinute]",
        "autoCompactionDefined",
        "bucketPlacer",
        "databaseFragmentationThreshold[percentage]",
        "databaseFragmentationThreshold[size]",
        "driftAheadThresholdMs",
        "driftBehindThresholdMs",
        "durabilityImpossibleFallback",
        "enableCrossClusterVersioning",
        "expiryPagerSleepTime",
        "magmaFragmentationPercentage",
        "magmaKeyTreeDataBlockSize",
        "magmaSeqTreeDataBlockSize",
        "memoryHighWatermark",
        "memoryLowWatermark",
        "parallelDBAndViewCompaction",
        "purgeInterval",
        "pitrEnabled",
        "pitrGranularity",
        "pitrMaxHistoryAge",
        "versionPruningWindowHrs",
        "viewFragmentationThreshold[percentage]",
        "viewFragmentationThreshold[size]",
        "warmupBehavior",
        "width",
        "weight",
    }
)
"""Fields without effect; ``name`` is read separately."""


class _FieldError(Exception):
    """The value of a form field is invalid; the text has the reason.

    :ivar field: name of the field in the answer; ``None`` for the field's own name.
    """

    def __init__(self, text: str, field: str | None = None) -> None:
        super().__init__(text)
        self.field = field


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,20}", text) is not None


def _number(low: int, high: int, text: str) -> Callable[[str], int]:
    """Read a number from ``low`` to ``high``; ``text`` is the error for any other value."""

    def read(given: str) -> int:
        if not _is_number(given) or not low <= int(given) <= high:
            raise _FieldError(text)
        return int(given)

    return read


def _flag(text: str, false: str = "0", true: str = "1") -> Callable[[str], bool]:
    def read(given: str) -> bool:
        if given not in (false, true):
            raise _FieldError(text)
        return given == true

    return read


def _one_of(*accepted: str, text: str, field: str | None = None) -> Callable[[str], str]:
    """Read one of the ``accepted`` values.

    :param text: the error for any other value.
    :param field: name of the field in the error, if it differs.
    """

    def read(given: str) -> str:
        if given not in accepted:
            raise _FieldError(text, field)
        return given

    return read


def _quota(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise _FieldError("The RAM Quota must be specified and must be a positive integer.")
    size = int(text) * MEBIBYTE
    if size < MIN_QUOTA_BYTES:
        raise _FieldError(f"RAM quota cannot be less than {MIN_QUOTA_BYTES // MEBIBYTE} MiB")
    return size


def _replicas(text: str) -> int:
    if not _is_number(text):
        raise _FieldError("The replica number must be specified and must be a non-negative integer.")
    if int(text) > MAX_REPLICAS:
        raise _FieldError(f"Replica number larger than {MAX_REPLICAS} is not supported.")
    return int(text)


def _type(text: str) -> str:
    if text == "memcached":
        raise _FieldError("memcached buckets are no longer supported")
    if text not in BUCKET_TYPES:
        raise _FieldError("invalid bucket type")
    return BUCKET_TYPES[text]


def _conflict_resolution(text: str) -> str:
    if text == "custom":
        # The official Python client looks for these words.
        text = "is supported only with developer preview enabled"
        raise _FieldError(f"Conflict resolution type 'custom' {text}")
    if text not in ("seqno", "lww"):
        raise _FieldError("Conflict resolution type must be 'seqno' or 'lww'")
    return text


def _history_bytes(text: str) -> int:
    if not _is_number(text) or 0 < int(text) < MIN_HISTORY_BYTES or int(text) > _MAX_HISTORY:
        raise _FieldError(f"Value must be an integer between {MIN_HISTORY_BYTES} and {_MAX_HISTORY}, or 0")
    return int(text)


def _password(text: str) -> str:
    try:
        check_password_text(text)
    except UserError as fault:
        raise _FieldError(str(fault)) from None
    return text


_READERS: dict[str, tuple[str | None, Callable[[str], Any]]] = {
    # form field -> (member of BucketDefinition, or None; reader)
    "bucketType": ("type", _type),
    "ramQuota": ("quota_bytes", _quota),
    "ramQuotaMB": ("quota_bytes", _quota),
    "replicaNumber": ("replica_number", _replicas),
    "replicaIndex": ("replica_index", _flag("replicaIndex can only be 1 or 0")),
    "flushEnabled": ("flush_enabled", _flag("flushEnabled can only be 1 or 0")),
    "evictionPolicy": (
        "eviction_policy",
        _one_of(
            *(policy for policies in EVICTION_POLICIES.values() for policy in policies),
            text="Eviction policy must be one of valueOnly, fullEviction, noEviction, nruEviction",
        ),
    ),
    "threadsNumber": (
        "threads_number",
        _number(2, 8, "The number of threads must be an integer between 2 and 8"),
    ),
    "compressionMode": (
        "compression_mode",
        _one_of(
            "off", "passive", "active", text="compressionMode can be set to 'off', 'passive' or 'active'"
        ),
    ),
    "conflictResolutionType": ("conflict_resolution_type", _conflict_resolution),
    "durabilityMinLevel": (
        "durability_min_level",
        _one_of(
            *DURABILITY_LEVELS,
            text=f"Durability minimum level must be one of {', '.join(DURABILITY_LEVELS)}",
            field="durability_min_level",
        ),
    ),
    "storageBackend": (
        "storage_backend",
        _one_of(
            "couchstore", "magma", text="storage backend must be couchstore or magma", field="storage_mode"
        ),
    ),
    "numVBuckets": (
        "vbuckets",
        _number(1, 1024, "Number of vbuckets must be 128 or 1024 (magma) or 1024 (couchstore)"),
    ),
    "maxTTL": (
        "max_ttl",
        _number(0, MAX_TTL_SECONDS, f"Max TTL must be an integer between 0 and {MAX_TTL_SECONDS}"),
    ),
    "rank": ("rank", _number(0, 1000, "rank must be an integer between 0 and 1000")),
    "historyRetentionCollectionDefault": (
        "history_default",
        _flag("historyRetentionCollectionDefault must be true or false", "false", "true"),
    ),
    "historyRetentionSeconds": (
        "history_seconds",
        _number(0, _MAX_HISTORY, f"Value must be an integer between 0 and {_MAX_HISTORY}"),
    ),
    "historyRetentionBytes": ("history_bytes", _history_bytes),
    "authType": (None, _one_of("sasl", "none", text="must be one of sasl, none")),
    "saslPassword": (None, _password),
    "proxyPort": (None, _number(0, 65535, "proxyPort must be an integer from 0 to 65535")),
}
"""All fields that have an effect here; the error for an unknown field names it."""

_FIXED = {
    "type": ("bucketType", "Cannot change bucket type."),
    "conflict_resolution_type": (
        "conflictResolutionType",
        "Conflict resolution type not allowed in update bucket",
    ),
    "vbuckets": ("numVBuckets", "Number of vbuckets cannot be modified"),
}
"""Members that an edit cannot change -> their form field, and the error text."""

_WRONG_EVICTION = {
    "couchbase": "Eviction policy must be either 'valueOnly' or 'fullEviction' for couchbase buckets",
    "ephemeral": "Eviction policy must be either 'noEviction' or 'nruEviction' for ephemeral buckets",
}


def read_new_bucket(form: Mapping[str, str], node_count: int = 1) -> tuple[BucketDefinition, str | None]:
    """Read the form that creates a bucket.

    Defaults are Couchbase's: type couchbase, one replica, no flush.

    :param node_count: nodes of the cluster, which limit the durability.
    :returns: the definition, and the bucket's password (``None`` if ``saslPassword`` was not sent).
    :raises DefinitionError: naming every bad field at once.
    """
    values, errors = _read(form)
    name = form.get("name", "")
    fault = bucket_name_fault(name)
    if fault:
        errors["name"] = fault
    if "quota_bytes" not in values and not {"ramQuota", "ramQuotaMB"} & errors.keys():
        errors["ramQuota"] = "The RAM Quota must be specified and must be a positive integer."
    bucket_type = values.setdefault("type", "couchbase")
    replicas = values.setdefault("replica_number", 1)
    if bucket_type == "ephemeral" and "replica_index" in values:
        errors.setdefault("replicaIndex", "replicaIndex not supported for ephemeral buckets")
    values.setdefault("replica_index", bucket_type == "couchbase" and replicas > 0)
    magma = values.get("storage_backend") == "magma"
    _check_history(magma, form, errors)
    policies = EVICTION_POLICIES[bucket_type]
    values.setdefault("eviction_policy", policies[1] if magma and bucket_type == "couchbase" else policies[0])
    _check_eviction(bucket_type, values, errors)
    values.setdefault("vbuckets", VBUCKET_COUNTS["magma" if magma else "couchstore"][0])
    return _settled(BucketDefinition(name=name, **values), errors, node_count), form.get("saslPassword")


def read_changes(form: Mapping[str, str], current: BucketDefinition, node_count: int = 1) -> BucketDefinition:
    """Read the form that edits a bucket: fields that are not sent stay as they are; ``name`` and
    ``replicaIndex`` are ignored.

    :raises DefinitionError: a field is invalid, or cannot change after the bucket's creation.
    """
    values, errors = _read(form)
    values.pop("replica_index", None)
    if "saslPassword" in form:
        errors["saslPassword"] = "The password of a bucket cannot be changed here"
    for member, (field, text) in _FIXED.items():
        if member in values and values[member] != getattr(current, member):
            errors[field] = text
    _check_history(values.get("storage_backend", current.storage_backend) == "magma", form, errors)
    _check_eviction(current.type, values, errors)
    return _settled(current._replace(**values), errors, node_count)


def _settled(definition: BucketDefinition, errors: dict[str, str], node_count: int) -> BucketDefinition:
    """Return ``definition`` if its fields and their combination are valid."""
    for check in (definition.check, lambda: definition.check_combination(node_count)):
        try:
            check()
        except DefinitionError as fault:
            for field, text in fault.errors.items():
                if not (field == "ramQuota" and "ramQuotaMB" in errors):
                    errors.setdefault(field, text)
    if errors:
        raise DefinitionError(errors)
    return definition


def _read(form: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for field, text in form.items():
        if field in _IGNORED:
            continue
        if field not in _READERS:
            errors[field] = "Unsupported key"
            continue
        member, read = _READERS[field]
        try:
            value = read(text)
        except _FieldError as fault:
            errors[fault.field or field] = str(fault)
            continue
        if member is not None:
            values[member] = value
    return values, errors


def _check_history(magma: bool, form: Mapping[str, str], errors: dict[str, str]) -> None:
    for field in ("historyRetentionCollectionDefault", "historyRetentionSeconds", "historyRetentionBytes"):
        if field in form and not magma:
            errors.setdefault(field, "History Retention can only used with Magma")


def _check_eviction(bucket_type: str, values: Mapping[str, Any], errors: dict[str, str]) -> None:
    policy = values.get("eviction_policy")
    if policy is not None and policy not in EVICTION_POLICIES[bucket_type]:
        errors.setdefault("evictionPolicy", _WRONG_EVICTION[bucket_type])
