"""Connecting with the blocking client: success and failure."""

import json
import os
import socket
import tempfile
import time
import warnings
from unittest import mock

from couchbase import FMT_AUTO, FMT_PICKLE, LOCKMODE_NONE, LOCKMODE_WAIT, Connection, Couchbase
from couchbase.exceptions import (
    ArgumentError,
    AuthError,
    BucketNotFoundError,
    ClientTemporaryFailError,
    CouchbaseError,
    CouchbaseNetworkError,
    InvalidError,
    NetworkError,
    TimeoutError,
    UnknownHostError,
)
from couchbase.protocol import connstr
from couchbase.transcoder import Transcoder
from tests.couchbase.support import ConnectionTestCase, NodeProcess


def closed_port():
    """Return a port without a listener."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class ConnectTests(ConnectionTestCase):
    """Hosts, users, failures."""

    def old(self, **keywords):
        """Connect the way of SDK 1.2: by host and the cluster manager's port."""
        arguments = {"bucket": "default", "host": "127.0.0.1", "port": self.node.rest_ports[0]}
        arguments.update(keywords)
        connection = Couchbase.connect(**arguments)
        self.addCleanup(connection._close)
        return connection

    def test_host_and_port(self):
        """A bucket without a password; the connection says what it is."""
        cb = self.old()
        self.assertTrue(cb.set(self.key(), 1).success)
        self.assertTrue(cb.connected)
        self.assertFalse(cb.closed)
        self.assertEqual(cb.bucket, "default")
        self.assertEqual(cb.server_nodes, [f"127.0.0.1:{self.node.rest_ports[0]}"])
        self.assertEqual(cb.errors(), ())
        self.assertEqual(
            repr(cb),
            f"<couchbase.connection.Connection bucket=default, nodes={cb.server_nodes} at 0x{id(cb):x}>",
        )

    def test_connect_arguments(self):
        """``Couchbase.connect`` takes its first arguments by position, and the others by name."""
        cb = Couchbase.connect("default", "127.0.0.1", self.node.rest_ports[0], default_format=FMT_PICKLE)
        self.addCleanup(cb._close)
        self.assertIs(type(cb), Connection)
        self.assertEqual((cb.default_format, cb.quiet, cb.timeout), (FMT_PICKLE, False, 2.5))
        self.assertEqual((cb.lockmode, cb.unlock_gil), (LOCKMODE_WAIT, True))

    def test_password(self):
        """A bucket with a password; the only accepted user name is the bucket's."""
        self.assertTrue(self.old(bucket="secret", password="hush").set(self.key(), 1).success)
        self.assertTrue(self.old(bucket="secret", username="secret", password="hush").connected)
        self.assertRaises(AuthError, self.old, bucket="secret", password="wrong")
        with self.assertRaises(CouchbaseError) as caught:
            self.old(bucket="secret", username="other", password="hush")
        self.assertEqual(caught.exception.rc, 0x26)

    def test_no_password(self):
        """Another bucket than ``default`` may have none, either."""
        for password in (None, ""):
            cb = self.old(bucket="open", password=password)
            self.assertTrue(cb.set(self.key(), 1).success)

    def test_subclass(self):
        """The printed form has the name of the class."""

        class Mine(Connection):
            pass

        cb = self.connect(Mine)
        self.assertTrue(repr(cb).startswith("<couchbase.connection.Mine bucket=default, nodes=['127.0.0.1:"))

    def test_list_of_hosts(self):
        """Hosts are tried in order until one returns a map; errors() lists the failures of the others."""
        good = self.node.rest_ports[0]
        bad = closed_port()
        cb = self.old(host=[("127.0.0.1", bad), ("127.0.0.1", good)], port=bad)
        self.assertTrue(cb.set(self.key(), 1).success)
        self.assertEqual([rc for rc, text in cb.errors(clear_existing=False)], [0x10])
        self.assertEqual(len(cb.errors()), 1)
        self.assertEqual(cb.errors(), ())
        self.assertTrue(self.old(host=("127.0.0.1", "localhost")).connected)
        # The first of two names in one text has the default ports, where another node may listen.
        ports = {"DEFAULT_MANAGEMENT_PORT": bad, "DEFAULT_KV_PORT": closed_port()}
        with mock.patch.multiple(connstr, **ports):
            self.assertTrue(self.old(host="127.0.0.1;127.0.0.1").connected)
        self.assertTrue(self.old(host="http://127.0.0.1/pools").connected)

    def test_malformed_hosts(self):
        """InvalidError 0x1F before anything is sent."""
        port = self.node.rest_ports[0]
        for host in (f"127.0.0.1:{port}", "", "a b", "a,b", [], "http://"):
            with self.assertRaises(InvalidError) as caught:
                self.old(host=host)
            self.assertEqual(caught.exception.rc, 0x1F)
        for bad in (0, 65536, -1, "0", "65536", "8091x", "", None):
            self.assertRaises(InvalidError, self.old, port=bad)
        for host in (None, 5, [5], [("a", 1, 2)]):
            self.assertRaises(ArgumentError, self.old, host=host)

    def test_nobody_there(self):
        """Refused, unknown, and silent hosts."""
        with self.assertRaises(NetworkError) as caught:
            self.old(port=closed_port())
        self.assertIsInstance(caught.exception, CouchbaseNetworkError)
        self.assertEqual(caught.exception.rc, 0x10)
        self.assertRaises(UnknownHostError, self.old, host="no-such-host.invalid")
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            before = time.monotonic()
            with self.assertRaises(TimeoutError) as caught:
                self.old(port=silent.getsockname()[1], _cntl={0x12: 300_000})
            self.assertLess(time.monotonic() - before, 1.5)
            with self.assertRaises(TimeoutError):
                Connection(
                    bucket="default",
                    connection_string=f"couchbase://127.0.0.1:{silent.getsockname()[1]}",
                    _cntl={0x12: 200_000},
                )

    def test_no_such_bucket(self):
        """BucketNotFoundError 0x19, for a user with the permission to know."""
        with self.assertRaises(BucketNotFoundError) as caught:
            self.connect(bucket="nope")
        self.assertEqual(caught.exception.rc, 0x19)

    def test_no_such_bucket_without_an_administrator(self):
        """A node that hides nothing says so also to who names the bucket alone; another hides it."""
        node = NodeProcess(administrator=False)
        self.addCleanup(node.stop)
        for place in (
            {"host": "127.0.0.1", "port": node.rest_ports[0]},
            {"host": "127.0.0.1", "port": node.rest_ports[0], "password": ""},
            {"connection_string": node.string},
        ):
            with self.assertRaises(BucketNotFoundError) as caught:
                Connection(bucket="nope", **place)
            self.assertEqual(caught.exception.rc, 0x19)
        with self.assertRaises(AuthError):
            Connection(bucket="secret", host="127.0.0.1", port=node.rest_ports[0])
        with self.assertRaises(AuthError):
            self.old(bucket="nope")

    def test_no_exceptions(self):
        """``_no_connect_exceptions``: errors() lists the failures, and operations raise
        ClientTemporaryFailError."""
        cb = self.old(port=closed_port(), _no_connect_exceptions=True)
        self.assertFalse(cb.connected)
        self.assertEqual(cb.errors(clear_existing=False)[0][0], 0x10)
        with self.assertRaises(ClientTemporaryFailError) as caught:
            cb.get("k")
        self.assertEqual(caught.exception.rc, 0x1B)
        self.assertRaises(ClientTemporaryFailError, cb.stats)
        self.assertRaises(ClientTemporaryFailError, cb.observe, "k")
        self.assertRaises(ClientTemporaryFailError, cb.endure, "k")
        self.assertRaises(ClientTemporaryFailError, cb.get_multi, ["k"])

    def test_arguments(self):
        """Wrong and unknown keywords."""
        for keywords in (
            {"bucket": None},
            {"bucket": ""},
            {"bucket": 5},
            {"quiet": None},
            {"quiet": "x"},
            {"password": 5},
            {"lockmode": 7},
            {"unlock_gil": "x"},
            {"default_format": "x"},
            {"config_cache": 5},
            {"nonsense": 1},
        ):
            with self.assertRaises(ArgumentError, msg=str(keywords)):
                self.old(**keywords)
        self.assertRaises(ArgumentError, Couchbase.connect)
        self.assertRaises(TypeError, Connection, "default")
        for bad in (0, -1):
            self.assertRaises(ValueError, self.old, timeout=bad)
        self.assertRaises(TypeError, self.old, timeout="1")
        self.assertEqual(self.old(timeout=None).timeout, 2.5)
        self.assertEqual(self.old(timeout=7).timeout, 7.0)

    def test_second_init(self):
        """RuntimeError."""
        self.assertRaises(RuntimeError, self.cb.__init__, bucket="default")

    def test_settings(self):
        """Keywords are start values of attributes."""
        cb = self.old(quiet=True, default_format=FMT_AUTO, transcoder=Transcoder, unlock_gil=False)
        self.assertTrue(cb.quiet)
        self.assertIs(cb.default_format, FMT_AUTO)
        self.assertIsInstance(cb.transcoder, Transcoder)
        self.assertEqual((cb.lockmode, cb.unlock_gil), (LOCKMODE_NONE, False))
        gevent = self.old(experimental_gevent_support=True)
        self.assertEqual(gevent.set(self.key(), 1).rc, gevent.get(self.key()).rc)

    def test_connection_string(self):
        """Beyond 1.2: any user, and the bucket in the path."""
        cb = self.connect(bucket=None, connection_string=self.node.string + "/secret")
        self.assertEqual(cb.bucket, "secret")
        self.assertTrue(cb.set(self.key(), 1).success)
        self.assertRaises(AuthError, self.connect, password="wrong")
        self.assertRaises(ArgumentError, self.connect, connection_string=self.node.string + "?x=1")
        plain = self.connect(connection_string=self.node.string + "?compression=off")
        self.assertTrue(plain.set(self.key(), 1).success)
        for value in ("on", "inflate_only", "force", "OFF"):
            with self.assertRaises(ArgumentError) as caught:
                self.connect(connection_string=f"{self.node.string}?compression={value}")
            self.assertIn("values are never compressed", str(caught.exception))
        self.assertRaises(InvalidError, self.connect, connection_string="ftp://x")


class CacheTests(ConnectionTestCase):
    """The file that keeps the cluster map."""

    def setUp(self):
        super().setUp()
        handle, self.path = tempfile.mkstemp()
        os.close(handle)
        self.addCleanup(os.unlink, self.path)

    def test_written_and_used(self):
        """The first connection writes the file, the second reads it: no node is asked for a map."""
        first = self.connect(config_cache=self.path)
        self.assertFalse(first._cntl(0x15))
        second = self.connect(config_cache=self.path, connection_string="couchbase://127.0.0.1:1")
        self.assertTrue(second._cntl(0x15))
        self.assertTrue(second.set(self.key(), 1).success)

    def test_worthless_files(self):
        """An empty or invalid file is replaced; one that cannot be written is ignored."""
        for text in ("", "{", "[]", "[" * 100_000, '{"form": 1, "host": "h", "config": {"name": "x"}}'):
            with open(self.path, "w") as file:
                file.write(text)
            self.assertFalse(self.connect(config_cache=self.path)._cntl(0x15))
            with open(self.path) as file:
                self.assertEqual(json.load(file)["config"]["name"], "default")
        self.assertTrue(self.connect(config_cache="/no/such/folder/cache").connected)

    def test_other_bucket(self):
        """The map of another bucket is not used."""
        self.connect(config_cache=self.path)
        cb = self.connect(config_cache=self.path, bucket="secret")
        self.assertFalse(cb._cntl(0x15))

    def test_map_of_the_past(self):
        """If the kept nodes are gone, the hosts are asked after all."""
        self.connect(config_cache=self.path)
        with open(self.path) as file:
            kept = json.load(file)
        port = closed_port()
        for node in kept["config"]["nodesExt"]:
            node["services"]["kv"] = port
        kept["config"]["vBucketServerMap"]["serverList"] = [f"127.0.0.1:{port}"]
        with open(self.path, "w") as file:
            json.dump(kept, file)
        cb = self.connect(config_cache=self.path)
        self.assertTrue(cb._cntl(0x15))
        self.assertTrue(cb.set(self.key(), 1).success)
        self.assertFalse(cb._cntl(0x15))

    def test_old_name(self):
        """``conncache`` still works, with a DeprecationWarning; the new name wins."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.connect(conncache=self.path)
        self.assertEqual([warning.category for warning in caught], [DeprecationWarning])
        self.assertGreater(os.path.getsize(self.path), 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cb = self.connect(conncache="/no/such/folder/cache", config_cache=self.path)
        self.assertTrue(cb._cntl(0x15))
