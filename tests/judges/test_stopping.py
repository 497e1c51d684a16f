"""nginx, HAProxy and Caddy, configured as in ``deploy``, in front of two gateways that are stopped and
started: no client notices."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import self_signed
from tests.judges.fronts import Place, command
from tests.judges.programs import Process, free_port, get, missing, twistd

CLIENTS = 8
DELAY_SECONDS = 4
BUCKET = "/v1/buckets/default"


def get_document(port: int, key: str) -> tuple[int, bytes]:
    """Return status and body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"{BUCKET}/documents/{key}")
    answer = connection.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        connection.close()


class Client(threading.Thread):
    """Sends requests on a connection that it keeps, every other one a POST that may not be repeated."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._counter = f"{BUCKET}/documents/counter-{number}/increment"
        self.going = True
        self.posted = 0
        self.gets = 0
        self.failures: list[str] = []

    def run(self) -> None:
        """Run until asked to stop."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        body = b'{"initial": 1, "delta": 1}'
        while self.going:
            for method, path, data in (("POST", self._counter, body), ("GET", "/health", None)):
                try:
                    headers = {"Content-Type": "application/json"} if data else {}
                    connection.request(method, path, data, headers)
                    answer = connection.getresponse()
                    text = answer.read()
                    if answer.status != 200:
                        self.failures.append(f"{method} {answer.status} {text[:200]!r}")
                    elif data:
                        self.posted += 1
                    else:
                        self.gets += 1
                except (OSError, HTTPException) as error:
                    self.failures.append(f"{method} {error!r}")
                    connection.close()
            time.sleep(0.002)
        connection.close()


class StoppingTests(SynchronousTestCase):
    """Each proxy, with ``--shutdown-delay``."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.ports = {name: free_port() for name in ("first", "second", "port", "secure", "node", "rest")}
        password = self.folder / "password"
        password.write_text("secret\n")
        self.account = ["--user", "Administrator", "--password-file", str(password)]
        node = twistd(
            "couchnode",
            "--ephemeral",
            "--kv-port",
            str(self.ports["node"]),
            "--rest-port",
            str(self.ports["rest"]),
            "--bucket",
            "default:secret",
            *self.account,
        )
        self.addCleanup(node.stop)
        node.until_answers(self.ports["rest"], "/pools", 401)

    def start_gateway(self, name: str) -> Process:
        """Start one of the two, and wait until it is ready."""
        port = self.ports[name]
        started = twistd(
            "couchgateway",
            "--cluster",
            f"couchbase://127.0.0.1:{self.ports['node']}",
            "--auth",
            "none",
            *self.account,
            "--listen",
            f"tcp:{port}:interface=127.0.0.1",
            "--shutdown-delay",
            str(DELAY_SECONDS),
        )
        self.addCleanup(started.stop)
        started.until_answers(port, "/ready")
        return started

    def check(self, front: str) -> None:
        """Stop and start each gateway once under load."""
        (self.folder / "certificate.pem").write_bytes(self_signed())
        first, second = (f"127.0.0.1:{self.ports[name]}" for name in ("first", "second"))
        place = Place(self.folder, self.ports["port"], self.ports["secure"], first, second)
        gateways = {name: self.start_gateway(name) for name in ("first", "second")}
        proxy = Process(command(front, place))
        self.addCleanup(proxy.stop)
        proxy.until_answers(self.ports["port"], "/health")
        clients = [Client(self.ports["port"], number) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            for name, running in gateways.items():
                before = sum(client.posted for client in clients)
                running.process.terminate()
                running.process.wait(60)
                self.assertIsNone(get(self.ports[name], "/ready"))
                self.start_gateway(name)
                # Long enough for health checks to see it.
                time.sleep(2)
                self.assertGreater(sum(client.posted for client in clients), before)
        finally:
            for client in clients:
                client.going = False
            for client in clients:
                client.join(60)
        for client in clients:
            self.assertFalse(client.is_alive())
        failures = [failure for client in clients for failure in client.failures]
        posts, gets = (sum(getattr(client, kind) for client in clients) for kind in ("posted", "gets"))
        told = "\n".join(line for line in proxy.log.splitlines() if "refused" not in line)[-3000:]
        self.assertEqual(failures, [], f"{len(failures)} failed beside {posts} POSTs and {gets} GETs\n{told}")
        for number, client in enumerate(clients):
            _, text = get_document(self.ports["first"], f"counter-{number}")
            self.assertEqual(int(text), client.posted, "each POST was carried out, and once")

    def test_nginx(self) -> None:
        """Which has no health checks."""
        self.check("nginx")

    def test_haproxy(self) -> None:
        """With health checks of ``/ready``."""
        self.check("haproxy")

    def test_caddy(self) -> None:
        """With health checks of ``/ready``."""
        self.check("caddy")

    for _name in ("nginx", "haproxy", "caddy"):
        locals()[f"test_{_name}"].skip = missing(_name)
