"""The JSON documents from which clients learn the cluster: pure functions from values to documents.

Three kinds: the terse configuration of a bucket (over the key-value port, and streamed), the cluster-level
one (no bucket), and the verbose bucket object of the REST interface. In all of them the nodes are in the
order of ``serverList``, because clients join the lists by position.

``bucketType`` shows whether documents of a bucket ever reach a disk: ``membase`` if they do, else
``ephemeral`` (also for a bucket of type couchbase on a node without a data directory). Couchbase Server has
the member in the verbose object only. The terse configuration has it here too, because the capabilities do
not show this: ``couchapi`` means that there are views, which also work without a data directory, and need
a view engine. The statistic ``ep_bucket_type`` is equivalent (``persistent``, ``ephemeral``). In an
ephemeral bucket, durability levels that need a disk fail with DURABILITY_INVALID_LEVEL, and OBSERVE never
reports PERSISTED.
"""

from __future__ import annotations

import ipaddress
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from couchnode.cluster.definition import BucketDefinition
from couchnode.cluster.layout import Rows
from couchnode.cluster.machine import Disk

HOST_PLACEHOLDER = "$HOST"
"""Placeholder for the host to which the client is connected."""

CLUSTER_COMPATIBILITY = 7 * 0x10000 + 6
"""Version 7.6 in the cluster manager's encoding: major * 65536 + minor."""

SERVER_GROUP = "Group 1"
"""The server group of every node (the server's default): clients can prefer replicas of one group."""

BUCKET_CAPABILITIES = (
    "collections",
    "durableWrite",
    "tombstonedUserXAttrs",
    "subdoc.ReplaceBodyWithXattr",
    "subdoc.DocumentMacroSupport",
    "subdoc.ReviveDocument",
    "preserveExpiry",
    "subdoc.ReplicaRead",
    "subdoc.BinaryXattr",
    "subdoc.AccessDeleted",
    "cbhello",
    "touch",
    "cccp",
    "nodesExt",
    "rangeScan",
    "xattr",
)
"""Capabilities announced to clients."""


class AdvertisedAddress(NamedTuple):
    """The address of one node for clients.

    :ivar host: IP address, or :data:`HOST_PLACEHOLDER` for a node that listens on every interface.
    :ivar views_port: port of the view engine, ``None`` on a node without one.
    :ivar kv_tls_port, rest_tls_port: the same services with TLS (the latter has views); ``None`` if absent.
    """

    host: str
    kv_port: int
    rest_port: int
    views_port: int | None = None
    kv_tls_port: int | None = None
    rest_tls_port: int | None = None

    @property
    def kv(self) -> str:
        """``host:port`` of the key-value service."""
        return f"{bracketed(self.host)}:{self.kv_port}"

    @property
    def rest(self) -> str:
        """``host:port`` of the REST service."""
        return f"{bracketed(self.host)}:{self.rest_port}"


class BucketState(NamedTuple):
    """The content of a bucket's configuration.

    :ivar on_disk: whether its documents ever reach a disk.
    :ivar revision: (epoch, rev); clients adopt a configuration only if its revision is greater.
    :ivar manifest_uid: uid of the bucket's collections manifest.
    """

    definition: BucketDefinition
    uuid: str
    revision: tuple[int, int]
    rows: Rows
    manifest_uid: int = 0
    on_disk: bool = True

    @property
    def bucket_type(self) -> str:
        """The value of ``bucketType``."""
        return "membase" if self.on_disk and self.definition.persistent else "ephemeral"


class NodeReport(NamedTuple):
    """The part of the verbose documents about one node.

    :ivar uuid: 32 hex digits, the same in every run.
    :ivar status: ``healthy``, ``unhealthy`` or ``warmup``.
    :ivar system: ``systemStats``: figures of the machine.
    :ivar interesting: ``interestingStats``: of one bucket, or of all buckets on the node.
    """

    address: AdvertisedAddress
    status: str
    version: str
    uptime_seconds: int
    memory_total: int
    memory_free: int
    system: Mapping[str, float]
    interesting: Mapping[str, float]
    uuid: str = ""


def bracketed(host: str) -> str:
    """Return ``host`` in the form used before a port."""
    return f"[{host}]" if ":" in host else host


def advertised_host(interface: str) -> str:
    """Return the host to put into configurations for a node that listens on ``interface``.

    A node that listens on every interface has no single address; clients keep the address that they used.
    """
    return HOST_PLACEHOLDER if ipaddress.ip_address(interface).is_unspecified else interface


def encode(document: Any) -> bytes:
    """Return ``document`` as compact JSON."""
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def terse_bucket(bucket: BucketState, nodes: Sequence[AdvertisedAddress], this_node: int) -> dict[str, Any]:
    """Build the configuration of ``bucket`` for clients of the node with index ``this_node``."""
    definition = bucket.definition
    epoch, rev = bucket.revision
    return {
        "rev": rev,
        "revEpoch": epoch,
        "name": definition.name,
        "nodeLocator": "vbucket",
        "uuid": bucket.uuid,
        "bucketType": bucket.bucket_type,
        **_bucket_uris(bucket),
        **_capabilities(bucket, nodes),
        "vBucketServerMap": _server_map(bucket, nodes),
        "nodes": [
            {**_view_base(bucket, node), "hostname": node.rest, "ports": _ports(node)} for node in nodes
        ],
        **_cluster_part(nodes, this_node),
    }


def cluster_config(
    revision: tuple[int, int], nodes: Sequence[AdvertisedAddress], this_node: int
) -> dict[str, Any]:
    """Build the configuration for a client that has no bucket yet; this configuration has no name."""
    epoch, rev = revision
    return {"rev": rev, "revEpoch": epoch, **_cluster_part(nodes, this_node)}


def verbose_bucket(
    bucket: BucketState, reports: Sequence[NodeReport], this_node: int, stats: Mapping[str, float]
) -> dict[str, Any]:
    """Build the bucket object of ``/pools/default/buckets``.

    :param stats: ``basicStats``: itemCount, memUsed, diskUsed, opsPerSec and so on.
    """
    definition = bucket.definition
    addresses = [report.address for report in reports]
    uris = _bucket_uris(bucket)
    base = bucket_path(definition.name)
    epoch, rev = bucket.revision
    controllers = {"flush": f"{base}/controller/doFlush"} if definition.flush_enabled else {}
    return {
        "rev": rev,
        "revEpoch": epoch,
        "name": definition.name,
        "uuid": bucket.uuid,
        "bucketType": bucket.bucket_type,
        "authType": "sasl",
        "saslPassword": "",
        "proxyPort": 0,
        "nodeLocator": "vbucket",
        **uris,
        "localRandomKeyUri": f"{base}/localRandomKey",
        **_capabilities(bucket, addresses),
        "controllers": controllers,
        "stats": {
            "uri": f"{base}/stats",
            "directoryURI": f"{base}/stats/Directory",
            "nodeStatsListURI": f"{base}/nodes",
        },
        "replicaNumber": definition.replica_number,
        "threadsNumber": definition.threads_number,
        "evictionPolicy": definition.eviction_policy,
        "numVBuckets": definition.vbuckets,
        "rank": definition.rank,
        "autoCompactionSettings": False,
        **_disk_settings(bucket),
        "conflictResolutionType": definition.conflict_resolution_type,
        "durabilityMinLevel": definition.durability_min_level,
        "compressionMode": definition.compression_mode,
        "maxTTL": definition.max_ttl,
        "quota": {"ram": definition.quota_bytes * len(reports), "rawRAM": definition.quota_bytes},
        "basicStats": dict(stats),
        "nodes": [
            {**node_object(report, index, this_node), **_view_base(bucket, report.address)}
            for index, report in enumerate(reports)
        ],
        "vBucketServerMap": _server_map(bucket, addresses),
        **_cluster_part(addresses, this_node),
    }


def node_object(report: NodeReport, index: int, this_node: int) -> dict[str, Any]:
    """Build the entry of one node in the ``nodes`` list of a verbose document."""
    address = report.address
    entry: dict[str, Any] = {
        "hostname": address.rest,
        "configuredHostname": address.rest,
        "nodeUUID": report.uuid,
        "status": report.status,
        "clusterMembership": "active",
        "serverGroup": SERVER_GROUP,
        "recoveryType": "none",
        "otpNode": f"n_{index}@{address.host}",
        "version": report.version,
        "os": f"{platform.machine()}-{platform.system().lower()}",
        "clusterCompatibility": CLUSTER_COMPATIBILITY,
        "uptime": str(report.uptime_seconds),
        "memoryTotal": report.memory_total,
        "memoryFree": report.memory_free,
        "services": ["kv"],
        "systemStats": dict(report.system),
        "interestingStats": dict(report.interesting),
        "ports": _ports(address),
    }
    if index == this_node:
        entry["thisNode"] = True
    return entry


def pools(cluster_uuid: str, version: str, is_admin: bool) -> dict[str, Any]:
    """Build the answer to ``GET /pools``: the version, and further paths."""
    return {
        "isAdminCreds": is_admin,
        "isEnterprise": True,
        "implementationVersion": version,
        "uuid": cluster_uuid,
        "pools": [
            {
                "name": "default",
                "uri": f"/pools/default?uuid={cluster_uuid}",
                "streamingUri": f"/poolsStreaming/default?uuid={cluster_uuid}",
            }
        ],
    }


def pool(
    cluster_uuid: str,
    reports: Sequence[NodeReport],
    this_node: int,
    quota_bytes: int,
    used_bytes: int,
    disk: Disk,
    disk_bytes: int,
) -> dict[str, Any]:
    """Build the answer to ``GET /pools/default``: an overview of the cluster.

    :param quota_bytes: total memory quota of all buckets on all nodes.
    :param used_bytes: total memory used by documents on all nodes.
    :param disk: the file system of all nodes.
    :param disk_bytes: disk space used by documents.
    """
    return {
        "name": "default",
        "uuid": cluster_uuid,
        "nodes": [
            {
                **node_object(report, index, this_node),
                **(
                    {"couchApiBase": f"http://{bracketed(report.address.host)}:{report.address.views_port}/"}
                    if report.address.views_port is not None
                    else {}
                ),
            }
            for index, report in enumerate(reports)
        ],
        "buckets": {
            "uri": "/pools/default/buckets",
            "terseBucketsBase": "/pools/default/b/",
            "terseStreamingBucketsBase": "/pools/default/bs/",
        },
        "nodeServicesUri": "/pools/default/nodeServices",
        "controllers": {},
        "rebalanceStatus": "none",
        "balanced": True,
        "memoryQuota": quota_bytes // (2**20 * max(1, len(reports))),
        "maxBucketCount": 30,
        "storageTotals": {
            "ram": {
                # All nodes are on one machine.
                "total": sum(report.memory_total for report in reports[:1]),
                "used": sum(report.memory_total - report.memory_free for report in reports[:1]),
                "quotaTotal": quota_bytes,
                "quotaUsed": quota_bytes,
                "quotaTotalPerNode": quota_bytes // max(1, len(reports)),
                "quotaUsedPerNode": quota_bytes // max(1, len(reports)),
                "usedByData": used_bytes,
            },
            "hdd": {
                "total": disk.total,
                "quotaTotal": disk.total,
                "used": disk.used,
                "usedByData": disk_bytes,
                "free": disk.free,
            },
        },
    }


def _disk_settings(bucket: BucketState) -> dict[str, Any]:
    """Return the settings that only persistent buckets have."""
    definition = bucket.definition
    if bucket.bucket_type != "membase":
        return {}
    settings: dict[str, Any] = {"storageBackend": definition.storage_backend}
    if definition.storage_backend == "couchstore":
        settings["replicaIndex"] = definition.replica_index
    else:
        settings["historyRetentionCollectionDefault"] = definition.history_default
        settings["historyRetentionBytes"] = definition.history_bytes
        settings["historyRetentionSeconds"] = definition.history_seconds
    return settings


def bucket_path(name: str) -> str:
    """Return the REST path of a bucket."""
    return f"/pools/default/buckets/{quote(name, safe='')}"


def _bucket_uris(bucket: BucketState) -> dict[str, str]:
    name = quote(bucket.definition.name, safe="")
    return {
        "uri": f"/pools/default/buckets/{name}?bucket_uuid={bucket.uuid}",
        "streamingUri": f"/pools/default/bucketsStreaming/{name}?bucket_uuid={bucket.uuid}",
    }


def _has_views(bucket: BucketState, node: AdvertisedAddress) -> bool:
    return bucket.definition.may_have_views and node.views_port is not None


def _view_base(bucket: BucketState, node: AdvertisedAddress) -> dict[str, str]:
    if not _has_views(bucket, node):
        return {}
    name = quote(bucket.definition.name, safe="")
    # The plus sign between name and uuid is part of one path segment, so it is encoded.
    path = f"{name}%2B{bucket.uuid}"
    base = {"couchApiBase": f"http://{bracketed(node.host)}:{node.views_port}/{path}"}
    if node.rest_tls_port is not None:
        base["couchApiBaseHTTPS"] = f"https://{bracketed(node.host)}:{node.rest_tls_port}/{path}"
    return base


def _ports(node: AdvertisedAddress) -> dict[str, int]:
    ports = {"direct": node.kv_port}
    if node.rest_tls_port is not None:
        ports["httpsMgmt"] = node.rest_tls_port
        if node.views_port is not None:
            ports["httpsCAPI"] = node.rest_tls_port
    return ports


def _capabilities(bucket: BucketState, nodes: Sequence[AdvertisedAddress]) -> dict[str, Any]:
    views = any(_has_views(bucket, node) for node in nodes)
    part: dict[str, Any] = {
        "bucketCapabilitiesVer": "",
        "bucketCapabilities": [
            *BUCKET_CAPABILITIES,
            *(["couchapi"] if views else []),
            *(["nonDedupedHistory"] if bucket.definition.storage_backend == "magma" else []),
        ],
        "collectionsManifestUid": f"{bucket.manifest_uid:x}",
    }
    if views:
        part["ddocs"] = {"uri": f"{bucket_path(bucket.definition.name)}/ddocs"}
    return part


def _server_map(bucket: BucketState, nodes: Sequence[AdvertisedAddress]) -> dict[str, Any]:
    return {
        "hashAlgorithm": "CRC",
        "numReplicas": bucket.definition.replica_number,
        "serverList": [node.kv for node in nodes],
        "vBucketMap": bucket.rows,
    }


def _cluster_part(nodes: Sequence[AdvertisedAddress], this_node: int) -> dict[str, Any]:
    entries = []
    for index, node in enumerate(nodes):
        services = {"mgmt": node.rest_port, "kv": node.kv_port}
        if node.views_port is not None:
            services["capi"] = node.views_port
        if node.kv_tls_port is not None and node.rest_tls_port is not None:
            services["mgmtSSL"], services["kvSSL"] = node.rest_tls_port, node.kv_tls_port
            if node.views_port is not None:
                services["capiSSL"] = node.rest_tls_port
        entry: dict[str, Any] = {"services": services, "serverGroup": SERVER_GROUP}
        if node.host != HOST_PLACEHOLDER:
            entry["hostname"] = node.host  # a missing host means the same as the placeholder
        if index == this_node:
            entry["thisNode"] = True
        entries.append(entry)
    return {"nodesExt": entries, "clusterCapabilitiesVer": [1, 0], "clusterCapabilities": {}}
