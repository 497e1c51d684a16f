"""nginx, HAProxy and Caddy in front of two gateways: refused uploads are refused, and other clients are not
affected."""

from __future__ import annotations

import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.judges.programs import missing, program
from tests.judges.proxies import Gateway, ask, at_once, folder_of, outcome, start_proxy

DOCUMENT = "/v1/buckets/default/documents/up"
UPLOADS = 12
BURST = 600

# Refused with so many bytes of a body: method, target, size, status.
REFUSED = (
    ("PUT", DOCUMENT, 20 * 2**20 + 1, "413"),
    ("POST", "/nothing", 5 * 10**6, "404"),
    ("PATCH", DOCUMENT, 5 * 10**6, "405"),
)

# nginx's own limits on failing servers are left as they are: with them, a few resets take the pool down.
NGINX = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream gateways {{ {servers} keepalive 16; }}
    server {{
        listen unix:{folder}/proxy.sock backlog=1024;
        client_max_body_size 40m;
        {more}
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_request_buffering {buffering};
            proxy_pass http://gateways;
        }}
    }}
}}
"""

HAPROXY = """
global
    tune.bufsize 32768
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 90s
frontend front
    bind unix@{folder}/proxy.sock
    default_backend gateways
backend gateways
    {check}
    {servers}
"""

CADDY = """
{{
    admin off
    auto_https off
}}
http://localhost {{
    bind unix/{folder}/proxy.sock
    reverse_proxy {servers} {{
        flush_interval -1
        health_uri /ready
        health_interval 2s
    }}
}}
"""


class ProxyTestCase(SynchronousTestCase):
    """Has two gateways in a folder."""

    count = 2

    def setUp(self) -> None:
        why = missing(*self.programs)
        if why is not None:
            raise SkipTest(why)
        self.folder = folder_of(self)
        self.gateways = [Gateway(self, self.folder, f"gateway{number}") for number in range(self.count)]

    programs: tuple[str, ...] = ()

    def nginx(self, servers: list[str], buffering: str = "on", more: str = "") -> Path:
        """Start nginx; returns its socket."""
        told = "".join(f"server {server};" for server in servers)
        configuration = self.folder / "nginx.conf"
        user = "user root;" if self.is_root() else ""
        configuration.write_text(
            NGINX.format(folder=self.folder, servers=told, buffering=buffering, user=user, more=more)
        )
        return start_proxy(self, [str(program("nginx")), "-c", str(configuration)], self.folder)

    @staticmethod
    def is_root() -> bool:
        """Whether nginx must be configured to keep its user."""
        return os.geteuid() == 0

    def haproxy(self, servers: list[str], check: str) -> Path:
        """Start HAProxy; returns its socket."""
        told = "\n    ".join(f"server s{n} {server} check inter 1s" for n, server in enumerate(servers))
        configuration = self.folder / "haproxy.cfg"
        configuration.write_text(HAPROXY.format(folder=self.folder, servers=told, check=check))
        return start_proxy(self, [str(program("haproxy")), "-db", "-f", str(configuration)], self.folder)

    def caddy(self, servers: list[str]) -> Path:
        """Start Caddy; returns its socket."""
        configuration = self.folder / "Caddyfile"
        configuration.write_text(CADDY.format(folder=self.folder, servers=" ".join(servers)))
        command = [str(program("caddy")), "run", "--adapter", "caddyfile", "--config", str(configuration)]
        return start_proxy(self, command, self.folder)

    @property
    def addresses(self) -> list[str]:
        return [gateway.address for gateway in self.gateways]

    def check_refusals(self, path: Path, *, reads_on: bool = False) -> None:
        """A dozen refused uploads of each kind: each client gets the refusal, and meanwhile each request of
        other clients is answered."""
        for method, target, size, status in REFUSED:
            body = bytes(size)
            done = Event()

            def others(done: Event = done) -> list[str]:
                found = []
                while not done.is_set():
                    found.append(outcome(path, "GET", "/health"))
                return found

            with ThreadPoolExecutor(1) as thread:
                watching = thread.submit(others)
                try:
                    upload = partial(outcome, path, method, target, body, reads_on=reads_on)
                    uploads = at_once(UPLOADS, upload)
                finally:
                    done.set()
                seen = watching.result()
            label = f"{method} {target}, {size} bytes: uploads {uploads}, others {len(seen)}"
            self.assertEqual(uploads, {status: UPLOADS}, label)
            self.assertEqual(set(seen), {"200"}, label)


class NginxTests(ProxyTestCase):
    """nginx with its defaults."""

    programs = ("nginx",)

    def test_refused_uploads(self) -> None:
        """Two servers, bodies buffered by nginx."""
        self.check_refusals(self.nginx(self.addresses))

    def test_refused_uploads_unbuffered(self) -> None:
        """Two servers, bodies passed on as they come."""
        self.check_refusals(self.nginx(self.addresses, "off"))

    def test_burst_on_a_unix_socket(self) -> None:
        """Hundreds of requests at once through one Unix socket are all answered."""
        path = self.nginx([f"unix:{self.gateways[0].unix}"])
        self.assertEqual(at_once(BURST, lambda: outcome(path, "GET", "/health")), {"200": BURST})


class CompressionTests(ProxyTestCase):
    """nginx that compresses, in front of a gateway with ``--quoted-etags``."""

    count = 0
    programs = ("nginx",)

    def test_weak_tags_in_conditions(self) -> None:
        """The tag that nginx makes weak is that of the version: in conditions of writes and of reads."""
        gateway = Gateway(self, self.folder, "gateway", "--quoted-etags")
        path = self.nginx([gateway.address], more="gzip on; gzip_types application/json; gzip_proxied any;")
        first, second = (b'{"text":"%b"}' % (letter * 5000) for letter in (b"a", b"b"))
        put = ask(path, "PUT", DOCUMENT, first, headers={"Content-Type": "application/json"})
        strong = put.getheader("ETag")
        got = ask(path, "GET", DOCUMENT, headers={"Accept-Encoding": "gzip"})
        tag = got.getheader("ETag")
        self.assertEqual((got.getheader("Content-Encoding"), gzip.decompress(got.body)), ("gzip", first))
        self.assertEqual(tag, f"W/{strong}")
        known = {"If-None-Match": tag, "Accept-Encoding": "gzip"}
        self.assertEqual(ask(path, "GET", DOCUMENT, headers=known).status, 304)
        condition = {"If-Match": tag, "Content-Type": "application/json"}
        self.assertEqual(ask(path, "PUT", DOCUMENT, second, headers=condition).status, 200)
        self.assertEqual(ask(path, "PUT", DOCUMENT, first, headers=condition).status, 409)
        self.assertEqual(ask(path, "GET", DOCUMENT, headers=known).status, 200)
        self.assertEqual(ask(gateway.unix, "GET", DOCUMENT).body, second)


class HAProxyTests(ProxyTestCase):
    """HAProxy."""

    programs = ("haproxy",)

    def test_refused_uploads(self) -> None:
        """Two servers, checked as in ``deploy``."""
        self.check_refusals(self.haproxy(self.addresses, "option httpchk GET /ready"))

    def test_default_check(self) -> None:
        """``option httpchk`` without parameters finds the gateway up."""
        path = self.haproxy(self.addresses[:1], "option httpchk")
        for _ in range(20):
            self.assertEqual(outcome(path, "GET", "/health"), "200")

    def test_burst_on_a_unix_socket(self) -> None:
        """The same as for nginx."""
        path = self.haproxy([f"unix@{self.gateways[0].unix}"], "option httpchk GET /ready")
        self.assertEqual(at_once(BURST, lambda: outcome(path, "GET", "/health")), {"200": BURST})


class CaddyTests(ProxyTestCase):
    """Caddy."""

    programs = ("caddy",)

    def test_refused_uploads(self) -> None:
        """Two servers. Caddy takes no more of a body when it has the answer, as its clients must know."""
        self.check_refusals(self.caddy(self.addresses), reads_on=True)
