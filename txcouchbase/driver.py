"""Executes operations on Twisted: those of one reactor turn are sent together, and end in callbacks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, maybeDeferred, succeed
from twisted.python.failure import Failure

from couchbase import exceptions
from couchbase.driver import Driver
from couchbase.exceptions import ArgumentError, CouchbaseError, NotSupportedError, error_of
from couchbase.items import ItemCollection, extend_values
from couchbase.protocol import durability, observation, operations
from couchbase.protocol.failures import client_error, failed_result, no_such_replica
from couchbase.protocol.peer import REFUSALS, refusal_of
from couchbase.protocol.request import Operation, Request
from couchbase.protocol.stats import Statistics
from couchbase.result import AsyncResult, MultiResult, ValueResult
from txcouchbase.calls import AsyncCall, Call, DeferredCall, Group, GroupCall, call_errback, member_of
from txcouchbase.causes import network_error
from txcouchbase.cluster import ClusterClient
from txcouchbase.direct import DirectDriver
from txcouchbase.endurance import Endurance, Waiting
from txcouchbase.events import ConnectionEvents
from txcouchbase.scan import DeferredScan
from txcouchbase.turn import MAX_QUEUED

__all__ = ["AsyncDriver", "DeferredDriver"]

_new_result: Any = AsyncResult.__new__


class AsyncDriver(Driver[AsyncCall]):
    """Operations that end in AsyncResults.

    :param events: notifies when the connection is up.
    """

    cluster: ClusterClient

    waits = False
    """Whether operations may be started before the connection is up."""
    scan_type = DeferredScan

    def __init__(self, cluster: ClusterClient, events: ConnectionEvents) -> None:
        self.cluster = cluster
        self.turn = cluster.turn
        self._events = events
        super().__init__()
        self.is_up = self.waits

    @property
    def timeout(self) -> float:
        """Timeout of an operation in seconds, retries included."""
        return self.turn.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self.turn.set_timeout(seconds)

    def ready(self) -> Deferred[None]:
        """Return a Deferred that fires when there is a map, or fails with the reason."""
        ready: Deferred[None] = succeed(None)
        if self.cluster.map is None:
            ready = Deferred()
            self._events.queue("connect").schedule(ready)
        return ready

    def seconds_for(self, call: Call) -> float:
        """Return the timeout of an operation that begins now, in seconds."""
        return self.timeout

    def send(self, call: Call, wanted: tuple[int, int] | None = None, seconds: float | None = None) -> None:
        """Send an operation now, after those started before; with a timeout of ``seconds`` if it is given."""
        self.turn.drain(later=True)
        granted = self.seconds_for(call) if seconds is None else seconds
        call.deadline = self.cluster.seconds() + granted + self.turn.more_for(len(call.value))
        if wanted is not None:
            timeout = self.dur_timeout / 1_000_000 if self.dur_timeout else self.durability_timeout
            endurance = Endurance(self.cluster, wanted, timeout, self.durability_interval, self.dur_testhook)
            call.following = endurance
            if self.cluster.map is not None and not self.cluster.closed and not endurance.before(call):
                return
        if call.replica == -1:
            self._any_replica(call)
        else:
            self.cluster.submit(call)

    def _by_context(self, request: Request) -> tuple[int, int] | None:
        """Return the requirements of a durability context for an operation without its own."""
        if request.operation not in durability.ENDURED:
            return None
        return self.dur_persist_to, self.dur_replicate_to

    def submit(self, request: AsyncCall, durability: tuple[int, int] | None = None) -> Any:
        """Execute one request; with ``durability`` (persist_to, replicate_to), wait for copies."""
        turn = self.turn
        queued = turn.queued
        if not queued and not self.is_up:
            raise _not_up()
        # AsyncResult.__init__, inlined.
        answer = request.async_result = _new_result(AsyncResult)
        answer.all_ok = answer._remaining = 1
        if durability is not None or self.dur_persist_to or self.dur_replicate_to:
            self.send(request, durability or self._by_context(request))
        else:
            if not queued or len(queued) >= MAX_QUEUED:
                turn.wake()
            queued.append(request)
        return answer

    def submit_level(self, request: AsyncCall) -> Any:
        """Execute a synchronous write, in order with the operations on its key."""
        if self.dur_persist_to or self.dur_replicate_to:
            return self.submit(request)
        return self.submit_to_replica(request)

    def submit_to_replica(self, request: AsyncCall) -> Any:
        """Send an operation by itself, not with those of the turn."""
        if not self.is_up:
            raise _not_up()
        answer = request.async_result = AsyncResult()
        answer._remaining = 1
        self.send(request)
        return answer

    def _new_group(self, count: int) -> tuple[Any, Group]:
        """Return the object for the caller of a multi operation, and the group that will end it."""
        answer = AsyncResult()
        answer._remaining = count

        def finish(results: MultiResult, error: BaseException | None) -> None:
            if error is not None:
                call_errback(answer, error)
            else:
                answer.callback(answer)

        return answer, Group(answer, count, finish)

    def submit_multi(self, requests: Sequence[Any], durability: tuple[int, int] | None = None) -> Any:
        """Execute many requests."""
        if durability is None and (self.dur_persist_to or self.dur_replicate_to):
            durability = self._by_context(requests[0])
        if not self.is_up:
            raise _not_up()
        answer, group = self._new_group(len(requests))
        if type(requests[0]) is not GroupCall:
            requests = [member_of(request) for request in requests]
        calls: Sequence[GroupCall] = requests
        for call in calls:
            call.group = group
        group.calls = calls
        if durability is None and requests[0].replica is None:
            self.send_group(calls)
        else:
            for call in calls:
                self.send(call, durability)
        return answer

    def send_group(self, calls: Sequence[Call]) -> None:
        """Send the requests of a multi operation that waits for no copies and asks no replica."""
        self.turn.queue_all(calls)

    def direct(self, together: int) -> DirectDriver:
        """Return the driver of operations that report to a receiver: see :mod:`txcouchbase.direct`."""
        return DirectDriver(self.turn, together, self.cluster, self.wait)

    @inlineCallbacks
    def _any_replica(self, call: Call) -> Generator[Any, Any, None]:
        """Read from one replica after the other until one has the document."""
        kept = self.cluster.owner()
        try:
            yield self.ready()
            replicas = self.cluster.current_map().usable_replicas
            error: BaseException = no_such_replica(call)
            for index in range(replicas):
                attempt = DeferredCall(call.operation, call.key, call.key_bytes)
                attempt.decode_value = call.decode_value
                attempt.extras, attempt.value, attempt.deadline = call.extras, call.value, call.deadline
                if hasattr(call, "specs"):
                    attempt.specs = call.specs
                attempt.replica, attempt.keyspace = index, call.keyspace
                answer: Deferred[Any] = Deferred(attempt.cancelled)
                attempt.deferred = answer
                self.cluster.submit(attempt)
                try:
                    result = yield answer
                except CouchbaseError as missed:
                    error = missed
                else:
                    call.succeed(result)
                    return
            if call.quiet and getattr(error, "rc", None) == exceptions.KEY_ENOENT:
                call.succeed(failed_result(call, exceptions.KEY_ENOENT))
            else:
                call.fail(error)
        except CouchbaseError as refused:
            call.fail(refused)
        finally:
            del kept

    def _finish_with(
        self,
        plan_of: Callable[[], Generator[Any, Any, Any]],
        outcome_of: Callable[[Any], dict[Any, Any]],
        keys: Sequence[Any],
        end: Call | Group,
        what: Operation,
    ) -> None:
        """End an operation on many nodes: run the plan of ``plan_of`` once there is a map, and convert its
        result with ``outcome_of`` to key -> result or exception.

        :param end: the call of a single operation, or the group of a multi operation.
        """

        # The caller may drop the connection right after the call: both functions keep it.
        def done(found: Any, kept: object) -> None:
            if isinstance(end, Call):
                end.ended = None
            try:
                outcome = outcome_of(found)
            except Exception:  # noqa: BLE001  # it ends the operation, too
                failed(Failure(), kept)
                return
            for key in keys:
                value = outcome[key]
                error = value if isinstance(value, CouchbaseError) else None
                if isinstance(end, Group):
                    end.add(key, value if error is None else error.result, error)
                elif error is None:
                    end.succeed(value)
                else:
                    end.fail(error)

        def failed(failure: Failure, kept: object) -> None:
            reason: Any = failure.value
            for key in keys:
                if isinstance(end, Group):
                    result = failed_result(Call(what, key, b""), getattr(reason, "rc", exceptions.ERROR))
                    end.add(key, result, reason)
                else:
                    end.fail(reason)

        def run(_: None = None) -> Deferred[Any]:
            return self.cluster.run(plan_of())

        kept = (self.cluster.owner(),)
        worked = maybeDeferred(run) if self.cluster.map is not None else self.ready().addCallback(run)
        worked.addCallbacks(done, failed, callbackArgs=kept, errbackArgs=kept)
        if isinstance(end, Call):
            # A call that is cancelled asks no more.
            end.ended = lambda _: worked.cancel()

    def _new_end(self, operation: Operation, keys: Sequence[Any], single: bool) -> tuple[Any, Any]:
        """Return the object for the caller of an operation on many nodes, and the call or group that ends
        it."""
        if not self.is_up:
            raise _not_up()
        return self._new_call(operation, keys[0]) if single else self._new_group(len(keys))

    def _new_call(self, operation: Operation, key: object) -> tuple[Any, Call]:
        call = AsyncCall(operation, key, b"")
        answer = call.async_result = AsyncResult()
        answer._remaining = 1
        return answer, call

    def submit_observe(self, documents: Sequence[Request], master_only: bool, single: bool) -> Any:
        """Ask every node that holds the documents for their state."""
        current_map, keyspace = self.cluster.current_map, documents[0].keyspace
        wanted = [document.key_bytes for document in documents]
        plan_of = partial(observation.observe_plan, current_map, wanted, master_only, keyspace)

        def outcome_of(seen: Any) -> dict[Any, Any]:
            outcome: dict[Any, Any] = {}
            for document in documents:
                copies = seen[document.key_bytes]
                result: Any = ValueResult(0, 0, copies.seen)
                result._key = document.key
                if copies.missing or not copies.seen:
                    result = observation.observe_error(document, copies, exceptions.NETWORK_ERROR)
                outcome[document.key] = result
            return outcome

        keys = [document.key for document in documents]
        answer, end = self._new_end(operations.OBSERVE, keys, single)
        self._finish_with(plan_of, outcome_of, keys, end, operations.OBSERVE)
        return answer

    def submit_endure(
        self,
        documents: Sequence[Request],
        persist_to: int,
        replicate_to: int,
        timeout: float,
        interval: float,
        check_removed: bool,
        single: bool,
    ) -> Any:
        """Wait until enough nodes hold documents."""
        wanted = persist_to, replicate_to
        waiting = Waiting(self.cluster, documents, wanted, timeout, interval, check_removed)
        answer, end = self._new_end(operations.ENDURE, waiting.names, single)
        if single:
            waiting.begin(end, self.wait)
        else:
            self.wait(end, waiting)
        return answer

    def wait(self, end: Call | Group, waiting: Waiting) -> None:
        """Run the plan that waits for documents, and end a call or a group."""
        self._finish_with(waiting.plan, waiting.outcome, waiting.names, end, operations.ENDURE)

    def submit_stats(self, groups: Sequence[str]) -> Any:
        """Ask every node for statistics."""
        if not self.is_up:
            raise _not_up()
        answer, call = self._new_call(operations.STATS, None)
        kept = self.cluster.owner()
        self.ready().addCallback(lambda _: self._first_attempts()).addCallbacks(
            lambda _: self._ask_stats(groups, answer, call, kept), lambda failure: call.fail(failure.value)
        )
        return answer

    def _first_attempts(self) -> Deferred[Any]:
        """Wait for the first connection attempt to each node."""
        links = self.cluster.peers.values()
        waited = [
            link.up()
            for link in links
            if link.conversation is None and (not link.failures or isinstance(link.last_error, REFUSALS))
        ]
        return gatherResults(waited).addTimeout(
            self.timeout, self.cluster.reactor, onTimeoutCancel=lambda *_: None
        )

    def _ask_stats(
        self, groups: Sequence[str], answer: AsyncResult | Deferred[Any], call: Call, kept: object
    ) -> None:
        """Ask each node.

        :param kept: the connection, kept alive until the answers are in.
        """
        collected = answer if isinstance(answer, AsyncResult) else MultiResult()
        timer: Any = None

        def finish() -> None:
            if timer is not None:
                timer.cancel()
            if isinstance(answer, AsyncResult):
                answer._remaining = 0
                answer.callback(answer)
            else:
                call.succeed(collected)

        round_ = Statistics(collected, groups, finish)
        talks = [link.conversation for link in self.cluster.peers.values() if link.conversation is not None]
        questions = [(talk, question) for talk in talks for question in round_.questions(talk.name)]
        if not talks:
            error = refusal_of(self.cluster.peers.values()) or network_error("no node is connected")
            self.cluster.reactor.callLater(0, call.fail, error)
            return
        asked = [(talk, talk.ask(*question)) for talk, question in questions]

        def expire(_: Any) -> None:
            for talk, number in asked:
                talk.forget(number)
            call.fail(client_error(call, exceptions.ETIMEDOUT, "not every node answered in time"))

        if round_.open:
            timer = self.cluster.reactor.callLater(self.timeout, expire, kept)

    def extend_items(
        self, method: Callable[..., Any], items: ItemCollection, options: Mapping[str, Any], before: bool
    ) -> Any:
        """Refuse: there is no callback for the end of all of them."""
        raise NotSupportedError.pyexc("use append_multi or prepend_multi: items are extended by Connection")


class DeferredDriver(AsyncDriver):
    """Operations that end in Deferreds."""

    waits = True

    def submit(  # type: ignore[override]  # its connection makes calls of another kind
        self, request: DeferredCall, durability: tuple[int, int] | None = None
    ) -> Any:
        """Execute one request; with ``durability`` (persist_to, replicate_to), wait for copies."""
        answer: Deferred[Any] = Deferred(request.cancelled)
        request.deferred = answer
        if durability is not None or self.dur_persist_to or self.dur_replicate_to:
            self.send(request, durability or self._by_context(request))
        else:
            turn = self.turn
            queued = turn.queued
            if not queued or len(queued) >= MAX_QUEUED:
                turn.wake()
            queued.append(request)
        return answer

    def submit_to_replica(self, request: DeferredCall) -> Any:  # type: ignore[override]  # as above
        """Send an operation by itself, not with those of the turn."""
        answer: Deferred[Any] = Deferred(request.cancelled)
        request.deferred = answer
        self.send(request)
        return answer

    def _new_group(self, count: int) -> tuple[Any, Group]:
        def finish(results: MultiResult, error: BaseException | None) -> None:
            if not answer.called:
                answer.callback(results) if error is None else answer.errback(error)

        group = Group(MultiResult(), count, finish)
        answer: Deferred[Any] = Deferred(group.abandon)
        return answer, group

    def extend_items(
        self, method: Callable[..., Any], items: ItemCollection, options: Mapping[str, Any], before: bool
    ) -> Any:
        """Append (or prepend) to the documents of items with a multi operation, and to the items' values."""
        if not isinstance(items, ItemCollection):
            raise ArgumentError.pyexc("expected a collection of items with the option fragment", obj=items)

        def extend(results: Any) -> Any:
            # Also after a failure: some items may have been extended.
            found = getattr(results.value, "all_results", {}) if isinstance(results, Failure) else results
            extend_values(found, items, before)
            return results

        return method(items, **options).addBoth(extend)

    def _new_call(self, operation: Operation, key: object) -> tuple[Any, Call]:
        call = DeferredCall(operation, key, b"")
        answer: Deferred[Any] = Deferred(call.cancelled)
        call.deferred = answer
        return answer, call


def _not_up() -> CouchbaseError:
    return error_of(exceptions.CLIENT_ETMPFAIL, "the connection is not up yet")
