"""The client for nodes: connections that are kept, and requests that are repeated; nearly all in memory."""

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web._newclient import HTTP11ClientProtocol, Request
from twisted.web.client import URI, ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers

from txcouchbase import webclient
from txcouchbase.http import collect
from txcouchbase.quiet import POOLED_CONNECTIONS
from txcouchbase.tls import WebEndpoints
from txcouchbase.webclient import IDLE_SECONDS, WebClient
from txcouchbase.webconnection import WebConnection

URL = "http://n:8092/b/_design/d/_view/v?limit=1"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Wire(StringTransport):
    """A transport, and the two ends of its connection."""

    def __init__(self, connection):
        super().__init__()
        self.connection = connection
        connection.makeConnection(self)

    def lose(self):
        """Close the connection from the node's side."""
        self.connection.connectionLost(Failure(ConnectionDone()))

    def answer(self, data=ANSWER):
        """Let an answer arrive."""
        self.connection.dataReceived(data)


class ClientTestCase(SynchronousTestCase):
    """A client whose connections are made at once."""

    def setUp(self):
        self.clock = Clock()
        self.wires = []
        self.connecting = None
        self.patch(webclient, "connect_quietly", self.connect)
        self.client = WebClient(self.clock, WebEndpoints(self.clock, None, 5.0))

    def connect(self, endpoint, connection):
        """Make a connection, unless ``connecting`` is to decide."""
        made = self.connecting or Deferred()
        if self.connecting is None:
            self.wires.append(Wire(connection))
            made.callback(connection)
        return made

    def ask(self, method="GET", url=URL, headers=None, body=None, repeats=True):
        """Send a request; its answers and failures are collected."""
        return self.client.request(method, url, headers or {}, body, repeats)

    def whole(self, wire, done):
        """Let a request be answered."""
        wire.answer()
        self.assertEqual(self.successResultOf(collect(self.successResultOf(done))), b"ok")


class BytesTests(ClientTestCase):
    """Requests as they are sent."""

    def test_as_twisted(self):
        """They are those of Twisted's client, byte by byte."""
        for method, url, headers, body in (
            ("GET", URL, {"Accept": "x", "traceparent": "00-1", "user-agent": "é\n b"}, None),
            ("GET", "http://n:8092/a?", {}, None),
            ("GET", "http://n:8092/a?b?", {}, None),
            ("GET", "http://n:8092/a;b?c#d", {}, None),
            ("GET", "http://n:8092", {}, None),
            ("GET", "http://n:80/", {"accept": "x", "Accept": "y"}, None),
            ("GET", "https://n:443/", {}, None),
            ("GET", "http://[::1]:8092/", {}, None),
            ("POST", URL, {"Content-Type": "application/json"}, b'{"keys":[1]}'),
            ("POST", URL, {}, None),
            ("PUT", URL, {}, b""),
            ("DELETE", URL, {}, None),
        ):
            self.setUp()
            self.ask(method, url, headers, body)
            self.assertEqual(self.wires[0].value(), _of_twisted(method, url, headers, body), url)

    def test_refused(self):
        """What cannot be sent is refused before there is a connection."""
        for method, url, headers in (
            ("GET", URL + " HTTP/1.1\r\nX: y", {}),
            ("GET", URL + "é", {}),
            ("GET\r\n", URL, {}),
            ("", URL, {}),
            ("GET", URL, {"X: y\r\nZ": ""}),
            ("GET", URL, {"X": "\ud800"}),
        ):
            self.assertRaises(ValueError, self.ask, method, url, headers)
        self.assertEqual(self.wires, [])


class _Whole:
    """A body for Twisted's client."""

    def __init__(self, body):
        self.body, self.length = body, len(body)

    def startProducing(self, consumer):
        consumer.write(self.body)
        done = Deferred()
        done.callback(None)
        return done

    def stopProducing(self):
        pass


def _of_twisted(method, url, headers, body):
    uri = URI.fromBytes(url.encode())
    sent = Headers()
    for name, value in headers.items():
        sent.setRawHeaders(name, [value])
    host = b"[" + uri.host + b"]" if b":" in uri.host else uri.host
    is_default = (uri.scheme, uri.port) in ((b"http", 80), (b"https", 443))
    sent.addRawHeader(b"Host", host if is_default else host + b":%d" % uri.port)
    transport = StringTransport()
    connection = HTTP11ClientProtocol()
    connection.makeConnection(transport)
    producer = None if body is None else _Whole(body)
    connection.request(Request._construct(method.encode(), uri.originForm, sent, producer, persistent=True))
    return transport.value()


class KeptTests(ClientTestCase):
    """Connections between requests."""

    def test_kept(self):
        """The next request to the same node takes the connection; another node has its own."""
        self.whole_of_new()
        done = self.ask()
        self.assertEqual(len(self.wires), 1)
        self.whole(self.wires[0], done)
        self.ask(url="http://m:8092/")
        self.assertEqual(len(self.wires), 2)
        self.ask()
        self.ask()
        self.assertEqual(len(self.wires), 3)

    def whole_of_new(self):
        """Ask on a new connection."""
        done = self.ask()
        self.whole(self.wires[-1], done)

    def test_limit(self):
        """The oldest idle connection is closed when there are too many."""
        asked = [self.ask() for _ in range(POOLED_CONNECTIONS + 1)]
        for wire, done in zip(self.wires, asked, strict=True):
            self.whole(wire, done)
        closed = [wire.disconnecting for wire in self.wires]
        self.assertEqual(closed, [True] + [False] * POOLED_CONNECTIONS)

    def test_expired(self):
        """After some time an idle connection is closed; the time starts again with each request."""
        asked = [self.ask(), self.ask()]
        self.whole(self.wires[0], asked[0])
        self.clock.advance(IDLE_SECONDS - 10)
        self.whole(self.wires[1], asked[1])
        self.clock.advance(10)
        self.assertEqual([wire.disconnecting for wire in self.wires], [True, False])
        self.clock.advance(IDLE_SECONDS - 20)
        self.whole(self.wires[1], self.ask())
        self.clock.advance(10)
        self.assertFalse(self.wires[1].disconnecting)
        self.clock.advance(IDLE_SECONDS - 10)
        self.assertTrue(self.wires[1].disconnecting)
        self.assertEqual((self.clock.getDelayedCalls(), self.client._idle), ([], {}))

    def test_close(self):
        """Closing closes the idle connections at once, and waits for that; no timer is left."""
        self.whole_of_new()
        closed = self.client.close()
        self.assertNoResult(closed)
        self.assertTrue(self.wires[0].disconnected)
        self.wires[0].lose()
        self.successResultOf(closed)
        self.successResultOf(self.client.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answered_after_close(self):
        """A connection that was in use when the client was closed is closed after its answer."""
        done = self.ask()
        self.successResultOf(self.client.close())
        self.whole(self.wires[0], done)
        self.assertTrue(self.wires[0].disconnecting)
        self.assertEqual((self.clock.getDelayedCalls(), self.client._idle), ([], {}))

    def test_lost(self):
        """A connection that the node closes is forgotten, and the timer with the last of them."""
        asked = [self.ask(), self.ask()]
        for wire, done in zip(self.wires, asked, strict=True):
            self.whole(wire, done)
        self.wires[0].lose()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.wires[1].lose()
        self.assertEqual((self.clock.getDelayedCalls(), self.client._idle), ([], {}))
        self.whole_of_new()
        self.assertEqual(len(self.wires), 3)


class RepeatedTests(ClientTestCase):
    """Requests that were never answered."""

    def failing(self, *requests, idle=False):
        """Send a request that nobody answers; return its failure, and what each connection was sent."""
        if idle:
            done = self.ask()
            self.whole(self.wires[0], done)
            self.wires[0].clear()
        done = self.ask(*requests)
        for wire in self.wires:
            self.assertNoResult(done)
            wire.lose()
        return self.failureResultOf(done).value, [wire.value() for wire in self.wires]

    def test_repeated(self):
        """Twice on new connections, the second is for this request only; one more than that if the first was
        idle, except with a body."""
        for idle, method, body, count in (
            (False, "GET", None, 2),
            (True, "GET", None, 3),
            (True, "DELETE", None, 3),
            (True, "POST", b"x", 2),
            (False, "POST", b"x", 2),
            (True, "PUT", None, 2),
        ):
            self.setUp()
            error, sent = self.failing(method, URL, {}, body, idle=idle)
            self.assertIsInstance(error, ResponseNeverReceived)
            self.assertEqual(sent[:-1], sent[:1] * (count - 1), (method, idle))
            closing = sent[0].replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: close\r\n")
            self.assertEqual(sent[-1], closing)

    def test_once(self):
        """A request that must not be repeated is sent once, on a connection of its own: the node may close an
        idle one at any time."""
        kept = self.ask()
        self.whole(self.wires[0], kept)
        done = self.ask("POST", URL, {}, b"x", repeats=False)
        self.assertEqual(len(self.wires), 2)
        self.assertIn(b" HTTP/1.1\r\nConnection: close\r\n", self.wires[1].value())
        self.wires[1].lose()
        self.failureResultOf(done, ResponseNeverReceived)
        self.whole(self.wires[0], self.ask())
        self.assertEqual(len(self.wires), 2)

    def test_answered_at_last(self):
        """The answer to the repeated request is that of the request; its connection is kept, or not."""
        done = self.ask()
        self.wires[0].lose()
        self.whole(self.wires[1], done)
        self.assertTrue(self.wires[1].disconnecting)
        done = self.ask()
        self.whole(self.wires[2], done)
        done = self.ask()
        self.wires[2].lose()
        self.whole(self.wires[3], done)
        self.assertFalse(self.wires[3].disconnecting)

    def test_not_repeated(self):
        """Not if an answer began, nor if nobody listens, nor if the request was cancelled."""
        done = self.ask()
        self.wires[0].answer(b"HTTP")
        self.wires[0].lose()
        self.failureResultOf(done, ResponseFailed)
        done = self.ask()
        done.cancel()
        self.assertTrue(self.wires[1].disconnected)
        error = self.failureResultOf(done, ResponseNeverReceived).value
        self.assertIsInstance(error.reasons[0].value, CancelledError)
        self.wires[1].lose()
        self.connecting = Deferred()
        done = self.ask()
        self.connecting.errback(ConnectionRefusedError())
        self.failureResultOf(done, ConnectionRefusedError)
        self.connecting = None
        self.assertEqual(len(self.wires), 2)

    def test_cancelled_while_connecting(self):
        """The attempt to connect is cancelled, also if it is not the first."""
        for is_first in (True, False):
            self.setUp()
            if is_first:
                self.connecting = Deferred()
            done = self.ask()
            if not is_first:
                self.connecting = Deferred()
                self.wires[0].lose()
            self.assertNoResult(done)
            done.cancel()
            self.failureResultOf(done, CancelledError)

    def test_after_the_end(self):
        """Once the reactor has ended, no Deferred fires, and nothing is sent."""
        done = self.ask()
        self.patch(webclient, "has_ended", lambda reactor: True)
        self.wires[0].lose()
        self.assertNoResult(done)
        self.connecting = Deferred()
        done = self.ask()
        self.connecting.errback(ConnectionRefusedError())
        self.assertNoResult(done)
        self.assertEqual(len(self.wires), 1)


class Hasty(Protocol):
    """Answers at once, and reads nothing."""

    def connectionMade(self):
        self.transport.pauseProducing()
        self.transport.write(self.factory.answer)
        self.factory.made.append(self)


class EarlyTests(TestCase):
    """Answers before the end of a request."""

    @inlineCallbacks
    def test_unread(self):
        """A connection whose node does not read the rest of a request is closed after the answer: it neither
        waits for the node, nor takes the next request."""
        factory = Factory.forProtocol(Hasty)
        factory.made = []
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        client = WebClient(reactor, WebEndpoints(reactor, None, 5.0))
        url = f"http://127.0.0.1:{port.getHost().port}/"
        lost = []
        patched = WebConnection.connectionLost

        def connection_lost(connection, reason):
            patched(connection, reason)
            lost.pop().callback(None)

        self.patch(WebConnection, "connectionLost", connection_lost)
        for fields in (b"", b"Connection: close\r\n"):
            factory.answer = ANSWER.replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n")
            closed = Deferred()
            lost.append(closed)
            answer = yield client.request("PUT", url, {}, bytes(2**25), True)
            self.assertEqual((yield collect(answer)), b"ok")
            self.assertEqual(client._idle, {})
            yield closed
        for one in factory.made:
            one.transport.abortConnection()
