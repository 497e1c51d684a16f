"""Open connections to the cluster, one per (bucket, user).

A connection is handed out only for credentials that the cluster has confirmed: those whose hash it was opened
with. Others are confirmed by opening a connection with them, so that a wrong password neither gains access to
another's connection nor disturbs it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hmac import compare_digest
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from couchbase.exceptions import AuthError, BucketNotFoundError, CouchbaseError
from couchbase.protocol.constants import Status
from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import CallerCredentials
from gateway.dialect.errors import Refusal
from reactor.clock import stopwatch_of

__all__ = ["Connect", "ConnectionPool", "IsHidden", "NoAccessError"]

Connect = Callable[["str | None", str, str], GatewayConnection]
"""(bucket or ``None``, user, password) -> a ``Connection`` that is not connected yet; may refuse."""

IsHidden = Callable[[str, str, str], "Deferred[bool]"]
"""(bucket, user, password) -> whether the cluster hides from this user if the bucket exists."""

_Key = tuple["str | None", str]
_Credential = tuple["str | None", str, bytes]

FAILURES_KEPT = 1024


class NoAccessError(Exception):
    """The user may neither use the bucket nor know whether it exists."""


class _Entry:
    __slots__ = ("connection", "digest", "last_used", "verified_until")

    def __init__(
        self, connection: GatewayConnection, digest: bytes, now: float, verified_until: float
    ) -> None:
        self.connection = connection
        self.digest = digest
        self.last_used = now
        self.verified_until = verified_until

    def recognises(self, digest: bytes) -> bool:
        """Return whether a digest equals that of the connection, which it then replaces."""
        is_equal = compare_digest(self.digest, digest)
        if is_equal:
            self.digest = digest
        return is_equal


class ConnectionPool:
    """Hands out connections, opens them, and closes unused ones.

    :param connect: makes connections.
    :param max_connections: most connections kept; beyond, the least recently used one is closed.
    :param idle_seconds: idle time after which a connection is closed.
    :param verify_seconds: time after which the cluster is asked to confirm credentials again.
    :param failure_seconds: how long a refusal by the cluster is remembered, so that a client that keeps
        trying a wrong password does not burden the cluster.
    :param max_opening: connections being opened at once; the others queue.
    :param max_waiting: length of that queue; beyond it callers get 503 Overloaded.
    :param grace_seconds: how long a replaced connection may finish its operations.
    :param is_hidden: called when the cluster refuses a bucket: over the key-value protocol it answers the
        same for a bucket that does not exist and for one that the user may not use. If the user may not know
        the difference, callers get :class:`NoAccessError`. ``None``: always BucketNotFoundError.
    """

    _log = Logger()

    # Many parameters: the options of the pool; keywords.
    def __init__(
        self,
        connect: Connect,
        clock: IReactorTime,
        *,
        max_connections: int = 64,
        idle_seconds: float = 300.0,
        verify_seconds: float = 300.0,
        failure_seconds: float = 2.0,
        max_opening: int = 8,
        max_waiting: int = 256,
        grace_seconds: float = 10.0,
        is_hidden: IsHidden | None = None,
    ) -> None:
        self._connect = connect
        self._is_hidden = is_hidden
        self._clock = clock
        self._seconds = stopwatch_of(clock)
        self._max_connections = max_connections
        self._idle_seconds = idle_seconds
        self._verify_seconds = verify_seconds
        self._failure_seconds = failure_seconds
        self._max_opening = max_opening
        self._max_waiting = max_waiting
        self._grace_seconds = grace_seconds
        self._entries: dict[_Key, _Entry] = {}
        self._openings: dict[_Credential, list[Deferred[Any]]] = {}
        self._queue: OrderedDict[_Credential, CallerCredentials] = OrderedDict()
        self._active = 0
        self._attempts: set[Any] = set()
        # By bucket and digest: a name that nobody has confirmed may be nearly as long as a head.
        self._failures: OrderedDict[tuple[str | None, bytes], tuple[float, Any]] = OrderedDict()
        self._leases: dict[Any, int] = {}
        self._retired: dict[Any, IDelayedCall | None] = {}
        self._closed = False
        self._sweeper = LoopingCall(self._sweep)
        self._sweeper.clock = clock

    def start(self) -> None:
        """Begin to close idle connections."""
        self._sweeper.start(max(1.0, self._idle_seconds / 10), now=False)

    def __len__(self) -> int:
        """Return the number of open connections, in use or idle."""
        return len(self._entries)

    def connection(self, bucket: str | None, caller: CallerCredentials) -> Any:
        """Return the connection for a caller, or a Deferred of it.

        :param bucket: its name; ``None`` for a session with the cluster only.
        :returns: a ``Connection`` at once if the cluster has confirmed the caller recently; else a Deferred
            that fails with the SDK's exception, or :class:`Refusal`. Cancelling it is safe.
        """
        entry = self._entries.get((bucket, caller.user))
        # The same object needs no comparison: an earlier request of this caller stored it here.
        if entry is not None and (entry.digest is caller.digest or entry.recognises(caller.digest)):
            now = self._seconds()
            if now < entry.verified_until and not entry.connection.closed:
                entry.last_used = now
                return entry.connection
        return self._confirm(bucket, caller)

    def lease(self, connection: GatewayConnection) -> None:
        """Keep a connection open, in any case, until :meth:`release`."""
        self._leases[connection] = self._leases.get(connection, 0) + 1

    def release(self, connection: GatewayConnection) -> None:
        """Give a leased connection back."""
        left = self._leases[connection] - 1
        if left:
            self._leases[connection] = left
            return
        del self._leases[connection]
        if connection in self._retired:
            self._close_retired(connection)

    def close(self) -> None:
        """Close every connection; later requests are refused."""
        self._closed = True
        if self._sweeper.running:
            self._sweeper.stop()
        for entry in self._entries.values():
            entry.connection._close()
        self._entries.clear()
        for connection in list(self._retired):
            self._close_retired(connection)
        for connection in list(self._attempts):
            connection._close()
        self._queue.clear()
        openings, self._openings = self._openings, {}
        for waiters in openings.values():
            for waiter in waiters:
                waiter.errback(Refusal("ShuttingDown"))

    # ---- confirming credentials ------------------------------------------------------------------

    def _confirm(self, bucket: str | None, caller: CallerCredentials) -> Deferred[Any]:
        if self._closed:
            return fail(Refusal("ShuttingDown"))
        credential = (bucket, caller.user, caller.digest)
        known = self._failures.get((bucket, caller.digest))
        if known is not None:
            if self._seconds() < known[0]:
                return fail(known[1])
            del self._failures[bucket, caller.digest]
        waiters = self._openings.get(credential)
        if waiters is None:
            if len(self._queue) >= self._max_waiting:
                return fail(Refusal("Overloaded", "Too many connections are being opened."))
            waiters = self._openings[credential] = []
            self._queue[credential] = caller
            waiter = self._wait(waiters)
            self._open_next()
            return waiter
        return self._wait(waiters)

    def _wait(self, waiters: list[Deferred[Any]]) -> Deferred[Any]:
        waiter: Deferred[Any] = Deferred(waiters.remove)
        waiters.append(waiter)
        return waiter

    def _open_next(self) -> None:
        while self._queue and self._active < self._max_opening:
            credential, caller = self._queue.popitem(last=False)
            self._active += 1
            try:
                connection = self._connect(credential[0], caller.user, caller.password)
            except (Refusal, CouchbaseError):
                self._active -= 1
                self._answer(credential, Failure())
                continue
            self._attempts.add(connection)
            opened: Deferred[Any] = connection.connect()
            opened.addCallbacks(
                self._opened,
                self._refused,
                callbackArgs=(credential, connection),
                errbackArgs=(credential, connection, caller),
            )
            opened.addErrback(lambda failure: self._log.failure("opening a connection", failure))

    def _opened(self, _: object, credential: _Credential, connection: GatewayConnection) -> None:
        self._done_opening(connection)
        if self._closed:
            connection._close()
            return
        key = credential[:2]
        now = self._seconds()
        entry = self._entries.get(key)
        if entry is not None and compare_digest(entry.digest, credential[2]) and not entry.connection.closed:
            # It was opened for confirmation only: the existing connection is warmed up.
            entry.verified_until = now + self._verify_seconds
            entry.last_used = now
            connection._close()
        else:
            if entry is not None:
                self._retire(key)
            if len(self._entries) >= self._max_connections and not self._make_room():
                connection._close()
                self._answer(credential, Failure(Refusal("Overloaded", "All connections are in use.")))
                return
            entry = _Entry(connection, credential[2], now, now + self._verify_seconds)
            self._entries[key] = entry
        self._answer(credential, entry.connection)

    def _refused(
        self,
        failure: Failure,
        credential: _Credential,
        connection: GatewayConnection,
        caller: CallerCredentials,
    ) -> Deferred[None] | None:
        connection._close()
        bucket = credential[0]
        error: Any = failure.value
        if (
            bucket is not None
            and self._is_hidden is not None
            and isinstance(error, BucketNotFoundError)
            and error.status == Status.EACCESS
        ):
            asked = self._is_hidden(bucket, caller.user, caller.password)
            asked.addErrback(lambda _: False)
            return asked.addCallback(self._explained, failure, credential, connection)
        self._remember(failure, credential, connection)
        return None

    def _explained(
        self, is_hidden: bool, failure: Failure, credential: _Credential, connection: GatewayConnection
    ) -> None:
        self._remember(Failure(NoAccessError()) if is_hidden else failure, credential, connection)

    def _remember(self, failure: Failure, credential: _Credential, connection: GatewayConnection) -> None:
        """Answer waiting callers with the cluster's refusal, and new ones for a while."""
        self._done_opening(connection)
        if failure.check(AuthError, BucketNotFoundError, NoAccessError):
            failure.cleanFailure()
            until = self._seconds() + self._failure_seconds
            self._failures[credential[0], credential[2]] = (until, failure.value)
            while len(self._failures) > FAILURES_KEPT:
                self._failures.popitem(last=False)
            key = credential[:2]
            entry = self._entries.get(key)
            if entry is not None and compare_digest(entry.digest, credential[2]):
                self._retire(key)  # the password was valid once, and is no longer
        self._answer(credential, failure)

    def _done_opening(self, connection: GatewayConnection) -> None:
        self._active -= 1
        self._attempts.discard(connection)
        self._open_next()

    def _answer(self, credential: _Credential, outcome: GatewayConnection | Failure) -> None:
        for waiter in self._openings.pop(credential, ()):
            waiter.callback(outcome)

    # ---- closing ---------------------------------------------------------------------------------

    def _retire(self, key: _Key) -> None:
        connection = self._entries.pop(key).connection
        self._retired[connection] = self._clock.callLater(self._grace_seconds, self._grace_over, connection)

    def _grace_over(self, connection: GatewayConnection) -> None:
        self._retired[connection] = None
        if connection not in self._leases:
            self._close_retired(connection)

    def _close_retired(self, connection: GatewayConnection) -> None:
        timer = self._retired.pop(connection)
        if timer is not None:
            timer.cancel()
        connection._close()

    def _make_room(self) -> bool:
        """Retire the least recently used connection that is not leased."""
        free = [key for key, entry in self._entries.items() if entry.connection not in self._leases]
        if not free:
            return False
        self._retire(min(free, key=lambda key: self._entries[key].last_used))
        return True

    def _sweep(self) -> None:
        now = self._seconds()
        idle = [
            key
            for key, entry in self._entries.items()
            if now - entry.last_used >= self._idle_seconds and entry.connection not in self._leases
        ]
        for key in idle:
            self._retire(key)
        for failed in [known for known, (until, _) in self._failures.items() if until <= now]:
            del self._failures[failed]
