"""Documents: read, create, replace, remove, append and prepend."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from couchbase.protocol.constants import MAX_COLLECTION_KEY_BYTES, MAX_KEY_BYTES
from couchbase.protocol.refused import REFUSALS
from gateway.cluster.bulk import LARGE_BYTES, LargeKeys
from gateway.cluster.credentials import Authorizer
from gateway.cluster.pool import ConnectionPool
from gateway.dialect.conditions import NO_CONDITION, Condition, read_condition
from gateway.dialect.errors import Refusal
from gateway.dialect.fixedrefusals import refusal_of
from gateway.dialect.jsontools import dumps
from gateway.dialect.paths import DOCUMENT
from gateway.dialect.projection import Path, parse_projection
from gateway.http.known import Known
from gateway.http.refusal import FixedRefusal
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint
from gateway.openapi.description import ANY_DOCUMENT, Answer, Body, Example, Given, Parameter, described
from gateway.openapi.description import DOCUMENT as CONTENT
from gateway.openapi.schemas import text
from gateway.operations.documents import (
    ADD,
    APPEND,
    DELETE,
    GET,
    GET_REPLICA,
    PREPEND,
    REPLACE,
    SET,
    GetReplica,
)
from gateway.operations.renderer import Renderer
from gateway.resources.base import document_key, document_place, in_collection
from gateway.resources.documentbase import DocumentResource, Wanted
from gateway.resources.headers import WORDS, MutationHeaders, RequestSource, read_mutation
from gateway.resources.stores import form_of

__all__ = ["Documents"]

_GET_QUERY = frozenset({"project", *GET_REPLICA.body})
_INDEXES = {"0": 0, "1": 1, "2": 2}

ALE = {"name": "Amber Ale", "abv": 5.2, "tags": ["malt"]}
"""The document of the examples."""

STORED_ALE = Given("PUT", "/v1/buckets/default/documents/amber_ale", dumps(ALE).decode())

READ_HEADERS = ("ETag", "X-CB-Flags", "Cache-Control", "Expires", "Content-Encoding", "Vary")
WRITTEN_HEADERS = ("ETag", "X-CB-MutationToken")

_QUERY = (
    Parameter(
        "project",
        "Paths in a JSON document, separated by commas: the answer has only these parts.",
        example="name,tags[0]",
    ),
    Parameter(
        "replica",
        "`any`, or the number of the replica to read instead of the active copy.",
        text(pattern="^(any|[012])$"),
    ),
)
_BODY = Body(
    ANY_DOCUMENT, "The document: any bytes, or none. The gateway does not check JSON.", required=False
)
_ADDITION = Body(ANY_DOCUMENT, "The bytes to add, at least one.")
_WRITTEN = {200: Answer("The change was made.", headers=WRITTEN_HEADERS)}
_WRITE_ERRORS = "DocumentNotFound CasMismatch PreconditionFailed DocumentLocked"
_TEXT = {"Content-Type": "text/plain"}
_STORED_TEXT = Given("PUT", "/v1/buckets/default/documents/notes", "Brew")


class _Wanted(NamedTuple):
    """The parameters of a GET."""

    paths: list[tuple[str, Path]] | None
    replica: GetReplica | None
    """``None``: the active copy."""
    condition: Condition
    refusal: FixedRefusal | None = None
    """The error in the condition, which only callers with confirmed credentials get, as in the Data API."""


_WHOLE = _Wanted(None, None, NO_CONDITION)
_READ_BY = frozenset({"get", "lookup_in"})
"""Operations whose large answers come from large documents."""

# A cache of parsed queries and conditions: clients ask for the same parts of many documents, and repeatedly
# for the same versions.
_known_reads: Known[tuple[Any, Any, Any], _Wanted | FixedRefusal] = Known(1024)
_LONGEST_KNOWN = 256


def read_get(request: Request) -> _Wanted | FixedRefusal:
    """Read query and headers of a GET; raises or returns Refusal (400)."""
    headers = request.headers
    given = request.query_string, headers.get(b"if-match"), headers.get(b"if-none-match")
    try:
        return _known_reads[given]
    except (KeyError, TypeError):
        # Not known, or a list: a header that is given twice, which is refused, and not remembered.
        match, none_match = request.header(b"If-Match"), request.header(b"If-None-Match")
        known: _Wanted | FixedRefusal
        try:
            known = _read_get(request, match, none_match)
        except Refusal as refusal:
            known = FixedRefusal.of(refusal)
        if len(request.query_string) + len(match or b"") + len(none_match or b"") <= _LONGEST_KNOWN:
            _known_reads.learn(given, known)
        return known


def _read_get(request: Request, match: bytes | None, none_match: bytes | None) -> _Wanted:
    if not request.query_string and match is None and none_match is None:
        return _WHOLE
    replica = paths = None
    if request.query_string:
        query = request.query(_GET_QUERY)
        if "replica" in query:
            replica = GET_REPLICA.read({"replica": _INDEXES.get(query["replica"], query["replica"])}, WORDS)
        if "project" in query:
            paths = parse_projection(query["project"])
    try:
        return _Wanted(paths, replica, read_condition(match, none_match))
    except Refusal as refusal:
        return _Wanted(paths, replica, NO_CONDITION, FixedRefusal.of(refusal))


_STORES = {kind.name: kind for kind in (ADD, APPEND, PREPEND)}


class Documents(DocumentResource):
    """The document itself.

    :param now: returns the Unix time in seconds.
    :ivar large: the documents that are known to be large.
    """

    def __init__(
        self, authorizer: Authorizer, pool: ConnectionPool, renderer: Renderer, now: Callable[[], float]
    ) -> None:
        super().__init__(authorizer, pool, renderer, now)
        self.large = LargeKeys()
        # Used by every request, so without an indirection.
        self._large_sizes = self.large.sizes

    def was_large(self, request: Request, size: int) -> None:
        """Record that an answer was large."""
        if request.operation in _READ_BY:
            self.large.note(document_place(request), size)

    @endpoint("get_document", "GET", on=DOCUMENT, operation=GET.name, takes=GET.takes)
    @described(
        "Documents",
        {
            200: Answer("The document, as stored.", CONTENT, READ_HEADERS),
            304: Answer("The caller has this version.", headers=("ETag", "Cache-Control")),
        },
        query=_QUERY,
        headers=("Accept-Encoding",),
        errors="DocumentNotFound PreconditionFailed PathMismatch DocumentNotJson DocumentTooDeep",
        examples=(
            Example("A document", answer=ALE, given=(STORED_ALE,)),
            Example("Parts", answer={"name": "Amber Ale"}, query={"project": "name"}, given=(STORED_ALE,)),
            Example("A missing document", 404, path={"key": "nobody"}),
        ),
    )
    def get_document(self, request: Request) -> Any:
        """Return the document, or parts of it."""
        wanted = _WHOLE
        if request.query_string or (request.selective is not None and request.selective.has_condition):
            given = read_get(request)
            if type(given) is not _Wanted:
                return given
            wanted = given
        return self.connected(request, self._get, wanted)

    def _get(self, connection: Any, request: Request, wanted: _Wanted) -> Any:
        parameters = request.parameters
        key = parameters["key"]
        if len(parameters) != 2 or len(key) > MAX_KEY_BYTES:
            # The request must be refused, or the path names scope and collection.
            if len(key) > MAX_COLLECTION_KEY_BYTES:
                document_key(request)
            connection = in_collection(connection, request)
        if self._large_sizes and wanted.replica is None and connection.bulk is not None:
            size = self._large_sizes.get(document_place(request))
            if size is not None:
                return self.enter_large(
                    connection, request, size, lambda bulk: self._get(bulk, request, wanted)
                )
        if wanted is _WHOLE and connection.bulk is not None:
            # Large answers on the usual connection are recorded when they are sent; see was_large().
            request.render = self._renderer.whole
        elif wanted.refusal is not None:
            return wanted.refusal
        elif wanted.replica is not None:
            request.operation = GET_REPLICA.name
            copy: Deferred[Any] = wanted.replica.start(connection, key, RequestSource(request))
            return copy.addCallback(partial(self._parts, wanted), request)
        else:
            request.render = partial(self._parts, wanted)
        call = connection.operations.get_with_expiry(key)
        # A node's refusal is a result, which costs less than an exception.
        call.quiet = REFUSALS
        call.receiver = request
        return call

    def _parts(
        self, wanted: _Wanted, result: Any, request: Request
    ) -> Response | Deferred[Response] | Refusal:
        if result._rc:
            return refusal_of(result, request)
        if len(result._value) >= LARGE_BYTES or self._large_sizes:
            # However little of it is sent.
            self.large.note(document_place(request), len(result._value))
        condition = wanted.condition
        if condition is not NO_CONDITION:
            outcome = condition.check_read(result._cas)
            if outcome is not True:
                return outcome or self._renderer.not_modified(result._cas)
        if wanted.paths is not None:
            expiry = 0 if wanted.replica is not None else result.expiry
            return self._renderer.parts(result, wanted.paths, expiry)
        if wanted.replica is None:
            return self._renderer.whole(result, request)
        return self._renderer.document(result, request)

    @endpoint("create_document", "POST", on=DOCUMENT, operation=ADD.name, takes=ADD.takes)
    @described(
        "Documents",
        {200: Answer("The document was stored.", headers=WRITTEN_HEADERS)},
        body=_BODY,
        errors="DocumentExists",
        examples=(
            Example("A new document", body=ALE, path={"key": "amber_ale_2"}),
            Example("An existing document", 409, body=ALE, given=(STORED_ALE,)),
        ),
    )
    def create_document(self, request: Request) -> Any:
        """Store the document; it must not exist."""
        return self.connected(request, self._store, read_mutation(request))

    @endpoint("put_document", "PUT", on=DOCUMENT, operation=SET.name, takes=SET.takes)
    @described(
        "Documents",
        {200: Answer("The document was stored.", headers=WRITTEN_HEADERS)},
        body=_BODY,
        errors=_WRITE_ERRORS,
        examples=(
            Example("A document", body=ALE),
            Example(
                "Only if it does not exist",
                412,
                body=ALE,
                headers={"If-None-Match": "*"},
                given=(STORED_ALE,),
            ),
        ),
    )
    def put_document(self, request: Request) -> Any:
        """Store the document; with If-Match only if it exists, or is the given version."""
        return self.connected(request, self._store, read_mutation(request))

    def _store(self, connection: Any, request: Request, headers: MutationHeaders) -> Any:
        method = request.operation
        form = headers.forms.get(method) or form_of(method, headers, self._now())
        if form is None or (request.received_bytes >= LARGE_BYTES and connection.bulk is not None):
            kind = _STORES.get(method) or (SET if headers.if_match is None else REPLACE)
            return self.act(connection, request, Wanted(kind, None, RequestSource(request, headers)))
        # Fast path: one operation with the unchanged value; the general case gives the same result.
        parameters = request.parameters
        key = parameters["key"]
        if len(parameters) != 2 or len(key) > MAX_COLLECTION_KEY_BYTES:
            # The request must be refused, or the path names scope and collection.
            if len(key) > MAX_COLLECTION_KEY_BYTES:
                document_key(request)
            request.check_size()
            connection = in_collection(connection, request)
        value = request.body()
        request.render = self._renderer.stored
        if form.is_special:
            request.operation = form.method
            request.context = form.asked
            if form.excludes:
                request.render = self._renderer.created
        cas = headers.cas if form.takes_cas else form.cas
        prepared = form.prepared
        if prepared is not None:
            call = connection.operations.store(prepared, key, value, cas)
        else:
            options = form.options
            if form.takes_cas:
                options = {**options, "cas": cas}
            call = getattr(connection.operations, form.method)(key, value, **options)
        # A node's refusal is reported as a result, which costs less than an exception.
        call.quiet = REFUSALS
        call.receiver = request
        return call

    @endpoint("delete_document", "DELETE", on=DOCUMENT, operation=DELETE.name, takes=DELETE.takes)
    @described(
        "Documents", _WRITTEN, errors=_WRITE_ERRORS, examples=(Example("A document", given=(STORED_ALE,)),)
    )
    def delete_document(self, request: Request) -> Any:
        """Remove the document."""
        return self.ask(request, DELETE)

    @endpoint("append_document", "POST", "/append", on=DOCUMENT, operation=APPEND.name, takes=APPEND.takes)
    @described(
        "Documents",
        _WRITTEN,
        body=_ADDITION,
        errors=_WRITE_ERRORS + " ValueTooLarge",
        examples=(Example("Text", body=" it.", headers=_TEXT, path={"key": "notes"}, given=(_STORED_TEXT,)),),
    )
    def append_document(self, request: Request) -> Any:
        """Add bytes at the document's end."""
        return self.connected(request, self._extend, read_mutation(request))

    @endpoint(
        "prepend_document", "POST", "/prepend", on=DOCUMENT, operation=PREPEND.name, takes=PREPEND.takes
    )
    @described(
        "Documents",
        _WRITTEN,
        body=_ADDITION,
        errors=_WRITE_ERRORS + " ValueTooLarge",
        examples=(Example("Text", body="Do: ", headers=_TEXT, path={"key": "notes"}, given=(_STORED_TEXT,)),),
    )
    def prepend_document(self, request: Request) -> Any:
        """Add bytes at the document's start."""
        return self.connected(request, self._extend, read_mutation(request))

    def _extend(self, connection: Any, request: Request, headers: MutationHeaders) -> Any:
        if not request.raw_body and not request.body_is_awaited:
            # This is refused, but other errors come first.
            kind = _STORES[request.operation]
            return self.act(connection, request, Wanted(kind, None, RequestSource(request, headers)))
        return self._store(connection, request, headers)

    def act(self, connection: Any, request: Request, wanted: Wanted) -> Any:
        """Plan the operation, and execute it; a large body is sent on the connection for large operations."""
        if wanted.kind.has_value and (request.received_bytes >= LARGE_BYTES or wanted.source.is_encoded):
            size = wanted.source.value_bytes
            if max(size, request.received_bytes) >= LARGE_BYTES and size and connection.bulk is not None:
                document_key(request)
                self.large.note(document_place(request), size)
                carried_out: Deferred[Any] = connection.bulk.carry_out(
                    size, lambda bulk: self.act(bulk, request, wanted)
                )
                return carried_out
        return super().act(connection, request, wanted)
