"""Bytes leave at once if nothing waits before them, in order always, and completely."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from reactor.writer import send_small_parts, writer_to


class Reader(Protocol):
    """The peer: reads to the end when asked."""

    def __init__(self) -> None:
        self.made: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.received = bytearray()

    def connectionMade(self) -> None:
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class SocketTests(TestCase):
    """Real TCP sockets."""

    @inlineCallbacks
    def setUp(self) -> Any:
        self.reader = Reader()
        factory = Factory()
        factory.buildProtocol = lambda _: self.reader  # type: ignore[method-assign]
        port = yield TCP4ServerEndpoint(global_reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        client: Any = Factory.forProtocol(Protocol)
        client.noisy = False
        endpoint = TCP4ClientEndpoint(global_reactor, "127.0.0.1", port.getHost().port)
        self.client = yield endpoint.connect(client)
        yield self.reader.made
        self.write = writer_to(self.client.transport)

    def test_small_parts(self) -> None:
        """They do not wait for each other; a transport without such a delay, or that refuses, is left so."""
        self.client.transport.setTcpNoDelay(False)
        send_small_parts(self.client.transport)
        self.assertTrue(self.client.transport.getTcpNoDelay())
        send_small_parts(StringTransport())

        class Refusing(StringTransport):
            def setTcpNoDelay(self, enabled: bool) -> None:
                raise OSError

        send_small_parts(Refusing())
        self.client.transport.loseConnection()
        return self.reader.lost  # type: ignore[return-value]

    @inlineCallbacks
    def test_at_once(self) -> Any:
        """Bytes that the socket takes have been sent when the call returns; the transport's buffer is
        empty."""
        self.assertEqual(self.write(b"hello"), 0)
        self.assertFalse(self.client.transport.dataBuffer or self.client.transport._tempDataBuffer)
        self.client.transport.loseConnection()
        yield self.reader.lost
        self.assertEqual(self.reader.received, b"hello")

    @inlineCallbacks
    def test_order_and_rest(self) -> Any:
        """If the socket takes a part, the transport sends the rest and everything after it."""
        self.reader.transport.pauseProducing()  # type: ignore[union-attr]
        pieces = [bytes([at % 251]) * 400_000 for at in range(60)]
        left = [self.write(piece) for piece in pieces]
        self.assertEqual(left[0], 0)
        full = next(at for at, count in enumerate(left) if count)
        self.assertEqual(left[full + 1 :], [400_000] * (len(pieces) - full - 1))
        self.reader.transport.resumeProducing()  # type: ignore[union-attr]
        self.client.transport.loseConnection()
        yield self.reader.lost
        self.assertEqual(bytes(self.reader.received), b"".join(pieces))

    @inlineCallbacks
    def test_behind_a_write(self) -> Any:
        """Bytes that were given to ``write`` before leave before."""
        self.client.transport.write(b"first ")
        self.assertEqual(self.write(b"second"), 6)
        self.client.transport.loseConnection()
        yield self.reader.lost
        self.assertEqual(self.reader.received, b"first second")

    @inlineCallbacks
    def test_closing(self) -> Any:
        """While the transport is closing bytes queue behind the others; after the end nothing is raised."""
        self.client.transport.write(b"first ")
        self.client.transport.loseConnection()
        self.assertEqual(self.write(b"last"), 4)
        yield self.reader.lost
        self.assertEqual(self.reader.received, b"first last")
        while self.client.transport.connected:
            yield deferLater(global_reactor, 0)
        self.assertEqual(self.write(b"too late"), 8)

    @inlineCallbacks
    def test_broken(self) -> Any:
        """A failing socket is left to the transport, which reports it by ``connectionLost``."""
        lost: Deferred[None] = Deferred()
        self.client.connectionLost = lambda reason: lost.callback(None)

        class Broken:
            def send(self, data: bytes) -> int:
                raise ConnectionResetError(104, "reset")

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        real = self.client.transport.socket
        self.client.transport.socket = Broken()
        self.assertEqual(self.write(b"hello"), 5)
        yield lost


class OtherTransportTests(SynchronousTestCase):
    """Transports that are no plain TCP."""

    def test_in_memory(self) -> None:
        """A transport in memory is written to as usual, and gets everything."""
        transport = StringTransport()
        write = writer_to(transport)
        self.assertEqual([write(b"a"), write(b"bc")], [1, 2])
        self.assertEqual(transport.value(), b"abc")
