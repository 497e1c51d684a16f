"""Documents: read, create, replace, remove, append and prepend."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from couchbase.protocol.constants import MAX_KEY_BYTES
from gateway.cluster.bulk import LARGE_BYTES, LargeKeys
from gateway.cluster.credentials import Authorizer
from gateway.cluster.pool import ConnectionPool
from gateway.dialect.conditions import (
    CONDITIONS,
    DURABILITY,
    ENCODING,
    EXPIRY,
    FLAGS,
    TIMEOUT,
    Condition,
    check_encoding,
    compare_and_write,
    read_condition,
)
from gateway.dialect.contenttypes import FLAGS_OF_TYPE, flags_of
from gateway.dialect.errors import bad_request
from gateway.dialect.expiry import expiry_from_expires, expiry_from_ttl
from gateway.dialect.headers import NO_DURABILITY, Durability, parse_durability, parse_flags
from gateway.dialect.paths import DOCUMENT
from gateway.dialect.projection import Path, parse_projection
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint
from gateway.resources.base import BucketResource, check_collection, document_key, note
from gateway.resources.rendering import Rendering

__all__ = ["Documents", "MutationHeaders", "read_expiry", "read_mutation"]

_GET_QUERY = frozenset({"project", "replica"})

ANY = -1
"""Whichever replica answers."""

_REPLICAS = {"any": ANY, "0": 0, "1": 1, "2": 2}


class _Wanted(NamedTuple):
    """What a GET asks for."""

    paths: list[tuple[str, Path]] | None
    replica: int | None
    """``None``: the active copy; ``ANY``: whichever replica answers."""
    if_match: bytes | None = None
    if_none_match: bytes | None = None


_WHOLE = _Wanted(None, None)


def read_get(request: Request) -> _Wanted:
    """Read query and headers of a GET; raises Refusal (400)."""
    conditions = (request.header(b"If-Match"), request.header(b"If-None-Match"))
    if not request.query_string:
        return _Wanted(None, None, *conditions)
    query = request.query(_GET_QUERY)
    replica = None
    if "replica" in query:
        replica = _REPLICAS.get(query["replica"])
        if replica is None:
            raise bad_request(f"replica: {query['replica'][:80]!r} is not one of any, 0, 1, 2")
    paths = parse_projection(query["project"]) if "project" in query else None
    return _Wanted(paths, replica, *conditions)


class MutationHeaders(NamedTuple):
    """The headers of a mutation, as sent: looked up early, because a header given twice is
    refused before anything else; read later, because the Data API looks at credentials and bucket
    before it looks at them.
    """

    if_match: bytes | None
    if_none_match: bytes | None
    encoding: bytes | None
    expires: str | None
    ttl: str | None
    level: bytes | None
    persist_to: bytes | None
    replicate_to: bytes | None
    flags: int
    is_plain: bool = False
    """Whether there is nothing but the flags."""

    def durability(self) -> Durability:
        """Return what the mutation waits for; raises Refusal (400)."""
        return parse_durability(self.level, self.persist_to, self.replicate_to)

    def condition(self) -> Condition:
        """Return for which versions the mutation is; raises Refusal (400)."""
        return read_condition(self.if_match, self.if_none_match)


def _of_flags(flags: int) -> MutationHeaders:
    return MutationHeaders(None, None, None, None, None, None, None, None, flags, True)


_WITHOUT_HEADERS = _of_flags(0)
_OF_TYPE: dict[bytes | None, MutationHeaders] = {
    declared: _of_flags(flags) for declared, flags in FLAGS_OF_TYPE.items()
}


def read_mutation(request: Request) -> MutationHeaders:
    """Look up the headers of a mutation; raises Refusal (400) for one given twice or bad flags."""
    request.query()
    header = request.header
    declared = header(b"Content-Type")
    if not request.is_selective:
        known = _OF_TYPE.get(declared)
        if known is None:
            known = _WITHOUT_HEADERS if declared is None else _of_flags(flags_of(declared))
        return known
    flags = header(b"X-CB-Flags")
    return MutationHeaders(
        header(b"If-Match"),
        header(b"If-None-Match"),
        header(b"Content-Encoding"),
        request.text_header(b"Expires"),
        request.text_header(b"X-CB-TTL"),
        header(b"X-CB-DurabilityLevel"),
        header(b"X-CB-PersistTo"),
        header(b"X-CB-ReplicateTo"),
        flags_of(declared or b"") if flags is None else parse_flags(flags),
    )


def read_expiry(headers: MutationHeaders, now: float) -> int | None:
    """Return the expiry asked for, ``None`` if the request does not speak of it.

    :raises Refusal: 400, also if both headers are there.
    """
    if headers.ttl is None:
        return None if headers.expires is None else expiry_from_expires(headers.expires, now)
    if headers.expires is not None:
        raise bad_request("Expires and X-CB-TTL both set the expiry; send one of them")
    return expiry_from_ttl(headers.ttl)


class Documents(BucketResource):
    """The document itself.

    :param now: gives the Unix time in seconds.
    """

    def __init__(
        self, authorizer: Authorizer, pool: ConnectionPool, rendering: Rendering, now: Callable[[], float]
    ) -> None:
        super().__init__(authorizer, pool)
        self._rendering = rendering
        self._now = now
        self._large = LargeKeys()
        # Looked at by every request, so without a step between.
        self._large_sizes = self._large.sizes

    def _get_large(self, connection: Any, request: Request, wanted: _Wanted, size: int) -> Deferred[Any]:
        """Read a document that is known to be large, when there is room for it here and on its way."""
        lane = connection.bulk

        def ask(_: None) -> Any:
            request.hold_answer(size)
            return lane.carry_out(size, lambda bulk: self._get(bulk, request, wanted))

        room: Deferred[Any] = request.application.answers.enter(size, lane.seconds_for(size))
        return room.addCallback(ask)

    def was_large(self, request: Request, size: int) -> None:
        """Take note that an answer was large."""
        if request.operation == "get":
            self._large.note(request.parameters["bucket"], request.parameters["key"], size)

    @endpoint("get_document", "GET", on=DOCUMENT, operation="get", takes=(*CONDITIONS, *TIMEOUT))
    def get_document(self, request: Request) -> Any:
        """Return the document, or parts of it."""
        wanted = read_get(request) if request.query_string or request.is_selective else _WHOLE
        return self.connected(request, self._get, wanted)

    def _get(self, connection: Any, request: Request, wanted: _Wanted) -> Any:
        parameters = request.parameters
        key = parameters["key"]
        if len(parameters) != 2 or len(key) > MAX_KEY_BYTES:
            # Something is to be refused, or the path names scope and collection.
            key = document_key(request)
            check_collection(request)
        if self._large_sizes and wanted.replica is None and connection.bulk is not None:
            size = self._large_sizes.get((parameters["bucket"], key))
            if size is not None:
                return self._get_large(connection, request, wanted, size)
        if wanted is _WHOLE:
            call = connection.operations.get_with_expiry(key)
            # Large answers of the usual connection are noted when they are sent; see was_large().
            request.render = self._rendering.whole if connection.bulk is not None else self._whole
            call.receiver = request
            return call
        condition = read_condition(wanted.if_match, wanted.if_none_match)
        show = partial(self._parts, wanted, condition)
        if wanted.replica is None:
            call = connection.operations.get_with_expiry(key)
            request.render = show
            call.receiver = request
            return call
        request.operation = "get_replica"
        copies = connection.configured_replica_count
        if wanted.replica >= copies:
            raise bad_request(f"replica: the bucket has {copies} replicas, counted from 0")
        index = None if wanted.replica == ANY else wanted.replica
        copy: Deferred[Any] = connection.rget(key, replica_index=index)
        return copy.addCallback(show, request)

    def _note(self, result: Any, request: Request) -> None:
        """Take note of a document's size, however little of it is sent."""
        parameters = request.parameters
        self._large.note(parameters["bucket"], parameters["key"], len(result.value))

    def _whole(self, result: Any, request: Request) -> Response | Deferred[Response]:
        self._note(result, request)
        return self._rendering.whole(result, request)

    def _parts(
        self, wanted: _Wanted, condition: Condition, result: Any, request: Request
    ) -> Response | Deferred[Response]:
        self._note(result, request)
        if not condition.check_read(result.cas):
            return self._rendering.not_modified(result.cas)
        if wanted.paths is not None:
            expiry = 0 if wanted.replica is not None else result.expiry
            return self._rendering.parts(result, wanted.paths, expiry)
        if wanted.replica is None:
            return self._rendering.whole(result, request)
        return self._rendering.document(result)

    @endpoint(
        "create_document",
        "POST",
        on=DOCUMENT,
        operation="add",
        takes=("If-None-Match", *EXPIRY, *DURABILITY, *TIMEOUT, *FLAGS, *ENCODING),
    )
    def create_document(self, request: Request) -> Any:
        """Store the document; it must not exist."""
        return self.connected(request, self._add, read_mutation(request))

    def _add(self, connection: Any, request: Request, headers: MutationHeaders) -> Any:
        key = document_key(request)
        if request.received_bytes >= LARGE_BYTES and connection.bulk is not None:
            return self._large_body(connection, request, lambda bulk: self._add(bulk, request, headers))
        # Whatever If-None-Match names is not there when the document is created.
        headers.condition()
        request.check_size()
        check_encoding(headers.encoding)
        expiry = read_expiry(headers, self._now())
        waits = _durability(request, headers)
        check_collection(request)
        body = request.body()
        return self._mutate(
            connection, request, waits, "add", key, body, ttl=expiry or 0, format=headers.flags
        )

    @endpoint(
        "put_document",
        "PUT",
        on=DOCUMENT,
        operation="set",
        takes=(*CONDITIONS, *EXPIRY, *DURABILITY, *TIMEOUT, *FLAGS, *ENCODING),
    )
    def put_document(self, request: Request) -> Any:
        """Store the document; with If-Match only if it is there, or is that version."""
        return self.connected(request, self._put, read_mutation(request))

    def _put(self, connection: Any, request: Request, headers: MutationHeaders) -> Any:
        key = document_key(request)
        if request.received_bytes >= LARGE_BYTES and connection.bulk is not None:
            return self._large_body(connection, request, lambda bulk: self._put(bulk, request, headers))
        if headers.is_plain:
            # What follows here does the same at length.
            if len(request.parameters) != 2:
                # The path names scope and collection.
                request.check_size()
                check_collection(request)
            body = request.body()
            call = connection.operations.set(
                key, body, cas=0, ttl=0, format=headers.flags, preserve_expiry=True
            )
            request.render = self._rendering.stored
            call.receiver = request
            return call
        condition = headers.condition()
        request.check_size()
        check_encoding(headers.encoding)
        expiry = read_expiry(headers, self._now())
        waits = _durability(request, headers)
        check_collection(request)
        body = request.body()
        cas = condition.cas()
        options = {"ttl": expiry or 0, "format": headers.flags}

        def create() -> Deferred[Any]:
            request.operation = "add"
            added: Deferred[Any] = connection.add(key, body, **_of(waits), **options)
            return added

        def replace(cas: int) -> Deferred[Any]:
            request.operation = "replace"
            replaced: Deferred[Any] = connection.replace(
                key, body, cas=cas, preserve_expiry=expiry is None, **_of(waits), **options
            )
            return replaced

        if cas is None:
            return self._compare(connection, request, key, condition, replace, create)
        if condition.match is not None:
            request.operation = "replace"
            note(request, cas_given=cas != 0)
        return self._mutate(
            connection,
            request,
            waits,
            request.operation,
            key,
            body,
            cas=cas,
            preserve_expiry=expiry is None,
            **options,
        )

    @endpoint(
        "delete_document",
        "DELETE",
        on=DOCUMENT,
        operation="delete",
        takes=(*CONDITIONS, *DURABILITY, *TIMEOUT),
    )
    def delete_document(self, request: Request) -> Any:
        """Remove the document."""
        return self.connected(request, self._delete, read_mutation(request))

    def _delete(self, connection: Any, request: Request, headers: MutationHeaders) -> Any:
        key = document_key(request)
        condition = headers.condition()
        waits = _durability(request, headers)
        check_collection(request)
        return self._change(connection, request, condition, waits, "delete", key)

    @endpoint(
        "append_document",
        "POST",
        "/append",
        on=DOCUMENT,
        operation="append",
        takes=(*CONDITIONS, *DURABILITY, *TIMEOUT),
    )
    def append_document(self, request: Request) -> Any:
        """Add bytes at the document's end."""
        return self.connected(request, partial(self._extend, "append"), read_mutation(request))

    @endpoint(
        "prepend_document",
        "POST",
        "/prepend",
        on=DOCUMENT,
        operation="prepend",
        takes=(*CONDITIONS, *DURABILITY, *TIMEOUT),
    )
    def prepend_document(self, request: Request) -> Any:
        """Add bytes at the document's start."""
        return self.connected(request, partial(self._extend, "prepend"), read_mutation(request))

    def _extend(self, how: str, connection: Any, request: Request, headers: MutationHeaders) -> Any:
        key = document_key(request)
        if request.received_bytes >= LARGE_BYTES and connection.bulk is not None:
            return self._large_body(
                connection, request, lambda bulk: self._extend(how, bulk, request, headers)
            )
        condition = headers.condition()
        request.check_size()
        if not request.body_is_awaited and not request.body():
            raise bad_request(f"the request has no body: there is nothing to {how}")
        waits = _durability(request, headers)
        check_collection(request)
        return self._change(connection, request, condition, waits, how, key, request.body())

    def _large_body(self, connection: Any, request: Request, act: Callable[[Any], Any]) -> Deferred[Any]:
        """Do with the connection for large operations what a handler does with that for all others."""
        size = len(request.raw_body)
        self._large.note(request.parameters["bucket"], request.parameters["key"], size)
        carried_out: Deferred[Any] = connection.bulk.carry_out(size, act)
        return carried_out

    def _change(
        self,
        connection: Any,
        request: Request,
        condition: Condition,
        waits: Durability,
        operation: str,
        key: bytes,
        *arguments: bytes,
    ) -> Any:
        """Carry out a mutation that needs the document to be there."""
        cas = condition.cas()
        if cas is not None:
            note(request, cas_given=cas != 0)
            return self._mutate(connection, request, waits, operation, key, *arguments, cas=cas)

        def write(cas: int) -> Deferred[Any]:
            changed: Deferred[Any] = getattr(connection, operation)(key, *arguments, cas=cas, **_of(waits))
            return changed

        return self._compare(connection, request, key, condition, write)

    def _compare(
        self,
        connection: Any,
        request: Request,
        key: bytes,
        condition: Condition,
        write: Callable[[int], Deferred[Any]],
        create: Callable[[], Deferred[Any]] | None = None,
    ) -> Deferred[Response]:
        note(request, cas_given=True)
        written = compare_and_write(lambda: connection.get(key), condition, write, create)
        return written.addCallback(self._rendering.stored, request)

    def _mutate(
        self,
        connection: Any,
        request: Request,
        waits: Durability,
        operation: str,
        *arguments: Any,
        **options: Any,
    ) -> Any:
        """Carry out a mutation; what it returns answers the request.

        :param operation: the SDK's name, with the ``arguments`` and ``options`` of that method.
        """
        if waits.persist_to or waits.replicate_to:
            stored: Deferred[Any] = getattr(connection, operation)(*arguments, **_of(waits), **options)
            return stored.addCallback(self._rendering.stored, request)
        call = getattr(connection.operations, operation)(*arguments, **_of(waits), **options)
        request.render = self._rendering.stored
        call.receiver = request
        return call


def _durability(request: Request, headers: MutationHeaders) -> Durability:
    waits = headers.durability()
    note(request, durable=waits != NO_DURABILITY)
    return waits


def _of(waits: Durability) -> dict[str, int]:
    """Return what a mutation waits for as options of the driver."""
    options = {}
    if waits.level:
        options["durability_level"] = waits.level
    if waits.persist_to or waits.replicate_to:
        options.update(persist_to=waits.persist_to, replicate_to=waits.replicate_to)
    return options
