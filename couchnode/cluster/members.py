"""The members of a cluster: buckets with their maps, nodes with their addresses; and errors about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from couchnode.cluster.config import AdvertisedAddress, BucketState
from couchnode.cluster.definition import BucketDefinition
from couchnode.cluster.designs import Designs, restored
from couchnode.cluster.layout import Rows, check_rows
from couchnode.data.bucket import NodeBucket
from couchnode.data.manifest import Manifest, restored_manifest
from couchnode.ports import ClusterView


class NoSuchBucket(KeyError):
    """There is no bucket of that name."""


class FlushDisabled(Exception):
    """The bucket may not be flushed; edit ``flushEnabled`` first."""


class Bucket:
    """One bucket of the cluster: its settings, its map, its revision.

    :ivar owns_user: whether a user named like the bucket was created with it, and is deleted with it.
    :ivar is_open: whether that user's password is empty.
    :ivar is_made: whether all of its files were created; if not, a crash may have left some missing.
    :ivar designs: name -> design document. Replaced, never modified.
    :ivar manifest: its scopes and collections. Replaced, never modified.
    """

    def __init__(
        self,
        definition: BucketDefinition,
        uuid: str,
        rows: Rows,
        *,
        owns_user: bool,
        is_open: bool,
        designs: Designs | None = None,
        is_made: bool = True,
    ) -> None:
        self.definition = definition
        self.uuid = uuid
        self.rows = rows
        self.owns_user = owns_user
        self.is_open = is_open
        self.is_made = is_made
        self.designs: Designs = designs if designs is not None else {}
        self.manifest = Manifest()
        self.revision = (0, 0)

    def changed(
        self,
        *,
        definition: BucketDefinition | None = None,
        rows: Rows | None = None,
        designs: Designs | None = None,
        manifest: Manifest | None = None,
    ) -> Bucket:
        """Return a copy with some members changed."""
        copy = Bucket(
            self.definition if definition is None else definition,
            self.uuid,
            self.rows if rows is None else rows,
            owns_user=self.owns_user,
            is_open=self.is_open,
            designs=self.designs if designs is None else designs,
            is_made=self.is_made,
        )
        copy.manifest = self.manifest if manifest is None else manifest
        return copy

    def dump(self) -> dict[str, Any]:
        """Return what :func:`restored_bucket` takes, for cluster.json."""
        return {
            "definition": self.definition._asdict(),
            "uuid": self.uuid,
            "rows": self.rows,
            "ownsUser": self.owns_user,
            "isOpen": self.is_open,
            "made": self.is_made,
            "designs": {name: design.dump() for name, design in self.designs.items()},
            "manifest": self.manifest.dump(),
        }

    @property
    def state(self) -> BucketState:
        """The state for configurations, in a cluster that has a disk."""
        return BucketState(self.definition, self.uuid, self.revision, self.rows, self.manifest.uid)


def restored_bucket(data: dict[str, Any], node_count: int) -> Bucket:
    """Return the bucket that :meth:`Bucket.dump` described.

    :raises KeyError, TypeError, ValueError, AttributeError: the data has another shape.
    """
    definition = BucketDefinition(**data["definition"]).check()
    bucket = Bucket(
        definition,
        str(data["uuid"]),
        check_rows(data["rows"], node_count, definition.replica_number, definition.vbuckets),
        owns_user=data["ownsUser"],
        is_open=data["isOpen"],
        is_made=data.get("made", True),
        designs={name: restored(name, design) for name, design in data.get("designs", {}).items()},
    )
    if "manifest" in data:
        bucket.manifest = restored_manifest(data["manifest"])
    return bucket


def places(buckets: Mapping[str, Bucket]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return bucket -> scope -> collections: the names that a role may contain."""
    return {
        name: {scope.name: tuple(scope.collections) for scope in bucket.manifest.scopes.values()}
        for name, bucket in buckets.items()
    }


class Node:
    """One node: its place in the cluster, its addresses, and its share of each bucket.

    :ivar buckets: bucket name -> the data of that bucket on this node.
    :ivar address: set by the listener, before any client is served.
    :ivar open_connections: to the key-value port, counted by who serves it, as is
    :ivar total_connections: those that were opened since the start.
    """

    def __init__(self, cluster: ClusterView, index: int) -> None:
        self.cluster = cluster
        self.index = index
        self.name = f"node{index}"
        self.buckets: dict[str, NodeBucket] = {}
        self.address = AdvertisedAddress("127.0.0.1", 0, 0)
        self.open_connections = 0
        self.total_connections = 0

    def status(self, bucket: str | None = None) -> str:
        """Return ``warmup`` while this bucket (``None``: any bucket) is being loaded, else ``healthy``."""
        names = self.buckets if bucket is None else [bucket]
        loading = any(self.buckets[name].state == "warmup" for name in names if name in self.buckets)
        return "warmup" if loading else "healthy"
