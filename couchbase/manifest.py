"""Management of scopes and collections: requests to a cluster manager, its answers, and the manifest.

Nothing is sent here: each request is a method, a path and a form, for an HTTP client.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from couchbase import exceptions
from couchbase.collection import check_name
from couchbase.exceptions import (
    ArgumentError,
    CollectionExistsError,
    CouchbaseError,
    HTTPError,
    ScopeExistsError,
    error_of,
)
from couchbase.protocol.keyspace import DEFAULT_NAME
from couchbase.result import HttpResult

__all__ = ["CollectionSpec", "Manifest", "ScopeSpec"]

FORM = "application/x-www-form-urlencoded"
MAX_TTL_SECONDS = 2**31 - 1
LONGEST_WAIT_MS = 300_000
"""Longest time that a manager waits until all nodes have a manifest, in seconds."""


class CollectionSpec(NamedTuple):
    """A collection in a manifest."""

    name: str
    scope: str
    """Name of its scope."""
    uid: int
    """Its id, which no other collection of the bucket ever has."""
    max_ttl: int = 0
    """Longest time to live of its documents in seconds, which also applies to documents stored without one; 0
    is the bucket's own limit, -1 none."""


class ScopeSpec(NamedTuple):
    """A scope in a manifest."""

    name: str
    uid: int
    collections: tuple[CollectionSpec, ...]


class Manifest(NamedTuple):
    """The scopes and collections of a bucket at one moment."""

    uid: int
    """The manifest's uid, which grows with each change."""
    scopes: tuple[ScopeSpec, ...]

    def scope(self, name: str) -> ScopeSpec | None:
        """Return a scope, ``None`` if the bucket does not have it."""
        return next((scope for scope in self.scopes if scope.name == name), None)

    def collection(self, name: str, scope: str | None = None) -> CollectionSpec | None:
        """Return a collection, ``None`` if the bucket does not have it.

        :param scope: name of its scope, ``None`` for the default scope.
        """
        found = self.scope(DEFAULT_NAME if scope is None else scope)
        collections = found.collections if found else ()
        return next((collection for collection in collections if collection.name == name), None)


class ManagerRequest(NamedTuple):
    """A request to a cluster manager."""

    method: str
    path: str
    form: str | None = None
    """The body, of type :data:`FORM`."""


def parse_manifest(text: bytes | str) -> Manifest:
    """Parse a manifest from a cluster manager or a node.

    :raises CouchbaseError: ProtocolError, the text is not a manifest.
    """
    try:
        document = json.loads(text)
        return Manifest(int(document["uid"], 16), tuple(map(_read_scope, document["scopes"])))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"the manifest of collections cannot be read: {error!r}"
        raise error_of(exceptions.PROTOCOL_ERROR, message, inner_cause=error) from error


def _read_scope(scope: Any) -> ScopeSpec:
    name = _text(scope["name"])
    collections = tuple(
        CollectionSpec(_text(one["name"]), name, int(one["uid"], 16), int(one.get("maxTTL", 0)))
        for one in scope["collections"]
    )
    return ScopeSpec(name, int(scope["uid"], 16), collections)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a name is {value!r}")
    return value


# ---- requests ------------------------------------------------------------------------------------


def bucket_path(bucket: str) -> str:
    """Return the path of a bucket.

    :raises ArgumentError: not a bucket's name.
    """
    if not isinstance(bucket, str) or not bucket:
        raise ArgumentError.pyexc("a bucket's name must be a str that is not empty", obj=bucket)
    return f"/pools/default/buckets/{quote(bucket, safe='')}"


def scopes_path(bucket: str) -> str:
    """Return the path of a bucket's scopes.

    :raises ArgumentError: not a bucket's name.
    """
    return f"{bucket_path(bucket)}/scopes"


def _collections_path(bucket: str, scope: str | None) -> str:
    scope = DEFAULT_NAME if scope is None else scope
    check_name("a scope's name", scope)
    return f"{scopes_path(bucket)}/{quote(scope, safe='')}/collections"


def create_scope(bucket: str, name: str) -> ManagerRequest:
    """Return the request that creates a scope."""
    check_name("a scope's name", name)
    return ManagerRequest("POST", scopes_path(bucket), urlencode({"name": name}))


def drop_scope(bucket: str, name: str) -> ManagerRequest:
    """Return the request that drops a scope with its collections."""
    check_name("a scope's name", name)
    return ManagerRequest("DELETE", f"{scopes_path(bucket)}/{quote(name, safe='')}")


def create_collection(bucket: str, name: str, scope: str | None, max_ttl: int | None) -> ManagerRequest:
    """Return the request that creates a collection."""
    check_name("a collection's name", name)
    form: dict[str, Any] = {"name": name}
    if max_ttl is not None:
        form["maxTTL"] = check_max_ttl(max_ttl)
    return ManagerRequest("POST", _collections_path(bucket, scope), urlencode(form))


def update_collection(bucket: str, name: str, scope: str | None, max_ttl: int) -> ManagerRequest:
    """Return the request that changes a collection."""
    check_name("a collection's name", name)
    path = f"{_collections_path(bucket, scope)}/{quote(name, safe='')}"
    return ManagerRequest("PATCH", path, urlencode({"maxTTL": check_max_ttl(max_ttl)}))


def drop_collection(bucket: str, name: str, scope: str | None) -> ManagerRequest:
    """Return the request that drops a collection with its documents."""
    check_name("a collection's name", name)
    return ManagerRequest("DELETE", f"{_collections_path(bucket, scope)}/{quote(name, safe='')}")


def ensure_manifest(bucket: str, uid: str, seconds: float) -> ManagerRequest:
    """Return a request that is answered when all nodes have a manifest, or a newer one.

    :param uid: the manifest's uid, as the manager sent it.
    :param seconds: how long the manager waits.
    """
    form = {"timeout": max(1, min(int(seconds * 1000), LONGEST_WAIT_MS))}
    return ManagerRequest(
        "POST", f"{scopes_path(bucket)}/@ensureManifest/{quote(uid, safe='')}", urlencode(form)
    )


def check_max_ttl(value: object) -> int:
    """Return the ``max_ttl`` of a collection.

    :raises ArgumentError: not a whole number of seconds from -1 to 2147483647.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value <= MAX_TTL_SECONDS:
        raise ArgumentError.pyexc(
            f"max_ttl must be a whole number of seconds from -1 (none) to {MAX_TTL_SECONDS}", obj=value
        )
    return value


# ---- answers -------------------------------------------------------------------------------------


def uid_of(value: object) -> str | None:
    """Return the uid of the new manifest from the answer to a change, ``None`` if it has none."""
    uid = value.get("uid") if isinstance(value, Mapping) else None
    return uid if isinstance(uid, str) and uid else None


def refusal(result: HttpResult, bucket: str) -> CouchbaseError:
    """Return the exception for a manager's refusal.

    BucketNotFoundError, ScopeNotFoundError and CollectionNotFoundError name the missing object;
    ScopeExistsError, CollectionExistsError and everything else are HTTPErrors.

    :param result: the manager's answer, with a status outside 200..299.
    """
    text = _words(result.value)
    status = result.http_status
    fields: dict[str, Any] = {"objextra": result, "context": text}
    if status == 404:
        if text.startswith("Scope with name"):
            return error_of(exceptions.SCOPE_ENOENT, f"bucket {bucket!r}: {text}", **fields)
        if text.startswith("Collection with name"):
            return error_of(exceptions.COLLECTION_ENOENT, f"bucket {bucket!r}: {text}", **fields)
        return error_of(exceptions.BUCKET_ENOENT, f"the cluster has no bucket {bucket!r}", **fields)
    kind: type[HTTPError] = HTTPError
    if "already exists" in text:
        kind = ScopeExistsError if text.startswith("Scope with name") else CollectionExistsError
    return kind({"rc": 0, "message": f"the cluster manager answered {status}: {text}", **fields})


def not_supported(bucket: str) -> CouchbaseError:
    """Return the exception for a server without scopes, which has the bucket but not this resource."""
    message = f"bucket {bucket!r} has no scopes and collections: they need Couchbase Server 7.0 or later"
    return error_of(exceptions.NOT_SUPPORTED, message)


def _words(value: object) -> str:
    """Return the text of a manager's error, whose members depend on the request."""
    errors = value.get("errors") if isinstance(value, Mapping) else value
    if isinstance(errors, Mapping):
        return "; ".join(str(text) if name == "_" else f"{name}: {text}" for name, text in errors.items())
    return str(errors or "no reason given")
