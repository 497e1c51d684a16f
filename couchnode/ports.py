"""The interfaces between the key-value server, a node and its cluster.

The data side never uses the map or the metadata, the control side never uses a connection. The interfaces
between the parts of a bucket are in :mod:`couchnode.data.ports`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from couchbase.protocol.sasl import ScramCredential
from couchnode.access.rights import Rights
from couchnode.data.bucket import NodeBucket


class Users(Protocol):
    """Who may authenticate.

    :ivar on_change: called after a change of users or of their rights.
    """

    on_change: list[Callable[[], None]]

    def __contains__(self, user: object) -> bool:
        """Return whether a user of that name exists."""

    def scram_credential(self, mechanism: str, user: str) -> ScramCredential | None:
        """Return the stored keys of the user's password; ``None`` for an unknown user."""

    def verify(self, user: str, password: str) -> Deferred[bool]:
        """Fire with whether the password is right, without blocking the reactor."""

    def decoy_salt(self, user: str) -> bytes:
        """Return a salt for an unknown user, the same each time."""


class ClusterView(Protocol):
    """A cluster: the interface to its nodes and the connections to them.

    :ivar on_config_change: called with a bucket's name after a change of its configuration or its deletion.
    :ivar version: the server's version, for clients.
    """

    on_config_change: list[Callable[[str], None]]
    version: str

    @property
    def users(self) -> Users:
        """Return the users who may authenticate."""

    @property
    def clock(self) -> IReactorTime:
        """Return the clock, which gives the time and makes timers."""

    @property
    def unauthenticated_bucket(self) -> str | None:
        """Return the bucket that needs no credentials, if there is one."""

    def rights(self, user: str | None) -> Rights:
        """Return what that user may do; ``None`` for a connection without credentials."""

    def config_bytes(self, bucket: str | None, node: NodeView) -> bytes:
        """Return the configuration of a bucket as JSON; for ``None``, that of the cluster."""

    def config_revision(self, bucket: str | None) -> tuple[int, int]:
        """Return (epoch, revision) of the same configuration."""


class NodeView(Protocol):
    """A node: the interface to its key-value server, and to its cluster's configurations.

    :ivar buckets: bucket name -> the data of that bucket on this node.
    :ivar index: the node's place in the cluster.
    :ivar open_connections: open connections to the key-value port; its server counts them.
    :ivar total_connections: connections to that port since the start; its server counts them.
    """

    buckets: dict[str, NodeBucket]
    index: int
    open_connections: int
    total_connections: int

    @property
    def cluster(self) -> ClusterView:
        """Return the cluster that this node is part of."""
