"""CORS: the headers by which browsers let pages of other origins call the gateway, and read its answers.

Which origins may call, :mod:`gateway.clients.origins` decides; this module says what they may send and read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.http.response import Headers

__all__ = ["ALLOWED_HEADERS", "EXPOSED_HEADERS", "MAX_AGE_SECONDS", "METHODS", "CorsRules"]

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")

ALLOWED_HEADERS = (
    "Accept",
    "Authorization",
    "Cache-Control",
    "Content-Encoding",
    "Content-Type",
    "Expires",
    "If-Match",
    "If-None-Match",
    "X-API-Key",
    "X-CB-DurabilityLevel",
    "X-CB-Flags",
    "X-CB-PersistTo",
    "X-CB-ReplicateTo",
    "X-CB-DurabilityTimeout",
    "X-CB-TTL",
    "X-CB-Timeout",
    "X-Request-Id",
    "X-Requested-With",
    "traceparent",
    "tracestate",
)
"""Headers that a page of another origin may send, unless others are configured."""

EXPOSED_HEADERS = (
    "Allow",
    "ETag",
    "Expires",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-CB-Flags",
    "X-CB-MutationToken",
    "X-CB-Revision",
    "X-CB-TotalRows",
    "X-Request-Id",
)
"""Headers that a page of another origin may read, in addition to those that every page may; more can be
configured."""

MAX_AGE_SECONDS = 600

_CREDENTIALS = (b"Access-Control-Allow-Credentials", b"true")
_PRIVATE_NETWORK = (b"Access-Control-Allow-Private-Network", b"true")


class CorsRules:
    """What pages of other origins may send and read.

    :param methods: methods they may send, of those that a resource has; none given: all.
    :param headers: request headers they may send, instead of :data:`ALLOWED_HEADERS`; none given: these.
    :param exposed: response headers they may read, in addition to :data:`EXPOSED_HEADERS`.
    :param max_age: how long a browser may cache a preflight, in seconds.
    :param credentials: whether a browser may send cookies, client certificates and stored passwords along.
    """

    def __init__(
        self,
        *,
        methods: Iterable[str] = (),
        headers: Iterable[str] = (),
        exposed: Iterable[str] = (),
        max_age: int = MAX_AGE_SECONDS,
        credentials: bool = True,
    ) -> None:
        self.methods = frozenset(methods) or frozenset(METHODS)
        names = tuple(headers) or ALLOWED_HEADERS
        self._allowed = frozenset(name.lower().encode("ascii") for name in names)
        self._allow_headers = (b"Access-Control-Allow-Headers", ", ".join(names).encode("ascii"))
        self._max_age = (b"Access-Control-Max-Age", b"%d" % max_age)
        known = {name.lower() for name in EXPOSED_HEADERS}
        shown = (*EXPOSED_HEADERS, *(name for name in exposed if name.lower() not in known))
        self.expose = (b"Access-Control-Expose-Headers", ", ".join(shown).encode("ascii"))
        self._credentials = (_CREDENTIALS,) if credentials else ()

    def permission(self, origin: bytes) -> Headers:
        """Return the headers that let pages of an origin read an answer.

        :param origin: as the request names it, or ``*``.
        """
        return ((b"Access-Control-Allow-Origin", origin), *self._credentials)

    def takes(self, method: str) -> bool:
        """Return whether pages of other origins may send a method; those that no resource has are refused
        elsewhere."""
        return method in self.methods or method not in METHODS

    def preflight(
        self, method: object, wanted: object, served: Sequence[str] | None, *, private_network: bool
    ) -> Headers | None:
        """Return the headers that answer a preflight, without those of :meth:`permission`.

        :param method: value of ``Access-Control-Request-Method``.
        :param wanted: value of ``Access-Control-Request-Headers``.
        :param served: the methods of the resource; ``None`` if they are not known.
        :param private_network: whether the page may call an address of a private network.
        :returns: ``None`` if the page may not send such a request.
        """
        if not isinstance(method, bytes) or not isinstance(wanted, bytes):
            return None
        methods = [one for one in METHODS if one in self.methods and (served is None or one in served)]
        if method.decode("latin-1") not in methods:
            return None
        if not all(name.strip().lower() in self._allowed for name in wanted.split(b",") if name.strip()):
            return None
        allowed = (b"Access-Control-Allow-Methods", ", ".join(methods).encode("ascii"))
        answer = (allowed, self._allow_headers, self._max_age)
        return (*answer, _PRIVATE_NETWORK) if private_network else answer
