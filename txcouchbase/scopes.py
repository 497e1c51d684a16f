"""Management of the scopes and collections of a connection's bucket."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

from twisted.internet.defer import Deferred, inlineCallbacks

from couchbase import exceptions, manifest
from couchbase.blocking.http import decode_body
from couchbase.exceptions import BucketNotFoundError, error_of
from couchbase.manifest import FORM, ManagerRequest, Manifest
from couchbase.result import HttpResult
from couchbase.user_constants import FMT_JSON

__all__ = ["ScopeManager"]

ENSURE_SECONDS = 10.0
"""How long a change waits until all nodes know it."""


class Managing(Protocol):
    """A connection that asks the cluster manager."""

    @property
    def bucket(self) -> str:
        """Name of the bucket."""

    def management_request(
        self, method: str, path: str, body: bytes | None = ..., headers: dict[str, str] | None = ...
    ) -> Deferred[tuple[int, dict[str, str], bytes]]:
        """Ask; fires with status, headers and body."""


class ScopeManager:
    """The scopes and collections of a connection's bucket, with the connection's credentials.

    Each method returns a Deferred that fails with the exceptions of the method of
    :class:`couchbase.admin.Admin` of the same name. Changes fire when all nodes know them, and at the latest
    10 seconds after they were made.

    :param connection: a :class:`txcouchbase.connection.Connection`, or one for a single request.
    """

    def __init__(self, connection: Managing) -> None:
        self._connection = connection
        self._bucket = connection.bucket

    @inlineCallbacks
    def scopes(self) -> Generator[Any, Any, Manifest]:
        """Return the scopes and collections; fires with a :class:`couchbase.manifest.Manifest`."""
        answer = yield self._manage(ManagerRequest("GET", manifest.scopes_path(self._bucket)))
        return manifest.parse_manifest(answer.value)

    def scope_create(self, name: str) -> Deferred[HttpResult]:
        """Create a scope."""
        return self._change(manifest.create_scope(self._bucket, name))

    def scope_drop(self, name: str) -> Deferred[HttpResult]:
        """Drop a scope with its collections and their documents."""
        return self._change(manifest.drop_scope(self._bucket, name))

    def collection_create(
        self, name: str, scope: str | None = None, max_ttl: int | None = None
    ) -> Deferred[HttpResult]:
        """Create a collection."""
        return self._change(manifest.create_collection(self._bucket, name, scope, max_ttl))

    def collection_update(self, name: str, scope: str | None = None, *, max_ttl: int) -> Deferred[HttpResult]:
        """Change a collection."""
        return self._change(manifest.update_collection(self._bucket, name, scope, max_ttl))

    def collection_drop(self, name: str, scope: str | None = None) -> Deferred[HttpResult]:
        """Drop a collection with its documents."""
        return self._change(manifest.drop_collection(self._bucket, name, scope))

    @inlineCallbacks
    def _change(self, request: ManagerRequest) -> Generator[Any, Any, HttpResult]:
        answer = yield self._manage(request)
        answer._value = decode_body(answer.value, FMT_JSON)
        uid = manifest.uid_of(answer.value)
        if uid is not None:
            status, _, _ = yield self._ask(manifest.ensure_manifest(self._bucket, uid, ENSURE_SECONDS))
            if status == 504:
                raise error_of(exceptions.ETIMEDOUT, "it was done, but not every node knows it yet")
        return answer

    @inlineCallbacks
    def _manage(self, request: ManagerRequest) -> Generator[Any, Any, HttpResult]:
        status, _, body = yield self._ask(request)
        result = HttpResult(0, status, body, request.path)
        if not 200 <= status <= 299:
            result._value = decode_body(body, FMT_JSON)
            error = manifest.refusal(result, self._bucket)
            if isinstance(error, BucketNotFoundError):
                there, _, _ = yield self._ask(ManagerRequest("GET", manifest.bucket_path(self._bucket)))
                error = manifest.not_supported(self._bucket) if there == 200 else error
            raise error
        return result

    def _ask(self, request: ManagerRequest) -> Deferred[tuple[int, dict[str, str], bytes]]:
        if request.form is None:
            return self._connection.management_request(request.method, request.path)
        return self._connection.management_request(
            request.method, request.path, request.form.encode(), {"Content-Type": FORM}
        )
