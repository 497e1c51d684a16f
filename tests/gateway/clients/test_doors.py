"""Access to the gateway, and to the embedded node behind it, over sockets."""

from __future__ import annotations

import gc
import socket
from base64 import b64encode
from collections.abc import Iterator
from struct import pack
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.python.filepath import FilePath

from couchbase.exceptions import AuthError
from couchbase.protocol.constants import Opcode, Status
from gateway.cluster.connection import GatewayConnection
from tests.gateway.test_behaviour import D, GatewayTestCase

ADMIN = ("admin", "right password")
WINE = ("wine", "red-or-white")
DESIGN = b'{"views":{"v":{"map":"function (doc, meta) { emit(meta.id); }"}}}'


def frame(opcode: int, key: bytes = b"", extras: bytes = b"", value: bytes = b"") -> bytes:
    """Return a request of the key-value protocol."""
    total = len(key) + len(extras) + len(value)
    head = pack(">BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0, total, 7, 0)
    return head + extras + key + value


def kv_status(port: int, *frames: bytes) -> int | None:
    """Send frames without credentials; return the last one's status, ``None`` if the node hangs up."""
    status = None
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        stream = client.makefile("rwb")
        for one in frames:
            stream.write(one)
            stream.flush()
            head = stream.read(24)
            if len(head) < 24:
                return None
            status = int.from_bytes(head[6:8], "big")
            stream.read(int.from_bytes(head[8:12], "big"))
    return status


class Doors(GatewayTestCase):
    """Asks the embedded node as a stranger."""

    def secret_file(self, text: str) -> str:
        """Return the path of a file with a line of text."""
        path = self.mktemp()
        FilePath(path).setContent(text.encode() + b"\n")
        return path

    @property
    def node(self) -> Any:
        """The embedded node."""
        return self.service._embedded.node

    @inlineCallbacks
    def rest(self, method: str, path: str, body: bytes = b"", auth: Any = None) -> Any:
        """Ask the node's REST port; returns the status."""
        answer = yield self.client.request(
            method,
            self.node.rest_urls[0] + path,
            data=body,
            headers={"Content-Type": "application/json"},
            auth=auth,
        )
        yield answer.content()
        return answer.code

    @inlineCallbacks
    def check_strangers(self) -> Any:
        """No client without credentials gets access on any port of the node, whatever it tries first."""
        set_k = frame(Opcode.SET, b"k", b"\0" * 8, b"stranger")
        select = frame(Opcode.SELECT_BUCKET, b"default")
        for frames in (
            [frame(Opcode.GET, b"k")],
            [set_k],
            [frame(Opcode.STAT)],
            [select],
            [select, frame(Opcode.GET, b"k")],
            [frame(Opcode.HELLO, b"x", b"", b"\0\x08"), select, set_k],
            [frame(Opcode.GET_CLUSTER_CONFIG)],
        ):
            status = yield deferToThread(kv_status, self.node.kv_ports[0], *frames)
            self.assertIn(status, (Status.EACCESS, Status.AUTH_ERROR, None), frames)
        for method, path, body in (
            ("GET", "/pools/default/buckets", b""),
            ("GET", "/pools/default/buckets/default", b""),
            ("POST", "/pools/default/buckets/default/controller/doFlush", b""),
            ("PUT", "/default/_design/x", DESIGN),
            ("GET", "/default/_design/x", b""),
            ("GET", "/default/_design/x/_view/v", b""),
        ):
            for auth in (None, ("default", ""), ("default", "default"), ("Administrator", "password")):
                status = yield self.rest(method, path, body, auth)
                self.assertEqual(status, 401, (method, path, auth))


class AnyoneMayCallTests(Doors):
    """``--auth none``: the gateway is open to this machine, its node is not."""

    @inlineCallbacks
    def test_strangers(self) -> Any:
        """The node is closed, while the gateway serves."""
        stored = yield self.ask("PUT", D + "k", b"1")
        self.assertEqual(stored.status, 200)
        yield self.check_strangers()
        read = yield self.ask("GET", D + "k")
        self.assertEqual(read.body, b"1")


class RestartTests(Doors):
    """A data folder that was made before, and a password that was named."""

    @inlineCallbacks
    def setUp(self) -> Any:
        self.options = {"data": self.mktemp(), "bucket-password-file": self.secret_file("shared")}
        yield super().setUp()

    @inlineCallbacks
    def test_named_password(self) -> Any:
        """An SDK program shares the node with the bucket's name and password; without the option, the next
        start makes up another one."""
        yield self.ask("PUT", D + "k", b"1")
        yield self.check_strangers()
        connection = self.sdk("shared")
        yield connection.connect()
        read = yield connection.get(b"k")
        self.assertEqual(read.value, b"1")
        connection._close()
        yield self.service.stopService()
        self.options = {"data": self.options["data"]}
        self.service = yield self.begin(self.settings())
        read = yield self.ask("GET", D + "k")
        self.assertEqual(read.body, b"1")
        yield self.check_strangers()
        late = self.sdk("shared")
        yield self.assertFailure(late.connect(), AuthError)
        late._close()

    def sdk(self, password: str) -> GatewayConnection:
        """Return a connection to the node, as a program beside the gateway makes it."""
        return GatewayConnection(
            bucket="default",
            username="default",
            password=password,
            connection_string=self.node.connection_string,
            reactor=reactor,
        )


class PassthroughTests(Doors):
    """``--auth passthrough``, with an administrator and the user of another bucket."""

    credentials = ADMIN

    @inlineCallbacks
    def setUp(self) -> Any:
        account = {"user": ADMIN[0], "password-file": self.secret_file(ADMIN[1])}
        self.options = {"ephemeral": True, "auth": "passthrough", **account}
        yield super().setUp()
        yield self.ask("PUT", D + "k", b"1")
        form = b"name=wine&ramQuotaMB=100&authType=sasl&saslPassword=" + WINE[1].encode()
        made = yield self.client.request(
            "POST",
            self.node.rest_urls[0] + "/pools/default/buckets",
            data=form,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            auth=ADMIN,
        )
        text = yield made.text()
        self.assertEqual(made.code, 202, text)

    @inlineCallbacks
    def test_strangers(self) -> Any:
        """The node is closed."""
        yield self.check_strangers()

    @inlineCallbacks
    def test_user_of_another_bucket(self) -> Any:
        """403 for reads and writes, as in the Data API, and nothing is done; the same for a missing bucket,
        which only an administrator may know."""
        own = yield self.ask("PUT", "/v1/buckets/wine/documents/k", b"1", auth=WINE)
        self.assertEqual(own.status, 200)
        line = b'{"op":"set","key":"k","value":2}\n'
        for bucket in ("default", "missing"):
            base = f"/v1/buckets/{bucket}"
            for method, path, body, code in (
                ("GET", "/documents/k", b"", "NoReadAccess"),
                ("GET", "/documents/k?project=a", b"", "NoReadAccess"),
                ("GET", "/documents/k?replica=any", b"", "NoReadAccess"),
                ("GET", "/documents/k/observe", b"", "NoReadAccess"),
                ("GET", "/scopes/_default/collections/_default/documents/k", b"", "NoReadAccess"),
                ("GET", "/designs", b"", "NoReadAccess"),
                ("GET", "/designs/d", b"", "NoReadAccess"),
                ("GET", "/views/d/v", b"", "NoReadAccess"),
                ("GET", "/stats", b"", "NoReadAccess"),
                ("PUT", "/documents/k", b"2", "NoWriteAccess"),
                ("POST", "/documents/new", b"2", "NoWriteAccess"),
                ("DELETE", "/documents/k", b"", "NoWriteAccess"),
                ("POST", "/documents/k/increment", b"{}", "NoWriteAccess"),
                ("POST", "/documents/k/touch", b'{"expiry":"1h"}', "NoWriteAccess"),
                ("POST", "/documents/k/lock", b"{}", "NoWriteAccess"),
                ("PUT", "/designs/d", DESIGN, "NoWriteAccess"),
                ("DELETE", "/designs/d", b"", "NoWriteAccess"),
                ("POST", "/batch", line, "NoWriteAccess"),
            ):
                refused = yield self.ask(
                    method, base + path, body, auth=WINE, Content_Type="application/json"
                )
                self.assertEqual(refused.code(), (403, code), (method, base + path, refused.body))
                resource = f"/buckets/{bucket}/scopes/_default/collections/_default"
                self.assertEqual(refused.json()["resource"], resource)
        known = yield self.ask("GET", "/v1/buckets/missing/documents/k")
        self.assertEqual(known.code(), (404, "BucketNotFound"))
        read = yield self.ask("GET", D + "k")
        self.assertEqual(read.body, b"1")

    @inlineCallbacks
    def test_control_characters(self) -> Any:
        """A right password followed by a control character is refused before the cluster is asked."""
        for pair in (
            b"admin:right password\0",
            b"admin:right password\0\0\0",
            b"admin:right\tpassword",
            b"admin:right password\x7f",
            b"admin:right password\xc2\x85",
            b"admin\0:right password",
            b"\nadmin:right password",
        ):
            header = {"Authorization": "Basic " + b64encode(pair).decode()}
            answer = yield self.client.request("GET", self.url + D + "k", headers=header)
            told = yield answer.json()
            self.assertEqual((answer.code, told["code"]), (400, "InvalidArgument"), pair)
            self.assertIn("control characters", told["message"])

    @inlineCallbacks
    def test_no_repr_shows_a_password(self) -> Any:
        """No object of ours that a traceback or a log could show prints a password."""
        yield self.ask("GET", "/v1/buckets/wine/documents/k", auth=WINE)
        secrets = [ADMIN[1], WINE[1], self.service._settings.bucket_password]
        self.assertTrue(all(secrets))
        seen = 0
        for one in ours(gc.get_objects()):
            shown = repr(one) + str(one)
            seen += 1
            for secret in secrets:
                self.assertNotIn(secret, shown, type(one))
        self.assertGreater(seen, 100)


def ours(objects: list[Any]) -> Iterator[Any]:
    """Yield the objects whose classes are the product's."""
    packages = ("gateway", "couchbase", "txcouchbase", "couchnode")
    for one in objects:
        if not isinstance(one, type) and type(one).__module__.partition(".")[0] in packages:
            yield one
