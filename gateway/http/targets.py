"""The target of a request: ``Host``, and request targets other than a plain path."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address

__all__ = ["BadTarget", "check_host", "split_target"]


class BadTarget(Exception):
    """``Host`` or the request target is invalid; the text says why."""


# RFC 3986 3.2.2 and 3.2.3, which allow nearly any character in a name.
_HOST = re.compile(
    rb"(?:\[(?P<literal>[0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\]"
    rb"|(?P<name>(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*))"
    rb"(?P<port>:[0-9]*)?"
)
_MAX_PORT = 65535
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)")
_SCHEMES = (b"http", b"https")


def check_host(value: bytes) -> None:
    """Refuse an invalid value of ``Host`` (RFC 9112 3.2). An empty one is allowed: it names no host.

    :raises BadTarget: it is not ``host`` or ``host:port``.
    """
    if not value:
        return
    match = _HOST.fullmatch(value)
    if match is None:
        raise _bad_host(value, "is not a host, or a host and a port such as example.org:8080")
    name, literal, port = match["name"], match["literal"], match["port"]
    if name == b"":
        raise _bad_host(value, "names a port but no host")
    if literal is not None and literal[:1] not in b"vV":
        try:
            IPv6Address(literal.decode("ascii"))
        except AddressValueError:
            raise _bad_host(value, "has no IPv6 address between its brackets") from None
    if port is not None and len(port) > 1 and (len(port.lstrip(b":0")) > 5 or int(port[1:]) > _MAX_PORT):
        raise _bad_host(value, f"has a port beyond {_MAX_PORT}")


def split_target(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """Read a request target in any of its forms (RFC 9112 3.2).

    :returns: path and query; and the host of an absolute URL, which replaces ``Host``.
    :raises BadTarget: the form is not one that the gateway serves.
    """
    if target[:1] == b"/":
        return target, None
    if target == b"*" and method == b"OPTIONS":
        return target, None
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise BadTarget("the request target is neither a path that begins with '/' nor a URL")
    scheme, authority = absolute.groups()
    if scheme.lower() not in _SCHEMES:
        raise BadTarget(
            f"a URL with the scheme {scheme[:20].decode('ascii')!r} is not served; expected http or https"
        )
    if b"@" in authority:
        raise BadTarget("the URL must not have a user name; send credentials in Authorization")
    if not authority:
        raise BadTarget("the URL names no host")
    check_host(authority)
    rest = target[absolute.end() :]
    if rest[:1] != b"/":
        # The authority ends at the first '/', '?' or '#'; a slash after '?' belongs to the query.
        rest = b"/" + rest if rest or method != b"OPTIONS" else b"*"
    return rest, authority


def _bad_host(value: bytes, why: str) -> BadTarget:
    return BadTarget(f"Host {value[:80].decode('latin-1')!r} {why}")
