"""The cluster and its nodes as administration tools and official clients read them; settings of buckets."""

from __future__ import annotations

from urllib.parse import quote

from twisted.internet.defer import inlineCallbacks

from couchnode.cluster.definition import MEBIBYTE
from tests.couchnode.rest.test_api import ADMIN, BUCKETS, RestCase, Steps

POOL = "/pools/default"


class MembershipTests(RestCase):
    """Two nodes and two buckets."""

    nodes = 2
    replicas = 1

    @inlineCallbacks
    def test_nodes(self) -> Steps:
        """/pools/nodes is the pool; each node has the host that it is configured with and its own uuid."""
        answer = yield self.ask("/pools/nodes")
        self.assertEqual(answer.status, 200)
        nodes = answer.json["nodes"]
        hosts = [url.removeprefix("http://") for url in self.node.rest_urls]
        self.assertEqual([node["configuredHostname"] for node in nodes], hosts)
        self.assertEqual(len({node["nodeUUID"] for node in nodes}), 2)
        for node in nodes:
            self.assertRegex(node["nodeUUID"], r"\A[0-9a-f]{32}\Z")
            # The release with two parts after it, as clients read them; 7.6 is the compatible version.
            self.assertRegex(node["version"], r"\A\d+\.\d+\.\d+-\d+-[a-z]+\Z")
            self.assertEqual(node["clusterCompatibility"], 7 * 0x10000 + 6)
        self.assertTrue((yield self.ask("/pools")).json["isEnterprise"])

    @inlineCallbacks
    def test_bucket_names(self) -> Steps:
        """The pool names the buckets that the caller may use, with their uuids."""
        listed = {bucket["name"]: bucket["uuid"] for bucket in (yield self.ask(BUCKETS)).json}
        pool = (yield self.ask(POOL)).json
        self.assertEqual({one["bucketName"]: one["uuid"] for one in pool["bucketNames"]}, listed)
        self.assertEqual(set(listed), {"default", "private"})
        own = (yield self.ask(POOL, auth=("private", "pw"))).json["bucketNames"]
        self.assertEqual(own, [{"bucketName": "private", "uuid": listed["private"]}])

    @inlineCallbacks
    def test_trailing_and_doubled_slashes(self) -> Steps:
        """A path with a slash at its end, or with two in a row, is the same path, for every method."""
        for path in (
            "/pools/",
            f"{POOL}/",
            f"{BUCKETS}/",
            f"{BUCKETS}/default/",
            "//pools//nodes",
            "/pools/nodes/",
        ):
            self.assertEqual((yield self.ask(path)).status, 200, path)
        form = {"name": "made", "ramQuotaMB": "100", "replicaNumber": "0"}
        self.assertEqual((yield self.ask(f"{BUCKETS}/", "POST", form=form)).status, 202)
        self.assertEqual((yield self.ask(f"{BUCKETS}/made/", "DELETE")).status, 200)

    @inlineCallbacks
    def test_one_node(self) -> Steps:
        """A node is found as self and under its name; another name is refused in the server's words."""
        mine = (yield self.ask("/nodes/self", node=1)).json
        self.assertEqual(mine["hostname"], self.node.rest_urls[1].removeprefix("http://"))
        self.assertIn("storageTotals", mine)
        by_name = (yield self.ask(f"/nodes/{quote(mine['otpNode'])}")).json
        self.assertEqual(by_name["nodeUUID"], mine["nodeUUID"])
        unknown = yield self.ask("/nodes/ns_1@elsewhere")
        self.assertEqual((unknown.status, unknown.json), (404, "Node is unknown to this cluster."))

    @inlineCallbacks
    def test_state_of_the_cluster(self) -> Steps:
        """Statuses, tasks and progress say that all nodes are healthy and nothing is being moved."""
        statuses = (yield self.ask("/nodeStatuses")).json
        self.assertEqual([one["status"] for one in statuses.values()], ["healthy"] * 2)
        (task,) = (yield self.ask(f"{POOL}/tasks")).json
        self.assertEqual((task["type"], task["status"]), ("rebalance", "notRunning"))
        self.assertEqual((yield self.ask(f"{POOL}/rebalanceProgress")).json, {"status": "none"})
        info = (yield self.ask(f"{POOL}/terseClusterInfo")).json
        self.assertEqual((info["isBalanced"], info["clusterCompatVersion"]), (True, "7.6"))
        for path in ("/nodeStatuses", f"{POOL}/tasks", "/nodes/self", f"{POOL}/rebalanceProgress"):
            self.assertIn((yield self.ask(path, auth=("private", "pw"))).status, (401, 403), path)
            self.assertEqual((yield self.ask(path, auth=None)).status, 401, path)


class SettingsTests(RestCase):
    """A bucket's settings over REST: accepted, kept, returned."""

    nodes = 2
    replicas = 1

    @inlineCallbacks
    def make(self, **fields: str) -> Steps:
        """Create bucket ``b`` with these fields, and return its object."""
        form = {"name": "b", "ramQuotaMB": "100", "replicaNumber": "0", **fields}
        made = yield self.ask(BUCKETS, "POST", form=form)
        self.assertEqual((made.status, made.body), (202, b""), made.body)
        self.assertEqual(made.headers["location"], f"{BUCKETS}/b")
        return (yield self.ask(f"{BUCKETS}/b")).json

    @inlineCallbacks
    def test_what_clients_send_by_default(self) -> Steps:
        """The forms that the official clients send for a bucket with default settings are accepted."""
        for form in (
            b"bucketType=couchbase&flushEnabled=0&name=b&ramQuotaMB=100&replicaNumber=0",
            b"bucketType=membase&flushEnabled=0&name=b&ramQuotaMB=100&replicaIndex=1&replicaNumber=1",
            b"name=b&ramQuotaMB=100&bucketType=ephemeral&evictionPolicy=noEviction&compressionMode=passive"
            b"&conflictResolutionType=seqno&durabilityMinLevel=none&maxTTL=0&replicaNumber=1&flushEnabled=1",
        ):
            made = yield self.ask(f"{BUCKETS}/", "POST", form=form)
            self.assertEqual(made.status, 202, made.body)
            yield self.ask(f"{BUCKETS}/b", "DELETE")

    @inlineCallbacks
    def test_settings_come_back(self) -> Steps:
        """Settings are read back as set, and an edit changes only the settings that it names."""
        bucket = yield self.make(
            replicaNumber="1",
            bucketType="ephemeral",
            evictionPolicy="nruEviction",
            maxTTL="60",
            durabilityMinLevel="majority",
            compressionMode="active",
            rank="3",
        )
        wanted = {
            "evictionPolicy": "nruEviction",
            "maxTTL": 60,
            "durabilityMinLevel": "majority",
            "compressionMode": "active",
            "rank": 3,
            "numVBuckets": 1024,
            "conflictResolutionType": "seqno",
            "replicaNumber": 1,
        }
        self.assertEqual({name: bucket[name] for name in wanted}, wanted)
        self.assertNotIn("replicaIndex", bucket)
        edited = yield self.ask(f"{BUCKETS}/b", "POST", form={"maxTTL": "0", "flushEnabled": "1"})
        self.assertEqual((edited.status, edited.body), (200, b""))
        bucket = (yield self.ask(f"{BUCKETS}/b")).json
        self.assertEqual({name: bucket[name] for name in wanted}, {**wanted, "maxTTL": 0})
        refused = yield self.ask(f"{BUCKETS}/b", "POST", form={"replicaNumber": "3"})
        self.assertEqual(refused.status, 400)
        self.assertIn("3 replicas", refused.json["errors"]["durability_min_level"])

    @inlineCallbacks
    def test_settings_are_in_force(self) -> Steps:
        """Each node works with the limits of the bucket, from its creation and after an edit."""
        yield self.make(maxTTL="60", bucketType="ephemeral", evictionPolicy="nruEviction")
        parts = [node.buckets["b"] for node in self.cluster.nodes]
        self.assertEqual(
            [(one.ledger.max_ttl, one.min_level, one.evictor.is_on) for one in parts], [(60, 0, True)] * 2
        )
        form = {"maxTTL": "5", "durabilityMinLevel": "majority", "evictionPolicy": "noEviction"}
        self.assertEqual((yield self.ask(f"{BUCKETS}/b", "POST", form=form)).status, 200)
        self.assertEqual(
            [(one.ledger.max_ttl, one.min_level, one.evictor.is_on) for one in parts], [(5, 1, False)] * 2
        )

    @inlineCallbacks
    def test_fewer_vbuckets(self) -> Steps:
        """A magma bucket may have 128 vbuckets; then its map has as many rows."""
        yield self.make(storageBackend="magma", numVBuckets="128")
        terse = (yield self.ask("/pools/default/b/b")).json
        self.assertEqual(len(terse["vBucketServerMap"]["vBucketMap"]), 128)
        self.assertNotIn("couchapi", terse["bucketCapabilities"])
        self.assertEqual([len(node.buckets["b"].vbuckets) for node in self.cluster.nodes], [128, 128])

    @inlineCallbacks
    def test_only_asking(self) -> Steps:
        """With just_validate nothing is created or changed; the errors are those of the real request."""
        form = {"name": "b", "ramQuotaMB": "100"}
        asked = yield self.ask(f"{BUCKETS}?just_validate=1", "POST", form=form)
        self.assertEqual((asked.status, asked.json), (200, {"errors": {}, "summaries": {}}))
        self.assertNotIn("b", self.cluster.buckets)
        asked = yield self.ask(f"{BUCKETS}/default?just_validate=1", "POST", form={"ramQuotaMB": "300"})
        self.assertEqual((asked.status, asked.json["errors"]), (200, {}))
        self.assertEqual(self.cluster.bucket("default").definition.quota_bytes, 128 * MEBIBYTE)
        asked = yield self.ask(f"{BUCKETS}/default?just_validate=1", "POST", form={"ramQuotaMB": "1"})
        self.assertEqual((asked.status, list(asked.json["errors"])), (400, ["ramQuotaMB"]))
        self.assertEqual((yield self.ask(f"{BUCKETS}/no?just_validate=1", "POST", ADMIN, form)).status, 404)
