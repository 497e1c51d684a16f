"""The limit on file descriptors: raised, taken into account, and named when it is reached."""

from __future__ import annotations

import resource
import socket
from dataclasses import replace
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gateway.descriptors import RefusedConnections, others_need, room_for_clients, shortage
from gateway.settings import Settings, resolve
from gateway.workers.handover import read_settings, settings_for_worker
from reactor.ports import PortGuard
from tests.gateway.workers.support import LOOPBACK, WorkersTestCase

LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
"""


def settings(**given: Any) -> Settings:
    return resolve(
        {"ephemeral": True, **{name.replace("_", "-"): value for name, value in given.items()}}, {}
    )


class RoomTests(SynchronousTestCase):
    """The number of clients within the limit."""

    def test_room(self) -> None:
        """All that are wanted if they fit; never so many that nothing is left for the cluster."""
        plain = settings(max_clients="1000")
        need = others_need(plain)
        for limit, room in ((None, 1000), (1000 + need, 1000), (999 + need, 999), (256, 192), (1, 1)):
            self.assertEqual(room_for_clients(plain, limit), room, limit)

    def test_others(self) -> None:
        """An embedded node has the other ends of the connections to it, unless it is in another process."""
        self.assertEqual(others_need(settings(max_connections="10")), 2 * 10 + 64)
        self.assertEqual(others_need(settings(max_connections="10", nodes="3")), 2 * 3 * 10 + 64)
        self.assertEqual(others_need(replace(settings(max_connections="10"), workers=2)), 10 + 64)

    def test_services(self) -> None:
        """A cluster may have services, each request to which needs a connection."""
        served = replace(settings(max_connections="10", max_service_requests="7"), cluster="couchbase://a")
        self.assertEqual(others_need(served), 10 + 7 + 64)

    def test_shortage(self) -> None:
        """The line has the wanted number, the limit, the consequence, and the remedy."""
        plain = settings()
        self.assertIsNone(shortage(plain, 65536))
        self.assertIsNone(shortage(plain, None))
        text = shortage(plain, 4096) or ""
        for part in (
            "4096 file descriptors",
            "room for 3904 clients",
            "--max-clients asks for 10000",
            "LimitNOFILE=",
        ):
            self.assertIn(part, text)

    def test_shortage_of_workers(self) -> None:
        """Each worker has its own limit, and its share of the clients."""
        share = read_settings(settings_for_worker(settings(workers="4")))
        self.assertIsNone(shortage(share, 4096, 4))
        self.assertIn(
            "1024 file descriptors has room for 944 clients in each of 4 workers",
            shortage(share, 1024, 4) or "",
        )


class RefusalTests(SynchronousTestCase):
    """Log lines about refused clients."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.refusals = RefusedConnections(self.clock)
        self.lines: list[str] = []

        def observe(event: Any) -> None:
            if event.get("log_namespace", "").startswith("gateway.descriptors"):
                self.assertEqual(event["log_level"], LogLevel.warn)
                self.lines.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def test_once_a_minute(self) -> None:
        """However many there are; each cause for itself; all are counted."""
        for _ in range(50):
            self.refusals.too_many(10, 10)
            self.refusals.too_many(7, 10)
            self.clock.advance(1)
        self.assertEqual(len(self.lines), 2)
        self.assertIn("as many as --max-clients allows", self.lines[0])
        self.assertIn("LimitNOFILE=", self.lines[1])
        self.clock.advance(10)
        self.refusals.too_many(10, 10)
        self.assertIn("(51 so far)", self.lines[2])
        self.assertEqual(self.refusals.counts, {"max_clients": 51, "descriptors": 50})

    def test_of_a_port(self) -> None:
        """Three lines of Twisted's for each client become one per minute; its other lines are kept."""
        seen: list[Any] = []
        log = Logger(namespace="port", observer=PortGuard(self.clock, self.refusals.exhausted))
        globalLogPublisher.addObserver(seen.append)
        self.addCleanup(globalLogPublisher.removeObserver, seen.append)
        for _ in range(20):
            log.info("EMFILE encountered; releasing reserved file descriptor.")
            log.info("EMFILE recovery: Closed socket from {address}", address=1)
            log.info("Re-reserving EMFILE recovery file descriptor.")
            log.info("Could not accept new connection ({acceptError})", acceptError="ENFILE")
        log.info("something else")
        self.assertEqual(len(self.lines), 1)
        self.assertEqual([event["log_format"] for event in seen[1:]], ["something else"])
        self.assertEqual(self.refusals.counts["descriptors"], 20)


class LimitTests(WorkersTestCase):
    """Whole services under a low limit."""

    CLIENTS = 300

    @inlineCallbacks
    def crowd(self, *arguments: str) -> Any:
        """Connect more clients than the limit allows, disconnect them, and return the metrics."""
        ours = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, ours[1]), ours[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, ours)
        prelude = LIMITED.format(soft=100, hard=200)
        self.running.start("--ephemeral", "--listen", LOOPBACK, *arguments, prelude=prelude)
        ((url,), _) = yield self.gathered(r"listens on (\S+)", "embedded node")
        if arguments:
            yield self.running.logged(r"worker \d+ is ready", 2)
        host, _, port = url.removeprefix("http://").partition(":")
        clients = []
        for _ in range(self.CLIENTS * (2 if arguments else 1)):
            client = socket.socket()
            clients.append(client)
            client.connect((host, int(port)))
        yield self.running.logged("clients are refused")
        for client in clients:
            client.close()
        found: dict[str, float] = {}
        while not found:
            try:
                found = yield self.metrics(url)
            except Exception:  # noqa: BLE001  # refused until the others are gone
                continue
        return found

    @inlineCallbacks
    def gathered(self, *patterns: str) -> Any:
        """Return what patterns have matched in the log."""
        found = []
        for pattern in patterns:
            found.append((yield self.running.logged(pattern)))
        return found

    def check(self) -> None:
        """Check that the log has the important line once, and nothing else."""
        log = self.running.log
        self.assertNotIn("Traceback", log)
        self.assertNotIn("EMFILE", log)
        self.assertEqual(log.count("--max-clients asks for"), 1, log)
        self.assertIn("200 file descriptors", log, "the soft limit was raised to the hard one")

    @inlineCallbacks
    def test_one_process(self) -> Any:
        """Clients beyond the limit are closed and counted; those within are served; one line says it."""
        found = yield self.crowd()
        self.check()
        self.assertEqual(self.running.log.count("clients are refused"), 1)
        self.assertGreater(found['couchgateway_connections_refused_total{cause="descriptors"}'], 0)
        self.assertEqual(found["process_max_fds"], 200)
        yield self.stop()

    @inlineCallbacks
    def test_workers(self) -> Any:
        """The same of each worker."""
        found = yield self.crowd("--workers", "2")
        self.check()
        self.assertLessEqual(self.running.log.count("clients are refused"), 2)
        for process in ("supervisor", "worker-1", "worker-2"):
            self.assertEqual(found[f'process_max_fds{{process="{process}"}}'], 200)
        yield self.stop()
