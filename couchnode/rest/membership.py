"""The nodes and the tasks of the cluster over HTTP, for administration tools and for consistency checks of
clients."""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.web.server import Request

from couchnode.cluster import config
from couchnode.cluster.cluster import Cluster
from couchnode.cluster.members import Node
from couchnode.rest.access import Access, HTTPError
from couchnode.rest.answers import json_answer

POOL = "/pools/default"


class Membership:
    """The resources of one node about the nodes.

    :param access: checks the rights of callers.
    """

    app = Klein()

    def __init__(self, cluster: Cluster, node: Node, access: Access) -> None:
        self._cluster = cluster
        self._node = node
        self._access = access

    @app.route("/nodeStatuses", methods=["GET"])
    async def statuses(self, request: Request) -> bytes:
        """Give the status of each node by its host and port."""
        await self._access.permit(request, "cluster.nodes!read")
        nodes = self._nodes(request)
        return json_answer(
            request,
            {
                node["hostname"]: {
                    "status": node["status"],
                    "gracefulFailoverPossible": False,
                    "otpNode": node["otpNode"],
                    "dataless": False,
                    "replication": 1.0,
                }
                for node in nodes
            },
        )

    @app.route("/nodes/<name>", methods=["GET"])
    async def node(self, request: Request, name: str) -> bytes:
        """Give one node: ``self``, or the node with that ``otpNode``."""
        await self._access.permit(request, "cluster.nodes!read")
        for node in self._nodes(request):
            if name == node["otpNode"] or (name == "self" and node.get("thisNode")):
                return json_answer(request, {**node, **self._storage()})
        raise HTTPError.of_json(404, "Node is unknown to this cluster.")

    @app.route(f"{POOL}/terseClusterInfo", methods=["GET"])
    async def terse_cluster_info(self, request: Request) -> bytes:
        """Give the cluster in four members."""
        await self._access.member(request)
        compatible = divmod(config.CLUSTER_COMPATIBILITY, 0x10000)
        return json_answer(
            request,
            {
                "clusterUUID": self._cluster.uuid,
                "orchestrator": self._nodes(request)[0]["otpNode"],
                "isBalanced": True,
                "clusterCompatVersion": "{}.{}".format(*compatible),
            },
        )

    @app.route(f"{POOL}/tasks", methods=["GET"])
    async def tasks(self, request: Request) -> bytes:
        """List the cluster's tasks: no rebalance, since nodes are neither added nor removed."""
        await self._access.permit(request, "cluster.tasks!read")
        return json_answer(
            request,
            [
                {
                    "statusId": self._cluster.uuid,
                    "type": "rebalance",
                    "subtype": "rebalance",
                    "status": "notRunning",
                    "statusIsStale": False,
                    "masterRequestTimedOut": False,
                }
            ],
        )

    @app.route(f"{POOL}/rebalanceProgress", methods=["GET"])
    async def rebalance_progress(self, request: Request) -> bytes:
        """Answer that there is no rebalance."""
        await self._access.permit(request, "cluster.tasks!read")
        return json_answer(request, {"status": "none"})

    def _nodes(self, request: Request) -> list[dict[str, Any]]:
        reports = self._cluster.reports.nodes(placeholder=request.getHost().host)
        return [config.node_object(report, at, self._node.index) for at, report in enumerate(reports)]

    def _storage(self) -> dict[str, Any]:
        quota = sum(bucket.definition.quota_bytes for bucket in self._cluster.buckets.values())
        disk = self._cluster.reports.disk()
        used = sum(part.memory_bytes for part in self._node.buckets.values())
        return {
            "storageTotals": {
                "ram": {"quotaTotal": quota, "quotaUsed": quota, "usedByData": used},
                "hdd": {"total": disk.total, "used": disk.used, "free": disk.free},
            },
            "memoryQuota": quota // 2**20,
        }
