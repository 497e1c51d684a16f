"""The cluster: buckets come, change and go; revisions grow; maps move vbuckets without a loss."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.hashing import vbucket_of
from couchnode.cluster import cluster as cluster_module
from couchnode.cluster.cluster import Cluster
from couchnode.cluster.config import AdvertisedAddress
from couchnode.cluster.definition import BucketDefinition, DefinitionError
from couchnode.cluster.layout import LayoutError, spread
from couchnode.cluster.members import FlushDisabled, NoSuchBucket
from couchnode.cluster.metadata import DataDirectory, DataDirectoryError, checksum
from couchnode.data.item import StatusError
from couchnode.data.keys import DEFAULT_PREFIX
from couchnode.data.manifest import ManifestError, WantedCollection
from couchnode.data.storemode import StoreMode
from couchnode.kv.server import KeyValueFactory
from tests.couchnode.nodes import Client

Steps = Generator[Deferred[Any], Any, Any]


def definition(name: str = "beer", **settings: Any) -> BucketDefinition:
    """Return the definition of a small bucket."""
    return BucketDefinition(name, quota_bytes=2**27, **settings)


class ClusterCase(TestCase):
    """A cluster without ports, on a real directory or in memory."""

    timeout = 120

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.opened: list[tuple[Cluster, DataDirectory | None]] = []

    @inlineCallbacks
    def tearDown(self) -> Steps:
        for cluster, directory in self.opened:
            yield self.close(cluster, directory)

    @inlineCallbacks
    def open(self, nodes: int = 1, *, persistent: bool = True) -> Steps:
        """Open the test's directory, or a cluster in memory."""
        directory = DataDirectory(self.path) if persistent else None
        cluster = Cluster(nodes, clock=reactor, directory=directory)
        self.opened.append((cluster, directory))
        for node in cluster.nodes:
            node.address = AdvertisedAddress("127.0.0.1", 11210 + node.index, 8091 + node.index)
        data = directory.load() if directory is not None else None
        if data is not None:
            cluster.restore(data)
        yield cluster.start()
        return cluster

    @inlineCallbacks
    def close(self, cluster: Cluster, directory: DataDirectory | None) -> Steps:
        """Stop a cluster and let go of its directory."""
        yield cluster.stop()
        if directory is not None:
            directory.close()

    @inlineCallbacks
    def reopen(self, nodes: int = 1) -> Steps:
        """Close what is open and open the directory again."""
        for opened in self.opened:
            yield self.close(*opened)
        self.opened.clear()
        cluster = yield self.open(nodes)
        return cluster

    def store(self, cluster: Cluster, key: bytes, value: bytes, bucket: str = "beer") -> None:
        """Store a document where its vbucket is active."""
        vbid = vbucket_of(key, 1024)
        node = cluster.nodes[cluster.bucket(bucket).rows[vbid][0]]
        node.buckets[bucket].vbuckets[vbid].store(StoreMode.SET, DEFAULT_PREFIX + key, value)

    def read(self, cluster: Cluster, key: bytes, bucket: str = "beer") -> bytes | None:
        """Read a document where its vbucket is active."""
        vbid = vbucket_of(key, 1024)
        node = cluster.nodes[cluster.bucket(bucket).rows[vbid][0]]
        item = node.buckets[bucket].vbuckets[vbid].get(DEFAULT_PREFIX + key)
        return None if item is None else item.value

    def copies(self, cluster: Cluster) -> int:
        """Count the documents of all vbuckets on all nodes, including replicas."""
        parts = [node.buckets["beer"] for node in cluster.nodes]
        return sum(len(vbucket.items) for part in parts for vbucket in part.vbuckets if vbucket is not None)


class BucketTests(ClusterCase):
    """Creating, editing, flushing and deleting buckets."""

    @inlineCallbacks
    def test_everything_is_there_after_a_restart(self) -> Steps:
        """Definition, uuid, map, users and documents survive; the revision has grown."""
        cluster = yield self.open(2)
        yield cluster.create_bucket(definition(replica_number=1, flush_enabled=True), "pw")
        self.store(cluster, b"k", b"v")
        before = cluster.bucket("beer")
        uuid, cluster_uuid = before.uuid, cluster.uuid
        again = yield self.reopen(2)
        after = again.bucket("beer")
        self.assertEqual((after.uuid, again.uuid), (uuid, cluster_uuid))
        self.assertEqual((after.definition, after.rows), (before.definition, before.rows))
        self.assertGreater(after.revision, before.revision)
        self.assertGreater(again.config_revision(None), cluster.config_revision(None))
        self.assertTrue((yield again.users.verify("beer", "pw")))
        self.assertEqual(self.read(again, b"k"), b"v")

    @inlineCallbacks
    def test_names_and_limits(self) -> Steps:
        """A name that is taken, in any case, or a user's, is refused; so is one bucket too many."""
        cluster = yield self.open(persistent=False)
        yield cluster.users.add("ann", "x", admin=True)
        yield cluster.create_bucket(definition())
        for name, password, field, text in [
            ("beer", None, "name", "already exists"),
            ("BEER", None, "name", "already exists"),
            ("ann", "pw", "name", "there is a user 'ann' already"),
            ("bad name", None, "name", "can only contain"),
        ]:
            error = yield self.assertFailure(
                cluster.create_bucket(definition(name), password), DefinitionError
            )
            self.assertIn(text, error.errors[field])
        self.patch(cluster_module, "MAX_BUCKETS", 1)
        error = yield self.assertFailure(cluster.create_bucket(definition("wine")), DefinitionError)
        self.assertIn("Cannot create more than 1 buckets", error.errors["_"])
        self.assertEqual(list(cluster.buckets), ["beer"])
        self.assertEqual(list(cluster.nodes[0].buckets), ["beer"])

    @inlineCallbacks
    def test_deleting_removes_files_and_user(self) -> Steps:
        """A deleted bucket leaves no files and no login; a new one of its name is empty, newer, and has
        another uuid."""
        cluster = yield self.open()
        yield cluster.create_bucket(definition(), "pw")
        self.store(cluster, b"k", b"v")
        first = cluster.bucket("beer")
        yield cluster.delete_bucket("beer")
        self.assertEqual(list(self.path.glob("node0/*")), [])
        self.assertFalse((yield cluster.users.verify("beer", "pw")))
        self.assertNotIn("beer", json.loads((self.path / "cluster.json").read_text())["buckets"])
        yield self.assertFailure(cluster.delete_bucket("beer"), NoSuchBucket)
        yield cluster.create_bucket(definition())
        second = cluster.bucket("beer")
        self.assertNotEqual(second.uuid, first.uuid)
        self.assertGreater(second.revision, first.revision)
        self.assertIsNone(self.read(cluster, b"k"))

    @inlineCallbacks
    def test_files_of_an_interrupted_deletion_are_not_revived(self) -> Steps:
        """A bucket made under the name of one whose files stayed behind starts empty."""
        cluster = yield self.open()
        yield cluster.create_bucket(definition())
        self.store(cluster, b"k", b"old")
        yield cluster.stop()
        left = {path.name: path.read_bytes() for path in self.path.glob("node0/beer.sqlite*")}
        self.assertIn("beer.sqlite", left)
        cluster = yield self.reopen()
        yield cluster.delete_bucket("beer")
        for name, content in left.items():
            (self.path / "node0" / name).write_bytes(content)
        yield cluster.create_bucket(definition())
        self.assertIsNone(self.read(cluster, b"k"))

    @inlineCallbacks
    def test_flush(self) -> Steps:
        """Flushing needs to be enabled; it empties all nodes and keeps the uuid."""
        cluster = yield self.open(2, persistent=False)
        yield cluster.create_bucket(definition())
        uuid = cluster.bucket("beer").uuid
        for i in range(50):
            self.store(cluster, b"k%d" % i, b"v")
        yield self.assertFailure(cluster.flush_bucket("beer"), FlushDisabled)
        self.assertEqual(cluster.reports.basic_stats("beer")["itemCount"], 50)
        yield cluster.edit_bucket("beer", lambda current: current._replace(flush_enabled=True))
        yield cluster.flush_bucket("beer")
        self.assertEqual(cluster.reports.basic_stats("beer")["itemCount"], 0)
        self.assertEqual(cluster.bucket("beer").uuid, uuid)
        yield self.assertFailure(cluster.flush_bucket("wine"), NoSuchBucket)

    @inlineCallbacks
    def test_a_new_quota_counts_at_once(self) -> Steps:
        """After an edit the old memory limit no longer refuses what the new one allows."""
        cluster = yield self.open(persistent=False)
        yield cluster.create_bucket(definition()._replace(quota_bytes=2**20))
        self.assertRaises(StatusError, self.store, cluster, b"k", bytes(2**21))
        yield cluster.edit_bucket("beer", lambda current: current._replace(quota_bytes=2**27))
        self.store(cluster, b"k", bytes(2**21))

    @inlineCallbacks
    def test_more_replicas_are_filled(self) -> Steps:
        """A bucket edited from no replica to one has every document twice."""
        cluster = yield self.open(2, persistent=False)
        yield cluster.create_bucket(definition())
        for i in range(20):
            self.store(cluster, b"k%d" % i, b"v%d" % i)
        yield cluster.edit_bucket("beer", lambda current: current._replace(replica_number=1))
        yield eventually(lambda: self.copies(cluster) == 40)
        self.assertEqual(cluster.reports.basic_stats("beer")["itemCount"], 20)

    @inlineCallbacks
    def test_a_bucket_that_was_refused_can_be_made_later(self) -> Steps:
        """If the files of an earlier bucket cannot be removed, no user of the new one is left behind."""
        cluster = yield self.open()
        placement = cluster._placement
        with_fault = self.patch(placement, "remove_files", lambda name: fail(DataDirectoryError("no way")))
        yield self.assertFailure(cluster.create_bucket(definition(), "pw"), DataDirectoryError)
        self.assertNotIn("beer", cluster.users)
        with_fault.restore()
        yield cluster.create_bucket(definition(), "pw")
        self.assertTrue((yield cluster.users.verify("beer", "pw")))

    @inlineCallbacks
    def test_a_disk_that_refuses_changes_nothing(self) -> Steps:
        """If metadata cannot be written, a change fails and the previous state remains."""
        cluster = yield self.open()
        yield cluster.create_bucket(definition(), "pw")
        self.store(cluster, b"k", b"v")
        revision = cluster.config_revision("beer")

        def refuse(data: Any) -> None:
            raise DataDirectoryError("no space")

        save = cluster._directory.save
        self.patch(cluster._directory, "save", refuse)
        for change in (
            cluster.delete_bucket("beer"),
            cluster.create_bucket(definition("wine"), "pw"),
            cluster.edit_bucket("beer", lambda current: current._replace(flush_enabled=True)),
            cluster.change_manifest("beer", lambda current: current.with_scope("s")),
            cluster.change_manifest("beer", lambda now: now.without_collection("_default", "_default")),
        ):
            yield self.assertFailure(change, DataDirectoryError)
        self.patch(cluster._directory, "save", save)
        self.assertEqual(list(cluster.buckets), ["beer"])
        self.assertEqual(self.read(cluster, b"k"), b"v")
        self.assertFalse(cluster.bucket("beer").definition.flush_enabled)
        self.assertEqual(cluster.bucket("beer").manifest.uid, 0)
        self.assertTrue(cluster.users.may_use("beer", "beer"))
        self.assertEqual(cluster.config_revision("beer"), revision)
        self.assertTrue((yield cluster.users.verify("beer", "pw")))
        self.assertNotIn("wine", cluster.users)

    @inlineCallbacks
    def test_scopes_and_collections(self) -> Steps:
        """A change of them is on disk and in effect on every node when it is answered. Simultaneous changes
        are made one after another, from the result of the one before, and a restart has them all."""
        cluster = yield self.open(2)
        yield cluster.create_bucket(definition(), "pw")
        revision = cluster.config_revision("beer")
        changes = [
            cluster.change_manifest("beer", lambda now, name=name: now.with_collection("_default", name))
            for name in ("a", "b", "c")
        ]
        manifests = yield gatherResults(changes)
        self.assertEqual([manifest.uid for manifest in manifests], [1, 2, 3])
        kept = json.loads((self.path / "cluster.json").read_bytes())["buckets"]["beer"]["manifest"]
        self.assertEqual(kept, json.loads(json.dumps(manifests[2].dump())))
        for node in cluster.nodes:
            self.assertIs(node.buckets["beer"].collections.manifest, manifests[2])
        self.assertGreater(cluster.config_revision("beer"), revision)
        same = yield cluster.change_manifest("beer", lambda now: now.with_settings("_default", "a", 0))
        self.assertIs(same, manifests[2])
        failing = cluster.change_manifest("beer", lambda now: now.with_collection("_default", "a"))
        yield self.assertFailure(failing, ManifestError)
        yield self.assertFailure(cluster.change_manifest("wine", lambda now: now), NoSuchBucket)
        cluster = yield self.reopen(2)
        self.assertEqual(cluster.bucket("beer").manifest.dump(), manifests[2].dump())
        self.assertEqual(set(cluster.nodes[1].buckets["beer"].collections.by_id), {0, 8, 9, 10})

    @inlineCallbacks
    def test_limits_of_all_buckets(self) -> Steps:
        """The numbers of scopes and of collections are limited over all buckets together."""
        cluster = yield self.open()
        for name in ("beer", "wine"):
            yield cluster.create_bucket(definition(name), "pw")
        names = [WantedCollection(f"c{number}") for number in range(1198)]
        everything = {"_default": [WantedCollection("_default"), *names]}
        yield cluster.change_manifest("beer", lambda now: now.replaced(everything))
        failing = cluster.change_manifest("wine", lambda now: now.with_collection("_default", "c"))
        fault = yield self.assertFailure(failing, ManifestError)
        self.assertEqual(str(fault), "Maximum number of collections has been reached")
        yield cluster.change_manifest("beer", lambda now: now.without_collection("_default", "c7"))
        yield cluster.change_manifest("wine", lambda now: now.with_collection("_default", "c"))

    @inlineCallbacks
    def test_another_number_of_nodes_is_refused(self) -> Steps:
        """A directory of two nodes is not opened with one; the message says what to do."""
        yield self.open(2)
        yield self.reopen(2)
        for opened in self.opened:
            yield self.close(*opened)
        self.opened.clear()
        error = yield self.assertFailure(self.open(1), DataDirectoryError)
        self.assertIn(
            f"{self.path.absolute()} was made with 2 node(s), not 1: start it with --nodes 2", str(error)
        )

    @inlineCallbacks
    def test_damaged_metadata_is_refused(self) -> Steps:
        """A cluster.json with a hole in it is named and left alone."""
        cluster = yield self.open()
        yield cluster.create_bucket(definition())
        for opened in self.opened:
            yield self.close(*opened)
        self.opened.clear()
        file = self.path / "cluster.json"
        data = json.loads(file.read_text())
        data["buckets"]["beer"]["rows"][5] = [9]
        del data["checksum"]
        data["checksum"] = checksum(data)
        file.write_text(json.dumps(data))
        error = yield self.assertFailure(self.open(1), DataDirectoryError)
        self.assertIn("damaged cluster.json", str(error))
        self.assertIn("vbucket 5: there is no node 9", str(error))


class RightsTests(ClusterCase):
    """Access of users to buckets."""

    @inlineCallbacks
    def test_open_bucket(self) -> Steps:
        """Only ``default``, and only without a password, is open to those without credentials."""
        cluster = yield self.open(persistent=False)
        yield cluster.create_bucket(definition("beer"), "")
        self.assertIsNone(cluster.unauthenticated_bucket)
        self.assertFalse(bool(cluster.rights(None).on_bucket("beer")))
        yield cluster.create_bucket(definition("default"), "")
        self.assertEqual(cluster.unauthenticated_bucket, "default")
        self.assertTrue(bool(cluster.rights(None).on_bucket("default")))
        self.assertTrue(bool(cluster.rights("beer").on_bucket("beer")))
        yield cluster.set_bucket_password("default", "pw")
        self.assertIsNone(cluster.unauthenticated_bucket)
        self.assertFalse(bool(cluster.rights(None).on_bucket("default")))
        self.assertFalse(bool(cluster.rights("beer").on_bucket("default")))

    @inlineCallbacks
    def test_new_bucket_password_survives(self) -> Steps:
        """A bucket's changed password, and that it is not open any more, are on disk."""
        cluster = yield self.open()
        yield cluster.create_bucket(definition("default"), "")
        yield cluster.set_bucket_password("default", "pw")
        cluster = yield self.reopen()
        self.assertIsNone(cluster.unauthenticated_bucket)
        self.assertTrue((yield cluster.users.verify("default", "pw")))
        self.assertFalse((yield cluster.users.verify("default", "")))


class ConfigTests(ClusterCase):
    """Configurations sent to clients."""

    @inlineCallbacks
    def test_bytes_are_kept_until_something_changes(self) -> Steps:
        """The same object is given out until a change, and then a newer document, to each node its own."""
        cluster = yield self.open(2, persistent=False)
        yield cluster.create_bucket(definition())
        first, second = cluster.nodes
        before = cluster.config_bytes("beer", first)
        self.assertIs(cluster.config_bytes("beer", first), before)
        self.assertNotEqual(cluster.config_bytes("beer", second), before)
        heard: list[tuple[str, int]] = []
        cluster.on_config_change.append(
            lambda name: heard.append((name, json.loads(cluster.config_bytes(name, first))["rev"]))
        )
        yield cluster.edit_bucket("beer", lambda current: current._replace(replica_number=1))
        after = json.loads(cluster.config_bytes("beer", first))
        self.assertGreater(after["rev"], json.loads(before)["rev"])
        self.assertEqual(after["vBucketServerMap"]["numReplicas"], 1)
        self.assertEqual(heard, [("beer", after["rev"])])

    @inlineCallbacks
    def test_a_broken_listener_does_not_silence_others(self) -> Steps:
        """A listener that raises is logged; the next one is notified nevertheless."""
        cluster = yield self.open(persistent=False)
        heard: list[str] = []
        cluster.on_config_change[:] = [lambda name: 1 / 0, heard.append]
        yield cluster.create_bucket(definition())
        self.assertEqual(heard, ["beer"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    @inlineCallbacks
    def test_deleted_bucket_has_no_configuration(self) -> Steps:
        """Listeners are notified of a deletion when the bucket is already gone."""
        cluster = yield self.open(persistent=False)
        yield cluster.create_bucket(definition())
        cluster.config_bytes("beer", cluster.nodes[0])
        there: list[bool] = []
        cluster.on_config_change.append(
            lambda name: there.append(name in cluster.buckets or name in cluster.nodes[0].buckets)
        )
        yield cluster.delete_bucket("beer")
        self.assertEqual(there, [False])
        self.assertRaises(NoSuchBucket, cluster.config_bytes, "beer", cluster.nodes[0])
        self.assertRaises(NoSuchBucket, cluster.config_revision, "beer")


class EpochTests(SynchronousTestCase):
    """Clusters that follow each other at one address."""

    def test_a_cluster_made_later_looks_newer(self) -> None:
        """Clients of one that was thrown away adopt the configurations of the next."""
        clock = Clock()
        clock.advance(1_700_000_000)
        earlier = Cluster(1, clock=clock)
        earlier.start()
        clock.advance(1)
        later = Cluster(1, clock=clock)
        later.start()
        self.assertGreater(later.config_revision(None), earlier.config_revision(None))


class MapTests(ClusterCase):
    """Changing which node holds what."""

    @inlineCallbacks
    def test_swapping_active_and_replica_loses_nothing(self) -> Steps:
        """Documents written during the swap exist after it; replication goes in the other direction."""
        cluster = yield self.open(2, persistent=False)
        yield cluster.create_bucket(definition(replica_number=1))
        old = cluster.bucket("beer").rows
        for i in range(200):
            self.store(cluster, b"k%d" % i, b"v%d" % i)
        told: list[Any] = []
        cluster.on_config_change.append(lambda name: told.append(cluster.bucket(name).rows))
        yield eventually(lambda: self.copies(cluster) == 400)
        self.store(cluster, b"late", b"v")
        self.assertEqual(self.copies(cluster), 401)  # the replica has not heard of it yet
        yield cluster.apply_map("beer", [(replica, active) for active, replica in old])
        self.assertEqual(told, [tuple((replica, active) for active, replica in old)])
        for i in range(200):
            self.assertEqual(self.read(cluster, b"k%d" % i), b"v%d" % i)
        self.assertEqual(self.read(cluster, b"late"), b"v")
        self.store(cluster, b"after", b"w")
        vbid = vbucket_of(b"after", 1024)
        former = cluster.nodes[old[vbid][0]].buckets["beer"]
        self.assertEqual(former.vbuckets[vbid].state, "replica")
        yield eventually(lambda: former.vbuckets[vbid].get(b"\0after") is not None)

    @inlineCallbacks
    def test_maps_that_would_lose_documents_are_refused(self) -> Steps:
        """A node without a copy cannot become active; nothing has changed after the refusal."""
        cluster = yield self.open(3, persistent=False)
        yield cluster.create_bucket(definition(replica_number=1))
        rows = cluster.bucket("beer").rows
        revision = cluster.config_revision("beer")
        outsider = ({0, 1, 2} - set(rows[0])).pop()
        for bad, text in [
            ([(outsider, rows[0][0]), *rows[1:]], f"vbucket 0: node {outsider} holds no copy"),
            (rows[:-1], "has 1024 rows"),
            ([(0, 7), *rows[1:]], "there is no node 7"),
        ]:
            error = yield self.assertFailure(cluster.apply_map("beer", bad), LayoutError)
            self.assertIn(text, str(error))
        self.assertEqual(cluster.bucket("beer").rows, rows)
        self.assertEqual(cluster.config_revision("beer"), revision)
        yield self.assertFailure(cluster.apply_map("wine", rows), NoSuchBucket)

    @inlineCallbacks
    def test_a_vbucket_moves_to_a_new_node_in_two_steps(self) -> Steps:
        """Made a replica first, then active, a node takes over with every document; the map is kept."""
        cluster = yield self.open(3)
        yield cluster.create_bucket(definition(replica_number=1))
        key = next(b"k%d" % i for i in range(10**4) if vbucket_of(b"k%d" % i, 1024) == 0)
        self.store(cluster, key, b"v")
        rows = cluster.bucket("beer").rows
        active = rows[0][0]
        outsider = ({0, 1, 2} - set(rows[0])).pop()
        yield cluster.apply_map("beer", [(active, outsider), *rows[1:]])
        yield cluster.apply_map("beer", [(outsider, active), *rows[1:]])
        self.assertEqual(self.read(cluster, key), b"v")
        cluster = yield self.reopen(3)
        self.assertEqual(cluster.bucket("beer").rows[0], (outsider, active))
        self.assertEqual(self.read(cluster, key), b"v")

    @inlineCallbacks
    def test_clients_see_not_my_vbucket_with_the_new_map(self) -> Steps:
        """After a swap the former node refuses with a map of the right one, which then answers."""
        cluster = yield self.open(2, persistent=False)
        yield cluster.create_bucket(definition("default", replica_number=1), "")
        clients = []
        factories = []
        for node in cluster.nodes:
            factory = KeyValueFactory(node)
            factories.append(factory)
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
            clients.append((yield connectProtocol(endpoint, Client())))
        key = b"moving"
        vbid = vbucket_of(key, 1024)
        rows = cluster.bucket("default").rows
        here, there = clients[rows[vbid][0]], clients[rows[vbid][1]]
        stored = yield here.ask(Opcode.SET, key=key, value=b"v", extras=bytes(8), vbucket=vbid)
        self.assertEqual(stored.specific, Status.SUCCESS)
        refused = yield there.ask(Opcode.GET, key=key, vbucket=vbid)
        self.assertEqual(refused.specific, Status.NOT_MY_VBUCKET)
        yield cluster.apply_map("default", [(replica, active) for active, replica in rows])
        refused = yield here.ask(Opcode.GET, key=key, vbucket=vbid)
        self.assertEqual(refused.specific, Status.NOT_MY_VBUCKET)
        document = json.loads(refused.value)
        self.assertEqual(
            tuple(document["vBucketServerMap"]["vBucketMap"][vbid]), (rows[vbid][1], rows[vbid][0])
        )
        self.assertEqual((document["revEpoch"], document["rev"]), cluster.config_revision("default"))
        got = yield there.ask(Opcode.GET, key=key, vbucket=vbid)
        self.assertEqual((got.specific, got.value), (Status.SUCCESS, b"v"))
        for factory in factories:
            factory.close()
        for client in clients:
            if not client.is_lost:
                yield client.lost
        yield eventually(lambda: not any(factory.connections for factory in factories))

    @inlineCallbacks
    def test_a_lost_vbucket_starts_empty(self) -> Steps:
        """A vbucket given up has no home in the map, and may be taken by any node, empty."""
        cluster = yield self.open(2, persistent=False)
        yield cluster.create_bucket(definition())
        rows = spread(2, 0)
        yield cluster.apply_map("beer", [(-1,), *rows[1:]])
        document = json.loads(cluster.config_bytes("beer", cluster.nodes[0]))
        self.assertEqual(document["vBucketServerMap"]["vBucketMap"][0], [-1])
        yield cluster.apply_map("beer", [(1,), *rows[1:]])
        self.assertEqual(cluster.nodes[1].buckets["beer"].vbuckets[0].state, "active")


@inlineCallbacks
def eventually(condition: Any, seconds: float = 10) -> Steps:
    """Wait for something that other reactor turns bring about."""
    deadline = reactor.seconds() + seconds
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError(f"not within {seconds} seconds")
        yield deferLater(reactor, 0.005)
