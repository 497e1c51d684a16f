"""The driver with nodes that refuse, vanish, move keys or stay silent: scripted nodes."""

import json

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.trial.unittest import SynchronousTestCase, TestCase

from couchbase import exceptions
from couchbase.exceptions import (
    ArgumentError,
    ClientTemporaryFailError,
    NetworkError,
    TemporaryFailError,
    TimeoutError,
)
from couchbase.protocol import operations
from couchbase.protocol.clustermap import NodeAddress
from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.frames import FrameReader, encode_response
from tests.certificates import self_signed
from txcouchbase import cluster as cluster_module
from txcouchbase import link as link_module
from txcouchbase.calls import DeferredCall
from txcouchbase.connection import Connection
from txcouchbase.link import Backlog, Link


class ScriptedNode(Protocol):
    """A node that knows the handshake, and asks its script about everything else."""

    def connectionMade(self):
        self.reader = FrameReader()
        self.factory.connections.append(self)

    def connectionLost(self, reason):
        self.factory.connections.remove(self)

    def dataReceived(self, data):
        for frame in self.reader.feed(data):
            if frame.opcode == Opcode.GET_CLUSTER_CONFIG:
                self.answer(frame, value=self.factory.config())
            elif frame.opcode in (Opcode.HELLO, Opcode.SELECT_BUCKET):
                self.answer(frame)
            else:
                self.factory.seen.append(frame)
                self.factory.script(self, frame)

    def answer(self, frame, status=0, **fields):
        self.transport.write(encode_response(frame.opcode, status, opaque=frame.opaque, **fields))


class Node(Factory):
    """Listens on a free port; ``script(protocol, frame)`` answers operations."""

    protocol = ScriptedNode
    tls = False

    def __init__(self):
        self.connections = []
        self.seen = []
        self.rev = 1
        self.cluster = [self]
        self.rows = [[0]]

    def script(self, protocol, frame):
        protocol.answer(frame, extras=bytes(4) if frame.opcode == Opcode.GET else b"", cas=1, value=b"1")

    def config(self):
        service = "kvSSL" if self.tls else "kv"
        nodes = [{"hostname": "127.0.0.1", "services": {service: node.port}} for node in self.cluster]
        servers = [f"127.0.0.1:{node.port}" for node in self.cluster]
        server_map = {"numReplicas": 0, "serverList": servers, "vBucketMap": self.rows}
        return json.dumps(
            {"rev": self.rev, "name": "b", "nodesExt": nodes, "vBucketServerMap": server_map}
        ).encode()

    @inlineCallbacks
    def listen(self):
        self.listening = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self)
        self.port = self.listening.getHost().port

    @inlineCallbacks
    def stop(self):
        yield self.listening.stopListening()
        for connection in list(self.connections):
            connection.transport.abortConnection()
        # The clients' ends learn of it in the next turns.
        while self.connections:
            yield task.deferLater(reactor, 0)


class FaultTests(TestCase):
    """One or two scripted nodes over loopback."""

    @inlineCallbacks
    def setUp(self):
        self.first, self.second = Node(), Node()
        for node in (self.first, self.second):
            yield node.listen()
            self.addCleanup(node.stop)
        self.connection = Connection(bucket="b", connection_string=f"couchbase://127.0.0.1:{self.first.port}")
        self.addCleanup(self.connection._close)
        yield self.connection.connect()

    @inlineCallbacks
    def test_temporary_failures_are_repeated(self):
        """The third attempt succeeds; what came later for the key waits behind, in order."""
        refusals = [Status.ETMPFAIL, Status.EBUSY]

        def script(protocol, frame):
            status = refusals.pop(0) if refusals and frame.value != b"2" else 0
            protocol.answer(frame, status, cas=1)

        self.first.script = script
        order = []
        first = self.connection.set("k", 1).addCallback(lambda _: order.append("first"))
        while not self.first.seen:
            yield task.deferLater(reactor, 0)
        while self.connection._client._parked == {} and not order:
            yield task.deferLater(reactor, 0)
        second = self.connection.set("k", 2).addCallback(lambda _: order.append("second"))
        yield first
        yield second
        self.assertEqual(order, ["first", "second"])
        self.assertEqual([frame.value for frame in self.first.seen], [b"1", b"1", b"1", b"2"])
        self.assertEqual(self.connection._client._parked, {})

    @inlineCallbacks
    def test_temporary_failure_until_the_end(self):
        """When time runs out the temporary failure itself is raised, and is not ambiguous."""
        self.first.script = lambda protocol, frame: protocol.answer(frame, Status.ETMPFAIL)
        self.connection.timeout = 0.05
        error = yield self.assertFailure(self.connection.set("k", 1), TemporaryFailError)
        self.assertFalse(error.ambiguous)
        self.assertEqual(self.connection._client._parked, {})

    @inlineCallbacks
    def test_silence(self):
        """No answer is a TimeoutError, ambiguous for a mutation only; a late answer is ignored."""
        held = []
        self.first.script = lambda protocol, frame: held.append((protocol, frame))
        self.connection.timeout = 0.05
        error = yield self.assertFailure(self.connection.set("k", 1), TimeoutError)
        self.assertTrue(error.ambiguous)
        error = yield self.assertFailure(self.connection.get("k"), TimeoutError)
        self.assertFalse(error.ambiguous)
        for protocol, frame in held:
            protocol.answer(frame, extras=b"", cas=1)
        self.first.script = Node.script.__get__(self.first)
        self.connection.timeout = 2.5
        self.assertEqual((yield self.connection.get("k")).value, 1)

    @inlineCallbacks
    def test_lost_node(self):
        """In-flight operations fail, mutations as ambiguous; later ones go over a new connection."""
        self.first.script = lambda protocol, frame: protocol.transport.abortConnection()
        store, read = self.connection.set("k", 1), self.connection.get("k")
        error = yield self.assertFailure(store, NetworkError)
        self.assertTrue(error.ambiguous)
        self.assertIn("may or may not", error.message)
        error = yield self.assertFailure(read, NetworkError)
        self.assertFalse(error.ambiguous)
        self.first.script = Node.script.__get__(self.first)
        self.assertEqual((yield self.connection.get("k")).value, 1)

    def move(self):
        """Give every key to the second node."""
        for node in (self.first, self.second):
            node.rev, node.cluster, node.rows = 2, [self.first, self.second], [[1]]

    @inlineCallbacks
    def test_not_my_vbucket_with_a_map(self):
        """The operation goes to the new owner at once, by the map in the answer's body."""

        def script(protocol, frame):
            self.move()
            protocol.answer(frame, Status.NOT_MY_VBUCKET, value=self.first.config())

        self.first.script = script
        stored = yield self.connection.set("k", 1)
        self.assertTrue(stored.success)
        self.assertEqual((len(self.first.seen), len(self.second.seen)), (1, 1))

    @inlineCallbacks
    def test_not_my_vbucket_without_a_map(self):
        """The map is fetched, and no operation is lost."""

        def script(protocol, frame):
            self.move()
            protocol.answer(frame, Status.NOT_MY_VBUCKET)

        self.first.script = script
        results = yield self.connection.set_multi({f"k{i}": i for i in range(20)})
        self.assertTrue(results.all_ok)
        self.assertEqual(len(self.second.seen), 20)

    @inlineCallbacks
    def test_older_map_is_ignored(self):
        """A map with the same revision changes nothing, so the node is asked again until time is up."""
        self.first.script = lambda protocol, frame: protocol.answer(
            frame, Status.NOT_MY_VBUCKET, value=self.first.config()
        )
        self.connection.timeout = 0.05
        error = yield self.assertFailure(self.connection.get("k"), TimeoutError)
        self.assertEqual(error.rc, exceptions.ETIMEDOUT)

    @inlineCallbacks
    def test_garbage(self):
        """Bytes that are no frame end the connection, not the client."""
        self.first.script = lambda protocol, frame: protocol.transport.write(
            b"HTTP/1.1 400 Bad Request\r\n\r\n"
        )
        yield self.assertFailure(self.connection.get("k"), NetworkError)
        self.first.script = Node.script.__get__(self.first)
        self.assertEqual((yield self.connection.get("k")).value, 1)
        self.flushLoggedErrors()

    @inlineCallbacks
    def test_silence_about_statistics_and_copies(self):
        """Nodes that do not answer cause a TimeoutError and leave no listener behind."""
        self.first.script = lambda protocol, frame: None
        self.connection.timeout = 0.05
        yield self.assertFailure(self.connection.stats(), TimeoutError)
        (link,) = self.connection._client.peers.values()
        self.assertEqual(link.protocol.conversation._questions, {})
        self.patch(cluster_module, "HOST_TIMEOUT_SECONDS", 0.05)
        yield self.assertFailure(self.connection.observe("k"), NetworkError)
        self.assertEqual(link.protocol.conversation._questions, {})

    @inlineCallbacks
    def test_after_a_failed_connect(self):
        """Later operations fail at once with what ended the connecting."""
        connection = Connection(bucket="b", connection_string="couchbase://127.0.0.1:1")
        yield self.assertFailure(connection.connect(), NetworkError)
        error = self.failureResultOf(connection.get("k"), NetworkError).value
        self.assertEqual(error.key, "k")
        connection._close()

    @inlineCallbacks
    def test_one_write_a_turn(self):
        """Operations of one reactor turn leave in one write."""
        (connection,) = self.connection._client.peers.values()
        writes = []
        write = connection.protocol._write
        self.patch(connection.protocol, "_write", lambda data: writes.append(data) or write(data))
        yield self.connection.get_multi([f"k{i}" for i in range(100)])
        self.assertEqual(len(writes), 1)


class TLSTests(TestCase):
    """``couchbases://``: the certificate is verified, against a file or against an unusable one."""

    @inlineCallbacks
    def setUp(self):
        self.certificate = PrivateCertificate.loadPEM(self_signed())
        self.node = Node()
        self.node.tls = True
        context = self.certificate.options()
        self.node.listening = yield SSL4ServerEndpoint(reactor, 0, context, interface="127.0.0.1").listen(
            self.node
        )
        self.node.port = self.node.listening.getHost().port
        self.addCleanup(self.node.stop)
        self.certpath = self.mktemp()
        with open(self.certpath, "wb") as file:
            file.write(self.certificate.dumpPEM())

    def open(self, **options):
        address = f"couchbases://127.0.0.1:{self.node.port}"
        connection = Connection(bucket="b", connection_string=address, **options)
        self.addCleanup(connection._close)
        return connection

    @inlineCallbacks
    def test_trusted(self):
        """With the certificate in certpath operations work, on the TLS port of the map."""
        self.assertEqual((yield self.open(certpath=self.certpath).get("k")).value, 1)

    @inlineCallbacks
    def test_untrusted(self):
        """An untrusted certificate ends the connection before anything is sent."""
        yield self.assertFailure(self.open().connect(), NetworkError)
        self.assertEqual(self.node.seen, [])

    def test_unreadable_certificates(self):
        """A certpath that is no PEM file is refused when the connection is made."""
        self.assertRaises(ArgumentError, self.open, certpath=self.mktemp())


class BacklogTests(SynchronousTestCase):
    """The backlog is bounded, in number and in bytes."""

    def call(self, value=b""):
        call = DeferredCall(operations.SET, "k", b"k")
        call.value, call.deadline, call.deferred = value, 10.0, Deferred()
        return call

    def test_full(self):
        """Beyond the limit an operation fails at once; those that were given up make room."""
        self.patch(link_module, "MAX_BACKLOG_CALLS", 2)
        backlog = Backlog()
        calls = [self.call() for _ in range(3)]
        for call in calls:
            backlog.add(call, "test")
        self.failureResultOf(calls[2].deferred, ClientTemporaryFailError)
        calls[0].abandon()
        another = self.call()
        backlog.add(another, "test")
        self.assertEqual(backlog.take(), [calls[1], another])

    def test_bytes(self):
        """Values count by their size."""
        self.patch(link_module, "MAX_BACKLOG_BYTES", 100)
        backlog = Backlog()
        backlog.add(self.call(bytes(90)), "test")
        late = self.call(bytes(20))
        backlog.add(late, "test")
        self.failureResultOf(late.deferred, ClientTemporaryFailError)

    def test_expired(self):
        """Only those whose time is up leave."""
        backlog = Backlog()
        early, later = self.call(), self.call()
        later.deadline = 20.0
        backlog.add(early, "test")
        backlog.add(later, "test")
        self.assertEqual(backlog.expired(15.0), [early])
        self.assertEqual(backlog.take(), [later])


class BackoffTests(SynchronousTestCase):
    """Reconnecting, with an injected clock and injected randomness."""

    def test_delays_grow_with_jitter(self):
        """Each failure doubles the delay, up to a limit, scaled by the random number."""
        clock = task.Clock()
        attempts = []

        def connect(host, port):
            attempts.append(clock.seconds())
            failed = Deferred()
            failed.errback(NetworkError("refused"))
            return failed

        link = Link(NodeAddress("h", 1), 1, clock, connect, lambda link: None, lambda: 1.0)
        link.start()
        clock.pump([0.01] * 4000)
        gaps = [round(b - a, 1) for a, b in zip(attempts, attempts[1:], strict=False)]
        self.assertEqual(gaps[:8], [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
        link.close()
        self.assertEqual(clock.getDelayedCalls(), [])
