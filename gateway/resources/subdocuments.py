"""Lookup and mutate: parts of documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from couchbase.paths import PreparedMutation
from couchbase.protocol.pathresults import SubdocResult
from couchbase.protocol.refused import REFUSALS
from couchbase.subdocument import StoreSemantics
from gateway.cluster.bulk import LARGE_BYTES, LargeKeys
from gateway.cluster.credentials import Authorizer
from gateway.cluster.pool import ConnectionPool
from gateway.dialect.contenttypes import check_charset
from gateway.dialect.errors import Refusal
from gateway.dialect.fixedrefusals import refusal_of
from gateway.dialect.paths import DOCUMENT
from gateway.dialect.subdocuments import parse_body, parsing_body
from gateway.fairness.steps import SHORT_BYTES, StepRunner, is_long
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint
from gateway.openapi.description import JSON, Answer, Body, Example, described
from gateway.openapi.members import LOOKED_UP, MUTATED, body_of
from gateway.operations.kind import Kind, Plan
from gateway.operations.renderer import Renderer
from gateway.operations.subdocuments import LOOKUP_IN, MUTATE_IN, LookupIn, changed_body
from gateway.operations.usualpaths import usual_lookup, usual_mutation
from gateway.resources.base import document_key, document_place, in_collection
from gateway.resources.documentbase import DocumentResource, ReadPlan
from gateway.resources.documents import STORED_ALE, WRITTEN_HEADERS
from gateway.resources.headers import MutationHeaders, read_mutation
from gateway.resources.stores import StoreForm, form_of

__all__ = ["Subdocuments"]

USUAL_BYTES = 16 * 1024
"""Largest body for the fast path, in bytes; longer ones are left to the general parser."""

_MUTATE, _REPLACE = MUTATE_IN.name, StoreSemantics.REPLACE
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
        return self._ask(request, LOOKUP_IN, _usual_lookup)

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
        body = request.raw_body
        if not request.body_is_awaited and len(body) <= USUAL_BYTES and _is_plain(request):
            usual = usual_mutation(body)
            if usual is not None:
                headers = read_mutation(request)
                form = headers.forms.get(_MUTATE) or form_of(_MUTATE, headers, self._now())
                if form is not None and (usual[1] is _REPLACE or not headers.has_condition):
                    # The fast path: the general case gives the same result.
                    return self.connected(request, self._mutate, (usual, form, headers.cas))
        return self._ask(request, MUTATE_IN)

    def _mutate(
        self,
        connection: Any,
        request: Request,
        wanted: tuple[tuple[PreparedMutation, StoreSemantics], StoreForm, int | None],
    ) -> Any:
        (specs, semantics), form, cas = wanted
        key = document_key(request)
        if len(request.parameters) != 2:
            # The path names scope and collection.
            connection = in_collection(connection, request)
        if form.is_special:
            request.context = form.asked
        if form.takes_cas:
            call = connection.operations.mutate_in(key, specs, cas=cas, **form.options)
        elif semantics is not _REPLACE:
            if semantics is StoreSemantics.INSERT:
                request.operation = "insert_in"
            options = {**form.options, "store_semantics": semantics}
            call = connection.operations.mutate_in(key, specs, **options)
        else:
            call = connection.operations.mutate_in(key, specs, **form.options)
        call.quiet = REFUSALS
        request.render = self._changed
        call.receiver = request
        return call

    def _changed(self, result: SubdocResult, request: Request) -> Response | Refusal:
        if result.rc:
            return refusal_of(result, request)
        return self._renderer.changed(result, request, changed_body(result))

    def _ask(self, request: Request, kind: Kind, usual: ReadPlan | None = None) -> Any:
        # The first two are the usual ones, and no call.
        if request.body_is_awaited or len(request.raw_body) <= SHORT_BYTES or not is_long(request.raw_body):
            return self.ask(request, kind, _read_body, usual=usual)
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


def _is_plain(request: Request) -> bool:
    """Return whether the content type needs no check."""
    declared: Any = request.headers.get(b"content-type")
    return type(declared) is not list and declared in _PLAIN_TYPES


def _usual_lookup(request: Request) -> LookupIn | None:
    return usual_lookup(request.raw_body) if _is_plain(request) else None


def _read_body(request: Request, kind: Kind, headers: MutationHeaders) -> dict[str, Any]:
    body = request.body()
    check_charset(request.header(b"Content-Type") or b"")
    return parse_body(body, kind.body)
