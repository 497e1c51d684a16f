"""Connections to nodes in memory: no sockets, and a clock for time."""

import json

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import Opcode
from couchbase.protocol.frames import FrameReader, encode_response
from txcouchbase import cluster as cluster_module

FIRST_PORT = 11210
VBUCKETS = 64
STORED = b'{"text":"%b","number":7}' % (b"x" * 85)
LOOKUP = b"".join(
    bytes(2) + len(text).to_bytes(4, "big") + text for text in (b"33554432", b"1700000000", STORED)
)


# Requests whose key is no document's.
_OTHERS = (Opcode.HELLO, Opcode.SELECT_BUCKET, Opcode.SASL_AUTH, Opcode.SASL_STEP, Opcode.STAT)


def without_prefix(frame):
    """Return a request whose key has lost the prefix of the default collection."""
    if frame.key[:1] == b"\0" and frame.opcode not in _OTHERS:
        return frame._replace(key=frame.key[1:])
    return frame


class Transport:
    """Keeps what is written."""

    def __init__(self):
        self.writes = []

    def write(self, data):
        self.writes.append(data)

    def registerProducer(self, producer, streaming):
        pass

    def loseConnection(self):
        pass

    def abortConnection(self):
        pass


class MemoryNode:
    """A node without a socket: requests of the client are answered when :meth:`answers` is called.

    :param nodes: the nodes of the cluster.
    """

    def __init__(self, port, nodes):
        self.port = port
        self.nodes = nodes
        self.transport = Transport()
        self.reader = FrameReader()
        self.protocol = None
        self.seen = []

    def answers(self):
        """Return the answers to everything that was written, in one chunk."""
        data = b"".join(self.transport.writes)
        self.transport.writes.clear()
        return b"".join(self.answer(without_prefix(frame)) for frame in self.reader.feed(data))

    def answer(self, frame):
        """Return the answer to one request."""
        parts = {"opaque": frame.opaque, "cas": 1}
        if frame.opcode == Opcode.HELLO:
            parts.update(value=frame.value)
        elif frame.opcode == Opcode.GET_CLUSTER_CONFIG:
            parts.update(value=self.config())
        elif frame.opcode == Opcode.GET_COLLECTION_ID:
            # Manifest 1, collection 8, whatever its name.
            parts.update(extras=(1).to_bytes(8, "big") + (8).to_bytes(4, "big"))
        elif frame.opcode not in (Opcode.SELECT_BUCKET, Opcode.GET_ERROR_MAP):
            self.seen.append(frame)
        if frame.opcode == Opcode.GET:
            parts.update(extras=bytes(4), value=STORED)
        elif frame.opcode == Opcode.SUBDOC_MULTI_LOOKUP:
            parts.update(value=LOOKUP)
        elif frame.opcode in (Opcode.SET, Opcode.SUBDOC_MULTI_MUTATION):
            parts.update(extras=bytes(range(16)))
        return encode_response(frame.opcode, **parts)

    def config(self):
        """Return the cluster map: vbuckets belong to the nodes in turn."""
        nodes = [{"hostname": "127.0.0.1", "services": {"kv": port}} for port in self.nodes]
        rows = [[vbucket % len(nodes)] for vbucket in range(VBUCKETS)]
        servers = [f"127.0.0.1:{port}" for port in self.nodes]
        server_map = {"numReplicas": 0, "serverList": servers, "vBucketMap": rows}
        return json.dumps({"rev": 1, "name": "b", "nodesExt": nodes, "vBucketServerMap": server_map}).encode()


class MemoryTestCase(SynchronousTestCase):
    """Connects to nodes in memory: ``nodes`` by port, the first of them ``node``."""

    node_type = None
    """Class of the nodes; :class:`MemoryNode` by default."""

    def connect(self, cls, count=1, unreachable=(), **options):
        """Return a connection that is up, to a cluster of ``count`` nodes.

        :param unreachable: indexes of nodes to which connecting does not end.
        """
        self.nodes = {}
        for port in range(FIRST_PORT, FIRST_PORT + count):
            self.nodes[port] = (self.node_type or MemoryNode)(port, self.nodes)
            self.nodes[port].reachable = port - FIRST_PORT not in unreachable
        self.node = self.nodes[FIRST_PORT]
        self.clock = clock = Clock()
        clock.callFromThread = lambda function, *arguments: clock.callLater(0, function, *arguments)
        self.patch(cluster_module, "node_endpoint", lambda reactor, host, port: self.nodes[port])
        self.patch(cluster_module, "connect_quietly", self._connect)
        connection = cls(bucket="b", connection_string="couchbase://127.0.0.1", reactor=clock, **options)
        for _ in range(6):
            self.carry_out()
        self.assertTrue(connection.connected)
        self.assertEqual([node.seen for node in self.nodes.values()], [[]] * count)
        return connection

    @staticmethod
    def _connect(node, protocol):
        if not node.reachable:
            return Deferred()
        node.protocol = protocol
        protocol.makeConnection(node.transport)
        return succeed(protocol)

    def carry_out(self):
        """Do what the reactor does: end the turn, then receive."""
        self.clock.advance(0)
        for node in self.nodes.values():
            if node.protocol is not None and node.transport.writes:
                node.protocol.dataReceived(node.answers())
