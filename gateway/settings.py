"""The settings of a gateway: the command line overrides the environment, which overrides the file, which
overrides the default."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from twisted.python.usage import UsageError

from gateway import optionvalues as take
from gateway.access.options import check_access
from gateway.cluster.certificates import check_cluster_files
from gateway.cluster.credentials import has_controls
from gateway.endpoints import is_local
from gateway.limits import Limits
from gateway.options import ENVIRONMENT_PREFIX, SETTINGS, Setting

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Settings", "check_tracing", "merge", "resolve", "user_data_folder"]


@dataclass(frozen=True)
class Settings:
    """Checked settings of a gateway."""

    listen: list[str]
    cluster: str | None
    """Connection string without the options that name certificate files, which are in the next three
    settings."""
    cluster_ca: str | None
    cluster_cert: str | None
    cluster_key: str | None
    """``None`` only without ``cluster_cert``."""
    user: str | None
    password: str | None = field(repr=False)
    auth: str
    """``none``, or authentication methods in the order in which they are tried, separated by commas."""
    access: str | None
    jwt_keys: str | None
    jwt_issuer: str | None
    jwt_audience: list[str]
    jwt_skew: float
    api_keys: str | None
    client_ca: str | None
    rate_limit: float | None
    rate_limit_address: float | None
    rate_burst: int | None
    allow_host: list[str]
    cors_origin: list[str]
    cors_method: list[str]
    cors_header: list[str]
    cors_expose: list[str]
    cors_max_age: int
    cors_without_credentials: bool
    bucket: str
    bucket_password: str | None = field(repr=False)
    """Password of the embedded node's bucket; ``None``: a random one, known only to the gateway."""
    data: str | None
    """``None``: keep the embedded node's data in memory."""
    nodes: int | None
    """``None``: as many nodes as the data was created with, or one node if there is no data."""
    replicas: int
    node_rest_port: int
    node_kv_port: int
    sample: list[str]
    workers: int | None
    """``None``: this process serves alone."""
    insecure: bool
    timeout: float
    views_timeout: float
    query: str
    """Access to statements: ``on``, ``read-only`` or ``off``."""
    proxy_service: list[str]
    """``NAME=ACCESS`` of each service of the cluster to proxy."""
    proxy_admin: bool
    services_timeout: float
    verify_seconds: float
    quoted_etags: bool
    """Whether ``ETag`` is sent in quotes."""
    shutdown_delay: float
    log_file: str | None
    log_format: str
    access_log: bool
    access_log_format: str
    access_log_file: str | None
    """``None``: the access log is a part of the log."""
    no_http2: bool
    tracing: bool
    trusted_proxies: list[str]
    without_plugin: list[str]
    limits: Limits


def resolve(given: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Merge command line, environment, file and defaults, and check them together.

    :param given: values of the command line: option name -> str, list of str, or true.
    :raises UsageError: names the option, its source, and the values it accepts.
    """
    values, labels = merge(given, environment)
    return _checked(values, labels)


def merge(given: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the value of each setting by attribute, and the source of each given value by option name.

    :raises UsageError: like :func:`resolve`, about single values.
    """
    sources = [_from_command_line(given), _from_environment(environment)]
    path = next((source["config"][1] for source in sources if "config" in source), None)
    if path is not None:
        sources.append(_from_file(path))
    values: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for setting in SETTINGS:
        values[setting.attribute] = setting.default
        for source in sources:
            if setting.name in source:
                labels[setting.name], value = source[setting.name]
                values[setting.attribute] = value
                break
    return values, labels


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
    except (OSError, ValueError, RecursionError) as error:
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
            _check_nul(label, *values)
            source[setting.name] = _parsed(setting, label, values)
        elif setting.parse is None:
            if not isinstance(value, (str, int, float)):
                raise UsageError(f"{label}: expected true or false")
            source[setting.name] = _parsed(setting, label, value)
        elif isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise UsageError(f"{label}: expected a string or a number")
        else:
            _check_nul(label, str(value))
            source[setting.name] = _parsed(setting, label, str(value))
    return source


def _check_nul(label: str, *values: str) -> None:
    # Neither a command line nor the environment can contain it, so nothing else expects it.
    if any("\0" in value for value in values):
        raise UsageError(f"{label}: expected text without NUL characters")


def _checked(values: dict[str, Any], labels: dict[str, str]) -> Settings:
    def refuse(name: str, message: str) -> UsageError:
        return UsageError(f"{labels.get(name, '--' + name)}: {message}")

    del values["config"]
    ephemeral = values.pop("ephemeral")
    password_file = values.pop("password_file")
    bucket_password_file = values.pop("bucket_password_file")
    limits = Limits(**{limit.name: values.pop(limit.name) for limit in fields(Limits)})
    check_cluster_files(values, refuse)
    cluster = values["cluster"]
    for name in _ABOUT_THE_NODE:
        if cluster is not None and name in labels:
            raise refuse(
                name, "it is an option of the embedded node, which is not started when a cluster is given"
            )
    if ephemeral and values["data"] is not None:
        raise refuse("ephemeral", "it cannot be combined with --data")
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
        default = user_data_folder()
        if default is None:
            raise refuse(
                "data",
                "this user has no home directory (HOME is not set) for the documents: name a folder, or give "
                "--ephemeral",
            )
        values["data"] = str(default)
    if values["workers"] is not None and sys.platform == "win32":
        raise refuse("workers", "it needs a POSIX system, where processes can share sockets")
    if values["access_log_file"] is not None and not values["access_log"]:
        raise refuse("access-log-file", "it needs --access-log too")
    if values["access_log_file"] is not None and values["access_log_file"] == values["log_file"]:
        raise refuse(
            "access-log-file", "it is the file of --log-file; leave the option out to write the lines there"
        )
    _check_auth(values, refuse)
    check_access(values, refuse)
    if values["query"] is None:
        # Callers without credentials of their own would run statements with all rights of the account.
        values["query"] = "read-only" if "none" in values["auth"] else "on"
    if "none" in values["cors_origin"] and len(values["cors_origin"]) > 1:
        raise refuse("cors-origin", "none excludes all others")
    if values["auth"] == "none" and "*" in values["cors_origin"] and not values["insecure"]:
        raise refuse(
            "cors-origin",
            "* with --auth none lets every web page that is open on this machine read and write; name the "
            "origins, or add --insecure if you mean it",
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
                f"{open_to_others[0]!r} can be reached from other machines, so restrict callers with --user "
                "and --password-file, or allow everyone with --auth none --insecure",
            )
    if values["auth"] == "none":
        if open_to_others and not values["insecure"]:
            raise refuse(
                "auth",
                f"none admits anyone who can reach {open_to_others[0]!r}; listen on loopback, or add "
                "--insecure if you mean it",
            )
        if cluster is not None and values["user"] is None and values["cluster_cert"] is None:
            raise refuse(
                "auth", "none needs a service account: --user and --password-file, or --cluster-cert"
            )
    elif cluster is None and values["user"] is None and "passthrough" in values["auth"].split(","):
        raise refuse(
            "auth",
            "passthrough with the embedded node needs --user and --password-file, the account of callers",
        )


def _password(path: str, refuse: Callable[[str, str], UsageError], option: str = "password-file") -> str:
    try:
        # Not splitlines(), which also splits at characters other than line feeds.
        first = Path(path).read_text("utf-8-sig").partition("\n")[0].removesuffix("\r")
    except (OSError, ValueError) as error:
        raise refuse(option, f"{path}: {error}") from None
    if not first:
        raise refuse(option, f"the first line of {path} is empty; it must be the password")
    if has_controls(first):
        raise refuse(option, f"the password in {path} contains a control character, which is not allowed")
    return first


def user_data_folder() -> Path | None:
    """Return the default folder of the embedded node's data; ``None`` if the user has no home directory."""
    try:
        if sys.platform == "darwin":
            base = Path.home() / "Library" / "Application Support"
        elif sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home())
        else:
            base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    except RuntimeError:
        # A container may run as a user whom the system does not know.
        return None
    return base / "couchgateway"


def check_tracing(environment: Mapping[str, str]) -> None:
    """Check that spans can be exported.

    :param environment: the variables with OpenTelemetry's own settings.
    :raises UsageError: its library is not installed, or a variable is invalid.
    """
    try:
        # Only the extra otel installs the library.
        from gateway.tracing.export import check
    except ImportError as error:
        raise UsageError(
            f"--tracing: OpenTelemetry is not installed ({error}); install it with: pip install "
            "'couchgateway[otel]'"
        ) from None
    try:
        check(environment)
    except ValueError as error:
        raise UsageError(f"--tracing: {error}") from None
