"""Lookup and mutate: parts of documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from couchbase.protocol.pathresults import SubdocResult
from couchbase.protocol.subdocument import Spec
from couchbase.subdocument import StoreSemantics
from gateway.cluster.bulk import LARGE_BYTES, LargeKeys
from gateway.cluster.credentials import Authorizer
from gateway.cluster.pool import ConnectionPool
from gateway.dialect.contenttypes import check_charset
from gateway.dialect.errors import Refusal
from gateway.dialect.fixedrefusals import MISSING
from gateway.dialect.paths import DOCUMENT
from gateway.dialect.subdocuments import one_mutation, parse_body, parsing_body
from gateway.fairness.steps import AT_ONCE_BYTES, StepRunner
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint
from gateway.openapi.description import JSON, Answer, Body, Example, described
from gateway.openapi.members import LOOKED_UP, MUTATED, body_of
from gateway.operations.kind import Kind, Plan
from gateway.operations.renderer import Renderer
from gateway.operations.subdocuments import LOOKUP_IN, MUTATE_IN, LookupIn, changed_body, usual_spec
from gateway.resources.base import document_key, document_place, in_collection
from gateway.resources.documentbase import DocumentResource
from gateway.resources.documents import STORED_ALE, WRITTEN_HEADERS
from gateway.resources.headers import MutationHeaders, read_mutation

__all__ = ["Subdocuments"]

USUAL_BYTES = 16 * 1024
"""Largest body for the fast path, in bytes; longer ones are left to the general parser."""

_PLAIN_TYPES = frozenset({None, b"application/json", b"application/x-www-form-urlencoded", b"text/plain"})


class Subdocuments(DocumentResource):
    """Parts of documents, by path.

    :param steps: parses long bodies.
    :param large: the documents that are known to be large.
    """

    def __init__(
        self,
        authorizer: Authorizer,
        pool: ConnectionPool,
        renderer: Renderer,
        now: Callable[[], float],
        steps: StepRunner,
        large: LargeKeys,
    ) -> None:
        super().__init__(authorizer, pool, renderer, now)
        self._steps = steps
        self._large_sizes = large.sizes

    @endpoint("alpha_enabled", "GET", "/v1.alpha/enabled")
    @described(
        "Sub-documents", {200: Answer("They exist.")}, credentials=False, examples=(Example("Always"),)
    )
    def alpha_enabled(self, request: Request) -> Response:
        """Answer 200, without credentials: the paths below ``/v1.alpha`` exist."""
        return Response(200)

    @endpoint(
        "lookup_document", "POST", "/lookup", on=DOCUMENT, operation=LOOKUP_IN.name, takes=LOOKUP_IN.takes
    )
    @described(
        "Sub-documents",
        {200: Answer("A value or an error for each path.", {JSON: LOOKED_UP}, ("ETag",))},
        body=Body({JSON: body_of("LookupBody", LOOKUP_IN.body, LOOKUP_IN.name)}),
        errors="DocumentNotFound DocumentNotJson DocumentTooDeep",
        examples=(
            Example(
                "Two paths",
                answer=[{"value": "Amber Ale"}, {"value": 1}],
                body={
                    "operations": [
                        {"operation": "Get", "path": "name"},
                        {"operation": "GetCount", "path": "tags"},
                    ]
                },
                given=(STORED_ALE,),
            ),
        ),
    )
    def lookup_document(self, request: Request) -> Any:
        """Return the values at paths of the document."""
        return self._ask(request, LOOKUP_IN)

    @endpoint(
        "mutate_document", "POST", "/mutate", on=DOCUMENT, operation=MUTATE_IN.name, takes=MUTATE_IN.takes
    )
    @described(
        "Sub-documents",
        {200: Answer("For each path, a counter's number, or `null`.", {JSON: MUTATED}, WRITTEN_HEADERS)},
        body=Body({JSON: body_of("MutateBody", MUTATE_IN.body, MUTATE_IN.name)}),
        errors=(
            "DocumentNotFound DocumentExists CasMismatch PreconditionFailed DocumentLocked PathExists "
            "PathNotFound PathMismatch DocumentNotJson DocumentTooDeep ValueTooLarge"
        ),
        examples=(
            Example(
                "A member and a counter",
                answer=[{"value": None}, {"value": 1}],
                body={
                    "operations": [
                        {"operation": "DictSet", "path": "abv", "value": 5.4},
                        {"operation": "Counter", "path": "sold", "value": 1},
                    ]
                },
                given=(STORED_ALE,),
            ),
        ),
    )
    def mutate_document(self, request: Request) -> Any:
        """Change the document at paths: all of them, or none."""
        if request.selective is None and not request.body_is_awaited and len(request.raw_body) <= USUAL_BYTES:
            usual = one_mutation(request.raw_body)
            if usual is not None and request.headers.get(b"content-type") in _PLAIN_TYPES:
                spec = usual_spec(*usual)
                if spec is not None:
                    # The fast path: the general case gives the same result.
                    request.query()
                    return self.connected(request, self._mutate_one, spec)
        return self._ask(request, MUTATE_IN)

    def _mutate_one(self, connection: Any, request: Request, spec: Spec) -> Any:
        key = document_key(request)
        if len(request.parameters) != 2:
            # The path names scope and collection.
            connection = in_collection(connection, request)
        call = connection.operations.mutate_in(
            key,
            [spec],
            cas=0,
            ttl=0,
            preserve_expiry=False,
            store_semantics=StoreSemantics.REPLACE,
            access_deleted=False,
        )
        call.quiet = True
        request.render = self._changed
        call.receiver = request
        return call

    def _changed(self, result: SubdocResult, request: Request) -> Response | Refusal:
        if result.rc:
            return MISSING
        return self._renderer.changed(result, request, changed_body(result))

    def _ask(self, request: Request, kind: Kind) -> Any:
        if request.body_is_awaited or len(request.raw_body) <= AT_ONCE_BYTES:
            return self.ask(request, kind, _read_body)
        headers = read_mutation(request)
        body = request.body()
        check_charset(request.header(b"Content-Type") or b"")
        parsed: Deferred[Any] = self._steps.run(parsing_body(body, kind.body))
        return parsed.addCallback(lambda members: self.ask_with(request, kind, headers, members))

    def carry_out(self, connection: Any, request: Request, plan: Plan) -> Any:
        """Execute a plan; a large body is sent, and a large document is read, on the connection for large
        operations."""
        if self._large_sizes and type(plan) is LookupIn and connection.bulk is not None:
            document_key(request)
            size = self._large_sizes.get(document_place(request))
            if size is not None:
                return self.enter_large(
                    connection, request, size, lambda bulk: self.carry_out(bulk, request, plan)
                )
        if request.received_bytes >= LARGE_BYTES and connection.bulk is not None:
            document_key(request)
            carried_out: Deferred[Any] = connection.bulk.carry_out(
                len(request.raw_body), lambda bulk: self.carry_out(bulk, request, plan)
            )
            return carried_out
        return super().carry_out(connection, request, plan)


def _read_body(request: Request, kind: Kind, headers: MutationHeaders) -> dict[str, Any]:
    body = request.body()
    check_charset(request.header(b"Content-Type") or b"")
    return parse_body(body, kind.body)
