"""``POST .../batch``: many operations in one request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from couchbase.protocol.keyspace import DEFAULT_NAME
from gateway.batches.batch import Batch
from gateway.batches.context import BatchContext, CountOperation
from gateway.batches.writer import ARRAY, LINES
from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import Authorizer, LineCheck
from gateway.cluster.pool import ConnectionPool
from gateway.dialect.conditions import ENCODING, check_encoding
from gateway.dialect.errors import Refusal, bad_request
from gateway.dialect.paths import BUCKET, COLLECTION
from gateway.dialect.places import Place, collection_names, place_of
from gateway.http.request import Request
from gateway.http.response import UNBUFFERED, Response
from gateway.http.routing import endpoint
from gateway.openapi.description import JSON, Answer, Body, Example, Parameter, described
from gateway.openapi.description import LINES as JSON_LINES
from gateway.openapi.errors import LINE_ERROR
from gateway.openapi.members import line_of
from gateway.openapi.schemas import choice, listed, named, text, thing, whole
from gateway.operations.table import OPERATIONS
from gateway.resources.base import BucketResource, bucket_name, caller_of, check_accepted
from gateway.resources.copies import COPY

__all__ = ["Batches"]

_PLACE = frozenset({"scope", "collection"})


def _line_name(operation: str) -> str:
    """Return the type name of an operation's lines, such as ``BatchGetReplica``."""
    return "Batch" + operation.title().replace("_", "")


_LINE = named(
    "BatchOperation",
    {
        "oneOf": [
            named(_line_name(name), line_of(name, kind.members)) for name, kind in sorted(OPERATIONS.items())
        ]
    },
)
_RESULT = named(
    "BatchResult",
    thing(
        {
            "index": whole(0, about="The operation's position in the batch, from 0."),
            "key": {"type": ["string", "null"], "description": "`null` if it is not UTF-8, or unknown."},
            "key_base64": text("The key, if it is not UTF-8."),
            "status": whole(200, 599),
            "error": LINE_ERROR,
            "cas": text("The document's CAS after the operation."),
            "flags": whole(0, 2**32 - 1),
            "value": {"description": "The document, if it is JSON, or the counter."},
            "text": text("The document, if it is text."),
            "base64": text("The document, if it is neither JSON nor text."),
            "copies": listed(COPY),
            "results": {"type": "array", "items": {}, "description": "For `lookup_in` and `mutate_in`."},
        },
        "index status",
        more=True,
    ),
)


class Batches(BucketResource):
    """Runs batches."""

    def __init__(self, authorizer: Authorizer, pool: ConnectionPool, context: BatchContext) -> None:
        super().__init__(authorizer, pool)
        self._context = context

    @endpoint(
        "post_batch",
        "POST",
        "/batch",
        on=(*BUCKET, *COLLECTION),
        operation="batch",
        streamed=True,
        takes=ENCODING,
    )
    @described(
        "Batches",
        {
            200: Answer(
                "The results, in the order of the operations.",
                {JSON: listed(_RESULT), JSON_LINES: text("One result per line.")},
                ("X-Accel-Buffering", "Content-Encoding", "Vary"),
            )
        },
        query=(
            Parameter("scope", "The scope for operations that name none."),
            Parameter("collection", "The collection for operations that name none."),
        ),
        headers=(
            "Accept-Encoding",
            Parameter("Content-Encoding", "The body's encoding.", choice("identity")),
        ),
        body=Body({JSON: listed(_LINE), JSON_LINES: text("One operation per line.")}),
        examples=(
            Example(
                "Two operations",
                answer=[
                    {"index": 0, "key": "a", "status": 200, "cas": "18d2f3a4c5e60000"},
                    {
                        "index": 1,
                        "key": "nobody",
                        "status": 404,
                        "error": {
                            "code": "DocumentNotFound",
                            "message": "There is no such document.",
                            "rc": 13,
                            "exception": "NotFoundError",
                            "retry": "never",
                        },
                    },
                ],
                body=[{"op": "set", "key": "a", "value": {"n": 1}}, {"op": "get", "key": "nobody"}],
            ),
        ),
    )
    def post_batch(self, request: Request) -> Any:
        """Run the operations in the body, and answer each of them."""
        place = _place(request)
        form = _answer_form(request.header(b"Accept"))
        check_encoding(request.header(b"Content-Encoding"))
        check_accepted(request)
        if request.stream is None:
            raise bad_request("the request has no body; it takes operations: a JSON array or JSON lines")
        return self.connected(request, self._run, (form, place))

    def _run(
        self, connection: GatewayConnection, request: Request, plan: tuple[bytes | None, Place]
    ) -> Deferred[Response]:
        form, place = plan
        bulk = connection.bulk
        carries_out = bulk.connection  # the first step that may fail: nothing has to be released yet
        context = self._context_of(request)
        self._pool.lease(connection)
        unfollow = self._authorizer.follow(lambda: batch.check_with(self._check_again(request)))

        def on_end() -> None:
            unfollow()
            self._pool.release(connection)

        begun: Deferred[Response] = Deferred(lambda _: batch.cancel())
        batch = Batch(
            carries_out,
            bulk.window,
            context,
            form,
            lambda form: begun.callback(Response(200, [(b"Content-Type", form), UNBUFFERED], batch)),
            on_end,
            place,
        )
        assert request.stream is not None, "the endpoint takes its body as a stream"
        batch.read(request.stream)
        return begun

    def _context_of(self, request: Request) -> BatchContext:
        """Return the context of a request's batch, with the caller's rights and the counter of its
        operations."""
        context = self._context
        count_operation = context.count_operation
        if request.record is not None:
            count_operation = request.record.counting(count_operation)
        if request.spending:
            count_operation = _spending(request.spending, count_operation)
        check = caller_of(request).line_check(bucket_name(request))
        return context._replace(count_operation=count_operation, line_check=check)

    def _check_again(self, request: Request) -> LineCheck | None:
        """Return the check of the operations of a running batch, after the rules or the keys have changed."""
        caller = self.identify_again(request)
        return _refusing(caller) if isinstance(caller, Refusal) else caller.line_check(bucket_name(request))


def _refusing(refusal: Refusal) -> LineCheck:
    def check(operation: str, place: tuple[str, str]) -> None:
        raise refusal.with_traceback(None)

    return check


def _place(request: Request) -> Place:
    """Return the collection for operations that name none.

    :raises Refusal: 400, the path and the query both name it; 404, a name is not valid.
    """
    if "scope" in request.parameters:
        request.query()
        return collection_names(request.parameters)
    query = request.query(_PLACE)
    return place_of(query.get("scope", DEFAULT_NAME), query.get("collection", DEFAULT_NAME))


def _spending(
    spending: tuple[Callable[[int], object], ...], count_operation: CountOperation
) -> CountOperation:
    """Return a function that also counts operations towards the caller's rate limits."""

    def count(operation: str, outcome: str, number: int) -> None:
        count_operation(operation, outcome, number)
        for spend in spending:
            spend(number)

    return count


def _answer_form(accept: bytes | None) -> bytes | None:
    if accept is None:
        return None
    if LINES in accept:
        return LINES
    return ARRAY if ARRAY in accept else None
