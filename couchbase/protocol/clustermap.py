"""The cluster map: the nodes of a cluster, and which of them owns a key.

Parses all forms of the map that servers send: the terse and the verbose bucket configuration, and the
configuration of the cluster as a whole (no bucket, no vbuckets).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from couchbase import exceptions
from couchbase.exceptions import error_of
from couchbase.protocol.connstr import Seed
from couchbase.protocol.constants import DEFAULT_KV_PORT, DEFAULT_MANAGEMENT_PORT
from couchbase.protocol.hashing import vbucket_of

_PLACEHOLDER = "$HOST"

SERVICES = ("n1ql", "fts", "cbas")
"""Services other than data, views and management, as the map names them: query, search, analytics."""

_SERVICE_PORTS = tuple(f"{name}{suffix}" for name in SERVICES for suffix in ("", "SSL"))


class NodeAddress(NamedTuple):
    """The addresses of one node; a port is ``None`` for a service that the node does not offer."""

    host: str
    kv: int | None
    kv_tls: int | None = None
    management: int | None = None
    management_tls: int | None = None
    views: int | None = None
    views_tls: int | None = None
    services: tuple[tuple[str, int], ...] = ()
    """Ports of the services of :data:`SERVICES`, by their names in the map."""

    def kv_port(self, tls: bool) -> int | None:
        """Port of the key-value service, plain or TLS."""
        return self.kv_tls if tls else self.kv

    def management_port(self, tls: bool) -> int | None:
        """Port of the cluster manager, plain or TLS."""
        return self.management_tls if tls else self.management

    def views_port(self, tls: bool) -> int | None:
        """Port of the view engine, plain or TLS."""
        return self.views_tls if tls else self.views

    def service_port(self, name: str, tls: bool) -> int | None:
        """Port of a service of :data:`SERVICES`, plain or TLS."""
        return dict(self.services).get(f"{name}SSL" if tls else name)


class ClusterMap:
    """One revision of the map; immutable.

    :param nodes: the first ``data_nodes`` of them serve the bucket, in the order that ``rows``
        index; others only run other services.
    :param rows: one row per vbucket: the index of the active node, then of each replica; -1 for none.
    :param persistent: whether the bucket is kept on disk; true if unknown.
    """

    __slots__ = (
        "data_nodes", "epoch", "forward", "name", "nodes", "persistent", "replicas", "rev", "rows", "uuid",
    )  # fmt: skip

    # Many parameters: the fields of a cluster map.
    def __init__(
        self,
        *,
        nodes: Sequence[NodeAddress],
        rows: Sequence[Sequence[int]] = (),
        replicas: int = 0,
        data_nodes: int | None = None,
        name: str | None = None,
        uuid: str | None = None,
        epoch: int = 0,
        rev: int | None = None,
        forward: Sequence[Sequence[int]] = (),
        persistent: bool = True,
    ) -> None:
        self.nodes = tuple(nodes)
        self.rows = tuple(tuple(row) for row in rows)
        self.replicas = replicas
        self.data_nodes = len(self.nodes) if data_nodes is None else data_nodes
        self.name = name
        self.uuid = uuid
        self.epoch = epoch
        self.rev = rev
        self.forward = tuple(tuple(row) for row in forward)
        self.persistent = persistent

    @property
    def usable_replicas(self) -> int:
        """Number of replicas that the current nodes can hold: copies are on different nodes."""
        return max(0, min(self.replicas, self.data_nodes - 1))

    def vbucket(self, key: bytes) -> int:
        """Return the vbucket of a key."""
        return vbucket_of(key, len(self.rows))

    def active(self, vbucket: int) -> int:
        """Return the index of the node that owns a vbucket, -1 for none."""
        return self.rows[vbucket][0]

    def replica(self, vbucket: int, index: int) -> int:
        """Return the index of the node that holds replica ``index`` (from 0), -1 for none."""
        row = self.rows[vbucket]
        return row[1 + index] if 0 <= index < len(row) - 1 else -1

    def supersedes(self, other: ClusterMap | None) -> bool:
        """Return whether to adopt this map in place of ``other``.

        The revision decides, first by epoch; a map without a revision (servers before 2.5) counts as newer if
        it differs.
        """
        if other is None:
            return True
        if self.rev is None or other.rev is None:
            return (self.nodes, self.rows, self.uuid) != (other.nodes, other.rows, other.uuid)
        return (self.epoch, self.rev) > (other.epoch, other.rev)


def map_of_seed(seed: Seed, tls: bool) -> ClusterMap:
    """Return the map of a cluster that does not list its nodes: only the seed.

    :param tls: whether the seed's ports are those for TLS.
    """
    kv, management = seed.kv_port, seed.management_port
    if tls:
        node = NodeAddress(seed.host, None, kv, None, management)
    else:
        node = NodeAddress(seed.host, kv, None, management)
    return ClusterMap(nodes=[node], data_nodes=0)


def parse_cluster_map(
    text: bytes, host: str, network: str = "auto", bootstrap_host: str | None = None
) -> ClusterMap:
    """Read a configuration document.

    Parsed maps are cached by document: when vbuckets move, a node sends the document with each operation
    that it refuses, hundreds of times in a row.

    :param host: the host that sent it; replaces ``$HOST`` and missing host names.
    :param network: ``default`` (the nodes' own addresses), the name of an alternate network such as
        ``external``, or ``auto``: the network in which ``bootstrap_host`` is found, else ``default``.
    :param bootstrap_host: host name that the user gave; ``host`` by default.
    :raises CouchbaseError: ProtocolError, the document is not a usable configuration; NotSupportedError,
        it belongs to a memcached bucket.
    """
    return _read(bytes(text), host, network, bootstrap_host or host)


# Enough for the documents of a few nodes of a few clusters; maps are immutable and can be shared.
@lru_cache(maxsize=8)
def _read(text: bytes, host: str, network: str, bootstrap_host: str) -> ClusterMap:
    try:
        config = json.loads(text)
        if not isinstance(config, dict):
            raise TypeError("not a JSON object")
        if config.get("nodeLocator", "vbucket") != "vbucket" and "vBucketServerMap" not in config:
            raise error_of(
                exceptions.NOT_SUPPORTED,
                f"bucket {config.get('name')!r} has no vbuckets (node locator "
                f"{config['nodeLocator']!r}): memcached buckets are not supported",
            )
        return _parse(config, host, network, bootstrap_host)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise error_of(
            exceptions.PROTOCOL_ERROR,
            f"the cluster map from {host} cannot be used: {error}",
            inner_cause=error,
        ) from error


def _parse(config: dict[str, Any], host: str, network: str, bootstrap_host: str) -> ClusterMap:
    server_map = config.get("vBucketServerMap")
    if server_map is None and "buckets" in config:
        # /pools/default: the name is that of the pool.
        config = {key: value for key, value in config.items() if key in ("nodes", "nodesExt")}
    if server_map is None and "name" in config:
        locator = config.get("nodeLocator", "unknown")
        raise ValueError(f"bucket {config['name']!r} has no vbuckets (node locator {locator!r})")
    nodes = _nodes(config, host, network, bootstrap_host)
    rev = config.get("rev")
    common: dict[str, Any] = {
        "name": config.get("name"),
        "uuid": config.get("uuid"),
        "epoch": int(config.get("revEpoch", 0)),
        "rev": None if rev is None else int(rev),
        "persistent": _is_persistent(config),
    }
    if server_map is None:
        return ClusterMap(nodes=nodes, data_nodes=0, **common)
    servers = server_map["serverList"]
    if len(nodes) < len(servers):
        nodes = [_plain_server(server, host) for server in servers]
    # serverList has the plain key-value ports even if nodesExt leaves them out.
    if network != "external":
        nodes = [
            node._replace(kv=_split_port(servers[index])[1])
            if index < len(servers) and node.kv is None
            else node
            for index, node in enumerate(nodes)
        ]
    rows = server_map["vBucketMap"]
    if not rows:
        raise ValueError("the map has no vbuckets")
    for row in rows:
        if not row or not all(-1 <= index < len(servers) for index in row):
            raise ValueError(f"row {row} names a server that is not listed")
    return ClusterMap(
        nodes=nodes,
        rows=rows,
        replicas=int(server_map.get("numReplicas", len(rows[0]) - 1)),
        data_nodes=len(servers),
        forward=server_map.get("vBucketMapForward", ()),
        **common,
    )


# Only buckets with a disk have these: views (couchstore), history (magma), range scans (both, since 7.6).
_OF_DISKS = frozenset({"couchapi", "nonDedupedHistory", "rangeScan"})


def _is_persistent(config: dict[str, Any]) -> bool:
    kind = config.get("bucketType")
    if kind is not None:
        return kind != "ephemeral"
    capabilities = config.get("bucketCapabilities")
    # A list without any of them belongs to an ephemeral bucket. Servers before 5.0 have no such buckets, and
    # send few capabilities or none.
    return not capabilities or "xattr" not in capabilities or not _OF_DISKS.isdisjoint(capabilities)


def _nodes(config: dict[str, Any], host: str, network: str, bootstrap_host: str) -> list[NodeAddress]:
    extended = config.get("nodesExt")
    legacy = config.get("nodes", [])
    if not extended:
        return [_legacy_node(node, host) for node in legacy]
    if network == "auto":
        network = _network_of(bootstrap_host, extended, host)
    nodes = []
    for index, entry in enumerate(extended):
        name = entry.get("hostname")
        if name is None and index < len(legacy) and "hostname" in legacy[index]:
            name = _split_port(legacy[index]["hostname"])[0]
        services = entry["services"]
        if network != "default":
            alternate = entry.get("alternateAddresses", {}).get(network)
            if alternate:
                name = alternate["hostname"]
                services = alternate.get("ports") or services
        nodes.append(
            NodeAddress(
                _host(name, host),
                services.get("kv"),
                services.get("kvSSL"),
                services.get("mgmt"),
                services.get("mgmtSSL"),
                services.get("capi"),
                services.get("capiSSL"),
                tuple((name, services[name]) for name in _SERVICE_PORTS if name in services),
            )
        )
    return nodes


def _network_of(bootstrap_host: str, extended: list[dict[str, Any]], host: str) -> str:
    if any(_host(entry.get("hostname"), host) == bootstrap_host for entry in extended):
        return "default"
    for entry in extended:
        for network, alternate in entry.get("alternateAddresses", {}).items():
            if alternate.get("hostname") == bootstrap_host:
                return str(network)
    return "default"


def _legacy_node(node: dict[str, Any], host: str) -> NodeAddress:
    name, management = _split_port(node["hostname"])
    ports = node.get("ports", {})
    views = node.get("couchApiBase")
    views_port = None
    if views:
        authority = views.split("//", 1)[-1].split("/", 1)[0]
        views_port = _split_port(authority)[1]
    return NodeAddress(
        _host(name, host),
        ports.get("direct"),
        management=management if management is not None else DEFAULT_MANAGEMENT_PORT,
        management_tls=ports.get("httpsMgmt"),
        views=views_port,
        views_tls=ports.get("httpsCAPI"),
    )


def _plain_server(server: str, host: str) -> NodeAddress:
    name, port = _split_port(server)
    return NodeAddress(_host(name, host), DEFAULT_KV_PORT if port is None else port)


def _host(name: str | None, host: str) -> str:
    if not name or name == _PLACEHOLDER:
        return host
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _split_port(address: str) -> tuple[str, int | None]:
    """Split ``host:port``; the host of an IPv6 literal loses its brackets."""
    if address.startswith("["):
        name, _, rest = address[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else ""
    else:
        name, _, port = address.rpartition(":") if ":" in address else (address, "", "")
    if port and not port.isdigit():
        raise ValueError(f"{address!r} is not host:port")
    return name, int(port) if port else None


def split_stream(buffer: bytes) -> tuple[list[bytes], bytes]:
    """Split the stream of a streaming configuration URL into documents and an unfinished rest.

    Each document is followed by four newlines.
    """
    *documents, rest = buffer.split(b"\n\n\n\n")
    return [document for document in documents if document.strip()], rest
