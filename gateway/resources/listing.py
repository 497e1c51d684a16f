"""``GET .../documents``: lists the keys of a collection, or its documents, while they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from couchbase.protocol.rangescan import Position
from couchbase.scan import cursor_of
from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import Authorizer
from gateway.cluster.pool import ConnectionPool
from gateway.dialect.errors import Refusal
from gateway.dialect.paths import DOCUMENTS
from gateway.fairness.steps import StepRunner
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint
from gateway.openapi.description import EVENTS, JSON, LINES, Answer, Example, Parameter, described
from gateway.openapi.errors import LINE_ERROR
from gateway.openapi.schemas import BOOLEAN, listed, named, nullable, text, thing, whole
from gateway.resources.base import BucketResource, check_collection, in_collection
from gateway.resources.documents import STORED_ALE
from gateway.views.forms import Form, form_for
from gateway.views.listing import (
    MOST_ROWS,
    PARAMETERS,
    SCAN,
    ListingAnswer,
    ListingParameters,
    read_parameters,
)

__all__ = ["DOCUMENT_OF_ROW", "Listings"]


DOCUMENT_OF_ROW = named(
    "RowDocument",
    thing(
        {
            "meta": thing(
                {
                    "id": text("The key."),
                    "id_base64": text("The key, if it is not UTF-8."),
                    "cas": text("The CAS."),
                    "flags": whole(0, 2**32 - 1),
                    "expiry": whole(0, about="Expiry as a Unix time in seconds, if the document has one."),
                    "xattrs": thing({}, more=True, about="The extended attributes."),
                },
                "cas flags",
                more=True,
            ),
            "json": {"description": "The document, if it is JSON."},
            "base64": text("The document, if it is not JSON."),
        },
        "meta",
    ),
)
"""The document of a row with ``include_docs``."""

_ROW = named(
    "ListingRow",
    thing(
        {
            "id": text("The key."),
            "id_base64": text("The key, if it is not UTF-8."),
            "doc": nullable(DOCUMENT_OF_ROW),
            "doc_error": LINE_ERROR,
            "cursor": {"type": ["string", "null"], "description": "With `cursors`, in rows without a key."},
        },
        more=True,
    ),
)
_QUERY = (
    Parameter("prefix", "Only keys with this prefix."),
    Parameter("start", "Only keys from this one on."),
    Parameter("end", "Only keys up to this one, included."),
    Parameter("limit", "Largest number of rows.", whole(0, MOST_ROWS), 10),
    Parameter("cursor", "Continue where an earlier answer to the same query ended."),
    Parameter("include_docs", "Whether to add the document to each row.", BOOLEAN),
    Parameter("include_xattrs", "Whether to add the extended attributes to each document.", BOOLEAN),
    Parameter("verbatim", "Whether to show documents with line breaks as base64.", BOOLEAN),
    Parameter("cursors", "Whether to add cursors between the rows.", BOOLEAN),
)


class Listings(BucketResource):
    """Listings of collections."""

    def __init__(
        self,
        authorizer: Authorizer,
        pool: ConnectionPool,
        steps: StepRunner,
        count_operation: Callable[[str, str, int], None],
        log_bug: Callable[[Failure], None],
    ) -> None:
        super().__init__(authorizer, pool)
        self._steps = steps
        self._count_operation = count_operation
        self._log_bug = log_bug

    @endpoint("list_documents", "GET", "", on=DOCUMENTS, operation=SCAN)
    @described(
        "Collections",
        {
            200: Answer(
                "The rows, in no particular order; with a `cursor` if they end at `limit`.",
                {
                    JSON: thing({"rows": listed(_ROW), "cursor": text(), "errors": listed({})}, "rows"),
                    LINES: text("One row per line."),
                    EVENTS: text("One event `row` per row, and `done` at the end."),
                },
                ("Cache-Control", "Vary", "Content-Encoding", "X-Accel-Buffering"),
            )
        },
        query=_QUERY,
        headers=("Accept-Encoding",),
        examples=(
            Example(
                "Keys",
                answer={"rows": [{"id": "amber_ale"}]},
                query={"prefix": "amber_ale", "end": "amber_ale"},
                given=(STORED_ALE,),
            ),
        ),
    )
    def list_documents(self, request: Request) -> Any:
        """Return the keys of a collection, or its documents."""
        form = form_for(request.header(b"Accept"))
        return self.connected(request, self._begin, (form, read_parameters(request.query(PARAMETERS))))

    def _begin(
        self, connection: GatewayConnection, request: Request, plan: tuple[Form, ListingParameters]
    ) -> Deferred[Response]:
        form, parameters = plan
        check_collection(request)

        def begin(bulk: Any, position: Position | None) -> Any:
            after = None if position is None else cursor_of(position)
            documents = in_collection(bulk, request)
            ids_only, xattrs = not parameters.include_docs, parameters.include_xattrs
            return documents.scan(parameters.what, ids_only=ids_only, after=after, with_attributes=xattrs)

        def changed() -> None:
            caller = self.identify_again(request)
            answer.refuse(caller if isinstance(caller, Refusal) else None)

        def on_end(outcome: str | None) -> None:
            unfollow()
            self._pool.release(connection)
            if outcome is not None:
                self._count_operation(SCAN, outcome, 1)

        self._pool.lease(connection)
        answer = ListingAnswer(form, parameters, connection.bulk, begin, self._steps, on_end, self._log_bug)
        unfollow = self._authorizer.follow(changed)
        return answer.begin().addCallback(_counted_at_its_end, request)


def _counted_at_its_end(response: Response, request: Request) -> Response:
    request.operation = ""
    return response
