"""Authentication methods: tokens, API keys, client certificates, or none."""

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
"""The caller, and the Unix time until which the header needs no other check; 0: check it each time."""

_BEARER = b'Bearer realm="couchgateway"'
_KEY = b"x-api-key"


class Way(Protocol):
    """One authentication method."""

    challenge: bytes
    """Value of ``WWW-Authenticate``; empty for none."""
    words: str
    """The expected credentials, for a message."""
    schemes: Mapping[str, Mapping[str, object]]
    """OpenAPI security schemes by name."""

    def recognise(self, request: Request, scheme: bytes, value: bytes) -> Found | None:
        """Return the caller's identity; ``None`` if the request does not use this method.

        :param scheme: scheme of ``Authorization`` in lower case, or ``x-api-key``; empty if the request has
            neither header.
        :param value: the text that follows the scheme.
        :raises Refusal: 401, the credentials are invalid.
        :raises NotYet: the answer is only known later.
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

    :param keys: returns the current keys.
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
    """A client certificate with a checked chain; used only if the request has no other credentials."""

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
    """``--auth none``: every caller is accepted, whatever the request says."""

    challenge = b""
    words = ""
    schemes: Mapping[str, Mapping[str, object]] = {}

    def recognise(self, request: Request, scheme: bytes, value: bytes) -> Found | None:
        """See :class:`Way`."""
        return Identity("anyone", ""), 0.0


class BasicWords:
    """HTTP Basic. The gatekeeper reads it itself; this class only provides the challenge."""

    challenge = b'Basic realm="couchgateway", charset="UTF-8"'
    words = "HTTP Basic"
    schemes: Mapping[str, Mapping[str, object]] = Passthrough.schemes

    def recognise(self, request: Request, scheme: bytes, value: bytes) -> Found | None:
        """See :class:`Way`."""
        return None
