"""The current figures of nodes and buckets for verbose REST documents."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import md5
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from couchnode.cluster import config, machine
from couchnode.cluster.activity import Rates, SystemStats, bucket_samples, interesting_stats
from couchnode.cluster.config import NodeReport
from couchnode.cluster.members import Bucket, Node
from couchnode.cluster.metadata import DataDirectory


class Reported(Protocol):
    """The cluster, as far as reports need it."""

    clock: IReactorTime
    version: str
    uuid: str

    @property
    def nodes(self) -> Sequence[Node]:
        """Return its nodes."""

    def bucket(self, name: str) -> Bucket:
        """Return the bucket of that name.

        :raises NoSuchBucket: there is none.
        """


class Reports:
    """Reports on one cluster.

    :param directory: its data directory; ``None`` if documents are in memory only.
    :ivar rates: the rates of all figures reported per second.
    """

    def __init__(self, cluster: Reported, directory: DataDirectory | None) -> None:
        self.rates = Rates(cluster.clock.seconds)
        self._cluster = cluster
        self._directory = directory
        self._started_at = cluster.clock.seconds()
        self._system = SystemStats()

    def nodes(self, bucket: str | None = None, placeholder: str = "127.0.0.1") -> list[NodeReport]:
        """Return the report on each node for verbose documents.

        :param placeholder: host to write for nodes that listen on every interface.
        """
        total, free = machine.memory()
        system = self._system.read()
        uptime = int(self._cluster.clock.seconds() - self._started_at)
        reports = []
        for node in self._cluster.nodes:
            address = node.address
            if address.host == config.HOST_PLACEHOLDER:
                address = address._replace(host=placeholder)
            parts = [part for name, part in node.buckets.items() if bucket in (None, name)]
            interesting = interesting_stats(node.index, parts, self.rates)
            status, version = node.status(bucket), self._cluster.version
            uuid = node_uuid(self._cluster.uuid, node.index)
            reports.append(
                NodeReport(address, status, version, uptime, total, free, system, interesting, uuid)
            )
        return reports

    def bucket_samples(self, name: str) -> dict[str, list[float]]:
        """Return the current figures of a bucket over all nodes, one value each.

        :raises NoSuchBucket: there is none of that name.
        """
        self._cluster.bucket(name)
        parts = [node.buckets[name] for node in self._cluster.nodes if name in node.buckets]
        connections = sum(node.open_connections for node in self._cluster.nodes)
        return bucket_samples(name, parts, connections, self.rates)

    def disk(self) -> machine.Disk:
        """Return the file system of the data directory; all 0 without one."""
        return machine.disk(None if self._directory is None else self._directory.path)

    def basic_stats(self, name: str) -> dict[str, float]:
        """Return the ``basicStats`` of a bucket, over all nodes.

        :raises NoSuchBucket: there is none of that name.
        """
        definition = self._cluster.bucket(name).definition
        parts = [node.buckets[name] for node in self._cluster.nodes if name in node.buckets]
        used = sum(part.memory_bytes for part in parts)
        disk = sum(part.disk_bytes for part in parts)
        return {
            "quotaPercentUsed": 100 * used / (definition.quota_bytes * len(self._cluster.nodes)),
            "opsPerSec": self.rates.of((name, "ops"), sum(part.gets + part.stores for part in parts)),
            "itemCount": sum(part.item_count for part in parts),
            "memUsed": used,
            "dataUsed": disk,
            "diskUsed": disk,
            # Every document is in memory, so none is ever fetched.
            "diskFetches": 0,
        }


def node_uuid(cluster_uuid: str, index: int) -> str:
    """Return the uuid of a node: 32 hexadecimal digits, the same in every run."""
    return md5(f"{cluster_uuid}/{index}".encode(), usedforsecurity=False).hexdigest()
