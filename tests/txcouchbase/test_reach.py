"""Why a cluster cannot be reached: host, port and cause of each address."""

import json

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.trial.unittest import TestCase

from couchbase.exceptions import CouchbaseError, NotSupportedError
from couchbase.protocol.strangers import looks_like
from tests.certificates import self_signed
from tests.couchbase.scripted import ScriptedNode
from txcouchbase.connection import Connection

HTTP_ANSWER = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


class Stranger(Protocol):
    """Sends one sentence, whatever it receives."""

    def connectionMade(self):
        if self.factory.first:
            self.transport.write(self.factory.sentence)

    def dataReceived(self, data):
        if self.factory.sentence is not None:
            self.transport.write(self.factory.sentence)


class ReachTests(TestCase):
    """The texts of ``ClusterClient.problem``."""

    @inlineCallbacks
    def stranger(self, sentence, first=False):
        """Listen with another protocol; returns the port."""
        factory = Factory.forProtocol(Stranger)
        factory.sentence, factory.first = sentence, first
        port = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        return port.getHost().port

    @inlineCallbacks
    def problem(self, string, **options):
        """Return the problem and the error of a connection that cannot be made."""
        connection = Connection(bucket="b", connection_string=string, **options)
        self.addCleanup(connection._close)
        connection._client.host_timeout = options.pop("seconds", 2.0)
        error = yield self.assertFailure(connection.connect(), CouchbaseError)
        return connection._client.problem, error

    def node(self, **attributes):
        """Return a scripted node."""
        node = ScriptedNode()
        self.addCleanup(node.stop)
        for name, value in attributes.items():
            setattr(node, name, value)
        return node

    @inlineCallbacks
    def test_strangers(self):
        """The peer's protocol is guessed from its first bytes, and is named together with the address."""
        for sentence, first, words in (
            (HTTP_ANSWER, False, "it looks like an HTTP server"),
            (b"220 mail.example ESMTP\r\n", True, "it looks like a mail or FTP server"),
            (b"-ERR\r\n", False, "it looks like a Redis server"),
            (b"\x15\x03\x01\x00\x02\x02\x0a", False, "it looks like a TLS port, use couchbases://"),
            (b"@@@@", False, "0x40 cannot open a frame here"),
        ):
            port = yield self.stranger(sentence, first)
            problem, error = yield self.problem(f"couchbase://127.0.0.1:{port}")
            self.assertIn(f"127.0.0.1:{port}: ", problem)
            self.assertIn(words, problem)
            self.assertIn(words, str(error))
        self.flushLoggedErrors()

    @inlineCallbacks
    def test_nobody(self):
        """Refused connections and unknown names, of each seed."""
        port = yield self.stranger(b"x")
        self.assertNotEqual(port, 1)
        problem, _ = yield self.problem("couchbase://127.0.0.1:1,no-such-host.invalid:11210")
        self.assertEqual(
            problem, "127.0.0.1:1: connection refused; no-such-host.invalid:11210: the host name is unknown"
        )

    @inlineCallbacks
    def test_tls(self):
        """A port without TLS, and an untrusted certificate."""
        port = yield self.stranger(HTTP_ANSWER)
        problem, _ = yield self.problem(f"couchbases://localhost:{port}")
        self.assertIn(f"no TLS connection to localhost:{port}: wrong version number", problem)
        self.assertIn("the port does not speak TLS", problem)
        factory = Factory.forProtocol(Protocol)
        pem = self_signed()
        options = PrivateCertificate.loadPEM(pem).options()
        listening = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        port = listening.getHost().port
        problem, _ = yield self.problem(f"couchbases://127.0.0.1:{port}")
        self.assertIn("certificate verify failed", problem)
        problem, _ = yield self.problem(f"couchbases://localhost:{port}", certpath=self.certificate(pem))
        self.assertIn("the certificate is for another host name", problem)
        self.assertEqual(self.flushLoggedErrors(), [])

    def certificate(self, pem):
        """Return the name of a file with a certificate."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(pem)
        return path

    @inlineCallbacks
    def test_silence(self):
        """A peer that says nothing."""
        port = yield self.stranger(None)
        connection = Connection(bucket="b", connection_string=f"couchbase://127.0.0.1:{port}")
        self.addCleanup(connection._close)
        connection._client.host_timeout = 0.01
        self.assertEqual(connection._client.problem, "not connected yet")
        # The limit is read when the seed is asked, which was before: the whole limit applies.
        yield self.assertFailure(connection.connect(), CouchbaseError)
        self.assertEqual(connection._client.problem, f"127.0.0.1:{port}: no answer in time")

    @inlineCallbacks
    def test_no_map(self):
        """A node that gives no map, and a bucket without vbuckets, are not supported."""
        node = self.node(gives_config=False)
        problem, error = yield self.problem(node.string)
        self.assertIn(f"127.0.0.1:{node.port} sends no cluster map over the key-value protocol", problem)
        self.assertIsInstance(error, NotSupportedError)
        config = json.dumps({"name": "b", "nodeLocator": "ketama", "nodes": []}).encode()
        node = self.node(config=lambda: config)
        problem, error = yield self.problem(node.string)
        self.assertIn("memcached buckets are not supported", problem)
        self.assertIsInstance(error, NotSupportedError)

    @inlineCallbacks
    def test_usable(self):
        """Without a problem there is none; a node that is lost afterwards is named."""
        node = self.node()
        connection = Connection(bucket="b", connection_string=node.string)
        self.addCleanup(connection._close)
        yield connection.connect()
        client = connection._client
        self.assertEqual((client.problem, client.causes), (None, []))
        (link,) = client.peers.values()
        lost = link.protocol.lost
        node.cut()
        yield lost
        self.assertTrue(client.problem.startswith(f"127.0.0.1:{node.port}: "), client.problem)
        connection._close()
        self.assertEqual(client.problem, "the connection is closed")

    def test_guesses(self):
        """Bytes that say nothing are not guessed about."""
        self.assertEqual(looks_like(b"\x81\x00"), None)
        self.assertEqual(looks_like(b"HTTP/1.0 200 OK"), "an HTTP server")
