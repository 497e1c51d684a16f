"""Mutations that wait for copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from couchbase.exceptions import CouchbaseError
from couchbase.protocol import durability, operations
from couchbase.result import Result
from txcouchbase.calls import Call
from txcouchbase.cluster import ClusterClient


class Endurance:
    """The copies that a mutation with ``persist_to`` or ``replicate_to`` waits for, as a call's
    ``following``.

    :param wanted: ``persist_to`` and ``replicate_to``.
    :param timeout: seconds.
    :param interval: seconds between two polls.
    :param testhook: called with the result before the first poll.
    """

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
        self._requirement = durability.Requirement(0, 0)

    def before(self, call: Call) -> bool:
        """Refuse, before anything is sent, requirements that the cluster cannot meet."""
        try:
            self._requirement = durability.check_requirement(self._client.current_map(), *self._wanted)
        except CouchbaseError as error:
            error.key, error.operation = call.key, call.operation.name
            call.fail(error)
            return False
        return True

    def __call__(self, call: Call, result: Result) -> bool:
        if result._rc or not any(self._requirement):
            return False
        if self._testhook is not None:
            self._testhook(result)
        plan = durability.endure_plan(
            self._client.current_map,
            self._client.seconds,
            {call.key_bytes: durability.awaited_cas(call, result)},
            self._requirement,
            timeout=self._timeout,
            interval=self._interval,
            check_removed=call.operation is operations.DELETE,
            after_mutation=True,
            keyspace=call.keyspace,
        )
        self._client.run(plan).addCallbacks(
            self._endured, self._failed, callbackArgs=(call, result), errbackArgs=(call, result)
        )
        return True

    def _endured(self, outcome: dict[bytes, int], call: Call, result: Result) -> None:
        code = outcome[call.key_bytes]
        call.following = None
        if code:
            failed = durability.unsafe_result(call, code, result)
            name = call.operation.name
            call.fail(durability.endure_error(call.key, code, self._requirement, name, failed))
        else:
            call.succeed(result)

    @staticmethod
    def _failed(failure: Failure, call: Call, result: Result) -> None:
        assert failure.value is not None
        call.fail(durability.unwatched_error(call, failure.value, result))
