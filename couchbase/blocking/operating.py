"""How the blocking connection carries out what its methods prepared."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any, Callable

from couchbase import exceptions as rc
from couchbase.blocking.calls import Call
from couchbase.blocking.cluster import Cluster
from couchbase.blocking.work import Work, gather, outcome
from couchbase.commands import Commands, no_such_replica
from couchbase.exceptions import ArgumentError, CouchbaseError, ObjectThreadError, PipelineError
from couchbase.items import ItemCollection, ItemTarget, extend_value, fill
from couchbase.protocol import durability, operations
from couchbase.protocol.operations import client_error, failed_result
from couchbase.protocol.stats import Statistics
from couchbase.result import MultiResult, OperationResult, ValueResult
from couchbase.timings import Timings
from couchbase.user_constants import LOCKMODE_NONE, LOCKMODE_WAIT


class Operating(Commands):
    """Operations of a connection on its :class:`couchbase.blocking.cluster.Cluster`."""

    _request_type: type[Any] = Call
    _member_type: type[Any] = Call
    _results_type: type[MultiResult] = MultiResult

    _cluster: Cluster
    _lock: Any
    _lockmode = LOCKMODE_NONE
    _user: int | None = None
    _timeout = 2.5
    _views_timeout = 75.0
    _http_timeout = 75.0
    _http_redirects = 3
    _durability_timeout = durability.DEFAULT_TIMEOUT_SECONDS
    _durability_interval = durability.MUTATION_INTERVAL_SECONDS
    _skip_configuration_errors = False
    _dur_persist_to = 0
    _dur_replicate_to = 0
    _dur_timeout = 0
    _dur_testhook: Callable[[Any], Any] | None = None
    _pipeline: list[Work] | None = None
    _timings: Timings | None = None

    def _operation_timeout(self) -> float:
        return self._timeout

    # --- threads ---------------------------------------------------------------------------

    def _take(self) -> None:
        """Make the connection this thread's."""
        lock = self._lock
        if lock is None:
            return
        if not lock.acquire(False):
            me = threading.get_ident()
            if self._lockmode != LOCKMODE_WAIT:
                raise ObjectThreadError.pyexc("another thread is using the connection", obj=self)
            if self._user == me:
                raise ObjectThreadError.pyexc("an operation inside of another one on the same connection")
            lock.acquire()
        self._user = threading.get_ident()

    def _give(self) -> None:
        """Let other threads have the connection."""
        self._user = None
        if self._lock is not None:
            self._lock.release()

    def _renew_lock(self) -> None:
        """In a child of this process: the thread that held the lock is not there."""
        self._user = None
        if self._lock is not None:
            self._lock = threading.Lock()

    def _thr_lockop(self, op: int) -> None:
        """Take (0) or release (1) the connection's lock, for tests of programs that use threads.

        :raises ObjectThreadError: there is no lock: ``LOCKMODE_NONE``.
        """
        if self._lock is None:
            raise ObjectThreadError.pyexc("a connection with LOCKMODE_NONE has no lock")
        if op:
            self._user = None
            self._lock.release()
        else:
            self._lock.acquire()
            # An operation of the same thread is refused then: it would wait for itself.
            self._user = threading.get_ident()

    # --- carrying out ----------------------------------------------------------------------

    def _submit(self, request: Any, durability: tuple[int, int] | None = None) -> Any:
        if (
            self._pipeline is not None
            or durability is not None
            or self._dur_persist_to
            or self._dur_replicate_to
        ):
            return self._do(self._work([request], durability, True))
        self._take()
        try:
            started = monotonic()
            self._cluster.run_one(request, started + self._timeout)
            if self._timings is not None:
                self._timings.add(monotonic() - started)
        finally:
            self._give()
        if request.error is not None:
            return outcome(request)
        return request.result

    def _submit_to_replica(self, request: Any) -> Any:
        return self._do(self._work([request], None, True))

    def _submit_multi(self, requests: Sequence[Any], durability: tuple[int, int] | None = None) -> Any:
        return self._do(self._work(requests, durability, False))

    def _do(self, work: Work) -> Any:
        """Carry out work at once, or with the rest of the pipeline."""
        if self._pipeline is not None:
            self._pipeline.append(work)
            return None
        self._take()
        try:
            if work.calls:
                self._run(work.calls)
            return work.finish()
        finally:
            self._give()

    def _run(self, calls: Sequence[Call]) -> None:
        started = monotonic()
        self._cluster.run(calls, started + self._timeout)
        if self._timings is not None:
            self._timings.add(monotonic() - started)

    def _work(self, calls: Sequence[Call], wanted: tuple[int, int] | None, single: bool) -> Work:
        """Return the work that operations on one key each amount to.

        :raises ArgumentError: (rc 0x21) more copies wanted than the cluster has.
        """
        if wanted is None and calls[0].operation in durability.ENDURED:
            defaults = self._dur_persist_to, self._dur_replicate_to
            wanted = defaults if any(defaults) else None

        def finish() -> Any:
            return outcome(calls[0]) if single else gather(calls, self._results_type)

        if calls[0].replica is not None:

            def read() -> Any:
                self._read_replicas(calls)
                return finish()

            return Work((), read, True)
        if wanted is None:
            return Work(calls, finish)
        requirement = self._requirement(wanted, calls[0])
        timeout = self._dur_timeout / 1_000_000 if self._dur_timeout else self._durability_timeout

        def endure() -> Any:
            self._await_copies(calls, requirement, timeout)
            return finish()

        return Work(calls, endure, True) if any(requirement) else Work(calls, finish)

    def _requirement(self, wanted: tuple[int, int], call: Call) -> durability.Requirement:
        try:
            return durability.check_requirement(self._cluster.current_map(), *wanted)
        except CouchbaseError as error:
            error.key, error.operation = call.key, call.operation.name
            raise

    def _await_copies(
        self, calls: Sequence[Call], requirement: durability.Requirement, timeout: float
    ) -> None:
        """Wait until what was just written is where it must be; operations fail for which it is not."""
        stored = [call for call in calls if call.error is None and not call.result._rc]
        if not stored:
            return
        if self._dur_testhook is not None:
            for call in stored:
                self._dur_testhook(call.result)
        plan = durability.endure_plan(
            self._cluster.current_map,
            monotonic,
            {call.key_bytes: durability.awaited_cas(call, call.result) for call in stored},
            requirement,
            timeout=timeout,
            interval=self._durability_interval,
            check_removed=calls[0].operation is operations.DELETE,
            after_mutation=True,
        )
        try:
            codes = self._cluster.run_plan(plan, monotonic() + timeout)
        except CouchbaseError as error:
            for call in stored:
                call.error = durability.unwatched_error(call, error, call.result)
            return
        for call in stored:
            code = codes[call.key_bytes]
            if code:
                result = durability.unsafe_result(call, code, call.result)
                name = call.operation.name
                call.error = durability.endure_error(call.key, code, requirement, name, result)

    def _read_replicas(self, calls: Sequence[Call]) -> None:
        """Read from the replica that each call names, or (-1) from one after the other until one has it."""
        named = [call for call in calls if call.replica != -1]
        if named:
            self._run(named)
        open_ = [call for call in calls if call.replica == -1]
        if not open_:
            return
        replicas = self._cluster.current_map().usable_replicas
        deadline = monotonic() + self._timeout
        for call in open_:
            call.error = no_such_replica(call)
        for index in range(replicas):
            attempts = []
            for call in open_:
                attempt = call.another()
                attempt.replica, attempt.quiet = index, False
                attempts.append(attempt)
            now = monotonic()
            # A replica that is out of reach must leave time for the next one.
            self._cluster.run(attempts, now + (deadline - now) / (replicas - index))
            left = []
            for call, attempt in zip(open_, attempts):
                call.error, call.result = attempt.error, attempt.result
                if isinstance(call.error, CouchbaseError) and call.error.rc:
                    left.append(call)
            open_ = left
            if not open_:
                return
        for call in open_:
            if call.quiet and isinstance(call.error, CouchbaseError) and call.error.rc == rc.KEY_ENOENT:
                call.result, call.error = failed_result(call, rc.KEY_ENOENT), None

    # --- copies ----------------------------------------------------------------------------

    def _submit_observe(self, keys: Sequence[tuple[Any, bytes]], master_only: bool, single: bool) -> Any:
        def finish() -> Any:
            plan = durability.observe_plan(
                self._cluster.current_map, [encoded for _, encoded in keys], master_only
            )
            seen = self._cluster.run_plan(plan, monotonic() + self._timeout)
            calls = []
            for key, encoded in keys:
                call = Call(operations.OBSERVE, key, encoded)
                copies = seen[encoded]
                if copies.seen and not copies.missing:
                    call.result = ValueResult(0, 0, copies.seen)
                    call.result._key = key
                else:
                    call.error = durability.observe_error(call, copies, rc.ETIMEDOUT)
                calls.append(call)
            return outcome(calls[0]) if single else gather(calls, self._results_type)

        return self._do(Work((), finish, True))

    def _submit_endure(
        self,
        keys: Sequence[tuple[Any, bytes, int]],
        persist_to: int,
        replicate_to: int,
        timeout: float,
        interval: float,
        check_removed: bool,
        single: bool,
    ) -> Any:
        requirement = durability.check_requirement(self._cluster.current_map(), persist_to, replicate_to)

        def finish() -> Any:
            plan = durability.endure_plan(
                self._cluster.current_map,
                monotonic,
                {encoded: cas for _, encoded, cas in keys},
                requirement,
                timeout=timeout,
                interval=interval,
                check_removed=check_removed,
            )
            codes = self._cluster.run_plan(plan, monotonic() + timeout)
            calls = []
            for key, encoded, _ in keys:
                item = key.item if type(key) is ItemTarget else None
                call = Call(operations.ENDURE, key if item is None else key.key, encoded)
                result: Any = OperationResult(codes[encoded])
                result._key = call.key
                if item is not None:
                    fill(item, result)
                    result = item
                call.result = result
                if codes[encoded]:
                    call.error = durability.endure_error(
                        call.key, codes[encoded], requirement, "endure", result
                    )
                calls.append(call)
            return outcome(calls[0]) if single else gather(calls, self._results_type)

        return self._do(Work((), finish, True))

    # --- statistics ------------------------------------------------------------------------

    def _submit_stats(self, groups: Sequence[str]) -> Any:
        return self._do(Work((), lambda: self._collect_stats(groups), True))

    def _collect_stats(self, groups: Sequence[str]) -> MultiResult:
        cluster = self._cluster
        cluster.current_map()
        collected = self._results_type()
        call = Call(operations.STATS, None, b"")
        round_ = Statistics(collected, groups)
        cluster.catch_up()
        asked = [
            node.ask(*question) for node in cluster.data_nodes() for question in round_.questions(node.name)
        ]
        try:
            answered = cluster.wait_for(
                lambda: not round_.open or bool(round_.lost), monotonic() + self._timeout
            )
        finally:
            for question in asked:
                question.forget()
        if round_.lost:
            raise client_error(call, rc.NETWORK_ERROR, f"node {round_.lost[0]} cannot be asked")
        if not answered:
            raise client_error(call, rc.ETIMEDOUT, "not every node answered in time")
        return collected

    # --- pipelines -------------------------------------------------------------------------

    def _pipeline_begin(self) -> None:
        if self._pipeline is not None:
            raise PipelineError.pyexc("a pipeline inside of a pipeline")
        self._pipeline = []

    def _pipeline_end(self) -> list[Any]:
        works, self._pipeline = self._pipeline, None
        if works is None:
            raise PipelineError.pyexc("the end of a pipeline that never began")
        results: list[Any] = []
        first: Exception | None = None
        self._take()
        try:
            together: list[Work] = []
            for index, work in enumerate(works):
                together.append(work)
                if not work.alone and index < len(works) - 1:
                    continue
                calls = [call for one in together for call in one.calls]
                if calls:
                    self._run(calls)
                for one in together:
                    try:
                        results.append(one.finish())
                    except CouchbaseError as error:
                        first = first or error
                together.clear()
        finally:
            self._give()
        if first is not None:
            raise first
        return results

    # --- items -----------------------------------------------------------------------------

    def append_items(self, items: Any, **kwargs: Any) -> Any:
        """Append to the documents of items, and to the items' values.

        :param items: ItemOptionDict whose options hold a ``fragment`` for every item.
        :param kwargs: as for ``append_multi``.
        """
        return self._extend_items(self.append_multi, items, kwargs, False)

    def prepend_items(self, items: Any, **kwargs: Any) -> Any:
        """Like :meth:`append_items`, before the values."""
        return self._extend_items(self.prepend_multi, items, kwargs, True)

    def _extend_items(self, method: Callable[..., Any], items: Any, kwargs: Any, before: bool) -> Any:
        if not isinstance(items, ItemCollection):
            raise ArgumentError.pyexc("expected a collection of items with the option fragment", obj=items)
        if self._pipeline is not None:
            raise PipelineError.pyexc("items cannot be extended inside of a pipeline")
        try:
            results = method(items, **kwargs)
        except CouchbaseError as error:
            self._extend_values(error.all_results, items, before)
            raise
        self._extend_values(results, items, before)
        return results

    @staticmethod
    def _extend_values(results: Any, items: Any, before: bool) -> None:
        good = {id(result) for result in results.values() if not result.rc}
        for entry in items:
            if id(entry[0]) in good:
                extend_value(entry[0], entry[1]["fragment"], before)
