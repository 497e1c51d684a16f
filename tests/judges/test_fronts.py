"""The proxies' configurations in ``deploy``, as users copy them, each in front of two gateways on a node."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import shutil
import socket
import ssl
import tempfile
from pathlib import Path
from urllib.parse import quote

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from bench.ports import free_port
from gateway.options import SETTINGS
from tests.certificates import self_signed
from tests.judges.fronts import DEPLOY, Place, command
from tests.judges.programs import Process, missing, twistd

BUCKET = "/v1/buckets/default"
DOCUMENT = f"{BUCKET}/documents/d"
JSON = {"Content-Type": "application/json"}
CONFIGURATIONS = ("nginx/couchgateway.conf", "haproxy/haproxy.cfg", "caddy/Caddyfile")

KEYS = [
    *(
        "a/b",
        "a//b",
        "/lead",
        "trail/",
        "a%2Fb",
        "a%252Fb",
        "100%",
        "..",
        ".",
        "a/../b",
        "../../a",
        "./a",
        "a\\b",
    ),
    *(
        "a;b",
        "a?b",
        "a#b",
        "a+b",
        "a b",
        " lead",
        "trail ",
        "\x7f",
        "tab\t",
        "é",
        "日本語",
        "𝄞",
        "a&b=c",
        "'\"<>",
        "~!$()*,:@",
    ),
]


class Answer:
    """A whole answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.body = response.read()
        self.getheader = response.getheader


class FrontTests(SynchronousTestCase):
    """One proxy a test, since each needs four programs."""

    def begin(self, front: str) -> None:
        """Start a node, two gateways and a proxy."""
        why = missing(front)
        if why is not None:
            raise SkipTest(why)
        self.folder = Path(tempfile.mkdtemp(prefix="front"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        (self.folder / "certificate.pem").write_bytes(self_signed())
        self.ports = [free_port() for _ in range(6)]
        node, rest, first, second, plain, secure = self.ports
        (password := self.folder / "password").write_text("secret\n")
        account = ["--user", "Administrator", "--password-file", str(password)]
        ports = ["--kv-port", str(node), "--rest-port", str(rest)]
        made = self.start("couchnode", "--ephemeral", *ports, "--bucket", "default:secret", *account)
        made.until_answers(rest, "/pools", 401)
        for port in (first, second):
            listen = ["--listen", f"tcp:{port}:interface=127.0.0.1"]
            cluster = ["--cluster", f"couchbase://127.0.0.1:{node}", "--auth", "none"]
            self.start("couchgateway", *listen, *cluster, *account).until_answers(port, "/ready")
        self.direct, self.plain, self.secure = first, plain, secure
        gateways = [f"127.0.0.1:{port}" for port in (first, second)]
        proxy = Process(command(front, Place(self.folder, plain, secure, *gateways)))
        self.addCleanup(proxy.stop)
        proxy.until_answers(plain, "/health")

    def start(self, *words: str) -> Process:
        """Start one of ours."""
        process = twistd(*words)
        self.addCleanup(process.stop)
        return process

    def ask(
        self,
        port: int,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request on a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            try:
                connection.request(method, target, body, headers or {})
            except (BrokenPipeError, ConnectionResetError):
                # It takes no more of the body; the answer is there.
                pass
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def check_keys(self) -> None:
        """Awkward keys are the same through the proxy and without it."""
        for key in KEYS:
            # A segment of dots is resolved by clients unless it is encoded.
            target = f"{BUCKET}/documents/{quote(key, safe='').replace('.', '%2E')}"
            stored = self.ask(self.plain, "PUT", target, key.encode())
            self.assertEqual(stored.status, 200, key)
            self.assertEqual(self.ask(self.direct, "GET", target).body, key.encode(), key)
            self.assertEqual(self.ask(self.plain, "GET", target).body, key.encode(), key)

    def check_limits(self) -> None:
        """Bodies and headers up to the gateway's limits pass; larger ones are refused, by the gateway's error
        or the proxy's."""
        self.assertEqual(self.ask(self.plain, "PUT", DOCUMENT, bytes(20 * 2**20)).status, 200)
        self.assertEqual(self.ask(self.plain, "PUT", DOCUMENT, bytes(20 * 2**20 + 1)).status, 413)
        answer = self.ask(self.plain, "GET", DOCUMENT, headers={"X-Long": "x" * 15000})
        self.assertEqual((answer.status, len(answer.body)), (200, 20 * 2**20))
        self.assertEqual(self.ask(self.plain, "POST", "/nothing", bytes(5 * 10**6)).status, 404)

    def check_compression_and_tags(self) -> None:
        """The tag is that of the gateway, also of compressed answers, and conditions with it work."""
        text = b'{"text":"%b"}' % (b"a" * 5000)
        stored = self.ask(self.plain, "PUT", DOCUMENT, text, JSON)
        got = self.ask(self.plain, "GET", DOCUMENT, headers={"Accept-Encoding": "gzip"})
        self.assertEqual(got.getheader("Content-Encoding"), "gzip")
        self.assertEqual(gzip.decompress(got.body), text)
        tag = str(got.getheader("ETag"))
        self.assertEqual(
            tag, self.ask(self.direct, "GET", DOCUMENT, headers={"Accept-Encoding": "gzip"}).getheader("ETag")
        )
        known = {"If-None-Match": tag, "Accept-Encoding": "gzip"}
        self.assertEqual(self.ask(self.plain, "GET", DOCUMENT, headers=known).status, 304)
        cas = str(stored.getheader("ETag"))
        self.assertEqual(self.ask(self.plain, "PUT", DOCUMENT, b"{}", {**JSON, "If-Match": cas}).status, 200)
        self.assertEqual(self.ask(self.plain, "PUT", DOCUMENT, b"{}", {**JSON, "If-Match": cas}).status, 409)

    def check_batch(self) -> None:
        """Batches longer than any body are answered to their ends: long lines, and many short ones."""
        for count, size in ((250, 100_000), (25_000, 1000)):
            line = b'{"op":"set","key":"b","value":"%b"}\n' % (b"v" * size)
            answer = self.ask(self.plain, "POST", f"{BUCKET}/batch", line * count)
            self.assertEqual(answer.body.count(b'"status":200'), count)

    def check_duplex(self) -> None:
        """The answer to an operation arrives before the client sends the next one."""
        with socket.create_connection(("127.0.0.1", self.plain), timeout=60) as sock:
            head = f"POST {BUCKET}/batch HTTP/1.1\r\nHost: localhost\r\n"
            sock.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
            received = b""
            for number in range(3):
                line = b'{"op":"set","key":"one%d","value":1}\n' % number
                sock.sendall(b"%x\r\n%b\r\n" % (len(line), line))
                while received.count(b'"status":200') <= number:
                    data = sock.recv(65536)
                    self.assertTrue(data, received)
                    received += data
            sock.sendall(b"0\r\n\r\n")

    def check_events(self) -> None:
        """Rows of a view as events arrive whole."""
        function = "function (doc, meta) { for (var i = 0; i < 200; i++) emit(i, null); }"
        design = json.dumps({"views": {"all": {"map": function}}}).encode()
        created = self.ask(self.plain, "PUT", f"{BUCKET}/designs/d", design, JSON)
        self.assertEqual(created.status, 201)
        self.ask(self.plain, "PUT", DOCUMENT, b"{}", JSON)
        target = f"{BUCKET}/views/d/all?stale=false&startkey=0&limit=200"
        answer = self.ask(self.plain, "GET", target, headers={"Accept": "text/event-stream"})
        self.assertEqual(answer.body.count(b"event: row"), 200)
        self.assertIn(b"event: done", answer.body)

    def check_tls(self) -> None:
        """With TLS: HTTP/1.1, and HTTP/2 for clients that offer it."""
        trust = ssl.create_default_context(cafile=str(self.folder / "certificate.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.secure, context=trust, timeout=60)
        connection.request("GET", "/ready")
        self.assertEqual(connection.getresponse().status, 200)
        connection.close()
        trust.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", self.secure), timeout=60) as sock,
            trust.wrap_socket(sock, server_hostname="127.0.0.1") as secure,
        ):
            self.assertEqual(secure.selected_alpn_protocol(), "h2")

    def check_identifiers(self) -> None:
        """Each request has an identifier, which the proxy made."""
        found = {str(self.ask(self.plain, "GET", "/health").getheader("X-Request-Id")) for _ in range(5)}
        self.assertEqual(len(found), 5)
        self.assertGreater(min(map(len, found)), 20)

    def check_kept_connections(self) -> None:
        """A client keeps its connection over an error and other requests."""
        connection = http.client.HTTPConnection("127.0.0.1", self.plain, timeout=60)
        self.addCleanup(connection.close)
        for method, target, status in (
            ("GET", "/health", 200),
            ("GET", f"{BUCKET}/documents/none", 404),
            ("GET", "/ready", 200),
        ):
            connection.request(method, target)
            answer = connection.getresponse()
            answer.read()
            self.assertEqual((answer.status, answer.will_close), (status, False))

    def check_all(self) -> None:
        """Check what each of them does."""
        for check in (
            self.check_keys,
            self.check_limits,
            self.check_compression_and_tags,
            self.check_batch,
            self.check_events,
            self.check_tls,
            self.check_identifiers,
            self.check_kept_connections,
        ):
            check()

    def test_nginx(self) -> None:
        """nginx passes on everything, and an answer while its request is still sent."""
        self.begin("nginx")
        self.check_all()
        self.check_duplex()

    def test_haproxy(self) -> None:
        """The same for HAProxy."""
        self.begin("haproxy")
        self.check_all()
        self.check_duplex()

    def test_caddy(self) -> None:
        """Caddy passes on everything. It reads a body to its end before it passes on an answer."""
        self.begin("caddy")
        self.check_all()


class TimeTests(SynchronousTestCase):
    """Times in the files against the gateway's defaults."""

    def test_idle_connections(self) -> None:
        """Proxies close idle connections before the gateway does, and wait longer than views may take."""
        defaults = {setting.name: setting.default for setting in SETTINGS}
        for name in CONFIGURATIONS:
            text = (DEPLOY / name).read_text()
            (idle,) = re.findall(r"(?:keepalive_timeout|timeout http-keep-alive|keepalive) (\d+)s", text)
            self.assertLess(int(idle), float(str(defaults["idle-seconds"])), name)
            for waits in re.findall(r"(?:proxy_read_timeout|timeout server) (\d+)s", text):
                self.assertGreater(int(waits), float(str(defaults["views-timeout"])), name)
