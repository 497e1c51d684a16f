"""The documents about users, groups and roles that clients read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import urlencode

from couchnode.access.kinds import ROLES
from couchnode.access.permissions import Permission
from couchnode.access.rights import Rights
from couchnode.access.roles import WILDCARD, Role
from couchnode.cluster.accounts import Account, Group
from couchnode.cluster.useradmin import UserKey
from couchnode.cluster.users import UserStore

MIN_PAGE, MAX_PAGE = 2, 100
"""Users on one page of a list."""


class Visible:
    """The documents for one caller: roles that concern security are shown to callers who may manage it.

    :param sees_security: whether the caller may manage security.
    """

    def __init__(self, users: UserStore, *, sees_security: bool) -> None:
        self._users = users
        self._sees_security = sees_security

    def roles(self, roles: Iterable[Role]) -> list[Role]:
        """Return the roles that the caller may see."""
        return [role for role in roles if self._sees_security or not role.concerns_security]

    def user(self, who: UserKey, account: Account) -> dict[str, Any]:
        """Return a user, with the origin of each role: the user itself, or groups."""
        groups = {name: self._users.groups[name] for name in account.groups if name in self._users.groups}
        origins: dict[Role, list[dict[str, str]]] = {role: [{"type": "user"}] for role in account.roles}
        for name, group in groups.items():
            for role in group.roles:
                origins.setdefault(role, []).append({"type": "group", "name": name})
        document: dict[str, Any] = {"id": who.name, "domain": who.domain}
        if account.name:
            document["name"] = account.name
        if account.uuid:
            document["uuid"] = account.uuid
        document["roles"] = [{**role.json, "origins": origins[role]} for role in self.roles(origins)]
        document["groups"] = list(groups)
        document["external_groups"] = []
        if account.password_changed:
            at = datetime.fromtimestamp(account.password_changed, timezone.utc)
            document["password_change_date"] = at.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        if who.domain == "local":
            document["locked"] = account.is_locked
        return document

    def group(self, name: str, group: Group) -> dict[str, Any]:
        """Return a group."""
        document: dict[str, Any] = {"id": name, "roles": [role.json for role in self.roles(group.roles)]}
        if group.description:
            document["description"] = group.description
        if group.ldap_group_ref:
            document["ldap_group_ref"] = group.ldap_group_ref
        return document

    def list_roles(self, buckets: Iterable[str], permission: Permission | None) -> list[dict[str, Any]]:
        """Return all roles; those for a bucket appear once with ``*`` and once with each bucket.

        :param permission: restricts the list to roles that allow it.
        """
        names = [WILDCARD, *sorted(buckets)]
        found = []
        for name, kind in ROLES.items():
            for bucket in names if kind.parameters else ("",):
                given = (bucket, *[WILDCARD] * 2)[: kind.parameters]
                role = Role(name, given)
                if (self._sees_security or not role.concerns_security) and (
                    permission is None or Rights([role]).allow(permission)
                ):
                    found.append({**role.json, "name": kind.title, "desc": kind.description})
        return found


def caller_document(user: str | None, record_domain: str, rights: Rights, account: Account | None) -> Any:
    """Return the document of ``/whoami``, which describes the caller."""
    document: dict[str, Any] = {"id": user or "", "domain": record_domain}
    if account is not None and account.name:
        document["name"] = account.name
    if account is not None and account.uuid and record_domain != "admin":
        document["uuid"] = account.uuid
    document["roles"] = [role.json for role in rights.roles]
    return document


class Page(NamedTuple):
    """The requested part of a list."""

    size: int
    start: UserKey | None
    sort_by: str
    descending: bool
    part: str


_SORT: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "id": lambda user: (user["id"], user["domain"]),
    "name": lambda user: (user.get("name", ""), user["id"], user["domain"]),
    "domain": lambda user: (user["domain"], user["id"]),
    "password_change_date": lambda user: (user.get("password_change_date", ""), user["id"], user["domain"]),
}


def read_page(query: Mapping[str, str]) -> tuple[Page | None, dict[str, str]]:
    """Read the parameters of a list of users.

    :returns: the page, ``None`` without ``pageSize``; and the errors, by parameter.
    """
    errors: dict[str, str] = {}
    text = query.get("pageSize", "")
    if "pageSize" not in query:
        return None, errors
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if size < 0:
        errors["pageSize"] = "The value must be an integer"
    elif not MIN_PAGE <= size <= MAX_PAGE:
        errors["pageSize"] = f"The value must be in range from {MIN_PAGE} to {MAX_PAGE} (inclusive)"
    sort_by, order = query.get("sortBy", "id"), query.get("order", "asc")
    if sort_by not in _SORT:
        errors["sortBy"] = f"The value must be one of the following: [{','.join(_SORT)}]"
    if order not in ("asc", "desc"):
        errors["order"] = "The value must be one of the following: [asc,desc]"
    start = None
    if "startFrom" in query:
        start = UserKey(query.get("startFromDomain", "local"), query["startFrom"])
    return Page(size, start, sort_by, order == "desc", query.get("substr", "")), errors


def page_of(users: list[dict[str, Any]], page: Page, path: str) -> dict[str, Any]:
    """Return one page of a list of users.

    :param path: of the list, for the links to other pages.
    """
    wanted = page.part.lower()
    found = [one for one in users if wanted in one["id"].lower() or wanted in one.get("name", "").lower()]
    found.sort(key=_SORT[page.sort_by], reverse=page.descending)
    skipped = 0
    if page.start is not None:
        places = [at for at, one in enumerate(found) if (one["domain"], one["id"]) == page.start]
        skipped = places[0] if places else 0

    def link(at: int) -> str:
        query = {"pageSize": page.size, "sortBy": page.sort_by, "order": "desc" if page.descending else "asc"}
        if page.part:
            query["substr"] = page.part
        if at:
            query.update({"startFrom": found[at]["id"], "startFromDomain": found[at]["domain"]})
        return f"{path}?{urlencode(query)}"

    links = {}
    if skipped:
        links = {"first": link(0), "prev": link(max(0, skipped - page.size))}
    if skipped + page.size < len(found):
        links["next"] = link(skipped + page.size)
        links["last"] = link(max(0, len(found) - page.size))
    shown = found[skipped : skipped + page.size]
    return {"total": len(found), "links": links, "skipped": skipped, "users": shown}
