"""``/ready`` and what the log says of the cluster: true in every mode, and cheap."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase, TestCase

from couchnode.embedded import EmbeddedNode
from gateway.cluster.readiness import FRESH_SECONDS, LONGEST_SECONDS, WATCH_SECONDS, Readiness, Watch
from gateway.service import GatewayService, with_account
from gateway.settings import resolve
from gateway.workers.supervisor import Supervisor
from tests.tooling.forking import Program

ROOT = Path(__file__).parents[3]
LOOPBACK = "tcp:0:interface=127.0.0.1"


class ReadinessTests(SynchronousTestCase):
    """One question at a time, and none while the last answer is fresh."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[Deferred[str | None]] = []
        self.readiness = Readiness(self.clock, self.probe)

    def probe(self) -> Deferred[str | None]:
        """Leave the question open."""
        self.asked.append(Deferred())
        return self.asked[-1]

    def test_one_question_for_many(self) -> None:
        """All callers during a probe get the same answer; one that leaves does not affect the others."""
        waiting = [self.readiness.check() for _ in range(100)]
        waiting[0].cancel()
        self.failureResultOf(waiting[0])
        self.assertEqual(len(self.asked), 1)
        self.asked[0].callback("why not")
        self.assertEqual([self.successResultOf(waiter) for waiter in waiting[1:]], ["why not"] * 99)

    def test_fresh(self) -> None:
        """An answer serves for a moment, then it is asked again."""
        first = self.readiness.check()
        self.asked[0].callback(None)
        self.assertIsNone(self.successResultOf(first))
        self.clock.advance(FRESH_SECONDS * 0.9)
        self.assertIsNone(self.successResultOf(self.readiness.check()))
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(FRESH_SECONDS * 0.2)
        self.assertNoResult(self.readiness.check())
        self.assertEqual(len(self.asked), 2)

    def test_no_answer(self) -> None:
        """A probe without an answer ends by the clock; a failing probe is a reason."""
        first = self.readiness.check()
        self.clock.advance(LONGEST_SECONDS)
        self.assertEqual(self.successResultOf(first), "the cluster did not answer in time")
        broken = Readiness(self.clock, lambda: fail(ZeroDivisionError()))
        self.assertIn("The gateway failed", self.successResultOf(broken.check()) or "")

    def test_at_once(self) -> None:
        """A probe that knows at once is asked again as any other."""
        answers = iter(["first", None])
        readiness = Readiness(self.clock, lambda: succeed(next(answers)))
        self.assertEqual(self.successResultOf(readiness.check()), "first")
        self.clock.advance(FRESH_SECONDS)
        self.assertIsNone(self.successResultOf(readiness.check()))

    def test_watch(self) -> None:
        """A line for each change, and none in between."""
        answers = ["refused", "refused", None, None, "lost", None]
        told: list[str | None] = []
        watch = Watch(self.clock, Readiness(self.clock, lambda: succeed(answers.pop(0))), told.append)
        watch.start()
        self.clock.pump([WATCH_SECONDS] * 5)
        watch.stop()
        self.assertEqual((told, answers), (["refused", None, "lost", None], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_end(self) -> None:
        """Nothing is left of a question that is open at the end."""
        told: list[str | None] = []
        watch = Watch(self.clock, self.readiness, told.append)
        watch.start()
        watch.stop()
        self.readiness.close()
        self.assertEqual((told, self.clock.getDelayedCalls()), ([], []))


class HttpServer(Protocol):
    """Says what no node says."""

    def connectionMade(self) -> None:
        """Answer at once."""
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # type: ignore[union-attr]


class ClusterTests(TestCase):
    """Gateways before nodes of many kinds, over sockets."""

    timeout = 60

    def setUp(self) -> None:
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: Any) -> None:
        """Keep what the gateway logs."""
        if str(event.get("log_namespace", "")).startswith("gateway.service"):
            self.lines.append(event["log_format"].format(**event))

    @inlineCallbacks
    def ready(self, cluster: str, **given: Any) -> Any:
        """Start a gateway, and return status and body of its ``/ready``."""
        self.lines.clear()
        service = GatewayService(
            resolve({"listen": [LOOPBACK], "cluster": cluster, "timeout": "1", **given}, {})
        )
        service.privilegedStartService()
        service.startService()
        answer = yield treq.get(service.urls[0] + "/ready", persistent=False)
        told = yield answer.json()
        document = yield treq.get(
            service.urls[0] + "/v1/buckets/wine/documents/k", auth=("wine", "red"), persistent=False
        )
        body = yield document.json() if document.code != 404 else document.content()
        yield service.stopService()
        return answer.code, told, document.code, body

    def account(self, password: str) -> dict[str, str]:
        """Return the options of a service account."""
        path = self.mktemp()
        FilePath(path).setContent(password.encode())
        return {"user": "admin", "password-file": path}

    @inlineCallbacks
    def test_nobody_there(self) -> Any:
        """Also without a service account: 503, and host, port and cause in ``/ready``, errors and log."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            status, told, document, body = yield self.ready(f"couchbase://127.0.0.1:{port}")
        cause = f"127.0.0.1:{port}: connection refused"
        self.assertEqual((status, told), (503, {"status": "unavailable", "reason": cause}))
        self.assertEqual(
            (document, body["code"], body["retry"]), (503, "UnderlyingServiceUnavailable", "safe")
        )
        self.assertIn(cause, body["message"])
        self.assertEqual(self.lines, [f"the cluster cannot be used: {cause}"])

    @inlineCallbacks
    def test_something_else_there(self) -> Any:
        """An HTTP server, a silent port, an unknown name."""
        http = reactor.listenTCP(0, Factory.forProtocol(HttpServer), interface="127.0.0.1")  # type: ignore[attr-defined]
        silent = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")  # type: ignore[attr-defined]
        for host, words in (
            (f"127.0.0.1:{http.getHost().port}", "HTTP server"),
            (f"127.0.0.1:{silent.getHost().port}", "no answer in time"),
            ("no-such-host.invalid:11210", "host name is unknown"),
        ):
            status, told, _, body = yield self.ready(f"couchbase://{host}")
            self.assertEqual(status, 503)
            for text in (told["reason"], body["message"], self.lines[0]):
                self.assertIn(host, text)
                self.assertIn(words, text)
        yield http.stopListening()
        yield silent.stopListening()

    @inlineCallbacks
    def test_a_node(self) -> Any:
        """200 in every mode while documents can be served; wrong accounts and buckets are named."""
        node = EmbeddedNode(None, users=[("admin", "secret")], buckets=[("wine", "red")])
        yield node.start()
        cluster = node.connection_string
        status, told, document, _ = yield self.ready(cluster)
        self.assertEqual((status, told, document), (200, {"status": "ready"}, 404))
        self.assertIn(f"couchgateway serves {cluster}", self.lines)
        self.assertRegex(self.lines[-1], r"^Ready: http://127\.0\.0\.1:\d+ \(couchbase://")
        for given, reason in (
            ({"bucket": "wine", **self.account("secret")}, None),
            ({"bucket": "wine", "auth": "none", **self.account("secret")}, None),
            ({"bucket": "beer", **self.account("secret")}, "there is no bucket 'beer' (--bucket)"),
            ({"bucket": "wine", **self.account("wrong")}, "the cluster refused the user 'admin'"),
        ):
            status, told, _, _ = yield self.ready(cluster, **given)
            self.assertEqual(status, 200 if reason is None else 503, (given, told))
            self.assertIn(reason or "", told.get("reason", ""))
        yield node.stop()
        status, told, _, _ = yield self.ready(cluster, bucket="wine", **self.account("secret"))
        self.assertEqual(status, 503)
        self.assertIn(f":{node_port(cluster)}: connection refused", told["reason"])


def node_port(cluster: str) -> str:
    """Return the port of a connection string."""
    return cluster.rpartition(":")[2]


def run_to_end(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program; both its outputs are in one text."""
    with Program(
        command,
        cwd=ROOT,
        env={**os.environ, "HOME": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=100)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)


class StartTests(TestCase):
    """Mistakes of an operator, from the command line."""

    timeout = 120

    def start(self, *arguments: str) -> Deferred[Any]:
        """Run the command to its end."""
        twistd = Path(sys.executable).with_name("twistd")
        command = [sys.executable, str(twistd), "--nodaemon", "--pidfile=", "couchgateway", *arguments]
        return deferToThread(run_to_end, command)

    @inlineCallbacks
    def check(self, words: str, *arguments: str) -> Any:
        """The command ends with status 1 and one line that says why, and never said that it listens."""
        ended = yield self.start(*arguments)
        self.assertEqual(ended.returncode, 1, ended.stdout)
        told = [line for line in ended.stdout.splitlines() if "couchgateway cannot start: " in line]
        self.assertEqual(len(told), 1, ended.stdout)
        self.assertIn(words, told[0])
        for word in ("Traceback", "couchgateway listens", "Ready: "):
            self.assertNotIn(word, ended.stdout)

    @inlineCallbacks
    def test_port_in_use(self) -> Any:
        """The option, and what to do."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            for workers in ([], ["--workers", "1"]):
                yield self.check(
                    f"--listen: {listen}: Address already in use; another program listens there. "
                    "Choose another port (make run PORT=8081)",
                    "--ephemeral", "--listen", listen, *workers,
                )  # fmt: skip

    @inlineCallbacks
    def test_unusable_data(self) -> Any:
        """A folder that cannot be, and one whose content was damaged."""
        damaged = FilePath(self.mktemp())
        damaged.makedirs()
        damaged.child("cluster.json").setContent(b"{")
        for folder in (__file__, damaged.path):
            yield self.check(str(folder), "--data", str(folder), "--listen", LOOPBACK)


class DiskTests(TestCase):
    """The embedded node's disk."""

    timeout = 60

    @inlineCallbacks
    def test_full(self) -> Any:
        """While nothing can be written to disk, ``/ready`` says so; as soon as it can, all is well."""
        options = {"listen": [LOOPBACK], "data": self.mktemp()}
        service = GatewayService(resolve(options, {}))
        service.privilegedStartService()
        service.startService()
        self.addCleanup(service.stopService)
        yield service.started
        node = service._embedded.node  # type: ignore[union-attr]
        bucket = node.cluster.nodes[0].buckets["default"]  # type: ignore[union-attr]
        for error, status in ((None, 200), ("default.sqlite: database or disk is full", 503), (None, 200)):
            bucket.flusher.write_error = error
            answer = yield treq.get(service.urls[0] + "/ready", persistent=False)
            told = yield answer.json()
            self.assertEqual(answer.code, status)
            self.assertIn(error or "", told.get("reason", ""))

    def test_workers_are_told(self) -> None:
        """A supervisor reports the problem to its workers, also to new ones while it lasts, and once when it
        is over."""
        told: list[str | None] = []

        class Child:
            def send(self, kind: str, reason: str | None) -> None:
                told.append(reason)

        class Node:
            reason: str | None = None

            def hindrance(self) -> str | None:
                return self.reason

        node = Node()
        settings = with_account(resolve({"listen": [LOOPBACK], "ephemeral": True, "workers": "1"}, {}))
        supervisor = Supervisor(settings, node, Clock())  # type: ignore[arg-type]
        supervisor.fleet = [Child()]  # type: ignore[assignment]
        for node.reason in (None, "full", "full", None, None):
            supervisor._look_at_node()
        self.assertEqual(told, ["full", "full", None])
