"""Who may log in to the node: administrators and bucket users.

Passwords are never stored. Memory and disk hold the SCRAM keys derived from them (RFC 5802: they check a
password and cannot be turned back into it). The derivation takes milliseconds by design, so it runs in
threads, except in :meth:`UserStore.check_password`.

An unknown user is answered like a known one with a wrong password: with the same work, salt length and
iteration count, and a salt that stays the same across attempts and restarts.

A cluster is open or closed. It is open if it has never had an administrator, or by configuration. A closed
one admits nobody without a password: a user with an empty password counts as missing.

Before the first administrator there is nothing to hide: an unknown name may log in with an empty password,
and may use only what is open. So a client that names a missing bucket, and with it that bucket's own user,
learns that the bucket is missing, not that its password is wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Collection, Generator, Iterable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredSemaphore, inlineCallbacks
from twisted.internet.threads import deferToThread

from couchbase.protocol.sasl import (
    MECHANISMS,
    MIN_ITERATIONS,
    ScramCredential,
    derive_scram_credential,
    has_control,
)

MAX_USER_BYTES = 128
"""Longest user name, in bytes of UTF-8, that the protocol carries."""

MAX_PASSWORD_BYTES = 1024
"""Longest password in bytes: long ones would cost too much processor time."""

ALL_BUCKETS = "*"
"""Replaces a bucket's name: any bucket."""

SALT_BYTES = 32

SCRAM_MECHANISMS = tuple(name for name in MECHANISMS if name != "PLAIN")

_CHECKED_WITH = SCRAM_MECHANISMS[0]
_CONCURRENT_CHECKS = 2


class UserError(ValueError):
    """A user name or password that cannot be accepted; the text says why."""


class User(NamedTuple):
    """One stored user.

    :ivar buckets: names of the buckets that a user other than an administrator may use.
    :ivar credentials: SCRAM mechanism -> keys. All share one salt: the salt shown for a missing user is one
        per user too, and a difference would reveal which users exist.
    :ivar has_password: false if the password is empty.
    """

    admin: bool
    buckets: frozenset[str]
    credentials: dict[str, ScramCredential]
    has_password: bool = True

    def __repr__(self) -> str:
        # The keys allow to check guesses of the password, and one of them authenticates a server.
        return f"<User admin={self.admin} buckets={sorted(self.buckets)}>"


class UserStore:
    """All users of a cluster.

    :param iterations: PBKDF2 rounds of new keys. The default is what ``ScramServer`` shows for an unknown
        user; another value would reveal which names exist.
    :param open_buckets: be open to clients without a password even with an administrator.
    """

    def __init__(self, *, iterations: int = MIN_ITERATIONS, open_buckets: bool = False) -> None:
        self._iterations = iterations
        self._open_buckets = open_buckets
        self._had_administrator = False
        self._users: dict[str, User] = {}
        self._decoy_key = secrets.token_bytes(32)
        # A password once checked is recognised by a keyed hash, so that HTTP Basic, which repeats it with
        # every request, costs microseconds. The key is lost with the process; at most one entry per user.
        self._recognised: dict[str, bytes] = {}
        self._recognition_key = secrets.token_bytes(32)
        self._strangers: dict[str, ScramCredential] = {}
        self._checks = DeferredSemaphore(_CONCURRENT_CHECKS)

    @property
    def are_open(self) -> bool:
        """Whether clients without a password may use buckets that have none.

        They may not any more once there has been an administrator, unless ``open_buckets`` says so; removing
        the last administrator opens nothing.
        """
        return self._open_buckets or not self._had_administrator

    @property
    def hide_nothing(self) -> bool:
        """Whether anyone may learn which buckets and users exist: until there has been an administrator."""
        return not self._had_administrator

    def is_stranger(self, user: str) -> bool:
        """Return whether ``user`` is an unknown name that may log in with an empty password."""
        return user not in self._users and self.hide_nothing

    def add(
        self, user: str, password: str, *, admin: bool = False, buckets: Iterable[str] = ()
    ) -> Deferred[None]:
        """Create a user, or replace the one of that name; keys are derived in a thread.

        :param user: 1 to 128 bytes of UTF-8 without control characters.
        :param password: at most 1024 bytes of UTF-8 without control characters; may be empty, except an
            administrator's.
        :param buckets: buckets that a user other than an administrator may use; :data:`ALL_BUCKETS` for any.
        :returns: fires with ``None`` once the user can log in. Fails with :class:`UserError`, before any
            work, if a rule above is broken.
        """
        return self._add(user, password, admin, frozenset(buckets))

    @inlineCallbacks
    def _add(
        self, user: str, password: str, admin: bool, buckets: frozenset[str]
    ) -> Generator[Deferred[Any], Any, None]:
        check_user_name(user)
        check_password_text(password)
        if admin and not password:
            raise UserError(f"the administrator {user!r} needs a password that is not empty")
        credentials = yield deferToThread(
            _derive_all, password, secrets.token_bytes(SALT_BYTES), self._iterations
        )
        self._users[user] = User(admin, buckets, credentials, bool(password))
        self._had_administrator = self._had_administrator or admin
        self._recognised[user] = self._fingerprint(user, password)

    def remove(self, user: str) -> User | None:
        """Remove ``user`` and return the argument for :meth:`put_back`; ``None`` if there is no such user."""
        self._recognised.pop(user, None)
        return self._users.pop(user, None)

    def put_back(self, user: str, record: User) -> None:
        """Undo :meth:`remove`."""
        self._users[user] = record

    def _admitted(self, user: str | None) -> User | None:
        """Return the record of a user who may log in; in a closed cluster one without a password may not."""
        record = self._users.get(user) if user is not None else None
        return record if record is None or record.has_password or self.are_open else None

    def __contains__(self, user: object) -> bool:
        return user in self._users

    def __iter__(self) -> Generator[str, None, None]:
        yield from self._users

    def is_admin(self, user: str | None) -> bool:
        """Return whether ``user`` may administer the cluster; ``None`` (no credentials) may not."""
        record = self._admitted(user)
        return record is not None and record.admin

    def may_use(self, user: str | None, bucket: str) -> bool:
        """Return whether ``user`` may use ``bucket``; the bucket need not exist."""
        record = self._admitted(user)
        return record is not None and (
            record.admin or bucket in record.buckets or ALL_BUCKETS in record.buckets
        )

    def scram_credential(self, mechanism: str, user: str) -> ScramCredential | None:
        """Return the keys of ``user`` for one SCRAM mechanism, ``None`` if there is no such user.

        SCRAM cannot tell a password from the same one with zero bytes behind it: its HMAC pads keys with
        zeros. So clients have to refuse those (:mod:`couchbase.protocol.sasl` does); where the password
        itself arrives, :meth:`verify` does.
        """
        if self.is_stranger(user):
            return self._stranger(mechanism)
        record = self._admitted(user)
        return None if record is None else record.credentials.get(mechanism)

    def _stranger(self, mechanism: str) -> ScramCredential:
        """Return the keys of an empty password; derived once, in milliseconds."""
        keys = self._strangers.get(mechanism)
        if keys is None:
            salt = self.decoy_salt("")
            keys = self._strangers[mechanism] = derive_scram_credential(mechanism, "", salt, self._iterations)
        return keys

    def decoy_salt(self, user: str) -> bytes:
        """Return the salt to show for a user who does not exist: always the same for the same name."""
        return hmac.digest(self._decoy_key, user.encode("utf-8", "surrogatepass"), "sha512")[:SALT_BYTES]

    def check_password(self, user: str, password: str) -> bool:
        """Return at once whether the password is right.

        Takes microseconds for a password checked before, else the milliseconds of a key derivation, on this
        thread: prefer :meth:`verify` with a reactor.
        """
        if self.is_stranger(user) and not password:
            return True
        if self._recognises(user, password):
            return True
        record = self._admitted(user)
        matches = _matches(password, *self._reference(user, record))
        return self._conclude(user, password, record, matches)

    @inlineCallbacks
    def verify(self, user: str, password: str) -> Generator[Deferred[Any], Any, bool]:
        """Return whether the password is right, without blocking the reactor.

        :returns: fires with the answer. Safe to cancel. At most two derivations run at once, so that a flood
            of wrong passwords leaves threads for the rest of the process.
        """
        if self.is_stranger(user) and not password:
            return True
        if self._recognises(user, password):
            return True
        record = self._admitted(user)
        salt, iterations, stored_key = self._reference(user, record)
        matches = yield self._checks.run(deferToThread, _matches, password, salt, iterations, stored_key)
        return self._conclude(user, password, record, matches)

    def dump(self) -> dict[str, Any]:
        """Return all users as JSON-ready data without any password; :meth:`load` takes it back."""
        return {
            "decoyKey": _to_text(self._decoy_key),
            "users": {
                name: {
                    "admin": user.admin,
                    "buckets": sorted(user.buckets),
                    "credentials": {
                        mechanism: {
                            "salt": _to_text(keys.salt),
                            "iterations": keys.iterations,
                            "storedKey": _to_text(keys.stored_key),
                            "serverKey": _to_text(keys.server_key),
                        }
                        for mechanism, keys in user.credentials.items()
                    },
                }
                for name, user in self._users.items()
            },
        }

    def load(self, dumped: dict[str, Any], without_password: Collection[str] = ()) -> None:
        """Replace all users by those from :meth:`dump`.

        :param without_password: names of those whose password is empty.
        :raises ValueError, KeyError, TypeError: the data has another form; nothing was changed.
        """
        users = {}
        for name, data in dumped["users"].items():
            credentials = {
                mechanism: ScramCredential(
                    b64decode(keys["salt"]),
                    int(keys["iterations"]),
                    b64decode(keys["storedKey"]),
                    b64decode(keys["serverKey"]),
                )
                for mechanism, keys in data["credentials"].items()
            }
            users[name] = User(
                bool(data["admin"]), frozenset(data["buckets"]), credentials, name not in without_password
            )
        self._decoy_key = b64decode(dumped["decoyKey"])
        self._users = users
        self._had_administrator = any(user.admin for user in users.values())
        self._recognised.clear()

    def _fingerprint(self, user: str, password: str) -> bytes:
        text = f"{user}\0{password}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._recognition_key).digest()

    def _recognises(self, user: str, password: str) -> bool:
        fingerprint = self._fingerprint(user, password)
        return (
            hmac.compare_digest(self._recognised.get(user, b""), fingerprint)
            and self._admitted(user) is not None
        )

    def _reference(self, user: str, record: User | None) -> tuple[bytes, int, bytes]:
        """Salt, rounds and stored key to compare with; those of a stranger match no password."""
        if record is None:
            return self.decoy_salt(user), self._iterations, b""
        keys = record.credentials[_CHECKED_WITH]
        return keys.salt, keys.iterations, keys.stored_key

    def _conclude(self, user: str, password: str, record: User | None, matches: bool) -> bool:
        # The user may have been removed, or given another password, while the thread worked.
        if not matches or record is None or self._admitted(user) is not record:
            return False
        self._recognised[user] = self._fingerprint(user, password)
        return True


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
        forbid those: NUL ends the password in SASL PLAIN, and at the end of a key HMAC cannot tell it.
    """
    try:
        length = len(password.encode())
    except UnicodeEncodeError:
        raise UserError("a password must be valid UTF-8") from None
    if length > MAX_PASSWORD_BYTES:
        raise UserError(f"a password has at most {MAX_PASSWORD_BYTES} bytes of UTF-8, this one has {length}")
    if has_control(password):
        raise UserError("a password must not contain control characters (such as NUL, tab or line end)")


def _derive_all(password: str, salt: bytes, iterations: int) -> dict[str, ScramCredential]:
    return {
        mechanism: derive_scram_credential(mechanism, password, salt, iterations)
        for mechanism in SCRAM_MECHANISMS
    }


def _matches(password: str, salt: bytes, iterations: int, stored_key: bytes) -> bool:
    try:
        check_password_text(password)
    except UserError:
        return False
    derived = derive_scram_credential(_CHECKED_WITH, password, salt, iterations)
    return hmac.compare_digest(derived.stored_key, stored_key)


def _to_text(data: bytes) -> str:
    return b64encode(data).decode("ascii")
