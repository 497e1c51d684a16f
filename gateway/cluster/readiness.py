"""Whether documents can be served, and why not: for ``/ready`` and the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from couchbase.exceptions import ArgumentError, AuthError
from gateway.cluster.connection import GatewayConnection
from gateway.dialect.errors import describe

__all__ = ["FRESH_SECONDS", "Readiness", "Watch", "reach"]

FRESH_SECONDS = 1.0
"""How long an answer is reused, so that the cost to the cluster does not grow with the number of probes."""

LONGEST_SECONDS = 10.0
"""Timeout of a question to the cluster; after it the answer counts as no."""

WATCH_SECONDS = 5.0

Probe = Callable[[], "Deferred[str | None]"]
"""Finds out whether documents can be served: fires with ``None``, or with one line that says why not."""


def _text(failure: Failure) -> str:
    assert failure.value is not None
    return describe(failure.value, "open").message


class Target(Protocol):
    """The settings that a probe needs."""

    @property
    def cluster(self) -> str | None:
        """Connection string."""

    @property
    def cluster_ca(self) -> str | None:
        """PEM file of certificates to trust."""

    @property
    def cluster_cert(self) -> str | None:
        """PEM file of the client certificate."""

    @property
    def cluster_key(self) -> str | None:
        """PEM file of its private key."""

    @property
    def timeout(self) -> float:
        """Timeout of one operation, in seconds."""


def reach(settings: Target, reactor: IReactorTime) -> Deferred[str | None]:
    """Find out without a password whether callers with a password can use a node of the cluster.

    It is enough if one node speaks the key-value protocol, over TLS if required, and asks for a login; or one
    cluster manager, where the connection string names those.

    :param settings: address of the cluster, and certificates to use.
    :returns: see :data:`Probe`; the line names each host and port that was tried, with the error.
    """
    try:
        connection = GatewayConnection(
            bucket=None,
            connection_string=settings.cluster,
            certpath=settings.cluster_ca,
            client_cert=settings.cluster_cert,
            client_key=settings.cluster_key,
            timeout=settings.timeout,
            reactor=reactor,
        )
    except ArgumentError as error:
        # A certificate file that was valid when the gateway started.
        return succeed(str(error.message))

    def failed(failure: Failure) -> str | None:
        if failure.check(AuthError):
            return None
        return connection.problem or _text(failure)

    def close(outcome: Any) -> Any:
        connection._close()
        return outcome

    asked: Deferred[Any] = connection.connect()
    return asked.addCallbacks(lambda _: None, failed).addBoth(close)


class Readiness:
    """Asks a probe, one question at a time.

    :param probe: called at most once in :data:`FRESH_SECONDS`.
    """

    def __init__(self, clock: IReactorTime, probe: Probe) -> None:
        self._clock = clock
        self._probe = probe
        self._waiting: list[Deferred[str | None]] | None = None
        self._asked: Deferred[Any] | None = None
        self._answer: str | None = None
        self._until = float("-inf")

    def check(self) -> Deferred[str | None]:
        """Return a Deferred of ``None`` if documents can be served, else of the reason; cancelling it is
        safe."""
        if self._clock.seconds() < self._until:
            return succeed(self._answer)
        waiter: Deferred[str | None] = Deferred(self._forget)
        if self._waiting is not None:
            self._waiting.append(waiter)
            return waiter
        self._waiting = [waiter]
        asked = self._asked = maybeDeferred(self._probe)
        asked.addTimeout(LONGEST_SECONDS, self._clock, lambda *_: "the cluster did not answer in time")
        asked.addErrback(_text)
        asked.addCallback(self._answered)
        return waiter

    def close(self) -> None:
        """Cancel an open question."""
        if self._asked is not None:
            self._asked.cancel()

    def _forget(self, waiter: Deferred[str | None]) -> None:
        if self._waiting is not None and waiter in self._waiting:
            self._waiting.remove(waiter)

    def _answered(self, answer: str | None) -> None:
        self._asked = None
        self._answer = answer
        self._until = self._clock.seconds() + FRESH_SECONDS
        waiting, self._waiting = self._waiting or [], None
        for waiter in waiting:
            waiter.callback(answer)


class Watch:
    """Reports when the cluster becomes usable, and when it ceases to be.

    :param changed: called with the reason, ``None`` if it is usable now; first with the initial state.
    """

    def __init__(
        self, clock: IReactorTime, readiness: Readiness, changed: Callable[[str | None], None]
    ) -> None:
        self._readiness = readiness
        self._changed = changed
        self._is_usable: bool | None = None
        self._asked: Deferred[Any] | None = None
        self._calls = LoopingCall(self._look)
        self._calls.clock = clock

    def start(self) -> None:
        """Check now, and from time to time."""
        self._calls.start(WATCH_SECONDS)

    def stop(self) -> None:
        """Stop checking."""
        if self._calls.running:
            self._calls.stop()
        if self._asked is not None:
            self._asked.cancel()

    def _look(self) -> Deferred[None]:
        self._asked = self._readiness.check()
        # It was cancelled by stop().
        return self._asked.addCallbacks(self._found, lambda _: None)

    def _found(self, reason: str | None) -> None:
        self._asked = None
        if (reason is None) != self._is_usable:
            self._is_usable = reason is None
            self._changed(reason)
