"""A ``twistd couchgateway --workers`` to test: its processes, its log, and requests to it."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from tests.tooling.forking import spawn

reactor: Any = installed

LOOPBACK = "tcp:0:interface=127.0.0.1"
DOCUMENT = "/v1/buckets/default/documents/"


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended may not have been waited for yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self").exists()


class Running(ProcessProtocol):
    """One ``twistd couchgateway``, and what it logs."""

    def __init__(self) -> None:
        self.log = ""
        self.status: int | None = None
        self.ended: Deferred[None] = Deferred()
        self._waiting: list[tuple[str, int, Deferred[list[Any]]]] = []

    def start(
        self,
        *arguments: str,
        descriptors: dict[int, Any] | None = None,
        prelude: str = "",
        path: str | None = None,
        terminal: bool = False,
        anew: bool = False,
    ) -> None:
        """Start it, as a fork of a process that has imported it.

        :param descriptors: what it inherits besides.
        :param prelude: code to run first.
        :param path: a folder to put on its path.
        :param terminal: run it in one, which goes when the transport is closed.
        :param anew: start a new interpreter, as users do.
        """
        code = f"{prelude}\nfrom twisted.scripts.twistd import run; run()"
        words = ["-c", code, "--nodaemon", "--pidfile=", "couchgateway", *arguments]
        command = [sys.executable, *words]
        environment = {name: value for name, value in os.environ.items() if "COUCHGATEWAY" not in name}
        environment["PYTHONPATH"] = os.pathsep.join(one for one in (path, *sys.path) if one)
        if terminal:
            reactor.spawnProcess(self, sys.executable, command, environment, usePTY=True)
            return
        pipes = {0: "w", 1: "r", 2: "r"} | (descriptors or {})
        if anew:
            reactor.spawnProcess(self, sys.executable, command, environment, childFDs=pipes)
        else:
            spawn(self, words, environment, descriptors=pipes)

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        assert self.transport is not None
        return self.transport.pid  # type: ignore[no-any-return]

    @property
    def workers(self) -> dict[int, list[int]]:
        """Processes of each worker by its number, oldest first."""
        found: dict[int, list[int]] = {}
        for number, pid in re.findall(r"worker (\d+) is ready, process (\d+)", self.log):
            found.setdefault(int(number), []).append(int(pid))
        return found

    def logged(self, pattern: str, count: int = 1) -> Deferred[list[Any]]:
        """Return what a pattern has matched so far, as soon as it has so often."""
        waiting: Deferred[list[Any]] = Deferred()
        self._waiting.append((pattern, count, waiting))
        self._look()
        return waiting

    def signal(self, name: str) -> None:
        """Send a signal."""
        assert self.transport is not None
        self.transport.signalProcess(name)

    def outReceived(self, data: bytes) -> None:
        """Take what it logs."""
        self.log += data.decode()
        self._look()

    errReceived = outReceived

    def _look(self) -> None:
        for waiting in list(self._waiting):
            pattern, count, found = waiting
            matches = re.findall(pattern, self.log)
            if len(matches) >= count:
                self._waiting.remove(waiting)
                found.callback(matches)

    def processEnded(self, reason: Failure) -> None:
        """Note how."""
        how: Any = reason.value
        self.status = how.exitCode if how.signal is None else -how.signal
        for _, _, found in self._waiting:
            found.errback(RuntimeError(f"it has ended:\n{self.log}"))
        self.ended.callback(None)


@implementer(IAgentEndpointFactory)
class UnixEndpoints:
    """Sends every request to one Unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def endpointForURI(self, uri: object) -> UNIXClientEndpoint:
        return UNIXClientEndpoint(reactor, self._path)


class WorkersTestCase(TestCase):
    """Runs a gateway with two workers on an embedded node."""

    timeout = 120

    def setUp(self) -> None:
        self.running = Running()

    @inlineCallbacks
    def tearDown(self) -> Any:
        """Whatever happened, nothing is left running."""
        pids = [pid for pids in self.running.workers.values() for pid in pids]
        if self.running.transport is not None and not self.running.ended.called:
            try:
                self.running.signal("KILL")
            except ProcessExitedAlready:
                pass
            yield self.running.ended
        yield self.until(lambda: not any(map(is_alive, pids)))

    @inlineCallbacks
    def begin(
        self,
        *arguments: str,
        listen: tuple[str, ...] = (LOOPBACK,),
        path: str | None = None,
        anew: bool = False,
    ) -> Any:
        """Start it, and return the first URL when all workers and the node are up."""
        endpoints = [part for endpoint in listen for part in ("--listen", endpoint)]
        self.running.start("--ephemeral", "--workers", "2", *endpoints, *arguments, path=path, anew=anew)
        found = yield gatherResults(
            [
                self.running.logged(r"listens on (\S+)"),
                self.running.logged(r"worker \d+ is ready", 2),
                self.running.logged("embedded node: "),
            ]
        )
        return found[0][0]

    @inlineCallbacks
    def until(self, is_so: Any) -> Any:
        """Wait for a condition without a notification; the test's timeout limits it."""
        while not is_so():
            yield deferLater(reactor, 0.02)

    @inlineCallbacks
    def fetch(self, method: str, url: str, agent: Any = None, **options: Any) -> Any:
        """Send a request on a new connection; returns (status, prefix of its id, body)."""
        agent = agent or Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))
        response = yield treq.client.HTTPClient(agent).request(method, url, **options)
        body = yield response.content()
        (request_id,) = response.headers.getRawHeaders("X-Request-Id")
        return response.code, request_id.partition("-")[0], body

    @inlineCallbacks
    def answer(self, client: socket.socket) -> Any:
        """Return the head of the next answer on a connection, and the part of its body that came with it."""
        client.setblocking(False)
        answer = b""

        def is_there() -> bool:
            nonlocal answer
            try:
                answer += client.recv(65536)
            except BlockingIOError:
                pass
            return b"\r\n\r\n" in answer

        yield self.until(is_there)
        return answer

    @inlineCallbacks
    def metrics(self, url: str) -> Any:
        """Return every figure by its name and labels."""
        status, _, body = yield self.fetch("GET", url + "/metrics")
        self.assertEqual(status, 200, body)
        lines = [line.rpartition(" ") for line in body.decode().splitlines() if line[0] != "#"]
        return {name: float(value) for name, _, value in lines}

    @inlineCallbacks
    def until_metrics(self, url: str, name: str, value: float) -> Any:
        """Wait until a figure has a value."""
        while (yield self.metrics(url))[name] != value:
            pass

    @inlineCallbacks
    def stop(self, name: str = "TERM") -> Any:
        """Stop it, and see that no process is left."""
        pids = [pid for pids in self.running.workers.values() for pid in pids]
        self.running.signal(name)
        yield self.running.ended
        self.assertEqual([pid for pid in pids if is_alive(pid)], [])
        self.stopped_in_order(name)

    def stopped_in_order(self, name: str = "TERM") -> None:
        """See that it has ended as twistd does."""
        self.assertEqual(self.running.status, -getattr(signal, f"SIG{name}"), self.running.log)
        self.assertIn("Server Shut Down.", self.running.log)
        self.assertNotIn("Traceback", self.running.log)


def is_refused(port: int) -> bool:
    """Return whether a port has no listener."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False
