"""The client's address, seen through trusted proxies.

Anyone can send ``X-Forwarded-For``. So the chain of addresses is read from its end, which the nearest proxy
wrote, and only as far as each writer is trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from twisted.internet.address import UNIXAddress

from gateway.clients.proxies import UNIX, TrustedProxies, plain_address
from gateway.http.request import Request
from reactor.gate import peer_below

__all__ = ["client_address", "split_elements"]

_LONGEST_CHAIN = 64
"""Longest chain that is read; of more proxies, only the nearest count."""

# RFC 7239: an element's parameters, whose values may be quoted.
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"\\]*)"|([^\s;,"]+))\s*(?=;|$)', re.IGNORECASE)


def client_address(request: Request, trusted: TrustedProxies) -> str:
    """Return the client's address, as reported by the peer and trusted proxies.

    :returns: an IP address; ``unix`` for a peer at a Unix socket, ``-`` if it is unknown.
    """
    transport: Any = getattr(request, "transport", None)
    if transport is None:
        return "-"
    peers: tuple[str, str] | None = getattr(transport, "known_peers", None)
    if peers is None:
        peers = _host(peer_below(transport)), _host(transport.getPeer())
        try:
            # They are the same for all requests of a connection.
            transport.known_peers = peers
        except AttributeError:
            pass  # a transport that takes no attributes
    nearest, via_proxy = peers
    if nearest == via_proxy and not trusted.are_named:
        # The usual case.
        return nearest
    if via_proxy not in (nearest, "-"):
        # The address in the PROXY protocol's header. Endpoints with it are meant for proxies; a proxy on
        # another machine must still be configured.
        is_near = nearest == UNIX or _is_loopback(nearest)
        if not (nearest in trusted or (is_near and not trusted.are_named)):
            return nearest
        nearest = via_proxy
    if nearest not in trusted:
        # The headers of an untrusted peer are not even read.
        return nearest
    for host in _chain(request):
        if nearest not in trusted:
            break
        address = _forwarded_host(host)
        if address is None:
            break
        nearest = address
    return nearest


def _host(peer: object) -> str:
    if isinstance(peer, UNIXAddress):
        return UNIX
    host = getattr(peer, "host", None)
    if not isinstance(host, str):
        return "-"
    address = plain_address(host)
    return "-" if address is None else str(address)


def _is_loopback(host: str) -> bool:
    address = plain_address(host)
    return address is not None and address.is_loopback


def _chain(request: Request) -> Iterator[str]:
    """Yield the addresses in the headers, the nearest first."""
    values = _texts(request, b"x-forwarded-for")
    standard = _texts(request, b"forwarded")
    if standard:
        elements = [element for value in standard for element in split_elements(value)][-_LONGEST_CHAIN:]
        named = [
            (found[1] or found[2] or "") if (found := _FOR.search(element)) else "" for element in elements
        ]
        other = [one.strip() for value in values for one in value.split(",")][-_LONGEST_CHAIN:]
        if values and list(map(_forwarded_host, named)) != list(map(_forwarded_host, other)):
            # A proxy writes one of the two headers, and passes on the other, which the client may have
            # forged. They cannot be told apart.
            return
        yield from reversed(named)
        return
    yield from reversed([one.strip() for value in values for one in value.split(",")][-_LONGEST_CHAIN:])


def split_elements(value: str) -> list[str]:
    """Split a ``Forwarded`` header at the commas outside quotes, in one pass.

    Quotes are counted from the end, which the nearest proxy wrote: a quote left open by the client must not
    hide the elements that proxies added.
    """
    elements = []
    current: list[str] = []
    for index, part in enumerate(value[::-1].split('"')):
        if index % 2:
            current.append(f'"{part}"')
            continue
        head, *others = part.split(",")
        current.append(head)
        for other in others:
            elements.append("".join(current))
            current = [other]
    elements.append("".join(current))
    return [element[::-1] for element in reversed(elements)]


def _texts(request: Request, name: bytes) -> list[str]:
    return [value.decode("latin-1") for value in request.header_values(name)]


def _forwarded_host(text: str) -> str | None:
    """Return the address of an element, without its port; ``None`` if it has none (such as ``unknown``)."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    address = plain_address(text)
    return None if address is None else str(address)
