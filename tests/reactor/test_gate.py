"""The gate: sockets polled behind one entry of the reactor, with real sockets and the real reactor."""

from __future__ import annotations

import select
import socket
import struct
from typing import Any
from unittest import SkipTest

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from reactor import gate as module
from reactor.gate import Gate
from tests.certificates import self_signed

reactor: Any = installed_reactor

LARGE = b"x" * 2**23
"""More than any socket's buffers take."""


class Served(Protocol):
    """The server's end of a connection: echoes, and does what a message says."""

    def __init__(self) -> None:
        self.lost: Deferred[Any] = Deferred()
        self.received: list[bytes] = []

    def connectionMade(self) -> None:
        self.factory.gate.adopt(self.transport)  # type: ignore[union-attr]
        self.factory.made(self)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        if data == b"fail":
            raise ZeroDivisionError
        if data == b"exit":
            raise SystemExit
        if data == b"large":
            data = LARGE
        self.received.append(data)
        self.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.value)


class BadlyLost(Served):
    """Fails at its end."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        raise LookupError("at the end")


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Served):
    """Says good-bye when the client has nothing more to say."""

    def readConnectionLost(self) -> None:
        self.transport.write(b"bye")  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        """Not expected: neither side closes that half alone."""


class Serving(Factory):
    """Makes the server's ends; ``next`` fires with the next one."""

    noisy = False

    def __init__(self, gate: Gate, protocol: type[Served]) -> None:
        self.gate = gate
        self.protocol = protocol
        self.ends: list[Served] = []
        self._waiting: list[Deferred[Served]] = []

    def made(self, end: Served) -> None:
        self.ends.append(end)
        if self._waiting:
            self._waiting.pop(0).callback(end)

    def next(self) -> Deferred[Served]:
        waiting: Deferred[Served] = Deferred()
        self._waiting.append(waiting)
        return waiting


class Client(Protocol):
    """Collects what it gets; ``expect`` fires when that is so many bytes."""

    def __init__(self) -> None:
        self.lost: Deferred[Any] = Deferred()
        self.got = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._expected: tuple[int, Deferred[bytes]] | None = None

    def expect(self, size: int) -> Deferred[bytes]:
        got: Deferred[bytes] = Deferred()
        self._expected = (size, got)
        self._check()
        return got

    def dataReceived(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        self._check()

    def _check(self) -> None:
        if self._expected is not None and self._size >= self._expected[0]:
            got, self._expected = self._expected[1], None
            data, self._parts, self._size = b"".join(self._parts), [], 0
            got.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.got = b"".join(self._parts)
        self.lost.callback(reason.value)


def turns(count: int = 3) -> Deferred[None]:
    """Let the reactor turn a few times, so that what was closed is."""
    done = deferLater(reactor, 0)
    for _ in range(count):
        done.addCallback(lambda _: deferLater(reactor, 0))
    return done


class GateTestCase(TestCase):
    """Has a server whose connections a gate watches."""

    def setUp(self) -> None:
        self.gate = Gate(reactor)
        if not self.gate._is_supported:
            raise SkipTest("no epoll, or a reactor without descriptors")
        self.addCleanup(self.nothing_is_left)

    def nothing_is_left(self) -> None:
        """The gate watches nothing, and is out of the reactor."""
        self.assertEqual((len(self.gate), self.gate.fileno()), (0, -1))
        self.assertNotIn(self.gate, reactor.getReaders())

    @inlineCallbacks
    def serve(self, protocol: type[Served] = Served, endpoint: Any = None) -> Any:
        serving = Serving(self.gate, protocol)
        if endpoint is None:
            endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = yield endpoint.listen(serving)
        self.addCleanup(turns)
        self.addCleanup(port.stopListening)
        self.port = port
        return serving

    @inlineCallbacks
    def connect(self, serving: Serving, endpoint: Any = None) -> Any:
        if endpoint is None:
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        accepted = serving.next()
        client = yield connectProtocol(endpoint, Client())
        served = yield accepted
        return client, served

    @inlineCallbacks
    def hang_up(self, *clients: Client) -> Any:
        for client in clients:
            client.transport.loseConnection()  # type: ignore[union-attr]
            yield client.lost
        yield turns()


class TrafficTests(GateTestCase):
    """Bytes both ways."""

    @inlineCallbacks
    def check(self, serving: Serving, endpoint: Any = None) -> Any:
        client, served = yield self.connect(serving, endpoint)
        self.assertEqual(len(self.gate), 1)
        for data in (b"a", b"bc"):
            client.transport.write(data)
            self.assertEqual((yield client.expect(len(data))), data)
        client.transport.write(b"large")
        self.assertEqual((yield client.expect(len(LARGE))), LARGE)
        return client, served

    @inlineCallbacks
    def test_echo_and_large_writes(self) -> Any:
        """Bytes that the socket does not take at once are sent later; the reactor only knows the gate."""
        serving = yield self.serve()
        client, served = yield self.check(serving)
        self.assertIn(self.gate, reactor.getReaders())
        self.assertNotIn(served.transport, [*reactor.getReaders(), *reactor.getWriters()])
        yield self.hang_up(client)
        self.assertIsInstance((yield served.lost), ConnectionDone)

    @inlineCallbacks
    def test_below_tls(self) -> Any:
        """The socket below a TLS connection is watched."""
        pem = self_signed()
        certificate = PrivateCertificate.loadPEM(pem)
        serving = Serving(self.gate, Served)
        self.port = port = reactor.listenSSL(0, serving, certificate.options(), interface="127.0.0.1")
        self.addCleanup(turns)
        self.addCleanup(port.stopListening)
        options = optionsForClientTLS("127.0.0.1", trustRoot=Certificate.loadPEM(pem))
        endpoint = wrapClientTLS(options, TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))
        client, served = yield self.check(serving, endpoint)
        yield self.hang_up(client)
        self.assertIsInstance((yield served.lost), ConnectionDone)

    @inlineCallbacks
    def test_unix_socket(self) -> Any:
        """So is a Unix socket."""
        path = self.mktemp()[-60:].replace("/", "_")
        serving = yield self.serve(endpoint=UNIXServerEndpoint(reactor, path))
        client, served = yield self.check(serving, UNIXClientEndpoint(reactor, path))
        yield self.hang_up(client)
        self.assertIsInstance((yield served.lost), ConnectionDone)

    @inlineCallbacks
    def test_paused_reading(self) -> Any:
        """A paused transport is not read, and nothing spins meanwhile."""
        serving = yield self.serve()
        client, served = yield self.connect(serving)
        served.transport.pauseProducing()
        self.assertEqual(len(self.gate), 0)
        client.transport.write(b"abc")
        yield turns(10)
        self.assertEqual(served.received, [])
        served.transport.resumeProducing()
        self.assertEqual((yield client.expect(3)), b"abc")
        yield self.hang_up(client)

    @inlineCallbacks
    def test_more_connections_than_one(self) -> Any:
        """Each gets its own bytes, also while others come and go and descriptors are used again."""
        serving = yield self.serve()
        pairs = []
        for _ in range(20):
            pairs.append((yield self.connect(serving)))
        for turn in range(3):
            for number, (client, _) in enumerate(pairs):
                client.transport.write(b"%06d" % number)
            for number, (client, _) in enumerate(pairs):
                self.assertEqual((yield client.expect(6)), b"%06d" % number)
            fds = {served.transport.fileno() for _, served in pairs[turn::3]}
            yield self.hang_up(*[client for client, _ in pairs[turn::3]])
            again = set()
            for index in range(turn, len(pairs), 3):
                pairs[index] = yield self.connect(serving)
                again.add(pairs[index][1].transport.fileno())
            self.assertEqual(len(self.gate), 20)
            self.assertTrue(fds & again, "no descriptor was used again")
        yield self.hang_up(*[client for client, _ in pairs])


class EndTests(GateTestCase):
    """Ends of connections."""

    @inlineCallbacks
    def test_half_close(self) -> Any:
        """A client that closes its half still gets what the server has to say."""
        serving = yield self.serve(HalfCloseable)
        client, served = yield self.connect(serving)
        client.transport.loseWriteConnection()
        yield client.lost
        self.assertEqual(client.got, b"bye")
        self.assertIsInstance((yield served.lost), ConnectionDone)
        yield turns()

    @inlineCallbacks
    def test_half_close_of_one_that_knows_none(self) -> Any:
        """Without that interface it is the end."""
        serving = yield self.serve()
        client, served = yield self.connect(serving)
        client.transport.loseWriteConnection()
        self.assertIsInstance((yield served.lost), ConnectionDone)
        yield client.lost
        yield turns()

    @inlineCallbacks
    def test_reset(self) -> Any:
        """A reset is reported as a lost connection, while reading and while only writing."""
        serving = yield self.serve()
        for writing in (False, True):
            client, served = yield self.connect(serving)
            if writing:
                client.transport.pauseProducing()
                served.transport.pauseProducing()
                served.transport.write(LARGE)
                yield turns(10)
            client.transport.getHandle().setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            client.transport.abortConnection()
            self.assertIsInstance((yield served.lost), ConnectionLost)
            yield client.lost
        yield turns()

    @inlineCallbacks
    def check_others_live(self, protocol: type[Served], message: bytes) -> Any:
        serving = yield self.serve(protocol)
        bad, _ = yield self.connect(serving)
        good, _ = yield self.connect(serving)
        if message:
            bad.transport.write(message)
        else:
            bad.transport.loseConnection()
        yield bad.lost
        yield turns()
        good.transport.write(b"still here")
        self.assertEqual((yield good.expect(10)), b"still here")
        self.assertEqual(len(self.gate), 1)
        return good

    @inlineCallbacks
    def test_failing_protocol(self) -> Any:
        """An error out of dataReceived ends that connection, is in the log, and harms no other."""
        for message, kind in ((b"fail", ZeroDivisionError), (b"exit", SystemExit)):
            good = yield self.check_others_live(Served, message)
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)
            yield self.hang_up(good)

    @inlineCallbacks
    def test_failing_end(self) -> Any:
        """So does one out of connectionLost."""
        good = yield self.check_others_live(BadlyLost, b"")
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        yield self.hang_up(good)
        self.flushLoggedErrors(LookupError)

    @inlineCallbacks
    def test_closed_while_events_are_pending(self) -> Any:
        """Events of a turn for connections that another one's event has closed are passed over."""

        class Killer(Served):
            def dataReceived(self, data: bytes) -> None:
                self.received.append(data)
                for other in serving.ends:
                    if other is not self and other.transport.connected:
                        other.transport.connectionLost(Failure(ConnectionAborted()))

        serving = yield self.serve(Killer)
        pairs = []
        for _ in range(3):
            pairs.append((yield self.connect(serving)))
        # All three are readable before the gate looks: these writes are made with nothing in between.
        for client, _ in pairs:
            client.transport.getHandle().send(b"x")
        yield turns()
        self.assertEqual(sorted(len(served.received) for _, served in pairs), [0, 0, 1])
        yield self.hang_up(*[client for client, served in pairs if served.received])
        for client, _ in pairs:
            yield client.lost

    @inlineCallbacks
    def test_end_of_the_reactor(self) -> Any:
        """A reactor that ends, or drops the gate, ends every connection of it; one that fails at that is in
        the log."""
        serving = yield self.serve(BadlyLost)
        pairs = []
        for _ in range(3):
            pairs.append((yield self.connect(serving)))
        reactor.removeReader(self.gate)
        self.gate.connectionLost(Failure(ConnectionLost()))
        for client, served in pairs:
            self.assertIsInstance((yield served.lost), ConnectionLost)
            yield client.lost
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 3)
        client, _ = yield self.connect(serving)
        client.transport.write(b"abc")
        self.assertEqual((yield client.expect(3)), b"abc")
        yield self.hang_up(client)
        self.flushLoggedErrors(LookupError)


class UnsupportedTests(TestCase):
    """Systems on which there is nothing to gain."""

    def test_no_descriptors(self) -> None:
        """A reactor that watches none is left alone."""
        self.assertFalse(Gate(Clock()).adopt(StringTransport()))

    def test_transport_without_socket(self) -> None:
        """So is a transport that has none, and one of another reactor."""
        self.assertFalse(Gate(reactor).adopt(StringTransport()))

    @inlineCallbacks
    def test_no_epoll(self) -> Any:
        """Without epoll the reactor watches the sockets as always."""
        if hasattr(select, "epoll"):
            self.patch(module.select, "epoll", None)
            del select.epoll
        gate = Gate(reactor)
        serving = Serving(gate, Served)
        port = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(serving)
        accepted = serving.next()
        client = yield connectProtocol(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), Client()
        )
        served = yield accepted
        self.assertFalse(gate.adopt(served.transport))
        self.assertIn(served.transport, reactor.getReaders())
        client.transport.write(b"abc")
        self.assertEqual((yield client.expect(3)), b"abc")
        client.transport.loseConnection()
        yield client.lost
        yield served.lost
        yield port.stopListening()
        yield turns()
