"""Configuration documents: every field that clients read, in the places where they read it."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from couchnode.cluster import config
from couchnode.cluster.config import AdvertisedAddress, BucketState, NodeReport
from couchnode.cluster.definition import BucketDefinition
from couchnode.cluster.layout import spread
from couchnode.cluster.machine import Disk

UUID = "c604594ab4602d14da3d099e4fa543bb"


def bucket(replicas: int = 1, name: str = "default", **settings: object) -> BucketState:
    """Return a bucket on three nodes, with sixteen vbuckets for short."""
    definition = BucketDefinition(name, replica_number=replicas, **settings)
    return BucketState(definition, UUID, (5, 42), spread(3, replicas, 16))


def nodes(host: str = "10.0.0.1{}", views_port: int | None = None) -> list[AdvertisedAddress]:
    """Return three addresses."""
    return [AdvertisedAddress(host.format(i), 11210 + i, 8091 + i, views_port) for i in range(3)]


def reports() -> list[NodeReport]:
    """Return what the verbose documents say of three nodes."""
    return [
        NodeReport(address, "healthy", "7.2.0-1-test", 60, 8000, 4000, {"mem_total": 8000}, {"ops": 2.5})
        for address in nodes()
    ]


class TerseTests(SynchronousTestCase):
    """The configuration over the key-value port."""

    def test_lists_are_in_one_order(self) -> None:
        """serverList, nodes and nodesExt name the nodes in the same order; one entry is this node's."""
        document = config.terse_bucket(bucket(), nodes(), 1)
        self.assertEqual(
            document["vBucketServerMap"]["serverList"],
            ["10.0.0.10:11210", "10.0.0.11:11211", "10.0.0.12:11212"],
        )
        self.assertEqual(
            [node["hostname"] for node in document["nodes"]],
            ["10.0.0.10:8091", "10.0.0.11:8092", "10.0.0.12:8093"],
        )
        self.assertEqual(
            [node["ports"] for node in document["nodes"]], [{"direct": 11210 + i} for i in range(3)]
        )
        # The Go client takes a node without a group for one of the group "".
        group = {"serverGroup": "Group 1"}
        self.assertEqual(
            document["nodesExt"],
            [
                {"services": {"mgmt": 8091, "kv": 11210}, **group, "hostname": "10.0.0.10"},
                {"services": {"mgmt": 8092, "kv": 11211}, **group, "hostname": "10.0.0.11", "thisNode": True},
                {"services": {"mgmt": 8093, "kv": 11212}, **group, "hostname": "10.0.0.12"},
            ],
        )

    def test_fields(self) -> None:
        """Name, uuid, version, paths, map and capabilities have the right values."""
        document = config.terse_bucket(bucket(2, "a%b"), nodes(), 0)
        self.assertEqual((document["revEpoch"], document["rev"]), (5, 42))
        self.assertEqual(
            (document["name"], document["uuid"], document["nodeLocator"]), ("a%b", UUID, "vbucket")
        )
        self.assertEqual(document["uri"], f"/pools/default/buckets/a%25b?bucket_uuid={UUID}")
        self.assertEqual(
            document["streamingUri"], f"/pools/default/bucketsStreaming/a%25b?bucket_uuid={UUID}"
        )
        self.assertEqual(document["collectionsManifestUid"], "0")
        self.assertEqual(document["bucketCapabilitiesVer"], "")
        self.assertIn("cccp", document["bucketCapabilities"])
        self.assertEqual((document["clusterCapabilitiesVer"], document["clusterCapabilities"]), ([1, 0], {}))
        self.assertEqual(document["vBucketServerMap"]["hashAlgorithm"], "CRC")
        self.assertEqual(document["vBucketServerMap"]["numReplicas"], 2)
        self.assertEqual({len(row) for row in document["vBucketServerMap"]["vBucketMap"]}, {3})

    def test_replicas_are_counted_though_nodes_are_missing(self) -> None:
        """numReplicas is what was configured, and rows are that long, filled with -1."""
        state = BucketState(BucketDefinition("b", replica_number=2), UUID, (1, 1), spread(1, 2, 4))
        server_map = config.terse_bucket(state, nodes()[:1], 0)["vBucketServerMap"]
        self.assertEqual(server_map["numReplicas"], 2)
        self.assertEqual(server_map["vBucketMap"], ((0, -1, -1),) * 4)

    def test_placeholder(self) -> None:
        """A node that listens on all addresses is $HOST with ports, and has no hostname."""
        document = config.terse_bucket(bucket(), nodes(config.HOST_PLACEHOLDER), 0)
        self.assertEqual(document["vBucketServerMap"]["serverList"][2], "$HOST:11212")
        self.assertEqual(document["nodes"][2]["hostname"], "$HOST:8093")
        self.assertEqual([entry.get("hostname") for entry in document["nodesExt"]], [None] * 3)

    def test_ipv6_is_bracketed_where_a_port_follows(self) -> None:
        """Brackets in host:port, none in nodesExt."""
        document = config.terse_bucket(bucket(), [AdvertisedAddress("::1", 11210, 8091)], 0)
        self.assertEqual(document["vBucketServerMap"]["serverList"], ["[::1]:11210"])
        self.assertEqual(document["nodes"][0]["hostname"], "[::1]:8091")
        self.assertEqual(document["nodesExt"][0]["hostname"], "::1")

    def test_views_are_announced_only_where_they_are(self) -> None:
        """Without a view engine there is no trace of one; with it, port, base URL, capability and listing."""
        without = json.dumps(config.terse_bucket(bucket(), nodes(), 0))
        for word in ("capi", "couchApiBase", "ddocs"):
            self.assertNotIn(word, without)
        document = config.terse_bucket(bucket(), nodes(views_port=8092), 0)
        self.assertEqual(document["nodesExt"][0]["services"]["capi"], 8092)
        self.assertEqual(document["nodes"][0]["couchApiBase"], f"http://10.0.0.10:8092/default%2B{UUID}")
        self.assertIn("couchapi", document["bucketCapabilities"])
        self.assertEqual(document["ddocs"], {"uri": "/pools/default/buckets/default/ddocs"})
        ephemeral = config.terse_bucket(
            bucket(type="ephemeral", eviction_policy="noEviction"), nodes(views_port=8092), 0
        )
        self.assertNotIn("couchapi", ephemeral["bucketCapabilities"])
        self.assertNotIn("couchApiBase", ephemeral["nodes"][0])

    def test_advertised_host(self) -> None:
        """Unspecified addresses become the placeholder, others are kept."""
        self.assertEqual(
            [config.advertised_host(host) for host in ("0.0.0.0", "::", "127.0.0.1", "::1")],
            ["$HOST", "$HOST", "127.0.0.1", "::1"],
        )


class ClusterConfigTests(SynchronousTestCase):
    """The configuration before a bucket is selected."""

    def test_has_nodes_but_no_name(self) -> None:
        """It has a version and nodesExt; a name or a map would make it a bucket's."""
        document = config.cluster_config((5, 3), nodes(), 2)
        self.assertEqual((document["revEpoch"], document["rev"]), (5, 3))
        self.assertEqual([entry.get("thisNode") for entry in document["nodesExt"]], [None, None, True])
        self.assertFalse({"name", "uuid", "vBucketServerMap", "nodes"} & document.keys())


class VerboseTests(SynchronousTestCase):
    """A bucket in the REST interface."""

    def test_fields_whose_absence_kills_the_official_client(self) -> None:
        """All of them are present, for the bucket and for each of its nodes."""
        document = config.verbose_bucket(bucket(), reports(), 0, {"itemCount": 3})
        required = {"name", "uuid", "bucketType", "replicaNumber", "quota", "controllers", "nodes"}
        self.assertLessEqual(required | {"evictionPolicy", "conflictResolutionType"}, document.keys())
        for node in document["nodes"]:
            self.assertLessEqual({"hostname", "status", "version", "services", "ports"}, node.keys())
            self.assertEqual(node["serverGroup"], "Group 1")

    def test_values(self) -> None:
        """Type, quota, statistics and map say what the definition says."""
        document = config.verbose_bucket(bucket(quota_bytes=2**28), reports(), 2, {"itemCount": 3})
        self.assertEqual(document["bucketType"], "membase")
        self.assertEqual(document["quota"], {"ram": 3 * 2**28, "rawRAM": 2**28})
        self.assertEqual(document["basicStats"], {"itemCount": 3})
        self.assertEqual([node.get("thisNode") for node in document["nodes"]], [None, None, True])
        self.assertEqual(document["nodes"][0]["ports"], {"direct": 11210})
        self.assertEqual(document["nodes"][0]["uptime"], "60")
        self.assertEqual(len(document["vBucketServerMap"]["vBucketMap"]), 16)
        self.assertEqual(document["stats"]["uri"], "/pools/default/buckets/default/stats")

    def test_flush_controller_says_whether_flush_is_allowed(self) -> None:
        """Clients read "flush enabled" off the presence of its controller."""
        disabled = config.verbose_bucket(bucket(), reports(), 0, {})
        enabled = config.verbose_bucket(bucket(flush_enabled=True), reports(), 0, {})
        self.assertEqual(disabled["controllers"], {})
        self.assertEqual(
            enabled["controllers"], {"flush": "/pools/default/buckets/default/controller/doFlush"}
        )

    def test_ephemeral(self) -> None:
        """An ephemeral bucket says so and names no storage."""
        document = config.verbose_bucket(
            bucket(type="ephemeral", eviction_policy="noEviction"), reports(), 0, {}
        )
        self.assertEqual((document["bucketType"], document["evictionPolicy"]), ("ephemeral", "noEviction"))
        self.assertNotIn("storageBackend", document)

    def test_without_a_disk(self) -> None:
        """Both documents agree on whether there is a disk, for every type of bucket."""
        for state, said in [
            (bucket(), "membase"),
            (bucket()._replace(on_disk=False), "ephemeral"),
            (bucket(type="ephemeral", eviction_policy="noEviction"), "ephemeral"),
        ]:
            self.assertEqual(config.terse_bucket(state, nodes(), 0)["bucketType"], said)
            verbose = config.verbose_bucket(state, reports(), 0, {})
            self.assertEqual(verbose["bucketType"], said)
            self.assertEqual("storageBackend" in verbose, said == "membase")

    def test_all_documents_are_json(self) -> None:
        """Whatever is built can be encoded, and comes back equal as JSON."""
        for document in (
            config.terse_bucket(bucket(), nodes(), 0),
            config.verbose_bucket(bucket(), reports(), 0, {}),
            config.cluster_config((1, 1), nodes(), 0),
            config.pools("u", "v", True),
            config.pool("u", reports(), 0, 3, 2, Disk(100, 60, 40), 7),
        ):
            self.assertEqual(json.loads(config.encode(document)), json.loads(json.dumps(document)))
