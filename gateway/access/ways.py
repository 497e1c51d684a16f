"""The ways in which a caller can say who it is: tokens, API keys, client certificates, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.access.keys import PREFIX, ApiKeys
from gateway.access.keysource import KeySource
from gateway.access.peers import certificate_identity, peer_certificate
from gateway.access.refusals import invalid_token
from gateway.access.rights import Identity
from gateway.access.tokens import TokenRefused, TokenTerms, UnknownKey, identity_of, verify
from gateway.cluster.credentials import Passthrough
from gateway.dialect.errors import Refusal
from gateway.http.request import NotYet, Request

__all__ = ["Anyone", "BasicWords", "ByCertificate", "ByKey", "ByToken", "Way"]

Found = tuple[Identity, float]
"""Who calls, and the Unix time until which the same header may be believed; 0: not without another check."""

_BEARER = b'Bearer realm="couchgateway"'
_KEY = b"x-api-key"


class Way(Protocol):
    """One way."""

    challenge: bytes
    """Value of ``WWW-Authenticate``; empty for none."""
    words: str
    """What is expected, for a message."""
    schemes: Mapping[str, Mapping[str, object]]
    """Security schemes of OpenAPI by their names."""

    def recognise(self, request: Request, scheme: bytes, value: bytes) -> Found | None:
        """Return who calls; ``None`` if the request says nothing in this way.

        :param scheme: of ``Authorization`` in lower case, or ``x-api-key``; empty if there is neither header.
        :param value: what follows it.
        :raises Refusal: 401, it says something invalid.
        :raises NotYet: it can only be said later.
        """


class ByToken:
    """``Authorization: Bearer`` with a JSON Web Token.

    :param now: returns the Unix time in seconds.
    """

    challenge = _BEARER
    words = "a bearer token (JWT)"
    schemes: Mapping[str, Mapping[str, object]] = {
        "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }

    def __init__(self, keys: KeySource, terms: TokenTerms, now: Callable[[], float]) -> None:
        self._keys = keys
        self._terms = terms
        self._now = now

    def recognise(self, request: Request, scheme: bytes, value: bytes) -> Found | None:
        """See :class:`Way`."""
        if scheme != b"bearer" or value.startswith(PREFIX.encode("ascii")):
            return None
        keys = self._keys.current()
        if keys is None:
            fetch = self._keys.newer()
            if fetch is not None:
                raise NotYet(fetch)
            raise Refusal(
                "UnderlyingServiceUnavailable",
                "The keys that sign tokens cannot be fetched; the log says why.",
                resource="",
            )
        try:
            verified = verify(value, keys, self._terms, self._now())
            return identity_of(verified.claims), verified.until
        except UnknownKey as unknown:
            fetch = self._keys.newer()
            if fetch is not None:
                raise NotYet(fetch) from None
            raise invalid_token(str(unknown)) from None
        except TokenRefused as refused:
            raise invalid_token(str(refused)) from None


class ByKey:
    """``Authorization: Bearer``, or ``X-API-Key``, with an API key.

    :param keys: returns the keys in force.
    """

    challenge = _BEARER
    words = "an API key"
    schemes: Mapping[str, Mapping[str, object]] = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    }

    def __init__(self, keys: Callable[[], ApiKeys], now: Callable[[], float]) -> None:
        self._keys = keys
        self._now = now

    def recognise(self, request: Request, scheme: bytes, value: bytes) -> Found | None:
        """See :class:`Way`."""
        if scheme != _KEY and not (scheme == b"bearer" and value.startswith(PREFIX.encode("ascii"))):
            return None
        found = self._keys().find(value, self._now())
        if found is None:
            raise invalid_token("the API key is unknown or no longer valid")
        return found


class ByCertificate:
    """A client certificate, of which the listener has checked the chain; only without other credentials."""

    challenge = b""
    words = "a client certificate"
    schemes: Mapping[str, Mapping[str, object]] = {"certificate": {"type": "mutualTLS"}}

    def recognise(self, request: Request, scheme: bytes, value: bytes) -> Found | None:
        """See :class:`Way`."""
        if scheme:
            return None
        certificate = peer_certificate(getattr(request, "transport", None))
        return None if certificate is None else (certificate_identity(certificate), 0.0)


class Anyone:
    """``--auth none``: whoever calls, whatever the request says."""

    challenge = b""
    words = ""
    schemes: Mapping[str, Mapping[str, object]] = {}

    def recognise(self, request: Request, scheme: bytes, value: bytes) -> Found | None:
        """See :class:`Way`."""
        return Identity("anyone", ""), 0.0


class BasicWords:
    """HTTP Basic, which the gatekeeper reads itself; here for its challenge only."""

    challenge = b'Basic realm="couchgateway", charset="UTF-8"'
    words = "HTTP Basic"
    schemes: Mapping[str, Mapping[str, object]] = Passthrough.schemes

    def recognise(self, request: Request, scheme: bytes, value: bytes) -> Found | None:
        """See :class:`Way`."""
        return None
