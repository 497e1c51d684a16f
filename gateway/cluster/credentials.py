"""Callers' credentials, and the gateway's own at the cluster."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Protocol

from gateway.dialect.errors import Refusal, bad_request
from gateway.http.known import Known
from gateway.http.request import Request

__all__ = [
    "BY_CERTIFICATE",
    "Authorizer",
    "CallerCredentials",
    "LineCheck",
    "Passthrough",
    "ServiceAccount",
    "has_controls",
]

BY_CERTIFICATE = ""
"""Replaces a user name: the user named by the gateway's client certificate. No caller can send it."""

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_CHALLENGE = ((b"WWW-Authenticate", b'Basic realm="couchgateway", charset="UTF-8"'),)


LineCheck = Callable[[str, tuple[str, str]], None]
"""Checks an operation of a batch; see :meth:`CallerCredentials.line_check`."""


class CallerCredentials:
    """A user name and a password, not confirmed yet.

    ``digest`` is a keyed hash of both. The HTTP side keeps and compares only the hash, and the time of a
    comparison reveals nothing about the password. The connection opened with a password keeps the password
    while it is open, to reconnect.
    """

    __slots__ = ("_password", "digest", "user")

    stands_for_anyone = False
    """Whether the callers are other users than these credentials name."""

    def __init__(self, user: str, password: str, secret: bytes) -> None:
        self.user = user
        self._password = password
        identity = b"%d:%b%b" % (len(user), user.encode("utf-8"), password.encode("utf-8"))
        self.digest = blake2b(identity, key=secret, digest_size=32).digest()

    @property
    def password(self) -> str:
        """The password, to open a connection."""
        return self._password

    @property
    def name(self) -> str:
        """The caller's name, for logs and answers; the user at the cluster may be another."""
        return self.user

    def line_check(self, bucket: str) -> LineCheck | None:
        """Return a function that checks each operation of a batch; ``None`` if there are no rules to check,
        or they allow everything in the bucket.

        It takes the operation's name, and its scope and collection; it raises Refusal (403).
        """
        return None

    def shows(self, bucket: str, scope: str | None = None, collection: str | None = None) -> bool:
        """Return whether a list may show a bucket, a scope or a collection to the caller."""
        return True


class _Recognised(CallerCredentials):
    """Credentials known from an earlier request by the bytes of their header; decoded again only if
    necessary."""

    __slots__ = ("_header",)

    def __init__(self, user: str, digest: bytes, header: bytes) -> None:
        self.user = user
        self.digest = digest
        self._header = header

    @property
    def password(self) -> str:
        """The password, read from the header."""
        return _read_basic(self._header)[1]


class Authorizer(Protocol):
    """Finds the credentials to use for a request."""

    schemes: Mapping[str, Mapping[str, object]]
    """How callers may say who they are, as security schemes of OpenAPI by their names; empty if they need
    not."""

    def identify(self, request: Request) -> CallerCredentials:
        """Return the credentials, which the cluster has not confirmed yet.

        :raises Refusal: 400 if they are malformed, 401 if they are missing.
        """

    def follow(self, changed: Callable[[], object]) -> Callable[[], object]:
        """Call ``changed`` whenever callers may have other rights than before.

        :returns: ends that.
        """


def _nothing() -> None:
    pass


class _Shared(CallerCredentials):
    """Credentials that all callers share."""

    __slots__ = ()

    stands_for_anyone = True


class ServiceAccount:
    """Lets everyone call as the gateway's own user (``--auth none``)."""

    schemes: Mapping[str, Mapping[str, object]] = {}

    def __init__(self, user: str, password: str, secret: bytes) -> None:
        """Take the account's name and password, or :data:`BY_CERTIFICATE` and no password."""
        self.credentials: CallerCredentials = _Shared(user, password, secret)

    def identify(self, request: Request) -> CallerCredentials:
        """Return the service account's credentials, whatever the request says."""
        return self.credentials

    def follow(self, changed: Callable[[], object]) -> Callable[[], object]:
        """Do nothing: the account stays."""
        return _nothing


_KNOWN_HEADERS = 4096
_LONGEST_KNOWN_USER = 256


class Passthrough:
    """Callers authenticate by HTTP Basic, and the cluster decides (``--auth passthrough``).

    :param secret: 16 to 64 random bytes, new in each process.
    """

    schemes: Mapping[str, Mapping[str, object]] = {
        "basic": {"type": "http", "scheme": "basic", "description": "User name and password at the cluster."}
    }

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        # A copy of it costs less than a new one.
        self._marks = blake2b(key=secret, digest_size=32)
        # Keyed hash of a header -> its credentials: the header itself contains a password, and is not kept.
        self._known: Known[bytes, tuple[str, bytes]] = Known(_KNOWN_HEADERS)

    def identify(self, request: Request) -> CallerCredentials:
        """Return what the ``Authorization`` header says (RFC 7617, in UTF-8)."""
        header = request.headers.get(b"authorization")
        if header.__class__ is not bytes:
            # This refuses duplicate headers.
            header = request.header(b"Authorization")
            if header is None:
                raise Refusal("Unauthorized", resource="", headers=_CHALLENGE)
        marks = self._marks.copy()
        marks.update(header)
        mark = marks.digest()
        known = self._known.get(mark)
        if known is not None:
            return _Recognised(*known, header)
        user, password = _read_basic(header)
        credentials = CallerCredentials(user, password, self._secret)
        # Nobody has confirmed the name yet, so anyone can send long ones.
        if len(user) <= _LONGEST_KNOWN_USER:
            self._known.learn(mark, (user, credentials.digest))
        return credentials

    def follow(self, changed: Callable[[], object]) -> Callable[[], object]:
        """Do nothing: the cluster decides."""
        return _nothing


def has_controls(text: str) -> bool:
    """Return whether a user name or password contains a control character, which is not allowed.

    NUL is dangerous: for SCRAM, a password and the same with NULs appended are equal, as HMAC pads its key
    with NULs.
    """
    return _CONTROLS.search(text) is not None


def _read_basic(header: bytes) -> tuple[str, str]:
    """Return user name and password."""
    scheme, _, encoded = header.partition(b" ")
    if scheme != b"Basic" and scheme.lower() != b"basic":
        raise bad_request("Authorization: only the scheme Basic is understood")
    try:
        user, colon, password = b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise bad_request("Authorization: the credentials are not base64 of UTF-8 text") from None
    if has_controls(user) or has_controls(password):
        raise bad_request("Authorization: user name and password must not have control characters (RFC 7617)")
    if not colon:
        raise bad_request("Authorization: the credentials have no colon between user name and password")
    if not user or not password:
        raise Refusal(
            "Unauthorized", "User name and password must not be empty.", resource="", headers=_CHALLENGE
        )
    return user, password
