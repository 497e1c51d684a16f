"""The state of documents on nodes: OBSERVE requests, and plans that send them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from struct import Struct
from typing import Any, NamedTuple

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.clustermap import ClusterMap
from couchbase.protocol.collections import UNKNOWN_PLACES, learn, manifest_uid, not_offered, place_missing
from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.failures import client_error, error_context, status_name
from couchbase.protocol.frames import Frame
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace
from couchbase.protocol.operations import OBSERVE
from couchbase.protocol.plans import Ask, Pause
from couchbase.protocol.request import Request
from couchbase.result import ObserveInfo, ValueResult

MAX_KEYS_PER_OBSERVE = 500
"""Largest number of keys in one frame, which stays under 128 KiB even with the longest keys."""

ENTRY_HEAD = Struct(">HH")
"""The vbucket, and the length of the key behind it: an entry of a question or an answer begins with them."""
ENTRY_TAIL = Struct(">BQ")
"""State and CAS, which follow the key in an answer."""


class Observation(NamedTuple):
    """One node's answer about one key."""

    key: bytes
    state: int
    cas: int


def observe_value(entries: Sequence[tuple[int, bytes]], prefix: bytes = b"") -> bytes:
    """Encode the value of an OBSERVE request from ``(vbucket, key)`` pairs.

    :param prefix: prefix of the keys on the wire.
    """
    return b"".join(
        ENTRY_HEAD.pack(vbucket, len(prefix) + len(key)) + prefix + key for vbucket, key in entries
    )


def parse_observe(value: bytes) -> list[Observation]:
    """Decode the value of an OBSERVE answer.

    :raises CouchbaseError: ProtocolError, an entry runs past the end.
    """
    found = []
    at, end = 0, len(value)
    while at < end:
        if at + ENTRY_HEAD.size > end:
            raise _malformed()
        _, size = ENTRY_HEAD.unpack_from(value, at)
        at += ENTRY_HEAD.size
        if at + size + ENTRY_TAIL.size > end:
            raise _malformed()
        state, cas = ENTRY_TAIL.unpack_from(value, at + size)
        found.append(Observation(value[at : at + size], state, cas))
        at += size + ENTRY_TAIL.size
    return found


def observe_questions(
    cluster: ClusterMap, keys: Sequence[bytes], active_only: bool, keyspace: Keyspace = DEFAULT_KEYSPACE
) -> list[tuple[int, int, dict[str, Any]]]:
    """Group keys by the nodes that hold them, as questions of an :class:`couchbase.protocol.plans.Ask`."""
    by_node: dict[int, list[tuple[int, bytes]]] = {}
    for key in keys:
        vbucket = cluster.vbucket(key)
        row = cluster.rows[vbucket]
        for server in holders(row, active_only):
            by_node.setdefault(server, []).append((vbucket, key))
    questions = []
    for server, entries in by_node.items():
        for start in range(0, len(entries), MAX_KEYS_PER_OBSERVE):
            value = partial(_value_for, entries[start : start + MAX_KEYS_PER_OBSERVE], keyspace)
            questions.append((server, int(Opcode.OBSERVE), {"value": value}))
    return questions


def _value_for(entries: Sequence[tuple[int, bytes]], keyspace: Keyspace, default_prefix: bytes) -> bytes:
    """Encode the value for a connection.

    :param default_prefix: prefix of keys in the default collection on this connection.
    """
    if keyspace is DEFAULT_KEYSPACE:
        return observe_value(entries, default_prefix)
    # A node without collections holds none of them.
    return observe_value(entries, keyspace.prefix) if default_prefix else b""


class Copies(NamedTuple):
    """The nodes' answers about one key."""

    seen: list[ObserveInfo]
    """One entry for each copy whose node answered."""
    missing: list[str]
    """``host:port`` of each node that holds a copy but could not be asked or did not answer."""


OBSERVE_ROUNDS = 5
"""Largest number of requests to a node that answers that it does not know yet."""
OBSERVE_PAUSE_SECONDS = 0.05


def observe_plan(
    current_map: Callable[[], ClusterMap],
    keys: Sequence[bytes],
    master_only: bool,
    keyspace: Keyspace = DEFAULT_KEYSPACE,
) -> Generator[Any, Any, dict[bytes, Copies]]:
    """Plan that asks nodes for the state of documents of a collection; returns the answers by key.

    :raises CollectionNotFoundError: there is no such collection.
    :raises ScopeNotFoundError: there is no such scope.
    :raises CouchbaseError: NotSupportedError, a server does not know OBSERVE; AuthError, the user lacks the
        permission.
    """
    for attempt in range(OBSERVE_ROUNDS):
        cluster = current_map()
        round_ = yield from poll(cluster, keys, master_only, keyspace, connect=True)
        if not round_.refused or attempt == OBSERVE_ROUNDS - 1:
            break
        # The vbucket is moving, or the node is busy.
        yield Pause(OBSERVE_PAUSE_SECONDS)
    found = {}
    for key in keys:
        vbucket = cluster.vbucket(key)
        active, view = cluster.active(vbucket), round_.views.get(key, {})
        asked = holders(cluster.rows[vbucket], master_only)
        found[key] = Copies(
            [
                ObserveInfo(view[server].state, server == active, view[server].cas)
                for server in asked
                if server in view
            ],
            [_name_of(cluster, server) for server in asked if server not in view],
        )
    return found


def observe_error(request: Request, copies: Copies, code: int) -> CouchbaseError:
    """Return the error for a key if some of its copies could not be asked.

    Its ``result`` has the answers of the others.
    """
    result = ValueResult(code, 0, copies.seen)
    result._key = request.key
    nodes = ", ".join(copies.missing) or "the active node is not known"
    total = len(copies.seen) + len(copies.missing)
    error = client_error(
        request, code, f"{len(copies.missing)} of {total} copies could not be asked: {nodes}"
    )
    error.result = result
    return error


def _name_of(cluster: ClusterMap, server: int) -> str:
    node = cluster.nodes[server]
    return f"{node.host}:{node.kv or node.kv_tls}"


def holders(row: Sequence[int], active_only: bool) -> list[int]:
    """Return the indexes of the nodes that hold a vbucket, the active one first.

    :param row: the vbucket's row in the map.
    """
    return [server for server in dict.fromkeys(row[:1] if active_only else row) if server >= 0]


class Round(NamedTuple):
    """The answers of one round."""

    views: dict[bytes, dict[int, Observation]]
    """Key -> server index -> its answer."""
    refused: bool
    """Whether a node answered that it does not know yet."""


_UNKNOWN = frozenset({Status.UNKNOWN_COMMAND, Status.NOT_SUPPORTED})


def poll(
    cluster: ClusterMap, keys: Sequence[bytes], active_only: bool, keyspace: Keyspace, connect: bool = False
) -> Generator[Any, Any, Round]:
    """Plan that asks one round.

    :raises CouchbaseError: a node's answer cannot change in further rounds.
    """
    if not keyspace.prefix:
        yield from resolve(cluster, keyspace)
    questions = observe_questions(cluster, keys, active_only, keyspace)
    answers: Sequence[Frame | None] = yield Ask(questions, connect)
    views: dict[bytes, dict[int, Observation]] = {}
    refused = False
    for (server, _, _), answer in zip(questions, answers):
        if answer is None:
            continue
        if answer.specific == Status.SUCCESS:
            add_seen(views, server, answer.value, keys, keyspace)
            continue
        check_refusal(cluster, server, answer, keyspace)
        refused = True
    return Round(views, refused)


def add_seen(
    views: dict[bytes, dict[int, Observation]],
    server: int,
    value: bytes,
    keys: Sequence[bytes],
    keyspace: Keyspace,
) -> None:
    """Add a node's answer to those of the others, by key and server index.

    :param value: the value of a success.
    :raises CouchbaseError: ProtocolError, it is malformed.
    """
    for key, seen in _by_key(parse_observe(value), keys, keyspace):
        views.setdefault(key, {})[server] = seen


def check_refusal(cluster: ClusterMap, server: int, answer: Frame, keyspace: Keyspace) -> None:
    """Take note of an answer other than a success.

    :raises CouchbaseError: it cannot change in further rounds.
    """
    status = answer.specific
    if status == Status.UNKNOWN_COLLECTION and (manifest_uid(answer) or 0) >= keyspace.manifest:
        keyspace.forget()
    if status in _UNKNOWN or status == Status.EACCESS:
        raise _cannot_observe(_name_of(cluster, server), status)


def _by_key(
    found: Sequence[Observation], keys: Sequence[bytes], keyspace: Keyspace
) -> list[tuple[bytes, Observation]]:
    """Return the answers by the requested keys; on the wire, keys have a prefix if collections are used."""
    prefixed = {keyspace.prefix + key: key for key in keys}
    if keyspace is DEFAULT_KEYSPACE and not all(seen.key in prefixed for seen in found):
        return [(seen.key, seen) for seen in found]
    return [(prefixed[seen.key], seen) for seen in found if seen.key in prefixed]


def resolve(cluster: ClusterMap, keyspace: Keyspace) -> Generator[Any, Any, None]:
    """Plan that asks one node after the other for the id of a collection, until one knows it.

    :raises CouchbaseError: there is no such collection, or no collections at all. If no node can be asked,
        the id remains unknown.
    """
    for server in range(cluster.data_nodes):
        (answer,) = yield Ask([(server, int(Opcode.GET_COLLECTION_ID), {"value": keyspace.path})], True)
        if answer is None:
            continue
        name = _name_of(cluster, server)
        if answer.specific in UNKNOWN_PLACES:
            code, message = place_missing(keyspace, answer.specific, cluster.name)
            raise error_of(code, message, status=answer.specific, context=error_context(answer))
        if answer.specific in _UNKNOWN:
            request = Request(OBSERVE, None, b"")
            request.keyspace = keyspace
            raise not_offered(request, name)
        if answer.specific == Status.EACCESS:
            raise _cannot_observe(name, answer.specific)
        if answer.specific == Status.SUCCESS:
            learn(keyspace, answer)
            return


def _cannot_observe(name: str, status: int) -> CouchbaseError:
    if status == Status.EACCESS:
        code, why = exceptions.AUTH_ERROR, "the user may not read this bucket"
    else:
        code, why = exceptions.NOT_SUPPORTED, "the server does not know OBSERVE"
    message = f"{name} cannot report the copies: {why} ({status_name(status)})"
    return error_of(code, message, status=int(status) if code == exceptions.AUTH_ERROR else None)


def _malformed() -> CouchbaseError:
    return error_of(exceptions.PROTOCOL_ERROR, "an OBSERVE answer ends inside an entry")
