"""Whether documents can be served, and why not: for ``/ready`` and the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from couchbase.exceptions import ArgumentError, AuthError
from gateway.cluster.connection import GatewayConnection
from gateway.dialect.errors import describe

__all__ = ["FRESH_SECONDS", "Readiness", "Watch", "reach"]

FRESH_SECONDS = 1.0
"""For so long an answer is given again, so that probes cost the cluster the same however many there are."""

LONGEST_SECONDS = 10.0
"""After this a question that the cluster leaves open counts as answered: no."""

WATCH_SECONDS = 5.0

Probe = Callable[[], "Deferred[str | None]"]
"""Finds out whether documents can be served: fires with ``None``, or with one line that says why not."""


def _text(failure: Failure) -> str:
    assert failure.value is not None
    return describe(failure.value, "open").message


class Target(Protocol):
    """What is asked of settings."""

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
        """Of one operation, in seconds."""


def reach(settings: Target, reactor: Any) -> Deferred[str | None]:
    """Find out without a password whether a node of the cluster can be used by those who have one.

    It suffices that one node speaks the key-value protocol, over TLS if that is wanted, and asks for a login,
    or that one cluster manager does where the connection string names these.

    :param settings: say where the cluster is, and which certificates to use.
    :returns: see :data:`Probe`; the line names each host and port that was tried, and what happened there.
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
        # A file of certificates that was good when the gateway started.
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

    :param probe: is asked at most once in :data:`FRESH_SECONDS`.
    """

    def __init__(self, clock: Any, probe: Probe) -> None:
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
        """Give up a question that is open."""
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
    """Tells when the cluster becomes usable, and when it ceases to be.

    :param changed: called with the reason, ``None`` if it is usable now; first of all with how it is.
    """

    def __init__(self, clock: Any, readiness: Readiness, changed: Callable[[str | None], None]) -> None:
        self._readiness = readiness
        self._changed = changed
        self._is_usable: bool | None = None
        self._asked: Deferred[Any] | None = None
        self._calls = LoopingCall(self._look)
        self._calls.clock = clock

    def start(self) -> None:
        """Look now, and from time to time."""
        self._calls.start(WATCH_SECONDS)

    def stop(self) -> None:
        """Look no more."""
        if self._calls.running:
            self._calls.stop()
        if self._asked is not None:
            self._asked.cancel()

    def _look(self) -> Deferred[None]:
        self._asked = self._readiness.check()
        # Cancelled by the stop.
        return self._asked.addCallbacks(self._found, lambda _: None)

    def _found(self, reason: str | None) -> None:
        self._asked = None
        if (reason is None) != self._is_usable:
            self._is_usable = reason is None
            self._changed(reason)
