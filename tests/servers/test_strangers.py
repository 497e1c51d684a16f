"""Ports with another protocol than the connection string says: each driver's message, and its advice."""

import socket
import ssl
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from unittest import TestCase
from unittest.mock import patch

from twisted.internet.defer import inlineCallbacks
from twisted.trial import unittest

from couchbase.connection import Connection
from couchbase.exceptions import SSL_CANTVERIFY, CouchbaseError
from couchbase.protocol import connstr
from gcouchbase import GConnection
from tests.certificates import self_signed
from tests.couchbase.scripted import ScriptedNode
from tests.gcouchbase.support import InGreenlets
from txcouchbase.connection import Connection as TxConnection

TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
HTTP_ANSWER = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
LOOKS_LIKE_TLS = "it looks like a TLS port, use couchbases://"
MAYBE_TLS = "if it is a TLS port, use couchbases://"
NOT_TLS = "the port does not speak TLS; without it, use couchbase://"
UNTRUSTED = "certificate verify failed"
AN_HTTP_SERVER = "it looks like an HTTP server"

CASES = (
    ("couchbase", TLS_ALERT, LOOKS_LIKE_TLS),
    ("couchbase", TLS_ALERT[:1], LOOKS_LIKE_TLS),
    ("couchbase", b"", MAYBE_TLS),
    ("couchbase", HTTP_ANSWER, AN_HTTP_SERVER),
    ("couchbase", b"H", AN_HTTP_SERVER),
    ("couchbases", HTTP_ANSWER, NOT_TLS),
    ("couchbases", b"", NOT_TLS),
)
"""Scheme, what the peer says before it closes, and what the error says."""


class Stranger:
    """Answers the first bytes of each connection with one sentence, and closes it."""

    def __init__(self, sentence):
        self.sentence = sentence
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            with peer:
                try:
                    peer.recv(65536)
                    peer.sendall(self.sentence)
                except OSError:
                    pass

    def stop(self):
        """Listen no more."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listening.close()


def tls_node(path):
    """Return a node that speaks TLS; ``path`` is a file for its certificate."""
    path.write_bytes(self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return ScriptedNode(context)


@contextmanager
def default_ports(key_value, management):
    """Let connection strings with TLS and without a port mean these ports."""
    with (
        patch.object(connstr, "DEFAULT_KV_TLS_PORT", key_value),
        patch.object(connstr, "DEFAULT_MANAGEMENT_TLS_PORT", management),
    ):
        yield


def closed_port():
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


class FaceMixin:
    """A face whose operations block."""

    face = Connection

    def words(self, string):
        """Return why no connection can be made."""
        with self.assertRaises(CouchbaseError) as caught:
            connection = self.face(bucket="b", connection_string=string)
            connection._close()
        return str(caught.exception)

    def check(self, words, wanted, port):
        """The message says what it is, and names host and port, once."""
        self.assertIn(wanted, words)
        self.assertEqual(words.count(f"127.0.0.1:{port}"), 1, words)

    def test_strangers(self):
        """The likely protocol, and the scheme to use."""
        for scheme, sentence, wanted in CASES:
            stranger = Stranger(sentence)
            self.addCleanup(stranger.stop)
            self.check(self.words(f"{scheme}://127.0.0.1:{stranger.port}"), wanted, stranger.port)

    def test_node_with_tls(self):
        """A node that speaks TLS, by a connection string without it."""
        with tempfile.TemporaryDirectory() as directory:
            node = tls_node(Path(directory) / "node.pem")
        self.addCleanup(node.stop)
        self.check(
            self.words(f"couchbase://127.0.0.1:{node.port}"), "a TLS port, use couchbases://", node.port
        )

    def test_untrusted(self):
        """With a node whose certificate is not trusted, and no cluster manager: both causes."""
        with tempfile.TemporaryDirectory() as directory:
            node = tls_node(Path(directory) / "node.pem")
        self.addCleanup(node.stop)
        with self.assertRaises(CouchbaseError) as caught, default_ports(node.port, closed_port()):
            self.face(bucket="b", connection_string="couchbases://127.0.0.1")
        self.assertEqual(caught.exception.rc, SSL_CANTVERIFY)
        self.assertIn(UNTRUSTED, caught.exception.message)
        self.assertIn("Connection refused", caught.exception.message)
        self.assertEqual(caught.exception.message.count(f"127.0.0.1:{node.port}"), 1)


class BlockingStrangerTests(FaceMixin, TestCase):
    """The blocking client."""


class GreenletStrangerTests(InGreenlets, FaceMixin, TestCase):
    """The gevent client."""

    face = GConnection


class TwistedStrangerTests(unittest.TestCase):
    """The Twisted client, whose ``problem`` is what the gateway logs and reports."""

    @inlineCallbacks
    def check(self, string, wanted, port):
        """Both messages say what it is, and name host and port, once."""
        connection = TxConnection(bucket="b", connection_string=string)
        self.addCleanup(connection._close)
        error = yield self.assertFailure(connection.connect(), CouchbaseError)
        self.flushLoggedErrors()
        for words in (str(error), connection._client.problem):
            self.assertIn(wanted, words)
            self.assertEqual(words.count(f"127.0.0.1:{port}"), 1, words)

    @inlineCallbacks
    def test_strangers(self):
        """The likely protocol, and the scheme to use."""
        for scheme, sentence, wanted in CASES:
            stranger = Stranger(sentence)
            self.addCleanup(stranger.stop)
            yield self.check(f"{scheme}://127.0.0.1:{stranger.port}", wanted, stranger.port)

    @inlineCallbacks
    def test_node_with_tls(self):
        """A node that speaks TLS, by a connection string without it."""
        node = tls_node(Path(self.mktemp()))
        self.addCleanup(node.stop)
        yield self.check(f"couchbase://127.0.0.1:{node.port}", "a TLS port, use couchbases://", node.port)

    @inlineCallbacks
    def test_untrusted(self):
        """With a node whose certificate is not trusted and no cluster manager: both causes."""
        node = tls_node(Path(self.mktemp()))
        self.addCleanup(node.stop)
        with default_ports(node.port, closed_port()):
            connection = TxConnection(bucket="b", connection_string="couchbases://127.0.0.1")
        self.addCleanup(connection._close)
        error = yield self.assertFailure(connection.connect(), CouchbaseError)
        self.flushLoggedErrors()
        for words in (error.message, connection._client.problem):
            self.assertIn(UNTRUSTED, words)
            self.assertIn("connection refused", words)
            self.assertEqual(words.count(f"127.0.0.1:{node.port}"), 1, words)
