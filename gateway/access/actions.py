"""The action of each endpoint and of each batch operation, as the table of rules names actions."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["ACTIONS", "ENDPOINTS", "OPERATION_ACTIONS", "OTHER", "PUBLIC", "Extent", "Need"]

ACTIONS = {
    "read": "read documents, parts and copies of them",
    "write": "create, replace, change and delete documents, set their expiry",
    "lock": "read documents with a lock, and release locks",
    "list": "list the keys or documents of a collection",
    "views": "query views, and read design documents",
    "designs": "store, publish and delete design documents",
    "scopes": "list scopes and collections",
    "manage": "create, change and drop scopes and collections",
    "stats": "read statistics of a bucket",
    "buckets": "list buckets",
    "query": "send statements to the query service",
    "search": "use the search service",
    "analytics": "use the analytics service",
    "admin": "use the cluster's management service",
}
"""Action -> its meaning. A rule allows some of them, or all (``*``)."""

OTHER = "other"
"""The action of endpoints that are not in the tables below, such as those of third-party plugins."""


class Extent(Enum):
    """How much a rule must cover."""

    COLLECTION = "collection"
    """The collection that the request names, or the default one."""
    SCOPE = "scope"
    """All collections of the scope that the request names."""
    BUCKET = "bucket"
    """All scopes of the bucket that the request names."""
    CLUSTER = "cluster"
    """All buckets."""
    PART_OF_SCOPE = "part of a scope"
    """Anything in the scope that the request names; the operation itself is checked later."""
    PART_OF_BUCKET = "part of a bucket"
    """Anything in the bucket that the request names; the operation itself is checked later."""
    ANYTHING = "anything"
    """Any place; the answer shows only what the caller's rules name."""


class Need(NamedTuple):
    """What a request needs."""

    actions: frozenset[str]
    """One of these actions."""
    extent: Extent


def _need(extent: Extent, *actions: str) -> Need:
    return Need(frozenset(actions), extent)


_READ = _need(Extent.COLLECTION, "read")
_WRITE = _need(Extent.COLLECTION, "write")
_LOCK = _need(Extent.COLLECTION, "lock")

PUBLIC = frozenset(
    {
        "health",
        "live",
        "ready",
        "metrics",
        "alpha_enabled",
        "openapi",
        "docs",
        "docs_file",
        "index",
        "console_file",
    }
)
"""Endpoints that need no credentials."""

SERVICES = {b"query": "query", b"fts": "search", b"cbas": "analytics", b"mgmt": "admin"}
"""Service name in a path (``/_p/SERVICE``) -> the action of its requests, which may concern any place."""

ENDPOINTS = {
    "get_document": _READ,
    "observe_document": _READ,
    "endure_document": _READ,
    "lookup_document": _READ,
    "create_document": _WRITE,
    "put_document": _WRITE,
    "delete_document": _WRITE,
    "append_document": _WRITE,
    "prepend_document": _WRITE,
    "increment_document": _WRITE,
    "decrement_document": _WRITE,
    "touch_document": _WRITE,
    "mutate_document": _WRITE,
    "lock_document": _LOCK,
    "unlock_document": _LOCK,
    "list_documents": _need(Extent.COLLECTION, "list"),
    # Views index the default collection.
    "get_view": _need(Extent.COLLECTION, "views"),
    "post_view": _need(Extent.COLLECTION, "views"),
    "list_designs": _need(Extent.COLLECTION, "views"),
    "get_design": _need(Extent.COLLECTION, "views"),
    "put_design": _need(Extent.COLLECTION, "designs"),
    "delete_design": _need(Extent.COLLECTION, "designs"),
    "publish_design": _need(Extent.COLLECTION, "designs"),
    "list_scopes": _need(Extent.PART_OF_BUCKET, "scopes"),
    "get_scope": _need(Extent.PART_OF_SCOPE, "scopes"),
    "list_collections": _need(Extent.PART_OF_SCOPE, "scopes"),
    "get_collection": _need(Extent.COLLECTION, "scopes"),
    "put_scope": _need(Extent.SCOPE, "manage"),
    "delete_scope": _need(Extent.SCOPE, "manage"),
    "put_collection": _need(Extent.COLLECTION, "manage"),
    "delete_collection": _need(Extent.COLLECTION, "manage"),
    "bucket_stats": _need(Extent.BUCKET, "stats"),
    "list_buckets": _need(Extent.ANYTHING, "buckets"),
    "caller_identity": _need(Extent.ANYTHING, *ACTIONS, OTHER),
    # Each of its operations is checked on its own.
    "post_batch": _need(Extent.PART_OF_BUCKET, "read", "write", "lock"),
    # A statement can name any collection.
    "post_query": _need(Extent.BUCKET, "query"),
    "post_scope_query": _need(Extent.BUCKET, "query"),
    # SERVICES has the action.
    "proxy_get": _need(Extent.CLUSTER, OTHER),
    "proxy_post": _need(Extent.CLUSTER, OTHER),
    "proxy_put": _need(Extent.CLUSTER, OTHER),
    "proxy_patch": _need(Extent.CLUSTER, OTHER),
    "proxy_delete": _need(Extent.CLUSTER, OTHER),
}
"""Name of an endpoint -> what its requests need. A test checks that each route is listed here or in
:data:`PUBLIC`."""

OPERATION_ACTIONS = {
    "get": "read",
    "get_replica": "read",
    "observe": "read",
    "endure": "read",
    "lookup_in": "read",
    "set": "write",
    "add": "write",
    "replace": "write",
    "append": "write",
    "prepend": "write",
    "delete": "write",
    "incr": "write",
    "decr": "write",
    "touch": "write",
    "mutate_in": "write",
    "lock": "lock",
    "unlock": "lock",
}
"""Batch operation -> its action."""

UNKNOWN = _need(Extent.CLUSTER, OTHER)
"""What endpoints need that are not listed."""
