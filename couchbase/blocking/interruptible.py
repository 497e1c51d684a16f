"""A cluster whose operations may be interrupted by a signal handler that executes operations on it, too."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from couchbase.blocking.calls import BlockingCall
from couchbase.blocking.cluster import Cluster
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE
from couchbase.user_constants import LOCKMODE_NONE


class InterruptibleCluster(Cluster):
    """The cluster of a connection without a lock.

    Python calls a signal handler between any two instructions. If the interrupted operation waits for its
    sockets, the handler's operation shares them, and ends the wait, as it may have received the answer.
    Otherwise requests may be half written, and answers half read; then it has connections of its own, which
    are opened for the first such operation and kept.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_busy = False
        # How many operations wait, each of them interrupted by the next.
        self._waits = 0
        self._single: BlockingCall | None = None
        self._spare: InterruptibleCluster | None = None
        self._let_in()

    def _let_in(self) -> None:
        """Note when the selector waits."""
        selector, handlers = self.selector, self.selector._handlers
        poll = selector.poll

        def wait(seconds: float) -> list[tuple[int, int]]:
            self._waits, was_busy, self._is_busy = self._waits + 1, self._is_busy, False
            try:
                found: list[tuple[int, int]] = poll(seconds)
            finally:
                self._is_busy, self._waits = was_busy, self._waits - 1
            # A handler's operation may have closed a socket since.
            return [(number, events) for number, events in found if number in handlers]

        selector.poll = wait

    def renew_selector(self) -> None:
        """Forget sockets and timers, after a fork."""
        super().renew_selector()
        self._is_busy, self._waits, self._spare = False, 0, None
        self._let_in()

    def run(self, calls: Sequence[BlockingCall], deadline: float) -> None:
        """Execute operations and return when all are over; their outcomes are in the calls."""
        if self._is_busy:
            # One whose direct way has ended in the loop is the same operation.
            if self._single is not None and calls[0] is self._single:
                super().run(calls, deadline)
            else:
                self._spare_for(calls).run(calls, deadline)
            return
        self._is_busy, before = True, self._single
        try:
            super().run(calls, deadline)
        finally:
            self._leave(before)

    def run_one(self, call: BlockingCall, now: float, deadline: float) -> None:
        """Execute one operation."""
        if self._is_busy:
            self._spare_for((call,)).run_one(call, now, deadline)
            return
        self._is_busy, before, self._single = True, self._single, call
        try:
            super().run_one(call, now, deadline)
        finally:
            self._leave(before)

    def run_plan(self, plan: Generator[Any, Any, Any], deadline: float) -> Any:
        """Drive a plan that asks nodes of the cluster; returns its result."""
        if self._is_busy:
            return self._spare_for(()).run_plan(plan, deadline)
        self._is_busy, before = True, self._single
        try:
            return super().run_plan(plan, deadline)
        finally:
            self._leave(before)

    def _leave(self, single: BlockingCall | None) -> None:
        self._is_busy, self._single = False, single
        if self._waits:
            self.selector.wake()

    def _spare_for(self, calls: Sequence[BlockingCall]) -> InterruptibleCluster:
        """Return the cluster with the other connections, for operations."""
        spare = self._spare
        if spare is None:
            spare = self._spare = InterruptibleCluster(
                self.seeds,
                bucket=self.bucket,
                credentials=self.credentials,
                tls_context=self.tls_context,
                allow_plain=self._allow_plain,
                network=self._network,
                agent=self.agent.rpartition("/")[0],
            )
        spare.seeds, spare.closed = self.seeds, self.closed
        if self.map is not None:
            spare.adopt(self.map)
        for call in calls:
            keyspace = call.keyspace
            if keyspace is not DEFAULT_KEYSPACE:
                # Its id may just be asked for.
                call.keyspace = spare.collections.keyspace(keyspace.scope, keyspace.collection)
        return spare

    def close(self) -> None:
        """Close every connection."""
        super().close()
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.close()


def cluster_type(kind: type[Cluster], lockmode: int) -> type[Cluster]:
    """Return the class for a connection with a lock or without one."""
    return InterruptibleCluster if kind is Cluster and lockmode == LOCKMODE_NONE else kind
