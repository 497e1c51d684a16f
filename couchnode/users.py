"""Who may log in to the node: administrators and bucket users.

A password is never kept. What is kept, in memory and on disk, are the SCRAM keys derived from it (RFC 5802:
they check a password and cannot be turned back into it). Deriving costs milliseconds by design, so it happens
in threads, except in :meth:`UserStore.check_password`.

An unknown user is answered as a known one with a wrong password is: same work, same salt length and iteration
count, and a salt that stays the same from one attempt and one restart to the next.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredSemaphore, inlineCallbacks
from twisted.internet.threads import deferToThread

from couchbase.protocol.sasl import MECHANISMS, MIN_ITERATIONS, ScramCredential, derive_scram_credential

MAX_USER_BYTES = 128
"""Longest user name, in bytes of UTF-8, that the protocol carries."""

MAX_PASSWORD_BYTES = 1024
"""Longest password: nobody buys processor time with a megabyte of it."""

ALL_BUCKETS = "*"
"""In place of a bucket's name: any bucket."""

SALT_BYTES = 32

SCRAM_MECHANISMS = tuple(name for name in MECHANISMS if name != "PLAIN")

_CHECKED_WITH = SCRAM_MECHANISMS[0]
_CONCURRENT_CHECKS = 2


class UserError(ValueError):
    """A user name or password that cannot be accepted; the text says why."""


class User(NamedTuple):
    """One user as the store keeps it.

    :ivar buckets: names of the buckets that a user who is no administrator may use.
    :ivar credentials: SCRAM mechanism -> keys. All share one salt: the salt shown for a user who does not
        exist is one a user too, and two rules would tell them apart.
    """

    admin: bool
    buckets: frozenset[str]
    credentials: dict[str, ScramCredential]


class UserStore:
    """All users of a cluster.

    :param iterations: PBKDF2 rounds of new keys. The default is what ``ScramServer`` shows for an unknown
        user; another value would tell which names exist.
    """

    def __init__(self, *, iterations: int = MIN_ITERATIONS) -> None:
        self._iterations = iterations
        self._users: dict[str, User] = {}
        self._decoy_key = secrets.token_bytes(32)
        # A password once checked is recognised by a keyed hash, so that HTTP Basic, which repeats it with
        # every request, costs microseconds. The key dies with the process; one entry a user at most.
        self._recognised: dict[str, bytes] = {}
        self._recognition_key = secrets.token_bytes(32)
        self._checks = DeferredSemaphore(_CONCURRENT_CHECKS)

    def add(
        self, user: str, password: str, *, admin: bool = False, buckets: Iterable[str] = ()
    ) -> Deferred[None]:
        """Create a user, or replace the one of that name; keys are derived in a thread.

        :param user: 1 to 128 bytes of UTF-8 without control characters.
        :param password: at most 1024 bytes of UTF-8 without NUL; may be empty, except an administrator's.
        :param buckets: what a user who is no administrator may use; :data:`ALL_BUCKETS` for any.
        :return: fires with ``None`` once the user can log in. Fails with :class:`UserError`, before any work,
            if a rule above is broken.
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
        self._users[user] = User(admin, buckets, credentials)
        self._recognised[user] = self._fingerprint(user, password)

    def remove(self, user: str) -> User | None:
        """Forget ``user`` and return what :meth:`put_back` takes; ``None`` if there is no such user."""
        self._recognised.pop(user, None)
        return self._users.pop(user, None)

    def put_back(self, user: str, record: User) -> None:
        """Undo :meth:`remove`."""
        self._users[user] = record

    def __contains__(self, user: object) -> bool:
        return user in self._users

    def __iter__(self) -> Generator[str, None, None]:
        yield from self._users

    def is_admin(self, user: str | None) -> bool:
        """Tell whether ``user`` may administer the cluster; nobody (``None``) may not."""
        record = self._users.get(user) if user is not None else None
        return record is not None and record.admin

    def may_use(self, user: str | None, bucket: str) -> bool:
        """Tell whether ``user`` may use ``bucket``; whether that bucket exists is another question."""
        record = self._users.get(user) if user is not None else None
        return record is not None and (
            record.admin or bucket in record.buckets or ALL_BUCKETS in record.buckets
        )

    def scram_credential(self, mechanism: str, user: str) -> ScramCredential | None:
        """Return the keys of ``user`` for one SCRAM mechanism, ``None`` if there is no such user."""
        record = self._users.get(user)
        return None if record is None else record.credentials.get(mechanism)

    def decoy_salt(self, user: str) -> bytes:
        """Return the salt to show for a user who does not exist: always the same for the same name."""
        return hmac.digest(self._decoy_key, user.encode("utf-8", "surrogatepass"), "sha512")[:SALT_BYTES]

    def check_password(self, user: str, password: str) -> bool:
        """Tell at once whether the password is right.

        Takes microseconds for a password seen before, else the milliseconds of one key derivation, on this
        thread: prefer :meth:`verify` on a reactor.
        """
        if self._recognises(user, password):
            return True
        record = self._users.get(user)
        matches = _matches(password, *self._reference(user, record))
        return self._conclude(user, password, record, matches)

    @inlineCallbacks
    def verify(self, user: str, password: str) -> Generator[Deferred[Any], Any, bool]:
        """Tell whether the password is right, without holding up the reactor.

        :return: fires with the answer. Safe to cancel. At most two derivations run at once, so that a flood
            of wrong passwords leaves threads for the rest of the process.
        """
        if self._recognises(user, password):
            return True
        record = self._users.get(user)
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

    def load(self, dumped: dict[str, Any]) -> None:
        """Replace all users by what :meth:`dump` returned once.

        :raises ValueError, KeyError, TypeError: the data is of another shape; nothing was changed.
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
            users[name] = User(bool(data["admin"]), frozenset(data["buckets"]), credentials)
        self._decoy_key = b64decode(dumped["decoyKey"])
        self._users = users
        self._recognised.clear()

    def _fingerprint(self, user: str, password: str) -> bytes:
        text = f"{user}\0{password}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._recognition_key).digest()

    def _recognises(self, user: str, password: str) -> bool:
        fingerprint = self._fingerprint(user, password)
        return hmac.compare_digest(self._recognised.get(user, b""), fingerprint)

    def _reference(self, user: str, record: User | None) -> tuple[bytes, int, bytes]:
        """Salt, rounds and stored key to compare with; those of a stranger match no password."""
        if record is None:
            return self.decoy_salt(user), self._iterations, b""
        keys = record.credentials[_CHECKED_WITH]
        return keys.salt, keys.iterations, keys.stored_key

    def _conclude(self, user: str, password: str, record: User | None, matches: bool) -> bool:
        # The user may have been removed, or given another password, while a thread was at work.
        if not matches or record is None or self._users.get(user) is not record:
            return False
        self._recognised[user] = self._fingerprint(user, password)
        return True


def check_user_name(user: str) -> None:
    """Refuse a name that the protocol could not carry.

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
    if any(ord(character) < 32 or ord(character) == 127 for character in user):
        raise UserError("a user name must not contain control characters")


def check_password_text(password: str) -> None:
    """Refuse a password that the protocol could not carry.

    :raises UserError: longer than 1024 bytes of UTF-8, or with a NUL.
    """
    try:
        length = len(password.encode())
    except UnicodeEncodeError:
        raise UserError("a password must be valid UTF-8") from None
    if length > MAX_PASSWORD_BYTES:
        raise UserError(f"a password has at most {MAX_PASSWORD_BYTES} bytes of UTF-8, this one has {length}")
    if "\0" in password:
        # NUL ends the password in SASL PLAIN.
        raise UserError("a password must not contain NUL")


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
