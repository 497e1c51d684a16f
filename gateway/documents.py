"""Documents: read, create, replace, remove, append and prepend."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from couchbase.protocol.constants import MAX_KEY_BYTES
from gateway import contenttypes
from gateway.contenttypes import FLAGS_OF_TYPE, content_type, format_of
from gateway.credentials import Authorizer
from gateway.errors import bad_request
from gateway.expiry import expiry_from_expires, expiry_from_ttl, http_date
from gateway.headers import (
    ANY,
    NO_DURABILITY,
    Durability,
    etag,
    parse_durability,
    parse_flags,
    parse_if_match,
    parse_if_none_match,
)
from gateway.http.request import Request
from gateway.http.response import RenderedResponse, Response
from gateway.http.routing import DOCUMENT, endpoint
from gateway.pool import ConnectionPool
from gateway.projection import Path, parse_projection, project
from gateway.resources import BucketResource, check_collection, document_key, mutation_headers

__all__ = ["Documents", "MutationHeaders", "document_response", "mutate", "read_expiry", "read_mutation"]

_GET_QUERY = frozenset({"project", "replica"})
_REPLICAS = {"any": ANY, "0": 0, "1": 1, "2": 2}

# A cache may keep a document, but has to ask each time whether it is still the same: the expiry
# that "Expires" tells is the document's end, not the end of its freshness.
_REVALIDATE = (b"Cache-Control", b"private, no-cache")


class _Wanted(NamedTuple):
    """What a GET asks for."""

    paths: list[tuple[str, Path]] | None
    replica: int | None
    """``None``: the active copy; ``ANY``: whichever replica answers."""
    if_none_match: bytes | None


_WHOLE = _Wanted(None, None, None)


def read_get(request: Request) -> _Wanted:
    """Read query and headers of a GET; raises Refusal (400)."""
    if not request.query_string and b"if-none-match" not in request.headers:
        return _WHOLE
    condition = request.header(b"If-None-Match")
    if not request.query_string:
        return _Wanted(None, None, condition)
    query = request.query(_GET_QUERY)
    replica = None
    if "replica" in query:
        replica = _REPLICAS.get(query["replica"])
        if replica is None:
            raise bad_request(f"replica: {query['replica'][:80]!r} is not one of any, 0, 1, 2")
    paths = parse_projection(query["project"]) if "project" in query else None
    return _Wanted(paths, replica, condition)


# For each value of the flags the bytes around the ETag; as many as programs use different flags.
_known_blocks: dict[int, tuple[bytes, bytes]] = {}
_KNOWN_BLOCKS = 256


def _block(flags: int, value: bytes) -> tuple[bytes, bytes]:
    """Return the headers of a document, before and behind its CAS."""
    block = (
        b"Content-Type: %b\r\nETag: " % content_type(flags, value),
        b"\r\nX-CB-Flags: %d\r\nCache-Control: %b\r\n" % (flags, _REVALIDATE[1]),
    )
    # Flags that declare no format leave the type to the value.
    if format_of(flags) is not None and len(_known_blocks) < _KNOWN_BLOCKS:
        _known_blocks[flags] = block
    return block


def document_response(result: Any, *, expiry: int = 0) -> Response:
    """Return a document as it is stored.

    :param result: a ValueResult whose value is bytes.
    :param expiry: Unix time in seconds, 0 for none.
    """
    value = result.value
    flags = result.flags
    before, behind = _known_blocks.get(flags) or _block(flags, value)
    # The CAS as gateway.headers.etag shows it.
    block = b"%b%08x%b" % (before, result.cas, behind)
    if expiry:
        block = b"%bExpires: %b\r\n" % (block, http_date(expiry))
    return RenderedResponse(200, block, value)


class MutationHeaders(NamedTuple):
    """The headers of a mutation, as sent: looked up early, because a header given twice is
    refused before anything else; read later, because the Data API looks at credentials and bucket
    before it looks at them.
    """

    if_match: bytes | None
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


_MUTATION_HEADERS = frozenset(
    {
        *(b"if-match", b"content-encoding", b"content-type", b"expires"),
        *(b"x-cb-ttl", b"x-cb-durabilitylevel", b"x-cb-persistto", b"x-cb-replicateto", b"x-cb-flags"),
    }
)


def _of_flags(flags: int) -> MutationHeaders:
    return MutationHeaders(None, None, None, None, None, None, None, flags, True)


_WITHOUT_HEADERS = _of_flags(0)
_OF_TYPE = {declared: _of_flags(flags) for declared, flags in FLAGS_OF_TYPE.items()}


def read_mutation(request: Request) -> MutationHeaders:
    """Look up the headers of a mutation; raises Refusal (400) for one given twice or bad flags."""
    request.query()
    given = request.headers.keys() & _MUTATION_HEADERS
    if not given:
        return _WITHOUT_HEADERS
    header = request.header
    declared = header(b"Content-Type")
    if len(given) == 1 and declared is not None:
        return _OF_TYPE.get(declared, _WITHOUT_HEADERS)
    flags = header(b"X-CB-Flags")
    return MutationHeaders(
        header(b"If-Match"),
        header(b"Content-Encoding"),
        request.text_header(b"Expires"),
        request.text_header(b"X-CB-TTL"),
        header(b"X-CB-DurabilityLevel"),
        header(b"X-CB-PersistTo"),
        header(b"X-CB-ReplicateTo"),
        FLAGS_OF_TYPE.get(declared or b"", 0) if flags is None else parse_flags(flags),
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


def check_encoding(encoding: bytes | None) -> None:
    """Refuse a compressed body; raises Refusal (400)."""
    if encoding is not None and encoding != b"identity":
        raise bad_request(
            f"Content-Encoding: {encoding[:40].decode('latin-1')!r} is not supported; send the body plain"
        )


class Documents(BucketResource):
    """The document itself.

    :param now: gives the Unix time in seconds.
    """

    def __init__(self, authorizer: Authorizer, pool: ConnectionPool, now: Callable[[], float]) -> None:
        super().__init__(authorizer, pool)
        self._now = now

    @endpoint("get_document", "GET", on=DOCUMENT, operation="get")
    def get_document(self, request: Request) -> Any:
        """Return the document, or parts of it."""
        return self.connected(request, self._get, read_get(request))

    def _get(self, connection: Any, request: Request, wanted: _Wanted) -> Any:
        parameters = request.parameters
        key = parameters["key"]
        if len(parameters) != 2 or len(key) > MAX_KEY_BYTES:
            # Something is to be refused, or the path names scope and collection.
            key = document_key(request)
            check_collection(request)
        if wanted.replica is None:
            call = connection.operations.get_with_expiry(key)
            request.render = _whole_document if wanted is _WHOLE else partial(_wanted_parts, wanted)
            call.receiver = request
            return call
        request.operation = "get_replica"
        copies = connection.configured_replica_count
        if wanted.replica >= copies:
            raise bad_request(f"replica: the bucket has {copies} replicas, counted from 0")
        index = None if wanted.replica == ANY else wanted.replica
        copy: Deferred[Any] = connection.rget(key, replica_index=index)
        return copy.addCallback(partial(_wanted_parts, wanted), request)

    @endpoint("create_document", "POST", on=DOCUMENT, operation="add")
    def create_document(self, request: Request) -> Any:
        """Store the document; it must not exist."""
        return self.connected(request, self._add, read_mutation(request))

    def _add(self, connection: Any, request: Request, headers: MutationHeaders) -> Any:
        key = document_key(request)
        body = request.body()
        check_encoding(headers.encoding)
        expiry = read_expiry(headers, self._now())
        waits = _durability(request, headers)
        check_collection(request)
        return mutate(connection, request, waits, "add", key, body, ttl=expiry or 0, format=headers.flags)

    @endpoint("put_document", "PUT", on=DOCUMENT, operation="set")
    def put_document(self, request: Request) -> Any:
        """Store the document; with If-Match only if it is there, or is that version."""
        return self.connected(request, self._put, read_mutation(request))

    def _put(self, connection: Any, request: Request, headers: MutationHeaders) -> Any:
        key = document_key(request)
        if headers.is_plain:
            # What follows here does the same at length.
            body = request.body()
            check_collection(request)
            call = connection.operations.set(
                key, body, cas=0, ttl=0, format=headers.flags, preserve_expiry=True
            )
            request.render = _stored
            call.receiver = request
            return call
        cas = parse_if_match(headers.if_match, any_allowed=True)
        body = request.body()
        check_encoding(headers.encoding)
        expiry = read_expiry(headers, self._now())
        waits = _durability(request, headers)
        check_collection(request)
        if cas:
            request.operation = "replace"
            request.cas_given = cas != ANY
        return mutate(
            connection,
            request,
            waits,
            request.operation,
            key,
            body,
            cas=cas if cas != ANY else 0,
            ttl=expiry or 0,
            format=headers.flags,
            preserve_expiry=expiry is None,
        )

    @endpoint("delete_document", "DELETE", on=DOCUMENT, operation="delete")
    def delete_document(self, request: Request) -> Any:
        """Remove the document."""
        return self.connected(request, self._delete, read_mutation(request))

    def _delete(self, connection: Any, request: Request, headers: MutationHeaders) -> Any:
        key = document_key(request)
        cas = parse_if_match(headers.if_match)
        request.cas_given = cas != 0
        waits = _durability(request, headers)
        check_collection(request)
        return mutate(connection, request, waits, "delete", key, cas=cas)

    @endpoint("append_document", "POST", "/append", on=DOCUMENT, operation="append")
    def append_document(self, request: Request) -> Any:
        """Add bytes at the document's end."""
        return self.connected(request, partial(self._extend, "append"), read_mutation(request))

    @endpoint("prepend_document", "POST", "/prepend", on=DOCUMENT, operation="prepend")
    def prepend_document(self, request: Request) -> Any:
        """Add bytes at the document's start."""
        return self.connected(request, partial(self._extend, "prepend"), read_mutation(request))

    def _extend(self, how: str, connection: Any, request: Request, headers: MutationHeaders) -> Any:
        key = document_key(request)
        cas = parse_if_match(headers.if_match)
        request.cas_given = cas != 0
        body = request.body()
        if not body:
            raise bad_request(f"the request has no body: there is nothing to {how}")
        waits = _durability(request, headers)
        check_collection(request)
        return mutate(connection, request, waits, how, key, body, cas=cas)


def _durability(request: Request, headers: MutationHeaders) -> Durability:
    waits = headers.durability()
    request.durable = waits != NO_DURABILITY
    return waits


def _whole_document(result: Any, request: Request) -> Response:
    return document_response(result, expiry=result.expiry)


def _wanted_parts(wanted: _Wanted, result: Any, request: Request) -> Response:
    if wanted.if_none_match is not None:
        known = parse_if_none_match(wanted.if_none_match)
        if known is None or result.cas in known:
            return Response(304, [(b"ETag", etag(result.cas)), _REVALIDATE])
    response = document_response(result, expiry=0 if wanted.replica is not None else result.expiry)
    if wanted.paths is not None:
        response.body = project(result.value, wanted.paths)
        response.headers = [(b"Content-Type", contenttypes.JSON), *response.headers[1:]]
    return response


def mutate(
    connection: Any, request: Request, waits: Durability, operation: str, *arguments: Any, **options: Any
) -> Any:
    """Carry out a mutation; what it returns answers the request.

    :param operation: the SDK's name, with the ``arguments`` and ``options`` of that method.
    """
    if waits.level:
        options["durability_level"] = waits.level
    if waits.persist_to or waits.replicate_to:
        options.update(persist_to=waits.persist_to, replicate_to=waits.replicate_to)
        stored: Deferred[Any] = getattr(connection, operation)(*arguments, **options)
        return stored.addCallback(_stored, request)
    call = getattr(connection.operations, operation)(*arguments, **options)
    request.render = _stored
    call.receiver = request
    return call


def _stored(result: Any, request: Request) -> Response:
    token = result.mutation_token
    bucket = request.parameters["bucket"]
    if token is None:
        return Response(200, mutation_headers(result, bucket))
    # What mutation_headers() says, in the form that is sent.
    return RenderedResponse(
        200, b"ETag: %08x\r\nX-CB-MutationToken: %b:%d:%08x:%d\r\n" % (result.cas, bucket, *token)
    )
