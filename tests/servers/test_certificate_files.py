"""Files of certificates by every name, in the three faces, for documents and over HTTPS."""

import os
from unittest import SkipTest, TestCase

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from couchbase.connection import Connection
from couchbase.exceptions import ArgumentError
from couchbase.protocol.connstr import parse_connection_string
from couchbase.tlsfiles import TlsFiles, read_certificates, read_key, tls_files
from txcouchbase.connection import Connection as TxConnection

try:
    from tests.certificates import self_signed
    from tests.servers.test_srv import NameServer
    from tests.servers.tlsnode import TlsNode
except ImportError as missing:
    raise SkipTest("no package that makes certificates") from missing

DESIGN = {"views": {"v": {"map": "function (doc, meta) { emit(meta.id, null); }"}}}


class NameTests(TestCase):
    """Combinations of options and arguments."""

    def test_names(self):
        """libcouchbase's names have libcouchbase's meaning, ours are unchanged; arguments take precedence."""
        for query, arguments, files in (
            ("", {}, (None, None, None)),
            ("certpath=c", {}, ("c", None, None)),
            ("truststorepath=t", {}, ("t", None, None)),
            ("certpath=c&keypath=k", {}, ("c", "c", "k")),
            ("truststorepath=t&certpath=c&keypath=k", {}, ("t", "c", "k")),
            ("client_cert=c", {}, (None, "c", "c")),
            ("client_cert=c&client_key=k&certpath=t", {}, ("t", "c", "k")),
            ("truststorepath=t", {"certpath": "a"}, ("a", None, None)),
            ("certpath=c&keypath=k", {"certpath": "a"}, ("a", "c", "k")),
            ("certpath=c%2Fd", {}, ("c/d", None, None)),
        ):
            address = parse_connection_string(f"couchbases://h?{query}")
            self.assertEqual(tls_files(address, **arguments), TlsFiles(*files), query)

    def test_contradictions(self):
        """A contradiction is refused, with the name of the wrong option."""
        for string, arguments, words in (
            ("couchbases://h?keypath=k", {}, "keypath needs certpath"),
            ("couchbases://h?client_key=k", {}, "client_key needs client_cert"),
            ("couchbases://h?certpath=c&truststorepath=t", {}, "give one of them"),
            ("couchbases://h?certpath=c&keypath=k&client_cert=d", {}, "give one pair"),
            ("couchbases://h?certpath=c&keypath=k", {"password": "p"}, "replaces a password"),
            ("couchbase://h?certpath=c", {}, "certpath needs TLS"),
            ("couchbase://h?truststorepath=t", {}, "needs TLS"),
            ("couchbase://h", {"certpath": "c"}, "certpath needs TLS"),
            ("http://h?certpath=c&keypath=k", {}, "client_cert needs TLS"),
        ):
            with self.assertRaises(ArgumentError) as caught:
                tls_files(parse_connection_string(string), **arguments)
            self.assertIn(words, str(caught.exception))


class FileTests(unittest.SynchronousTestCase):
    """Contents of files."""

    def write(self, data):
        """Return the path of a file with these bytes."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(data)
        return path

    def test_good(self):
        """Any number of certificates, with other text around them; a key beside them."""
        bundle = b"# first\n" + self_signed() + b"# second\r\n" + self_signed()
        self.assertEqual(len(read_certificates(self.write(bundle), "certpath")), 2)
        self.assertEqual(read_key(self.write(bundle), "client_key"), bundle)

    def test_bad(self):
        """Each error names argument and file, and says what was expected."""
        for read, data, words in (
            (read_certificates, b"", "has no certificate: expected PEM"),
            (read_certificates, b"\x30\x82\x01\x00", "looks like DER"),
            (read_certificates, self_signed()[self_signed().index(b"-----BEGIN PRIVATE") :], "has no cert"),
            (read_key, b"", "has no private key: expected PEM"),
            (read_key, self_signed(passphrase=b"p"), "needs no passphrase"),
            (read_key, b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n", "needs no passphrase"),
        ):
            path = self.write(data)
            with self.assertRaises(ArgumentError) as caught:
                read(path, "name")
            self.assertIn(f"name {path!r} ", str(caught.exception))
            self.assertIn(words, str(caught.exception))
        for path in (self.mktemp(), os.getcwd(), "nul\0"):
            with self.assertRaises(ArgumentError) as caught:
                read_certificates(path, "name")
            self.assertIn("cannot be read", str(caught.exception))


class FaceTests(unittest.TestCase):
    """A node that requires a certificate, found by DNS, for the three drivers."""

    timeout = 120

    @inlineCallbacks
    def setUp(self):
        """Start the node, and a name server that knows it."""
        self.node = TlsNode(self, requires=True)
        yield self.node.node.start()
        self.addCleanup(self.node.node.stop)
        self.names = NameServer([(0, 0, self.node.kv_port, "127.0.0.1")])
        self.addCleanup(deferToThread, self.names.stop)
        with open(self.node.ca, "rb") as file:
            bundle = self.node.write("bundle.pem", self_signed(name="another") + file.read())
        self.query = f"truststorepath={bundle}&certpath={self.node.own}&keypath={self.node.own}"
        self.by_name = f"couchbases://cluster.test?nameserver=127.0.0.1:{self.names.port}&{self.query}"

    def strings(self):
        """Yield connection strings: by name, and of the cluster manager."""
        yield self.by_name
        yield f"{self.node.manager}?{self.query}"

    def blocking(self, face):
        """Store, make a view and query it; returns what was found."""
        found = []
        for string in self.strings():
            cb = face(bucket="default", connection_string=string, timeout=30)
            try:
                cb.set("k", 1)
                cb.design_create("d", DESIGN, use_devmode=False, syncwait=10)
                rows = [row.key for row in cb.query("d", "v", stale="false")]
                found.append((cb.get("k").value, rows))
            finally:
                cb._close()
        return found

    @inlineCallbacks
    def test_blocking(self):
        """The blocking client: documents, design documents and rows, all by the certificate."""
        found = yield deferToThread(self.blocking, Connection)
        self.assertEqual(found, [(1, ["k"])] * 2)
        self.assertEqual({*self.node.headers}, {None})

    @inlineCallbacks
    def test_gevent(self):
        """The gevent client."""
        from gcouchbase import GConnection

        found = yield deferToThread(self.blocking, GConnection)
        self.assertEqual(found, [(1, ["k"])] * 2)
        self.assertEqual({*self.node.headers}, {None})

    @inlineCallbacks
    def test_twisted(self):
        """The Twisted client."""
        for string in self.strings():
            cb = TxConnection(bucket="default", connection_string=string, timeout=30)
            yield cb.connect()
            yield cb.set("k", 1)
            yield cb.design_create("d", DESIGN, use_devmode=False, syncwait=10)
            view = yield cb.queryAll("d", "v", stale="false")
            self.assertEqual([row.key for row in view], ["k"])
            cb._close()
            yield cb._http.close()
        self.assertEqual({*self.node.headers}, {None})
