"""The services of a cluster, and the requests that each of them may get through the gateway."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from gateway.dialect.errors import Refusal, bad_request

__all__ = [
    "ANALYTICS",
    "KINDS",
    "MANAGEMENT",
    "QUERY",
    "SEARCH",
    "Access",
    "Kind",
    "Policy",
    "checked_target",
]


class Access(Enum):
    """The allowed requests to a service."""

    OFF = "off"
    READ_ONLY = "read-only"
    ON = "on"


class Kind(NamedTuple):
    """A service."""

    name: str
    """Its name in the gateway's paths, ``/_p/NAME/...``."""
    service: str
    """Its name in the cluster map; see :meth:`txcouchbase.http.HttpService.addresses`."""
    title: str
    usual: re.Pattern[bytes]
    """Paths that callers use; all others are for administrators."""
    reads: tuple[tuple[frozenset[str], re.Pattern[bytes]], ...]
    """Methods and paths of read-only requests."""
    checked: re.Pattern[bytes] | None = None
    """Paths of statements, which are read-only if they have ``readonly``."""

    def is_read(self, method: str, path: bytes) -> bool:
        """Return whether a request is read-only, whatever its body."""
        return any(method in methods and pattern.fullmatch(path) for methods, pattern in self.reads)

    def is_usual(self, method: str, path: bytes) -> bool:
        """Return whether a request is for callers, not for administrators."""
        if method in _GET and path == _PING[self.name]:
            return True
        if self.usual.fullmatch(path) is None:
            return False
        return self.name != "mgmt" or method in _GET


_GET = frozenset({"GET", "HEAD"})
_POST = frozenset({"POST"})
_STATEMENTS = frozenset({"GET", "POST"})
_PING = {"query": b"/admin/ping", "fts": b"/api/ping", "cbas": b"/admin/ping", "mgmt": b"/whoami"}
_NAMED = rb"/api/(?:bucket/[^/]+/scope/[^/]+/)?index"


def _paths(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern)


QUERY = Kind(
    "query",
    "n1ql",
    "query service",
    _paths(rb"/query(?:/.*)?"),
    ((_GET, _paths(rb"/admin/ping")),),
    _paths(rb"/query/service"),
)
SEARCH = Kind(
    "fts",
    "fts",
    "search service",
    _paths(rb"/api/(?:index|bucket)(?:/.*)?"),
    (
        (_GET, _paths(_NAMED + rb"(?:/[^/]+(?:/count)?)?")),
        (_GET, _paths(rb"/api/ping")),
        (_POST, _paths(_NAMED + rb"/[^/]+/query")),
    ),
)
ANALYTICS = Kind(
    "cbas",
    "cbas",
    "analytics service",
    _paths(rb"/(?:analytics|query)(?:/.*)?"),
    ((_GET, _paths(rb"/admin/ping")),),
    _paths(rb"/(?:analytics/service|analytics/query/service|query/service)"),
)
MANAGEMENT = Kind(
    "mgmt",
    "management",
    "cluster manager",
    # Paths that begin with '_' are for the cluster's own parts; /diag runs code.
    _paths(rb"/(?!_|diag(?:/|\Z)).*"),
    ((_GET, _paths(rb"/(?!_|diag(?:/|\Z)).*")),),
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (QUERY, SEARCH, ANALYTICS, MANAGEMENT)}


class Policy(NamedTuple):
    """The requests that callers may send to the cluster's services."""

    proxied: Mapping[str, Access] = {}
    """:attr:`Kind.name` -> access below ``/_p``; a missing service is disabled."""
    admin: bool = False
    """Whether paths for administrators are proxied, too."""
    statements: Access = Access.ON
    """Access to the dialect's own resource for statements."""

    @classmethod
    def of(cls, proxied: Iterable[str] | None, admin: bool | None, statements: str | None) -> Policy:
        """Return the policy of options.

        :param proxied: ``NAME=ACCESS``; this and the others are ``None`` if the supervisor has no such
            options.
        """
        pairs = (text.split("=") for text in proxied or ())
        return cls(
            {name: Access(access) for name, access in pairs},
            bool(admin),
            Access(statements or Access.READ_ONLY),
        )

    def kind(self, name: bytes) -> tuple[Kind, Access]:
        """Return a service by its name in the path.

        :raises Refusal: 404, there is no service with this name, or it is disabled.
        """
        known = KINDS.get(name.decode("utf-8"))
        if known is None:
            names = ", ".join(KINDS)
            raise Refusal("RouteNotFound", f"Expected one of the services {names} below /_p.", resource="")
        access = self.proxied.get(known.name, Access.OFF)
        if access is Access.OFF:
            raise Refusal(
                "RouteNotFound",
                f"The gateway does not pass requests on to the {known.title}; --proxy-service {known.name} "
                "makes it do so.",
                resource="",
            )
        return known, access

    def check(self, kind: Kind, access: Access, method: str, path: bytes) -> bool:
        """Refuse a request that must not be proxied; return whether its body must have ``readonly``.

        :param path: percent-decoded, from the service's root.
        :raises Refusal: 403.
        """
        if not self.admin and not kind.is_usual(method, path):
            what = (
                f"{method} of a path" if kind.name == "mgmt" and kind.usual.fullmatch(path) else "this path"
            )
            raise Refusal(
                "ServiceForbidden",
                f"For the {kind.title}, {what} is for administrators; --proxy-admin lets it pass.",
                resource="",
            )
        if access is Access.ON or kind.is_read(method, path):
            return False
        if kind.checked is not None and kind.checked.fullmatch(path) and method in _STATEMENTS:
            return True
        raise Refusal(
            "ServiceForbidden",
            f"The gateway passes on to the {kind.title} only requests that change nothing "
            f"(--proxy-service {kind.name}=read-only), and this may be another.",
            resource="",
        )


# Only the characters of RFC 3986 3.3: exactly what was checked is sent on.
_PLAIN_PATH = re.compile(rb"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)+")
_QUERY = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?\[\]{}|\"<>^`\\-]|%[0-9A-Fa-f]{2})*")
_NOT_IN_SEGMENT = re.compile(rb"[/\\\x00-\x1f\x7f]")


def checked_target(path: bytes, query: bytes) -> tuple[bytes, bytes]:
    """Check a path and a query string that are sent on unchanged.

    :param path: as sent, from the service's root; ``b""`` for that root.
    :returns: the target for the service, and the path percent-decoded, for rules.
    :raises Refusal: 400 for a path that the service might read as a different one.
    """
    path = path or b"/"
    if _PLAIN_PATH.fullmatch(path) is None:
        raise bad_request("the path has characters that must be encoded (RFC 3986 3.3), or an invalid '%'")
    segments = [unquote_to_bytes(segment) for segment in path.split(b"/")[1:]]
    for number, segment in enumerate(segments):
        if not segment and number < len(segments) - 1:
            raise bad_request("the path has an empty segment: '//'")
        if segment in (b".", b".."):
            raise bad_request("the path has a segment '.' or '..'; send the path without them")
        if _NOT_IN_SEGMENT.search(segment):
            raise bad_request("a segment of the path has an encoded slash, backslash or control character")
    if _QUERY.fullmatch(query) is None:
        raise bad_request("the query string has characters that must be percent-encoded, or an invalid '%'")
    return (path + b"?" + query if query else path), b"/" + b"/".join(segments)
