"""The cluster for greenlets, which wait concurrently; the hub replaces a blocking call's event loop.

The protocol is handled by :class:`couchbase.blocking.cluster.Cluster`. Here socket events and timers run in
the hub, independently of the greenlets, and an operation's greenlet sleeps until its answers are in. All
operations that greenlets start in one round of the hub are sent together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent import getcurrent, socket
from gevent.event import Event
from gevent.hub import get_hub

from couchbase.blocking.calls import BlockingCall, WaitGroup
from couchbase.blocking.cluster import EARLY_CALLS, Cluster
from couchbase.blocking.http import Target
from couchbase.blocking.node import NodeConnection
from couchbase.exceptions import CLIENT_ETMPFAIL, ObjectThreadError
from couchbase.protocol.failures import client_error
from gcouchbase.loop import Loop, Timers, Watchers, http_connection

SWEEP_SECONDS = 0.05
"""Seconds between two checks of timeouts, so an operation may end this much after its timeout."""
_AN_INSTANT = 0.000_001


class GNodeConnection(NodeConnection):
    """A node whose name is resolved without blocking the hub."""

    _lookup = -1

    @property
    def idle(self) -> bool:
        """Whether there is no connection, and none is being opened."""
        return self._sock is None and self._lookup != self._attempt

    def start(self) -> None:
        """Connect, unless already connecting."""
        if self.idle:
            super().start()

    def _resolve(self) -> None:
        # lose() takes the next number, which ends the attempt with this one.
        self._lookup = self._attempt
        gevent.spawn(self._look_up, self._attempt)

    def _look_up(self, attempt: int) -> None:
        found: Any = ()
        error: Exception | None = None
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as failure:
            error = failure
        if attempt != self._attempt or self.closed:
            return
        self._lookup = -1
        if error is not None:
            self._unresolved(error)
        else:
            self._addresses = list(found)
            self._try_next()
        self._owner.progressed()

    def close(self) -> None:
        """Drop the connection for good."""
        self._attempt += 1
        super().close()


class GWaitGroup(WaitGroup):
    """The calls that one greenlet waits for; it is woken when the last is over."""

    __slots__ = ("_loop", "_open", "began", "calls", "deadline", "greenlet")

    def __init__(self, calls: Sequence[BlockingCall], began: float, deadline: float, loop: Loop) -> None:
        self.calls = calls
        self.began = began
        self.deadline = deadline
        self.greenlet: Any = None
        self._loop = loop
        self._open = len(calls)

    @property
    def remaining(self) -> int:
        """Number of calls that are not over."""
        return self._open

    @remaining.setter
    def remaining(self, count: int) -> None:
        self._open = count
        if not count and self.greenlet is not None:
            # Not immediately: the rest of the received bytes comes first, and all woken greenlets send
            # together.
            self._loop.run_callback(self._wake)

    def _wake(self) -> None:
        greenlet, self.greenlet = self.greenlet, None
        if greenlet is not None:
            greenlet.switch()


class _Dirty(list[NodeConnection]):
    """Nodes that have something to send, which is sent after the runnable greenlets have run."""

    def __init__(self, loop: Loop, flush: Callable[[], None]) -> None:
        super().__init__()
        self._loop = loop
        self._flush = flush

    def append(self, node: NodeConnection) -> None:
        """Add a node."""
        if not self:
            self._loop.run_callback(self._flush)
        super().append(node)


class GCluster(Cluster):
    """Connections to the nodes of one cluster, for one bucket, shared by the greenlets of one thread."""

    node_type = GNodeConnection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seeking: Any = None
        self._use_hub()

    def _use_hub(self) -> None:
        self.selector.close()
        self.hub = get_hub()
        self.selector = Watchers(self._guarded)
        self.dirty = _Dirty(self.hub.loop, self._flush_now)
        self._clock = Timers()
        self._groups: set[GWaitGroup] = set()
        self._sweeping: Any = None
        # Greenlets that wait for any event.
        self._watching: list[Any] = []

    # ---- the loop --------------------------------------------------------------------------------

    def _guarded(self, function: Callable[[int], None], events: int) -> None:
        """Let a node handle its socket."""
        try:
            function(events)
        except Exception as error:  # noqa: BLE001  # no caller could handle it
            function.__self__.lose(error)  # type: ignore[attr-defined]
        self._turned_at = self.seconds()
        self.progressed()

    def progressed(self) -> None:
        """Wake the greenlets that wait for any event."""
        watching, self._watching = self._watching, []
        for waiter in watching:
            waiter.set()
        if self._lost_all and self._groups:
            self._seek()

    def _flush_now(self) -> None:
        self.flush()
        self.progressed()

    def node_lost(self, node: NodeConnection) -> None:
        """Handle a lost or failed connection."""
        super().node_lost(node)
        # Not immediately: the operations that fail with it come first.
        self.hub.loop.run_callback(self.progressed)

    def turn(self, until: float) -> None:
        """Wait for an event, no longer than ``until``, while other greenlets run."""
        left = until - self.seconds()
        if left <= 0:
            # A timer makes the loop check the sockets; their events are handled before the second sleep ends.
            gevent.sleep(_AN_INSTANT)
            gevent.sleep(0)
            return
        waiter = Event()
        self._watching.append(waiter)
        try:
            waiter.wait(left)
        finally:
            if waiter in self._watching:
                self._watching.remove(waiter)

    def call_at(self, when: float, function: Callable[[], None]) -> None:
        """Call a function in the hub at a given time."""

        def call() -> None:
            function()
            self.progressed()

        if not self.closed:
            self._clock.start(when - self.seconds(), call)

    def run(self, calls: Sequence[BlockingCall], deadline: float) -> None:
        """Execute operations and return when all are over; their outcomes are in the calls.

        :raises ObjectThreadError: called in a thread other than the one that made the connection.
        """
        if get_hub() is not self.hub:
            raise ObjectThreadError.pyexc("the connection belongs to the greenlets of another thread")
        group = GWaitGroup(calls, self.seconds(), deadline, self.hub.loop)
        try:
            # The hub may not have run for a while.
            self.catch_up()
            for start in range(0, len(calls), EARLY_CALLS):
                self.start_all(calls[start : start + EARLY_CALLS], group, deadline)
                if start:
                    self.flush()
            if group.remaining:
                self._await(group)
            self._turned_at = self.seconds()
        except BaseException:
            # The greenlet was killed, or timed out; others continue.
            self._give_up(calls)
            raise

    def run_one(self, call: BlockingCall, now: float, deadline: float) -> None:
        """Execute one operation, while other greenlets run."""
        self.run((call,), deadline)

    def _await(self, group: GWaitGroup) -> None:
        self._groups.add(group)
        if self._sweeping is None:
            self._sweeping = self._clock.start(SWEEP_SECONDS, self._sweep, ref=True)
        if self._lost_all:
            self._seek()
        try:
            group.greenlet = getcurrent()
            while group.remaining:
                self.hub.switch()
        finally:
            group.greenlet = None
            self._groups.discard(group)

    def _sweep(self) -> None:
        now = self.seconds()
        for group in [group for group in self._groups if group.deadline <= now]:
            self.time_out_all(group.calls)
            self._drop_silent(group.began)
        self._sweeping = self._clock.start(SWEEP_SECONDS, self._sweep, ref=True) if self._groups else None

    @staticmethod
    def _give_up(calls: Sequence[BlockingCall]) -> None:
        for call in calls:
            call.abandon()

    def wait_for(self, done: Callable[[], bool], deadline: float) -> bool:
        """Wait until a condition is true; return false if the deadline comes first."""
        while not done():
            if self.seconds() >= deadline:
                return False
            self.turn(deadline)
        return True

    def pause(self, until: float) -> None:
        """Let other greenlets run until a given time."""
        gevent.sleep(max(until - self.seconds(), 0.0))

    # ---- the seeds again -------------------------------------------------------------------------

    def _seek(self) -> None:
        """Ask the seeds again, in a greenlet of its own."""
        if self._seeking is None and not self.closed:
            self._seeking = gevent.spawn(self._seek_now)

    def _seek_now(self) -> None:
        try:
            self._rebootstrap(self.seconds() + self.bootstrap_timeout)
        finally:
            self._seeking = None

    def target(self, host: str, port: int) -> Target:
        """Return the target of a request over HTTP."""
        return super().target(host, port)._replace(connector=http_connection)

    # ---- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection; running operations fail."""
        if self.closed:
            return
        if get_hub() is not self.hub:
            # Collected in another thread, which must not touch the loop.
            self.hub.loop.run_callback_threadsafe(self.close)
            return
        seeking, self._seeking = self._seeking, None
        if seeking is not None:
            seeking.kill(block=False)
        for group in list(self._groups):
            for call in group.calls:
                if not call.done:
                    call.leave()
                    call.fail(client_error(call, CLIENT_ETMPFAIL, "the connection was closed"))
        super().close()
        self._clock.close()
        self.progressed()

    def start_anew(self) -> None:
        """In a forked child, leave the connections to the parent process."""
        if not self.closed:
            super().start_anew()
            self._use_hub()
