"""Keyspaces: the collections of a bucket, as operations refer to them."""

from __future__ import annotations

from collections import deque
from enum import Enum
from itertools import count
from typing import Any

from couchbase.protocol.leb128 import encode_leb128

DEFAULT_NAME = "_default"
"""Name of the scope and of the collection that every bucket has."""

_numbers = count()


class KeyspaceState(Enum):
    """The state of a collection's id."""

    UNKNOWN = "unknown"
    ASKED = "asked"
    """The id was requested from a node; operations wait for its answer."""
    KNOWN = "known"


class Keyspace:
    """One collection of a bucket, independent of its current id.

    Requests refer to it, so that they find a new id if they have to be repeated. There is one object for each
    collection of a driver's cluster; see :meth:`couchbase.protocol.collections.Collections.keyspace`.

    :param scope: name of the scope.
    :param collection: name of the collection in it.
    """

    __slots__ = (
        "__weakref__", "collection", "manifest", "number", "path", "prefix", "scope", "state", "waiting",
    )  # fmt: skip

    def __init__(self, scope: str, collection: str) -> None:
        self.scope = scope
        self.collection = collection
        self.path = f"{scope}.{collection}".encode()
        """The collection's path in requests for its id."""
        self.number = next(_numbers)
        """A number to sort operations by keyspace; 0 is the default collection."""
        self.state = KeyspaceState.UNKNOWN
        self.prefix = b""
        """Prefix of its keys on connections that use collections; empty if unknown."""
        self.manifest = 0
        """Uid of the manifest that the id was taken from."""
        self.waiting: deque[Any] = deque()
        """Operations that wait for the id, oldest first."""

    def learn(self, collection_id: int, manifest: int) -> None:
        """Use an id from now on.

        :param manifest: uid of the manifest that it was taken from.
        """
        self.prefix = encode_leb128(collection_id)
        self.manifest = manifest
        self.state = KeyspaceState.KNOWN

    def forget(self) -> None:
        """Forget the id: it may belong to no collection, or to another one."""
        self.prefix = b""
        if self.state is KeyspaceState.KNOWN:
            self.state = KeyspaceState.UNKNOWN

    def __repr__(self) -> str:
        return f"<Keyspace {self.scope}.{self.collection} {self.state.value}>"


DEFAULT_KEYSPACE = Keyspace(DEFAULT_NAME, DEFAULT_NAME)
"""The default collection. Its id never changes, and it exists on connections without collections, too."""
DEFAULT_KEYSPACE.learn(0, 0)
