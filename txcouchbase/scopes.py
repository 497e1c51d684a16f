"""Management of the scopes and collections of a connection's bucket."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

from twisted.internet.defer import Deferred, inlineCallbacks

from couchbase import manifest
from couchbase.administration import Answer, Plan, change_plan, scopes_plan
from couchbase.manifest import ManagerRequest, Manifest
from couchbase.result import HttpResult

__all__ = ["ScopeManager"]

ENSURE_SECONDS = 10.0
"""How long a change waits until all nodes have it, in seconds."""


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
    :class:`couchbase.admin.Admin` of the same name. The Deferred of a change fires when all nodes have it, at
    the latest 10 seconds after it was made.

    :param connection: a :class:`txcouchbase.connection.Connection`, or one for a single request.
    """

    def __init__(self, connection: Managing) -> None:
        self._connection = connection
        self._bucket = connection.bucket

    def scopes(self) -> Deferred[Manifest]:
        """Return the scopes and collections; fires with a :class:`couchbase.manifest.Manifest`."""
        return self._perform(scopes_plan(self._bucket))

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

    def _change(self, request: ManagerRequest) -> Deferred[HttpResult]:
        return self._perform(change_plan(self._bucket, request, lambda: ENSURE_SECONDS))

    @inlineCallbacks
    def _perform(self, plan: Plan) -> Generator[Any, Any, Any]:
        ask = self._connection.management_request
        step = next(plan)
        while True:
            status, _, body = yield ask(step.method, step.path, step.body, step.headers)
            try:
                step = plan.send(Answer(status, body))
            except StopIteration as done:
                return done.value
