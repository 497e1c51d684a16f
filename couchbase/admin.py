"""Administration of a cluster: requests to its manager, its buckets, scopes and users."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

from couchbase import exceptions
from couchbase.administration import METHMAP, AdminCommands, Answer, Plan
from couchbase.blocking import http
from couchbase.commands import Commands
from couchbase.driver import Driver
from couchbase.exceptions import CouchbaseError
from couchbase.manifest import Manifest
from couchbase.protocol import operations
from couchbase.protocol.failures import client_error
from couchbase.protocol.request import Operation, Request
from couchbase.result import HttpResult

__all__ = ["METHMAP", "Admin"]


class Admin(Commands, AdminCommands[HttpResult, Manifest]):
    """A session with a cluster's manager, as its administrator.

    Calls block. The session has no bucket: key-value methods raise ClientTemporaryFailError.

    :param username: the administrator's name.
    :param password: the administrator's password.
    :param host: name of any node.
    :param port: port of its cluster manager.
    :param ignored: other keywords, which have no effect.
    :raises AuthError: wrong credentials.
    :raises CouchbaseNetworkError: no connection.
    """

    def __init__(
        self, username: str, password: str, host: str = "localhost", port: int = 8091, **ignored: object
    ) -> None:
        AdminCommands.__init__(self, username, password, host, port)
        self._driver = _NoBucket()
        self._target = self._new_target()
        self._perform(self._check())

    def _new_target(self) -> http.Target:
        return http.Target(self._host, self._port, self._credentials)

    def _perform(self, plan: Plan) -> Any:
        answer: Any = None
        while True:
            try:
                step = plan.send(answer)
            except StopIteration as done:
                return done.value
            found = http.request(
                self._target,
                step.method,
                step.path,
                body=step.body,
                headers=step.headers,
                timeout=self._timeout,
            )
            answer = Answer(found.status, found.body)

    def _seconds(self) -> float:
        return monotonic()

    def __repr__(self) -> str:
        module = type(self).__module__
        return f"<{module}.{type(self).__name__} nodes={self.server_nodes} at 0x{id(self):x}>"


class _NoBucket(Driver[Request]):
    """Refuses operations that need a bucket."""

    def _no_bucket(self, operation: Operation, key: object) -> CouchbaseError:
        request = Request(operation, key, b"")
        return client_error(request, exceptions.CLIENT_ETMPFAIL, "an administrator's session has no bucket")

    def submit(self, request: Request, durability: tuple[int, int] | None = None) -> Any:
        raise self._no_bucket(request.operation, request.key)

    def submit_to_replica(self, request: Request) -> Any:
        raise self._no_bucket(request.operation, request.key)

    def submit_multi(self, requests: Sequence[Any], durability: tuple[int, int] | None = None) -> Any:
        raise self._no_bucket(requests[0].operation, requests[0].key)

    def submit_observe(self, documents: Sequence[Request], master_only: bool, single: bool) -> Any:
        raise self._no_bucket(operations.OBSERVE, documents[0].key)

    def submit_endure(self, documents: Sequence[Request], *options: object) -> Any:
        raise self._no_bucket(operations.ENDURE, documents[0].key)

    def submit_stats(self, groups: Sequence[str]) -> Any:
        raise self._no_bucket(operations.STATS, None)
