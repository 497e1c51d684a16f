"""``twistd couchgateway --workers``: real processes, sockets, signals, from start to stop."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.ssl import Certificate
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool

from tests.certificates import self_signed
from tests.gateway.workers.support import (
    DOCUMENT,
    LOOPBACK,
    Running,
    UnixEndpoints,
    WorkersTestCase,
    is_alive,
    is_refused,
    reactor,
)

# The environment that systemd sets for a socket.
SYSTEMD = """
import os
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
"""


class LifeTests(WorkersTestCase):
    """From start to stop."""

    @inlineCallbacks
    def test_life(self) -> Any:
        """Both workers serve the one node, a dead one is replaced, metrics are those of all; then all end."""
        url = yield self.begin("--access-log", anew=True)
        self.assertEqual((yield self.fetch("PUT", url + DOCUMENT + "a", data=b"1"))[0], 200)
        prefixes = set()
        gets = 0
        while len(prefixes) < 2:
            status, prefix, body = yield self.fetch("GET", url + DOCUMENT + "a")
            self.assertEqual((status, body), (200, b"1"))
            prefixes.add(prefix)
            gets += 1
        before = yield self.metrics(url)
        name = 'couchgateway_operations_total{operation="get",outcome="ok"}'
        self.assertEqual(before[name], gets)
        self.assertEqual(
            (before["couchgateway_workers"], before["couchgateway_worker_restarts_total"]), (2, 0)
        )

        os.kill(self.running.workers[1][0], signal.SIGKILL)
        yield self.running.logged("worker 1 has ended: killed by signal 9")
        self.assertEqual((yield self.fetch("GET", url + DOCUMENT + "a"))[0], 200)
        yield self.running.logged("worker 1 is ready", 2)
        while len(prefixes) < 3:
            status, prefix, _ = yield self.fetch("GET", url + DOCUMENT + "a")
            self.assertEqual(status, 200)
            prefixes.add(prefix)
        after = yield self.metrics(url)
        for name, value in before.items():
            # A worker's own time starts again with it.
            if not name.startswith("process_") and ("_total" in name or "_bucket" in name):
                self.assertGreaterEqual(after[name], value, name)
        self.assertEqual((after["couchgateway_workers"], after["couchgateway_worker_restarts_total"]), (2, 1))
        self.assertEqual(self.running.log.count("couchgateway listens on"), 1)
        for number in (1, 2):
            self.assertRegex(self.running.log, rf'worker {number}: .*"GET {DOCUMENT}a HTTP/1.1" 200 ')
        yield self.stop()

    @inlineCallbacks
    def test_ctrl_c(self) -> Any:
        """SIGINT reaches the workers as well, and they leave it to the supervisor to stop them in order."""
        yield self.begin()
        for pid in (pid for pids in self.running.workers.values() for pid in pids):
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGHUP)
        yield self.stop("INT")
        self.assertNotIn("has ended", self.running.log)

    @inlineCallbacks
    def test_request_under_way(self) -> Any:
        """A stop lets it finish, refuses new connections, and then ends everything."""
        url = yield self.begin()
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(
                b"PUT "
                + (DOCUMENT + "slow").encode()
                + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n1"
            )
            yield self.until_metrics(url, "couchgateway_client_connections", 2)
            self.running.signal("TERM")
            yield self.until(lambda: is_refused(port))
            client.sendall(b"2")
            answer = yield self.answer(client)
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
        self.assertIn(b"Connection: close", answer)
        yield self.running.ended
        self.stopped_in_order()

    @inlineCallbacks
    def test_supervisor_is_killed(self) -> Any:
        """Workers notice that they are alone, and end."""
        yield self.begin()
        pids = [pid for pids in self.running.workers.values() for pid in pids]
        self.assertTrue(all(map(is_alive, pids)))
        self.running.signal("KILL")
        yield self.running.ended
        yield self.until(lambda: not any(map(is_alive, pids)))

    @inlineCallbacks
    def test_stuck_worker(self) -> Any:
        """Its last metrics count; at the end it is killed."""
        url = yield self.begin("--grace-seconds", "0.1")
        yield self.fetch("PUT", url + DOCUMENT + "a", data=b"1")
        name = 'couchgateway_requests_total{method="PUT",route="put_document",status="200"}'
        self.assertEqual((yield self.metrics(url))[name], 1)
        stuck = self.running.workers[2][0]
        os.kill(stuck, signal.SIGSTOP)
        self.assertEqual((yield self.metrics(url))[name], 1)
        self.running.signal("TERM")
        yield self.running.logged("worker 2 did not stop in time")
        yield self.running.ended
        self.assertFalse(is_alive(stuck))

    @inlineCallbacks
    def test_port_in_use(self) -> Any:
        """The start ends with a message and status 1."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            self.running.start("--ephemeral", "--workers", "2", "--listen", endpoint)
            yield self.running.ended
        self.assertEqual(self.running.status, 1)
        self.assertIn(f"--listen: {endpoint}: Address already in use", self.running.log)

    @inlineCallbacks
    def test_node_cannot_start(self) -> Any:
        """The same if the embedded node cannot; no worker is left."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            self.running.start("--ephemeral", "--workers", "2", "--listen", LOOPBACK, "--node-kv-port", port)
            yield self.running.ended
        self.assertEqual(self.running.status, 1)
        self.assertIn("couchgateway cannot start: the embedded node", self.running.log)

    @inlineCallbacks
    def test_loss_at_the_stop(self) -> Any:
        """The status is also 1 if the embedded node cannot write everything to disk, in spite of the signal;
        with and without workers."""
        for workers in (0, 2):
            place = Path(self.mktemp()).absolute()
            self.running = Running()
            more = ("--workers", str(workers)) if workers else ()
            self.running.start("--data", str(place), "--listen", LOOPBACK, *more)
            (url,) = yield self.running.logged(r"listens on (\S+)")
            yield self.running.logged("embedded node: ")
            if workers:
                yield self.running.logged(r"worker \d+ is ready", workers)
            (place / "node0" / "default.sqlite").unlink()
            status, _, body = yield self.fetch("PUT", url + DOCUMENT + "a", data=b"1")
            self.assertEqual(status, 200, body)
            self.running.signal("TERM")
            yield self.running.ended
            self.assertEqual(self.running.status, 1, self.running.log)
            self.assertIn("bucket default was not closed cleanly", self.running.log)
            self.assertIn("Server Shut Down.", self.running.log)


class HangUpTests(WorkersTestCase):
    """SIGHUP, where it does not replace workers."""

    @inlineCallbacks
    def test_one_process(self) -> Any:
        """Without workers there is nothing to replace: that is said, and the gateway serves on."""
        self.running.start("--ephemeral", "--listen", LOOPBACK)
        (url,) = yield self.running.logged(r"listens on (\S+)")
        yield self.running.logged("embedded node: ")
        self.running.signal("HUP")
        yield self.running.logged("SIGHUP: settings take effect only at start")
        self.assertEqual((yield self.fetch("GET", url + "/ready"))[0], 200)
        yield self.stop()

    @inlineCallbacks
    def test_terminal_is_gone(self) -> Any:
        """Closing the terminal ends the gateway that runs in it, with all its processes, in order."""
        self.running.start("--ephemeral", "--workers", "2", "--listen", LOOPBACK, terminal=True)
        yield self.running.logged(r"worker \d+ is ready", 2)
        pids = [pid for pids in self.running.workers.values() for pid in pids]
        assert self.running.transport is not None
        self.running.transport.loseConnection()
        yield self.running.ended
        self.assertEqual(self.running.status, 0)
        self.assertEqual([pid for pid in pids if is_alive(pid)], [])


class EndpointTests(WorkersTestCase):
    """Whatever can be listened on."""

    @inlineCallbacks
    def test_unix_and_tls(self) -> Any:
        """Workers share a Unix socket, whose file goes with the supervisor, and speak TLS."""
        path = self.mktemp()[-60:].replace("/", "_")
        pem = self_signed()
        key = Path(self.mktemp())
        key.write_bytes(pem)
        tls = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={key}"
        yield self.begin(listen=(f"unix:{path}", tls))
        self.assertEqual((yield self.running.logged(r"listens on (\S+)", 2))[0], f"unix:{path}")
        url = self.running.log.rpartition("listens on ")[2].split()[0]
        self.assertTrue(url.startswith("https://127.0.0.1:"))
        pool = HTTPConnectionPool(reactor, persistent=False)
        secure = Agent(reactor, BrowserLikePolicyForHTTPS(Certificate.loadPEM(pem)), pool=pool)
        local = Agent.usingEndpointFactory(reactor, UnixEndpoints(path), pool)
        for agent, base in ((secure, url), (local, "http://localhost")):
            prefixes = set()
            while len(prefixes) < 2:
                status, prefix, _ = yield self.fetch("GET", base + "/health", agent)
                self.assertEqual(status, 200)
                prefixes.add(prefix)
        os.kill(self.running.workers[2][0], signal.SIGKILL)
        yield self.running.logged("worker 2 is ready", 2)
        self.assertEqual((yield self.fetch("GET", "http://localhost/health", local))[0], 200)
        self.running.signal("HUP")
        yield self.running.logged("all workers are replaced")
        yield self.running.logged("that was replaced has ended", 2)
        self.assertEqual((yield self.fetch("GET", "http://localhost/health", local))[0], 200)
        self.assertTrue(Path(path).exists())
        yield self.stop()
        self.assertFalse(Path(path).exists())

    @inlineCallbacks
    def test_systemd(self) -> Any:
        """A socket that was inherited itself is shared like any other."""
        account = Path(self.mktemp())
        account.write_text("hush-hush\n")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            self.running.start(
                "--ephemeral",
                *("--workers", "2", "--listen", "systemd:domain=INET:index=0"),
                *("--user", "u", "--password-file", str(account)),
                descriptors={3: listening.fileno()},
                prelude=SYSTEMD,
                anew=True,
            )
            yield self.running.logged(r"worker \d+ is ready", 2)
        self.assertEqual((yield self.running.logged(r"listens on (\S+)")), [url])
        prefixes = set()
        while len(prefixes) < 2:
            status, prefix, _ = yield self.fetch("GET", url + "/health")
            self.assertEqual(status, 200)
            prefixes.add(prefix)
        for pid in [pid for pids in self.running.workers.values() for pid in pids]:
            for told in (Path(f"/proc/{pid}/cmdline"), Path(f"/proc/{pid}/environ")):
                self.assertNotIn(b"hush-hush", told.read_bytes() if told.exists() else b"")
        yield self.stop()
