"""Lookup and mutate: parts of documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from gateway.cluster.bulk import LARGE_BYTES
from gateway.cluster.credentials import Authorizer
from gateway.cluster.pool import ConnectionPool
from gateway.dialect.contenttypes import check_charset
from gateway.dialect.paths import DOCUMENT
from gateway.dialect.subdocuments import parse_body, parsing_body
from gateway.fairness.steps import AT_ONCE_BYTES, StepRunner
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint
from gateway.operations.kind import Kind
from gateway.operations.renderer import Renderer
from gateway.operations.subdocuments import LOOKUP_IN, MUTATE_IN
from gateway.resources.base import document_key
from gateway.resources.documentbase import DocumentResource, Wanted
from gateway.resources.headers import read_mutation

__all__ = ["Subdocuments"]


class Subdocuments(DocumentResource):
    """Parts of documents, by path.

    :param steps: parses long bodies.
    """

    def __init__(
        self,
        authorizer: Authorizer,
        pool: ConnectionPool,
        renderer: Renderer,
        now: Callable[[], float],
        steps: StepRunner,
    ) -> None:
        super().__init__(authorizer, pool, renderer, now)
        self._steps = steps

    @endpoint("alpha_enabled", "GET", "/v1.alpha/enabled")
    def alpha_enabled(self, request: Request) -> Response:
        """Answer 200, without credentials: the paths below ``/v1.alpha`` exist."""
        return Response(200)

    @endpoint(
        "lookup_document", "POST", "/lookup", on=DOCUMENT, operation=LOOKUP_IN.name, takes=LOOKUP_IN.takes
    )
    def lookup_document(self, request: Request) -> Any:
        """Return the values at paths of the document."""
        return self._ask(request, LOOKUP_IN)

    @endpoint(
        "mutate_document", "POST", "/mutate", on=DOCUMENT, operation=MUTATE_IN.name, takes=MUTATE_IN.takes
    )
    def mutate_document(self, request: Request) -> Any:
        """Change the document at paths: all of them, or none."""
        return self._ask(request, MUTATE_IN)

    def _ask(self, request: Request, kind: Kind) -> Any:
        headers = read_mutation(request)
        body = request.body()
        check_charset(request.header(b"Content-Type") or b"")
        if len(body) <= AT_ONCE_BYTES:
            return self.ask(request, kind, headers, parse_body(body, kind.body))
        parsed: Deferred[Any] = self._steps.run(parsing_body(body, kind.body))
        return parsed.addCallback(lambda members: self.ask(request, kind, headers, members))

    def act(self, connection: Any, request: Request, wanted: Wanted) -> Any:
        """Plan the operation, and carry it out; a large body is sent on the connection for large
        operations."""
        if request.received_bytes >= LARGE_BYTES and connection.bulk is not None:
            document_key(request)
            carried_out: Deferred[Any] = connection.bulk.carry_out(
                len(request.raw_body), lambda bulk: self.act(bulk, request, wanted)
            )
            return carried_out
        return super().act(connection, request, wanted)
