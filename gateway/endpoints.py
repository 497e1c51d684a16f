"""Reads a Twisted endpoint string as Twisted does: kind, port and interface.

Twisted accepts arguments by position or by name, uses the last of duplicates, and lets one endpoint wrap
another (``haproxy:``). So this module uses Twisted's own parser.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple

from twisted.internet import endpoints

__all__ = ["ListenAddress", "is_local", "listen_address"]


class ListenAddress(NamedTuple):
    """The address at which an endpoint listens."""

    kind: str
    """Its type in lower case: ``tcp``, ``tcp6``, ``ssl``, ``tls``, ``unix``, or another of Twisted's."""
    port: int | None
    """TCP port; ``None`` for other kinds."""
    interface: str
    """Address to bind to, as given; ``""`` and ``::`` mean all addresses of this machine; ``""`` for kinds
    other than TCP."""


def _tcp6(factory: object, port: str, backlog: str = "50", interface: str = "::") -> None:
    """Mirror the signature of Twisted's own parser of ``tcp6``, which is a method of a plugin."""


def _tls(factory: object, path: str, port: str = "443", backlog: str = "50", interface: str = "::") -> None:
    """Mirror the signature of Twisted's own parser of ``tls``."""


_SIGNATURES: dict[str, Callable[..., Any]] = {
    "tcp": endpoints._parseTCP,
    "ssl": endpoints._parseSSL,
    "tcp6": _tcp6,
    "tls": _tls,
}


def listen_address(description: str) -> ListenAddress:
    """Return where an endpoint listens.

    :param description: an endpoint string that ``serverFromString`` accepts.
    :raises ValueError: its port is not a number.
    """
    positional, named = endpoints._parse(description)
    while len(positional) > 1 and positional[0].lower() == "haproxy":
        positional = positional[1:]
    kind = positional[0].lower()
    signature = _SIGNATURES.get(kind)
    if signature is None:
        return ListenAddress(kind, None, "")
    bound = inspect.signature(signature).bind(None, *positional[1:], **named)
    bound.apply_defaults()
    return ListenAddress(kind, int(bound.arguments["port"]), bound.arguments["interface"])


def is_local(description: str) -> bool:
    """Return whether an endpoint can be reached from this machine only: a Unix socket, or loopback."""
    kind, port, interface = listen_address(description)
    if port is None:
        return kind == "unix"
    if interface.lower() == "localhost":
        return True
    try:
        address = ip_address(interface)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
