"""The users who may log in to the node, and their rights: administrators, users and groups.

Passwords are never stored. Memory and disk hold the SCRAM keys derived from them (RFC 5802: they check a
password and cannot be turned back into it). The derivation takes milliseconds by design, so it runs in
threads, except in :meth:`UserStore.check_password`.

A login of an unknown user is answered like one with a wrong password: with the same work, salt length and
iteration count, and a salt that stays the same across attempts and restarts.

A cluster is open or closed. It is open if it has never had an administrator, or by configuration. A closed
cluster admits nobody without a password: a user with an empty password counts as missing.

Before the first administrator there is nothing to hide: an unknown name may log in with an empty password,
and may use only what is open. So a client that names a missing bucket, and with it that bucket's own user,
learns that the bucket is missing, not that its password is wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode
from collections.abc import Callable, Collection, Generator, Iterable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredSemaphore, inlineCallbacks
from twisted.internet.threads import deferToThread

from couchbase.protocol.sasl import MIN_ITERATIONS, ScramCredential, derive_scram_credential
from couchnode.access.rights import ALL_RIGHTS, NO_RIGHTS, Rights
from couchnode.cluster import passwords
from couchnode.cluster.accounts import (
    Account,
    Group,
    User,
    bucket_roles,
    load_account,
    load_group,
    load_user,
)
from couchnode.cluster.passwords import (
    CHECKED_WITH,
    PasswordPolicy,
    UserError,
    check_password_text,
    check_user_name,
)

SALT_BYTES = 32

_CONCURRENT_CHECKS = 2


class Snapshot(NamedTuple):
    """Users, groups and policy at one moment."""

    users: dict[str, User]
    external: dict[str, Account]
    groups: dict[str, Group]
    policy: PasswordPolicy


class UserStore:
    """All users of a cluster.

    :param iterations: PBKDF2 rounds of new keys. The default is what ``ScramServer`` shows for an unknown
        user; another value would reveal which names exist.
    :param open_buckets: be open to clients without a password even with an administrator.
    :ivar groups: name -> group.
    :ivar external: name -> user of an external service, which would check the password. There is no such
        service here, so these users never log in; clients store and read them.
    :ivar policy: the rules for passwords that are set over REST; the cluster's own options are exempt.
    :ivar version: grows with every change of a user or group.
    :ivar on_change: called after every change of a user or group.
    """

    def __init__(self, *, iterations: int = MIN_ITERATIONS, open_buckets: bool = False) -> None:
        self._iterations = iterations
        self._open_buckets = open_buckets
        self._had_administrator = False
        self._users: dict[str, User] = {}
        self.groups: dict[str, Group] = {}
        self.external: dict[str, Account] = {}
        self.policy = PasswordPolicy()
        self.version = 0
        self.on_change: list[Callable[[], None]] = []
        self._rights: dict[tuple[str | None, str | None], Rights] = {}
        self._decoy_key = secrets.token_bytes(32)
        # A keyed hash recognises a password that was checked before, so HTTP Basic, which repeats it with
        # every request, costs microseconds. The key is lost with the process; at most one entry per user.
        self._recognised: dict[str, bytes] = {}
        self._recognition_key = secrets.token_bytes(32)
        self._strangers: dict[str, ScramCredential] = {}
        self._checks = DeferredSemaphore(_CONCURRENT_CHECKS)

    @property
    def are_open(self) -> bool:
        """Whether clients without a password may use buckets that have none.

        The first administrator ends this, unless ``open_buckets`` is set; removing the last administrator
        does not restore it.
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
        credentials = yield self.derive(password)
        account, known = Account(bucket_roles(buckets), uuid=secrets.token_hex(16)), self._users.get(user)
        if known is not None and set(account.roles) <= set(known.account.roles):
            # Only the password changes: the user keeps properties set over REST.
            account = known.account
        self.put(user, User(admin, account, credentials, bool(password)))
        self._recognised[user] = self._fingerprint(user, password)

    def derive(self, password: str) -> Deferred[dict[str, ScramCredential]]:
        """Derive the keys of a password in a thread, for :meth:`put`.

        :raises UserError: the protocol does not allow the password.
        """
        check_password_text(password)
        salt = secrets.token_bytes(SALT_BYTES)
        return deferToThread(passwords.derive_all, password, salt, self._iterations)

    def put(self, user: str, record: User) -> None:
        """Store a user, replacing the one with that name."""
        known = self._users.get(user)
        if known is None or known.credentials != record.credentials:
            self._recognised.pop(user, None)
        self._users[user] = record
        self._had_administrator = self._had_administrator or record.admin
        self.changed()

    def get(self, user: str) -> User | None:
        """Return the record of a user, ``None`` if there is none."""
        return self._users.get(user)

    def remove(self, user: str) -> User | None:
        """Remove ``user`` and return the record; ``None`` if there is no such user."""
        self._recognised.pop(user, None)
        record = self._users.pop(user, None)
        self.changed()
        return record

    def snapshot(self) -> Snapshot:
        """Return users and groups as they are, for :meth:`restore`."""
        return Snapshot(dict(self._users), dict(self.external), dict(self.groups), self.policy)

    def restore(self, snapshot: Snapshot) -> None:
        """Undo all changes since the snapshot."""
        self._users, self.external, self.groups, self.policy = snapshot
        self._recognised.clear()
        self.changed()

    def changed(self) -> None:
        """Apply a change of users or groups: compute the rights again, and call the listeners."""
        self.version += 1
        self._rights.clear()
        for listener in list(self.on_change):
            listener()

    def remove_group(self, name: str) -> None:
        """Remove a group, also from its users."""

        def kept(account: Account) -> Account:
            return account._replace(groups=tuple(one for one in account.groups if one != name))

        del self.groups[name]
        self.external = {user: kept(account) for user, account in self.external.items()}
        self._users = {
            user: record._replace(account=kept(record.account)) for user, record in self._users.items()
        }

    def forget_bucket(self, bucket: str, *, with_user: bool) -> None:
        """Forget a deleted bucket, as :meth:`forget` does.

        :param with_user: also remove the bucket's own user, unless it has got other roles or groups since.
        """
        record = self._users.get(bucket) if with_user else None
        if (
            record is not None
            and record.account.roles == bucket_roles([bucket])
            and not record.account.groups
        ):
            self._recognised.pop(bucket, None)
            del self._users[bucket]
        self.forget(bucket)

    def forget(self, bucket: str, scope: str | None = None, collection: str | None = None) -> None:
        """Remove all roles for a dropped bucket, scope or collection, so that nobody has rights on a new one
        with the same name."""

        def kept(part: Any) -> Any:
            roles = tuple(role for role in part.roles if not role.is_within(bucket, scope, collection))
            return part if len(roles) == len(part.roles) else part._replace(roles=roles)

        self.groups = {name: kept(group) for name, group in self.groups.items()}
        self.external = {name: kept(account) for name, account in self.external.items()}
        self._users = {
            name: record._replace(account=kept(record.account)) for name, record in self._users.items()
        }
        self.changed()

    def _admitted(self, user: str | None) -> User | None:
        """Return the record of a user who may log in. Locked users may not, nor users with an empty password
        in a closed cluster."""
        record = self._users.get(user) if user is not None else None
        if record is None or record.account.is_locked:
            return None
        return record if record.has_password or self.are_open else None

    def __contains__(self, user: object) -> bool:
        return user in self._users

    def __iter__(self) -> Generator[str, None, None]:
        yield from self._users

    def rights(self, user: str | None, open_bucket: str | None = None) -> Rights:
        """Return the rights of ``user``; ``None`` (no credentials) and unknown users have none.

        :param open_bucket: a bucket that everyone may use.
        """
        record = self._admitted(user)
        if record is None and open_bucket is None:
            return NO_RIGHTS
        if record is not None and record.admin:
            return ALL_RIGHTS
        # Users who cannot log in are all alike.
        key = (None if record is None else user, open_bucket)
        known = self._rights.get(key)
        if known is None:
            roles = () if record is None else self.rights_of(record.account).roles
            extra = () if open_bucket is None else bucket_roles([open_bucket])
            known = self._rights[key] = Rights([*roles, *extra])
        return known

    def rights_of(self, account: Account) -> Rights:
        """Return the rights of a user with this account, from its own roles and those of its groups."""
        groups = [self.groups[name] for name in account.groups if name in self.groups]
        return Rights([*account.roles, *[role for group in groups for role in group.roles]])

    def is_administrator(self, user: str) -> bool:
        """Return whether ``user`` is an administrator by configuration, not by a role."""
        record = self._users.get(user)
        return record is not None and record.admin

    def is_admin(self, user: str | None) -> bool:
        """Return whether ``user`` may do everything; ``None`` (no credentials) may not."""
        return self.rights(user).has_all

    def may_use(self, user: str | None, bucket: str) -> bool:
        """Return whether ``user`` has any right on ``bucket`` or a part of it; the bucket need not exist."""
        return bool(self.rights(user).on_bucket(bucket))

    def scram_credential(self, mechanism: str, user: str) -> ScramCredential | None:
        """Return the keys of ``user`` for one SCRAM mechanism, ``None`` if there is no such user.

        SCRAM cannot distinguish a password from the same one followed by zero bytes: its HMAC pads keys with
        zeros. So clients have to refuse such passwords (:mod:`couchbase.protocol.sasl` does);
        :meth:`verify` refuses them in passwords sent in plain text.
        """
        if self.is_stranger(user):
            return self._stranger(mechanism)
        record = self._admitted(user)
        return None if record is None else record.credentials.get(mechanism)

    def _stranger(self, mechanism: str) -> ScramCredential:
        """Return the keys of an empty password; derived once, which takes milliseconds."""
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

        Takes microseconds for a password checked before, else the milliseconds of a key derivation in this
        thread; with a reactor, prefer :meth:`verify`.
        """
        if self.is_stranger(user) and not password:
            return True
        if self._recognises(user, password):
            return True
        record = self._admitted(user)
        matches = passwords.matches(password, *self._reference(user, record))
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
        matches = yield self._checks.run(
            deferToThread, passwords.matches, password, salt, iterations, stored_key
        )
        return self._conclude(user, password, record, matches)

    def dump(self) -> dict[str, Any]:
        """Return everything as JSON-ready data without any password; :meth:`load` takes it back."""
        return {
            "decoyKey": passwords.to_text(self._decoy_key),
            "users": {name: user.dump() for name, user in self._users.items()},
            "external": {name: account.dump() for name, account in self.external.items()},
            "groups": {name: group.dump() for name, group in self.groups.items()},
            "policy": list(self.policy),
        }

    def load(self, dumped: dict[str, Any], without_password: Collection[str] = ()) -> None:
        """Replace everything by the data from :meth:`dump`.

        :param without_password: names of those whose password is empty, where older data does not say so.
        :raises ValueError, KeyError, TypeError, AttributeError: the data has another form; nothing was
            changed.
        """
        users = {name: load_user(data, name in without_password) for name, data in dumped["users"].items()}
        external = {name: load_account(data) for name, data in dumped.get("external", {}).items()}
        groups = {name: load_group(data) for name, data in dumped.get("groups", {}).items()}
        policy = PasswordPolicy(*dumped.get("policy", ()))
        self._decoy_key = b64decode(dumped["decoyKey"])
        self._users, self.external, self.groups, self.policy = users, external, groups, policy
        self._had_administrator = any(user.admin for user in users.values())
        self._recognised.clear()
        self.changed()

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
        """Salt, rounds and stored key to compare with; those of an unknown user match no password."""
        if record is None:
            return self.decoy_salt(user), self._iterations, b""
        keys = record.credentials[CHECKED_WITH]
        return keys.salt, keys.iterations, keys.stored_key

    def _conclude(self, user: str, password: str, record: User | None, matches: bool) -> bool:
        # The user may have been removed, or given another password, while the thread worked.
        if not matches or record is None or self._admitted(user) is not record:
            return False
        self._recognised[user] = self._fingerprint(user, password)
        return True
