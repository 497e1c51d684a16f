"""EventQueue: waiters for an event that happens once."""

from unittest import TestCase

from couchbase.asynchronous import Async
from couchbase.asynchronous.events import EventQueue


class Recorder(EventQueue):
    """Writes down which hooks were called."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def fire_async(self, event):
        self.seen.append(("late", event))

    def call_single_success(self, event, *args):
        self.seen.append(("success", event, args))

    def call_single_failure(self, event, *args):
        try:
            raise
        except ValueError as error:
            self.seen.append(("failure", event, args, str(error)))

    def maybe_raise(self, *args):
        if args == ("bad",):
            raise ValueError("it failed")


class EventQueueTests(TestCase):
    """The queue, and its hooks."""

    def test_success(self):
        """All waiters are notified, once and in order; fire_async notifies late ones."""
        queue = Recorder()
        queue.schedule("a")
        queue.schedule("b")
        self.assertEqual((len(queue), list(queue), queue.called), (2, ["a", "b"], False))
        queue(1, 2)
        self.assertEqual(queue.seen, [("success", "a", (1, 2)), ("success", "b", (1, 2))])
        self.assertEqual((len(queue), queue.called), (0, True))
        queue.schedule("c")
        self.assertEqual(queue.seen[2:], [("late", "c")])
        self.assertEqual(len(queue), 0)
        queue(3)
        self.assertEqual(len(queue.seen), 3)

    def test_failure(self):
        """Waiters are notified inside the except block."""
        queue = Recorder()
        queue.schedule("a")
        queue("bad")
        self.assertEqual(queue.seen, [("failure", "a", ("bad",), "it failed")])

    def test_base(self):
        """The hooks of the base do nothing."""
        queue = EventQueue()
        queue.schedule("a")
        queue("anything")
        queue.schedule("b")
        queue.call_single_failure("a", ValueError())
        self.assertEqual(len(queue), 0)


class AsyncTests(TestCase):
    """The base of asynchronous connections."""

    def test_needs_a_loop(self):
        """ValueError without one."""
        self.assertRaises(ValueError, Async, bucket="default")
        self.assertRaises(ValueError, Async, None, bucket="default")
        self.assertRaises(NotImplementedError, Async, object(), bucket="default")
