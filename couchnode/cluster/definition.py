"""A bucket's settings, and their parsing from the form fields of the REST interface.

Settings that this node does not support (an eviction that deletes documents, synchronous durability as a
bucket's minimum, ...) are refused instead of being stored without effect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from couchnode.cluster.users import UserError, check_password_text

MEBIBYTE = 2**20
MIN_QUOTA_BYTES = 100 * MEBIBYTE
"""Smallest memory quota of a bucket on a node, as on Couchbase Server."""

MAX_REPLICAS = 3
MAX_BUCKETS = 30
MAX_BUCKET_NAME_BYTES = 100

_NAME = re.compile(r"[A-Za-z0-9_.%-]+\Z")

BUCKET_TYPES = {"couchbase": "couchbase", "membase": "couchbase", "ephemeral": "ephemeral"}
"""``bucketType`` in requests -> our own name."""


class DefinitionError(ValueError):
    """The settings are invalid.

    :ivar errors: field name -> what is wrong with it, in the form that the REST interface answers.
    """

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, text in errors.items()))
        self.errors = dict(errors)


class BucketDefinition(NamedTuple):
    """The settings of one bucket.

    :ivar type: ``couchbase`` (kept on disk) or ``ephemeral`` (memory only).
    :ivar quota_bytes: memory for documents on each node.
    :ivar replica_number: copies wanted beside the active one, 0 to 3, whether or not there are nodes for
        them.
    :ivar threads_number, compression_mode, conflict_resolution_type: said by clients and given back to them;
        they change nothing that a client of one node could observe.
    """

    name: str
    type: str = "couchbase"
    quota_bytes: int = 256 * MEBIBYTE
    replica_number: int = 0
    flush_enabled: bool = False
    eviction_policy: str = "valueOnly"
    threads_number: int = 3
    compression_mode: str = "passive"
    conflict_resolution_type: str = "seqno"

    @property
    def persistent(self) -> bool:
        """Whether documents of this bucket go to disk."""
        return self.type == "couchbase"

    def check(self) -> BucketDefinition:
        """Return this definition.

        :raises DefinitionError: the name, type or a number is out of its range.
        """
        errors = {}
        fault = bucket_name_fault(self.name)
        if fault:
            errors["name"] = fault
        if self.type not in BUCKET_TYPES.values():
            errors["bucketType"] = "invalid bucket type"
        if self.quota_bytes < MEBIBYTE:
            errors["ramQuota"] = "RAM quota cannot be less than 1 MiB"
        if not 0 <= self.replica_number <= MAX_REPLICAS:
            errors["replicaNumber"] = f"Replica number must be from 0 to {MAX_REPLICAS}"
        if errors:
            raise DefinitionError(errors)
        return self


def bucket_name_fault(name: str) -> str | None:
    """Say what keeps ``name`` from being a bucket's name, ``None`` if nothing does."""
    if not name:
        return "Bucket name needs to be specified"
    if len(name.encode("utf-8", "replace")) > MAX_BUCKET_NAME_BYTES:
        return f"Bucket name cannot exceed {MAX_BUCKET_NAME_BYTES} characters"
    if not _NAME.match(name):
        return (
            "Bucket name can only contain characters in range A-Z, a-z, 0-9 "
            "as well as underscore, period, dash and percent"
        )
    if name.startswith("."):
        return "Bucket name cannot start with dot"
    return None


class _FieldError(Exception):
    """The value of one form field is not acceptable; the text says why."""


def _number(text: str, what: str, low: int, high: int) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise _FieldError(f"{what} must be an integer")
    value = int(text)
    if value < low:
        raise _FieldError(f"{what} cannot be less than {low}")
    if value > high:
        raise _FieldError(f"{what} cannot be more than {high}")
    return value


def _flag(what: str) -> Callable[[str], bool]:
    def read(text: str) -> bool:
        if text not in ("0", "1", "true", "false"):
            raise _FieldError(f"{what} can only be 0 or 1")
        return text in ("1", "true")

    return read


def _one_of(*accepted: str, refused: tuple[str, ...] = ()) -> Callable[[str], str]:
    """Read one of ``accepted``; those in ``refused`` exist on servers, but not here."""

    def read(text: str) -> str:
        if text in refused:
            raise _FieldError(f"{text} is not supported by this node")
        if text not in accepted:
            raise _FieldError(f"must be one of {', '.join(accepted)}, not {text!r}")
        return text

    return read


def _quota(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise _FieldError("The RAM Quota must be specified and must be a positive integer.")
    size = int(text) * MEBIBYTE
    if size < MIN_QUOTA_BYTES:
        raise _FieldError(f"RAM quota cannot be less than {MIN_QUOTA_BYTES // MEBIBYTE} MiB")
    return size


def _replicas(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise _FieldError("Replica number must be an integer from 0 to 3")
    if int(text) > MAX_REPLICAS:
        raise _FieldError(f"Replica number larger than {MAX_REPLICAS} is not supported.")
    return int(text)


def _type(text: str) -> str:
    if text == "memcached":
        raise _FieldError("memcached buckets are not supported by this node")
    if text not in BUCKET_TYPES:
        raise _FieldError("invalid bucket type")
    return BUCKET_TYPES[text]


def _off(what: str) -> Callable[[str], None]:
    """Read a switch or number that only 0 is supported for."""

    def read(text: str) -> None:
        if text not in ("0", "false"):
            raise _FieldError(f"{what} other than 0 is not supported by this node")

    return read


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
    "flushEnabled": ("flush_enabled", _flag("flushEnabled")),
    "evictionPolicy": (
        "eviction_policy",
        _one_of("valueOnly", "fullEviction", "noEviction", refused=("nruEviction",)),
    ),
    "threadsNumber": ("threads_number", lambda text: int(_one_of("3", "8")(text))),
    "compressionMode": ("compression_mode", _one_of("off", "passive", "active")),
    "conflictResolutionType": ("conflict_resolution_type", _one_of("seqno", "lww", refused=("custom",))),
    "durabilityMinLevel": (
        None,
        _one_of("none", refused=("majority", "majorityAndPersistActive", "persistToMajority")),
    ),
    "storageBackend": (None, _one_of("couchstore", refused=("magma",))),
    "replicaIndex": (None, _off("replicaIndex")),
    "maxTTL": (None, _off("maxTTL")),
    "authType": (None, _one_of("sasl", "none")),
    "saslPassword": (None, _password),
    "proxyPort": (None, lambda text: _number(text, "proxyPort", 0, 65535)),
}
"""All known fields; the error for any other one names it."""

_FIXED = {"type": "bucketType", "conflict_resolution_type": "conflictResolutionType"}
"""Members that an edit cannot change -> their form field."""

_EVICTION = {"couchbase": ("valueOnly", "fullEviction"), "ephemeral": ("noEviction",)}


def read_new_bucket(form: Mapping[str, str]) -> tuple[BucketDefinition, str | None]:
    """Read the form that creates a bucket.

    Defaults are Couchbase's: type couchbase, one replica, no flush.

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
    values.setdefault("replica_number", 1)
    values.setdefault("eviction_policy", _EVICTION[bucket_type][0])
    _check_eviction(bucket_type, values, errors)
    if errors:
        raise DefinitionError(errors)
    return BucketDefinition(name=name, **values), form.get("saslPassword")


def read_changes(form: Mapping[str, str], current: BucketDefinition) -> BucketDefinition:
    """Read the form that edits a bucket: fields that are not sent stay as they are; a name is ignored.

    :raises DefinitionError: a bad field, or one that is fixed when a bucket is created.
    """
    values, errors = _read(form)
    if "saslPassword" in form:
        errors["saslPassword"] = "The password of a bucket cannot be changed here"
    for member, field in _FIXED.items():
        if member in values and values[member] != getattr(current, member):
            errors[field] = f"{field} cannot be changed once the bucket exists"
    _check_eviction(current.type, values, errors)
    if errors:
        raise DefinitionError(errors)
    return current._replace(**values)


def _read(form: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for field, text in form.items():
        if field == "name":
            continue
        if field not in _READERS:
            errors[field] = "Unsupported key"
            continue
        member, read = _READERS[field]
        try:
            value = read(text)
        except _FieldError as fault:
            errors[field] = str(fault)
            continue
        if member is not None:
            values[member] = value
    return values, errors


def _check_eviction(bucket_type: str, values: Mapping[str, Any], errors: dict[str, str]) -> None:
    policy = values.get("eviction_policy")
    if policy is not None and policy not in _EVICTION[bucket_type]:
        errors.setdefault(
            "evictionPolicy",
            f"Eviction policy of {bucket_type} buckets must be one of {', '.join(_EVICTION[bucket_type])}",
        )
