"""Management of users, groups and roles, for :class:`couchbase.admin.Admin`.

Not in SDK 1.2: the names are those of later official SDKs. Servers from 5.0 on have users; those from 6.5 on
have groups, too (in the Enterprise Edition, and in this project's node).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, TypeVar, Union
from urllib.parse import quote, urlencode

from couchbase.exceptions import ArgumentError
from couchbase.manifest import FORM

__all__ = ["AuthDomain", "UserCommands"]

RoleText = Union[str, tuple[str, ...]]
"""A role: its text, ``data_reader[bucket:scope:collection]``, or its parts, ``("data_reader", "bucket")``."""

_RBAC = "/settings/rbac"


class AuthDomain:
    """The domains of users."""

    Local = "local"
    """The cluster checks their passwords."""
    External = "external"
    """Another service checks them, for example LDAP."""


ResultT = TypeVar("ResultT")


class UserCommands(ABC, Generic[ResultT]):
    """The calls about users, groups and roles.

    Each raises HTTPError if the manager refuses: ``objextra.http_status`` is 404 for a missing user or group,
    403 for a caller without the permission, 400 for an invalid value, and ``objextra.value`` says what is
    wrong.
    """

    @abstractmethod
    def http_request(
        self,
        path: str,
        method: str = "GET",
        content: str | bytes | None = None,
        content_type: str = "application/json",
    ) -> ResultT:
        """Send a request to the cluster manager."""

    # ---- users -----------------------------------------------------------------------------------

    def users_get(self, domain: str | None = None) -> ResultT:
        """Return users: ``value`` is a list with the manager's description of each.

        :param domain: a constant of :class:`AuthDomain`; ``None`` for both.
        """
        return self.http_request(f"{_RBAC}/users" if domain is None else _domain_path(domain))

    def user_get(self, domain: str, userid: str) -> ResultT:
        """Return a user: ``value`` is a dict; ``roles`` has the groups' roles too, each with its origins.

        :param domain: a constant of :class:`AuthDomain`.
        """
        return self.http_request(_user_path(domain, userid))

    def user_upsert(
        self,
        domain: str,
        userid: str,
        password: str | None = None,
        roles: Iterable[RoleText] = (),
        name: str | None = None,
        groups: Iterable[str] = (),
    ) -> ResultT:
        """Create a user, or replace roles, groups and name of one.

        :param domain: a constant of :class:`AuthDomain`.
        :param userid: 1 to 128 characters; no blanks, none of ``()<>,;:\\"/[]?={}``.
        :param password: of a local user. A new one needs it; ``None`` keeps an existing one's.
        :param roles: all of the user's own roles: roles that are left out are removed.
        :param name: display name; ``None`` for none.
        :param groups: all groups of the user.
        """
        form = {"roles": _roles(roles)}
        if password is not None:
            form["password"] = _text("password", password)
        if name is not None:
            form["name"] = _text("name", name)
        if groups:
            form["groups"] = ",".join(_text("groups", group) for group in groups)
        return self._put(_user_path(domain, userid), form)

    def user_remove(self, domain: str, userid: str) -> ResultT:
        """Delete a user.

        :param domain: a constant of :class:`AuthDomain`.
        """
        return self.http_request(_user_path(domain, userid), "DELETE")

    def change_password(self, new_password: str) -> ResultT:
        """Change the password of this session's user. The session continues with the old password, so make a
        new one.

        :param new_password: a password that fits the cluster's policy; by default at least 6 characters.
        """
        form = urlencode({"password": _text("new_password", new_password)})
        return self.http_request("/controller/changePassword", "POST", form, FORM)

    # ---- roles and groups ------------------------------------------------------------------------

    def roles_get(self) -> ResultT:
        """Return all roles: ``value`` is a list of dicts with ``role``, ``name`` and ``desc``, and with
        ``bucket_name``, ``scope_name`` and ``collection_name`` where the role has them."""
        return self.http_request(f"{_RBAC}/roles")

    def groups_get(self) -> ResultT:
        """Return the groups: ``value`` is a list with the manager's description of each."""
        return self.http_request(f"{_RBAC}/groups")

    def group_get(self, name: str) -> ResultT:
        """Return a group: ``value`` is a dict."""
        return self.http_request(_group_path(name))

    def group_upsert(
        self,
        name: str,
        roles: Iterable[RoleText] = (),
        description: str | None = None,
        ldap_group_ref: str | None = None,
    ) -> ResultT:
        """Create a group, or replace it.

        :param roles: roles of all its users.
        :param ldap_group_ref: name of the group in a directory service.
        """
        form = {"roles": _roles(roles)}
        if description is not None:
            form["description"] = _text("description", description)
        if ldap_group_ref is not None:
            form["ldap_group_ref"] = _text("ldap_group_ref", ldap_group_ref)
        return self._put(_group_path(name), form)

    def group_remove(self, name: str) -> ResultT:
        """Delete a group; its users lose its roles."""
        return self.http_request(_group_path(name), "DELETE")

    def _put(self, path: str, form: dict[str, str]) -> ResultT:
        return self.http_request(path, "PUT", urlencode(form), FORM)


def _domain_path(domain: str) -> str:
    if domain not in (AuthDomain.Local, AuthDomain.External):
        raise ArgumentError.pyexc("domain must be AuthDomain.Local or AuthDomain.External", obj=domain)
    return f"{_RBAC}/users/{domain}"


def _user_path(domain: str, userid: str) -> str:
    return f"{_domain_path(domain)}/{_segment('userid', userid)}"


def _group_path(name: str) -> str:
    return f"{_RBAC}/groups/{_segment('name', name)}"


def _segment(what: str, name: str) -> str:
    text = _text(what, name)
    if not text or text in (".", ".."):
        raise ArgumentError.pyexc(f"{what} must not be empty, or have only dots", obj=name)
    return quote(text, safe="")


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ArgumentError.pyexc(f"{what} must be a str", obj=value)
    return value


def _roles(roles: Iterable[RoleText]) -> str:
    if isinstance(roles, str):
        raise ArgumentError.pyexc("roles must be a list of roles, not one str", obj=roles)
    return ",".join(_role(role) for role in roles)


def _role(role: RoleText) -> str:
    if isinstance(role, str):
        return role
    if (
        not isinstance(role, tuple)
        or not 1 <= len(role) <= 4
        or not all(isinstance(one, str) for one in role)
    ):
        raise ArgumentError.pyexc(
            'a role must be a str, "data_reader[bucket]", or a tuple, ("data_reader", "bucket")', obj=role
        )
    name, *places = role
    return f"{name}[{':'.join(places)}]" if places else name
