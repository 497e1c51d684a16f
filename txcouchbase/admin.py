"""Administration of a cluster with Deferreds: its buckets, scopes and users."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from couchbase.administration import AdminCommands, Answer, Plan, Question
from couchbase.manifest import Manifest
from couchbase.protocol.handshake import Credentials
from couchbase.result import HttpResult
from reactor.kinds import IReactor
from txcouchbase.http import HttpService

__all__ = ["Admin"]


class Admin(AdminCommands[Deferred[HttpResult], Deferred[Manifest]]):
    """A session with a cluster's manager, as its administrator.

    Its methods have the names and arguments of :class:`couchbase.admin.Admin`. Each returns a Deferred that
    fires with the result, or fails with the exception of the method of the same name; an invalid argument
    raises ArgumentError at once. Cancelling it abandons the request, which may still be executed.

    :param username: the administrator's name.
    :param password: the administrator's password.
    :param host: name of any node.
    :param port: port of its cluster manager.
    :param reactor: Twisted's by default.
    """

    def __init__(
        self,
        username: str,
        password: str,
        host: str = "localhost",
        port: int = 8091,
        *,
        reactor: IReactor | None = None,
    ) -> None:
        super().__init__(username, password, host, port)
        if reactor is None:
            from twisted.internet import reactor as installed

            reactor = installed  # type: ignore[assignment]
        self._reactor: Any = reactor
        self._http = HttpService(_Client(self._reactor, self._credentials))
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._base = f"http://{host}:{port}"

    def connect(self) -> Deferred[Admin]:
        """Check the credentials; fires with this session.

        Calling it is optional: every method works without it, and fails if the credentials are wrong.

        :raises AuthError: wrong credentials.
        :raises CouchbaseNetworkError: no connection.
        """
        checked: Deferred[Any] = self._perform(self._check())
        return checked.addCallback(lambda _: self)

    def close(self) -> Deferred[Any]:
        """Close idle connections; fires when they are closed."""
        return self._http.close()

    def _perform(self, plan: Plan) -> Deferred[Any]:
        # Up to the first request only arguments are checked: wrong ones raise here, as with connections.
        return self._carry_out(plan, next(plan))

    @inlineCallbacks
    def _carry_out(self, plan: Plan, step: Question) -> Generator[Any, Any, Any]:
        while True:
            status, _, body = yield self._http.ask(
                self._base,
                step.method,
                step.path,
                body=step.body,
                headers=step.headers,
                timeout=self._timeout,
            )
            try:
                step = plan.send(Answer(status, body))
            except StopIteration as done:
                return done.value

    def _seconds(self) -> float:
        return float(self._reactor.seconds())

    def __repr__(self) -> str:
        return f"<txcouchbase.admin.Admin nodes={self.server_nodes} at 0x{id(self):x}>"


class _Client:
    """The part of a client that HTTP requests need."""

    tls = None
    tls_policy = None
    agent = "txcouchbase"

    def __init__(self, reactor: Any, credentials: Credentials) -> None:
        self.reactor = reactor
        self.credentials = credentials

    def seconds(self) -> float:
        """Return the time."""
        return float(self.reactor.seconds())
