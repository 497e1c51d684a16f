"""A node with an administrator serves no client without credentials, on any port; a node without one is
open, logs it, and listens on loopback only."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.hashing import vbucket_of
from couchnode.cluster.passwords import UserError
from couchnode.kv.commands.table import COMMANDS, Scope
from couchnode.rest.api import RestApi
from couchnode.service import EmbeddedNode, StartError
from tests.couchnode.nodes import Client
from tests.couchnode.rest.test_api import ADMIN, Answer, Exchange, head

Steps = Generator[Deferred[Any], Any, Any]
POOL = "/pools/default"
KEY = b"k"
VBUCKET = vbucket_of(KEY, 1024)
BUCKETS = [("default", None), ("open", ""), ("wine", "red"), ("beer", "pale")]
XERROR = int(Feature.XERROR).to_bytes(2, "big")
VIEW = b'{"views":{"v":{"map":"function(doc, meta){emit(meta.id)}"}}}'


class NodeCase(TestCase):
    """Nodes, and clients of their ports."""

    timeout = 60

    def setUp(self) -> None:
        self.nodes: list[EmbeddedNode] = []
        self.clients: list[Client] = []
        self.exchanges: list[Exchange] = []

    @inlineCallbacks
    def tearDown(self) -> Steps:
        for client in self.clients:
            if not client.is_lost:
                client.transport.abortConnection()
                yield client.lost
        for exchange in self.exchanges:
            if not exchange.lost:
                exchange.transport.abortConnection()
                yield exchange.closed
        for node in self.nodes:
            yield node.stop()

    @inlineCallbacks
    def start(self, data_dir: Path | None = None, **settings: Any) -> Steps:
        """Start a node with an administrator and the buckets above; it is stopped after the test."""
        node = EmbeddedNode(data_dir, **{"users": [ADMIN], "buckets": BUCKETS, **settings})
        self.nodes.append(node)
        yield node.start()
        return node

    @inlineCallbacks
    def client(self, node: EmbeddedNode, user: str | None = None, password: str = "") -> Steps:
        """Connect to the key-value port; log in with PLAIN if there is a user."""
        client = yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", node.kv_ports[0]), Client())
        self.clients.append(client)
        yield client.ask(Opcode.HELLO, value=XERROR)
        if user is not None:
            answer = yield client.ask(Opcode.SASL_AUTH, key=b"PLAIN", value=f"\0{user}\0{password}".encode())
            client.admitted = answer.specific == Status.SUCCESS
        return client

    @inlineCallbacks
    def ask(
        self,
        node: EmbeddedNode,
        path: str,
        method: str = "GET",
        auth: tuple[str, str] | None = None,
        body: bytes = b"",
        raw: bytes = b"",
    ) -> Steps:
        """Send one request to the REST port; return the answer."""
        port = node.cluster.nodes[0].address.rest_port
        exchange = yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Exchange())
        self.exchanges.append(exchange)
        headers = "Content-Type: application/json"
        exchange.transport.write(raw or head(method, path, auth, headers, len(body)) + body)
        yield exchange.closed
        return Answer(exchange.data)


def every_path() -> list[tuple[str, str]]:
    """Return (method, path) of every resource that a REST port has, and of some that it has not."""
    found = [
        (method, re.sub("<.*?>", bucket, rule.rule))
        for rule in RestApi.app.url_map.iter_rules()
        for method in sorted(rule.methods or ())
        if method in ("GET", "POST", "DELETE")
        for bucket in ("default", "nope")
    ]
    designs = [
        (method, f"/{bucket}/_design/d{view}")
        for bucket in ("default", "open", "nope")
        for view in ("", "/_view/v")
        for method in ("GET", "PUT", "POST", "DELETE")
    ]
    others = ["/nothing", "//pools//default/", "/pools/", f"{POOL}/buckets/default/", "/%ff", "/_utils"]
    return [*found, *designs, *[("GET", path) for path in others]]


class ClosedTests(NodeCase):
    """A node with an administrator."""

    @inlineCallbacks
    def test_every_http_resource_needs_credentials(self) -> Steps:
        """Without credentials, or with an empty password, every path gets 401 and a challenge."""
        node = yield self.start()
        paths = every_path()
        self.assertGreater(len(paths), 40)
        for method, path in paths:
            for auth in (None, ("default", ""), ("open", "")):
                if path == "/whoami" and auth is None:
                    continue  # it shows that the caller is anonymous
                if path == "/pools/default/certificate":
                    continue  # clients need it before they can trust the node
                if auth is not None and (path == "/" or path.startswith(("/nothing", "/%", "/_utils"))):
                    continue  # a missing bucket asks for no password
                answer = yield self.ask(node, path, method, auth, VIEW if method == "PUT" else b"")
                self.assertEqual(answer.status, 401, (method, path, auth))
                self.assertEqual(answer.body, b"")
                self.assertIn("Basic realm=", answer.headers["www-authenticate"])
        self.assertEqual(sorted(node.cluster.buckets), ["beer", "default", "open", "wine"])
        self.assertEqual(node.cluster.bucket("default").designs, {})

    @inlineCallbacks
    def test_every_command_needs_credentials(self) -> Steps:
        """Without credentials every command but those of the handshake is EACCESS, even NOOP and VERSION."""
        node = yield self.start()
        client = yield self.client(node)
        known = {opcode: row for opcode, row in enumerate(COMMANDS) if row is not None}
        handshake = {opcode for opcode, row in known.items() if row.scope == Scope.HANDSHAKE}
        self.assertEqual(
            handshake,
            {
                Opcode.HELLO,
                Opcode.SASL_LIST_MECHS,
                Opcode.SASL_AUTH,
                Opcode.SASL_STEP,
                Opcode.GET_ERROR_MAP,
            },
        )
        asked = [opcode for opcode in known if opcode not in handshake]
        self.assertIn(Opcode.GET_CLUSTER_CONFIG, asked)
        for opcode in asked:
            answer = yield client.ask(opcode, key=KEY, value=b"v", extras=bytes(8), vbucket=VBUCKET)
            self.assertEqual(answer.specific, Status.EACCESS, hex(opcode))
        for name in (b"default", b"open", b"wine"):
            answer = yield client.ask(Opcode.SELECT_BUCKET, key=name)
            self.assertEqual(answer.specific, Status.EACCESS, name)

    @inlineCallbacks
    def test_no_bucket_has_an_empty_password(self) -> Steps:
        """Only the administrator has access to a bucket without a password: its name is not a login."""
        node = yield self.start()
        for name in ("default", "open"):
            client = yield self.client(node, name)
            self.assertFalse(client.admitted, name)
            self.assertIsNone(node.cluster.users.scram_credential("SCRAM-SHA512", name))
            self.assertFalse(node.cluster.users.check_password(name, ""))
        client = yield self.client(node, *ADMIN)
        for name in (b"default", b"open"):
            answer = yield client.ask(Opcode.SELECT_BUCKET, key=name)
            self.assertEqual(answer.specific, Status.SUCCESS, name)
            answer = yield client.ask(Opcode.SET, key=KEY, value=b"v", extras=bytes(8), vbucket=VBUCKET)
            self.assertEqual(answer.specific, Status.SUCCESS)

    @inlineCallbacks
    def test_a_bucket_user_has_one_bucket(self) -> Steps:
        """The user of one bucket reaches no other: not its documents, its map, its designs, its name."""
        node = yield self.start()
        client = yield self.client(node, "wine", "red")
        self.assertTrue(client.admitted)
        for name in ("default", "open", "beer", "nope"):
            answer = yield client.ask(Opcode.SELECT_BUCKET, key=name.encode())
            self.assertEqual(answer.specific, Status.EACCESS, name)
            for method, path in [
                ("GET", f"/pools/default/b/{name}"),
                ("GET", f"/pools/default/bs/{name}"),
                ("GET", f"/pools/default/buckets/{name}"),
                ("GET", f"/pools/default/bucketsStreaming/{name}"),
                ("GET", f"/pools/default/buckets/{name}/ddocs"),
                ("GET", f"/pools/default/buckets/{name}/localRandomKey"),
                ("GET", f"/{name}/_design/d"),
                ("PUT", f"/{name}/_design/d"),
                ("DELETE", f"/{name}/_design/d"),
                ("GET", f"/{name}/_design/d/_view/v"),
            ]:
                answer = yield self.ask(node, path, method, ("wine", "red"), VIEW)
                self.assertEqual(answer.status, 403, (method, path))
        answer = yield client.ask(Opcode.LIST_BUCKETS)
        self.assertEqual(answer.value, b"wine")
        listed = yield self.ask(node, "/pools/default/buckets", auth=("wine", "red"))
        self.assertEqual([bucket["name"] for bucket in listed.json], ["wine"])
        answer = yield self.ask(node, "/wine/_design/d", "PUT", ("wine", "red"), VIEW)
        self.assertEqual(answer.status, 201)

    @inlineCallbacks
    def test_administrators_of_an_earlier_run_close_it_too(self) -> Steps:
        """A later start without --user does not open the folder of a node that had an administrator."""
        folder = Path(self.mktemp())
        node = yield self.start(folder)
        yield node.stop()
        node = yield self.start(folder, users=[])
        self.assertEqual((yield self.ask(node, "/pools")).status, 401)
        client = yield self.client(node)
        self.assertEqual((yield client.ask(Opcode.GET_CLUSTER_CONFIG)).specific, Status.EACCESS)
        # Nor does the removal of the last one at run time.
        node.cluster.users.remove(ADMIN[0])
        self.assertEqual((yield self.ask(node, "/pools")).status, 401)

    @inlineCallbacks
    def test_an_administrator_closes_what_was_open(self) -> Steps:
        """A folder made without an administrator is closed once there is one, and opens again on demand."""
        folder = Path(self.mktemp())
        node = yield self.start(folder, users=[])
        client = yield self.client(node, "open")
        self.assertTrue(client.admitted)
        yield node.stop()
        node = yield self.start(folder)
        client = yield self.client(node, "open")
        self.assertFalse(client.admitted)
        self.assertEqual((yield self.ask(node, "/pools/default/b/default")).status, 401)
        yield node.stop()
        node = yield self.start(folder, open_buckets=True)
        client = yield self.client(node, "open")
        self.assertTrue(client.admitted)
        self.assertEqual((yield self.ask(node, "/pools/default/b/default")).status, 200)

    @inlineCallbacks
    def test_a_password_anew_at_each_start(self) -> Steps:
        """The password given at a start is the bucket's from the first connection on; earlier ones fail."""
        folder = Path(self.mktemp())
        earlier = ""
        for password in ("pass-1", "pass-2", "pass-2", "pass-3"):
            node = yield self.start(folder, buckets=[("default", password)])
            client = yield self.client(node, "default", password)
            self.assertTrue(client.admitted, password)
            answer = yield client.ask(Opcode.SET, key=KEY, value=b"v", extras=bytes(8), vbucket=VBUCKET)
            self.assertEqual(answer.specific, Status.SUCCESS)
            if earlier != password:
                client = yield self.client(node, "default", earlier)
                self.assertFalse(client.admitted, earlier)
            earlier = password
            yield node.stop()
            self.assertNotIn(password, (folder / "cluster.json").read_text())
        # A start without one keeps the last.
        node = yield self.start(folder, buckets=[("default", None)])
        client = yield self.client(node, "default", "pass-3")
        self.assertTrue(client.admitted)

    @inlineCallbacks
    def test_passwords_with_control_characters(self) -> Steps:
        """A password with an added zero byte, or any control character, is not the password any more."""
        node = yield self.start()
        for tail in ("\0", "\0\0\0", "\x01", "\t", "\n", "\x7f", "\x85"):
            client = yield self.client(node, ADMIN[0], ADMIN[1] + tail)
            self.assertFalse(client.admitted, repr(tail))
            answer = yield self.ask(node, "/pools", auth=(ADMIN[0], ADMIN[1] + tail))
            self.assertEqual(answer.status, 401, repr(tail))
            yield self.assertFailure(node.cluster.users.add("ann", "secret" + tail), UserError)
            yield self.assertFailure(node.cluster.set_bucket_password("wine", "red" + tail), UserError)
            form = f"name=made&ramQuotaMB=100&saslPassword=a%{ord(tail[0]):02x}".encode()
            if ord(tail[0]) < 128:
                answer = yield self.ask(node, "/pools/default/buckets", "POST", ADMIN, form)
                self.assertEqual(answer.status, 400, repr(tail))
                self.assertIn("control characters", answer.json["errors"]["saslPassword"])
        self.assertNotIn("made", node.cluster.buckets)

    @inlineCallbacks
    def test_odd_paths_and_hosts(self) -> Steps:
        """A path that is not UTF-8 is 400 with a reason; no path and no Host makes the router stumble."""
        node = yield self.start()
        answer = yield self.ask(node, "/pools/%ff%fe", auth=ADMIN)
        self.assertEqual(answer.status, 400)
        self.assertIn("UTF-8", answer.json["errors"]["_"])
        answer = yield self.ask(node, "/%ff/_design/x", auth=ADMIN)
        self.assertEqual(answer.status, 400)
        for host in (b"\xff", b"\xc3\xa9", b"a" * 300, b"a..b", b"[::1", b"a:99999", b""):
            raw = head("GET", "/pools", ADMIN).replace(b"localhost", host)
            answer = yield self.ask(node, "", raw=raw)
            self.assertEqual(answer.status, 200, host)
        for path in ("/pools/", "//pools", "/pools//"):
            answer = yield self.ask(node, path, auth=ADMIN)
            self.assertEqual(answer.json["pools"][0]["name"], "default", path)
        answer = yield self.ask(node, "/pools/default/buckets/", auth=ADMIN)
        self.assertEqual(len(answer.json), len(BUCKETS))
        form = b"name=made&ramQuotaMB=100&replicaNumber=0"
        answer = yield self.ask(node, "/pools/default/buckets/", "POST", ADMIN, form)
        self.assertEqual(answer.status, 202)


class OpenTests(NodeCase):
    """An open node: without an administrator, or because it was configured so."""

    @inlineCallbacks
    def said(self, **settings: Any) -> Steps:
        """Start a node; return it, and what it logged."""
        lines: list[str] = []

        def note(event: Any) -> None:
            if event.get("log_format"):
                lines.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        node = yield self.start(**settings)
        return node, [line for line in lines if "is open" in line]

    @inlineCallbacks
    def test_without_an_administrator(self) -> Steps:
        """``default`` takes clients without credentials, others an empty password; one line says so."""
        node, lines = yield self.said(users=[])
        self.assertEqual(len(lines), 1)
        self.assertIn("every process on this machine", lines[0])
        client = yield self.client(node)
        answer = yield client.ask(Opcode.SET, key=KEY, value=b"v", extras=bytes(8), vbucket=VBUCKET)
        self.assertEqual(answer.specific, Status.SUCCESS)
        client = yield self.client(node, "open")
        self.assertTrue(client.admitted)
        client = yield self.client(node, "wine")
        self.assertFalse(client.admitted)
        self.assertEqual((yield self.ask(node, "/pools/default/b/default")).status, 200)
        self.assertEqual((yield self.ask(node, "/default/_design/d", "PUT", None, VIEW)).status, 201)
        self.assertEqual((yield self.ask(node, "/pools/default/b/wine")).status, 401)
        self.assertEqual((yield self.ask(node, "/pools/default/buckets", "POST")).status, 401)

    @inlineCallbacks
    def test_missing_buckets(self) -> Steps:
        """Without an administrator a missing bucket is 404, also for the user of its name; a wrong password,
        and another user's bucket, are still 401. With one, the answer hides whether it exists."""
        node = yield self.start(users=[])
        closed = yield self.start(open_buckets=True)
        for kind in ("b", "bs", "buckets", "bucketsStreaming"):
            path = f"/pools/default/{kind}/nope"
            for auth, status in ((None, 404), (("nope", ""), 404), (("nope", "x"), 401)):
                self.assertEqual((yield self.ask(node, path, auth=auth)).status, status, (path, auth))
            for auth in (None, ("nope", "")):
                self.assertEqual((yield self.ask(closed, path, auth=auth)).status, 401, (path, auth))
        self.assertEqual((yield self.ask(node, "/pools/default/b/wine", auth=("nope", ""))).status, 401)
        self.assertEqual((yield self.ask(node, "/pools/default/b/default", auth=("nope", ""))).status, 200)
        self.assertEqual((yield self.ask(node, "/pools/default/buckets", "POST", ("nope", ""))).status, 401)
        client = yield self.client(node, "nope")
        self.assertTrue(client.admitted)
        for bucket, status in ((b"nope", Status.EACCESS), (b"wine", Status.EACCESS), (b"default", 0)):
            self.assertEqual((yield client.ask(Opcode.SELECT_BUCKET, key=bucket)).specific, status, bucket)
        client = yield self.client(closed, "nope")
        self.assertFalse(client.admitted)

    @inlineCallbacks
    def test_by_option(self) -> Steps:
        """``open_buckets`` lets strangers in beside the administrator, and a line says so."""
        _, lines = yield self.said()
        self.assertEqual(lines, [])
        node, lines = yield self.said(open_buckets=True)
        self.assertEqual(len(lines), 1)
        client = yield self.client(node)
        self.assertEqual((yield client.ask(Opcode.GET_CLUSTER_CONFIG)).specific, Status.SUCCESS)
        self.assertEqual((yield self.ask(node, "/pools", auth=ADMIN)).status, 200)

    @inlineCallbacks
    def test_loopback_only(self) -> Steps:
        """Without an administrator no port is opened beyond this machine."""
        for host in ("0.0.0.0", "::"):
            fault = yield self.assertFailure(self.start(users=[], host=host), StartError)
            self.assertIn(f"--host {host}: a node without an administrator is open to everyone", str(fault))
        yield self.start(host="0.0.0.0")
        yield self.start(users=[], host="0.0.0.0", open_buckets=True)
