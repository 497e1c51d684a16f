"""The options of ``twistd couchgateway``.

One table holds all of them; docs/configuration.md lists the same, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

from gateway import optionvalues as take
from gateway.limits import Limits

__all__ = ["ENVIRONMENT_PREFIX", "SETTINGS", "Setting"]

ENVIRONMENT_PREFIX = "COUCHGATEWAY_"


def _shown_size(size: int) -> str:
    """Return a size as options accept it."""
    unit = next(unit for unit in "GMK" if unit == "K" or size % take.UNITS[unit] == 0)
    return f"{size // take.UNITS[unit]}{unit}" if size % take.UNITS[unit] == 0 else str(size)


class Setting(NamedTuple):
    """One option."""

    name: str
    """As on the command line and in a file, without the dashes."""
    parse: Callable[[str], Any] | None
    """``None`` for a switch."""
    default: Any
    text: str
    repeatable: bool = False

    @property
    def attribute(self) -> str:
        """Name in :class:`gateway.settings.Settings`; upper case and after the prefix, in the environment."""
        return self.name.replace("-", "_")

    @property
    def help(self) -> str:
        """The text with the default, for ``--help``."""
        default = self.default
        if self.parse is None or default is None or default == [] or "default" in self.text:
            return self.text
        if isinstance(default, list):
            shown = " ".join(default)
        elif self.attribute in _SIZES:
            shown = _shown_size(default)
        else:
            shown = f"{default:g}" if isinstance(default, float) else str(default)
        return f"{self.text} [default: {shown}]"


_LIMIT_PARSERS: dict[str, Callable[[str], Any]] = {"int": take.count, "float": take.seconds}
_SIZES = frozenset({"max_body", "max_headers", "max_buffered", "max_line", "batch_bytes"})

_LIMIT_TEXTS = {
    "max_body": "Largest request body outside a batch.",
    "max_headers": "Largest request line and headers together.",
    "max_buffered": "Memory for request bodies of all clients together.",
    "max_clients": "Client connections at once.",
    "max_connections": "Connections to the cluster at once, one per (bucket, user).",
    "max_line": "Largest operation of a batch, in bytes.",
    "batch_operations": "Operations of one batch that may run at once.",
    "batch_bytes": "Memory for operations and answers of one batch.",
    "header_seconds": "Time for the headers of a request to arrive, in seconds.",
    "body_seconds": "Time for its body, and 1 s more for each 64 KiB read; for a batch, between two parts.",
    "idle_seconds": "How long a client connection may be idle before it is closed, in seconds.",
    "stall_seconds": "How long a client may leave its answer unread, in seconds.",
    "grace_seconds": "How long running requests may take at shutdown, in seconds.",
    "drain_seconds": "How long a replaced worker may finish its connections, in seconds.",
}

SETTINGS = [
    Setting("config", take.existing_file, None, "TOML file with any of these settings."),
    Setting(
        "listen",
        take.endpoint,
        [take.DEFAULT_LISTEN],
        "Twisted endpoint to listen on.",
        repeatable=True,
    ),
    Setting(
        "cluster",
        take.cluster,
        None,
        "Connection string of a cluster; without it an embedded node is started.",
    ),
    Setting(
        "cluster-ca",
        take.existing_file,
        None,
        "PEM file of the certificates to trust for TLS to the cluster (default: the platform's).",
    ),
    Setting(
        "cluster-cert",
        take.existing_file,
        None,
        "PEM file of a client certificate, its chain behind it: the service account, in place of --user.",
    ),
    Setting(
        "cluster-key",
        take.existing_file,
        None,
        "PEM file of the private key of --cluster-cert (default: it is in the same file).",
    ),
    Setting(
        "user",
        take.user,
        None,
        "User name of the service account; with the embedded node, its administrator.",
    ),
    Setting("password-file", take.existing_file, None, "File whose first line is the user's password."),
    Setting(
        "auth",
        take.auth,
        None,
        "passthrough: callers' credentials go to the cluster; none: anyone may call (default: none with the "
        "embedded node on loopback, else passthrough).",
    ),
    Setting(
        "allow-host",
        take.host,
        [],
        "Host name that browsers may use with --auth none, beside localhost and IP addresses; * is any.",
        repeatable=True,
    ),
    Setting(
        "cors-origin",
        take.cors_origin,
        [],
        "Origin whose pages may use the gateway, such as https://app.example; * is any, none is no other.",
        repeatable=True,
    ),
    Setting(
        "bucket",
        take.bucket,
        "default",
        "Bucket that the embedded node creates, and that /ready probes with a service account.",
    ),
    Setting(
        "bucket-password-file",
        take.existing_file,
        None,
        "File whose first line is the password of the embedded node's bucket (default: a random one).",
    ),
    Setting(
        "data",
        take.text,
        None,
        "Folder of the embedded node's data (default: couchgateway in the user's data folder).",
    ),
    Setting("ephemeral", None, False, "Keep the embedded node's data in memory only."),
    Setting(
        "nodes",
        take.number(1, 16),
        None,
        "Nodes of the embedded cluster (default: as many as its data has, or 1).",
    ),
    Setting("replicas", take.number(0, 3), 0, "Replicas of the embedded node's bucket."),
    Setting("node-rest-port", take.number(0, 65535), 0, "REST port of the (first) embedded node; 0: any."),
    Setting(
        "node-kv-port",
        take.number(0, 65535),
        0,
        "Key-value port of the (first) embedded node; 0: any.",
    ),
    Setting(
        "sample",
        take.existing_file,
        [],
        "Documents and design documents to load into the embedded node's bucket.",
        repeatable=True,
    ),
    Setting("workers", take.number(1, 64), None, "Worker processes (default: one process does all)."),
    Setting("insecure", None, False, "Allow --auth none on addresses other than loopback."),
    Setting("timeout", take.seconds, 2.5, "Time for one operation at the cluster, in seconds."),
    Setting(
        "views-timeout",
        take.seconds,
        75.0,
        "How long a view may send nothing before its query fails, in seconds.",
    ),
    Setting(
        "verify-seconds",
        take.seconds,
        300.0,
        "How often a caller's password is checked again, in seconds.",
    ),
    Setting(
        "quoted-etags", None, False, "Send ETag in quotes (RFC 9110), for caches and compressing proxies."
    ),
    Setting(
        "shutdown-delay",
        take.seconds_or_none,
        0.0,
        "How long requests are still served at shutdown while /ready is 503, in seconds.",
    ),
    Setting(
        "log-file",
        take.log_file,
        None,
        "File to append the log to; it is opened again if it is moved, and on SIGUSR1.",
    ),
    Setting("access-log", None, False, "Log a line for every request."),
    Setting(
        "trusted-proxies",
        take.proxy,
        [],
        "Address or network of proxies trusted to report the client's address; unix: those at Unix sockets.",
        repeatable=True,
    ),
    Setting("without-plugin", take.text, [], "Name of a plugin to leave out.", repeatable=True),
    *(
        Setting(
            limit.name.replace("_", "-"),
            take.size if limit.name in _SIZES else _LIMIT_PARSERS[str(limit.type)],
            limit.default,
            _LIMIT_TEXTS[limit.name],
        )
        for limit in sorted(fields(Limits), key=lambda limit: list(_LIMIT_TEXTS).index(limit.name))
    ),
]
