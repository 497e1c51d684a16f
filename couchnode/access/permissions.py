"""Permissions, as the cluster manager writes them: ``cluster.bucket[b].settings!read``.

A permission is an operation on an object. Objects form a tree: ``cluster.bucket[b].data`` lies below
``cluster.bucket[b]``. A role is an ordered list of patterns; the first whose object is the requested one, or
lies above it, decides about the operation (management-rest reference, section 6.1).

A bucket, a scope and a collection are the same kind of vertex, with one, two or three parameters. In a
requested object the parameter ``.`` means "any one of them" and ``*`` "all of them".
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

ANY = "."
"""A parameter: of a pattern, each name; of a requested object, any one name."""

ALL = "*"
"""A parameter of a requested object: all names at once. Only the pattern :data:`ANY` covers it."""

MAX_PERMISSION_LENGTH = 2000
"""Longest text of one permission, in characters."""

_DATA_VERTICES = {"bucket": 1, "scope": 2, "collection": 3}
_VERTEX = re.compile(r"([a-z][a-z0-9_]*)(?:\[([^\[\]]*)\])?")
_OPERATION = re.compile(r"[a-z][a-z0-9_]*\Z")

Vertex = tuple[str, tuple[str, ...]]
"""A vertex of the tree: its name and its parameters. A bucket and a scope are a ``collection`` whose missing
parameters are :data:`ALL` in a requested object, and :data:`ANY` in a pattern."""


class PermissionSyntaxError(ValueError):
    """A text is not a permission; the exception's text is that text."""


class Permission(NamedTuple):
    """An operation on an object.

    :ivar path: the object, from the root; empty for the whole cluster.
    """

    path: tuple[Vertex, ...]
    operation: str


class Pattern(NamedTuple):
    """What a role allows on one object and everything below it.

    :ivar operations: names of the allowed ones; ``None`` for all of them. Empty forbids.
    """

    path: tuple[Vertex, ...]
    operations: frozenset[str] | None

    def covers(self, path: tuple[Vertex, ...]) -> bool:
        """Return whether this pattern decides about that object."""
        if len(self.path) > len(path):
            return False
        return all(_matches(asked, mine) for asked, mine in zip(path, self.path, strict=False))

    def allows(self, operation: str) -> bool:
        """Return whether the operation is allowed on a covered object. ``any`` asks for any operation."""
        if self.operations is None:
            return True
        return operation in self.operations or (operation == "any" and bool(self.operations))


def _matches(asked: Vertex, mine: Vertex) -> bool:
    return asked[0] == mine[0] and all(
        one == other or ANY in (one, other) for one, other in zip(asked[1], mine[1], strict=True)
    )


def is_allowed(permission: Permission, patterns: tuple[Pattern, ...]) -> bool:
    """Return whether a role with these patterns, in their order, allows the permission."""
    for pattern in patterns:
        if pattern.covers(permission.path):
            return pattern.allows(permission.operation)
    return False


@lru_cache(maxsize=512)
def parse_permission(text: str) -> Permission:
    """Read a permission such as ``cluster.collection[b:s:c].data.docs!upsert``.

    :raises PermissionSyntaxError: the text has another form.
    """
    path, bang, operation = text.rpartition("!")
    if len(text) > MAX_PERMISSION_LENGTH or not bang or not _OPERATION.match(operation):
        raise PermissionSyntaxError(text)
    if path == "cluster":
        return Permission((), operation)
    root, dot, rest = path.partition(".")
    if root != "cluster" or not dot:
        raise PermissionSyntaxError(text)
    return Permission(parse_path(rest, ALL), operation)


def below(text: str, bucket: str, scope: str = ALL, collection: str = ALL) -> Permission:
    """Return a permission on a bucket, scope or collection, whose names may be any texts.

    :param text: what follows the bucket in a permission, such as ``data.docs!read`` or ``!delete``.
    :raises PermissionSyntaxError: the text has another form.
    """
    path, operation = _tail(text)
    return Permission((("collection", (bucket, scope, collection)), *path), operation)


@lru_cache(maxsize=128)
def _tail(text: str) -> Permission:
    return parse_permission(f"cluster{text}" if text.startswith("!") else f"cluster.{text}")


def parse_path(text: str, padding: str) -> tuple[Vertex, ...]:
    """Read the object of a permission, without ``cluster``.

    :param padding: the parameters that a bucket or scope lacks of a collection.
    :raises PermissionSyntaxError: the text has another form.
    """
    vertices: list[Vertex] = []
    at = 0
    while True:
        found = _VERTEX.match(text, at)
        if found is None:
            raise PermissionSyntaxError(text)
        vertices.append(_vertex(text, found[1], found[2], padding))
        at = found.end()
        if at == len(text):
            return tuple(vertices)
        if text[at] != ".":
            raise PermissionSyntaxError(text)
        at += 1


def _vertex(text: str, name: str, inside: str | None, padding: str) -> Vertex:
    wanted = _DATA_VERTICES.get(name)
    if wanted is None:
        if inside is not None:
            raise PermissionSyntaxError(text)
        return name, ()
    parameters = [] if inside is None else inside.split(":")
    if len(parameters) != wanted or not all(parameters):
        raise PermissionSyntaxError(text)
    return "collection", (*parameters, *[padding] * (3 - wanted))
