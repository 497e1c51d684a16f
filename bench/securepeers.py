"""The servers of :mod:`bench.peers` that speak TLS, and nginx with TLS in front of some that do not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import peers
from bench.harness import Server
from bench.peers import Missing, Peer, Program
from bench.ports import free_port
from tests.certificates import self_signed

SECURE = "gateway, TLS"
TWISTED = "gateway, Twisted's TLS"
NGINX = "gateway, plain, behind nginx with TLS"
WEBDIS = "webdis with Redis behind nginx with TLS"
FASTAPI = "FastAPI, bare, TLS"

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream behind {{ server {behind}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} ssl backlog=1024;
        ssl_certificate {pem};
        ssl_certificate_key {pem};
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_pass http://behind;
        }}
    }}
}}
"""


def certificate(stack: ExitStack) -> str:
    """Return a PEM file with a certificate and its key, which goes with the stack."""
    path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "both.pem"
    path.write_bytes(self_signed())
    return str(path)


def _gateway(name: str, role: str) -> Callable[[ExitStack, Server, Sequence[str]], Peer]:
    def make(stack: ExitStack, node: Server, options: Sequence[str]) -> Peer:
        listen = f"--listen=ssl:0:interface=127.0.0.1:privateKey={certificate(stack)}"
        server = stack.enter_context(Server(role, node.address, listen, *options))
        return Peer(name, server.address, {"gateway": server.pid, "node": node.pid})

    return make


def _behind_nginx(
    name: str, make: Callable[[ExitStack, Server, Sequence[str]], Peer]
) -> Callable[[ExitStack, Server, Sequence[str]], Peer]:
    def started(stack: ExitStack, node: Server, options: Sequence[str]) -> Peer:
        nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin") or shutil.which("nginx")
        if nginx is None:
            raise Missing("apt-get install nginx-light")
        behind = make(stack, node, options)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        text = CONFIGURATION.format(
            folder=folder, behind=behind.url.partition("//")[2], port=port, pem=certificate(stack)
        )
        (folder / "nginx.conf").write_text(text)
        program = stack.enter_context(Program([nginx, "-c", str(folder / "nginx.conf")], port, folder))
        processes = {"nginx": program.pid, **behind.processes}
        return behind._replace(name=name, url=f"https://127.0.0.1:{port}", processes=processes)

    return started


def _fastapi(stack: ExitStack, node: Server, options: Sequence[str]) -> Peer:
    server = peers.fastapi(
        stack, f"--pem={certificate(stack)}", modules="fastapi, httptools, uvicorn, uvloop"
    )
    return Peer(FASTAPI, server.address, {"uvicorn": server.pid})


SECURE_PEERS: dict[str, Callable[[ExitStack, Server, Sequence[str]], Peer]] = {
    SECURE: _gateway(SECURE, "gateway"),
    TWISTED: _gateway(TWISTED, "twisted-tls"),
    NGINX: _behind_nginx(NGINX, peers.PEERS[peers.GATEWAY]),
    WEBDIS: _behind_nginx(WEBDIS, peers.PEERS[peers.WEBDIS]),
    FASTAPI: _fastapi,
}
"""How to start each program, in the order of the tables."""
