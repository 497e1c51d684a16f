"""What a Twisted endpoint string means to the gateway, read as Twisted reads it.

Twisted takes arguments by place or by name, the last of those given twice, and lets one endpoint wrap another
(``haproxy:``), so its own parser is asked rather than the text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple

from twisted.internet import endpoints

__all__ = ["Place", "is_local", "place_of"]


class Place(NamedTuple):
    """Where an endpoint listens."""

    kind: str
    """Its type in lower case: ``tcp``, ``tcp6``, ``ssl``, ``unix``, or another that Twisted knows."""
    port: int | None
    """TCP port; ``None`` for other kinds."""
    interface: str
    """Address to bind to, as given; ``""`` or ``::`` are all of this machine's, and so is what is no TCP."""


def _tcp6(factory: Any, port: str, backlog: str = "50", interface: str = "::") -> None:
    """Have the signature of Twisted's own parser of ``tcp6``, which is a method of a plugin."""


_SIGNATURES: dict[str, Callable[..., Any]] = {
    "tcp": endpoints._parseTCP,
    "ssl": endpoints._parseSSL,
    "tcp6": _tcp6,
}


def place_of(description: str) -> Place:
    """Return where an endpoint listens.

    :param description: one that ``serverFromString`` takes.
    :raises ValueError: its port is no number.
    """
    positional, named = endpoints._parse(description)
    while len(positional) > 1 and positional[0].lower() == "haproxy":
        positional = positional[1:]
    kind = positional[0].lower()
    signature = _SIGNATURES.get(kind)
    if signature is None:
        return Place(kind, None, "")
    bound = inspect.signature(signature).bind(None, *positional[1:], **named)
    bound.apply_defaults()
    return Place(kind, int(bound.arguments["port"]), bound.arguments["interface"])


def is_local(description: str) -> bool:
    """Return whether an endpoint can be reached from this machine only: a Unix socket, or loopback."""
    kind, port, interface = place_of(description)
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
