"""What the key-value server asks of a node, and the node of its cluster: protocols between the two sides.

The data side never sees the map or the metadata, the control side never sees a connection. What the parts of
a bucket ask of each other stands in :mod:`couchnode.data.ports`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from couchbase.protocol.sasl import ScramCredential
from couchnode.data.bucket import NodeBucket


class Users(Protocol):
    """Who may authenticate."""

    def scram_credential(self, mechanism: str, user: str) -> ScramCredential | None:
        """Return what is kept of the user's password; ``None`` for an unknown user."""

    def verify(self, user: str, password: str) -> Deferred[bool]:
        """Fire with whether the password is right, without holding up the reactor."""

    def decoy_salt(self, user: str) -> bytes:
        """Return a salt for an unknown user, the same each time."""


class ClusterView(Protocol):
    """A cluster as its nodes, and the connections to them, see it.

    :ivar on_config_change: called with a bucket's name after its configuration changed, or it was deleted.
    :ivar version: the server's version, for clients who ask.
    """

    on_config_change: list[Callable[[str], None]]
    version: str

    @property
    def users(self) -> Users:
        """Return who may authenticate."""

    @property
    def clock(self) -> IReactorTime:
        """Return the source of timers and of time."""

    @property
    def unauthenticated_bucket(self) -> str | None:
        """Return the bucket that needs no credentials, if there is one."""

    def may_use(self, user: str, bucket: str) -> bool:
        """Return whether that user may use that bucket."""

    def config_bytes(self, bucket: str | None, node: NodeView) -> bytes:
        """Return the configuration as JSON; of the cluster, without a bucket, for ``None``."""

    def config_revision(self, bucket: str | None) -> tuple[int, int]:
        """Return (epoch, revision) of that configuration."""


class NodeView(Protocol):
    """A node as its key-value server, and its cluster's configurations, see it.

    :ivar buckets: bucket name -> the data of that bucket on this node.
    :ivar index: the node's place in the cluster.
    :ivar open_connections: to the key-value port; whoever serves it counts them, and the next.
    :ivar total_connections: those that were opened since the start.
    """

    buckets: dict[str, NodeBucket]
    index: int
    open_connections: int
    total_connections: int

    @property
    def cluster(self) -> ClusterView:
        """Return the cluster that this node is part of."""
