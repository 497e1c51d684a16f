"""Time limits of single requests: ``X-CB-Timeout``, ``X-CB-DurabilityTimeout``, and the members of a batch.

The driver has one timeout for a connection, which all callers share. A request with limits of its own gets
the connection as a :class:`TimedConnection`, which starts each operation with the time that is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from couchbase import exceptions
from gateway.cluster.bulk import Lane
from gateway.cluster.connection import GatewayConnection
from gateway.dialect.errors import Refusal, bad_request
from gateway.dialect.expiry import parse_duration
from gateway.http.known import Known
from gateway.http.request import Request
from txcouchbase.direct import PreparedStore
from txcouchbase.limited import TimeBudget

__all__ = [
    "MAX_LEVEL_SECONDS",
    "MAX_SECONDS",
    "TimeLimits",
    "TimedConnection",
    "limits_of",
    "parse_seconds",
    "parse_time_limits",
    "within_limits",
]

MIN_SECONDS = 0.001
MAX_SECONDS = 300.0
"""Longest time limit of a request."""

MAX_LEVEL_SECONDS = 65.0
"""Longest timeout of a durability level that a frame can carry: 16 bits of milliseconds."""

LEVEL_SHARE = 0.9
"""Share of an operation's timeout that the driver grants the cluster for a durability level."""

_PLAIN_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?")


class TimeLimits(NamedTuple):
    """How long a request may take at the cluster, in seconds; ``None`` for the default."""

    timeout: float | None = None
    """Limit for all of it."""
    durability: float | None = None
    """Limit for the copies, or the durability level, that a write waits for."""


NO_LIMITS = TimeLimits()


# What was read before; valid limits are short.
_known: Known[tuple[bytes | None, bytes | None], TimeLimits] = Known(256)


def parse_seconds(text: str, name: str, high: float = MAX_SECONDS) -> float:
    """Read a time limit: a duration in Go's notation, or a number of seconds.

    :param name: its name in the error message.
    :raises Refusal: 400, naming the format and the range.
    """
    if _PLAIN_SECONDS.fullmatch(text):
        text += "s"
    nanoseconds = parse_duration(text)
    if nanoseconds is None or not MIN_SECONDS <= nanoseconds / 1e9 <= high:
        raise bad_request(
            f"{name}: {text[:80]!r} is not a time limit: a duration as in '500ms' or '1m30s', or a number of "
            f"seconds, from 1ms to {high:g}s"
        )
    return nanoseconds / 1e9


def parse_time_limits(timeout: str | None, durability: str | None, *names: str) -> TimeLimits:
    """Read both limits.

    :param names: the names of the two in error messages.
    :raises Refusal: 400.
    """
    if timeout is None and durability is None:
        return NO_LIMITS
    return TimeLimits(
        None if timeout is None else parse_seconds(timeout, names[0]),
        None if durability is None else parse_seconds(durability, names[1]),
    )


class TimedConnection(TimeBudget):
    """A connection for one request: each operation gets the rest of the request's time as its timeout.

    It has the attributes of the connection. Operations fail with TimeoutError when the time is over.

    :param connection: a :class:`gateway.cluster.connection.GatewayConnection`, or one of its lane's; nothing
        of it changes.
    :param clock: the reactor's time.
    :param deadline: when the request's time is over; ``None`` to begin now.
    """

    def __init__(
        self,
        connection: GatewayConnection | None,
        limits: TimeLimits,
        clock: IReactorTime,
        deadline: float | None = None,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._usual: Any = connection
        # A single operation that begins now has all of the time.
        self._all = limits.timeout if deadline is None and limits.durability is None else None
        if deadline is None and limits.timeout is not None:
            deadline = clock.seconds() + limits.timeout
        self._deadline = deadline

    @cached_property
    def connection(self) -> Any:
        """The connection with these limits; made on demand, as most requests are one operation."""
        return self._usual.limited(self)

    @property
    def operations(self) -> Any:
        """Operations that report their outcome to a receiver."""
        return _Operations(self) if self._all is None else self._usual.timed_operations[self._all]

    @property
    def bulk(self) -> Any:
        """The lane for large operations, with the same limits."""
        lane = self._usual.bulk
        return None if lane is None else _TimedLane(self, lane)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.connection, name)
        return partial(self.start, found) if callable(found) else found

    def within(self, scope: str, collection: str) -> TimedConnection:
        """Return another connection with the same limits and deadline, for the documents of a collection."""
        other = TimedConnection(
            self._usual.within(scope, collection), self._limits, self._clock, self._deadline
        )
        other._all = self._all
        return other

    def on(self, connection: GatewayConnection) -> TimedConnection:
        """Return another connection with the same limits and deadline."""
        return TimedConnection(connection, self._limits, self._clock, self._deadline)

    # ---- the budget ------------------------------------------------------------------------------

    def seconds(self, usual: float) -> float:
        """Return the seconds that are left, ``usual`` if there is no limit."""
        if self._deadline is None:
            return usual
        return max(self._deadline - self._clock.seconds(), MIN_SECONDS)

    def level_ms(self, usual: int) -> int:
        """Return how long the cluster may take for a durability level: the limit, or the share that a driver
        grants of the time that is left, whichever is less."""
        waits = self._limits.durability
        if self._deadline is not None:
            usual = int(self.seconds(0) * LEVEL_SHARE * 1000)
        if waits is None:
            return usual
        most = round(waits * 1000)
        return most if self._deadline is None else min(most, usual)

    def write_seconds(self, usual: float) -> float:
        """Return the timeout of a write with a durability level."""
        waits = self._limits.durability
        if waits is None:
            return self.seconds(usual)
        # The cluster has its share of the operation's time.
        return min(waits / LEVEL_SHARE, self.seconds(waits / LEVEL_SHARE))

    def copies_seconds(self, usual: float) -> float:
        """Return how long to wait for copies."""
        waits = self._limits.durability
        return self.seconds(usual) if waits is None else min(waits, self.seconds(waits))

    # ---- calls -----------------------------------------------------------------------------------

    def check_level(self, options: Mapping[str, object]) -> None:
        """Check the limit for an operation with these arguments; raises Refusal (400) if it is too long for a
        durability level."""
        waits = self._limits.durability
        if waits is not None and waits > MAX_LEVEL_SECONDS and options.get("durability_level"):
            raise bad_request(
                f"X-CB-DurabilityTimeout: with a level it may be {MAX_LEVEL_SECONDS:g}s at most"
            )

    def start(self, method: Callable[..., Any], *args: object, **options: object) -> Any:
        """Call a method of the connection, and watch the Deferred that it returns.

        :raises Refusal: 400, the limit is too long for a durability level.
        """
        self.check_level(options)
        started = method(*args, **options)
        if self._deadline is not None and isinstance(started, Deferred) and not started.called:
            # For operations that have no limit in the driver, or a separate one for each step.
            started.addTimeout(self.seconds(0) + _LATE_SECONDS, self._clock, _timed_out)
        return started


_LATE_SECONDS = 0.1
"""Extra time for the driver to report the timeout itself, with its details."""


class _Operations:
    """Operations that report their outcome to a receiver."""

    def __init__(self, timed: TimedConnection) -> None:
        self._timed = timed

    def store(self, prepared: PreparedStore, *arguments: Any) -> Any:
        """See :meth:`txcouchbase.direct.Direct.store`.

        :raises Refusal: 400, the limit is too long for a durability level.
        """
        self._timed.check_level(prepared.options)
        return self._timed.start(self._timed.connection.operations.store, prepared, *arguments)

    def __getattr__(self, name: str) -> Any:
        return partial(self._timed.start, getattr(self._timed.connection.operations, name))


class _TimedLane:
    """A :class:`gateway.cluster.bulk.Lane` with the limits of one request."""

    def __init__(self, timed: TimedConnection, lane: Lane) -> None:
        self._timed = timed
        self._lane = lane

    def seconds_for(self, size: int) -> float:
        """Return how long an operation on a document of that many bytes may wait."""
        return self._timed.seconds(self._lane.seconds_for(size))

    def carry_out(self, size: int, begin: Callable[[Any], Any]) -> Deferred[Any]:
        """See :meth:`gateway.cluster.bulk.Lane.carry_out`."""
        carried_out: Deferred[Any] = self._lane.carry_out(
            size, lambda bulk: begin(self._timed.on(bulk)), self.seconds_for(size)
        )
        return carried_out


def _timed_out(_: object, seconds: float) -> Any:
    raise exceptions.TimeoutError.pyexc("the request's time limit is over")


def limits_of(request: Request) -> TimeLimits:
    """Return the limits that a request's headers set.

    :param request: has one of the headers.
    :raises Refusal: 400.
    """
    limits: TimeLimits | None = request.selective.limits
    if limits is None:
        limits = request.selective.limits = _read_limits(request)
    return limits


def within_limits(
    connection: GatewayConnection | Deferred[GatewayConnection], limits: TimeLimits, clock: IReactorTime
) -> GatewayConnection | TimedConnection | Deferred[Any]:
    """Return a connection, or a Deferred of it, with the limits of a request."""
    if type(connection) is Deferred:
        return wait_for_connection(connection, limits, clock)
    return TimedConnection(connection, limits, clock)  # type: ignore[arg-type]  # by now


def _read_limits(request: Request) -> TimeLimits:
    headers = request.headers
    given: Any = headers.get(b"x-cb-timeout"), headers.get(b"x-cb-durabilitytimeout")
    try:
        return _known[given]
    except (KeyError, TypeError):
        # Not known, or a list: a header that is given twice, which is refused.
        limits = parse_time_limits(
            request.text_header(b"X-CB-Timeout"),
            request.text_header(b"X-CB-DurabilityTimeout"),
            "X-CB-Timeout",
            "X-CB-DurabilityTimeout",
        )
        return _known.learn(given, limits)


def wait_for_connection(opened: Deferred[Any], limits: TimeLimits, clock: IReactorTime) -> TimedConnection:
    """Limit the wait for a connection; fires with the connection for this request."""
    timed = TimedConnection(None, limits, clock)
    if limits.timeout is not None:
        opened.addTimeout(limits.timeout, clock, _not_open_in_time)
    return opened.addCallback(timed.on)  # type: ignore[return-value]


def _not_open_in_time(outcome: object, seconds: float) -> Failure:
    return Failure(
        Refusal("DeadlineExceeded", f"There was no connection to the cluster within {seconds:g} s.")
    )
