"""A role as it is given to a user or group: its name, and the bucket, scope and collection that it is for.

Its text is ``data_reader[bucket:scope:collection]``; parts left out at the end mean all of them, and so does
``*`` in their place (management-rest reference, section 5.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from couchnode.access.kinds import ALIASES, ROLES, RoleKind
from couchnode.access.permissions import ANY, Pattern, Vertex, is_allowed, parse_permission

PARAMETERS = ("bucket_name", "scope_name", "collection_name")
"""Members of a role in JSON, in the order in which they narrow each other."""

WILDCARD = "*"
"""In the text of a role: every bucket, scope or collection."""

MAX_ROLES = 1000
"""Most roles of one user or group."""

_ROLE = re.compile(r"([A-Za-z_0-9]+)(?:\[([^\[\]]*)\])?\Z")


class RoleError(ValueError):
    """Some texts are not roles.

    :ivar roles: those texts, as they were given.
    """

    def __init__(self, roles: Iterable[str]) -> None:
        self.roles = list(roles)
        super().__init__(", ".join(self.roles))


class Role(NamedTuple):
    """A role of a user or group.

    :ivar name: a key of :data:`~couchnode.access.kinds.ROLES`.
    :ivar parameters: bucket, scope and collection, as many as the role takes; :data:`WILDCARD` for all.
    """

    name: str
    parameters: tuple[str, ...] = ()

    @property
    def kind(self) -> RoleKind:
        """The row of the table."""
        return ROLES[self.name]

    @property
    def text(self) -> str:
        """The text that :func:`parse_roles` reads."""
        given = list(self.parameters)
        while len(given) > 1 and given[-1] == WILDCARD:
            given.pop()
        return f"{self.name}[{':'.join(given)}]" if given else self.name

    @property
    def json(self) -> dict[str, str]:
        """The members that identify the role to clients."""
        return {"role": self.name, **dict(zip(PARAMETERS, self.parameters, strict=False))}

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """What it allows, in order."""
        return _patterns(self)

    @property
    def concerns_security(self) -> bool:
        """Whether it allows more than reading on users or security. Only users who may do the same may grant
        and revoke it."""
        return any(is_allowed(permission, self.patterns) for permission in _SECURITY)

    def is_within(self, bucket: str, scope: str | None = None, collection: str | None = None) -> bool:
        """Return whether the role is for this bucket, scope or collection, or a part of it."""
        wanted = [name for name in (bucket, scope, collection) if name is not None]
        return len(self.parameters) >= len(wanted) and list(self.parameters[: len(wanted)]) == wanted


_SECURITY = tuple(
    parse_permission(f"cluster.admin.{vertex}!write")
    for vertex in ("security", "security.admin", "users.local", "users.external")
)


def parse_roles(text: str, exists: Mapping[str, Mapping[str, Iterable[str]]]) -> tuple[Role, ...]:
    """Read a list of roles, separated by commas, each role once.

    :param exists: bucket -> scope -> collections that there are.
    :raises RoleError: with all parts that name no role, lack parameters or have too many, or name a bucket,
        scope or collection that does not exist.
    """
    found: dict[Role, None] = {}
    wrong: list[str] = []
    for part in text.split(","):
        part = part.strip()
        if not part:
            continue
        role = _parse(part)
        if role is None or not _names_exist(role.parameters, exists):
            wrong.append(part)
        else:
            found[role] = None
    if wrong:
        raise RoleError(wrong)
    if len(found) > MAX_ROLES:
        raise RoleError([f"{len(found)} roles, more than {MAX_ROLES}"])
    return tuple(found)


def stored_role(text: str) -> Role:
    """Read a stored role; what it names may no longer exist.

    :raises RoleError: the text is not a role.
    """
    role = _parse(text)
    if role is None:
        raise RoleError([text])
    return role


def _parse(text: str) -> Role | None:
    match = _ROLE.match(text)
    if match is None:
        return None
    name = match[1].lower()
    name = ALIASES.get(name, name)
    kind = ROLES.get(name)
    if kind is None or (match[2] is None) != (kind.parameters == 0):
        return None
    if match[2] is None:
        return Role(name)
    given = [part.strip() for part in match[2].split(":")]
    if len(given) > kind.parameters or not all(given):
        return None
    given += [WILDCARD] * (kind.parameters - len(given))
    for at, one in enumerate(given):
        if one == WILDCARD and any(other != WILDCARD for other in given[at:]):
            return None
    return Role(name, tuple(given))


def _names_exist(parameters: tuple[str, ...], exists: Mapping[str, Mapping[str, Iterable[str]]]) -> bool:
    bucket, scope, collection = (*parameters, *[WILDCARD] * 3)[:3]
    if bucket == WILDCARD:
        return True
    scopes = exists.get(bucket)
    if scopes is None or scope == WILDCARD:
        return scopes is not None
    collections = scopes.get(scope)
    return collections is not None and (collection == WILDCARD or collection in collections)


@lru_cache(maxsize=1024)
def _patterns(role: Role) -> tuple[Pattern, ...]:
    given = [ANY if one == WILDCARD else one for one in role.parameters]
    return tuple(
        Pattern(tuple(_filled(vertex, given) for vertex in pattern.path), pattern.operations)
        for pattern in role.kind.patterns
    )


def _filled(vertex: Vertex, given: list[str]) -> Vertex:
    places = {f"{{{at}}}": name for at, name in enumerate(given)}
    return vertex[0], tuple(places.get(one, one) for one in vertex[1])
