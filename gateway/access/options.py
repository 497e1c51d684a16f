"""Checks of the access options, before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from gateway.access.files import ReadFile, read_file
from gateway.access.jwks import read_key_set
from gateway.access.keys import read_keys
from gateway.access.rules import read_rules

__all__ = ["READERS", "WAYS", "check_access", "files_of", "is_url"]

WAYS = ("passthrough", "jwt", "keys", "certificate")
"""Values that ``--auth`` may list; ``basic`` means ``passthrough``. ``none`` excludes all others."""

READERS: Mapping[str, Callable[[str, ReadFile], object]] = {
    "access": read_rules,
    "jwt_keys": read_key_set,
    "api_keys": read_keys,
}
"""Setting -> the function that reads the file that it names."""

_BELONG = {
    "jwt": ("jwt_keys", "jwt_issuer", "jwt_audience"),
    "keys": ("api_keys",),
    "certificate": ("client_ca",),
}


def is_url(keys: str) -> bool:
    """Return whether ``--jwt-keys`` names a URL, and not a file."""
    return "://" in keys


def files_of(values: Mapping[str, Any]) -> Set[tuple[str, str]]:
    """Return the settings of :data:`READERS` that name files, each with its path.

    :param values: settings by name.
    """
    named = {name: values[name] for name in READERS if values[name] is not None}
    return {(name, path) for name, path in named.items() if name != "jwt_keys" or not is_url(path)}


def check_access(values: dict[str, Any], refuse: Callable[[str, str], Exception]) -> None:
    """Check the access options, and read the files that they name.

    :param values: settings by name.
    :param refuse: makes an error from an option's name and a message.
    :raises Exception: made by ``refuse``.
    """
    ways = values["auth"].split(",")
    for way, names in _BELONG.items():
        for name in names:
            option = name.replace("_", "-")
            if way in ways and not values[name]:
                raise refuse("auth", f"{way} needs --{option}")
            if way not in ways and values[name]:
                raise refuse(option, f"it needs {way} in --auth")
    if values["rate_burst"] and not (values["rate_limit"] or values["rate_limit_address"]):
        raise refuse("rate-burst", "it needs --rate-limit or --rate-limit-address")
    rules = values["access"]
    known = [way for way in ways if way in _BELONG]
    if rules is None:
        if known:
            raise refuse("auth", f"{known[0]} needs --access, the rules of what callers may do")
    else:
        _check_rules(values, ways, refuse)
    for name, path in sorted(files_of(values), reverse=True):
        if name == "access":
            # It was read above.
            continue
        try:
            READERS[name](path, read_file)
        except ValueError as error:
            raise refuse(name.replace("_", "-"), str(error)) from None
    if values["jwt_keys"] is not None and is_url(values["jwt_keys"]):
        _check_url(values["jwt_keys"], refuse)
    if "certificate" in ways and not any(listen.lower().startswith("ssl:") for listen in values["listen"]):
        raise refuse("auth", "certificate needs a --listen with TLS: ssl:PORT:privateKey=FILE:certKey=FILE")


def _check_rules(values: dict[str, Any], ways: list[str], refuse: Callable[[str, str], Exception]) -> None:
    try:
        table = read_rules(values["access"])
    except ValueError as error:
        raise refuse("access", str(error)) from None
    has_service = (
        values["cluster"] is None or values["user"] is not None or values["cluster_cert"] is not None
    )
    if has_service or ways == ["passthrough"]:
        return
    for rule in table.rules:
        if rule.account is None and {kind for kind, _ in rule.who} != {"user"}:
            raise refuse(
                "access",
                f"the rule {rule.name!r} names no account, so it needs a service account: --user and "
                "--password-file, or --cluster-cert",
            )


def _check_url(url: str, refuse: Callable[[str, str], Exception]) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("https", "http") or not url.isascii() or "@" in parts.netloc:
        raise refuse("jwt-keys", f"{url!r} is neither a file nor an https:// URL")
    if parts.scheme == "http" and not _is_loopback(host):
        raise refuse("jwt-keys", f"{url!r}: whoever can change the answer can sign tokens; expected https://")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
