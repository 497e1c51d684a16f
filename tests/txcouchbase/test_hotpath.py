"""What one operation costs, counted in Python calls and bytecode: numbers that no busy machine changes.

Connections talk to a node in memory. Counted is what runs on the client's side: starting operations, the end of
the turn, and handing out the answers, Twisted's Deferreds included.
"""

import gc
import sys
from collections import Counter

from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from couchbase.protocol.constants import Opcode
from couchbase.protocol.frames import FrameReader, encode_response
from couchbase.transcoder import RawTranscoder
from tests.couchbase.scripted import ScriptedNode
from txcouchbase import cluster as cluster_module
from txcouchbase.connection import Connection, TxAsyncConnection

OPERATIONS = 64
KEYS = [f"key-{number}" for number in range(OPERATIONS)]
VALUE = {"text": "x" * 85, "number": 7}
STORED = b'{"text":"%b","number":7}' % (b"x" * 85)
LOOKUP = b"".join(
    bytes(2) + len(text).to_bytes(4, "big") + text for text in (b"33554432", b"1700000000", STORED)
)


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


class MemoryNode:
    """A node without a socket: what the client wrote is answered when :meth:`answers` is called."""

    def __init__(self):
        self.port = 11210
        self.transport = Transport()
        self.reader = FrameReader()

    def connect(self, endpoint, protocol):
        """Stand in for :func:`twisted.internet.endpoints.connectProtocol`."""
        protocol.makeConnection(self.transport)
        self.protocol = protocol
        return succeed(protocol)

    def answers(self):
        """Return the answers to everything that was written, in one chunk."""
        data = b"".join(self.transport.writes)
        self.transport.writes.clear()
        return b"".join(self.answer(frame) for frame in self.reader.feed(data))

    def answer(self, frame):
        parts = {"opaque": frame.opaque, "cas": 1}
        if frame.opcode == Opcode.GET:
            parts.update(extras=bytes(4), value=STORED)
        elif frame.opcode == Opcode.SUBDOC_MULTI_LOOKUP:
            parts.update(value=LOOKUP)
        elif frame.opcode == Opcode.SET:
            parts.update(extras=bytes(range(16)))
        elif frame.opcode == Opcode.HELLO:
            parts.update(value=frame.value)
        elif frame.opcode == Opcode.GET_CLUSTER_CONFIG:
            node = ScriptedNode.__new__(ScriptedNode)
            node.rev, node.rows, node._context, node.cluster = 1, [[0]] * 64, None, [self]
            parts.update(value=node.config())
        return encode_response(frame.opcode, **parts)


class Receiver:
    """Is told how an operation ended."""

    def __init__(self, ended):
        self.succeeded = self.failed = ended


class MemoryTestCase(SynchronousTestCase):
    """Connects to a node in memory."""

    def connect(self, cls, **options):
        self.node = node = MemoryNode()
        self.clock = clock = Clock()
        clock.callFromThread = clock.callLater
        self.patch(cluster_module, "connectProtocol", node.connect)
        self.patch(cluster_module, "HostnameEndpoint", lambda *_: None)
        connection = cls(bucket="b", connection_string="couchbase://127.0.0.1", reactor=clock, **options)
        for _ in range(3):
            clock.advance(0)
            node.protocol.dataReceived(node.answers())
        self.assertTrue(connection.connected)
        return connection

    def carry_out(self):
        """Do what the reactor does: end the turn, then receive."""
        self.clock.advance(0)
        self.node.protocol.dataReceived(self.node.answers())


def counted(function):
    """Return how many Python calls, and how many bytecode instructions, running a function takes."""
    calls, instructions = 0, 0

    def trace(frame, event, argument):
        nonlocal calls, instructions
        if event == "call":
            calls += 1
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            instructions += 1
        return trace

    before = sys.gettrace()
    gc.disable()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
        gc.enable()
    return calls, instructions


class CostTests(MemoryTestCase):
    """Calls and instructions of each kind of operation."""

    def cost(self, start):
        """Return (calls, instructions) for each of the operations that ``start`` starts."""
        ended = Counter()

        def end(result):
            ended["ended"] += 1

        start(end)
        self.carry_out()
        self.assertIn(ended["ended"], (1, OPERATIONS))
        ended.clear()
        starting = counted(lambda: start(end))
        leaving = counted(lambda: self.clock.advance(0))
        answers = self.node.answers()
        arriving = counted(lambda: self.node.protocol.dataReceived(answers))
        self.assertIn(ended["ended"], (1, OPERATIONS))
        return [sum(part) / OPERATIONS for part in zip(starting, leaving, arriving, strict=True)]

    def test_x(self):
        c = self.connect(Connection)
        print("deferred get", self.cost(lambda end: [c.get(k).addCallback(end) for k in KEYS]))
        print("deferred set", self.cost(lambda end: [c.set(k, VALUE).addCallback(end) for k in KEYS]))
        print("deferred multi", self.cost(lambda end: c.get_multi(KEYS).addCallback(end)))
        c = self.connect(TxAsyncConnection)
        print("async get", self.cost(lambda end: [c.get(k).set_callbacks(end, end) for k in KEYS]))
        print("async set", self.cost(lambda end: [c.set(k, VALUE).set_callbacks(end, end) for k in KEYS]))
        print("async multi", self.cost(lambda end: c.get_multi(KEYS).set_callbacks(end, end)))
        c = self.connect(Connection, transcoder=RawTranscoder())
        raw = [k.encode() for k in KEYS]
        print("raw get_with_expiry", self.cost(lambda end: [c.get_with_expiry(k).addCallback(end) for k in raw]))
        d = c.direct()
        print("direct get_with_expiry", self.cost(lambda end: [setattr(d.get_with_expiry(k),"receiver",Receiver(end)) for k in raw]))
        print("direct set", self.cost(lambda end: [setattr(d.set(k, STORED,format=3,preserve_expiry=True),"receiver",Receiver(end)) for k in raw]))
