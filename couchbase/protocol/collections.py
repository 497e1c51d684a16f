"""Collections of a bucket: their ids, and the operations that wait for them.

On the wire a key begins with the id of its collection. Ids come from the manifest of the bucket's
collections, which changes: an id is requested at its first use, cached, and requested again when a node does
not know it any more. For a moment, nodes may have different manifests. A node whose manifest is older than
the newest known one is behind, and is asked again until the operation times out; otherwise its answer is
final.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from struct import Struct
from typing import Any, Protocol
from weakref import WeakValueDictionary

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, ProtocolError, error_of
from couchbase.protocol.call import Call
from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.failures import client_error, error_context, failed_result, malformed_answer
from couchbase.protocol.frames import Frame
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace, KeyspaceState
from couchbase.protocol.request import Request

MOST_KEYSPACES = 1024
"""Number of recently used collections whose ids are kept although nothing refers to them."""

UNKNOWN_PLACES = frozenset({Status.UNKNOWN_COLLECTION, Status.UNKNOWN_SCOPE})
"""Statuses of a node that does not know a collection, or its scope."""

_NOT_OFFERED = frozenset({Status.UNKNOWN_COMMAND, Status.NOT_SUPPORTED})
# Uid of the manifest, id of the collection.
_ID_EXTRAS = Struct(">QI")


class Home(Protocol):
    """The owner of the operations; :class:`couchbase.protocol.dispatch.Dispatcher` is one."""

    bucket: str | None
    most_pending: int
    """Largest number of operations that may wait for one id; later ones are refused."""

    def submit(self, call: Any) -> None:
        """Send an operation to the node that owns its key, now or when that is possible."""

    def submit_again(self, call: Any) -> None:
        """Send an operation again after a pause; later ones on its key wait for it."""


class Collections:
    """The collections of a driver's bucket that are in use.

    :param home: sends operations; this object belongs to it.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self.is_used = False
        """Whether any operation was ever for a collection other than the default one."""
        self.newest = 0
        """Uid of the newest manifest that a node referred to."""
        self._uuid: str | None = None
        # A request for an id belongs to one bucket; this number changes with the bucket.
        self._generation = 0
        self._keyspaces: WeakValueDictionary[tuple[str, str], Keyspace] = WeakValueDictionary()
        self._kept: OrderedDict[tuple[str, str], Keyspace] = OrderedDict()
        self._asked: dict[Keyspace, None] = {}

    def keyspace(self, scope: str, collection: str) -> Keyspace:
        """Return the keyspace of a collection: the same object for the same names."""
        names = scope, collection
        if names == (DEFAULT_KEYSPACE.scope, DEFAULT_KEYSPACE.collection):
            return DEFAULT_KEYSPACE
        found = self._keyspaces.get(names)
        if found is None:
            found = self._keyspaces[names] = Keyspace(scope, collection)
            self.is_used = True
        self._kept[names] = found
        self._kept.move_to_end(names)
        if len(self._kept) > MOST_KEYSPACES:
            self._kept.popitem(last=False)
        return found

    # ---- operations ------------------------------------------------------------------------------

    def admits(self, conversation: Any, call: Call) -> bool:
        """Return whether an operation in a named collection can be sent; if not, it waits, or has failed.

        :param conversation: the :class:`couchbase.protocol.conversation.Conversation` it is for; the node is
            asked for the id unless a request for it is running.
        """
        keyspace = call.keyspace
        if not conversation.prefix:
            call.fail(not_offered(call, conversation.name))
            return False
        if keyspace.state is KeyspaceState.KNOWN:
            return True
        if self._wait(call) and keyspace.state is KeyspaceState.UNKNOWN:
            keyspace.state = KeyspaceState.ASKED
            self._asked[keyspace] = None
            listener = partial(self._answered, conversation, keyspace, self._generation)
            conversation.ask(Opcode.GET_COLLECTION_ID, listener, {"value": keyspace.path})
        return False

    def _wait(self, call: Call) -> bool:
        waiting, most = call.keyspace.waiting, self._home.most_pending
        if len(waiting) >= most:
            open_ = [other for other in waiting if not other.done]
            waiting.clear()
            waiting.extend(open_)
        if len(waiting) >= most:
            message = f"{most} operations wait for the id of their collection"
            call.fail(client_error(call, exceptions.CLIENT_ETMPFAIL, message))
            return False
        waiting.append(call)
        return True

    def refused(self, conversation: Any, call: Call, frame: Frame) -> None:
        """Take back an operation whose collection a node does not know."""
        keyspace = call.keyspace
        manifest = manifest_uid(frame)
        if keyspace is not DEFAULT_KEYSPACE:
            if manifest is not None:
                self.newest = max(self.newest, manifest)
                if manifest < keyspace.manifest:
                    # The node is behind.
                    self._home.submit_again(call)
                    return
            keyspace.forget()
            if call.last_status != Status.UNKNOWN_COLLECTION:
                call.last_status = Status.UNKNOWN_COLLECTION
                # Ask this node: in its manifest, or in a newer one, the id is unknown.
                if self.admits(conversation, call):
                    self._home.submit(call)
                return
        call.fail(self._not_found(call, frame))

    def _answered(self, conversation: Any, keyspace: Keyspace, generation: int, frame: Frame | None) -> bool:
        """Handle an answer to the question for an id."""
        waiting = [call for call in keyspace.waiting if not call.done]
        keyspace.waiting.clear()
        self._asked.pop(keyspace, None)
        if keyspace.state is KeyspaceState.ASKED:
            keyspace.state = KeyspaceState.UNKNOWN
        if frame is None or generation != self._generation:
            # There is no answer, or one of a deleted bucket: nothing was sent, so all operations start again.
            for call in waiting:
                self._home.submit(call)
        elif frame.specific in UNKNOWN_PLACES:
            manifest = manifest_uid(frame)
            is_behind = manifest is not None and manifest < self.newest
            self.newest = max(self.newest, manifest or 0)
            for call in waiting:
                if is_behind:
                    self._home.submit_again(call)
                else:
                    call.fail(self._not_found(call, frame))
        elif frame.specific == Status.SUCCESS:
            self._learn(keyspace, waiting, frame)
        elif frame.specific in _NOT_OFFERED:
            for call in waiting:
                call.fail(not_offered(call, conversation.name))
        else:
            for call in waiting:
                conversation.answered(call, frame)
        return False

    def _learn(self, keyspace: Keyspace, waiting: list[Call], frame: Frame) -> None:
        try:
            learn(keyspace, frame)
        except ProtocolError as error:
            for call in waiting:
                call.fail(malformed_answer(call, str(error.message)))
            return
        self.newest = max(self.newest, keyspace.manifest)
        for call in waiting:
            self._home.submit(call)

    def _not_found(self, call: Call, frame: Frame) -> CouchbaseError:
        code, message = place_missing(call.keyspace, frame.specific, self._home.bucket)
        return error_of(
            code,
            message,
            key=call.key,
            status=frame.specific,
            operation=call.operation.name,
            result=failed_result(call, code),
            context=error_context(frame),
        )

    # ---- the bucket, time, the end ---------------------------------------------------------------

    def of_bucket(self, uuid: str | None) -> None:
        """Note which bucket the nodes serve: ids and manifests of an earlier bucket of the same name are
        invalid.

        :param uuid: ``None`` if the nodes do not report it; the bucket may then be a different one each time.
        """
        if uuid is None or uuid != self._uuid:
            self.forget()
        self._uuid = uuid

    def forget(self) -> None:
        """Forget all ids; operations that wait for one request it again."""
        self._generation += 1
        self.newest = 0
        for keyspace in list(self._keyspaces.values()):
            keyspace.forget()
            keyspace.manifest = 0

    def waiting(self) -> Iterator[Call]:
        """Return the operations that wait for an id."""
        for keyspace in list(self._asked):
            yield from [call for call in keyspace.waiting if not call.done]

    def start_afresh(self) -> None:
        """Forget all ids, and the operations that wait for them. For a driver that has abandoned these
        operations."""
        for keyspace in self._asked:
            keyspace.waiting.clear()
            keyspace.state = KeyspaceState.UNKNOWN
        self._asked.clear()
        self.forget()


def manifest_uid(frame: Frame) -> int | None:
    """Return the uid of the manifest by which a node does not know a collection; ``None`` if not given."""
    if not frame.value.startswith(b"{"):
        return None
    try:
        uid = int(json.loads(frame.value)["manifest_uid"], 16)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return uid if uid >= 0 else None


def learn(keyspace: Keyspace, answer: Frame) -> None:
    """Take the id of a collection from a node's answer.

    :raises ProtocolError: the answer is malformed.
    """
    if len(answer.extras) != _ID_EXTRAS.size:
        size = len(answer.extras)
        raise ProtocolError(f"the id of a collection has {size} bytes instead of {_ID_EXTRAS.size}")
    manifest, collection_id = _ID_EXTRAS.unpack(answer.extras)
    keyspace.learn(collection_id, manifest)


def place_missing(keyspace: Keyspace, status: int, bucket: str | None) -> tuple[int, str]:
    """Return the result code and the message for a collection, or scope, that a bucket does not have.

    :param status: a node's status, one of :data:`UNKNOWN_PLACES`.
    """
    if status == Status.UNKNOWN_SCOPE:
        return exceptions.SCOPE_ENOENT, f"bucket {bucket!r} has no scope {keyspace.scope!r}"
    return (
        exceptions.COLLECTION_ENOENT,
        f"bucket {bucket!r} has no collection {keyspace.collection!r} in scope {keyspace.scope!r}",
    )


def not_offered(request: Request, name: str) -> CouchbaseError:
    """Return the error for a collection on a node without collections.

    :param name: ``host:port`` of the node.
    """
    keyspace = request.keyspace
    return client_error(
        request,
        exceptions.NOT_SUPPORTED,
        f"{name} does not offer collections, so there is no {keyspace.scope}.{keyspace.collection}: "
        "they need Couchbase Server 7.0 or later, and a bucket other than a memcached one",
    )
