"""A bucket's settings and their rules (:mod:`couchnode.cluster.bucketforms` reads them from requests)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

MEBIBYTE = 2**20
MIN_QUOTA_BYTES = 100 * MEBIBYTE
"""Smallest memory quota of a bucket on a node, as on Couchbase Server."""

MAX_REPLICAS = 3
MAX_BUCKETS = 30
MAX_BUCKET_NAME_BYTES = 100

_NAME = re.compile(r"[A-Za-z0-9_.%-]+\Z")

BUCKET_TYPES = {"couchbase": "couchbase", "membase": "couchbase", "ephemeral": "ephemeral"}
"""``bucketType`` in requests -> the name used here."""

EVICTION_POLICIES = {"couchbase": ("valueOnly", "fullEviction"), "ephemeral": ("noEviction", "nruEviction")}
"""Bucket type -> the eviction policies that it may have."""

DURABILITY_LEVELS = ("none", "majority", "majorityAndPersistActive", "persistToMajority")
"""Values of ``durabilityMinLevel``; the index is the level in the protocol."""

MAX_SYNC_REPLICAS = 2
"""A bucket with more replicas takes no synchronous writes."""

VBUCKET_COUNTS = {"couchstore": (1024,), "magma": (1024, 128)}
"""Storage backend -> numbers of vbuckets that a bucket may have, the default first."""

_MAGMA_QUOTA_BYTES = 1024 * MEBIBYTE


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
    :ivar replica_number: configured replicas, 0 to 3, whether or not there are nodes for them.
    :ivar max_ttl: longest lifetime of a document in seconds, and the lifetime of a document stored without
        an expiry; 0 for no limit.
    :ivar durability_min_level: one of :data:`DURABILITY_LEVELS`; writes that ask for less get this level.
    :ivar vbuckets: number of vbuckets, fixed when the bucket is created.
    :ivar threads_number, compression_mode, conflict_resolution_type, replica_index, storage_backend, rank,
        history_default, history_seconds, history_bytes: stored for clients and returned to them, without any
        other effect that a client could observe.
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
    replica_index: bool = False
    max_ttl: int = 0
    durability_min_level: str = "none"
    storage_backend: str = "couchstore"
    vbuckets: int = 1024
    rank: int = 0
    history_default: bool = True
    history_seconds: int = 0
    history_bytes: int = 0

    @property
    def persistent(self) -> bool:
        """Whether documents of this bucket go to disk."""
        return self.type == "couchbase"

    @property
    def may_have_views(self) -> bool:
        """Whether documents of this bucket can be indexed by views."""
        return self.persistent and self.storage_backend == "couchstore"

    @property
    def min_level(self) -> int:
        """The minimum durability level of a write, as in the protocol; 0 for none."""
        return DURABILITY_LEVELS.index(self.durability_min_level)

    def check(self) -> BucketDefinition:
        """Return this definition if its values are valid.

        :raises DefinitionError: the name or type is invalid, or a number is out of range.
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
        if self.durability_min_level not in DURABILITY_LEVELS:
            errors["durability_min_level"] = f"must be one of {', '.join(DURABILITY_LEVELS)}"
        if self.vbuckets not in VBUCKET_COUNTS.get(self.storage_backend, ()):
            errors["numVBuckets"] = "Number of vbuckets must be 128 or 1024 (magma) or 1024 (couchstore)"
        if errors:
            raise DefinitionError(errors)
        return self

    def check_combination(self, node_count: int) -> BucketDefinition:
        """Return this definition if a client may combine its settings in this cluster.

        :raises DefinitionError: the nodes or the type cannot provide the durability level, a magma bucket is
            too small, or history is set without magma.
        """
        errors = {}
        level = self.durability_min_level
        if level != "none":
            if self.replica_number > MAX_SYNC_REPLICAS:
                errors["durability_min_level"] = (
                    "Durability minimum level cannot be specified with 3 replicas"
                )
            elif not self.persistent and level != "majority":
                errors["durability_min_level"] = (
                    "Durability minimum level must be either 'none' or 'majority' for ephemeral buckets"
                )
            elif (self.replica_number + 1) // 2 + 1 > node_count:
                errors["durability_min_level"] = (
                    "You do not have enough data servers to support this durability level"
                )
        if self.storage_backend == "magma":
            if self.vbuckets == VBUCKET_COUNTS["magma"][0] and self.quota_bytes < _MAGMA_QUOTA_BYTES:
                errors["ramQuota"] = "Ram quota for magma must be at least 1024 MiB"
        elif self.history_seconds or self.history_bytes:
            errors["historyRetentionSeconds" if self.history_seconds else "historyRetentionBytes"] = (
                "History Retention can only used with Magma"
            )
        if errors:
            raise DefinitionError(errors)
        return self


def bucket_name_fault(name: str) -> str | None:
    """Return why ``name`` is not a valid bucket name; ``None`` if it is valid."""
    if not name:
        return "Bucket name needs to be specified"
    if len(name.encode("utf-8", "replace")) > MAX_BUCKET_NAME_BYTES:
        return f"Bucket name cannot exceed {MAX_BUCKET_NAME_BYTES} characters"
    if not _NAME.match(name):
        return (
            "Bucket name can only contain characters in range A-Z, a-z, 0-9 "
            "as well as underscore, period, dash & percent. Consult the documentation."
        )
    if name.startswith("."):
        return "Bucket name cannot start with dot."
    if name.startswith(("_users.couch.", "_replicator.couch.")):
        return "This name is reserved for the internal use."
    return None
