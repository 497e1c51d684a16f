"""Counters: documents that are an unsigned decimal number of 64 bits."""

from __future__ import annotations

from typing import Any

from gateway.dialect.bodies import json_object
from gateway.dialect.paths import DOCUMENT
from gateway.http.request import Request
from gateway.http.routing import endpoint
from gateway.operations.counters import DECR, INCR
from gateway.operations.kind import Kind
from gateway.resources.documentbase import DocumentResource
from gateway.resources.headers import read_mutation

__all__ = ["Counters"]


class Counters(DocumentResource):
    """Increment and decrement."""

    @endpoint("increment_document", "POST", "/increment", on=DOCUMENT, operation=INCR.name, takes=INCR.takes)
    def increment_document(self, request: Request) -> Any:
        """Add to the number; above 2**64-1 it wraps around."""
        return self._count(request, INCR)

    @endpoint("decrement_document", "POST", "/decrement", on=DOCUMENT, operation=DECR.name, takes=DECR.takes)
    def decrement_document(self, request: Request) -> Any:
        """Subtract from the number; it stops at 0."""
        return self._count(request, DECR)

    def _count(self, request: Request, kind: Kind) -> Any:
        headers = read_mutation(request)
        return self.ask(request, kind, headers, json_object(request, kind.body, required=False, typed=True))
