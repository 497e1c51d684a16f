"""The rights of one user: permissions for the cluster manager, privileges for the key-value protocol.

A privilege is a bit; a mask holds the privileges on one bucket, scope or collection. They follow from the
user's permissions (management-rest reference, sections 6.1 and 6.2), so that a role is defined once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from couchnode.access.permissions import ALL, ANY, Permission, Vertex, is_allowed, parse_permission
from couchnode.access.roles import Role

READ = 1 << 0
INSERT = 1 << 1
UPSERT = 1 << 2
DELETE = 1 << 3
RANGE_SCAN = 1 << 4
META_WRITE = 1 << 5
SYSTEM_XATTR_READ = 1 << 6
SYSTEM_XATTR_WRITE = 1 << 7
SIMPLE_STATS = 1 << 8
DCP_STREAM = 1 << 9
SYSTEM_COLLECTION_LOOKUP = 1 << 10
SYSTEM_COLLECTION_MUTATION = 1 << 11
DCP_PRODUCER = 1 << 12
DCP_CONSUMER = 1 << 13
STATS = 1 << 14
IDLE_CONNECTION = 1 << 15
ADMINISTRATOR = 1 << 16
SYSTEM_SETTINGS = 1 << 17
IMPERSONATE = 1 << 18

NAMES = {
    READ: "Read",
    INSERT: "Insert",
    UPSERT: "Upsert",
    DELETE: "Delete",
    RANGE_SCAN: "RangeScan",
    META_WRITE: "MetaWrite",
    SYSTEM_XATTR_READ: "SystemXattrRead",
    SYSTEM_XATTR_WRITE: "SystemXattrWrite",
    SIMPLE_STATS: "SimpleStats",
    DCP_STREAM: "DcpStream",
    SYSTEM_COLLECTION_LOOKUP: "SystemCollectionLookup",
    SYSTEM_COLLECTION_MUTATION: "SystemCollectionMutation",
    DCP_PRODUCER: "DcpProducer",
    DCP_CONSUMER: "DcpConsumer",
    STATS: "Stats",
    IDLE_CONNECTION: "IdleConnection",
    ADMINISTRATOR: "Administrator",
    SYSTEM_SETTINGS: "SystemSettings",
    IMPERSONATE: "Impersonate",
}
"""Privilege -> its name in the protocol's error texts."""

EVERYTHING = (1 << len(NAMES)) - 1

_OF_COLLECTION = {
    privilege: parse_permission(f"cluster.{text}")
    for privilege, text in {
        READ: "data.docs!read",
        INSERT: "data.docs!insert",
        UPSERT: "data.docs!upsert",
        DELETE: "data.docs!delete",
        RANGE_SCAN: "data.docs!range_scan",
        META_WRITE: "data.meta!write",
        SYSTEM_XATTR_READ: "data.sxattr!read",
        SYSTEM_XATTR_WRITE: "data.sxattr!write",
        SIMPLE_STATS: "stats!read",
        DCP_STREAM: "data.dcpstream!read",
        SYSTEM_COLLECTION_LOOKUP: "data.docs!sread",
        SYSTEM_COLLECTION_MUTATION: "data.docs!swrite",
    }.items()
}
"""Privilege -> the permission that it comes from, below a collection."""

COLLECTION_PRIVILEGES = sum(_OF_COLLECTION)
"""The privileges on single collections. A collection is hidden from users who have none of them on it."""

_OF_BUCKET = {
    DCP_PRODUCER: parse_permission("cluster.data.dcp!read"),
    DCP_CONSUMER: parse_permission("cluster.data.dcp!write"),
}
_GLOBAL = {
    STATS: parse_permission("cluster.stats.memcached!read"),
    IDLE_CONNECTION: parse_permission("cluster.admin.memcached.idle!write"),
    ADMINISTRATOR: parse_permission("cluster.admin.memcached!all"),
    SYSTEM_SETTINGS: parse_permission("cluster.pools!read"),
    IMPERSONATE: parse_permission("cluster.admin.security.admin!impersonate"),
}
_INTERNAL_STATS = parse_permission("cluster.admin.internal.stats!read")


MAX_REMEMBERED = 64
"""Buckets for which the privileges of one user are remembered."""


class Collections(NamedTuple):
    """The privileges on one scope: its own, and those on single collections, by name."""

    mask: int
    collections: Mapping[str, int]


class BucketRights(NamedTuple):
    """The privileges on one bucket.

    :ivar mask: the privileges on the whole bucket.
    :ivar scopes: name of a scope -> the privileges that it adds; only for scopes that roles name.
    """

    mask: int
    scopes: Mapping[str, Collections]

    def __bool__(self) -> bool:
        return bool(self.mask or self.scopes)

    def on(self, scope: str, collection: str) -> int:
        """Return the privileges on one collection, those of its scope and its bucket included."""
        more = self.scopes.get(scope)
        return self.mask if more is None else self.mask | more.mask | more.collections.get(collection, 0)

    def on_scope(self, scope: str) -> int:
        """Return the privileges on one scope or any of its collections."""
        more = self.scopes.get(scope)
        if more is None:
            return self.mask
        mask = self.mask | more.mask
        for one in more.collections.values():
            mask |= one
        return mask

    def anywhere(self) -> int:
        """Return the privileges that the user has on at least one collection."""
        mask = self.mask
        for scope in self.scopes:
            mask |= self.on_scope(scope)
        return mask


class Rights:
    """Everything that one user may do. Immutable; parts are computed and cached on first use.

    :param roles: the user's own, and those of the user's groups.
    :ivar roles: each role once.
    :ivar has_all: whether nothing is refused.
    """

    __slots__ = ("_buckets", "_global", "has_all", "roles")

    def __init__(self, roles: Iterable[Role]) -> None:
        self.roles = tuple(dict.fromkeys(roles))
        self.has_all = any(role.name == "admin" for role in self.roles)
        self._buckets: dict[str, BucketRights] = {}
        self._global: int | None = None

    def allow(self, permission: Permission | str) -> bool:
        """Return whether the user has a permission.

        :param permission: a permission, or its text.
        :raises PermissionSyntaxError: the text is not a permission.
        """
        if isinstance(permission, str):
            permission = parse_permission(permission)
        return self.has_all or any(is_allowed(permission, role.patterns) for role in self.roles)

    @property
    def global_privileges(self) -> int:
        """The privileges that belong to no bucket."""
        if self._global is None:
            self._global = self._mask(_GLOBAL)
            if self.allow(_INTERNAL_STATS):
                self._global |= STATS
        return self._global

    def on_bucket(self, name: str) -> BucketRights:
        """Return the privileges on a bucket, which need not exist, without privileges that belong to no
        bucket."""
        known = self._buckets.get(name)
        if known is None:
            if len(self._buckets) >= MAX_REMEMBERED:
                # Clients may send any number of made-up names.
                self._buckets.clear()
            known = self._buckets[name] = self._on_bucket(name)
        return known

    def _on_bucket(self, name: str) -> BucketRights:
        mask = self._mask(_OF_COLLECTION, (name, ALL, ALL))
        mask |= self._mask(_OF_BUCKET, (name, ALL, ALL))
        if self.allow(_INTERNAL_STATS):
            mask |= SIMPLE_STATS
        named: dict[str, set[str]] = {}
        for bucket, scope, collection in self._places():
            if bucket in (name, ANY) and scope != ANY:
                named.setdefault(scope, set()).update({collection} - {ANY})
        scopes = {}
        for scope, collections in named.items():
            of_scope = self._mask(_OF_COLLECTION, (name, scope, ALL))
            parts = {one: self._mask(_OF_COLLECTION, (name, scope, one)) for one in collections}
            parts = {one: part for one, part in parts.items() if part}
            if of_scope or parts:
                scopes[scope] = Collections(of_scope, parts)
        return BucketRights(mask, scopes)

    def _places(self) -> Iterator[tuple[str, ...]]:
        """Yield (bucket, scope, collection) of every pattern that has them."""
        for role in self.roles:
            for pattern in role.patterns:
                if pattern.path and pattern.path[0][0] == "collection":
                    yield pattern.path[0][1]

    def _mask(self, table: Mapping[int, Permission], where: tuple[str, str, str] | None = None) -> int:
        """Return the privileges of a table that the user has, in a bucket, scope or collection."""
        if self.has_all:
            return sum(table)
        above: tuple[Vertex, ...] = () if where is None else (("collection", where),)
        return sum(
            privilege
            for privilege, (path, operation) in table.items()
            if self.allow(Permission(above + path, operation))
        )


NO_RIGHTS = Rights(())
"""The rights of a user without roles, and of a client without credentials."""

ALL_RIGHTS = Rights([Role("admin")])
"""The rights of an administrator."""
