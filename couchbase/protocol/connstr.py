"""Addresses of a cluster: connection strings, and the host arguments of SDK 1.2."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.constants import (
    DEFAULT_KV_PORT,
    DEFAULT_KV_TLS_PORT,
    DEFAULT_MANAGEMENT_PORT,
    DEFAULT_MANAGEMENT_TLS_PORT,
)

_HOST = re.compile(r"[A-Za-z0-9._-]+\Z")
_IPV6 = re.compile(r"[0-9A-Fa-f:.%a-z]+\Z")
_SCHEMES = {"couchbase": False, "couchbases": True, "http": False, "https": True}


class Seed(NamedTuple):
    """One host to bootstrap from."""

    host: str
    kv_port: int | None
    """Port for bootstrap over the key-value protocol; ``None`` skips it."""
    management_port: int | None
    """Port for bootstrap over HTTP streaming; ``None`` skips it."""


class Address(NamedTuple):
    """A parsed connection string."""

    seeds: tuple[Seed, ...]
    tls: bool = False
    bucket: str | None = None
    options: dict[str, str] = {}
    has_default_port: bool = False
    """Whether the scheme is that of the key-value service, and no port is given."""


def parse_connection_string(text: str) -> Address:
    """Parse ``couchbase://host[:port],host…[/bucket][?option=value]``.

    A port is that of the key-value service (with ``couchbases://``, over TLS). With ``http://`` it is that
    of the cluster manager, and bootstrap uses HTTP streaming only.

    :raises CouchbaseError: InvalidError, the string is malformed; the message says where.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "couchbase", text
    if scheme not in _SCHEMES:
        raise _invalid(text, f"scheme {scheme!r} is not one of {', '.join(_SCHEMES)}")
    tls = _SCHEMES[scheme]
    over_http = scheme.startswith("http")
    rest, _, query = rest.partition("?")
    hosts, _, bucket = rest.partition("/")
    seeds = []
    for part in re.split("[,;]", hosts):
        host, port = split_host_port(part.strip())
        if over_http:
            default = DEFAULT_MANAGEMENT_TLS_PORT if tls else DEFAULT_MANAGEMENT_PORT
            seeds.append(Seed(host, None, default if port is None else port))
        else:
            default = DEFAULT_KV_TLS_PORT if tls else DEFAULT_KV_PORT
            # A custom port does not determine the port of the cluster manager.
            management = None
            if port is None:
                management = DEFAULT_MANAGEMENT_TLS_PORT if tls else DEFAULT_MANAGEMENT_PORT
            seeds.append(Seed(host, default if port is None else port, management))
    plain = all(seed.kv_port and seed.management_port for seed in seeds)
    return Address(tuple(seeds), tls, unquote(bucket.strip("/")) or None, _options(text, query), plain)


def _options(text: str, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if not value:
            raise _invalid(text, f"option {name!r} has no value")
        if name in options:
            raise _invalid(text, f"option {name!r} is given twice")
        options[name] = value
    return options


def seeds_from_hosts(host: object, port: object) -> tuple[Seed, ...]:
    """Return seeds for the ``host`` and ``port`` arguments of SDK 1.2.

    :param host: a name, a ``;``-separated list of names, or a list of names and (name, port) pairs.
        Ports are those of the cluster manager.
    :param port: an int, or its digits, from 1 to 65535.
    :raises CouchbaseError: InvalidError (rc 0x1F), a name or a port is malformed.
    """
    pairs: list[tuple[str, Any]] = []
    if isinstance(host, str):
        names = host.split(";")
        pairs += [(name, DEFAULT_MANAGEMENT_PORT) for name in names[:-1]]
        pairs.append((names[-1], port))
    elif isinstance(host, Iterable):
        for entry in host:
            pairs.append((entry, port) if isinstance(entry, str) else tuple(entry))
    if not pairs:
        raise _invalid(host, "no host given")
    seeds = []
    for name, number in pairs:
        if isinstance(number, str) and number.isascii() and number.isdigit():
            # SDK 1.2 joined host and port with a colon, and checked nothing else.
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 65536:
            raise _invalid(host, f"port {number!r} is not a number from 1 to 65535")
        name = name.partition("://")[2] if "://" in name else name
        name = name.partition("/")[0]
        if not _HOST.match(name):
            raise _invalid(host, f"host {name!r} may hold letters, digits, '.', '-' and '_' only (no port)")
        # The default key-value port is tried only if the manager has its default port.
        kv_port = DEFAULT_KV_PORT if number == DEFAULT_MANAGEMENT_PORT else None
        seeds.append(Seed(name, kv_port, number))
    return tuple(seeds)


def split_host_port(text: str) -> tuple[str, int | None]:
    """Split ``host``, ``host:port``, ``[v6]`` or ``[v6]:port``.

    :raises CouchbaseError: InvalidError, the text has none of these forms.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        good = bool(bracket) and bool(_IPV6.match(host)) and (not rest or rest.startswith(":"))
        port = rest[1:]
        if rest == ":":
            good = False
    else:
        host, colon, port = text.partition(":")
        good = bool(_HOST.match(host)) and not (colon and not port)
    if not good or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise _invalid(text, "expected host, host:port or [IPv6]:port")
    return host, int(port) if port else None


def _invalid(text: object, reason: str) -> CouchbaseError:
    return error_of(exceptions.INVALID_HOST_FORMAT, f"malformed address {text!r}: {reason}", objextra=text)
