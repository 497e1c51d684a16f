"""The phase before the stop: not ready any more, and serving."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.task import Clock
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from gateway.settings import resolve
from gateway.shutdowndelay import ShutdownDelay
from tests.gateway.support import Answer, Site, raw_request, read_reply
from tests.gateway.workers.support import DOCUMENT, LOOPBACK, Running, WorkersTestCase, is_refused

GET = "/v1/buckets/b/documents/k"


class LeavingTests(SynchronousTestCase):
    """The time that it takes."""

    def test_time(self) -> None:
        """It is over after its seconds, and not before."""
        clock = Clock()
        waited = ShutdownDelay(clock, 5).wait()
        clock.advance(4.9)
        self.assertNoResult(waited)
        clock.advance(0.1)
        self.successResultOf(waited)

    def test_end(self) -> None:
        """It can be ended at once, and again, which does nothing."""
        clock = Clock()
        delay = ShutdownDelay(clock, 5)
        waited = delay.wait()
        delay.end()
        self.successResultOf(waited)
        delay.end()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_option(self) -> None:
        """It is off unless asked for."""
        self.assertEqual(resolve({"ephemeral": True}, {}).shutdown_delay, 0)
        self.assertEqual(resolve({"ephemeral": True, "shutdown-delay": "7.5"}, {}).shutdown_delay, 7.5)


class FactoryTests(SynchronousTestCase):
    """Connections meanwhile."""

    def test_leave(self) -> None:
        """Old and new connections are served, and closed by their next answer; then the gateway stops as
        usual."""
        site = Site({"get_with_expiry": Answer(b"{}")})
        kept = site.client()
        site.send(kept, raw_request("GET", GET))
        kept.clear()
        idle = site.client()
        site.factory.leave()
        self.assertTrue(kept.connected)
        for client in (kept, site.client()):
            site.send(client, raw_request("GET", GET))
            reply, _ = read_reply(client.value())
            self.assertEqual((reply.status, reply.header("Connection")), (200, "close"))
        idle.loseConnection()
        # Without connections it is not over: deadlines of new ones must still be watched.
        slow = site.client()
        site.send(slow, b"GET / HT")
        site.clock.pump([1] * 15)
        self.assertIn(b"HTTP/1.1 408 ", slow.value())
        stopped = site.factory.stop()
        site.clock.pump([1] * 70)
        self.successResultOf(stopped)
        self.assertIsNone(site.factory.buildProtocol(None))


class ProcessTests(WorkersTestCase):
    """Whole services."""

    @inlineCallbacks
    def until_not_ready(self, url: str) -> Any:
        """Wait until every connection gets the notice to go elsewhere."""
        seen = 0
        while seen < 6:
            status, _, _ = yield self.fetch("GET", url + "/ready")
            seen = seen + 1 if status == 503 else 0

    @inlineCallbacks
    def check(self, url: str) -> Any:
        """See that it serves while it leaves, and stops at once at the second signal."""
        port = int(url.rpartition(":")[2])
        yield self.fetch("PUT", url + DOCUMENT + "a", data=b"1")
        self.running.signal("TERM")
        yield self.running.logged(r"stopping in 600 s: /ready is 503")
        yield self.until_not_ready(url)
        for _ in range(4):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET " + DOCUMENT.encode() + b"a HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = yield self.answer(client)
            self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
            self.assertIn(b"\r\nConnection: close\r\n", answer)
        self.running.signal("HUP")
        self.running.signal("INT")
        yield self.until(lambda: is_refused(port))
        # One more does no harm, if it comes before the end.
        try:
            self.running.signal("TERM")
        except ProcessExitedAlready:
            pass
        yield self.running.ended
        self.stopped_in_order()

    @inlineCallbacks
    def test_one_process(self) -> Any:
        """A gateway in one process."""
        self.running.start("--ephemeral", "--listen", LOOPBACK, "--shutdown-delay", "600")
        ((url,),) = [(yield self.running.logged(r"listens on (\S+)"))]
        yield self.running.logged("embedded node: ")
        yield self.check(url)

    @inlineCallbacks
    def test_workers(self) -> Any:
        """All workers."""
        url = yield self.begin("--shutdown-delay", "600")
        yield self.check(url)

    @inlineCallbacks
    def test_not_after_a_start_that_failed(self) -> Any:
        """A gateway that never served does not wait at its end."""
        path = self.mktemp()
        FilePath(path).setContent(b"no folder")
        for workers in ((), ("--workers", "2")):
            self.running = Running()
            self.running.start("--data", path, "--listen", LOOPBACK, "--shutdown-delay", "600", *workers)
            yield self.running.ended
            self.assertIn("couchgateway cannot start: the embedded node", self.running.log)
            self.assertNotIn("stopping in", self.running.log)

    @inlineCallbacks
    def test_ends_by_itself(self) -> Any:
        """Without another signal it stops when the time is over."""
        url = yield self.begin("--shutdown-delay", "0.2")
        yield self.stop()
        self.assertTrue(is_refused(int(url.rpartition(":")[2])))
