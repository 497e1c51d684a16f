"""Counters: documents that are an unsigned decimal number of 64 bits."""

from __future__ import annotations

from typing import Any

from gateway.dialect.bodies import json_object
from gateway.dialect.paths import DOCUMENT
from gateway.http.request import Request
from gateway.http.routing import endpoint
from gateway.openapi.description import JSON, Answer, Body, Example, Given, described
from gateway.openapi.members import body_of
from gateway.openapi.schemas import whole
from gateway.operations.counters import DECR, INCR
from gateway.operations.kind import Kind
from gateway.resources.documentbase import DocumentResource
from gateway.resources.documents import WRITTEN_HEADERS
from gateway.resources.headers import MutationHeaders

__all__ = ["Counters"]


_COUNTED = {200: Answer("The new number.", {JSON: whole(0, 2**64 - 1)}, WRITTEN_HEADERS)}
_BODY = Body({JSON: body_of("CounterBody", INCR.body)}, required=False)
_ERRORS = "DocumentNotFound DocumentNotNumeric DocumentLocked"
_STORED = Given("PUT", "/v1/buckets/default/documents/visits", "41")


class Counters(DocumentResource):
    """Increment and decrement."""

    @endpoint("increment_document", "POST", "/increment", on=DOCUMENT, operation=INCR.name, takes=INCR.takes)
    @described(
        "Counters",
        _COUNTED,
        body=_BODY,
        errors=_ERRORS,
        examples=(
            Example("By one", answer=42, path={"key": "visits"}, given=(_STORED,)),
            Example("A new counter", answer=100, body={"initial": 100}, path={"key": "new_visits"}),
        ),
    )
    def increment_document(self, request: Request) -> Any:
        """Add to the number; above 2**64-1 it wraps around."""
        return self._count(request, INCR)

    @endpoint("decrement_document", "POST", "/decrement", on=DOCUMENT, operation=DECR.name, takes=DECR.takes)
    @described(
        "Counters",
        _COUNTED,
        body=_BODY,
        errors=_ERRORS,
        examples=(Example("By two", answer=39, body={"delta": 2}, path={"key": "visits"}, given=(_STORED,)),),
    )
    def decrement_document(self, request: Request) -> Any:
        """Subtract from the number; it stops at 0."""
        return self._count(request, DECR)

    def _count(self, request: Request, kind: Kind) -> Any:
        return self.ask(request, kind, _read_body)


def _read_body(request: Request, kind: Kind, headers: MutationHeaders) -> dict[str, Any]:
    return json_object(request, kind.body, required=False, typed=True)
