"""The key-value port of a node: its connections, and the limit on their memory."""

from __future__ import annotations

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from couchnode.kv.connection import KeyValueConnection
from couchnode.ports import NodeView
from couchnode.tls import NodeTls
from reactor.sparselog import SparseLog

MAX_CONNECTIONS = 4096
"""Connections that one node serves at a time; further ones are closed at once."""

MAX_HELD_BYTES = 512 * 2**20
"""Incomplete requests and unread answers of all connections together. The connection that takes
them over this is cut, so that no number of slow peers fills the memory."""


class KeyValueFactory(Factory):
    """Serves the key-value protocol for one node.

    :param node: the node: its ``buckets`` by name and its ``cluster`` (see
        :class:`couchnode.ports.NodeView`).
    :param max_connections: connections beyond this are closed at once.
    :param max_held_bytes: see :data:`MAX_HELD_BYTES`.
    :param tls: identifies a client by its certificate; ``None``: no certificates are used.
    """

    noisy = False

    def __init__(
        self,
        node: NodeView,
        max_connections: int = MAX_CONNECTIONS,
        max_held_bytes: int = MAX_HELD_BYTES,
        tls: NodeTls | None = None,
    ) -> None:
        self.node = node
        self.log = SparseLog(Logger(namespace=__name__), node.cluster.clock.seconds)
        self.max_connections = max_connections
        self.max_held_bytes = max_held_bytes
        self.held_bytes = 0
        self.tls = tls
        self.connections: set[KeyValueConnection] = set()
        node.cluster.on_config_change.append(self._config_changed)
        node.cluster.users.on_change.append(self._rights_changed)

    def buildProtocol(self, addr: IAddress | None) -> KeyValueConnection:
        """Twisted: return the protocol of a new connection."""
        host, port = getattr(addr, "host", "?"), getattr(addr, "port", "?")
        return KeyValueConnection(self, f"{host}:{port}")

    def logPrefix(self) -> str:
        """Twisted: describe the port for the log."""
        return "couchnode key-value"

    def admit(self, connection: KeyValueConnection) -> bool:
        """Count a new connection; false if there are too many."""
        if len(self.connections) >= self.max_connections:
            self.log.warn("{peer}: refused: {limit} connections are open", peer=connection.session.peer,
                           limit=self.max_connections)  # fmt: skip
            return False
        self.connections.add(connection)
        self.node.open_connections += 1
        self.node.total_connections += 1
        return True

    def release(self, connection: KeyValueConnection) -> None:
        """Forget a connection that is gone."""
        if connection in self.connections:
            self.connections.discard(connection)
            self.node.open_connections -= 1

    def close(self) -> None:
        """Cut every connection and unsubscribe from changes, when the node stops."""
        if self._config_changed in self.node.cluster.on_config_change:
            self.node.cluster.on_config_change.remove(self._config_changed)
            self.node.cluster.users.on_change.remove(self._rights_changed)
        for connection in list(self.connections):
            connection.transport.abortConnection()

    def _config_changed(self, bucket: str) -> None:
        for connection in list(self.connections):
            connection.config_changed(bucket)

    def _rights_changed(self) -> None:
        for connection in list(self.connections):
            connection.session.rights_changed()
