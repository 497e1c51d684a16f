"""The interfaces between the parts of a bucket, so that none depends on the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from couchnode.data.collections import Collections
from couchnode.data.vbucket import VBucket


class Documents(Protocol):
    """The documents of one bucket on one node.

    :ivar collections: the collections of these documents.
    """

    collections: Collections

    @property
    def vbuckets(self) -> Sequence[VBucket | None]:
        """Return the vbuckets by number; ``None`` for those that this node does not hold."""

    def unix_time(self) -> float:
        """Return the Unix time, in seconds."""

    def purged(self, vbucket: VBucket) -> None:
        """Note that a vbucket has forgotten tombstones, some of which may be on the disk."""


class Upstream(Protocol):
    """The source of a replica's changes."""

    def reconnect(self) -> None:
        """Bring the replica up to date again, soon: its state has changed."""

    def acknowledge(self) -> None:
        """Report to the active copy that the replica has more on its disk."""


class Copy(Protocol):
    """One bucket on one node, as a source and target of replication.

    :ivar collections: the collections in which documents are held; others are dropped.
    :ivar upstreams: vbucket -> source of changes of this node's replica.
    """

    collections: Collections
    upstreams: dict[int, Upstream]

    def copy(self, vbid: int, state: str) -> VBucket | None:
        """Return a vbucket if this node holds it in this state, and the bucket is loaded."""

    def reset_vbucket(self, vbid: int, source: VBucket) -> None:
        """Empty a replica that shares no history with its active copy, to be filled from that."""

    def replica_acknowledged(self, vbid: int) -> None:
        """Note the progress of a replica of this active vbucket, in memory or on its disk."""
