"""Both ends of the channel, and sockets that are shared, within one process."""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import Any
from unittest import skipUnless

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol, serverFromString
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from gateway.descriptors import RefusedConnections
from gateway.dialect.errors import Refusal
from gateway.listeners import SharedPort
from gateway.metricvalues import MetricValues
from gateway.server import GatewayServer
from gateway.service import with_account
from gateway.settings import resolve
from gateway.workers.acceptor import AT_ONCE, Acceptor, Inherited
from gateway.workers.balance import Balancer, ConnectionCounts
from gateway.workers.child import START_SECONDS, Child, WorkerFailed
from gateway.workers.messages import MessageReader, encode
from gateway.workers.process import CHANNEL_IN, CHANNEL_OUT
from gateway.workers.sockets import Binder
from gateway.workers.worker import Worker
from tests.gateway.workers.support import LOOPBACK

reactor: Any = installed


class Greeter(Protocol):
    """Says who it is, and waits for the end."""

    def connectionMade(self) -> None:
        self.factory.connections.append(self)  # type: ignore[union-attr]
        self.transport.write(self.factory.name)  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.connections.remove(self)  # type: ignore[union-attr]


class Client(Protocol):
    """Fires ``heard`` with the first bytes, ``lost`` at the end."""

    def __init__(self) -> None:
        self.heard: Deferred[bytes] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        if not self.heard.called:
            self.heard.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class SharedSocketTests(TestCase):
    """Two workers' acceptors on a supervisor's socket."""

    def setUp(self) -> None:
        self.counts = ConnectionCounts.make(3)
        self.binder = Binder(reactor)
        self.factories: list[Any] = []

    @inlineCallbacks
    def bound(self, description: str) -> Any:
        """Bind as the supervisor does, and return its address and two ports as workers have them."""
        port = yield serverFromString(self.binder, description).listen(Factory())
        shared = []
        for name in (b"one", b"two"):
            factory: Any = Factory.forProtocol(Greeter)
            self.factories.append(factory)
            factory.name, factory.connections, factory.noisy = name, [], False
            balancer = Balancer(self.counts, self.counts.take(), factory.connections.__len__, reactor.seconds)
            descriptors = [os.dup(one) for one in self.binder.descriptors]
            inherited = Inherited(reactor, descriptors, balancer)
            shared.append((yield serverFromString(inherited, description).listen(factory)))
        return port.getHost(), shared

    @inlineCallbacks
    def greeted(self, endpoint: Any) -> Any:
        client = yield connectProtocol(endpoint, Client())
        return client, (yield client.heard)

    @inlineCallbacks
    def check(self, description: str, endpoint_of: Any) -> Any:
        """Both get connections; one that closes its socket leaves it to the other."""
        address, shared = yield self.bound(description)
        self.assertEqual([port.getHost() for port in shared], [address, address])
        clients = []
        for _ in range(6):
            clients.append((yield self.greeted(endpoint_of(address))))
        self.assertEqual({name for _, name in clients}, {b"one", b"two"})
        yield shared[0].stopListening()
        for _ in range(3):
            clients.append((yield self.greeted(endpoint_of(address))))
            self.assertEqual(clients[-1][1], b"two")
        yield shared[1].stopListening()
        for client, _ in clients:
            client.transport.loseConnection()
            yield client.lost
        yield self.binder.close()
        self.counts.close()

    @inlineCallbacks
    def test_end(self) -> Any:
        """When the supervisor has closed its end, workers continue; the last one to close accepts the
        waiting connections."""
        address, shared = yield self.bound("tcp:0:interface=127.0.0.1")
        yield self.binder.close()
        client, _ = yield self.greeted(HostnameEndpoint(reactor, address.host, address.port))
        yield shared[0].stopListening()
        waiting = [socket.create_connection((address.host, address.port)) for _ in range(5)]
        before = len(self.factories[1].connections)
        shared[1].take_waiting()
        yield shared[1].stopListening()
        self.assertEqual(len(self.factories[1].connections), before + 5)
        for one in waiting:
            one.setblocking(False)
            heard = b""
            while not heard:
                yield deferLater(reactor, 0.01)
                try:
                    heard = one.recv(10)
                except BlockingIOError:
                    continue
            self.assertEqual(heard, b"two")
            one.close()
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((address.host, address.port))
        client.transport.loseConnection()
        yield client.lost
        while any(factory.connections for factory in self.factories):
            yield deferLater(reactor, 0.01)
        self.counts.close()

    def test_tcp(self) -> Any:
        """On IPv4."""
        return self.check(
            "tcp:0:interface=127.0.0.1", lambda address: HostnameEndpoint(reactor, address.host, address.port)
        )

    def test_tcp6(self) -> Any:
        """On IPv6."""
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            raise self.skipTest("there is no IPv6 here") from None
        return self.check(
            "tcp6:0:interface=\\:\\:1", lambda address: HostnameEndpoint(reactor, address.host, address.port)
        )

    @inlineCallbacks
    def test_unix(self) -> Any:
        """On a Unix socket, whose file goes with the supervisor's end of it and not before."""
        path = self.mktemp()[-60:].replace("/", "_")

        def endpoint_of(address: object) -> Any:
            self.assertTrue(os.path.exists(path))
            return UNIXClientEndpoint(reactor, path)

        yield self.check(f"unix:{path}", endpoint_of)
        self.assertFalse(os.path.exists(path))

    @inlineCallbacks
    def test_no_socket(self) -> Any:
        """An endpoint without a socket is an error, not a new socket."""
        inherited = Inherited(reactor, [], Balancer(self.counts, 0, int, reactor.seconds))
        listening = serverFromString(inherited, "tcp:0:interface=127.0.0.1").listen(Factory())
        error = yield self.assertFailure(listening, OSError)
        self.assertIn("no socket was inherited", str(error))
        self.counts.close()


class ListeningStub:
    """A socket whose ``accept`` fails as scripted, when what waits is taken."""

    family = socket.AF_INET
    failure: Exception = BlockingIOError(errno.EAGAIN, "none waits")

    def __init__(self) -> None:
        self.waiting: list[socket.socket] = []

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return bytes(size)

    def setblocking(self, flag: bool) -> None:
        pass

    def accept(self) -> Any:
        if self.waiting:
            return self.waiting.pop(), None
        raise self.failure


class ReactorStub(Clock):
    """Notes who wants to read."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[object] = []

    def addReader(self, reader: object) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: object) -> None:
        self.readers.remove(reader)


class AcceptorTests(SynchronousTestCase):
    """Failures of accepting a connection."""

    def setUp(self) -> None:
        self.counts = ConnectionCounts.make(2)
        self.addCleanup(self.counts.close)
        self.reactor = ReactorStub()
        self.socket: Any = ListeningStub()
        balancer = Balancer(self.counts, self.counts.take(), lambda: 5, self.reactor.seconds)
        self.refusals = RefusedConnections(self.reactor)
        self.acceptor = Acceptor(self.reactor, self.socket, Factory(), balancer, self.refusals)
        self.acceptor.startListening()

    def test_another_was_quicker(self) -> None:
        """Another worker has accepted it: this is not an error."""
        self.acceptor.doRead()
        self.assertEqual(self.reactor.readers, [self.acceptor])

    def test_no_descriptors(self) -> None:
        """It leaves connections to others for a moment, instead of trying without end."""
        self.socket.failure = OSError(errno.EMFILE, "too many")
        self.acceptor.doRead()
        self.assertEqual(self.reactor.readers, [])
        self.reactor.advance(0.5)
        self.assertEqual(self.reactor.readers, [self.acceptor])

    def test_no_descriptors_for_what_was_accepted(self) -> None:
        """This is not a bug, and has no traceback."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.socket.waiting = [ours]

        def adopt(*_: object) -> None:
            raise OSError(errno.EMFILE, "too many")

        self.reactor.adoptStreamConnection = adopt  # type: ignore[attr-defined]
        self.acceptor.doRead()
        self.assertEqual(self.refusals.counts, {"max_clients": 0, "descriptors": 1})
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_has_more_than_others(self) -> None:
        """It does not even try to accept, for a moment."""
        self.counts.set(self.counts.take(), 2)
        self.socket.failure = AssertionError("accepted")
        self.acceptor.doRead()
        self.assertEqual(self.reactor.readers, [])
        self.reactor.advance(Balancer.FIRST_PAUSE)
        self.assertEqual(self.reactor.readers, [self.acceptor])
        self.assertRaises(AssertionError, self.acceptor.doRead)

    def test_a_connection_that_fails(self) -> None:
        """One that is gone already is dropped; any other failure is logged; others are accepted."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        for failure, logged in ((OSError(errno.ENOTCONN, "gone"), 0), (ValueError("bad"), 1)):

            def adopt(*_: object, failure: Exception = failure) -> None:
                raise failure

            self.reactor.adoptStreamConnection = adopt  # type: ignore[attr-defined]
            self.socket.waiting = [ours]
            self.acceptor.doRead()
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), logged)
        self.assertEqual(ours.fileno(), -1)
        self.assertEqual(self.reactor.readers, [self.acceptor])


@skipUnless(sys.platform.startswith("linux"), "only Linux says how many connections wait")
class BurstTests(SynchronousTestCase):
    """Many connections at once."""

    def setUp(self) -> None:
        counts = ConnectionCounts.make(2)
        self.addCleanup(counts.close)
        self.taken = 0
        self.reactor = ReactorStub()
        self.reactor.adoptStreamConnection = self.take  # type: ignore[attr-defined]
        balancer = Balancer(counts, counts.take(), lambda: self.taken, self.reactor.seconds)
        counts.set(counts.take(), 0)
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        refusals = RefusedConnections(self.reactor)
        self.acceptor = Acceptor(self.reactor, self.listening, Factory(), balancer, refusals)
        self.acceptor.startListening()
        self.addCleanup(self.acceptor.stopListening)
        # So that it reads when it is stopped.
        self.addCleanup(self.reactor.advance, 1)

    def take(self, *_: object) -> None:
        self.taken += 1

    def connect(self, count: int) -> None:
        for _ in range(count):
            self.addCleanup(socket.create_connection(self.listening.getsockname()).close)

    def test_a_turn(self) -> None:
        """A worker accepts some in each turn, not all, which would delay its other clients."""
        self.connect(2 * AT_ONCE + 8)
        self.acceptor.doRead()
        self.assertEqual(self.taken, AT_ONCE)

    def test_share(self) -> None:
        """It takes its share of those that wait in one go, and leaves the others to the other worker."""
        self.connect(AT_ONCE)
        self.acceptor.doRead()
        self.assertEqual(self.taken, AT_ONCE // 2)
        self.acceptor.doRead()
        self.assertEqual(self.taken, AT_ONCE // 2)
        self.assertEqual(self.reactor.readers, [])

    def test_beyond_its_share(self) -> None:
        """If the other worker takes none, this one takes one in each turn, between short pauses."""
        self.connect(AT_ONCE)
        self.acceptor.doRead()
        for _ in range(2):
            before = self.taken
            self.acceptor.doRead()
            self.assertLessEqual(self.taken - before, 1)
            self.reactor.advance(0.005)
        self.assertEqual(self.taken, AT_ONCE // 2 + 1)


class WorkerTests(SynchronousTestCase):
    """The worker's end."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.quits: list[None] = []
        self.worker = Worker(self.clock, lambda: self.quits.append(None))
        self.transport = StringTransport()
        self.worker.makeConnection(self.transport)

    def told(self) -> list[dict[str, Any]]:
        messages = MessageReader().receive(self.transport.value())
        self.transport.clear()
        return messages

    def test_not_understood(self) -> None:
        """The worker ends: the message cannot be from a supervisor."""
        for data in (b"hello\n", encode("nonsense"), encode("total"), encode("total", id=1, metrics=3)):
            self.setUp()
            self.worker._gathering[1] = Deferred()
            self.worker.dataReceived(data)
            self.assertEqual(len(self.quits), 1, data)
            self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_cannot_serve(self) -> None:
        """The worker reports why, and ends."""
        self.worker.dataReceived(encode("serve", settings={}, sockets=[], counts=-1, slots=1, slot=0))
        (failed,) = self.told()
        self.assertEqual(failed["type"], "failed")
        self.assertTrue(failed["reason"])
        self.assertEqual((self.quits, self.worker.failed), ([None], True))
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_supervisor_is_gone(self) -> None:
        """The worker ends, and callers that wait for sums are notified."""
        waiting = self.worker._gather()
        self.worker.connectionLost()
        self.assertEqual(self.quits, [None])
        self.failureResultOf(waiting, Refusal)
        self.failureResultOf(self.worker._gather(), Refusal)
        self.successResultOf(self.worker.stop())

    def test_backlog(self) -> None:
        """A worker that ends accepts the connections in the backlog, which nobody else may do; one that is
        replaced leaves them to the others."""

        class Shared(SharedPort):
            def __init__(self, calls: list[str]) -> None:
                self.calls = calls

            def take_waiting(self) -> None:
                self.calls.append("take")

            def stopListening(self) -> None:
                self.calls.append("close")

        settings = with_account(resolve({"listen": [LOOPBACK], "ephemeral": True}, {}))
        for end, expected in (("stop", ["take", "close"]), ("drain", ["close"])):
            self.setUp()
            calls: list[str] = []
            server: Any = GatewayServer(settings, (), self.clock)  # type: ignore[arg-type]
            server._ports = [Shared(calls)]
            self.worker._server = server
            if end == "stop":
                self.worker.stop()
            else:
                self.worker._drain(server)
            self.assertEqual(calls[:2], expected)

    def test_sums(self) -> None:
        """Each request for sums has its answer; one that takes too long fails."""
        first, second, third = (self.worker._gather() for _ in range(3))
        numbers = [message["id"] for message in self.told()]
        sums = MetricValues()
        sums.counters["n",] = [7]
        self.worker.dataReceived(encode("total", id=numbers[1], metrics=sums.to_json()))
        self.assertNoResult(first)
        self.assertEqual(self.successResultOf(second).counters, sums.counters)
        first.cancel()
        self.failureResultOf(first)
        self.clock.advance(10)
        self.assertEqual(self.failureResultOf(third, Refusal).value.problem.status, 503)
        self.worker.dataReceived(encode("total", id=numbers[2], metrics=sums.to_json()))
        self.assertEqual((self.worker._gathering, self.quits), ({}, []))

    def test_log(self) -> None:
        """Lines are passed on; while the supervisor is slow they are counted only."""
        event = {"log_level": LogLevel.warn, "log_namespace": "a.b", "log_format": "{n} x", "n": 3}
        self.worker.observe(event)
        self.worker.pauseProducing()
        for _ in range(5):
            self.worker.observe(event)
        (told,) = self.told()
        self.assertEqual(
            {name: told[name] for name in ("level", "namespace", "text")},
            {"level": "warn", "namespace": "a.b", "text": "3 x"},
        )
        seen: list[str] = []

        def observer(logged: Any) -> None:
            seen.append(str(logged.get("count")))

        globalLogPublisher.addObserver(observer)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, observer)  # type: ignore[arg-type]
        self.worker.resumeProducing()
        self.assertEqual(seen, ["5"])


class ProcessStub:
    """A worker's process, as its protocol sees it."""

    def __init__(self) -> None:
        self.pipes: dict[int, object] = {CHANNEL_IN: self}
        self.pid = 1
        self.written = b""
        self.signals: list[str] = []

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        assert descriptor == CHANNEL_IN
        self.written += data

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)


class ChildTests(SynchronousTestCase):
    """The supervisor's end."""

    def setUp(self) -> None:
        self.clock: Any = Clock()
        self.clock.spawnProcess = lambda child, *_, **__: child.makeConnection(self.process)
        self.process: Any = ProcessStub()
        self.gathers: list[int] = []
        self.child = Child(1, self.clock, lambda child, number: self.gathers.append(number))
        self.child.spawn(7, [8, 9], [12], settings={"password": "p"})

    def test_serve(self) -> None:
        """The first message has what a worker needs."""
        (serve,) = MessageReader().receive(self.process.written)
        self.assertEqual((serve["type"], serve["sockets"], serve["counts"]), ("serve", [6, 7], 5))
        self.assertEqual(serve["copies"], [8])
        self.assertEqual(serve["settings"], {"password": "p"})

    def test_life(self) -> None:
        """Ready, metrics, the end."""
        self.child.childDataReceived(CHANNEL_OUT, encode("ready"))
        self.successResultOf(self.child.ready)
        metrics = MetricValues()
        metrics.counters["n",] = [1]
        asked = [self.child.ask_metrics(), self.child.ask_metrics()]
        self.assertEqual(self.process.written.count(b'"ask"'), 1)
        self.child.childDataReceived(CHANNEL_OUT, encode("metrics", metrics=metrics.to_json()))
        self.assertNoResult(asked[0])
        self.child.childDataReceived(CHANNEL_OUT, encode("metrics", asked=True, metrics=metrics.to_json()))
        for one in asked:
            self.successResultOf(one)
        self.child.childDataReceived(CHANNEL_OUT, encode("gather", id=3))
        self.assertEqual((self.gathers, self.child.metrics.counters), ([3], metrics.counters))
        last = self.child.ask_metrics()
        self.child.processEnded(Failure(ProcessDone(0)))
        self.successResultOf(last)
        self.assertEqual(self.successResultOf(self.child.ended), "exit status 0")
        self.successResultOf(self.child.closed)
        self.child.send("stop")
        self.assertIsNone(self.child.pid)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_ready_asks_nothing(self) -> None:
        """A worker that is starting has counted nothing, and is not waited for."""
        self.successResultOf(self.child.ask_metrics())

    def test_malformed(self) -> None:
        """A process that does not follow the protocol of a worker is killed, whatever it sends."""
        for data in (
            b"hello\n",
            encode("nonsense"),
            encode("metrics"),
            encode("metrics", metrics=[]),
            encode("gather", id="x"),
            encode("log"),
        ):
            self.setUp()
            self.child.childDataReceived(CHANNEL_OUT, data)
            self.assertEqual(self.process.signals, ["KILL"], data)
            self.child.processEnded(Failure(ProcessTerminated(signal=9)))
            failure = self.failureResultOf(self.child.ready, WorkerFailed)
            self.assertIn("it sent something other than", str(failure.value))
            self.assertFalse(failure.value.by_itself)

    def test_failed(self) -> None:
        """The reason is the worker's own."""
        self.child.childDataReceived(CHANNEL_OUT, encode("failed", reason="no key"))
        self.child.processEnded(Failure(ProcessTerminated(exitCode=1)))
        failure = self.failureResultOf(self.child.ready, WorkerFailed)
        self.assertEqual((str(failure.value), failure.value.by_itself), ("no key (exit status 1)", True))

    def test_not_ready_in_time(self) -> None:
        """It is killed."""
        self.clock.advance(START_SECONDS)
        self.assertEqual(self.process.signals, ["KILL"])

    def test_printed(self) -> None:
        """Whatever it prints is logged by lines; one without an end is not kept whole."""
        seen: list[Any] = []
        globalLogPublisher.addObserver(seen.append)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, seen.append)  # type: ignore[arg-type]
        self.child.childDataReceived(2, b"Fatal ")
        self.child.childDataReceived(2, b"error\nrest")
        self.child.childDataReceived(2, b"x" * 10**6)
        self.child.childDataReceived(CHANNEL_OUT, encode("log", level="error", namespace="n.s", text="t"))
        self.assertEqual([(event["worker"], event["text"]) for event in seen], [(1, "Fatal error"), (1, "t")])
        self.assertEqual((seen[1]["log_level"], seen[1]["log_namespace"]), (LogLevel.error, "n.s"))
        self.assertLess(len(self.child._rest[2]), 10_000)
