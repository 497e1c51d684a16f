"""Connections without a bucket that start from a cluster manager."""

import json

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from couchbase.exceptions import AuthError, NetworkError, ProtocolError
from couchbase.protocol.clustermap import NodeAddress, map_of_seed, parse_cluster_map
from couchbase.protocol.connstr import Seed
from txcouchbase import configstream
from txcouchbase.connection import Connection

STREAM, ONCE, POOL = configstream.CLUSTER_PATHS


class Manager(Resource):
    """Answers each path as scripted.

    :ivar answers: path -> status, or bytes of a whole answer, or a list of pieces of an unfinished one.
    """

    isLeaf = True

    def __init__(self):
        super().__init__()
        self.answers = {}
        self.asked = []
        self.open = []
        self.next = Deferred()

    def render_GET(self, request):
        """Answer."""
        path = request.path.decode()
        self.asked.append(path)
        waiting, self.next = self.next, Deferred()
        waiting.callback(path)
        answer = self.answers.get(path, 404)
        if isinstance(answer, int):
            request.setResponseCode(answer)
            return b"{}"
        if isinstance(answer, bytes):
            return answer
        for piece in answer:
            request.write(piece)
        self.open.append(request)
        request.notifyFinish().addBoth(lambda _: self.open.remove(request))
        return NOT_DONE_YET


class ManagerTests(TestCase):
    """A manager's knowledge of the cluster, by each possible request."""

    def setUp(self):
        """Listen."""
        self.manager = Manager()
        port = reactor.listenTCP(0, Site(self.manager), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port

    def nodes(self, rev=1, *others):
        """Return the document of a list of nodes: this manager, and others by their ports."""
        ports = (self.port, *others)
        entries = [{"hostname": "127.0.0.1", "services": {"mgmt": port}} for port in ports]
        return json.dumps({"rev": rev, "nodesExt": entries}).encode()

    def connect(self):
        """Return a connection, and what waits for it."""
        connection = Connection(connection_string=f"http://127.0.0.1:{self.port}", username="u", password="p")

        @inlineCallbacks
        def close():
            connection._close()
            yield connection._http.close()
            while self.manager.open:
                yield self.manager.open[0].notifyFinish().addErrback(lambda _: None)

        self.addCleanup(close)
        return connection, connection.connect()

    @inlineCallbacks
    def test_streamed(self):
        """The nodes are streamed: later lists are used; the stream ends with the connection."""
        self.manager.answers[STREAM] = [self.nodes(), b"\n\n\n\n"]
        connection, connected = self.connect()
        yield connected
        self.assertEqual(connection.server_nodes, [f"127.0.0.1:{self.port}"])
        self.assertEqual(connection._client.problem, None)
        changed = Deferred()
        adopt = connection._client.adopt
        self.patch(connection._client, "adopt", lambda cluster: changed.callback(adopt(cluster)))
        self.manager.open[0].write(self.nodes(2, 9) + b"\n\n\n\n")
        yield changed
        self.assertEqual(connection.server_nodes, [f"127.0.0.1:{self.port}", "127.0.0.1:9"])
        self.manager.answers["/pools"] = b"[]"
        status, _, body = yield connection.management_request("GET", "/pools")
        self.assertEqual((status, body), (200, b"[]"))

    @inlineCallbacks
    def test_once(self):
        """Servers that do not stream them are asked again from time to time."""
        self.patch(configstream, "ONCE_SECONDS", 0.01)
        pool = {"name": "default", "buckets": {}, "nodes": [{"hostname": f"127.0.0.1:{self.port}"}]}
        documents = (self.nodes(), json.dumps(pool).encode(), b'{"buckets": {}}')
        for path, document in zip((ONCE, POOL, POOL), documents, strict=True):
            self.manager.asked.clear()
            self.manager.answers = {path: document}
            connection, connected = self.connect()
            yield connected
            self.assertEqual(connection.server_nodes, [f"127.0.0.1:{self.port}"])
            while self.manager.asked.count(path) < 3:
                yield self.manager.next
            connection._close()

    @inlineCallbacks
    def test_forbidden(self):
        """A user without access to the nodes can use the manager that was given."""
        self.manager.answers = {STREAM: 403, "/whoami": b"{}"}
        connection, connected = self.connect()
        yield connected
        status, _, _ = yield connection.management_request("GET", "/whoami")
        self.assertEqual(status, 200)
        self.assertEqual(connection._client.problem, None)

    @inlineCallbacks
    def test_refused(self):
        """A wrong password, a node of no cluster, a broken document."""
        for answers, error, words in (
            ({STREAM: 401}, AuthError, "HTTP 401 for the nodes of the cluster"),
            ({}, NetworkError, "HTTP 404 for the nodes of the cluster"),
            ({STREAM: 500}, NetworkError, "HTTP 500 for the nodes of the cluster"),
            ({STREAM: [b"{\n\n\n\n"]}, ProtocolError, "the cluster map"),
            ({ONCE: b"[]"}, ProtocolError, "the cluster map"),
        ):
            self.manager.answers = answers
            connection, connected = self.connect()
            failure = yield self.assertFailure(connected, error)
            self.assertIn(words, str(failure))
            self.assertIn(f"127.0.0.1:{self.port}", connection._client.problem)

    def test_seed_alone(self):
        """Nodes that give no map without a bucket are managed by the port next to the one that was asked."""
        (node,) = map_of_seed(Seed("h", 11210, 8091), False).nodes
        self.assertEqual(node, NodeAddress("h", 11210, management=8091))
        (node,) = map_of_seed(Seed("h", 11207, 18091), True).nodes
        self.assertEqual(node, NodeAddress("h", None, 11207, management_tls=18091))

    def test_pool(self):
        """The pool's document lists nodes with the ports of both kinds, and is not taken for a bucket's."""
        node = {
            "hostname": "$HOST:9000",
            "couchApiBase": "http://$HOST:9500/",
            "ports": {"direct": 12000, "httpsMgmt": 19000, "httpsCAPI": 19500},
        }
        document = {"name": "default", "buckets": {"uri": "/"}, "nodes": [node], "rev": "x"}
        found = parse_cluster_map(json.dumps(document).encode(), "h")
        self.assertEqual(found.nodes, (NodeAddress("h", 12000, None, 9000, 19000, 9500, 19500),))
        self.assertEqual((found.name, found.data_nodes, found.rows), (None, 0, ()))
