"""Who calls, and as whom the gateway speaks to the cluster."""

from __future__ import annotations

import binascii
from base64 import b64decode
from hashlib import blake2b
from typing import Protocol

from gateway.errors import Refusal, bad_request
from gateway.request import Request

__all__ = ["Authorizer", "Credentials", "Passthrough", "ServiceAccount"]

_CHALLENGE = ((b"WWW-Authenticate", b'Basic realm="couchgateway", charset="UTF-8"'),)


class Credentials:
    """A user name and a password, not yet believed.

    ``digest`` is a keyed hash of both. It is what gets kept and compared, so a password lives no
    longer than the request that brought it, and what comparing takes tells nothing about it.
    """

    __slots__ = ("digest", "password", "user")

    def __init__(self, user: str, password: str, secret: bytes) -> None:
        self.user = user
        self.password = password
        identity = b"%d:%b%b" % (len(user), user.encode("utf-8"), password.encode("utf-8"))
        self.digest = blake2b(identity, key=secret, digest_size=32).digest()


class Authorizer(Protocol):
    """Finds the credentials to use for a request."""

    def identify(self, request: Request) -> Credentials:
        """Return the credentials; the cluster has not confirmed them.

        :raises Refusal: 400 if they are malformed, 401 if they are missing.
        """


class ServiceAccount:
    """Everyone may call, as the gateway's own user (``--auth none``)."""

    def __init__(self, user: str, password: str, secret: bytes) -> None:
        self.credentials = Credentials(user, password, secret)

    def identify(self, request: Request) -> Credentials:
        """Return the service account's credentials, whatever the request says."""
        return self.credentials


class Passthrough:
    """Callers prove themselves by HTTP Basic, and the cluster decides (``--auth passthrough``).

    :param secret: 16 to 64 random bytes, made anew by each process.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def identify(self, request: Request) -> Credentials:
        """Return what the ``Authorization`` header says (RFC 7617, in UTF-8)."""
        header = request.header(b"Authorization")
        if header is None:
            raise Refusal("Unauthorized", resource="", headers=_CHALLENGE)
        scheme, _, encoded = header.partition(b" ")
        if scheme != b"Basic" and scheme.lower() != b"basic":
            raise bad_request("Authorization: only the scheme Basic is understood")
        try:
            user, colon, password = b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise bad_request("Authorization: the credentials are not base64 of UTF-8 text") from None
        if not colon:
            raise bad_request("Authorization: the credentials have no colon between user name and password")
        if not user or not password:
            raise Refusal(
                "Unauthorized", "User name and password must not be empty.", resource="", headers=_CHALLENGE
            )
        return Credentials(user, password, self._secret)
