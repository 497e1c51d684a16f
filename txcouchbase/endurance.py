"""Waiting for copies: those of a mutation, and those of documents."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from twisted.python.failure import Failure

from couchbase.exceptions import CouchbaseError
from couchbase.items import ItemTarget, fill
from couchbase.protocol import durability, operations
from couchbase.protocol.failures import failed_result
from couchbase.protocol.firstround import FirstRound
from couchbase.protocol.request import Request
from couchbase.result import Result
from txcouchbase.calls import Call
from txcouchbase.cluster import ClusterClient

# Other keys of a transcoder may not be hashable, which the plan's outcome reports.
_KEYS = frozenset({bytes, str})


class Endurance(FirstRound):
    """The copies that a mutation with ``persist_to`` or ``replicate_to`` waits for, as a call's
    ``following``.

    :param wanted: ``persist_to`` and ``replicate_to``.
    :param timeout: seconds.
    :param interval: seconds between two polls.
    :param testhook: called with the result before the first poll.
    """

    __slots__ = ("_call", "_client", "_interval", "_result", "_testhook", "_timeout", "_wanted")

    after_mutation = True

    def __init__(
        self,
        client: ClusterClient,
        wanted: tuple[int, int],
        timeout: float,
        interval: float,
        testhook: Callable[[Any], Any] | None = None,
    ) -> None:
        self._client = client
        self._wanted = wanted
        self._timeout = timeout
        self._interval = interval
        self._testhook = testhook
        self.requirement = durability.Requirement(0, 0)

    def before(self, call: Call) -> bool:
        """Refuse, before anything is sent, requirements that the cluster cannot meet."""
        try:
            self.requirement = durability.check_requirement(self._client.current_map(), *self._wanted)
        except CouchbaseError as error:
            error.key, error.operation = call.key, call.operation.name
            call.fail(error)
            return False
        return True

    def __call__(self, call: Call, result: Result) -> bool:
        """Wait for the copies of a mutation that was executed; see
        :attr:`couchbase.protocol.call.Call.following`."""
        if result._rc or not any(self.requirement):
            return False
        if self._testhook is not None:
            self._testhook(result)
        client, cas = self._client, durability.awaited_cas(call, result)
        self._call, self._result = call, result
        self.check_removed = call.operation is operations.DELETE
        if not self.ask(client, call, cas, self._timeout, client.host_timeout):
            self._run(self._timeout)
        return True

    def decided(self) -> None:
        """See :meth:`couchbase.protocol.firstround.FirstRound.decided`."""
        call: Any = self._call
        if call.done:
            return
        try:
            code = self.verdict()
        except CouchbaseError as error:
            call.fail(durability.unwatched_error(call, error, self._result))
            return
        if code is None:
            self._run(self.deadline - self._client.seconds(), True)
        else:
            self._endured({call.key_bytes: code})

    def _run(self, timeout: float, begun: bool = False) -> None:
        call, client = self._call, self._client
        plan = durability.endure_plan(
            client.current_map,
            client.seconds,
            {call.key_bytes: durability.awaited_cas(call, self._result)},
            self.requirement,
            timeout=timeout,
            interval=self._interval,
            check_removed=self.check_removed,
            after_mutation=True,
            keyspace=call.keyspace,
            begun=begun,
        )
        client.run(plan).addCallbacks(self._endured, self._failed)

    def _endured(self, outcome: dict[bytes, int]) -> None:
        call, result = self._call, self._result
        code = outcome[call.key_bytes]
        call.following = None
        if code:
            failed = durability.unsafe_result(call, code, result)
            name = call.operation.name
            call.fail(durability.endure_error(call.key, code, self.requirement, name, failed))
        else:
            call.succeed(result)

    def _failed(self, failure: Failure) -> None:
        assert failure.value is not None
        self._call.fail(durability.unwatched_error(self._call, failure.value, self._result))


class Waiting(FirstRound):
    """The documents that ``endure`` waits for.

    :param wanted: ``persist_to`` and ``replicate_to``.
    :param timeout: seconds.
    :param interval: seconds between two polls.
    :param check_removed: whether to wait until they are removed.
    """

    __slots__ = ("_begun", "_call", "_client", "_documents", "_interval", "_otherwise", "_timeout", "_wanted")

    def __init__(
        self,
        client: ClusterClient,
        documents: Sequence[Request],
        wanted: tuple[int, int],
        timeout: float,
        interval: float,
        check_removed: bool,
    ) -> None:
        self._client = client
        self._documents = documents
        self._wanted = wanted
        self._timeout = timeout
        self._interval = interval
        self._begun = False
        self.check_removed = check_removed

    def begin(self, call: Call, otherwise: Callable[[Call, Waiting], None]) -> None:
        """Wait for a single document: ask once without a plan, if that is possible.

        :param call: ended with the outcome, unless ``otherwise`` is called.
        :param otherwise: called with the call and this object to run the plan.
        """
        client, document = self._client, self._documents[0]
        cluster = client.map
        if cluster is not None and client.route and type(document.key) in _KEYS:
            try:
                self.requirement = durability.check_requirement(cluster, *self._wanted)
            except CouchbaseError as error:
                call.fail(error)
                return
            self._call, self._otherwise = call, otherwise
            client.watch_time()
            if self.ask(client, document, document.cas, self._timeout, client.host_timeout):
                return
        otherwise(call, self)

    def decided(self) -> None:
        """See :meth:`couchbase.protocol.firstround.FirstRound.decided`."""
        call = self._call
        if call.done:
            return
        try:
            code = self.verdict()
        except CouchbaseError as error:
            call.fail(error)
            return
        if code is None:
            self._timeout, self._begun = self.deadline - self._client.seconds(), True
            self._otherwise(call, self)
            return
        result = failed_result(call, code)
        if code:
            call.fail(durability.endure_error(call.key, code, self.requirement, "endure", result))
        else:
            call.succeed(result)

    @property
    def names(self) -> list[Any]:
        """The documents' keys in the caller's form."""
        keys = [document.key for document in self._documents]
        return [key.key if type(key) is ItemTarget else key for key in keys]

    def plan(self) -> Generator[Any, Any, dict[bytes, int]]:
        """Return the plan that asks the nodes.

        :raises CouchbaseError: the cluster cannot meet the requirements, or there is no map.
        """
        client, documents = self._client, self._documents
        if not self._begun:
            self.requirement = durability.check_requirement(client.current_map(), *self._wanted)
        return durability.endure_plan(
            client.current_map,
            client.seconds,
            {document.key_bytes: document.cas for document in documents},
            self.requirement,
            timeout=self._timeout,
            interval=self._interval,
            check_removed=self.check_removed,
            keyspace=documents[0].keyspace,
            begun=self._begun,
        )

    def outcome(self, codes: dict[bytes, int]) -> dict[Any, Any]:
        """Convert the plan's result to key -> result or exception."""
        outcome: dict[Any, Any] = {}
        for document, key in zip(self._documents, self.names, strict=True):
            code = codes[document.key_bytes]
            result: Any = failed_result(Call(operations.ENDURE, key, document.key_bytes), code)
            if type(document.key) is ItemTarget:
                item = document.key.item
                fill(item, result)
                result = item
            if code:
                result = durability.endure_error(key, code, self.requirement, "endure", result)
            outcome[key] = result
        return outcome
