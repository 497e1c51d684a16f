"""The proxies' configurations in ``deploy``, with ports and paths of a test filled in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.judges.programs import ROOT, program

__all__ = ["FRONTS", "Place", "command"]

DEPLOY = ROOT / "deploy"

# What surrounds a file of conf.d.
_NGINX = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{text}
}}
"""


class Place(NamedTuple):
    """Where a proxy listens, and in front of what."""

    folder: Path
    """Has ``certificate.pem``, a certificate and its key in one file."""
    port: int
    secure: int
    """The port with TLS."""
    first: str
    """``host:port`` of a gateway."""
    second: str


def _filled(text: str, values: Mapping[str, str]) -> str:
    for old, new in values.items():
        if old not in text:
            raise ValueError(f"the configuration does not have {old!r}")
        text = text.replace(old, new)
    return text


def _common(place: Place) -> dict[str, str]:
    return {
        "127.0.0.1:8080": f"127.0.0.1:{place.port}",
        "127.0.0.1:8081": place.first,
        "127.0.0.1:8082": place.second,
    }


def _nginx(place: Place) -> list[str]:
    pem = str(place.folder / "certificate.pem")
    values = {
        **_common(place),
        "listen 8443": f"listen 127.0.0.1:{place.secure}",
        "/etc/couchgateway/certificate.pem": pem,
        "/etc/couchgateway/key.pem": pem,
    }
    text = _filled((DEPLOY / "nginx" / "couchgateway.conf").read_text(), values)
    user = "user root;" if os.geteuid() == 0 else ""
    path = place.folder / "nginx.conf"
    path.write_text(_NGINX.format(user=user, folder=place.folder, text=text))
    return [str(program("nginx")), "-e", "stderr", "-p", str(place.folder), "-c", str(path)]


def _haproxy(place: Place) -> list[str]:
    values = {
        **_common(place),
        "bind :8443": f"bind 127.0.0.1:{place.secure}",
        "/etc/couchgateway/both.pem": str(place.folder / "certificate.pem"),
        # Tests do not wait.
        "inter 2s": "inter 500ms",
    }
    path = place.folder / "haproxy.cfg"
    path.write_text(_filled((DEPLOY / "haproxy" / "haproxy.cfg").read_text(), values))
    return [str(program("haproxy")), "-db", "-f", str(path)]


def _caddy(place: Place) -> list[str]:
    pem = str(place.folder / "certificate.pem")
    values = {
        **_common(place),
        "https://:8443": f"https://127.0.0.1:{place.secure}",
        "/etc/couchgateway/certificate.pem": pem,
        "/etc/couchgateway/key.pem": pem,
        "health_interval 2s": "health_interval 500ms",
    }
    path = place.folder / "Caddyfile"
    path.write_text(_filled((DEPLOY / "caddy" / "Caddyfile").read_text(), values))
    return [str(program("caddy")), "run", "--adapter", "caddyfile", "--config", str(path)]


FRONTS: dict[str, Callable[[Place], list[str]]] = {"nginx": _nginx, "haproxy": _haproxy, "caddy": _caddy}


def command(name: str, place: Place) -> list[str]:
    """Write a proxy's configuration into the folder of a place, and return what starts it."""
    return FRONTS[name](place)
