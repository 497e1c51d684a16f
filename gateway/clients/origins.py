"""Which web pages may use the gateway: ``Host``, ``Origin`` and CORS.

A browser sends requests on behalf of any open page, also to this machine's loopback. Without credentials
(``--auth none``) only the names in a request distinguish the user's own pages from others:

- ``Host`` must be an IP address, localhost, or an allowed name. This catches a page whose own name resolves
  to 127.0.0.1 (DNS rebinding).
- ``Origin`` must be that of the gateway itself, or an allowed one.
- If a browser sends no ``Origin``, ``Sec-Fetch-Site`` serves the same purpose; only following a link is
  allowed.

With callers' credentials (``--auth passthrough``) the cluster decides, and CORS follows the Data API. A
browser may have stored credentials, though, so requests that pages can send without a preflight are refused
from foreign origins, unless the origin is configured.

All of this is decided once for each new head; see :class:`gateway.http.heads.HeadReader`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from gateway.clients.cors import CorsRules
from gateway.dialect.errors import Refusal
from gateway.http.known import Known
from gateway.http.request import HeaderTable, Request
from gateway.http.response import Headers, Response, header_block

__all__ = ["Doors", "Visit", "origin_of"]

VARY = (b"Vary", b"Origin")

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_PORTS = {"http": "80", "https": "443"}
_LAST_PORT = 65535
_KNOWN_HOSTS = 512
_LONGEST_KNOWN_HOST = 256

# Content types that a browser sends without a preflight, from a form or a script (Fetch, "CORS-safelisted").
_SIMPLE_TYPES = frozenset({b"", b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data"})
# A request with one of these was preflighted: no form can set them, and no proxy adds them.
_PREFLIGHTED = (b"x-requested-with", b"if-match")
_OWN = b"x-cb-"

_VARY_PREFLIGHT = (b"Vary", b"Access-Control-Request-Method, Access-Control-Request-Headers")


def origin_of(text: str) -> tuple[str, str, str] | None:
    """Return scheme, host and port of an origin; ``None`` if invalid, such as ``null``."""
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        return None
    scheme, host, port = match.groups()
    if port is not None and not 0 < int(port) <= _LAST_PORT:
        return None
    if host.startswith("[") and not _is_here(host):
        return None
    return scheme, host.removesuffix("."), port or _PORTS.get(scheme, "")


def _split_host(host: bytes) -> tuple[str, str]:
    """Return name and port of a ``Host`` in normal form; the port may be ``""``."""
    text = host.decode("latin-1").lower()
    name, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        name, port = text, ""
    return name.removesuffix("."), port


def _is_here(name: str) -> bool:
    """Return whether a host's name cannot belong to others: it is an address, or localhost."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name[1:-1] if name.startswith("[") else name)
    except ValueError:
        return False
    return True


class Doors:
    """Checks the names in requests; :attr:`gateway.http.application.Application.guard`.

    :param is_open: whether anyone may call (``--auth none``).
    :param hosts: names allowed in ``Host`` if ``is_open``, and as hosts of origins; ``*`` allows any
        ``Host``.
    :param origins: origins whose pages may use the gateway; ``*`` allows any, ``none`` no others. If empty:
        any with credentials, else none.
    :param rules: what pages of these origins may send and read; ``None``: all that the dialect has.
    """

    def __init__(
        self,
        *,
        is_open: bool,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        rules: CorsRules | None = None,
    ) -> None:
        names = {host.lower().removesuffix(".") for host in hosts}
        self.is_open = is_open
        self._checks_host = is_open and "*" not in names
        self._names = frozenset(names - {"*"})
        given = list(origins)
        self.rules = rules or CorsRules()
        self.takes_any = "*" in given or (not given and not is_open)
        self.names_any = "*" in given
        """Whether ``*`` was configured; it may also be the default."""
        self._origins = frozenset(found for found in map(origin_of, given) if found is not None)
        self._has_cors = given != ["none"]
        self._known_hosts: Known[bytes, bool] = Known(_KNOWN_HOSTS)
        self.headers: Headers = (VARY,) if not is_open and self._has_cors else ()
        """Headers of every answer, whatever the origin."""
        self.names = frozenset({b"origin", b"sec-fetch-site"} | ({b"host"} if self._checks_host else set()))
        """Headers to check: a request without any of them is admitted."""

    def look(self, headers: HeaderTable) -> Visit | None:
        """Check the names in a head.

        :returns: ``None`` if there is nothing to decide, as for all clients but browsers.
        """
        host: Any = headers.get(b"host")  # the head's reader refuses two of them
        origin = headers.get(b"origin")
        site = headers.get(b"sec-fetch-site")
        if self._checks_host and host is not None:
            is_welcome = self._known_hosts.get(host)
            if is_welcome is None:
                is_welcome = self._judge_host(host)
        else:
            is_welcome = True
        if origin is None and is_welcome and (site is None or site in (b"none", b"same-origin")):
            return None
        return Visit(self, headers, is_welcome)

    def _judge_host(self, host: bytes) -> bool:
        name = _split_host(host)[0]
        is_welcome = name in self._names or _is_here(name)
        if len(host) <= _LONGEST_KNOWN_HOST:
            self._known_hosts.learn(host, is_welcome)
        return is_welcome

    def is_named(self, origin: tuple[str, str, str]) -> bool:
        """Return whether an origin, or its host, is configured."""
        return origin in self._origins or origin[1] in self._names

    def cors(self, origin: object, *, is_own: bool, is_named: bool) -> Headers:
        """Return the headers that let pages of an origin read an answer; none if they may not."""
        if not self._has_cors or not isinstance(origin, bytes):
            return ()
        if self.takes_any and not is_named:
            return self.rules.permission(b"*")
        if is_named or (self.is_open and is_own):
            return self.rules.permission(origin)
        return ()


class _Preflight(Response):
    """The answer to a preflight, raised to be sent as it is."""

    __slots__ = ()


class Visit:
    """A request that a browser may have sent for a page; the same for all requests of one head.

    :param is_welcome: whether ``Host`` is allowed, where it is checked.
    """

    __slots__ = (
        *("_added", "_block", "_cors", "_doors", "_headers", "_host_is_welcome"),
        *("_is_foreign", "_is_named", "_is_other", "_is_unencrypted", "_origin"),
    )

    def __init__(self, doors: Doors, headers: HeaderTable, is_welcome: bool) -> None:
        self._doors = doors
        self._headers = headers
        self._host_is_welcome = is_welcome
        origin = self._origin = headers.get(b"origin")
        self._is_named = self._is_unencrypted = False
        self._is_other = True
        site = headers.get(b"sec-fetch-site")
        if origin is None:
            self._is_foreign = site is not None and site not in (b"none", b"same-origin")
        else:
            named = origin_of(origin.decode("latin-1")) if isinstance(origin, bytes) else None
            if named is None:
                self._is_foreign = True
            else:
                self._is_named = doors.is_named(named)
                # A browser's own statement is more reliable than a comparison of names.
                is_elsewhere = site in (b"cross-site", b"same-site")
                self._is_other = is_elsewhere or not _is_same(named, headers.get(b"host"))
                self._is_foreign = not self._is_named and self._is_other
                self._is_unencrypted = not self._is_named and named[0] == "http"
            if doors.is_open and doors.takes_any:
                self._is_foreign = self._is_unencrypted = False
        self._cors = doors.cors(origin, is_own=not self._is_foreign, is_named=self._is_named)
        added = [*self._cors, doors.rules.expose] if self._cors else []
        if not doors.headers and origin is not None:
            added.append(VARY)
        self._added = added
        self._block = header_block(added)

    def admit(self, request: Request) -> Response | None:
        """Admit a request, refuse it, or answer it, before any work is done for it.

        :returns: the answer to a preflight; ``None`` for any other admitted request.
        :raises Refusal: 403, the page must not send this.
        """
        headers = self._headers
        method = request.method
        # A page loaded over plain HTTP may have been replaced on the way, whatever its host's name. The
        # reverse is fine: a proxy may have removed TLS.
        is_foreign = self._is_foreign or (self._is_unencrypted and request.is_encrypted)
        if self._doors.is_open:
            if not self._host_is_welcome and not request.is_from_unix_socket:
                raise Refusal("ForbiddenHost", resource="")
            if is_foreign and not (self._origin is None and self._is_link(method)):
                raise Refusal("ForbiddenOrigin", resource="")
        elif is_foreign and not self._was_preflighted(method):
            raise Refusal(
                "ForbiddenOrigin",
                "Pages of other origins must send this so that browsers ask first: with a Content-Type other "
                "than text/plain and those of forms, or with X-Requested-With.",
                resource="",
            )
        if self._origin is None:
            return None
        if method == "OPTIONS" and b"access-control-request-method" in headers:
            return self._preflight(request)
        if self._is_other and not self._doors.rules.takes(method):
            raise Refusal(
                "ForbiddenOrigin",
                f"Pages of other origins may not send {method[:20]}; --cors-method names the methods.",
                resource="",
            )
        return None

    def _is_link(self, method: str) -> bool:
        """Return whether the user followed a link: the linking page cannot read the answer."""
        return method in ("GET", "HEAD") and self._headers.get(b"sec-fetch-mode") == b"navigate"

    def _was_preflighted(self, method: str) -> bool:
        """Return whether a browser sends this only after a preflight, or changes nothing with it."""
        headers = self._headers
        if method != "POST":
            return True
        kind = headers.get(b"content-type", b"")
        if isinstance(kind, bytes) and kind.partition(b";")[0].strip().lower() not in _SIMPLE_TYPES:
            return True
        return any(name in _PREFLIGHTED or name.startswith(_OWN) for name in headers)

    def _preflight(self, request: Request) -> Response | None:
        doors = self._doors
        if not doors.headers and not self._cors:
            return None  # without CORS it is a request like any other
        headers = self._headers
        answer = [_VARY_PREFLIGHT] if doors.headers else [VARY, _VARY_PREFLIGHT]
        if self._cors:
            application = request.application
            # A page that any network may serve must not reach this one only because there is CORS.
            asks_in = headers.get(b"access-control-request-private-network") == b"true"
            permission = doors.rules.preflight(
                headers[b"access-control-request-method"],
                headers.get(b"access-control-request-headers", b""),
                None if application is None else application.methods_of(request.path),
                private_network=asks_in and (self._is_named or doors.names_any),
            )
            if permission is not None:
                answer += [*self._cors, *permission]
        # Without permission as in the Data API: an answer that no browser takes as one.
        return _Preflight(204, answer)

    def mark(self, response: Response) -> None:
        """Add the headers to an answer that let the page read it."""
        if type(response) is _Preflight:
            return
        if self._added:
            response.add(self._added, self._block)


def _is_same(origin: tuple[str, str, str], host: object) -> bool:
    """Return whether an origin is the gateway's own, as the browser addressed it."""
    if not isinstance(host, bytes):
        return False
    scheme, name, port = origin
    own_name, own_port = _split_host(host)
    return name == own_name and port == (own_port or _PORTS.get(scheme, ""))
