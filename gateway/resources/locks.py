"""Touch, lock and unlock."""

from __future__ import annotations

from typing import Any

from gateway.dialect.bodies import json_object
from gateway.dialect.paths import DOCUMENT
from gateway.http.request import Request
from gateway.http.routing import endpoint
from gateway.operations.locks import LOCK, TOUCH, UNLOCK
from gateway.resources.documentbase import DocumentResource
from gateway.resources.headers import RequestSource, read_mutation

__all__ = ["Locks"]


class Locks(DocumentResource):
    """Expiry and locks of a document, apart from its value."""

    @endpoint("touch_document", "POST", "/touch", on=DOCUMENT, operation=TOUCH.name, takes=TOUCH.takes)
    def touch_document(self, request: Request) -> Any:
        """Set the document's expiry, and return the document if requested."""
        headers = read_mutation(request)
        members = json_object(request, TOUCH.body, required=headers.ttl is None)
        source = RequestSource(request, headers, members)
        # Nearly all parameters are in the body, so all are read with it, before the caller is known.
        plan = TOUCH.plan(TOUCH.read(members, source.words), source, self._now())
        return self.connected(request, self.carry_out, plan)

    @endpoint("lock_document", "POST", "/lock", on=DOCUMENT, operation=LOCK.name, takes=LOCK.takes)
    def lock_document(self, request: Request) -> Any:
        """Return the document, and lock it: only the returned ETag allows a change."""
        headers = read_mutation(request)
        return self.ask(request, LOCK, headers, json_object(request, LOCK.body, required=False))

    @endpoint("unlock_document", "POST", "/unlock", on=DOCUMENT, operation=UNLOCK.name, takes=UNLOCK.takes)
    def unlock_document(self, request: Request) -> Any:
        """Release the lock."""
        return self.ask(request, UNLOCK, read_mutation(request))
