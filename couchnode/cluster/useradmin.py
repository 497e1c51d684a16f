"""Management of users and groups: changes that the REST interface requests, checked and written to disk.

A change is made in memory and on disk, or not at all. Changes of users and buckets run one after another.
Error texts are those of Couchbase Server, because clients recognise them (management-rest reference,
section 5.1).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from secrets import token_hex
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime

from couchnode.access.roles import Role, RoleError, parse_roles
from couchnode.cluster.accounts import Account, Group, User
from couchnode.cluster.passwords import PasswordPolicy, UserError, check_password_text
from couchnode.cluster.users import UserStore
from reactor.clock import unix_time_of

LOCAL, EXTERNAL = "local", "external"
"""The two domains: users whose password this cluster checks, and users of an external service."""

MAX_NAME_CHARACTERS = 128
MAX_USERS = 1000
"""Most users, and most groups; limited because each change writes all of them."""

_MAX_TEXT_CHARACTERS = 1000
_FORBIDDEN = frozenset('()<>,;:\\"/[]?={}')

_REQUIRED = "The value must be supplied"
_PROHIBITED = "The value must not be supplied"

Steps = Generator[Deferred[Any], Any, Any]
Places = Mapping[str, Mapping[str, Iterable[str]]]
"""Bucket -> scope -> existing collections."""


class FieldErrors(ValueError):
    """Fields of a request are invalid.

    :ivar errors: field -> what is wrong with it; ``_`` for none of them in particular.
    """

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, text in errors.items()))
        self.errors = dict(errors)


class UnknownName(Exception):
    """There is no such user, group or domain; the text is sent to the client."""


class SecurityRolesRefused(Exception):
    """The caller may not grant or revoke roles that concern security."""


class UserKey(NamedTuple):
    """A user's domain and name; the same name in another domain is another user."""

    domain: str
    name: str


class UserAdmin:
    """Management of the users and groups of one cluster.

    :param change: runs a function under the lock of all changes, and fires when it is done.
    :param save: writes users and buckets to disk.
    :param places: returns what roles may name.
    """

    def __init__(
        self,
        users: UserStore,
        clock: IReactorTime,
        change: Callable[..., Deferred[Any]],
        save: Callable[[], Deferred[None]],
        places: Callable[[], Places],
    ) -> None:
        self._users = users
        self._clock = clock
        self._change = change
        self._save = save
        self._places = places

    # ---- users -----------------------------------------------------------------------------------

    def user(self, who: UserKey) -> Account:
        """Return a user; administrators by configuration are not included.

        :raises UnknownName: no such domain, or no such user.
        """
        _check_domain(who.domain)
        record = self._users.get(who.name) if who.domain == LOCAL else None
        account = self._users.external.get(who.name) if who.domain == EXTERNAL else None
        if record is not None and record.has_password and not record.admin:
            account = record.account
        if account is None:
            raise UnknownName("Unknown user.")
        return account

    def names(self, domain: str | None = None) -> list[UserKey]:
        """Return all users that :meth:`user` finds, sorted by name.

        :raises UnknownName: no such domain.
        """
        found = []
        if domain is not None:
            _check_domain(domain)
        if domain != EXTERNAL:
            for name in self._users:
                record = self._users.get(name)
                if record is not None and record.has_password and not record.admin:
                    found.append(UserKey(LOCAL, name))
        if domain != LOCAL:
            found += [UserKey(EXTERNAL, name) for name in self._users.external]
        return sorted(found, key=lambda who: (who.name, who.domain))

    def put_user(self, who: UserKey, form: Mapping[str, str], *, security: bool) -> Deferred[None]:
        """Create a user, or replace its properties.

        :param form: ``name``, ``roles``, ``groups`` and ``locked``, which are reset if absent; ``password``,
            which is kept if absent.
        :param security: whether the caller may grant and revoke roles that concern security.
        :returns: fires when it is on disk. Fails with :class:`FieldErrors`, :class:`UnknownName` (of the
            domain) or :class:`SecurityRolesRefused`, and nothing is changed then.
        """
        return self._change(self._put_user, who, form, security)

    @inlineCallbacks
    def _put_user(self, who: UserKey, form: Mapping[str, str], security: bool) -> Steps:
        _check_domain(who.domain)
        errors = _unsupported(form, "name", "password", "roles", "groups", "locked")
        _check_name("Username", who.name, errors)
        if who.domain == LOCAL and self._users.is_administrator(who.name):
            errors["_"] = "The name is that of the administrator, who is managed by the options of the node."
        known = self._known(who)
        roles = self._read_roles(form.get("roles", ""), errors, "user")
        groups = tuple(one.strip() for one in form.get("groups", "").split(",") if one.strip())
        missing = [one for one in groups if one not in self._users.groups]
        if missing:
            errors["groups"] = f"Groups do not exist: {','.join(missing)}"
        locked = _flag(form, "locked", errors)
        name = _text(form, "name", errors)
        password = form.get("password")
        if who.domain == EXTERNAL:
            if password is not None:
                errors["password"] = _PROHIBITED
        elif password is None:
            if known is None:
                errors["password"] = "Password is required for new user."
        else:
            self._check_password(password, errors)
        if known is None and len(self._users.external) + len(list(self._users)) >= MAX_USERS:
            errors["_"] = f"Cannot create more than {MAX_USERS} users"
        if errors:
            raise FieldErrors(errors)
        uuid = known.uuid if known is not None else token_hex(16)
        account = Account(roles, tuple(dict.fromkeys(groups)), name, uuid, 0, locked)
        self._check_security(security, [known, account])
        changed = known.password_changed if known is not None else 0
        if who.domain == EXTERNAL:
            yield from self._write(lambda: self._users.external.update({who.name: account}))
            return
        yield from self._write_user(who.name, account._replace(password_changed=changed), password)

    def patch_user(self, name: str, form: Mapping[str, str], *, security: bool) -> Deferred[None]:
        """Change the password of a local user, or lock or unlock it.

        :param form: ``password`` and ``locked``; absent fields are unchanged.
        :returns: as :meth:`put_user`.
        """
        return self._change(self._patch_user, name, form, security)

    @inlineCallbacks
    def _patch_user(self, name: str, form: Mapping[str, str], security: bool) -> Steps:
        account = self.user(UserKey(LOCAL, name))
        errors = _unsupported(form, "password", "locked")
        password = form.get("password")
        if password is not None:
            self._check_password(password, errors)
        locked = _flag(form, "locked", errors) if "locked" in form else account.is_locked
        if errors:
            raise FieldErrors(errors)
        self._check_security(security, [account])
        yield from self._write_user(name, account._replace(is_locked=locked), password)

    def delete_user(self, who: UserKey, *, security: bool) -> Deferred[None]:
        """Delete a user.

        :returns: as :meth:`put_user`; fails with :class:`UnknownName` if there is none.
        """
        return self._change(self._delete_user, who, security)

    @inlineCallbacks
    def _delete_user(self, who: UserKey, security: bool) -> Steps:
        self._check_security(security, [self.user(who)])
        if who.domain == LOCAL:
            yield from self._write(lambda: self._users.remove(who.name))
        else:
            yield from self._write(lambda: self._users.external.pop(who.name))

    def change_password(self, name: str, form: Mapping[str, str]) -> Deferred[None]:
        """Change a user's own password; an administrator's change lasts until a start with another password.

        :param form: ``password``.
        :returns: as :meth:`put_user`.
        """
        return self._change(self._change_password, name, form)

    @inlineCallbacks
    def _change_password(self, name: str, form: Mapping[str, str]) -> Steps:
        errors = _unsupported(form, "password")
        record = self._users.get(name)
        if record is None:
            raise UnknownName("Changing of password is not allowed for this user.")
        if "password" not in form:
            errors["password"] = _REQUIRED
        else:
            self._check_password(form["password"], errors)
            if not errors and (yield self._users.verify(name, form["password"])):
                errors["password"] = "Password has already been used."
        if errors:
            raise FieldErrors(errors)
        yield from self._write_user(name, record.account, form["password"])

    # ---- groups ----------------------------------------------------------------------------------

    def group(self, name: str) -> Group:
        """Return a group.

        :raises UnknownName: there is none of that name.
        """
        try:
            return self._users.groups[name]
        except KeyError:
            raise UnknownName("Unknown group.") from None

    def put_group(self, name: str, form: Mapping[str, str], *, security: bool) -> Deferred[None]:
        """Create a group, or replace it.

        :param form: ``roles``, required; ``description`` and ``ldap_group_ref``.
        :returns: as :meth:`put_user`.
        """
        return self._change(self._put_group, name, form, security)

    @inlineCallbacks
    def _put_group(self, name: str, form: Mapping[str, str], security: bool) -> Steps:
        errors = _unsupported(form, "roles", "description", "ldap_group_ref")
        _check_name("Group name", name, errors)
        if "roles" not in form:
            errors["roles"] = _REQUIRED
        roles = self._read_roles(form.get("roles", ""), errors, "group")
        description = _text(form, "description", errors)
        reference = _text(form, "ldap_group_ref", errors)
        known = self._users.groups.get(name)
        if known is None and len(self._users.groups) >= MAX_USERS:
            errors["_"] = f"Cannot create more than {MAX_USERS} groups"
        if errors:
            raise FieldErrors(errors)
        group = Group(roles, description, reference)
        self._check_security(security, [known, group])
        yield from self._write(lambda: self._users.groups.update({name: group}))

    def delete_group(self, name: str, *, security: bool) -> Deferred[None]:
        """Delete a group; its users lose its roles.

        :returns: as :meth:`put_user`; fails with :class:`UnknownName` if there is none.
        """
        return self._change(self._delete_group, name, security)

    @inlineCallbacks
    def _delete_group(self, name: str, security: bool) -> Steps:
        if name not in self._users.groups:
            raise UnknownName("Group was not found.")
        self._check_security(security, [self.group(name)])
        yield from self._write(lambda: self._users.remove_group(name))

    # ---- password policy -------------------------------------------------------------------------

    def put_policy(self, form: Mapping[str, str]) -> Deferred[None]:
        """Change the rules for new passwords; absent fields are unchanged.

        :param form: ``minLength`` and the ``enforce...`` switches of :data:`POLICY_FIELDS`.
        :returns: as :meth:`put_user`.
        """
        return self._change(self._put_policy, form)

    @inlineCallbacks
    def _put_policy(self, form: Mapping[str, str]) -> Steps:
        errors = _unsupported(form, *POLICY_FIELDS)
        values: dict[str, Any] = {}
        for field, member in POLICY_FIELDS.items():
            if field not in form:
                continue
            if member != "min_length":
                values[member] = _flag(form, field, errors)
            elif not form[field].isascii() or not form[field].isdigit():
                errors[field] = "The value must be an integer"
            elif not int(form[field][:4]) <= 100:
                errors[field] = "The value must be in range from 0 to 100 (inclusive)"
            else:
                values[member] = int(form[field])
        if not form:
            errors["_"] = "Request should have parameters"
        if errors:
            raise FieldErrors(errors)
        policy = self._users.policy._replace(**values)
        yield from self._write(lambda: setattr(self._users, "policy", policy))

    # ---- inside ----------------------------------------------------------------------------------

    def _known(self, who: UserKey) -> Account | None:
        try:
            return self.user(who)
        except UnknownName:
            return None

    def _read_roles(self, text: str, errors: dict[str, str], what: str) -> tuple[Role, ...]:
        try:
            return parse_roles(text, self._places())
        except RoleError as error:
            errors["roles"] = (
                f"Cannot assign roles to {what} because the following roles are unknown, malformed or role "
                f"parameters are undefined: [{','.join(error.roles)}]"
            )
            return ()

    def _check_password(self, password: str, errors: dict[str, str]) -> None:
        try:
            check_password_text(password)
        except UserError as error:
            errors["password"] = str(error)
            return
        # An empty password would be none at all.
        fault = self._users.policy.fault(password) or (
            None if password else "The password must not be empty."
        )
        if fault is not None:
            errors["password"] = fault

    def _check_security(self, allowed: bool, parts: Iterable[Account | Group | None]) -> None:
        """Refuse a change of a user or group that has or gets a role that concerns security, directly or
        through a group."""
        if allowed:
            return
        for part in parts:
            roles = (
                self._users.rights_of(part).roles if isinstance(part, Account) else part.roles if part else ()
            )
            if any(role.concerns_security for role in roles):
                raise SecurityRolesRefused

    def _write_user(self, name: str, account: Account, password: str | None) -> Steps:
        record = self._users.get(name)
        if password is not None:
            credentials = yield self._users.derive(password)
            account = account._replace(password_changed=int(unix_time_of(self._clock)()))
            record = User(record is not None and record.admin, account, credentials)
        else:
            assert record is not None  # it was checked before that a new user has a password
            record = record._replace(account=account)
        new = record
        yield from self._write(lambda: self._users.put(name, new))

    def _write(self, change: Callable[[], object]) -> Steps:
        """Make a change and write it to disk; undo it if writing fails."""
        before, version = self._users.snapshot(), self._users.version
        try:
            change()
            yield self._save()
        except BaseException:
            self._users.restore(before)
            raise
        if self._users.version == version:
            self._users.changed()


POLICY_FIELDS = {
    "minLength": "min_length",
    "enforceUppercase": "uppercase",
    "enforceLowercase": "lowercase",
    "enforceDigits": "digits",
    "enforceSpecialChars": "special",
}
"""Field of the REST interface -> member of :class:`~couchnode.cluster.passwords.PasswordPolicy`."""


def policy_document(policy: PasswordPolicy) -> dict[str, Any]:
    """Return the policy for clients."""
    return {field: getattr(policy, member) for field, member in POLICY_FIELDS.items()}


def _check_domain(domain: str) -> None:
    if domain not in (LOCAL, EXTERNAL):
        raise UnknownName("Unknown user domain.")


def _check_name(what: str, name: str, errors: dict[str, str]) -> None:
    if not name:
        errors["_"] = f"{what} must not be empty"
    elif name.startswith("@"):
        errors["_"] = f"{what} cannot start with '@'"
    elif len(name.encode("utf-8", "replace")) > MAX_NAME_CHARACTERS:
        errors["_"] = f"{what} may not exceed {MAX_NAME_CHARACTERS} characters"
    elif any(one in _FORBIDDEN or one.isspace() or not one.isprintable() for one in name):
        errors["_"] = (
            f'{what} must not contain spaces, control or any of ()<>,;:\\"/[]?={{}} characters and must be '
            "valid utf8"
        )


def _unsupported(form: Mapping[str, str], *known: str) -> dict[str, str]:
    return {field: "Unsupported key" for field in form if field not in known}


def _flag(form: Mapping[str, str], field: str, errors: dict[str, str]) -> bool:
    text = form.get(field, "false")
    if text not in ("true", "false"):
        errors[field] = "The value must be one of the following: [true,false]"
    return text == "true"


def _text(form: Mapping[str, str], field: str, errors: dict[str, str]) -> str:
    text = form.get(field, "")
    if len(text) > _MAX_TEXT_CHARACTERS:
        errors[field] = f"Length ({len(text)}) must be in the range from 0 to {_MAX_TEXT_CHARACTERS}"
    return text
