"""The gateway in front of a cluster with TLS: authorities, client certificates, cluster managers, names."""

import json
import os

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.python.usage import UsageError
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from couchbase.connection import Connection
from gateway.settings import resolve
from tests.gateway.test_behaviour import JSON, GatewayTestCase
from tests.gateway.workers.support import DOCUMENT, LOOPBACK, WorkersTestCase
from tests.servers.test_srv import NameServer
from tests.servers.versions import FEATURES, VersionedNode

try:
    from tests.certificates import self_signed
    from tests.servers.tlsnode import ADMINISTRATOR, TlsNode
except ImportError as missing:
    raise SkipTest("no package that makes certificates") from missing

D = "/v1/buckets/default/documents/"


class OptionTests(SynchronousTestCase):
    """Refused starts of the gateway, and their messages."""

    def setUp(self):
        """Write files of every kind."""
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        both = self_signed()
        at = both.index(b"-----BEGIN PRIVATE KEY")
        self.files = {
            "ca": self_signed(),
            "both": both,
            "cert": both[:at],
            "key": both[at:],
            "expired": self_signed(-2, -1),
            "early": self_signed(1, 2),
            "encrypted": self_signed(passphrase=b"secret"),
            "text": b"no certificate",
            "der": b"\x30\x82\x01\x0a" + bytes(100),
            "broken": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "bundle": self_signed(-2, -1) + self_signed(),
        }
        for name, data in self.files.items():
            with open(self.path(name), "wb") as file:
                file.write(data)

    def path(self, name):
        """Return the path of a file."""
        return os.path.join(self.folder, f"{name}.pem")

    def settings(self, cluster="couchbases://h", options="", **files):
        """Return the settings of ``--cluster`` and files by their names."""
        query = "&".join(f"{key}={self.path(name)}" for key, name in options) if options else ""
        given = {} if cluster is None else {"cluster": f"{cluster}?{query}" if query else cluster}
        given.update({f"cluster-{key}": self.path(name) for key, name in files.items()})
        return resolve(given, {})

    def test_accepted(self):
        """Files that belong together, by options or in the connection string, as absolute paths."""
        for settings, files in (
            (self.settings(ca="ca", cert="cert", key="key"), ("ca", "cert", "key")),
            (self.settings(cert="both"), (None, "both", "both")),
            (self.settings(ca="bundle"), ("bundle", None, None)),
            (self.settings("https://h:18091,i:18091", ca="ca"), ("ca", None, None)),
            (self.settings(options=[("certpath", "ca")]), ("ca", None, None)),
            (self.settings(options=[("truststorepath", "ca")]), ("ca", None, None)),
            (self.settings(options=[("client_cert", "both")]), (None, "both", "both")),
            (self.settings(options=[("certpath", "cert"), ("keypath", "key")]), ("cert", "cert", "key")),
            (
                self.settings(options=[("truststorepath", "ca"), ("certpath", "cert"), ("keypath", "key")]),
                ("ca", "cert", "key"),
            ),
            (self.settings(options=[("certpath", "ca")], cert="both"), ("ca", "both", "both")),
        ):
            found = (settings.cluster_ca, settings.cluster_cert, settings.cluster_key)
            self.assertEqual(found, tuple(name and self.path(name) for name in files))
            self.assertNotIn("?", settings.cluster)
        string = f"couchbases://h?network=external&certpath={self.path('ca')}"
        self.assertEqual(resolve({"cluster": string}, {}).cluster, "couchbases://h?network=external")
        environment = {"COUCHGATEWAY_CLUSTER": "couchbases://h", "COUCHGATEWAY_CLUSTER_CA": self.path("ca")}
        self.assertEqual(resolve({}, environment).cluster_ca, self.path("ca"))

    def test_account(self):
        """A client certificate is the service account: no other is needed, and none may be given."""
        given = {"cluster": "couchbases://h", "cluster-cert": self.path("both")}
        self.assertEqual(resolve(given, {}).auth, "passthrough")
        self.assertEqual(resolve({**given, "auth": "none"}, {}).auth, "none")
        with self.assertRaises(UsageError) as caught:
            resolve({**given, "user": "u", "password-file": self.path("text")}, {})
        self.assertIn("--cluster-cert: the certificate says who", str(caught.exception))

    def test_refused(self):
        """Each mistake names option and file, and what was expected."""
        for words, options in (
            (("--cluster-ca: there is no file", "none.pem"), {"ca": "none"}),
            (("--cluster-ca: ", "text.pem", "has no certificate: expected PEM"), {"ca": "text"}),
            (("--cluster-ca: ", "der.pem", "looks like DER"), {"ca": "der"}),
            (("--cluster-ca: ", "broken.pem", "does not contain PEM certificates"), {"ca": "broken"}),
            (("--cluster-ca: ", "key.pem", "holds a private key"), {"ca": "key"}),
            (("--cluster-ca: ", "expired.pem", "expired on", "expected"), {"ca": "expired"}),
            (("--cluster-cert: ", "expired.pem", "expired on", "expected"), {"cert": "expired"}),
            (("--cluster-cert: ", "early.pem", "not valid before", "expected"), {"cert": "early"}),
            (("--cluster-cert: ", "text.pem", "expected PEM"), {"cert": "text"}),
            (("--cluster-cert: ", "cert.pem", "has no private key: expected PEM"), {"cert": "cert"}),
            (("--cluster-cert: ", "encrypted.pem", "no passphrase"), {"cert": "encrypted"}),
            (("--cluster-key: ", "encrypted.pem", "no passphrase"), {"cert": "cert", "key": "encrypted"}),
            (
                ("--cluster-key: ", "ca.pem", "are not a certificate and its key"),
                {"cert": "cert", "key": "ca"},
            ),
            (("--cluster-key: ", "text.pem", "has no private key"), {"cert": "cert", "key": "text"}),
            (("--cluster-key: it needs --cluster-cert",), {"key": "key"}),
            (("--cluster-ca: it needs TLS", "couchbases://"), {"cluster": "couchbase://h", "ca": "ca"}),
            (("--cluster-ca: it needs TLS", "https://"), {"cluster": "http://h", "ca": "ca"}),
            (("--cluster-cert: it needs TLS",), {"cluster": "couchbase://h", "cert": "both"}),
            (("--cluster-ca: it is about a cluster", "--cluster"), {"cluster": None, "ca": "ca"}),
            (
                ("--cluster: certpath needs TLS",),
                {"cluster": "couchbase://h", "options": [("certpath", "ca")]},
            ),
            (("--cluster: keypath needs certpath",), {"options": [("keypath", "key")]}),
            (("--cluster: client_key needs client_cert",), {"options": [("client_key", "key")]}),
            (("--cluster: ", "give one"), {"options": [("certpath", "ca"), ("truststorepath", "ca")]}),
            (("--cluster-ca: ", "give one"), {"options": [("certpath", "ca")], "ca": "ca"}),
            (("--cluster: ", "'certpath' has no value"), {"cluster": "couchbases://h?certpath="}),
            (("--cluster: ", "'network' is given twice"), {"cluster": "couchbase://h?network=a&network=b"}),
            (("--cluster-ca: ", "text.pem"), {"options": [("certpath", "text")]}),
            (("--cluster-ca: ", "none.pem", "cannot be read"), {"options": [("certpath", "none")]}),
        ):
            with self.assertRaises(UsageError) as caught:
                self.settings(**options)
            for word in words:
                self.assertIn(word, str(caught.exception))

    def test_clusters(self):
        """Cluster managers may be named, one or several; other schemes are refused with the possible ones."""
        for cluster in ("http://h", "http://h:8091", "https://h:18091,i:18092", "http://h,[::1]:9000"):
            self.assertEqual(resolve({"cluster": cluster}, {}).cluster, cluster)
        for cluster in ("ftp://h", "h:8091", "http://", "http://h:0", "http://h:x"):
            with self.assertRaises(UsageError) as caught:
                resolve({"cluster": cluster}, {})
            self.assertIn("--cluster: ", str(caught.exception))


class BehindTls(GatewayTestCase):
    """A gateway in front of a node with TLS."""

    service = None
    credentials = ADMINISTRATOR

    def setUp(self):
        """Nothing runs before a test chooses its server."""

    @inlineCallbacks
    def tearDown(self):
        """End the gateway."""
        if self.service is not None:
            yield GatewayTestCase.tearDown(self)

    @inlineCallbacks
    def node(self, **options):
        """Start a node."""
        node = TlsNode(self, **options)
        yield node.node.start()
        self.addCleanup(node.node.stop)
        return node

    @inlineCallbacks
    def begin_with(self, **options):
        """Start a gateway."""
        self.options = {name.replace("_", "-"): value for name, value in options.items()}
        yield GatewayTestCase.setUp(self)

    @inlineCallbacks
    def end(self):
        """End the gateway, before another is started."""
        yield GatewayTestCase.tearDown(self)
        self.service = None

    @inlineCallbacks
    def works(self):
        """Documents, a view, management and readiness."""
        stored = yield self.ask("PUT", D + "k", b'{"n":1}', **JSON)
        self.assertEqual(stored.status, 200, stored.body)
        read = yield self.ask("GET", D + "k")
        self.assertEqual(read.body, b'{"n":1}')
        buckets = yield self.ask("GET", "/v1/buckets")
        self.assertEqual((buckets.status, b'"default"' in buckets.body), (200, True), buckets.body)
        design = json.dumps(
            {"views": {"v": {"map": "function (doc, meta) { emit(meta.id, doc.n); }"}}}
        ).encode()
        made = yield self.ask("PUT", "/v1/buckets/default/designs/d", design, **JSON)
        self.assertEqual(made.status // 100, 2, made.body)
        rows = yield self.ask("GET", "/v1/buckets/default/views/d/v?stale=false")
        self.assertEqual((rows.status, [row["value"] for row in rows.json()["rows"]]), (200, [1]), rows.body)
        ready = yield self.ask("GET", "/ready")
        self.assertEqual(ready.status, 200, ready.body)

    @inlineCallbacks
    def test_authority(self):
        """With --cluster-ca callers log in by password; the key-value service and the manager are a start."""
        node = yield self.node()
        for cluster in (node.string, node.manager, f"https://127.0.0.1:1,{node.manager[8:]}"):
            yield self.begin_with(cluster=cluster, cluster_ca=node.ca)
            yield self.works()
            refused = yield self.ask("GET", D + "k", auth=("Administrator", "wrong"))
            self.assertEqual(refused.status, 403, refused.body)
            refused = yield self.ask("GET", "/v1/buckets", auth=("Administrator", "wrong"))
            self.assertEqual(refused.status, 403, refused.body)
            yield self.end()
        self.assertNotIn(None, {*node.headers} - {None})

    @inlineCallbacks
    def test_client_certificate(self):
        """A certificate is used for everything, over both protocols, and no password is sent."""
        node = yield self.node(requires=True)
        self.credentials = None
        for cluster in (node.string, node.manager):
            yield self.begin_with(
                cluster=cluster, cluster_ca=node.ca, cluster_cert=node.own, cluster_key=node.own, auth="none"
            )
            yield self.works()
            yield self.end()
        self.assertEqual({*node.headers}, {None})

    @inlineCallbacks
    def test_both(self):
        """With --auth passthrough the certificate is for /ready, and callers log in by their passwords."""
        node = yield self.node()
        yield self.begin_with(cluster=node.string, cluster_ca=node.ca, cluster_cert=node.own)
        yield self.works()
        refused = yield self.ask("GET", D + "k", auth=("Administrator", "wrong"))
        self.assertEqual(refused.status, 403, refused.body)

    @inlineCallbacks
    def test_unready(self):
        """/ready says which certificate is not trusted, or missing, and where."""
        node = yield self.node(requires=True)
        other = node.write("other.pem", self_signed())
        for cluster, start in ((node.string, f"127.0.0.1:{node.kv_port}"), (node.manager, node.manager[8:])):
            for auth in ({}, {"cluster_cert": node.own, "auth": "none"}):
                for files in ({}, {"cluster_ca": other}):
                    yield self.begin_with(cluster=cluster, **files, **auth)
                    ready = yield self.ask("GET", "/ready")
                    self.assertEqual(ready.status, 503)
                    self.assertIn("certificate verify failed", ready.json()["reason"])
                    self.assertIn(start, ready.json()["reason"])
                    self.assertNotIn("Failure", ready.json()["reason"])
                    yield self.end()
        yield self.begin_with(cluster=node.string, cluster_ca=node.ca, cluster_cert=other, auth="none")
        ready = yield self.ask("GET", "/ready")
        self.assertEqual(ready.status, 503)
        self.assertIn("the node refused the client certificate", ready.json()["reason"])

    @inlineCallbacks
    def test_renewed(self):
        """Connections that are made later read the files again; a file that went bad is named."""
        node = yield self.node(requires=True)
        own = node.write("renewed.pem", self_signed())
        self.credentials = None
        yield self.begin_with(cluster=node.string, cluster_ca=node.ca, cluster_cert=own, auth="none")
        failed = yield self.ask("GET", D + "k")
        self.assertEqual(failed.status, 503)
        node.write("renewed.pem", b"")
        failed = yield self.ask("GET", D + "k")
        self.assertIn("renewed.pem", failed.json()["message"])
        with open(node.own, "rb") as file:
            node.write("renewed.pem", file.read())
        stored = yield self.ask("PUT", D + "k", b"1", **JSON)
        self.assertEqual(stored.status, 200, stored.body)

    @inlineCallbacks
    def test_name_of_a_cluster(self):
        """SRV records lead from couchbases://name to nodes with TLS, verified by their own names."""
        node = yield self.node()
        names = NameServer([(0, 0, node.kv_port, "127.0.0.1")])
        self.addCleanup(deferToThread, names.stop)
        string = f"couchbases://cluster.test?nameserver=127.0.0.1:{names.port}"
        yield self.begin_with(cluster=string, cluster_ca=node.ca)
        yield self.works()
        user, password = ADMINISTRATOR

        def blocking():
            cb = Connection(
                bucket="default",
                connection_string=f"{string}&truststorepath={node.ca}",
                username=user,
                password=password,
            )
            try:
                return cb.get("k").value
            finally:
                cb._close()

        value = yield deferToThread(blocking)
        self.assertEqual(value, {"n": 1})

    @inlineCallbacks
    def test_wrong_ports(self):
        """A port of another kind is named with the one that was expected."""
        node = yield self.node()
        for cluster, words in (
            (
                node.string.replace("couchbases:", "http:"),
                "the port of a cluster manager, without TLS",
            ),
            (node.manager.replace("https:", "http:"), "the port of a cluster manager, without TLS"),
            (
                node.string.replace("couchbases:", "https:"),
                "the port of a cluster manager, with TLS",
            ),
            (node.manager.replace("127.0.0.1", "localhost"), "the certificate is for another host name"),
        ):
            files = {"cluster_ca": node.ca} if cluster.startswith("https") else {}
            yield self.begin_with(cluster=cluster, **files)
            ready = yield self.ask("GET", "/ready")
            self.assertEqual(ready.status, 503)
            self.assertIn(words, ready.json()["reason"])
            yield self.end()


class WorkerTests(WorkersTestCase):
    """Several processes in front of a node with TLS."""

    @inlineCallbacks
    def test_renewed(self):
        """Workers use the files; SIGHUP reads them again, and keeps the workers if one of them is bad."""
        node = TlsNode(self, requires=True)
        yield node.node.start()
        self.addCleanup(node.node.stop)
        with open(node.own, "rb") as file:
            good = file.read()
        own = node.write("client.pem", good)
        given = {"cluster": node.manager, "cluster-ca": node.ca, "cluster-cert": own, "auth": "none"}
        arguments = [part for name, value in given.items() for part in (f"--{name}", value)]
        self.running.start("--workers", "2", "--listen", LOOPBACK, *arguments)
        found = yield self.running.logged(r"listens on (\S+)")
        yield self.running.logged(r"worker \d+ is ready", 2)
        url = found[0] + DOCUMENT + "a"
        stored = yield self.fetch("PUT", url, data=b"1")
        self.assertEqual(stored[0], 200, stored)
        node.write("client.pem", self_signed(-2, -1))
        self.running.signal("HUP")
        yield self.running.logged("keep their settings: --cluster-cert: .*client.pem.* expired on")
        self.assertEqual([len(pids) for pids in self.running.workers.values()], [1, 1])
        node.write("client.pem", self_signed())
        self.running.signal("HUP")
        yield self.running.logged("all workers are replaced")
        read = yield self.read_until(503, url)
        self.assertIn(b"refused the client certificate", read[2])
        node.write("client.pem", good)
        self.running.signal("HUP")
        yield self.running.logged("all workers are replaced", 2)
        read = yield self.read_until(200, url)
        self.assertEqual(read[2], b"1")
        yield self.stop()

    @inlineCallbacks
    def read_until(self, status, url):
        """Read on new connections until the status is this one: a replaced worker may still accept one."""
        while True:
            read = yield self.fetch("GET", url)
            if read[0] == status:
                return read


class Managers(Resource):
    """A cluster manager as of servers before 2.5: no list of services, no terse configuration."""

    isLeaf = True

    def __init__(self, node):
        super().__init__()
        self.node = node
        self.asked = []

    def render_GET(self, request):
        """Answer what such a manager knows."""
        path = request.path.decode()
        self.asked.append(path)
        port = request.getHost().port
        if path == "/pools/default/bucketsStreaming/b":
            request.write(self.node.config() + b"\n\n\n\n")
            return NOT_DONE_YET
        if path == "/pools/default":
            node = {"hostname": f"127.0.0.1:{port}", "ports": {"direct": self.node.port}}
            return json.dumps({"name": "default", "buckets": {"uri": ""}, "nodes": [node]}).encode()
        if path == "/pools/default/buckets":
            return json.dumps([{"name": "b", "bucketType": "membase", "nodes": []}]).encode()
        request.setResponseCode(404)
        return b""


class ManagerTests(GatewayTestCase):
    """Nodes that give no cluster map over the key-value protocol."""

    credentials = ("u", "p")

    def setUp(self):
        """The test starts the gateway."""

    @inlineCallbacks
    def test_old_server(self):
        """From its manager it is served and ready, and its buckets are listed."""
        node = VersionedNode(FEATURES["5.0"])
        node.gives_config = False
        self.addCleanup(node.stop)
        managers = Managers(node)
        listening = reactor.listenTCP(0, Site(managers), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.options = {"cluster": f"http://127.0.0.1:{listening.getHost().port}"}
        yield GatewayTestCase.setUp(self)
        stored = yield self.ask("PUT", "/v1/buckets/b/documents/k", b"1", **JSON)
        self.assertEqual(stored.status, 200, stored.body)
        self.assertEqual(node.documents[b"k"].value, b"1")
        ready = yield self.ask("GET", "/ready")
        self.assertEqual(ready.status, 200, ready.body)
        buckets = yield self.ask("GET", "/v1/buckets")
        self.assertEqual((buckets.status, b'"b"' in buckets.body), (200, True), buckets.body)
        self.assertIn("/pools/default/nodeServicesStreaming", managers.asked)
