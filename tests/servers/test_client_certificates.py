"""Clients that show a certificate instead of a password."""

import os
import ssl
import tempfile
from unittest import SkipTest, TestCase

from twisted.internet.defer import inlineCallbacks
from twisted.trial import unittest

from couchbase.connection import Connection
from couchbase.exceptions import ArgumentError, CouchbaseError
from couchbase.protocol.constants import Opcode
from gateway.optionvalues import Wrong, cluster
from gcouchbase import GConnection
from tests.couchbase.scripted import ScriptedNode
from tests.gcouchbase.support import InGreenlets
from txcouchbase.connection import Connection as TxConnection

_SASL = (Opcode.SASL_LIST_MECHS, Opcode.SASL_AUTH, Opcode.SASL_STEP)


class CertificateNode(ScriptedNode):
    """A node that requires a certificate, and records all logins nevertheless."""

    def __init__(self, context):
        self.logins = []
        super().__init__(context)

    def _handle(self, peer, frame):
        if frame.opcode in _SASL:
            self.logins.append(frame.opcode)
        super()._handle(peer, frame)


class Files:
    """A node, and the files that a client needs for it."""

    def make(self, test):
        """Write the files, and start the node."""
        try:
            from tests.certificates import self_signed
        except ImportError as missing:
            raise SkipTest("no package that makes certificates") from missing
        folder = tempfile.TemporaryDirectory()
        test.addCleanup(folder.cleanup)
        self.pem = self._write(folder, "own.pem", self_signed())
        self.other = self._write(folder, "other.pem", self_signed())
        self.bad = self._write(folder, "bad.pem", b"no certificate")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem)
        context.load_verify_locations(self.pem)
        context.verify_mode = ssl.CERT_REQUIRED
        self.node = CertificateNode(context)
        test.addCleanup(self.node.stop)
        return self

    @staticmethod
    def _write(folder, name, data):
        path = os.path.join(folder.name, name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def wrong(self):
        """Yield arguments that cannot be meant, and a word of the error."""
        tls = self.node.string
        yield {"connection_string": tls, "client_key": self.pem}, "client_cert"
        yield {"connection_string": tls.replace("couchbases", "couchbase"), "client_cert": self.pem}, "TLS"
        yield {"connection_string": tls, "client_cert": self.pem, "password": "p"}, "password"
        yield {"connection_string": tls, "client_cert": self.bad}, "PEM"
        yield {"connection_string": tls, "client_cert": self.pem, "client_key": self.other}, "PEM"
        yield {"connection_string": tls, "client_cert": self.pem + ".none"}, "PEM"


class FaceMixin:
    """A face whose operations block."""

    face = Connection

    def open(self, **arguments):
        """Return a connection."""
        connection = self.face(bucket="b", **arguments)
        self.addCleanup(connection._close)
        return connection

    def test_logs_in(self):
        """The certificate is all that the node asks for; no password is sent."""
        files = Files().make(self)
        cb = self.open(
            connection_string=files.node.string, certpath=files.pem, client_cert=files.pem, username="u"
        )
        self.assertTrue(cb.set("k", 1).success)
        options = f"?certpath={files.pem}&client_cert={files.pem}&client_key={files.pem}"
        self.assertTrue(self.open(connection_string=files.node.string + options).set("k", 1).success)
        self.assertEqual(files.node.logins, [])

    def test_without(self):
        """Without one the node is of no use."""
        files = Files().make(self)
        self.assertRaises(
            CouchbaseError, self.face, bucket="b", connection_string=files.node.string, certpath=files.pem
        )

    def test_wrong_arguments(self):
        """Contradictory arguments are refused before anything is sent."""
        files = Files().make(self)
        for arguments, word in files.wrong():
            with self.assertRaises(ArgumentError) as caught:
                self.face(bucket="b", **arguments)
            self.assertIn(word, str(caught.exception))


class BlockingCertificateTests(FaceMixin, TestCase):
    """The blocking client."""


class GreenletCertificateTests(InGreenlets, FaceMixin, TestCase):
    """The gevent client."""

    face = GConnection


class TwistedCertificateTests(unittest.TestCase):
    """The Twisted client."""

    @inlineCallbacks
    def test_logs_in(self):
        """The certificate is all that the node asks for; no password is sent."""
        files = Files().make(self)
        cb = TxConnection(
            bucket="b", connection_string=files.node.string, certpath=files.pem, client_cert=files.pem
        )
        self.addCleanup(cb._close)
        yield cb.connect()
        result = yield cb.set("k", 1)
        self.assertTrue(result.success)
        self.assertEqual(files.node.logins, [])

    @inlineCallbacks
    def test_without(self):
        """Without one the node is of no use."""
        files = Files().make(self)
        cb = TxConnection(bucket="b", connection_string=files.node.string, certpath=files.pem)
        self.addCleanup(cb._close)
        yield self.assertFailure(cb.connect(), CouchbaseError)

    def test_wrong_arguments(self):
        """Contradictory arguments are refused before anything is sent."""
        files = Files().make(self)
        for arguments, word in files.wrong():
            error = self.assertRaises(ArgumentError, TxConnection, bucket="b", **arguments)
            self.assertIn(word, str(error))


class GatewayOptionTests(TestCase):
    """Options of the gateway's connection string."""

    def test_unknown_options_name_the_known(self):
        """An unknown option is refused at the start, with the known ones."""
        self.assertEqual(cluster("couchbases://h?certpath=ca.pem"), "couchbases://h?certpath=ca.pem")
        for option in ("tls_verify=none", "kv_timeout=10s", "client_certs=a.pem"):
            with self.assertRaises(Wrong) as caught:
                cluster(f"couchbases://h?{option}")
            self.assertIn(option.partition("=")[0], str(caught.exception))
            self.assertIn(
                "'certpath', 'client_cert', 'client_key', 'compression', 'keypath', 'nameserver', 'network'",
                str(caught.exception),
            )
