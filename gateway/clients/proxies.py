"""Proxies whose word about the client's address is believed."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

__all__ = ["UNIX", "TrustedProxies", "check_proxy", "plain_address"]

UNIX = "unix"
"""Stands for everyone who connects to a Unix socket."""

Address = IPv4Address | IPv6Address


def check_proxy(text: str) -> str:
    """Return what names proxies, if it does: an address, a network, or ``unix``.

    :raises ValueError: it is none of them.
    """
    if text != UNIX:
        ip_network(text)
    return text


def plain_address(text: str) -> Address | None:
    """Return an address, an IPv4 one that is written as IPv6 as the former; ``None`` if it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class TrustedProxies:
    """Tells who is one of them.

    :param names: see :func:`check_proxy`.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        names = list(names)
        self.are_named = bool(names)
        """Whether there is one."""
        self._unix = UNIX in names
        self._networks = [ip_network(name) for name in names if name != UNIX]

    def __contains__(self, host: str) -> bool:
        """Return whether a peer is trusted; ``unix`` is one at a Unix socket."""
        if host == UNIX:
            return self._unix
        address = plain_address(host)
        return address is not None and any(address in network for network in self._networks)
