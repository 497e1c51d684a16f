"""Passwords: the rules for them, and the SCRAM keys that are stored in their place."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from typing import Any, NamedTuple

from couchbase.protocol.sasl import (
    MECHANISMS,
    ScramCredential,
    derive_scram_credential,
    has_control,
)

MAX_USER_BYTES = 128
"""Longest user name that the protocol allows, in bytes of UTF-8."""

MAX_PASSWORD_BYTES = 1024
"""Longest password in bytes: longer ones would cost too much processor time."""

SCRAM_MECHANISMS = tuple(name for name in MECHANISMS if name != "PLAIN")

CHECKED_WITH = SCRAM_MECHANISMS[0]
"""The mechanism whose keys check a password sent in plain text."""

SPECIAL_CHARACTERS = "@%+\\/'\"!#$^?:,(){}[]~`-_"
"""The special characters of a password policy."""


class UserError(ValueError):
    """A user name or password is invalid; the text has the reason."""


class PasswordPolicy(NamedTuple):
    """Rules for passwords that are set over REST.

    :ivar min_length: minimum number of characters, 0 to 100.
    """

    min_length: int = 6
    uppercase: bool = False
    lowercase: bool = False
    digits: bool = False
    special: bool = False

    def fault(self, password: str) -> str | None:
        """Return why the policy refuses a password; ``None`` if it accepts the password."""
        if len(password) < self.min_length:
            return f"The password must be at least {self.min_length} characters long."
        if self.uppercase and not any(one.isupper() for one in password):
            return "The password must contain at least one uppercase letter."
        if self.lowercase and not any(one.islower() for one in password):
            return "The password must contain at least one lowercase letter."
        if self.digits and not any(one.isdigit() for one in password):
            return "The password must contain at least one digit."
        if self.special and not any(one in SPECIAL_CHARACTERS for one in password):
            return f"The password must contain at least one of these characters: {SPECIAL_CHARACTERS}"
        return None


def check_user_name(user: str) -> None:
    """Refuse a name that the protocol cannot carry.

    :raises UserError: empty, longer than 128 bytes of UTF-8, or with control characters.
    """
    if not user:
        raise UserError("a user name must not be empty")
    try:
        length = len(user.encode())
    except UnicodeEncodeError:
        raise UserError("a user name must be valid UTF-8") from None
    if length > MAX_USER_BYTES:
        raise UserError(f"a user name has at most {MAX_USER_BYTES} bytes of UTF-8, this one has {length}")
    if has_control(user):
        raise UserError("a user name must not contain control characters")


def check_password_text(password: str) -> None:
    """Refuse a password that the protocol cannot carry.

    :raises UserError: longer than 1024 bytes of UTF-8, or with control characters. RFC 7617 and SASLprep
        forbid those: NUL ends the password in SASL PLAIN, and HMAC ignores it at the end of a key.
    """
    try:
        length = len(password.encode())
    except UnicodeEncodeError:
        raise UserError("a password must be valid UTF-8") from None
    if length > MAX_PASSWORD_BYTES:
        raise UserError(f"a password has at most {MAX_PASSWORD_BYTES} bytes of UTF-8, this one has {length}")
    if has_control(password):
        raise UserError("a password must not contain control characters (such as NUL, tab or line end)")


def derive_all(password: str, salt: bytes, iterations: int) -> dict[str, ScramCredential]:
    """Return the keys for every mechanism; takes milliseconds, so call it in a thread."""
    return {
        mechanism: derive_scram_credential(mechanism, password, salt, iterations)
        for mechanism in SCRAM_MECHANISMS
    }


def matches(password: str, salt: bytes, iterations: int, stored_key: bytes) -> bool:
    """Return whether a password matches this key; takes milliseconds, so call it in a thread."""
    try:
        check_password_text(password)
    except UserError:
        return False
    derived = derive_scram_credential(CHECKED_WITH, password, salt, iterations)
    return hmac.compare_digest(derived.stored_key, stored_key)


def dump_keys(credentials: dict[str, ScramCredential]) -> dict[str, Any]:
    """Return keys as JSON-ready data; :func:`load_keys` takes them back."""
    return {
        mechanism: {
            "salt": to_text(keys.salt),
            "iterations": keys.iterations,
            "storedKey": to_text(keys.stored_key),
            "serverKey": to_text(keys.server_key),
        }
        for mechanism, keys in credentials.items()
    }


def load_keys(data: dict[str, Any]) -> dict[str, ScramCredential]:
    """Return the keys from :func:`dump_keys`.

    :raises ValueError, KeyError, TypeError, AttributeError: the data has another form.
    """
    return {
        mechanism: ScramCredential(
            b64decode(keys["salt"]),
            int(keys["iterations"]),
            b64decode(keys["storedKey"]),
            b64decode(keys["serverKey"]),
        )
        for mechanism, keys in data.items()
    }


def to_text(data: bytes) -> str:
    """Return bytes in base64."""
    return b64encode(data).decode("ascii")
