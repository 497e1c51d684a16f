"""Operations of a signal handler that interrupts another operation, at any instruction of it."""

import select
import sys
from collections import Counter
from contextlib import contextmanager
from unittest import SkipTest, TestCase

import couchbase
from couchbase.blocking import interruptible
from couchbase.blocking.calls import BlockingCall
from couchbase.blocking.cluster import Cluster
from couchbase.blocking.interruptible import InterruptibleCluster, cluster_type
from couchbase.protocol import observation, operations
from couchbase.protocol.constants import Feature, Opcode
from couchbase.protocol.frames import encode_response
from couchbase.transcoder import decode_value
from tests.couchbase.network import InMemory, MemoryCluster, Network
from tests.protocol.memory_driver import MemoryNode

TIMEOUT = 2.5
ONE = [("set", b"a")]
SEVERAL = [("set", b"a"), ("get", b"b"), ("get", b"c"), ("set", b"d")]
# Operations, outcomes of sends, and whether the connections are still to be opened.
STORIES = {
    "one": (ONE, (), False),
    "several": (SEVERAL, (), False),
    "first": (SEVERAL, (), True),
    "in a collection": ([("get named", b"a"), ("get", b"b")], (), False),
    "one, partly sent": (ONE, [(10, 0.01), (5, 0.01)], False),
    "several, partly sent": (SEVERAL, [(10, 0.01), (5, 0.01)], False),
}
POSITIONS = 100
# The ids of collections before keys.
PREFIXES = {"_default": b"\0", "c": b"\x20"}


class MemoryInterruptible(InMemory, InterruptibleCluster):
    """On a network in memory; its own connections are on another one, with the same nodes and time."""

    def __init__(self, network):
        super().__init__(network)
        self._let_in()
        self.bootstrap()

    def _spare_for(self, calls):
        if self._spare is None:
            self._spare = MemoryInterruptible(Network(list(self.network.nodes.values()), self.network.answer))
        return super()._spare_for(calls)


class Story:
    """A program's operations, and those of a handler.

    :param position: the number of the instruction that the handler comes before; 0 for none.
    """

    def __init__(self, name, position=0):
        self.asked, outcomes, is_first = STORIES[name]
        self.executed = Counter()
        self.nodes = [MemoryNode(1), MemoryNode(2)]
        for node in self.nodes:
            node.cluster, node.features = self.nodes, tuple(Feature)
            node.rows = [[number % 2] for number in range(4)]
        self.network = Network(self.nodes, self.answer)
        self.cluster = MemoryInterruptible(self.network)
        if not is_first:
            for key in (b"a", b"b", b"c", b"d"):
                self.network.now += 0.0001
                self.run([self.call("get", key)])
        self.executed.clear()
        self.network.sends += outcomes
        self.position, self.instructions, self.handled = position, 0, False
        self.calls = [self.call(*one) for one in self.asked]
        inner = [("set", b"inner")], [("get named", b"named")], [("get", b"inner"), ("set", b"last")]
        self.inner = [[self.call(*one) for one in together] for together in inner]

    def call(self, kind, key):
        """Return an operation."""
        operation = operations.SET if kind == "set" else operations.GET
        call = BlockingCall(operation, key, key, False, decode_value)
        if kind == "set":
            call.extras, call.value = bytes(8), b"1"
        elif kind == "get named":
            call.keyspace = self.cluster.collections.keyspace("s", "c")
        return call

    def answer(self, node, frame):
        """Succeed; a read finds its key."""
        key = frame.key[1:]
        self.executed[frame.opcode, frame.key] += 1
        fields = {"opaque": frame.opaque, "cas": 7, "extras": bytes(16)}
        if frame.opcode == Opcode.GET:
            fields.update(extras=bytes(4), value=b'"%s"' % key)
        return [(0.001, encode_response(frame.opcode, **fields))]

    def run(self, calls):
        """Execute operations as a connection does."""
        if len(calls) == 1:
            self.cluster.run_one(calls[0], self.network.now, self.network.now + TIMEOUT)
        else:
            self.cluster.run(calls, self.network.now + TIMEOUT)

    def handle(self):
        """Do what the signal handler does."""
        self.handled = True
        for calls in self.inner:
            self.run(calls)

    def tell(self):
        """Let it happen."""
        with self.traced():
            self.run(self.calls)
        return self

    @contextmanager
    def traced(self):
        """Count the client's instructions, and interrupt them once."""

        def trace(frame, event, argument):
            if event == "call":
                name = frame.f_globals.get("__name__", "")
                if not name.startswith(couchbase.__name__) or self.is_outside(frame):
                    return None
                frame.f_trace_lines, frame.f_trace_opcodes = False, True
            elif event == "opcode":
                self.instructions += 1
                if self.instructions == self.position:
                    sys.settrace(None)
                    self.handle()
                    sys.settrace(trace)
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)

    @staticmethod
    def is_outside(frame):
        """Return whether something is called by the network: it is not the client's then."""
        while frame is not None:
            if frame.f_globals.get("__name__") == Network.__module__:
                return True
            frame = frame.f_back
        return False


class InterruptibleTests(TestCase):
    """Whatever the handler interrupts."""

    def setUp(self):
        if not hasattr(select, "epoll") or sys.implementation.name != "cpython":
            raise SkipTest("needs epoll and the instructions of CPython")
        if sys.version_info >= (3, 13):
            raise SkipTest("from Python 3.13 on, few instructions are reported")

    def check(self, name, position):
        """Each operation is executed once, without an error, and has its own answer, in time."""
        story, where = Story(name, position), f"{name}, before instruction {position}"
        try:
            story.tell()
        except Exception as error:  # noqa: BLE001  # the test says where
            self.fail(f"{where}: {error!r}")
        self.assertTrue(story.handled, where)
        calls = sum(story.inner, story.calls)
        for call in calls:
            self.assertEqual((call.done, call.error), (True, None), where)
            if call.operation is operations.GET:
                self.assertEqual(call.result.value, call.key.decode(), where)
        sent = [
            (call.operation.opcode, PREFIXES[call.keyspace.collection] + call.key_bytes) for call in calls
        ]
        self.assertEqual(story.executed, Counter(sent), where)
        self.assertEqual([node.pending for node in story.cluster.peers.values()], [{}, {}], where)
        self.assertLess(story.network.now, 1, where)

    def test_anywhere(self):
        """At instructions all over the operation, as many of each story."""
        for name in STORIES:
            # The least of two: some things are done at their first use only.
            count = min(Story(name).tell().instructions for _ in range(2))
            for position in range(1, count + 1, max(1, count // POSITIONS)):
                self.check(name, position)

    def test_around_the_wait(self):
        """At each instruction before and after the wait for sockets."""
        for name in ("one", "several"):
            Story(name).tell()
            waits = self.instructions_of(Story(name), "wait")
            self.assertGreater(len(waits), 10)
            for position in waits:
                self.check(name, position)

    @staticmethod
    def instructions_of(story, function):
        """Return the positions of the instructions of a function of the module."""
        found = []

        class Position(int):
            def __eq__(self, count):
                frame = sys._getframe(2)
                code = sys._getframe(1).f_locals["frame"].f_code
                if frame and code.co_name == function and code.co_filename == interruptible.__file__:
                    found.append(count)
                return False

            __hash__ = int.__hash__

        story.position = Position()
        story.tell()
        return found

    def test_plans(self):
        """An observation by a handler has the other connections, too."""
        story = Story("one", 1)

        def plan():
            return observation.observe_plan(lambda: story.cluster.current_map(), [], False)

        story.handle = lambda: (setattr(story, "handled", True), story.cluster.run_plan(plan(), TIMEOUT))
        story.cluster._is_busy = True
        self.assertEqual(story.cluster.run_plan(plan(), TIMEOUT), {})
        self.assertIsNotNone(story.cluster._spare)

    def test_ends(self):
        """The other connections are closed with the first; a closed cluster refuses a handler's operation."""
        story = Story("one", 100).tell()
        spare = story.cluster._spare
        self.assertFalse(spare.closed)
        story.cluster.close()
        self.assertTrue(spare.closed)
        self.assertIsNone(story.cluster._spare)
        self.assertTrue(all(node.idle for node in spare.peers.values()))

    def test_fork(self):
        """A child process has no other connections, and nothing in it is interrupted."""
        story = Story("one", 100).tell()
        story.cluster._is_busy, story.cluster._waits = True, 2
        story.cluster.renew_selector()
        self.addCleanup(story.cluster.selector.close)
        cluster = story.cluster
        self.assertEqual((cluster._is_busy, cluster._waits, cluster._spare), (False, 0, None))

    def test_sockets_that_are_gone(self):
        """What was ready and is not watched any more, as a handler's operation has closed it, is dropped."""
        story = Story("one")
        selector = story.cluster.selector
        ready = list(selector._handlers)[0]
        selector.poll = lambda seconds: [(ready, 1), (999, 1)]
        story.cluster._let_in()
        self.assertEqual(selector.poll(0), [(ready, 1)])

    def test_kinds(self):
        """Only a connection without a lock needs it; greenlets have a cluster of their own."""
        self.assertIs(cluster_type(Cluster, couchbase.LOCKMODE_NONE), InterruptibleCluster)
        self.assertIs(cluster_type(Cluster, couchbase.LOCKMODE_WAIT), Cluster)
        self.assertIs(cluster_type(MemoryCluster, couchbase.LOCKMODE_NONE), MemoryCluster)
