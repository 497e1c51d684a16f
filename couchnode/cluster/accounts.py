"""Users and groups apart from passwords: names, roles and dates, and their stored form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from couchbase.protocol.sasl import ScramCredential
from couchnode.access.roles import Role, RoleError, stored_role
from couchnode.cluster.passwords import dump_keys, load_keys

ALL_BUCKETS = "*"
"""Stands for any bucket, in place of a bucket's name."""


class Account(NamedTuple):
    """The properties of a user, without credentials.

    :ivar roles: the user's own roles, without those of groups.
    :ivar groups: names of groups, in the order in which they were given.
    :ivar name: the user's display name; may be empty.
    :ivar uuid: 32 hexadecimal digits; changes if the user is deleted and created again.
    :ivar password_changed: Unix time in seconds; 0 if unknown.
    :ivar is_locked: a locked user cannot log in, and has no rights.
    """

    roles: tuple[Role, ...] = ()
    groups: tuple[str, ...] = ()
    name: str = ""
    uuid: str = ""
    password_changed: int = 0
    is_locked: bool = False

    def dump(self) -> dict[str, Any]:
        """Return JSON-ready data; :func:`load_account` takes it back."""
        return {
            "roles": [role.text for role in self.roles],
            "groups": list(self.groups),
            "name": self.name,
            "uuid": self.uuid,
            "passwordChanged": self.password_changed,
            "locked": self.is_locked,
        }


def load_account(data: dict[str, Any]) -> Account:
    """Return the account from :meth:`Account.dump`.

    :raises ValueError, KeyError, TypeError, AttributeError: the data has another form.
    """
    return Account(
        _roles(data["roles"]),
        tuple(map(str, data["groups"])),
        str(data["name"]),
        str(data["uuid"]),
        int(data["passwordChanged"]),
        bool(data["locked"]),
    )


class Group(NamedTuple):
    """A group: roles for all of its users.

    :ivar ldap_group_ref: the group's name in a directory service, stored for clients; has no effect.
    """

    roles: tuple[Role, ...] = ()
    description: str = ""
    ldap_group_ref: str = ""

    def dump(self) -> dict[str, Any]:
        """Return JSON-ready data; :func:`load_group` takes it back."""
        return {
            "roles": [role.text for role in self.roles],
            "description": self.description,
            "ldapGroupRef": self.ldap_group_ref,
        }


def load_group(data: dict[str, Any]) -> Group:
    """Return the group from :meth:`Group.dump`.

    :raises ValueError, KeyError, TypeError, AttributeError: the data has another form.
    """
    return Group(_roles(data["roles"]), str(data["description"]), str(data["ldapGroupRef"]))


class User(NamedTuple):
    """One stored user.

    :ivar admin: whether the configuration makes the user an administrator, who may do everything.
    :ivar credentials: SCRAM mechanism -> keys. All share one salt: a missing user is shown one salt for all
        mechanisms too, and a difference would reveal which users exist.
    :ivar has_password: false if the password is empty.
    """

    admin: bool
    account: Account
    credentials: dict[str, ScramCredential]
    has_password: bool = True

    def __repr__(self) -> str:
        # Without the keys: they allow offline guesses of the password, and one authenticates a server.
        return f"<User admin={self.admin} roles={[role.text for role in self.account.roles]}>"

    def dump(self) -> dict[str, Any]:
        """Return JSON-ready data without a password; :func:`load_user` takes it back."""
        return {
            "admin": self.admin,
            "hasPassword": self.has_password,
            "credentials": dump_keys(self.credentials),
            **self.account.dump(),
        }


def load_user(data: dict[str, Any], is_open: bool) -> User:
    """Return the user from :meth:`User.dump`.

    :param is_open: whether the user has an empty password, for older files without that member.
    :raises ValueError, KeyError, TypeError, AttributeError: the data has another form.
    """
    # Files of versions without roles have the buckets that a user may use.
    account = Account(bucket_roles(data["buckets"])) if "buckets" in data else load_account(data)
    return User(
        bool(data["admin"]),
        account,
        load_keys(data["credentials"]),
        bool(data.get("hasPassword", not is_open)),
    )


def bucket_roles(buckets: Iterable[str]) -> tuple[Role, ...]:
    """Return the roles that allow the use of these buckets; :data:`ALL_BUCKETS` for any bucket."""
    return tuple(Role("bucket_full_access", (name,)) for name in sorted(buckets))


def _roles(texts: Iterable[str]) -> tuple[Role, ...]:
    found = []
    for text in texts:
        try:
            found.append(stored_role(text))
        except RoleError:
            # A role of a later version. Without it the user has fewer rights, never more.
            continue
    return tuple(found)
