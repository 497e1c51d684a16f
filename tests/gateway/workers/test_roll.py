"""SIGHUP to ``twistd couchgateway --workers``: new workers, and no request is lost."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool

from gateway.access.watched import LOOK_SECONDS
from tests.gateway.workers.support import DOCUMENT, LOOPBACK, WorkersTestCase, is_alive, reactor

# A plugin that a worker cannot use once there is a file.
FAULTY = """
from pathlib import Path
from twisted.plugin import IPlugin
from zope.interface import implementer
from gateway.interfaces import IGatewayPlugin

@implementer(IPlugin, IGatewayPlugin)
class Faulty:
    name = "faulty"
    on_request = on_response = on_operation = None

    def attach(self, gateway):
        if Path(__file__).with_name("broken").exists():
            raise ValueError("the plugin is broken")

    def routes(self, app):
        pass

faulty = Faulty()
"""


def worker_of(answer: bytes) -> bytes:
    """Return the part of the request's id that is the worker's own."""
    return answer.partition(b"X-Request-Id: ")[2].partition(b"-")[0]


class RollTests(WorkersTestCase):
    """Workers replaced."""

    @property
    def pids(self) -> list[int]:
        """The worker processes that are the latest in their places."""
        return [pids[-1] for _, pids in sorted(self.running.workers.items())]

    @inlineCallbacks
    def test_under_load(self) -> Any:
        """With clients that keep their connections busy, every request is answered, and counted once."""
        url = yield self.begin()
        first = self.pids
        yield self.fetch("PUT", url + DOCUMENT + "a", data=b"1")
        prefixes: list[str] = []
        going = True

        @inlineCallbacks
        def client() -> Any:
            pool = HTTPConnectionPool(reactor)
            # It would try again on another connection: here a lost request is a failed one.
            pool.retryAutomatically = False
            agent = Agent(reactor, pool=pool)
            while going:
                status, prefix, body = yield self.fetch("GET", url + DOCUMENT + "a", agent)
                self.assertEqual((status, body), (200, b"1"))
                prefixes.append(prefix)
            yield pool.closeCachedConnections()

        clients: Deferred[Any] = gatherResults([client() for _ in range(8)])
        yield self.until(lambda: len(prefixes) >= 100)
        old = set(prefixes)
        self.running.signal("HUP")
        yield self.running.logged("SIGHUP: replacing the workers")
        self.running.signal("HUP")
        self.running.signal("HUP")
        yield self.running.logged("all workers are replaced", 2)
        yield self.running.logged("that was replaced has ended: exit status 0", 4)
        at = len(prefixes)
        yield self.until(lambda: len(prefixes) >= at + 100)
        going = False
        yield clients
        self.assertEqual(self.running.log.count("SIGHUP: replacing the workers"), 2)
        self.assertEqual([pid for pid in first if is_alive(pid)], [])
        self.assertFalse(set(first) & set(self.pids))
        self.assertFalse(set(prefixes[-50:]) & old)
        name = 'couchgateway_requests_total{method="GET",route="get_document",status="200"}'
        after = yield self.metrics(url)
        self.assertEqual(after[name], len(prefixes))
        self.assertEqual((after["couchgateway_workers"], after["couchgateway_worker_restarts_total"]), (2, 0))
        yield self.stop()

    @inlineCallbacks
    def test_idle_connections(self) -> Any:
        """They outlive their workers' replacement by one answer, which closes them; then those end."""
        url = yield self.begin()
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(address)) for _ in range(6)]
            workers = []
            for client in clients:
                client.sendall(get)
                answer = yield self.answer(client)
                self.assertNotIn(b"Connection: close", answer)
                workers.append(worker_of(answer))
            self.running.signal("HUP")
            yield self.running.logged(r"replaced, with \d connections left", 2)
            for client, worker in zip(clients, workers, strict=True):
                client.sendall(get)
                answer = yield self.answer(client)
                self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
                self.assertIn(b"Connection: close", answer)
                self.assertEqual(worker_of(answer), worker)
            yield self.running.logged("that was replaced has ended: exit status 0", 2)
        yield self.stop()

    @inlineCallbacks
    def test_no_old_worker_accepts(self) -> Any:
        """Once all workers are said to be replaced, the new ones serve all connections that are opened."""
        url = yield self.begin()
        port = int(url.rpartition(":")[2])
        get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with ExitStack() as stack:

            def connected() -> socket.socket:
                return stack.enter_context(socket.create_connection(("127.0.0.1", port)))

            # Kept open, so that the old workers stay.
            old = set()
            for client in [connected() for _ in range(8)]:
                client.sendall(get)
                old.add(worker_of((yield self.answer(client))))
            self.assertEqual(len(old), 2)
            self.running.signal("HUP")
            while "all workers are replaced" not in self.running.log:
                # Meanwhile none is refused.
                client = connected()
                client.sendall(get)
                self.assertIn(b" 200 OK", (yield self.answer(client)))
            clients = [connected() for _ in range(16)]
            head, _, _ = self.running.log.partition("all workers are replaced")
            self.assertEqual(head.count("replaced, with"), 2, self.running.log)
            for client in clients:
                client.sendall(get)
                answer = yield self.answer(client)
                self.assertNotIn(worker_of(answer), old)
                self.assertNotIn(b"Connection: close", answer)
        yield self.running.logged("that was replaced has ended: exit status 0", 2)
        yield self.stop()

    @inlineCallbacks
    def test_rules(self) -> Any:
        """While the file of rules is invalid, workers continue with the last valid rules, and new ones begin
        with them, even if all have ended; the log says why. Once it is valid, its rules are in effect."""
        rules = Path(self.mktemp())
        write = "[[rules]]\nname = 'all'\nwho = 'anyone'\nbuckets = '*'\nallow = 'write'\n"
        read = write.replace("write", "read")
        rules.write_text(write)
        url = yield self.begin("--auth", "none", "--access", str(rules))
        get = ("GET", url + DOCUMENT + "absent")
        self.assertEqual((yield self.fetch(*get))[0], 403)
        # A change after the start counts, too. The supervisor may notice it later than the workers.
        rules.write_text(read)
        yield self.running.logged("has changed, and is in effect", 2)
        yield deferLater(reactor, LOOK_SECONDS)
        self.assertEqual((yield self.fetch(*get))[0], 404)
        rules.write_text("spoiled")
        yield self.running.logged("is invalid; its old content stays in effect", 2)
        self.running.signal("HUP")
        yield self.running.logged("SIGHUP: the workers keep their settings: --access: .*Expected '='")
        for pid in self.pids:
            os.kill(pid, 9)
        pattern = "worker {}: .* is invalid; its last valid content is in effect: .*Expected '='"
        for number in (1, 2):
            yield self.running.logged(pattern.format(number))
            yield self.running.logged(f"worker {number} is ready", 2)
        self.assertEqual(self.running.log.count("is invalid; its last valid content"), 2)
        self.assertNotIn("did not start", self.running.log)
        self.assertNotIn("Traceback", self.running.log)
        for _ in range(4):
            self.assertEqual((yield self.fetch(*get))[0], 404)
        rules.write_text(write)
        yield self.running.logged("has changed, and is in effect", 4)
        self.assertEqual((yield self.fetch(*get))[0], 403)
        self.running.signal("HUP")
        yield self.running.logged("all workers are replaced")
        self.assertEqual((yield self.fetch(*get))[0], 403)
        self.running.signal("TERM")
        yield self.running.ended

    @inlineCallbacks
    def test_twice(self) -> Any:
        """A second SIGHUP does not wait for the idle connections that the first has left, as a proxy's pool
        has them; they are served on."""
        url = yield self.begin()
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        get = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"
        with ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(address)) for _ in range(6)]
            for client in clients:
                client.sendall(get)
                yield self.answer(client)
            for count in (1, 2):
                self.running.signal("HUP")
                yield self.running.logged("all workers are replaced", count)
            self.assertNotIn("waiting for", self.running.log)
            self.assertTrue(all(is_alive(pids[0]) for pids in self.running.workers.values()))
            for client in clients:
                client.sendall(get)
                self.assertIn(b"Connection: close", (yield self.answer(client)))
            yield self.running.logged("that was replaced has ended: exit status 0", 4)
        yield self.stop()

    @inlineCallbacks
    def test_drain_seconds(self) -> Any:
        """A connection that stays idle does not keep its worker forever."""
        url = yield self.begin("--drain-seconds", "0.1")
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.create_connection(address), socket.create_connection(address):
            yield self.until_metrics(url, "couchgateway_client_connections", 3)
            self.running.signal("HUP")
            yield self.running.logged("that was replaced has ended: exit status 0", 2)
        yield self.stop()

    @inlineCallbacks
    def test_settings(self) -> Any:
        """Those that are wrong change nothing; those that are right are the new workers'."""
        config = Path(self.mktemp())
        config.write_text('max-body = "1K"\n')
        url = yield self.begin("--config", str(config))
        first = self.pids
        put = ("PUT", url + DOCUMENT + "a")
        self.assertEqual((yield self.fetch(*put, data=b" " * 1024 + b"1"))[0], 413)
        config.write_text("max-body = \n")
        self.running.signal("HUP")
        yield self.running.logged("the workers keep their settings: --config: ")
        config.write_text("max-body = 0\n")
        self.running.signal("HUP")
        yield self.running.logged("the workers keep their settings: .*max-body")
        self.assertEqual((self.pids, [is_alive(pid) for pid in first]), (first, [True, True]))
        self.assertEqual((yield self.fetch(*put, data=b" " * 1024 + b"1"))[0], 413)
        config.write_text(f'max-body = "2K"\nlisten = "{LOOPBACK}"\nworkers = 3\nbucket = "other"\n')
        self.running.signal("HUP")
        yield self.running.logged("all workers are replaced")
        yield self.running.logged("that was replaced has ended", 2)
        self.assertEqual((yield self.fetch(*put, data=b" " * 1024 + b"1"))[0], 200)
        self.assertEqual((yield self.fetch("GET", url + "/ready"))[0], 200)
        yield self.running.logged("--bucket: a new value takes effect at the next start")
        yield self.stop()

    def faulty(self) -> tuple[str, Path]:
        """Return a folder for the path, with a plugin in it, and the file that breaks it."""
        folder = Path(self.mktemp()) / "gateway" / "plugins"
        folder.mkdir(parents=True)
        (folder / "couchgateway_faulty.py").write_text(FAULTY)
        return str(folder.parents[1].absolute()), folder / "broken"

    @inlineCallbacks
    def test_new_worker_fails(self) -> Any:
        """The old workers continue; a new one that is killed is retried until it can serve."""
        path, broken = self.faulty()
        url = yield self.begin(path=path)
        first = self.pids
        broken.touch()
        self.running.signal("HUP")
        yield self.running.logged(
            "the new worker 1 did not start: the plugin is broken .*; the others are not replaced"
        )
        self.assertEqual((self.pids, [is_alive(pid) for pid in first]), (first, [True, True]))
        self.assertEqual((yield self.fetch("GET", url + "/ready"))[0], 200)
        os.kill(first[0], 9)
        yield self.running.logged("worker 1 did not start: the plugin is broken .*; the next one starts")
        self.assertEqual((yield self.fetch("GET", url + "/ready"))[0], 200)
        broken.unlink()
        yield self.running.logged("worker 1 is ready", 2)
        self.running.signal("TERM")
        yield self.running.ended

    @inlineCallbacks
    def test_first_workers_fail(self) -> Any:
        """Then there is no service, and the reason is reported."""
        path, broken = self.faulty()
        broken.touch()
        self.running.start("--ephemeral", "--workers", "2", "--listen", LOOPBACK, path=path)
        yield self.running.ended
        self.assertEqual(self.running.status, 1)
        self.assertIn("couchgateway cannot start: the plugin is broken", self.running.log)
