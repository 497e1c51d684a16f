"""The options of ``twistd couchgateway``.

One table holds all of them; docs/configuration.md lists the same, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

from gateway import optionvalues as take
from gateway.clients.accesslog import FORMS
from gateway.clients.cors import MAX_AGE_SECONDS
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
    """The name on the command line and in a file, without the dashes."""
    parse: Callable[[str], Any] | None
    """Parses a value; ``None`` for a switch."""
    default: Any
    text: str
    repeatable: bool = False

    @property
    def attribute(self) -> str:
        """Name in :class:`gateway.settings.Settings`; in the environment, in upper case after the prefix."""
        return self.name.replace("-", "_")

    @property
    def help(self) -> str:
        """The text with the default, for ``--help``."""
        default = self.default
        if self.parse is None or default is None or default == [] or "default" in self.text:
            return self.text
        if isinstance(default, list):
            shown = " ".join(default)
        else:
            shown = f"{default:g}" if isinstance(default, float) else str(self.written(default))
        return f"{self.text} [default: {shown}]"

    def written(self, value: Any) -> Any:
        """Return a value as people write it: a size with its unit, others unchanged."""
        return _shown_size(value) if self.attribute in _SIZES else value


_LIMIT_PARSERS: dict[str, Callable[[str], Any]] = {"int": take.count, "float": take.seconds}
_SIZES = frozenset({"max_body", "max_headers", "max_buffered", "max_line", "batch_bytes"})

MOST_CALLERS = 1000
"""Largest value of ``--metrics-callers``."""


def _parser(name: str, kind: str) -> Callable[[str], Any]:
    """Return the parser of a limit."""
    if name == "metrics_callers":
        return take.number(0, MOST_CALLERS)
    return take.size if name in _SIZES else _LIMIT_PARSERS[kind]


_LIMIT_TEXTS = {
    "max_body": "Largest request body outside a batch, in bytes.",
    "max_headers": "Largest request line and headers together, in bytes.",
    "max_buffered": "Memory for request bodies of all clients together, in bytes.",
    "max_clients": "Number of client connections at once.",
    "max_streams": "Number of requests of one HTTP/2 connection at once.",
    "max_connections": "Number of connections to the cluster at once, one per (bucket, user).",
    "max_service_requests": "Number of requests to query, search ... at once; one caller gets half of them.",
    "max_line": "Largest operation of a batch, in bytes.",
    "batch_operations": "Number of operations of one batch that may run at once.",
    "batch_bytes": "Memory for operations and answers of one batch, in bytes.",
    "metrics_callers": "Number of callers whose requests /metrics counts separately; 0 counts none.",
    "header_seconds": "How long the headers of a request may take to arrive, in seconds.",
    "body_seconds": "Seconds for a body to arrive, plus 1 s per 64 KiB read; for a batch, between two parts.",
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
        "Connection string of the cluster (default: start an embedded node).",
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
        "PEM file of a client certificate and its chain: the service account, instead of --user.",
    ),
    Setting(
        "cluster-key",
        take.existing_file,
        None,
        "PEM file of the private key of --cluster-cert (default: in the same file).",
    ),
    Setting(
        "user",
        take.user,
        None,
        "User name of the service account; with the embedded node, of its administrator.",
    ),
    Setting("password-file", take.existing_file, None, "File whose first line is the password of --user."),
    Setting(
        "auth",
        take.auth,
        None,
        "passthrough: callers' credentials go to the cluster; jwt, keys, certificate: rules of --access "
        "decide; none: anyone may call (default: none with the embedded node on loopback, else passthrough). "
        "Several, separated by commas, are tried in turn.",
    ),
    Setting(
        "access",
        take.existing_file,
        None,
        "TOML file with the rules of what callers may do; it is read again when it changes.",
    ),
    Setting(
        "jwt-keys",
        take.key_set,
        None,
        "JSON Web Key Set with the keys that sign tokens: a file, or an https:// URL to fetch it from.",
    ),
    Setting("jwt-issuer", take.text, None, "Issuer of accepted tokens: their claim iss."),
    Setting(
        "jwt-audience",
        take.text,
        [],
        "Audience of accepted tokens: a value of their claim aud.",
        repeatable=True,
    ),
    Setting(
        "jwt-skew",
        take.seconds_or_none,
        0.0,
        "Tolerance for clocks that differ from the issuer's, in seconds.",
    ),
    Setting(
        "api-keys", take.existing_file, None, "File of hashed API keys; it is read again when it changes."
    ),
    Setting(
        "client-ca",
        take.existing_file,
        None,
        "PEM file of the certificates that sign clients' certificates, for TLS listeners.",
    ),
    Setting(
        "rate-limit",
        take.rate,
        None,
        "Number of requests a second that each caller may send (default: any number).",
    ),
    Setting(
        "rate-limit-address",
        take.rate,
        None,
        "Number of requests a second that each client address may send (default: any number).",
    ),
    Setting(
        "rate-burst",
        take.count,
        None,
        "Number of requests that may come at once within these limits (default: those of two seconds).",
    ),
    Setting(
        "allow-host",
        take.host,
        [],
        "Host name that browsers may use with --auth none, besides localhost and IP addresses; * allows any.",
        repeatable=True,
    ),
    Setting(
        "cors-origin",
        take.cors_origin,
        [],
        "Origin whose pages may use the gateway, such as https://app.example; * allows any, none no other.",
        repeatable=True,
    ),
    Setting(
        "cors-method",
        take.cors_method,
        [],
        "Method that pages of other origins may send (default: all that a resource has).",
        repeatable=True,
    ),
    Setting(
        "cors-header",
        take.header_name,
        [],
        "Request header that pages of other origins may send (default: all that the gateway honours).",
        repeatable=True,
    ),
    Setting(
        "cors-expose",
        take.header_name,
        [],
        "Further response header that pages of other origins may read, such as one that a proxy adds.",
        repeatable=True,
    ),
    Setting(
        "cors-max-age",
        take.number(0, 86400),
        MAX_AGE_SECONDS,
        "How long a browser may cache the answer to a preflight, in seconds.",
    ),
    Setting(
        "cors-without-credentials",
        None,
        False,
        "Do not let browsers send cookies, stored passwords and client certificates for pages of other "
        "origins.",
    ),
    Setting(
        "bucket",
        take.bucket,
        "default",
        "Bucket that the embedded node creates, and that /ready checks with the service account.",
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
        "Number of nodes in the embedded cluster (default: as many as its data has, or 1).",
    ),
    Setting("replicas", take.number(0, 3), 0, "Number of replicas of the embedded node's bucket."),
    Setting(
        "node-rest-port",
        take.number(0, 65535),
        0,
        "REST port of the (first) embedded node; 0 means any free port.",
    ),
    Setting(
        "node-kv-port",
        take.number(0, 65535),
        0,
        "Key-value port of the (first) embedded node; 0 means any free port.",
    ),
    Setting(
        "sample",
        take.existing_file,
        [],
        "File of documents and design documents to load into the embedded node's bucket.",
        repeatable=True,
    ),
    Setting(
        "workers",
        take.number(1, 64),
        None,
        "Number of worker processes (default: serve in a single process).",
    ),
    Setting("insecure", None, False, "Allow --auth none on addresses other than loopback."),
    Setting("timeout", take.seconds, 2.5, "Timeout of one operation at the cluster, in seconds."),
    Setting(
        "views-timeout",
        take.seconds,
        75.0,
        "How long a view may send nothing before its query fails, in seconds.",
    ),
    Setting(
        "query",
        take.one_of("on", "read-only", "off"),
        None,
        "Statements at a bucket: on, read-only or off (default: on; read-only with --auth none).",
    ),
    Setting(
        "proxy-service",
        take.proxied_service,
        [],
        "Service of the cluster to serve below /_p: query, fts, cbas or mgmt; NAME=read-only for reads only.",
        repeatable=True,
    ),
    Setting("proxy-admin", None, False, "Proxy the administrators' paths of services, too."),
    Setting(
        "services-timeout",
        take.seconds,
        75.0,
        "How long query and other services may send nothing before their requests fail, in seconds.",
    ),
    Setting(
        "verify-seconds",
        take.seconds,
        300.0,
        "How long a verified password is trusted before the cluster checks it again, in seconds.",
    ),
    Setting(
        "quoted-etags", None, False, "Send ETag in quotes (RFC 9110), for caches and compressing proxies."
    ),
    Setting(
        "shutdown-delay",
        take.seconds_or_none,
        0.0,
        "How long the gateway still serves requests at shutdown while /ready is 503, in seconds.",
    ),
    Setting(
        "log-file",
        take.log_file,
        None,
        "File to append the log to; it is reopened if it is moved, and on SIGUSR1.",
    ),
    Setting(
        "log-format",
        take.one_of("text", "json"),
        "text",
        "Form of the log: text, or json for one object per line.",
    ),
    Setting("access-log", None, False, "Log a line for each request."),
    Setting(
        "access-log-format",
        take.one_of(*FORMS),
        "extended",
        "Form of the lines of --access-log: extended, combined (Apache's), or json.",
    ),
    Setting(
        "access-log-file",
        take.log_file,
        None,
        "File to append the access log to, reopened if it is moved (default: it is part of the log).",
    ),
    Setting(
        "tracing",
        None,
        False,
        "Export OpenTelemetry spans of requests, as the OTEL_* variables say; needs the extra otel.",
    ),
    Setting(
        "trusted-proxies",
        take.proxy,
        [],
        "Address or network of proxies trusted to report the client's address; unix: those on Unix sockets.",
        repeatable=True,
    ),
    Setting("no-http2", None, False, "Speak HTTP/1.1 only, and do not offer HTTP/2."),
    Setting("without-plugin", take.text, [], "Name of a plugin to disable.", repeatable=True),
    *(
        Setting(
            limit.name.replace("_", "-"),
            _parser(limit.name, str(limit.type)),
            limit.default,
            _LIMIT_TEXTS[limit.name],
        )
        for limit in sorted(fields(Limits), key=lambda limit: list(_LIMIT_TEXTS).index(limit.name))
    ),
]
