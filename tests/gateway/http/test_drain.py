"""Draining of the channel's factory: clients move elsewhere, and lose nothing."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.factory import QUIET_SECONDS
from gateway.limits import Limits
from tests.gateway.support import Answer, Site, Transport, raw_request, read_reply

DOCUMENT = "/v1/buckets/b/documents/k"


class DrainTests(SynchronousTestCase):
    """``drain``, and ``stop`` after it."""

    def setUp(self) -> None:
        self.answer: Deferred[Answer] = Deferred()
        self.site = Site({"get_with_expiry": Answer(b"{}")}, limits=Limits(idle_seconds=20, grace_seconds=5))

    def client(self) -> Transport:
        """Return a client that has had an answer, and keeps its connection."""
        client = self.site.client()
        self.site.send(client, raw_request("GET", DOCUMENT))
        self.assertIsNone(read_reply(client.value())[0].header("connection"))
        client.clear()
        return client

    def test_next_answer_closes(self) -> None:
        """An idle connection gets its next request answered in full, and is closed by that answer."""
        client = self.client()
        drained = self.site.factory.drain()
        self.assertTrue(client.connected)
        self.site.send(client, raw_request("GET", DOCUMENT))
        reply, _ = read_reply(client.value())
        self.assertEqual((reply.status, reply.body, reply.header("connection")), (200, b"{}", "close"))
        self.assertFalse(client.connected)
        self.successResultOf(drained)

    def test_under_way(self) -> None:
        """A request that has begun is finished."""
        self.site.answers["get_with_expiry"] = lambda *_, **__: self.answer
        client = self.site.client()
        self.site.send(client, raw_request("GET", DOCUMENT))
        drained = self.site.factory.drain()
        self.assertNoResult(drained)
        self.answer.callback(Answer(b"1"))
        reply, _ = read_reply(client.value())
        self.assertEqual((reply.status, reply.header("connection")), (200, "close"))
        self.successResultOf(drained)

    def test_idle(self) -> None:
        """A connection that stays idle is closed at its timeout, not before."""
        client = self.client()
        drained = self.site.factory.drain()
        self.site.clock.pump([1] * 18)
        self.assertTrue(client.connected)
        self.site.clock.pump([1] * 4)
        self.assertFalse(client.connected)
        self.successResultOf(drained)

    def test_nobody_there(self) -> None:
        """Without connections there is nothing to wait for."""
        self.successResultOf(self.site.factory.drain())

    def test_stop(self) -> None:
        """Without time left it stops: idle connections at once, the others within the grace time."""
        idle = self.client()
        self.site.answers["get_with_expiry"] = lambda *_, **__: self.answer
        busy = self.site.client()
        self.site.send(busy, raw_request("GET", DOCUMENT))
        drained = self.site.factory.drain()
        stopped = self.site.factory.stop()
        self.site.clock.advance(QUIET_SECONDS)
        self.assertEqual((idle.connected, busy.connected), (False, True))
        self.site.clock.advance(5)
        self.assertTrue(busy.aborted)
        self.successResultOf(drained)
        self.successResultOf(stopped)
