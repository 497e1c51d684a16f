"""What one operation costs, counted in calls and bytecode: numbers that no busy machine changes.

Connections talk to a node in memory. Counted is what runs on the client's side: starting operations, the end
of the turn, and handing out the answers, Twisted's Deferreds included.
"""

import gc
import sys
from collections import Counter

from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

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
        clock.callFromThread = lambda function, *arguments: clock.callLater(0, function, *arguments)
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


class Calls:
    """Counts calls of Python and C functions (and methods; what makes an object is not seen)."""

    def __init__(self):
        self.count = 0

    def __enter__(self):
        sys.setprofile(self._profile)

    def __exit__(self, *exception):
        sys.setprofile(None)

    def _profile(self, frame, event, argument):
        self.count += event in ("call", "c_call")


class Instructions:
    """Counts bytecode instructions."""

    def __init__(self):
        self.count = 0

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *exception):
        sys.settrace(self._before)

    def _trace(self, frame, event, argument):
        if event == "call":
            frame.f_trace_lines, frame.f_trace_opcodes = False, True
        self.count += event == "opcode"
        return self._trace


# For each operation: calls, then bytecode instructions on CPython 3.10 and on 3.11. Every version compiles to
# instructions of its own, and from 3.12 on tracing does not tell all of them. The limits are a little above
# what was counted when they were written; lower them with every improvement.
VERSIONS = ((3, 10), (3, 11))
LIMITS = {
    "get, Deferred": (37, 660, 690),
    "set, Deferred": (43, 690, 730),
    "get, AsyncResult": (29, 520, 540),
    "set, AsyncResult": (35, 555, 585),
    "get_multi": (22, 445, 465),
    "set_multi": (31, 595, 620),
    "raw get_with_expiry": (28, 530, 550),
    "raw set": (30, 525, 550),
}


class CostTests(MemoryTestCase):
    """Calls and instructions for each operation: above its limit, somebody has put something in the way."""

    def check(self, name, start):
        """Compare the cost of each of the operations that ``start`` starts with its limit."""
        most, *by_version = LIMITS[name]
        self.count(name, "calls", start, Calls(), most)
        if sys.implementation.name == "cpython" and sys.version_info[:2] in VERSIONS:
            most = by_version[VERSIONS.index(sys.version_info[:2])]
            self.count(name, "instructions", start, Instructions(), most)

    def count(self, name, unit, start, counter, most):
        ended = Counter()

        def end(result):
            ended["ended"] += 1

        # Once for what happens the first time only.
        start(end)
        self.carry_out()
        expected = ended.pop("ended")
        self.assertIn(expected, (1, OPERATIONS))
        gc.disable()
        try:
            with counter:
                start(end)
            with counter:
                self.clock.advance(0)
            (written,) = self.node.transport.writes
            answers = self.node.answers()
            with counter:
                self.node.protocol.dataReceived(answers)
        finally:
            gc.enable()
        self.assertEqual(ended["ended"], expected)
        each = counter.count / OPERATIONS
        self.assertLessEqual(each, most, f"{name}: {unit} for each operation")
        # A limit far above what is counted would guard nothing.
        self.assertGreater(each, most * 0.8, f"{name}: {unit} for each operation")

    def test_deferreds(self):
        """A Connection's, Twisted's own share included."""
        connection = self.connect(Connection)

        def get(end):
            for key in KEYS:
                connection.get(key).addCallback(end)

        def store(end):
            for key in KEYS:
                connection.set(key, VALUE).addCallback(end)

        self.check("get, Deferred", get)
        self.check("set, Deferred", store)
        self.check("get_multi", lambda end: connection.get_multi(KEYS).addCallback(end))
        documents = dict.fromkeys(KEYS, VALUE)
        self.check("set_multi", lambda end: connection.set_multi(documents).addCallback(end))

    def test_async_results(self):
        """A TxAsyncConnection's."""
        connection = self.connect(TxAsyncConnection)

        def get(end):
            for key in KEYS:
                connection.get(key).set_callbacks(end, end)

        def store(end):
            for key in KEYS:
                connection.set(key, VALUE).set_callbacks(end, end)

        self.check("get, AsyncResult", get)
        self.check("set, AsyncResult", store)
        self.check("get_multi", lambda end: connection.get_multi(KEYS).set_callbacks(end, end))

    def test_receivers(self):
        """What a gateway does: raw documents, without Deferreds."""
        direct = self.connect(Connection, transcoder=RawTranscoder()).direct()
        keys = [key.encode() for key in KEYS]

        def get(end):
            for key in keys:
                direct.get_with_expiry(key).receiver = Receiver(end)

        def store(end):
            for key in keys:
                call = direct.set(key, STORED, format=0x02000000, preserve_expiry=True)
                call.receiver = Receiver(end)

        self.check("raw get_with_expiry", get)
        self.check("raw set", store)
