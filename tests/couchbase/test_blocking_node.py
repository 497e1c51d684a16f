"""A node of the blocking driver that cannot be reached: the operations that wait for it."""

from unittest import TestCase

from couchbase.blocking.calls import LEAST_PURGED, BlockingCall, WaitGroup
from couchbase.blocking.node import NodeConnection
from couchbase.blocking.wire import MANY_BYTES, RECEIVE_BYTES
from couchbase.protocol import operations


class NoNetwork:
    """An owner whose time stands still, so that no connection is ever tried."""

    def seconds(self):
        return 0.0

    def call_at(self, when, function):
        """Never call it."""


class WaitingTests(TestCase):
    """The queue."""

    def setUp(self):
        self.node = NodeConnection("h", 1, NoNetwork())
        self.node._retry_at = 1.0
        self.group = WaitGroup(0)

    def send(self):
        """Let an operation wait; returns it."""
        call = BlockingCall(operations.GET, "k", b"k")
        call.group = self.group
        self.group.remaining += 1
        self.node.send(call, 0)
        return call

    def test_abandoned_ones(self):
        """Operations whose callers have gone do not pile up, however many come while no node is there."""
        longest = 0
        for _ in range(20 * LEAST_PURGED):
            self.send().abandon()
            longest = max(longest, len(self.node.waiting))
        self.assertLessEqual(longest, LEAST_PURGED)

    def test_a_few_that_stay(self):
        """Open ones stay, in their order, and the queue is never longer than twice them."""
        open_ = []
        for number in range(8 * LEAST_PURGED):
            call = self.send()
            if number % 4:
                call.abandon()
            else:
                open_.append(call)
            self.assertLessEqual(len(self.node.waiting), max(LEAST_PURGED, 2 * len(open_) + 1) + 1)
        self.assertEqual(self.node.take_waiting(), open_)

    def test_many_of_one_caller(self):
        """A multi operation may be as long as its caller likes: nothing of it is refused."""
        calls = [self.send() for _ in range(70_000)]
        self.assertEqual(self.node.take_waiting(), calls)
        self.assertFalse(any(call.done for call in calls))


class Bytes:
    """A socket that gives as many bytes as are asked for, until there are none."""

    def __init__(self, left):
        self.left = left
        self.asked = []

    def recv(self, size):
        """Return bytes."""
        self.asked.append(size)
        size = min(size, self.left)
        if not size:
            raise BlockingIOError
        self.left -= size
        return bytes(size)


class ReceivingTests(TestCase):
    """How much is received at once."""

    def test_sizes(self):
        """Little, for which the allocator needs no system call; more while more than that waits."""
        node = NodeConnection("h", 1, NoNetwork())
        for left in (1, RECEIVE_BYTES + 1, 1, 1):
            node._sock = node._sock or Bytes(0)
            node._sock.left += left
            for _ in range(3):
                node._owner.tls_context = None
                node._read()
        self.assertEqual(node._sock.asked.count(MANY_BYTES), 1)
        self.assertLess(RECEIVE_BYTES, 128 * 1024)
