"""Durability by polling: waits until enough nodes have a version of a document.

SDK 1.2's ``persist_to`` and ``replicate_to``: after a mutation the client polls the nodes (OBSERVE) until as
many as required have the version in memory or on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

from couchbase import exceptions
from couchbase.exceptions import ArgumentError, CouchbaseError, error_of
from couchbase.protocol.clustermap import ClusterMap
from couchbase.protocol.constants import ObserveState, Opcode
from couchbase.protocol.failures import failed_result
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace
from couchbase.protocol.observation import Observation, poll
from couchbase.protocol.operations import ADD, APPEND, DELETE, PREPEND, REPLACE, SET
from couchbase.protocol.plans import Pause
from couchbase.protocol.request import Request
from couchbase.protocol.subdocument import MUTATE_IN
from couchbase.result import Result

ENDURED = frozenset({SET, ADD, REPLACE, APPEND, PREPEND, DELETE, MUTATE_IN})
"""The operations to which a durability context applies."""
DEFAULT_TIMEOUT_SECONDS = 5.0
MUTATION_INTERVAL_SECONDS = 0.1
"""Pause between polls after a mutation, in seconds (libcouchbase's durability interval)."""
ENDURE_INTERVAL_SECONDS = 0.010
"""Default pause between polls of ``endure``, in seconds."""

_COUNTERS = (Opcode.INCREMENT, Opcode.DECREMENT)
_HERE = (ObserveState.FOUND, ObserveState.PERSISTED)


class Requirement(NamedTuple):
    """The required copies, on disk and in memory."""

    persist_to: int
    """Number of nodes that must have it on disk, including the active one."""
    replicate_to: int
    """Number of replicas that must have it in memory."""

    @property
    def active_only(self) -> bool:
        """Whether the replicas need not be asked."""
        return self.persist_to <= 1 and self.replicate_to == 0


def check_requirement(cluster: ClusterMap, persist_to: int, replicate_to: int) -> Requirement:
    """Resolve "as many as possible" and refuse requirements that the cluster cannot meet.

    :param persist_to: nodes; negative means all of them.
    :param replicate_to: replicas; negative means all of them.
    :raises ArgumentError: (rc 0x21) more copies than the cluster has, or copies on disk for a bucket without
        a disk.
    """
    if persist_to and not cluster.persistent:
        raise _impossible(
            f"persist_to={persist_to}, but bucket {cluster.name!r} is ephemeral: it has no disk"
        )
    replicas = cluster.usable_replicas
    persist_to = replicas + 1 if persist_to < 0 else persist_to
    replicate_to = replicas if replicate_to < 0 else replicate_to
    if persist_to <= replicas + 1 and replicate_to <= replicas:
        return Requirement(persist_to, replicate_to)
    name, wanted, most = "persist_to", persist_to, replicas + 1
    if wanted <= most:
        name, wanted, most = "replicate_to", replicate_to, replicas
    raise _impossible(
        f"{name}={wanted}, but the cluster allows at most {most} "
        f"({cluster.data_nodes} nodes, {cluster.replicas} replicas)"
    )


def _impossible(message: str) -> CouchbaseError:
    return error_of(exceptions.DURABILITY_ETOOMANY, message)


def awaited_cas(request: Request, result: Result) -> int:
    """Return the version whose copies a mutation waits for; 0 for any. A counter accepts any later version,
    because other clients may change it, too.
    """
    return 0 if request.operation.opcode in _COUNTERS else int(result._cas)


# Many parameters: what is required, and what the driver brings; keywords.
def endure_plan(
    current_map: Callable[[], ClusterMap],
    clock: Callable[[], float],
    cas_of: Mapping[bytes, int],
    requirement: Requirement,
    *,
    timeout: float,
    interval: float,
    check_removed: bool = False,
    after_mutation: bool = False,
    keyspace: Keyspace = DEFAULT_KEYSPACE,
    begun: bool = False,
) -> Generator[Any, Any, dict[bytes, int]]:
    """Plan that waits until every key's version has the required copies.

    :param current_map: returns the current map; a newer one restarts the count, since each round uses one map
        only.
    :param clock: seconds, monotonic.
    :param cas_of: key -> CAS of the version to wait for; 0 for any version.
    :param timeout: seconds; measured from the first step.
    :param interval: seconds between two rounds; the first starts at once.
    :param check_removed: wait until the keys are gone instead.
    :param after_mutation: whether the version was just written, so that another client must have removed or
        replaced it if the active node lacks it.
    :param keyspace: the collection that the keys are in.
    :param begun: whether the first round was asked already, and did not decide.
    :returns: key -> result code: 0, KEY_EEXISTS (the document has another version), KEY_ENOENT (not on the
        active node), ETIMEDOUT.
    """
    deadline = clock() + timeout
    waiting = dict(cas_of)
    outcome: dict[bytes, int] = {}
    while True:
        if not begun:
            cluster = current_map()
            views = (yield from poll(cluster, list(waiting), requirement.active_only, keyspace)).views
            for key, cas in list(waiting.items()):
                active = cluster.active(cluster.vbucket(key))
                verdict = judge(views.get(key, {}), active, cas, requirement, check_removed, after_mutation)
                if verdict is not None:
                    outcome[key] = verdict
                    del waiting[key]
        begun = False
        remaining = deadline - clock()
        if not waiting or remaining <= 0:
            outcome.update(dict.fromkeys(waiting, exceptions.ETIMEDOUT))
            return outcome
        yield Pause(min(interval, remaining))


def judge(
    view: dict[int, Observation],
    active: int,
    cas: int,
    requirement: Requirement,
    check_removed: bool,
    after_mutation: bool,
) -> int | None:
    """Return the result code for one key, ``None`` while it is undecided.

    Counting follows SDK 1.2. Waiting for existence: the active node must hold the version;
    persisted copies need the same CAS, replicated copies only need to exist. Waiting for removal: a key
    not found counts as persisted and replicated, one deleted in memory only as replicated.
    """
    master = view.get(active)
    if master is None:
        return None
    persisted = replicated = 0
    if check_removed:
        if master.state in _HERE:
            # The document was written again, so the removal that we wait for no longer holds.
            return exceptions.KEY_EEXISTS if after_mutation and master.cas != cas else None
        for server, seen in view.items():
            gone = seen.state == ObserveState.NOT_FOUND
            persisted += gone
            replicated += server != active and (gone or seen.state == ObserveState.LOGICALLY_DELETED)
        on_disk = master.state == ObserveState.NOT_FOUND
    else:
        if master.state not in _HERE:
            return exceptions.KEY_EEXISTS if after_mutation else exceptions.KEY_ENOENT
        if cas and master.cas != cas:
            return exceptions.KEY_EEXISTS
        for server, seen in view.items():
            if seen.state in _HERE:
                replicated += server != active
                persisted += seen.state == ObserveState.PERSISTED and (not cas or seen.cas == cas)
        on_disk = master.state == ObserveState.PERSISTED
    if requirement.persist_to and not on_disk:
        return None
    if persisted < requirement.persist_to or replicated < requirement.replicate_to:
        return None
    return exceptions.SUCCESS


_REASONS = {
    exceptions.ETIMEDOUT: "not on enough nodes in time",
    exceptions.KEY_EEXISTS: "the active node has another version",
    exceptions.KEY_ENOENT: "the active node does not have it",
}
_REASONS_AFTER = {
    **_REASONS,
    exceptions.ETIMEDOUT: "the write was made, but is not on enough nodes in time",
    exceptions.KEY_EEXISTS: "stored, then overtaken by another write while waiting for copies",
}
_REASONS_AFTER_DELETE = {
    **_REASONS_AFTER,
    exceptions.KEY_EEXISTS: "removed, then overtaken by another write while waiting for copies",
}


def endure_error(
    key: object, code: int, requirement: Requirement, operation: str, result: object
) -> CouchbaseError:
    """Return the exception for a key whose wait ended with ``code``.

    After a mutation the error is ambiguous: the active node executed it, but the state of its copies is
    unknown.
    """
    mutated = operation != "endure"
    reasons = _REASONS
    if mutated:
        reasons = _REASONS_AFTER_DELETE if operation == "delete" else _REASONS_AFTER
    return error_of(
        code,
        f"durability (persist_to={requirement.persist_to}, "
        f"replicate_to={requirement.replicate_to}) not reached: {reasons[code]}",
        key=key,
        operation=operation,
        result=result,
        ambiguous=mutated,
    )


def unwatched_error(request: Request, error: BaseException, stored: Result) -> CouchbaseError:
    """Return the exception for a mutation that succeeded, but whose copies could not be observed.

    :param error: the reason.
    :param stored: the result of the mutation.
    """
    code = error.rc if isinstance(error, CouchbaseError) else exceptions.ERROR
    words = getattr(error, "message", None) or error
    return error_of(
        code,
        f"the write was made, but the state of its copies is unknown: {words}",
        key=request.key,
        operation=request.operation.name,
        result=unsafe_result(request, code, stored),
        inner_cause=error,
        ambiguous=True,
    )


def unsafe_result(request: Request, code: int, stored: Result) -> Any:
    """Return the failed result of a mutation that was executed, with its CAS."""
    result = failed_result(request, code)
    result._cas = stored._cas
    return result


def check_count(name: str, value: object) -> int:
    """Return ``persist_to`` or ``replicate_to`` if it is a whole number.

    :raises ArgumentError: it is not a whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentError.pyexc(f"{name} must be an int, not {type(value).__name__}", obj=value)
    return value
