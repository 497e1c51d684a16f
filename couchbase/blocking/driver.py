"""Executes blocking calls: one at a time, each until its answers have arrived."""

from __future__ import annotations

import socket
import ssl
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from random import randrange
from time import monotonic, sleep
from typing import Any, Callable

from couchbase import exceptions
from couchbase.blocking import configcache
from couchbase.blocking.calls import BlockingCall
from couchbase.blocking.cluster import Cluster
from couchbase.blocking.designs import Designs
from couchbase.blocking.interruptible import cluster_type
from couchbase.blocking.resolver import srv_of
from couchbase.blocking.scan import BlockingScan
from couchbase.blocking.threadlock import ThreadLock
from couchbase.blocking.tls import tls_context
from couchbase.blocking.views import Views
from couchbase.blocking.work import Work, gather, outcome
from couchbase.driver import Driver
from couchbase.exceptions import ArgumentError, CouchbaseError, PipelineError
from couchbase.items import ItemCollection, ItemTarget, extend_values, fill
from couchbase.protocol import durability, observation, operations
from couchbase.protocol.connstr import Address
from couchbase.protocol.failures import client_error, failed_result, no_such_replica
from couchbase.protocol.handshake import Credentials
from couchbase.protocol.peer import refusal_of
from couchbase.protocol.request import Request
from couchbase.protocol.stats import Statistics
from couchbase.result import MultiResult, OperationResult, ValueResult
from couchbase.tlsfiles import TlsFiles
from couchbase.views.iterator import ReadsDocuments, View


class BlockingDriver(Driver[BlockingCall]):
    """The driver of a :class:`couchbase.blocking.cluster.Cluster` that threads may share.

    :param address: address of the cluster.
    :param cache: path of a file that caches the cluster map, ``None`` for no cache.
    :param lockmode: what happens when two threads use the connection at once.
    :raises ArgumentError: a file of certificates cannot be used.
    """

    cluster_type: type[Cluster] = Cluster
    scan_type = BlockingScan
    results_type: type[MultiResult] = MultiResult
    sockets: Any = socket
    sleep: Callable[[float], None] = staticmethod(sleep)
    new_context: Any = staticmethod(ssl.create_default_context)
    """Makes an ``SSLContext``; ``cadata`` has the certificates to trust."""

    cluster: Cluster

    def __init__(
        self,
        address: Address,
        *,
        bucket: str,
        credentials: Credentials | None,
        files: TlsFiles,
        allow_plain: bool,
        cache: str | None,
        lockmode: int,
    ) -> None:
        super().__init__()
        self.bucket = bucket
        self.lock = ThreadLock(lockmode)
        self.view_turn = randrange(1 << 16)
        self._cache = cache
        self._pipeline: list[Work] | None = None
        context = tls_context(files, self.new_context) if address.tls else None
        self.cluster = cluster_type(self.cluster_type, lockmode)(
            address.seeds,
            bucket=bucket,
            credentials=credentials,
            tls_context=context,
            allow_plain=allow_plain,
            network=address.options.get("network", "auto"),
            received=partial(configcache.save, cache) if cache else None,
        )
        self.cluster.srv = srv_of(address, self.sockets)
        self.cluster.after_fork = weakref.WeakMethod(self.lock.renew)

    def bootstrap(self) -> None:
        """Get a cluster map, from the cache file or from the network.

        :raises CouchbaseError: there is none.
        """
        kept = configcache.load(self._cache) if self._cache else None
        if kept is not None:
            try:
                self.cluster.start_with_config(*kept)
                return
            except CouchbaseError:
                pass  # The map from the network replaces it.
        self.cluster.bootstrap()

    def __del__(self) -> None:
        cluster = getattr(self, "cluster", None)
        if cluster is not None:
            try:
                cluster.close()
            except (AttributeError, TypeError):
                pass  # The interpreter is exiting, and parts of it are gone already.

    def lock_by_hand(self, op: int) -> None:
        """Take (0) or release (1) the connection's lock, for tests of programs that use threads.

        :raises ObjectThreadError: there is no lock: ``LOCKMODE_NONE``.
        """
        self.lock.by_hand(op)

    # ---- carrying out ----------------------------------------------------------------------------

    def submit(self, request: BlockingCall, durability: tuple[int, int] | None = None) -> Any:
        """Execute one request; with ``durability`` (persist_to, replicate_to), wait for copies."""
        if (
            self._pipeline is not None
            or durability is not None
            or self.dur_persist_to
            or self.dur_replicate_to
        ):
            return self._do(self._work([request], durability, True))
        self.lock.acquire()
        try:
            started = monotonic()
            self.cluster.run_one(request, started, started + self.timeout)
            if self.timings is not None:
                self.timings.add(monotonic() - started)
        finally:
            self.lock.release()
        if request.error is not None:
            return outcome(request)
        return request.result

    def submit_to_replica(self, request: BlockingCall) -> Any:
        """Execute a read from replicas."""
        return self._do(self._work([request], None, True))

    def submit_multi(self, requests: Sequence[Any], durability: tuple[int, int] | None = None) -> Any:
        """Execute many requests."""
        return self._do(self._work(requests, durability, False))

    def _do(self, work: Work) -> Any:
        """Execute work at once, or with the rest of the pipeline."""
        if self._pipeline is not None:
            self._pipeline.append(work)
            return None
        self.lock.acquire()
        try:
            if work.calls:
                self._run(work.calls)
            return work.finish()
        finally:
            self.lock.release()

    def _run(self, calls: Sequence[BlockingCall]) -> None:
        started = monotonic()
        self.cluster.run(calls, started + self.timeout)
        if self.timings is not None:
            self.timings.add(monotonic() - started)

    def _work(self, calls: Sequence[BlockingCall], wanted: tuple[int, int] | None, single: bool) -> Work:
        """Return the work for operations that have one key each.

        :raises ArgumentError: (rc 0x21) more copies are requested than the cluster has.
        """
        if wanted is None and calls[0].operation in durability.ENDURED:
            defaults = self.dur_persist_to, self.dur_replicate_to
            wanted = defaults if any(defaults) else None

        def finish() -> Any:
            return outcome(calls[0]) if single else gather(calls, self.results_type)

        if calls[0].replica is not None:

            def read() -> Any:
                self._read_replicas(calls)
                return finish()

            return Work((), read, True)
        if wanted is None:
            return Work(calls, finish)
        requirement = self._requirement(wanted, calls[0])
        timeout = self.dur_timeout / 1_000_000 if self.dur_timeout else self.durability_timeout

        def endure() -> Any:
            self._await_copies(calls, requirement, timeout)
            return finish()

        return Work(calls, endure, True) if any(requirement) else Work(calls, finish)

    def _requirement(self, wanted: tuple[int, int], call: BlockingCall) -> durability.Requirement:
        try:
            return durability.check_requirement(self.cluster.current_map(), *wanted)
        except CouchbaseError as error:
            error.key, error.operation = call.key, call.operation.name
            raise

    def _await_copies(
        self, calls: Sequence[BlockingCall], requirement: durability.Requirement, timeout: float
    ) -> None:
        """Wait until new writes have the requested copies; fail the operations whose copies are missing."""
        stored = [call for call in calls if call.error is None and not call.result._rc]
        if not stored:
            return
        if self.dur_testhook is not None:
            for call in stored:
                self.dur_testhook(call.result)
        plan = durability.endure_plan(
            self.cluster.current_map,
            monotonic,
            {call.key_bytes: durability.awaited_cas(call, call.result) for call in stored},
            requirement,
            timeout=timeout,
            interval=self.durability_interval,
            check_removed=calls[0].operation is operations.DELETE,
            after_mutation=True,
            keyspace=calls[0].keyspace,
        )
        try:
            codes = self.cluster.run_plan(plan, monotonic() + timeout)
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

    def _read_replicas(self, calls: Sequence[BlockingCall]) -> None:
        """Read from the replica that each call names, or (-1) from one replica after the other until one has
        the document."""
        named = [call for call in calls if call.replica != -1]
        if named:
            self._run(named)
        open_ = [call for call in calls if call.replica == -1]
        if not open_:
            return
        replicas = self.cluster.current_map().usable_replicas
        deadline = monotonic() + self.timeout
        for call in open_:
            call.result, call.error = None, no_such_replica(call)
        for index in range(replicas):
            attempts = []
            for call in open_:
                attempt = call.another()
                attempt.replica, attempt.quiet = index, False
                attempts.append(attempt)
            now = monotonic()
            # An unreachable replica must leave time for the next one.
            self.cluster.run(attempts, now + (deadline - now) / (replicas - index))
            left = []
            for call, attempt in zip(open_, attempts):
                call.error, call.result = attempt.error, attempt.result
                if isinstance(call.error, CouchbaseError) and call.error.rc:
                    left.append(call)
            open_ = left
            if not open_:
                return
        for call in open_:
            if call.quiet and getattr(call.error, "rc", None) == exceptions.KEY_ENOENT:
                call.result, call.error = failed_result(call, exceptions.KEY_ENOENT), None

    # ---- copies ----------------------------------------------------------------------------------

    def submit_observe(self, documents: Sequence[Request], master_only: bool, single: bool) -> Any:
        """Ask every node that holds the documents for their state."""

        def finish() -> Any:
            keys, current_map = [document.key_bytes for document in documents], self.cluster.current_map
            plan = observation.observe_plan(current_map, keys, master_only, documents[0].keyspace)
            seen = self.cluster.run_plan(plan, monotonic() + self.timeout)
            calls = []
            for document in documents:
                call = BlockingCall(operations.OBSERVE, document.key, document.key_bytes)
                call.result = call.error = None
                copies = seen[document.key_bytes]
                if copies.seen and not copies.missing:
                    call.result = ValueResult(0, 0, copies.seen)
                    call.result._key = document.key
                else:
                    call.error = observation.observe_error(call, copies, exceptions.ETIMEDOUT)
                calls.append(call)
            return outcome(calls[0]) if single else gather(calls, self.results_type)

        return self._do(Work((), finish, True))

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
        requirement = durability.check_requirement(self.cluster.current_map(), persist_to, replicate_to)

        def finish() -> Any:
            plan = durability.endure_plan(
                self.cluster.current_map,
                monotonic,
                {document.key_bytes: document.cas for document in documents},
                requirement,
                timeout=timeout,
                interval=interval,
                check_removed=check_removed,
                keyspace=documents[0].keyspace,
            )
            codes = self.cluster.run_plan(plan, monotonic() + timeout)
            calls = []
            for document in documents:
                key, encoded = document.key, document.key_bytes
                item = key.item if type(key) is ItemTarget else None
                call = BlockingCall(operations.ENDURE, key if item is None else key.key, encoded)
                result: Any = OperationResult(codes[encoded])
                result._key = call.key
                if item is not None:
                    fill(item, result)
                    result = item
                call.result, call.error = result, None
                if codes[encoded]:
                    call.error = durability.endure_error(
                        call.key, codes[encoded], requirement, "endure", result
                    )
                calls.append(call)
            return outcome(calls[0]) if single else gather(calls, self.results_type)

        return self._do(Work((), finish, True))

    # ---- statistics ------------------------------------------------------------------------------

    def submit_stats(self, groups: Sequence[str]) -> Any:
        """Ask every node for statistics."""
        return self._do(Work((), lambda: self._collect_stats(groups), True))

    def _collect_stats(self, groups: Sequence[str]) -> MultiResult:
        cluster = self.cluster
        cluster.current_map()
        collected = self.results_type()
        call = BlockingCall(operations.STATS, None, b"")
        round_ = Statistics(collected, groups)
        cluster.catch_up()
        nodes = cluster.data_nodes()
        asked = [node.ask(*question) for node in nodes for question in round_.questions(node.name)]
        try:
            answered = cluster.wait_for(
                lambda: not round_.open or bool(round_.lost), monotonic() + self.timeout
            )
        finally:
            for question in asked:
                question.forget()
        if round_.lost:
            why = f"node {round_.lost[0]} cannot be asked"
            raise refusal_of(nodes) or client_error(call, exceptions.NETWORK_ERROR, why)
        if not answered:
            raise client_error(call, exceptions.ETIMEDOUT, "not every node answered in time")
        return collected

    # ---- pipelines -------------------------------------------------------------------------------

    def begin_pipeline(self) -> None:
        """Collect operations from now on."""
        if self._pipeline is not None:
            raise PipelineError.pyexc("a pipeline cannot be started inside of a pipeline")
        self._pipeline = []

    def end_pipeline(self) -> list[Any]:
        """Execute the collected operations; returns their results."""
        works, self._pipeline = self._pipeline, None
        if works is None:
            raise PipelineError.pyexc("no pipeline was started")
        results: list[Any] = []
        first: Exception | None = None
        self.lock.acquire()
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
            self.lock.release()
        if first is not None:
            raise first
        return results

    def extend_items(
        self, method: Callable[..., Any], items: ItemCollection, options: Mapping[str, Any], before: bool
    ) -> Any:
        """Append (or prepend) to the documents of items with a multi operation, and to the items' values."""
        if not isinstance(items, ItemCollection):
            raise ArgumentError.pyexc("expected a collection of items with the option fragment", obj=items)
        if self._pipeline is not None:
            raise PipelineError.pyexc("items cannot be extended inside of a pipeline")
        try:
            results = method(items, **options)
        except CouchbaseError as error:
            extend_values(error.all_results, items, before)
            raise
        extend_values(results, items, before)
        return results

    # ---- views and design documents --------------------------------------------------------------

    def begin_alone(self) -> None:
        """Take the connection for a request that is not an operation on a document."""
        if self._pipeline is not None:
            raise PipelineError.pyexc("views, design documents and scans are not supported in pipelines")
        self.lock.acquire()

    @property
    def views(self) -> Views:
        """The part that queries the view engine."""
        # Created on demand: a stored object and this driver would refer to each other.
        return Views(self)

    @property
    def designs(self) -> Designs:
        """The part that manages design documents."""
        return Designs(self.views, self.sleep)

    def view_once(self, path: str) -> Any:
        """Send one request to a view and return the whole answer."""
        return self.views.ask("GET", path, None, False)

    def iterate_view(self, view: View, connection: ReadsDocuments) -> Iterator[Any]:
        """Send a view's query and yield the row processor's output."""
        return self.views.iterate(view, connection)
