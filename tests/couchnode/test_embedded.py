"""EmbeddedNode: its state after the start, what survives a stop, and refused starts."""

from __future__ import annotations

import json
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from couchbase.protocol.constants import ObserveState, Opcode, Status
from couchbase.protocol.hashing import vbucket_of
from couchnode.cluster.definition import DefinitionError
from couchnode.cluster.metadata import DataDirectoryError
from couchnode.cluster.passwords import UserError
from couchnode.sample import SampleError
from couchnode.service import EmbeddedNode, StartError
from couchnode.views.service import is_available
from tests.couchnode.nodes import Client

Steps = Generator[Deferred[Any], Any, Any]
ADMIN = ("Administrator", "password")
KEY = b"k"
VBUCKET = vbucket_of(KEY, 1024)


class EmbeddedNodeTests(TestCase):
    """Nodes in this process, on ports of loopback."""

    timeout = 120

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.started: list[EmbeddedNode] = []
        self.clients: list[Client] = []

    @inlineCallbacks
    def tearDown(self) -> Steps:
        for client in self.clients:
            yield self.leave(client)
        for node in self.started:
            yield node.stop()

    @inlineCallbacks
    def start(self, *args: Any, **kwargs: Any) -> Steps:
        """Start a node; it is stopped after the test."""
        node = EmbeddedNode(*args, **kwargs)
        self.started.append(node)
        yield node.start()
        return node

    @inlineCallbacks
    def connect(self, port: int) -> Steps:
        """Connect to a key-value port."""
        client = yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Client())
        self.clients.append(client)
        return client

    @inlineCallbacks
    def leave(self, client: Client) -> Steps:
        """Disconnect."""
        if not client.is_lost:
            client.transport.abortConnection()
            yield client.lost

    @inlineCallbacks
    def refusal(self, error: type[Exception], *args: Any, **kwargs: Any) -> Steps:
        """Return the text with which a start fails; nothing remains of the node."""
        fault = yield self.assertFailure(self.start(*args, **kwargs), error)
        return str(fault)

    @inlineCallbacks
    def test_says_where_it_is(self) -> Steps:
        """Ports, URLs and connection string are those that answer; before the start there are none."""
        self.assertRaises(RuntimeError, lambda: EmbeddedNode(None).connection_string)
        node = yield self.start(None, nodes=3, replicas=1)
        self.assertEqual(len(set(node.kv_ports)), 3)
        self.assertEqual(
            node.connection_string, "couchbase://" + ",".join(f"127.0.0.1:{port}" for port in node.kv_ports)
        )
        self.assertEqual(
            node.rest_urls, [f"http://127.0.0.1:{one.address.rest_port}" for one in node.cluster.nodes]
        )
        for port in node.kv_ports:
            client = yield self.connect(port)
            answer = yield client.ask(Opcode.GET_CLUSTER_CONFIG)
            document = json.loads(answer.value)
            self.assertEqual(document["name"], "default")
            self.assertEqual(
                document["vBucketServerMap"]["serverList"], [f"127.0.0.1:{port}" for port in node.kv_ports]
            )

    @inlineCallbacks
    def test_documents_survive_a_stop(self) -> Steps:
        """Acknowledged writes, with or without durability, exist when the directory is opened again."""
        node = yield self.start(self.path, nodes=2, replicas=1)
        port = node.kv_ports[node.cluster.bucket("default").rows[VBUCKET][0]]
        client = yield self.connect(port)
        stored = yield client.ask(Opcode.SET, key=KEY, value=b"v", extras=bytes(8), vbucket=VBUCKET)
        self.assertEqual(stored.specific, Status.SUCCESS)
        yield node.stop()
        yield client.lost
        again = yield self.start(self.path)  # as many nodes as there were
        self.assertEqual(len(again.kv_ports), 2)
        client = yield self.connect(again.kv_ports[again.cluster.bucket("default").rows[VBUCKET][0]])
        got = yield client.ask(Opcode.GET, key=KEY, vbucket=VBUCKET)
        self.assertEqual((got.specific, got.value, got.cas), (Status.SUCCESS, b"v", stored.cas))

    @inlineCallbacks
    def test_says_whether_there_is_a_disk(self) -> Steps:
        """Map, statistics, durability and OBSERVE agree on whether documents reach a disk."""
        for place, kind, stat in [(self.path, "membase", b"persistent"), (None, "ephemeral", b"ephemeral")]:
            node = yield self.start(place, users=[("root", "s3cret")])
            client = yield self.connect(node.kv_ports[0])
            yield client.plain("root", "s3cret")
            yield client.ask(Opcode.SELECT_BUCKET, key=b"default")
            answer = yield client.ask(Opcode.GET_CLUSTER_CONFIG)
            self.assertEqual(json.loads(answer.value)["bucketType"], kind)
            answer = yield client.ask(Opcode.STAT)
            told = {}
            while answer.key:
                told[answer.key] = answer.value
                answer = yield client.next_answer()
            self.assertEqual(told[b"ep_bucket_type"], stat)
            yield client.ask(Opcode.SET, key=KEY, value=b"v", extras=bytes(8), vbucket=VBUCKET)
            answer = yield client.ask(
                Opcode.SEQNO_PERSISTENCE, extras=(1).to_bytes(8, "big"), vbucket=VBUCKET
            )
            expected = Status.SUCCESS if place else Status.NOT_SUPPORTED
            self.assertEqual(answer.specific, expected)
            observed = VBUCKET.to_bytes(2, "big") + len(KEY).to_bytes(2, "big") + KEY
            answer = yield client.ask(Opcode.OBSERVE, value=observed)
            state = ObserveState.PERSISTED if place else ObserveState.FOUND
            self.assertEqual(answer.value[len(observed)], state)
            yield node.stop()

    @inlineCallbacks
    def test_can_be_started_again(self) -> Steps:
        """After a stop the same object starts again; stopping twice, or before any start, is harmless."""
        node = EmbeddedNode(self.path)
        yield node.stop()
        for _ in range(2):
            yield node.start()
            yield node.stop()
            yield node.stop()

    @inlineCallbacks
    def test_starting_once_is_enough(self) -> Steps:
        """All callers that wait for a start are notified, also for a service, and after it is done."""
        node = EmbeddedNode(None)
        self.started.append(node)
        node.startService()
        first, second = node.start(), node.start()
        yield first
        yield second
        yield node.start()
        self.assertTrue(node.running)
        yield node.stopService()
        self.assertFalse(node.running)

    @inlineCallbacks
    def test_stop_while_starting(self) -> Steps:
        """A stop that comes during a start waits for it and leaves nothing open."""
        node = EmbeddedNode(self.path)
        starting = node.start()
        yield node.stop()
        yield starting
        again = yield self.start(self.path)
        self.assertTrue(again.kv_ports)

    @inlineCallbacks
    def test_users(self) -> Steps:
        """Administrators are those given; new passwords count, and former administrators are gone."""
        node = yield self.start(self.path, users=[ADMIN, ("second", "pw")])
        yield node.stop()
        node = yield self.start(self.path)
        self.assertTrue((yield node.cluster.users.verify(*ADMIN)))
        yield node.stop()
        node = yield self.start(self.path, users=[("Administrator", "new")])
        users = node.cluster.users
        self.assertFalse((yield users.verify(*ADMIN)))
        self.assertTrue((yield users.verify("Administrator", "new")))
        self.assertTrue(users.is_admin("Administrator"))
        self.assertNotIn("second", users)

    @inlineCallbacks
    def test_buckets(self) -> Steps:
        """Named buckets are made; existing ones keep settings and password unless given a new one."""
        node = yield self.start(self.path, buckets=[("a", "pw"), ("b", None)], replicas=1, quota_bytes=2**27)
        self.assertEqual(sorted(node.cluster.buckets), ["a", "b"])
        uuid = node.cluster.bucket("a").uuid
        yield node.stop()
        node = yield self.start(self.path, buckets=[("a", None), ("b", "pw2"), ("c", None)])
        cluster = node.cluster
        self.assertEqual(sorted(cluster.buckets), ["a", "b", "c"])
        self.assertEqual(cluster.bucket("a").uuid, uuid)
        self.assertEqual(cluster.bucket("a").definition.replica_number, 1)
        self.assertEqual(cluster.bucket("a").definition.quota_bytes, 2**27)
        self.assertTrue((yield cluster.users.verify("a", "pw")))
        self.assertFalse((yield cluster.users.verify("a", "")))
        self.assertTrue((yield cluster.users.verify("b", "pw2")))
        self.assertFalse((yield cluster.users.verify("b", "")))
        self.assertTrue((yield cluster.users.verify("c", "")))

    @inlineCallbacks
    def test_refusals(self) -> Steps:
        """Each reason for a refused start is reported, and the directory remains usable."""
        yield self.start(None)
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = yield self.refusal(StartError, self.path, rest_port=port)
        self.assertIn(f"--rest-port: cannot listen on 127.0.0.1:{port}", text)
        text = yield self.refusal(StartError, self.path, kv_port=port)
        self.assertIn(f"--kv-port: cannot listen on 127.0.0.1:{port}", text)
        text = yield self.refusal(StartError, self.path, kv_port=port, option_prefix="--node-")
        self.assertIn(f"--node-kv-port: cannot listen on 127.0.0.1:{port}", text)
        text = yield self.refusal(DefinitionError, self.path, buckets=[("no good", None)])
        self.assertIn("can only contain", text)
        text = yield self.refusal(UserError, self.path, users=[("root", "")])
        self.assertIn("needs a password", text)
        text = yield self.refusal(SampleError, self.path, sample=self.path / "missing.jsonl")
        self.assertIn("missing.jsonl cannot be read", text)
        first = yield self.start(self.path, buckets=[("beer", "pw")])
        text = yield self.refusal(DataDirectoryError, self.path)
        self.assertIn("in use by another process", text)
        yield first.stop()
        text = yield self.refusal(StartError, self.path, users=[("beer", "x")])
        self.assertIn("'beer' cannot be an administrator", text)
        text = yield self.refusal(DataDirectoryError, self.path, nodes=2)
        self.assertIn("--nodes 1", text)

    @inlineCallbacks
    def test_ports_in_a_row(self) -> Steps:
        """Given a first port, node i listens on that port + i."""
        for _ in range(20):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                first = probe.getsockname()[1]
            try:
                node = yield self.start(None, nodes=2, kv_port=first)
            except StartError:
                continue  # another program has the next port
            self.assertEqual(node.kv_ports, [first, first + 1])
            return
        raise AssertionError("no two ports in a row are free")

    @inlineCallbacks
    def test_port_of_views(self) -> Steps:
        """Views may have a port of their own, which configurations name; otherwise theirs is that of REST."""
        if not is_available():
            raise SkipTest("no view engine")
        for views_port in (0, None):
            node = yield self.start(None, views_port=views_port)
            address = node.cluster.nodes[0].address
            self.assertEqual(address.views_port == address.rest_port, views_port is None)
            config = json.loads(node.cluster.config_bytes("default", node.cluster.nodes[0]))
            self.assertEqual(config["nodesExt"][0]["services"]["capi"], address.views_port)
            self.assertIn(f":{address.views_port}/default", config["nodes"][0]["couchApiBase"])
            url = f"http://127.0.0.1:{address.views_port}/pools"
            answer = yield deferToThread(urlopen, url, timeout=10)
            self.assertEqual(json.loads(answer.read())["uuid"], node.cluster.uuid)

    @inlineCallbacks
    def test_listening_everywhere(self) -> Steps:
        """A node on 0.0.0.0 gives out $HOST, and says 127.0.0.1 to those on this machine."""
        node = yield self.start(None, host="0.0.0.0", users=[ADMIN])
        self.assertEqual(node.connection_string, f"couchbase://127.0.0.1:{node.kv_ports[0]}")
        document = json.loads(node.cluster.config_bytes("default", node.cluster.nodes[0]))
        self.assertEqual(document["vBucketServerMap"]["serverList"], [f"$HOST:{node.kv_ports[0]}"])
