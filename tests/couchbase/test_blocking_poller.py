"""Waiting for sockets: with epoll, and with a selector where there is no epoll, as on macOS and Windows."""

import contextlib
import select
import socket
from selectors import EVENT_READ, EVENT_WRITE
from unittest import SkipTest, TestCase
from unittest.mock import patch

from couchbase.blocking import poller
from tests.couchbase.support import ConnectionTestCase

BOTH = EVENT_READ | EVENT_WRITE


class SelectorTests(TestCase):
    """The standard library's selector."""

    has_epoll = False

    def setUp(self):
        changed = patch.object(poller, "_EPOLL", self.has_epoll)
        changed.start()
        self.addCleanup(changed.stop)
        self.poller = poller.Poller()
        self.addCleanup(self.poller.close)
        self.one, self.other = self.pair()
        self.events = []

    def pair(self):
        """Return two connected sockets."""
        pair = socket.socketpair()
        for one in pair:
            one.setblocking(False)
            self.addCleanup(one.close)
        return pair

    def wait(self):
        """Return the events that there are now."""
        self.events.clear()
        self.poller.wait(0)
        return list(self.events)

    def test_events(self):
        """A handler gets what its socket is ready for, of what it watches; nothing after the end."""
        self.poller.register(self.one, EVENT_READ, self.events.append)
        self.assertEqual(self.wait(), [])
        self.other.send(b"x")
        self.assertEqual(self.wait(), [EVENT_READ])
        self.poller.modify(self.one, BOTH, self.events.append)
        self.assertEqual(self.wait(), [BOTH])
        self.assertEqual(self.one.recv(10), b"x")
        self.assertEqual(self.wait(), [EVENT_WRITE])
        self.poller.modify(self.one, EVENT_WRITE, lambda events: self.events.append(-events))
        self.assertEqual(self.wait(), [-EVENT_WRITE])
        self.poller.unregister(self.one)
        self.assertEqual(self.wait(), [])

    def test_an_end_can_be_read(self):
        """A peer that has closed makes its socket readable, so that the end is noticed."""
        self.poller.register(self.one, EVENT_READ, self.events.append)
        self.other.close()
        (events,) = self.wait()
        self.assertTrue(events & EVENT_READ)

    def test_all_that_are_ready(self):
        """One wait handles every socket, even if a handler closes another one's."""
        pairs = [self.pair() for _ in range(5)]
        for one, other in pairs:

            def handle(events, own=one):
                self.events.append(events)
                for some, _ in pairs:
                    if some is not own and some.fileno() >= 0:
                        with contextlib.suppress(KeyError):
                            self.poller.unregister(some)
                        some.close()

            self.poller.register(one, EVENT_READ, handle)
            other.send(b"x")
        self.assertEqual(self.wait(), [EVENT_READ] * 5)

    def test_a_reused_number(self):
        """A socket with the number of one that is no longer watched has its own handler."""
        self.poller.register(self.one, EVENT_READ, self.events.append)
        number = self.one.fileno()
        self.poller.unregister(self.one)
        self.one.close()
        one, other = self.pair()
        numbers = {one.fileno(), other.fileno()}
        self.assertIn(number, numbers)
        for some in (one, other):
            self.poller.register(some, EVENT_READ, lambda events: self.events.append("new"))
        other.send(b"x")
        self.assertEqual(self.wait(), ["new"])


class EpollTests(SelectorTests):
    """The kernel's epoll."""

    has_epoll = True

    def setUp(self):
        if not hasattr(select, "epoll"):
            raise SkipTest("this system has no epoll")
        super().setUp()


class SelectorConnectionTests(ConnectionTestCase):
    """The blocking client, waiting with a selector of the standard library."""

    def setUp(self):
        changed = patch.object(poller, "_EPOLL", False)
        changed.start()
        self.addCleanup(changed.stop)
        super().setUp()

    def test_operations(self):
        """Single ones, many at once, and large ones in both directions."""
        documents = {self.key(str(number)): {"n": number, "text": "x" * number} for number in range(500)}
        self.assertTrue(self.cb.set_multi(documents).all_ok)
        for key in list(documents)[:3]:
            self.assertEqual(self.cb.get(key).value, documents[key])
        found = self.cb.get_multi(list(documents))
        self.assertEqual({key: result.value for key, result in found.items()}, documents)
        large = self.key("large")
        self.cb.set(large, "x" * 3_000_000)
        self.assertEqual(self.cb.get(large).value, "x" * 3_000_000)
        self.cb.delete(large)
