"""Options of ``twistd couchgateway``: the command line overrides the environment, the environment the file,
the file the default.

One table holds all of them; docs/configuration.md lists the same, and a test compares the two.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from gateway import optionvalues as take
from gateway.cluster.certificates import check_cluster_files
from gateway.cluster.credentials import has_controls
from gateway.endpoints import is_local
from gateway.limits import Limits
from gateway.logs import LogFile, LogObserver, observer_for
from gateway.version import VERSION

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ENVIRONMENT_PREFIX", "SETTINGS", "Options", "Settings", "resolve"]

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
        """Name in :class:`Settings`, and in the environment after the prefix (upper case)."""
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


class Options(UsageOptions):
    """Command line of ``twistd couchgateway``; :func:`resolve` adds the other sources."""

    synopsis = "[options]"
    longdesc = "Documents of a Couchbase cluster, or of an embedded node, over HTTP."
    optFlags = [[setting.name, None, setting.text] for setting in SETTINGS if setting.parse is None]
    optParameters = [
        [setting.name, None, None, setting.help]
        for setting in SETTINGS
        if setting.parse is not None and not setting.repeatable
    ]

    def __init__(self) -> None:
        super().__init__()
        self.repeated: dict[str, list[str]] = {}
        self.settings: Settings | None = None
        self.log_file: LogFile | None = None
        self.log_observer: LogObserver | None = None
        """The log observer; ``None`` leaves the log to twistd."""

    def opt_version(self) -> None:
        """Print the version of couchgateway and exit."""
        print(f"couchgateway {VERSION}")
        sys.exit(0)

    def parseArgs(self, *words: str) -> None:
        """Refuse arguments that are not options."""
        if words:
            raise UsageError(f"{words[0]!r}: couchgateway takes options only, each of which begins with --")

    def postOptions(self) -> None:
        """Check everything, so that mistakes are reported before anything starts."""
        self.settings = resolve(self.given(), os.environ)
        self._choose_log(self.settings.log_file)

    def _choose_log(self, path: str | None) -> None:
        """Open the log file, and choose the log observer."""
        twistd = self.parent if self.parent is not None else {}
        others = [name for name in ("logfile", "syslog", "logger") if twistd.get(name) not in (None, 0, "-")]
        if path is not None:
            if others:
                raise UsageError(f"--log-file: it excludes twistd's --{others[0]}")
            try:
                self.log_file = LogFile(path)
            except OSError as error:
                raise UsageError(f"--log-file: {path}: {error.strerror}") from None
        if self.log_file is not None or (not others and twistd.get("nodaemon")):
            # A daemon has no standard output, and logs to twistd.log.
            self.log_observer = observer_for(self.log_file, os.environ)

    def given(self) -> dict[str, Any]:
        """Return the values of the command line; see :func:`resolve`."""
        given = {name: value for name, value in self.items() if value not in (None, 0, False)}
        given.update(self.repeated)
        return given


def _adder(setting: Setting) -> Callable[[Options, str], None]:
    def add(options: Options, value: str) -> None:
        options.repeated.setdefault(setting.name, []).append(value)

    add.__doc__ = f"{setting.help} May be repeated."
    return add


for _setting in SETTINGS:
    if _setting.repeatable:
        # The attributes that twisted.python.usage looks for.
        setattr(Options, f"opt_{_setting.attribute}", _adder(_setting))


@dataclass(frozen=True)
class Settings:
    """Checked settings of a gateway."""

    listen: list[str]
    cluster: str | None
    """Without options that name certificate files, which are in the next three."""
    cluster_ca: str | None
    cluster_cert: str | None
    cluster_key: str | None
    """``None`` only without ``cluster_cert``."""
    user: str | None
    password: str | None = field(repr=False)
    auth: str
    allow_host: list[str]
    cors_origin: list[str]
    bucket: str
    bucket_password: str | None = field(repr=False)
    """Password of the embedded node's bucket; ``None``: a random one, known to the gateway alone."""
    data: str | None
    """``None``: keep the embedded node's data in memory."""
    nodes: int | None
    """``None``: as many as the data was created with, or one without data."""
    replicas: int
    node_rest_port: int
    node_kv_port: int
    sample: list[str]
    workers: int | None
    """``None``: this process serves alone."""
    insecure: bool
    timeout: float
    views_timeout: float
    verify_seconds: float
    quoted_etags: bool
    """Whether ``ETag`` goes out in quotes."""
    shutdown_delay: float
    log_file: str | None
    access_log: bool
    trusted_proxies: list[str]
    without_plugin: list[str]
    limits: Limits


def resolve(given: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Merge command line, environment, file and defaults.

    :param given: values of the command line: option name -> str, list of str, or true.
    :raises UsageError: names the option, its source, and the values it accepts.
    """
    sources = [_from_command_line(given), _from_environment(environment)]
    path = next((source["config"][1] for source in sources if "config" in source), None)
    if path is not None:
        sources.append(_from_file(path))
    values: dict[str, Any] = {}
    told: dict[str, str] = {}
    for setting in SETTINGS:
        values[setting.attribute] = setting.default
        for source in sources:
            if setting.name in source:
                told[setting.name], value = source[setting.name]
                values[setting.attribute] = value
                break
    return _checked(values, told)


_ABOUT_THE_NODE = (
    "bucket-password-file",
    "data",
    "ephemeral",
    "nodes",
    "replicas",
    "node-rest-port",
    "node-kv-port",
    "sample",
)

_Source = dict[str, tuple[str, Any]]
"""Option name -> (its name in messages, its parsed value)."""


def _parsed(setting: Setting, label: str, value: Any) -> tuple[str, Any]:
    try:
        if setting.parse is None:
            return label, _switch(value)
        if setting.repeatable:
            return label, [setting.parse(one) for one in value]
        return label, setting.parse(value)
    except take.Wrong as wrong:
        raise UsageError(f"{label}: {wrong}") from None


def _switch(value: object) -> bool:
    if value in (True, 1, "1", "true", "yes", "on"):
        return True
    if value in (False, 0, "0", "false", "no", "off", ""):
        return False
    raise take.Wrong(f"{value!r} is neither true nor false")


def _from_command_line(given: Mapping[str, Any]) -> _Source:
    return {
        setting.name: _parsed(setting, f"--{setting.name}", given[setting.name])
        for setting in SETTINGS
        if setting.name in given
    }


def _from_environment(environment: Mapping[str, str]) -> _Source:
    known = {ENVIRONMENT_PREFIX + setting.attribute.upper(): setting for setting in SETTINGS}
    source = {}
    for name, value in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            setting = known.get(name)
            if setting is None:
                raise UsageError(f"{name}: there is no such setting")
            source[setting.name] = _parsed(setting, name, value.split() if setting.repeatable else value)
    return source


def _from_file(path: str) -> _Source:
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"--config: {path}: {error}") from None
    known = {setting.name: setting for setting in SETTINGS if setting.name != "config"}
    source = {}
    for name, value in content.items():
        setting = known.get(name.replace("_", "-"))
        label = f"{path}: {name}"
        if setting is None:
            raise UsageError(f"{label}: there is no such setting")
        if setting.repeatable:
            values = value if isinstance(value, list) else [value]
            if not all(isinstance(one, str) for one in values):
                raise UsageError(f"{label}: expected a list of strings")
            source[setting.name] = _parsed(setting, label, values)
        elif isinstance(value, (str, int, float)):
            plain = value if isinstance(value, bool) or setting.parse is None else str(value)
            source[setting.name] = _parsed(setting, label, plain)
        else:
            raise UsageError(f"{label}: expected a string, a number or a boolean")
    return source


def _checked(values: dict[str, Any], told: dict[str, str]) -> Settings:
    def refuse(name: str, message: str) -> UsageError:
        return UsageError(f"{told.get(name, '--' + name)}: {message}")

    del values["config"]
    ephemeral = values.pop("ephemeral")
    password_file = values.pop("password_file")
    bucket_password_file = values.pop("bucket_password_file")
    limits = Limits(**{limit.name: values.pop(limit.name) for limit in fields(Limits)})
    check_cluster_files(values, refuse)
    cluster = values["cluster"]
    for name in _ABOUT_THE_NODE:
        if cluster is not None and name in told:
            raise refuse(name, "it is about the embedded node, which is not started when a cluster is given")
    if ephemeral and values["data"] is not None:
        raise refuse("ephemeral", "it excludes --data")
    if values["nodes"] is not None and values["replicas"] >= values["nodes"] and values["replicas"]:
        raise refuse(
            "replicas", f"{values['replicas']} replicas need at least {values['replicas'] + 1} nodes"
        )
    if (values["user"] is None) != (password_file is None):
        missing = "password-file" if password_file is None else "user"
        raise refuse("user" if password_file is None else "password-file", f"it needs --{missing} too")
    values["password"] = None if password_file is None else _password(password_file, refuse)
    values["bucket_password"] = None
    if bucket_password_file is not None:
        values["bucket_password"] = _password(bucket_password_file, refuse, "bucket-password-file")
    if cluster is None and values["user"] == values["bucket"]:
        raise refuse("user", f"{values['user']!r} is the name of the bucket, which has a user of its own")
    if cluster is None and values["data"] is None and not ephemeral:
        values["data"] = str(user_data_folder())
    if values["workers"] is not None and sys.platform == "win32":
        raise refuse("workers", "sockets are shared between processes on POSIX systems only")
    _check_auth(values, refuse)
    if "none" in values["cors_origin"] and len(values["cors_origin"]) > 1:
        raise refuse("cors-origin", "none excludes all others")
    if values["auth"] == "none" and "*" in values["cors_origin"] and not values["insecure"]:
        raise refuse(
            "cors-origin",
            "* with --auth none lets every web page that is open on this machine read and write; "
            "name the origins, or add --insecure if that is intended",
        )
    return Settings(limits=limits, **values)


def _check_auth(values: dict[str, Any], refuse: Callable[[str, str], UsageError]) -> None:
    cluster = values["cluster"]
    open_to_others = [listen for listen in values["listen"] if not is_local(listen)]
    if values["auth"] is None:
        values["auth"] = "passthrough" if cluster is not None or open_to_others else "none"
        if open_to_others and cluster is None and values["user"] is None:
            raise refuse(
                "listen",
                f"{open_to_others[0]!r} can be reached from other machines, so say who may call: "
                "--user and --password-file, or --auth none --insecure if anyone may",
            )
    if values["auth"] == "none":
        if open_to_others and not values["insecure"]:
            raise refuse(
                "auth",
                f"none admits anyone who can reach {open_to_others[0]!r}; listen on loopback, "
                "or add --insecure if that is intended",
            )
        if cluster is not None and values["user"] is None and values["cluster_cert"] is None:
            raise refuse(
                "auth", "none needs a service account: --user and --password-file, or --cluster-cert"
            )
    elif cluster is None and values["user"] is None:
        raise refuse(
            "auth", "passthrough with the embedded node needs --user and --password-file: who may call"
        )


def _password(path: str, refuse: Callable[[str, str], UsageError], option: str = "password-file") -> str:
    try:
        # Not splitlines(), which also splits at characters other than line feeds.
        first = Path(path).read_text("utf-8-sig").partition("\n")[0].removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise refuse(option, f"{path}: {error}") from None
    if not first:
        raise refuse(option, f"the first line of {path} is empty; it must be the password")
    if has_controls(first):
        raise refuse(option, f"the password in {path} contains a control character, which passwords may not")
    return first


def user_data_folder() -> Path:
    """Return the default folder of the embedded node's data."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home())
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "couchgateway"
