"""The blocking client with nodes that refuse, vanish, move keys, stay silent or break the protocol."""

import os
import signal
import ssl
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from unittest import SkipTest, TestCase

from couchbase.blocking import cluster
from couchbase.connection import Connection
from couchbase.exceptions import (
    ArgumentError,
    CouchbaseError,
    CouchbaseNetworkError,
    CouchbaseTransientError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    TemporaryFailError,
    TimeoutError,
)
from couchbase.protocol.constants import Opcode, Status
from tests.couchbase.scripted import ScriptedNode


class FaultTestCase(TestCase):
    """Two scripted nodes; the connection knows the first."""

    def setUp(self):
        self.first, self.second = ScriptedNode(), ScriptedNode()
        self.addCleanup(self.second.stop)
        self.addCleanup(self.first.stop)
        self.cb = self.connect()

    def connect(self, **keywords):
        """Return a connection that is closed after the test."""
        arguments = {"bucket": "b", "connection_string": self.first.string, "username": "u", "password": "p"}
        arguments.update(keywords)
        connection = Connection(**arguments)
        self.addCleanup(connection._close)
        return connection

    def normal(self, node):
        """Let a node succeed again."""
        node.script = lambda peer, frame: ScriptedNode.script(node, peer, frame)

    def move(self, rev=2, rows=([1],)):
        """Give every key to the second node."""
        for node in (self.first, self.second):
            node.rev, node.cluster, node.rows = rev, [self.first, self.second], list(rows)


class RefusalTests(FaultTestCase):
    """Answers that call for another attempt."""

    def test_temporary_failures_are_repeated(self):
        """Until one attempt succeeds; later operations on the key wait behind, in order."""
        refusals = [Status.ETMPFAIL, Status.EBUSY]

        def script(peer, frame):
            peer.answer(frame, refusals.pop(0) if refusals else 0, cas=1)

        self.first.script = script
        self.assertTrue(self.cb.set("k", 1).success)
        self.assertEqual(len(self.first.seen), 3)
        refusals += [Status.ETMPFAIL, Status.ETMPFAIL]
        del self.first.seen[:]
        with self.cb.pipeline():
            self.cb.set("k", 1)
            self.cb.set("k", 2)
        self.assertEqual([frame.value for frame in self.first.seen], [b"1", b"2", b"1", b"2"])
        self.assertEqual(self.cb._cluster._parked, {})

    def test_temporary_failure_until_the_end(self):
        """When time runs out the temporary failure itself is raised, and is not ambiguous."""
        self.first.script = lambda peer, frame: peer.answer(frame, Status.ETMPFAIL)
        self.cb.timeout = 0.05
        with self.assertRaises(TemporaryFailError) as caught:
            self.cb.set("k", 1)
        self.assertFalse(caught.exception.ambiguous)
        self.assertEqual(self.cb._cluster._parked, {})
        with self.assertRaises(TemporaryFailError) as caught:
            self.cb.set_multi({"a": 1, "b": 2})
        self.assertEqual([result.rc for result in caught.exception.all_results.values()], [0x0B, 0x0B])

    def test_not_my_vbucket_with_a_map(self):
        """The operation goes to the new owner at once, by the map in the answer."""

        def script(peer, frame):
            self.move()
            peer.answer(frame, Status.NOT_MY_VBUCKET, value=self.first.config())

        self.first.script = script
        self.assertTrue(self.cb.set("k", 1).success)
        self.assertEqual((len(self.first.seen), len(self.second.seen)), (1, 1))
        self.assertEqual(len(self.cb.server_nodes), 2)

    def test_not_my_vbucket_without_a_map(self):
        """The map is fetched, and no operation is lost."""

        def script(peer, frame):
            self.move()
            peer.answer(frame, Status.NOT_MY_VBUCKET)

        self.first.script = script
        results = self.cb.set_multi({f"k{i}": i for i in range(20)})
        self.assertTrue(results.all_ok)
        self.assertEqual(len(self.second.seen), 20)

    def test_not_my_vbucket_forever(self):
        """A TimeoutError at the end (the status itself is never raised)."""
        self.first.script = lambda peer, frame: peer.answer(frame, Status.NOT_MY_VBUCKET)
        self.cb.timeout = 0.1
        self.assertRaises(TimeoutError, self.cb.get, "k")

    def test_pushed_map(self):
        """The client uses a map that the server pushes, at the next call."""
        self.assertTrue(self.cb.set("k", 1).success)
        self.move()
        self.first.peers[0].push(self.first.config())
        self.cb._cluster._turned_at = 0.0
        deadline = time.monotonic() + 5
        while len(self.cb.server_nodes) < 2 and time.monotonic() < deadline:
            self.cb._cluster._turned_at = 0.0
            self.cb._cluster.catch_up()
        self.cb.set("k", 2)
        self.assertEqual([frame.value for frame in self.second.seen], [b"2"])

    def test_node_that_leaves(self):
        """Operations in flight on a node that a new map omits are still answered."""
        held = []
        self.first.script = lambda peer, frame: held.append((peer, frame))

        def leave():
            while not held:
                time.sleep(0.001)
            for node in (self.first, self.second):
                node.rev, node.cluster, node.rows = 2, [self.second], [[0]]
            peer, frame = held[0]
            peer.push(self.first.config())
            peer.answer(frame, cas=77)

        thread = threading.Thread(target=leave)
        thread.start()
        self.assertEqual(self.cb.set("k", 1).cas, 77)
        thread.join()
        self.assertTrue(self.cb.set("k", 2).success)
        self.assertEqual([frame.value for frame in self.second.seen], [b"2"])
        deadline = time.monotonic() + 5
        while self.first.peers and time.monotonic() < deadline:
            time.sleep(0.001)
        self.assertEqual(self.first.peers, [])

    def test_older_maps_are_ignored(self):
        """Only a newer revision is followed."""
        self.move(rev=0)
        self.first.peers[0].push(self.first.config())
        self.cb.set("k", 1)
        self.cb.set("k", 2)
        self.assertEqual(len(self.second.seen), 0)

    def test_polling(self):
        """If the server does not push maps, the client polls for them."""
        self.first.features = ()
        cb = self.connect()
        self.move()
        cb._cluster._turned_at = 0.0
        cb._cluster._asked_at = 0.001
        cb.set("k", 0)
        cb.set("k", 1)
        self.assertIn(b"1", [frame.value for frame in self.second.seen])

    def test_no_active_node(self):
        """A vbucket without an owner waits for a map that has one."""
        self.first.rows = [[-1]]
        self.first.rev = 2
        cb = self.connect(timeout=5)

        def mend():
            self.first.rows, self.first.rev = [[0]], 3
            self.first.peers[-1].push(self.first.config())

        timer = threading.Timer(0.05, mend)
        timer.start()
        self.assertTrue(cb.set("k", 1).success)
        timer.join()

    def test_new_session(self):
        """A node that disowns the session gets a new connection, and the operation again."""
        answers = [Status.AUTH_STALE]
        self.first.script = lambda peer, frame: peer.answer(frame, answers.pop() if answers else 0, cas=1)
        connections = len(self.first.peers)
        self.assertTrue(self.cb.set("k", 1).success)
        self.assertEqual((connections, len(self.first.seen)), (1, 2))


class SilenceTests(FaultTestCase):
    """No answers, and connections that end."""

    def test_silence(self):
        """TimeoutError, ambiguous for a mutation only; a late answer is ignored."""
        held = []
        self.first.script = lambda peer, frame: held.append((peer, frame))
        self.cb.timeout = 0.05
        before = time.monotonic()
        with self.assertRaises(TimeoutError) as caught:
            self.cb.set("k", 1)
        self.assertGreaterEqual(time.monotonic() - before, 0.05)
        error = caught.exception
        self.assertTrue(error.ambiguous)
        self.assertIsInstance(error, CouchbaseNetworkError)
        self.assertIsInstance(error, CouchbaseTransientError)
        self.assertEqual((error.rc, error.key), (0x17, "k"))
        with self.assertRaises(TimeoutError) as caught:
            self.cb.get("k")
        self.assertFalse(caught.exception.ambiguous)
        with self.assertRaises(TimeoutError) as caught:
            self.cb.get_multi(["a", "b"])
        self.assertEqual([result.rc for result in caught.exception.all_results.values()], [0x17, 0x17])
        self.assertRaises(TimeoutError, self.cb.stats)
        self.assertRaises(TimeoutError, self.cb.observe, "k")
        for peer, frame in held:
            peer.answer(frame, extras=b"", cas=1)
        self.normal(self.first)
        self.cb.timeout = 2.5
        self.assertEqual(self.cb.get("k").value, 1)

    def test_dead_connection(self):
        """A connection that stays silent while operations time out is replaced: its peer may be gone."""
        self.addCleanup(setattr, cluster, "SILENT_SECONDS", cluster.SILENT_SECONDS)
        cluster.SILENT_SECONDS = 0.05
        deaf = self.first.peers[0]
        self.first.script = lambda peer, frame: None if peer is deaf else peer.answer(frame, cas=5)
        self.cb.timeout = 0.1
        self.assertRaises(TimeoutError, self.cb.set, "k", 1)
        self.cb.timeout = 2.5
        self.assertEqual(self.cb.set("k", 2).cas, 5)
        # One that answers others in time is kept.
        self.first.script = lambda peer, frame: None if frame.key == b"slow" else peer.answer(frame, cas=6)
        self.cb.timeout = 0.1
        cluster.SILENT_SECONDS = 0.2
        self.assertRaises(TimeoutError, self.cb.set_multi, {"slow": 1, "k": 1})
        self.assertEqual(len(self.first.peers), 1)

    def test_lost_connection(self):
        """Operations in flight fail, mutations as ambiguous; later operations use a new connection."""
        self.first.script = lambda peer, frame: peer.cut()
        with self.assertRaises(NetworkError) as caught:
            self.cb.set("k", 1)
        self.assertTrue(caught.exception.ambiguous)
        self.assertEqual(caught.exception.rc, 0x10)
        with self.assertRaises(NetworkError) as caught:
            self.cb.get("k")
        self.assertFalse(caught.exception.ambiguous)
        self.normal(self.first)
        self.assertEqual(self.cb.get("k").value, 1)

    def test_lost_while_idle(self):
        """A connection that ended between calls is noticed before anything is sent on it."""
        self.cb.set("k", 1)
        self.first.cut()
        while self.first.peers:
            time.sleep(0.001)
        self.cb._cluster._turned_at = 0.0
        self.assertTrue(self.cb.set("k", 2).success)
        self.assertEqual(len(self.first.peers), 1)

    def test_node_gone(self):
        """Operations wait for it until their time is up, and are not ambiguous: they were never sent."""
        self.first.stop()
        while self.first.peers:
            time.sleep(0.001)
        self.cb._cluster._turned_at = 0.0
        self.cb.timeout = 0.2
        with self.assertRaises(TimeoutError) as caught:
            self.cb.set("k", 1)
        self.assertFalse(caught.exception.ambiguous)
        self.assertIn("refused", caught.exception.message)
        self.assertEqual([node.waiting for node in self.cb._cluster.peers.values()], [[]])

    def test_one_node_of_two(self):
        """Keys of the other node still work, and a multi operation says which keys failed."""
        self.move(rows=[[index % 2] for index in range(64)])
        cb = self.connect(timeout=0.3)
        keys = [f"k{number}" for number in range(20)]
        self.assertTrue(cb.set_multi(dict.fromkeys(keys, 1)).all_ok)
        self.second.stop()
        with self.assertRaises(CouchbaseNetworkError) as caught:
            cb.set_multi(dict.fromkeys(keys, 2))
        for key, result in caught.exception.all_results.items():
            self.assertEqual(result.success, cb._vbmap(key)[1] == 0)

    def test_moved_cluster(self):
        """When no node of the map can be reached, the seeds are asked again."""
        third = ScriptedNode()
        self.addCleanup(third.stop)
        cb = self.connect(
            connection_string=f"couchbase://127.0.0.1:{self.first.port},127.0.0.1:{third.port}", timeout=5
        )
        self.first.stop()
        while self.first.peers:
            time.sleep(0.001)
        cb._cluster._turned_at = 0.0
        self.assertTrue(cb.set("k", 1).success)
        self.assertEqual(len(third.seen), 1)

    def test_silent_handshake(self):
        """The constructor, and operations, give up on a node that accepts and then stays silent."""
        self.first.greets = False
        with self.assertRaises(TimeoutError):
            self.connect(_cntl={0x12: 100_000})

    def test_garbage(self):
        """Bytes that are no frame: ProtocolError, and a new connection."""
        self.first.script = lambda peer, frame: peer.write(b"GET / HTTP/1.1\r\n" * 10)
        with self.assertRaises(ProtocolError) as caught:
            self.cb.get("k")
        self.assertEqual(caught.exception.rc, 0x16)
        self.normal(self.first)
        self.assertEqual(self.cb.get("k").value, 1)

    def test_malformed_answer(self):
        """A frame that cannot be the answer: ProtocolError for the one operation."""

        def script(peer, frame):
            peer.answer(frame, extras=b"\0" if frame.key == b"bad" else bytes(4), value=b"1")

        self.first.script = script
        with self.assertRaises(ProtocolError) as caught:
            self.cb.get_multi(["good", "bad"])
        self.assertEqual(caught.exception.all_results["good"].value, 1)
        self.assertEqual(len(self.first.peers), 1)

    def test_answers_in_pieces(self):
        """Bytes may arrive one by one."""

        def script(peer, frame):
            class Collector:
                data = b""

                def sendall(self, data):
                    self.data += data

            collected = Collector()
            peer.sock, sock = collected, peer.sock
            peer.answer(frame, extras=bytes(4), value=b'"value"', cas=7)
            peer.sock = sock
            for index in range(len(collected.data)):
                sock.sendall(collected.data[index : index + 1])

        self.first.script = script
        self.assertEqual({result.value for result in self.cb.get_multi(["a", "b"]).values()}, {"value"})

    def test_slow_reader(self):
        """Megabytes to a node that answers each before it reads the next: neither side stands still."""
        value = "x" * 500_000
        self.first.script = lambda peer, frame: peer.answer(frame, extras=bytes(4), value=b'"y"', cas=1)
        self.cb.timeout = 20
        self.assertTrue(self.cb.set_multi({f"k{number}": value for number in range(40)}).all_ok)

    def test_interrupted(self):
        """KeyboardInterrupt is raised; the connection still works, without answers to earlier operations."""
        if threading.current_thread() is not threading.main_thread():
            raise SkipTest("signals are for the main thread")
        self.first.script = lambda peer, frame: os.kill(os.getpid(), signal.SIGINT)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with self.assertRaises(KeyboardInterrupt):
                self.cb.set("k", 1)
        finally:
            signal.signal(signal.SIGINT, before)
        self.normal(self.first)
        self.assertEqual(self.cb.get("k").value, 1)


class ReplicaTests(FaultTestCase):
    """Reads from copies when some of them fail."""

    def test_next_replica(self):
        """A replica that is silent leaves time for the next one."""
        third = ScriptedNode()
        self.addCleanup(third.stop)
        for node in (self.first, self.second, third):
            node.rev, node.cluster, node.rows = 2, [self.first, self.second, third], [[0, 1, 2]]
        cb = self.connect(timeout=2.0)
        self.second.script = lambda peer, frame: None

        def found(peer, frame):
            peer.answer(frame, extras=bytes(4), value=b"5", cas=9)

        third.script = found
        self.assertEqual(cb.rget("k").value, 5)
        self.assertEqual(cb.get("k", replica=True).value, 5)
        self.assertEqual({frame.opcode for frame in third.seen}, {Opcode.GET_REPLICA})
        self.second.script = lambda peer, frame: peer.answer(frame, Status.KEY_ENOENT)
        self.assertEqual(cb.rget_multi(["a", "b"])["b"].value, 5)
        third.script = self.second.script
        self.assertRaises(NotFoundError, cb.rget, "k")
        self.assertEqual(self.first.seen, [])


class HttpBootstrapTests(FaultTestCase):
    """Nodes that do not give the map over the key-value protocol: it is streamed over HTTP."""

    def serve(self):
        """Start a cluster manager; returns its port."""
        test = self

        class Manager(BaseHTTPRequestHandler):
            def do_GET(self):
                test.requests.append((self.path, self.headers.get("Authorization")))
                if test.status.get(self.path, 200) != 200:
                    self.send_error(test.status[self.path])
                    return
                self.send_response(200)
                self.end_headers()
                self.wfile.write(test.first.config() + b"\n\n\n\n")
                self.wfile.flush()
                test.hold.wait(5)

            def log_message(self, format, *args):
                pass

        self.requests, self.status, self.hold = [], {}, threading.Event()
        server = HTTPServer(("127.0.0.1", 0), Manager)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.addCleanup(self.hold.set)
        return server.server_address[1]

    def old(self, port, **keywords):
        """Connect by the cluster manager's port."""
        connection = Connection(bucket="b", host="127.0.0.1", port=port, password="p", **keywords)
        self.addCleanup(connection._close)
        return connection

    def test_streamed_map(self):
        """The first document is enough; credentials are the bucket's."""
        port = self.serve()
        self.first.gives_config = self.second.gives_config = False
        cb = self.old(port)
        self.hold.set()
        self.assertTrue(cb.set("k", 1).success)
        self.assertEqual(self.requests, [("/pools/default/bs/b", "Basic Yjpw")])

        def script(peer, frame):
            self.move()
            peer.answer(frame, Status.NOT_MY_VBUCKET)

        # The cluster manager also sends a new map.
        self.first.script = script
        self.assertTrue(cb.set("k", 2).success)
        self.assertEqual([frame.value for frame in self.second.seen], [b"2"])

    def test_old_servers(self):
        """404 at the terse address: the verbose one is asked."""
        port = self.serve()
        self.status["/pools/default/bs/b"] = 404
        self.hold.set()
        self.assertTrue(self.old(port).set("k", 1).success)

    def test_failures(self):
        """404 twice, and 401."""
        port = self.serve()
        terse, verbose = "/pools/default/bs/b", "/pools/default/bucketsStreaming/b"
        for status, code in (({terse: 404, verbose: 404}, 0x19), ({terse: 401}, 0x02), ({terse: 500}, 0x10)):
            self.status = status
            with self.assertRaises(CouchbaseError) as caught:
                self.old(port)
            self.assertEqual(caught.exception.rc, code)


class TlsTests(TestCase):
    """``couchbases://``."""

    def setUp(self):
        try:
            from tests.certificates import self_signed

            pem = self_signed()
        except ImportError as missing:
            raise SkipTest("no package that makes certificates") from missing
        handle, self.path = tempfile.mkstemp(suffix=".pem")
        self.addCleanup(os.unlink, self.path)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path)
        self.node = ScriptedNode(context)
        self.addCleanup(self.node.stop)

    def connect(self, **keywords):
        """Return a connection that is closed after the test."""
        keywords = {"bucket": "b", "connection_string": self.node.string, "password": "p", **keywords}
        connection = Connection(**keywords)
        self.addCleanup(connection._close)
        return connection

    def test_trusted(self):
        """Operations of any size, alone and many at once."""
        cb = self.connect(certpath=self.path)
        self.assertTrue(cb.set("k", "x" * 2_000_000).success)
        big = b'"' + b"y" * 1_000_000 + b'"'
        self.node.script = lambda peer, frame: peer.answer(frame, extras=bytes(4), value=big)
        found = cb.get_multi([f"k{number}" for number in range(10)])
        self.assertEqual({len(result.value) for result in found.values()}, {1_000_000})
        other = self.connect(connection_string=self.node.string + "?certpath=" + self.path)
        self.assertTrue(other.connected)

    def test_not_trusted(self):
        """An untrusted certificate: rc 0x37, and nothing is sent to the node."""
        with self.assertRaises(CouchbaseError) as caught:
            self.connect()
        self.assertEqual(caught.exception.rc, 0x37)
        self.assertEqual(self.node.seen, [])

    def test_no_tls_there(self):
        """A node that does not speak TLS: rc 0x36 or a lost connection, in time."""
        plain = ScriptedNode()
        self.addCleanup(plain.stop)
        with self.assertRaises(CouchbaseError) as caught:
            self.connect(
                connection_string=f"couchbases://127.0.0.1:{plain.port}",
                certpath=self.path,
                _cntl={0x12: 300_000},
            )
        self.assertIn(caught.exception.rc, (0x10, 0x17, 0x36))

    def test_bad_file(self):
        """ArgumentError."""
        self.assertRaises(ArgumentError, self.connect, certpath="/no/such/file")
        self.assertRaises(ArgumentError, self.connect, certpath=__file__)
