"""A connection with time limits of its own, for one request among many that share the connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred

from couchbase.protocol.operations import PRESERVE_EXPIRY_FRAMING
from couchbase.protocol.request import Request
from txcouchbase.calls import Call, DeferredCall
from txcouchbase.connection import Connection
from txcouchbase.direct import DirectCall, DirectDriver, refuse_more
from txcouchbase.driver import DeferredDriver

__all__ = ["TimeBudget", "limited", "with_headers"]

_ConnectionT = TypeVar("_ConnectionT", bound=Connection)


class TimeBudget(Protocol):
    """The timeout of a request's operations, in seconds; called before each of them. ``usual`` is the
    connection's own timeout.
    """

    def seconds(self, usual: float) -> float:
        """Return the timeout of the next operation, or of the next request over HTTP."""

    def level_ms(self, usual: int) -> int:
        """Return the cluster's timeout for a durability level, in milliseconds."""

    def write_seconds(self, usual: float) -> float:
        """Return the timeout of a write with a durability level."""

    def copies_seconds(self, usual: float) -> float:
        """Return how long to wait for the copies of ``persist_to`` and ``replicate_to``."""


def limited(connection: _ConnectionT, budget: TimeBudget) -> _ConnectionT:
    """Return another object for the same connection, whose operations have the timeouts of ``budget``.

    Nothing of the connection itself changes. Requests over HTTP (views, design documents) have the time that
    was left when this function was called. The connection stays open at least as long as the object is used.
    """
    other: _ConnectionT = object.__new__(type(connection))
    members: dict[str, Any] = other.__dict__
    members.update(connection.__dict__)
    # Keep a reference: a connection closes when it is collected.
    members["_shared"] = connection
    # Views of collections follow the object that they were made by.
    members["_followers"] = None
    other._driver = _LimitedDriver(connection._driver, budget)  # type: ignore[arg-type]  # always a DeferredDriver
    other._views_timeout = budget.seconds(connection._views_timeout)
    design_seconds = connection.design_timeout
    if design_seconds is None:
        design_seconds = connection._views_timeout
    other.design_timeout = budget.seconds(design_seconds)
    return other


def with_headers(connection: _ConnectionT, headers: Mapping[str, str]) -> _ConnectionT:
    """Return another object for the same connection, whose requests over HTTP (views, design documents, the
    cluster manager) have more headers.

    Nothing of the connection itself changes. It stays open at least as long as the object is used.
    """
    other: _ConnectionT = object.__new__(type(connection))
    members: dict[str, Any] = other.__dict__
    members.update(connection.__dict__)
    members["_shared"] = connection
    members["_followers"] = None
    other._http = connection._http.with_headers(headers)
    return other


def _has_level(request: Request) -> bool:
    return request.framing not in (b"", PRESERVE_EXPIRY_FRAMING)


class _LimitedDriver(DeferredDriver):
    """The driver of such an object: operations are sent each with a deadline of its own."""

    def __init__(self, driver: DeferredDriver, budget: TimeBudget) -> None:
        # The settings are those of the connection's driver.
        self.__dict__.update(driver.__dict__)
        self._shared = driver
        self._budget = budget

    @property
    def timeout(self) -> float:
        """Timeout of an operation that begins now, in seconds."""
        return self._budget.seconds(self._shared.timeout)

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        raise AttributeError("the timeouts of this connection are those of one request")

    @property
    def level_ms(self) -> int:
        """Milliseconds that the cluster has for a durability level that begins now."""
        return self._budget.level_ms(self._shared.level_ms)

    @property
    def durability_timeout(self) -> float:  # type: ignore[override]  # read only
        """How long an operation that begins now waits for its copies, in seconds."""
        return self._budget.copies_seconds(self._shared.durability_timeout)

    def seconds_for(self, call: Call) -> float:
        """Return the timeout of an operation that begins now."""
        return self._budget.write_seconds(self._shared.timeout) if _has_level(call) else self.timeout

    def submit(  # type: ignore[override]  # its connection makes calls of another kind
        self, request: DeferredCall, durability: tuple[int, int] | None = None
    ) -> Any:
        """Send one request separately, since those of a turn have the timeout of the connection."""
        answer: Deferred[Any] = Deferred(request.cancelled)
        request.deferred = answer
        self.send(request, durability)
        return answer

    def send_group(self, calls: Sequence[Any]) -> None:
        """Send the requests of a multi operation."""
        for call in calls:
            self.send(call)

    def direct(self, together: int) -> DirectDriver:
        """Return the driver of operations that report to a receiver."""
        driver = _LimitedDirectDriver(self.turn, together, self.cluster, self.wait)
        driver.budget = self._budget
        return driver


class _LimitedDirectDriver(DirectDriver):
    """Operations that report their outcome to a receiver, with the timeouts of a request."""

    budget: TimeBudget

    @property
    def timeout(self) -> float:
        """Timeout of an operation that begins now, in seconds."""
        return self.budget.seconds(self._turn.timeout)

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        raise AttributeError("the timeouts of this connection are those of one request")

    @property
    def level_ms(self) -> int:
        """Milliseconds that the cluster has for a durability level that begins now."""
        return self.budget.level_ms(int(self._turn.timeout * 900))

    def submit(self, request: DirectCall, durability: tuple[int, int] | None = None) -> DirectCall:
        """Send one request separately."""
        if durability is not None:
            refuse_more()
        self._turn.submit_now(request, self.timeout)
        return request

    def submit_level(self, request: DirectCall) -> DirectCall:
        """Send a synchronous write."""
        self._turn.submit_now(request, self.budget.write_seconds(self._turn.timeout))
        return request
