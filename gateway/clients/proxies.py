"""Proxies that are trusted to report the client's address."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from gateway.http.known import Known

__all__ = ["UNIX", "TrustedProxies", "check_proxy", "plain_address"]

UNIX = "unix"
"""Stands for all peers at a Unix socket."""

_LONGEST_ADDRESS = 64
"""Longest text that is remembered; headers may have longer ones, such as an address with a long zone."""

Address = IPv4Address | IPv6Address


def check_proxy(text: str) -> str:
    """Return a valid name of proxies: an address, a network, or ``unix``.

    :raises ValueError: it is not one of these.
    """
    if text != UNIX:
        ip_network(text)
    return text


def plain_address(text: str) -> Address | None:
    """Return an address, with IPv4 mapped to IPv6 converted back; ``None`` if invalid."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class TrustedProxies:
    """The set of trusted proxies.

    :param names: see :func:`check_proxy`.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        names = list(names)
        self.are_named = bool(names)
        """Whether there are any."""
        self._unix = UNIX in names
        self._known: Known[str, bool] = Known(1024)
        self._networks = [ip_network(name) for name in names if name != UNIX]

    def __contains__(self, host: str) -> bool:
        """Return whether a peer is trusted; ``unix`` is one at a Unix socket."""
        if not self.are_named:
            return False
        if host == UNIX:
            return self._unix
        known = self._known.get(host)
        if known is None:
            address = plain_address(host)
            known = address is not None and any(address in network for network in self._networks)
            if len(host) <= _LONGEST_ADDRESS:
                self._known.learn(host, known)
        return known
