"""Clients and proxies of others over HTTP/2, and h2spec's tests of the protocol."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.certificates import self_signed
from tests.judges.programs import (
    ROOT,
    Process,
    environment,
    free_port,
    get,
    missing,
    program,
    twistd,
)

BUILT = ROOT / "build" / "judges" / "http2"
CLIENTS = ROOT / "tests" / "judges" / "clients" / "http2"
DOCUMENT = "/v1/buckets/default/documents/k"

HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:{port}
  default_backend gateways
backend gateways
  server a 127.0.0.1:{backend} proto h2
"""


def built(path: Path) -> str:
    """Return the path of a program that ``make judges`` brings; skips the test without it."""
    if not path.exists():
        raise SkipTest(f"{path.relative_to(ROOT)} is missing (make judges brings it)")
    return str(path)


def installed(name: str) -> str:
    """Return the path of an installed program; skips the test without it."""
    found = program(name)
    if found is None:
        raise SkipTest(missing(name) or name)
    return found


def run(*command: str) -> str:
    """Return what a program prints; fails with what it says if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise AssertionError(f"{command[0]}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


class HTTP2Tests(SynchronousTestCase):
    """A gateway on TCP and TLS."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.certificate = self.folder / "certificate.pem"
        self.certificate.write_bytes(self_signed())
        self.port, secure = free_port(), free_port()
        gateway = twistd(
            "couchgateway",
            "--ephemeral",
            f"--listen=tcp:{self.port}:interface=127.0.0.1",
            f"--listen=ssl:{secure}:interface=127.0.0.1:privateKey={self.certificate}:certKey={self.certificate}",
        )
        self.addCleanup(gateway.stop)
        gateway.until_answers(self.port, "/ready")
        self.plain, self.secure = f"http://127.0.0.1:{self.port}", f"https://127.0.0.1:{secure}"
        self.secure_port = secure

    def check(self, found: dict[str, Any], version: str) -> None:
        """Compare the results of a conversation."""
        self.assertEqual(set(found["versions"]), {version})
        self.assertEqual((found["stored"], found["read"]), (200, '{"a":1}'))
        self.assertEqual(found["many"], [200] * 80)
        self.assertEqual(found["large"], [200, 5000002])
        self.assertEqual(found["batch"], 5000)
        self.assertEqual(found["missing"], "DocumentNotFound")
        self.assertEqual(found["refused"], 413)
        self.assertEqual(found["head"], 5000002)

    def test_curl(self) -> None:
        """curl stores, reads, is refused, and sends a batch, by prior knowledge and by negotiation."""
        curl = installed("curl")
        if "HTTP2" not in run(curl, "--version").split():
            raise SkipTest("this curl has no HTTP/2")
        large = self.folder / "large"
        large.write_bytes(b'"' + b"x" * 25_000_000 + b'"')
        lines = self.folder / "lines"
        lines.write_bytes(b"".join(b'{"op":"set","key":"c%d","value":1}\n' % n for n in range(5000)))
        shown = ["--write-out", "\n%{http_code} %{http_version}", "--silent", "--show-error"]
        kind = ["--header", "Content-Type: application/json"]
        for url, options in (
            (self.plain, ["--http2-prior-knowledge"]),
            (self.secure, ["--http2", "--cacert", str(self.certificate)]),
        ):
            ask = [curl, *options, *shown, url + DOCUMENT]
            self.assertEqual(run(*ask, "--request", "PUT", "--data", '{"a":1}', *kind), "\n200 2")
            self.assertEqual(run(*ask), '{"a":1}\n200 2')
            self.assertTrue(run(*ask, "--head").endswith("\n200 2"))
            for more in ([], ["--header", "Expect: 100-continue"]):
                refused = run(*ask, "--request", "PUT", "--data-binary", f"@{large}", *kind, *more)
                self.assertTrue(refused.endswith("\n413 2"), refused)
                self.assertIn("InvalidArgument", refused)
            batch = run(
                curl, *options, *shown, "--data-binary", f"@{lines}", f"{url}/v1/buckets/default/batch"
            )
            self.assertEqual(batch.count('"status":200'), 5000)
        # By prior knowledge, curl 7 fails to send a second request on a connection (CURLE_HTTP2).
        many = run(curl, *options, "--silent", "--parallel", f"{self.secure}{DOCUMENT}-[1-50]")
        self.assertEqual(many.count("DocumentNotFound"), 50)

    def test_httpx(self) -> None:
        """httpx, with hyper-h2 on the other side."""
        python = built(BUILT / "httpx" / "bin" / "python")
        client = str(CLIENTS / "client.py")
        self.check(json.loads(run(python, client, self.plain)), "HTTP/2")
        self.check(json.loads(run(python, client, self.secure, str(self.certificate))), "HTTP/2")

    def test_go(self) -> None:
        """Go's net/http."""
        client = built(BUILT / "client")
        self.check(json.loads(run(client, self.plain)), "HTTP/2.0")
        self.check(json.loads(run(client, self.secure, str(self.certificate))), "HTTP/2.0")

    def test_node(self) -> None:
        """Node's http2 module, with nghttp2 inside."""
        node, client = installed("node"), str(CLIENTS / "client.js")
        self.check(json.loads(run(node, client, self.plain)), "h2c")
        self.check(json.loads(run(node, client, self.secure, str(self.certificate))), "h2")

    def test_h2spec(self) -> None:
        """h2spec's tests pass, the strict ones included. On TCP one cannot: there a preface that is wrong is
        HTTP/1.1, and answered in it."""
        h2spec = built(BUILT / "h2spec")
        run(installed("curl"), "--silent", "--request", "PUT", "--header", "Content-Type: application/json",
            "--data", '{"a":1}', self.plain + DOCUMENT)  # fmt: skip
        common = [h2spec, "--strict", "--host", "127.0.0.1", "--path", DOCUMENT, "--timeout", "10"]
        secure = run(*common, "--tls", "--insecure", "--port", str(self.secure_port))
        self.assertRegex(secure, r"\d{3} tests, \d{3} passed, 0 skipped, 0 failed")
        plain = subprocess.run(
            [*common, "--port", str(self.port)], capture_output=True, text=True, timeout=120, check=False
        ).stdout
        self.assertIn(" 1 failed", plain.splitlines()[-1])
        self.assertIn("× 2: Sends invalid connection preface", plain)

    def test_haproxy(self) -> None:
        """HAProxy speaks HTTP/2 to the gateway for clients of HTTP/1.1."""
        haproxy = installed("haproxy")
        port = free_port()
        configuration = self.folder / "haproxy.cfg"
        configuration.write_text(HAPROXY.format(port=port, backend=self.port))
        proxy = Process([haproxy, "-f", str(configuration), "-db"], environment())
        self.addCleanup(proxy.stop)
        proxy.until_answers(port, "/health")
        self.assertEqual(get(port, DOCUMENT), 404)
        url = f"http://127.0.0.1:{port}{DOCUMENT}"
        shown = [installed("curl"), "--silent", "--write-out", "%{http_code}"]
        kind = ["--header", "Content-Type: application/json"]
        self.assertEqual(run(*shown, "--request", "PUT", "--data", '{"a":1}', *kind, url), "200")
        self.assertEqual(run(*shown, url), '{"a":1}200')
