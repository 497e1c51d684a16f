"""The cluster for greenlets, which wait concurrently; the hub replaces a blocking call's event loop.

The protocol is handled by :class:`couchbase.blocking.cluster.Cluster`. Here socket events and timers run in
the hub, independently of the greenlets, and an operation's greenlet sleeps until its answers are in. The
operations that greenlets start in one round of the hub are queued, then routed, encoded and sent together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent import getcurrent, socket
from gevent.event import Event
from gevent.hub import get_hub

from couchbase.blocking.cluster import EARLY_CALLS, IDLE_SECONDS, Cluster
from couchbase.blocking.http import Target
from couchbase.blocking.node import NodeConnection
from couchbase.exceptions import CLIENT_ETMPFAIL, NETWORK_ERROR, ObjectThreadError
from couchbase.protocol.conversation import Conversation
from couchbase.protocol.failures import client_error
from gcouchbase.calls import GCall, GWaitGroup, Woken
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
        # Operations that were started and not sent yet.
        self._queued: list[GCall] = []
        # Those that greenlets wait for, in the order in which they were started.
        self._waiting: dict[GCall | GWaitGroup, None] = {}
        self._woken = Woken(self.hub.loop, self._wake)
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
        if self._watching:
            watching, self._watching = self._watching, []
            for waiter in watching:
                waiter.set()
        if self._lost_all and self._waiting:
            self._seek()

    def _wake(self) -> None:
        """Run the greenlets whose operations are over; after many, let sockets have their turn."""
        woken = self._woken
        try:
            for _ in range(min(len(woken), EARLY_CALLS)):
                greenlet = woken.popleft().greenlet
                if greenlet is not None:
                    greenlet.switch()
        finally:
            if woken:
                self._clock.start(0.0, self._wake, ref=True)

    def _flush_now(self) -> None:
        self._send_now(())

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

    def run(self, calls: Sequence[Any], deadline: float) -> None:
        """Execute operations and return when all are over; their outcomes are in the calls.

        :raises ObjectThreadError: called in a thread other than the one that made the connection.
        """
        self._check_thread()
        group = GWaitGroup(calls, self.seconds(), deadline, self._woken)
        try:
            # The hub may not have run for a while.
            self.catch_up()
            if calls and calls[0].replica is not None:
                self.start_all(calls, group, deadline)
            else:
                for call in calls:
                    call.group, call.limit = group, deadline
                self._queue(calls)
            self._await(group)
        except BaseException:
            # The greenlet was killed, or timed out; others continue.
            for call in calls:
                call.abandon()
            raise

    def run_one(self, call: Any, now: float, deadline: float) -> None:
        """Execute one operation, while other greenlets run.

        Does what :meth:`run` does for many, in fewer steps.
        """
        hub = self.hub
        if get_hub() is not hub:
            self._check_thread()
        if now - self._turned_at > IDLE_SECONDS:
            self.catch_up()
        queued, waiting = self._queued, self._waiting
        call.group, call.greenlet, call.began, call.limit = self._woken, getcurrent(), now, deadline
        waiting[call] = None
        try:
            if not queued:
                hub.loop.run_callback(self._send_queued)
            queued.append(call)
            while not call.done:
                hub.switch()
        except BaseException:
            call.abandon()
            raise
        finally:
            call.greenlet = None
            del waiting[call]

    def _check_thread(self) -> None:
        if get_hub() is not self.hub:
            raise ObjectThreadError.pyexc("the connection belongs to the greenlets of another thread")

    def _await(self, group: GWaitGroup) -> None:
        waiting = self._waiting
        group.greenlet = getcurrent()
        waiting[group] = None
        self._keep_time()
        if self._lost_all:
            self._seek()
        try:
            while group.remaining:
                self.hub.switch()
        finally:
            group.greenlet = None
            del waiting[group]

    def _queue(self, calls: Sequence[GCall]) -> None:
        """Send operations once the greenlets that can run now have run, together with theirs."""
        if not self._queued:
            self.hub.loop.run_callback(self._send_queued)
        self._queued += calls

    def _send_queued(self) -> None:
        """Send all operations that were started since the last time."""
        # The same list remains: a greenlet may be about to append to it, which a signal handler interrupts.
        calls = self._queued[:]
        self._queued.clear()
        self._keep_time()
        self._send_now(calls)

    def _send_now(self, calls: Sequence[GCall]) -> None:
        """Send operations, and what else there is to send."""
        try:
            for start in range(0, len(calls), EARLY_CALLS):
                # Nodes can start to work while the rest is prepared.
                self._send_together(calls[start : start + EARLY_CALLS])
            self.flush()
        except BaseException as error:
            # For example a signal handler's. A connection may have got half of a request.
            for node in (*self.peers.values(), *self._retired):
                if not node.idle:
                    node.lose(OSError(f"sending was interrupted: {error!r}"))
            self._fail_all(calls, NETWORK_ERROR, "sending was interrupted")
            raise
        self.progressed()

    @staticmethod
    def _fail_all(calls: Sequence[GCall], code: int, why: str) -> None:
        for call in calls:
            if not call.done:
                call.leave()
                call.fail(client_error(call, code, why))

    def _send_together(self, calls: Sequence[GCall]) -> None:
        limit = calls[-1].limit
        touched: Sequence[Conversation] = ()
        if self.closed:
            for call in calls:
                self.unrouted(call)
        elif len(calls) == 1:
            touched = self.send_one(calls[0], limit)
        else:
            touched = self.send_all(calls, limit)
        for conversation in touched:
            conversation.line.flush()
        if self.dirty:
            self.flush()

    def _sweep(self) -> None:
        now = self.seconds()
        late = [waiter for waiter in self._waiting if waiter.limit <= now]
        if late:
            # All together, in the order in which they were started: one may wait behind another.
            self.time_out_all([call for waiter in late for call in waiter.calls])
            self._drop_silent(min(waiter.began for waiter in late))
        self._sweeping = None
        self._keep_time()
        # An operation of a signal handler may have made these run too early.
        if self._queued:
            self.hub.loop.run_callback(self._send_queued)
        if self._woken:
            self.hub.loop.run_callback(self._wake)

    def _keep_time(self) -> None:
        if self._sweeping is None and self._waiting:
            self._sweeping = self._clock.start(SWEEP_SECONDS, self._sweep, ref=True)

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
        calls = [call for waiter in self._waiting for call in waiter.calls]
        self._fail_all(calls, CLIENT_ETMPFAIL, "the connection was closed")
        super().close()
        self._clock.close()
        if self._woken:
            # If there are many, it was a timer that would have woken the rest.
            self.hub.loop.run_callback(self._wake)
        self.progressed()

    def start_anew(self) -> None:
        """In a forked child, leave the connections to the parent process."""
        if not self.closed:
            super().start_anew()
            self._use_hub()
