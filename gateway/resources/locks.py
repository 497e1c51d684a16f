"""Touch, lock and unlock."""

from __future__ import annotations

from typing import Any

from gateway.dialect.bodies import json_object
from gateway.dialect.paths import DOCUMENT
from gateway.http.request import Request
from gateway.http.routing import endpoint
from gateway.openapi.description import DOCUMENT as CONTENT
from gateway.openapi.description import JSON, Answer, Body, Example, Given, described
from gateway.openapi.headers import ONE_VERSION
from gateway.openapi.members import body_of
from gateway.operations.kind import Kind
from gateway.operations.locks import LOCK, TOUCH, UNLOCK
from gateway.resources.documentbase import DocumentResource
from gateway.resources.documents import ALE, READ_HEADERS, STORED_ALE
from gateway.resources.headers import MutationHeaders

__all__ = ["Locks"]


class Locks(DocumentResource):
    """Expiry and locks of a document, apart from its value."""

    @endpoint("touch_document", "POST", "/touch", on=DOCUMENT, operation=TOUCH.name, takes=TOUCH.takes)
    @described(
        "Expiry and locks",
        {
            200: Answer("The document, with `returnContent`.", CONTENT, READ_HEADERS),
            204: Answer("The expiry was set.", headers=("ETag",)),
        },
        headers=("Accept-Encoding",),
        body=Body(
            {JSON: body_of("TouchBody", TOUCH.body)},
            "The body may be missing if `X-CB-TTL` is given.",
            required=False,
        ),
        errors="DocumentNotFound DocumentLocked",
        examples=(
            Example("In a day", 204, body={"expiry": "24h"}, given=(STORED_ALE,)),
            Example("Never", 200, ALE, {"expiry": "", "returnContent": True}, given=(STORED_ALE,)),
        ),
    )
    def touch_document(self, request: Request) -> Any:
        """Set the document's expiry, and return the document if requested."""
        # Nearly all parameters are in the body, so all are read together with it.
        return self.ask(request, TOUCH, _read_touch, early=True)

    @endpoint("lock_document", "POST", "/lock", on=DOCUMENT, operation=LOCK.name, takes=LOCK.takes)
    @described(
        "Expiry and locks",
        {200: Answer("The document; its `ETag` is that of the lock.", CONTENT, READ_HEADERS)},
        headers=("Accept-Encoding",),
        body=Body({JSON: body_of("LockBody", LOCK.body)}, required=False),
        errors="DocumentNotFound DocumentLocked",
        examples=(
            Example(
                "For 30 seconds",
                answer={"n": 1},
                body={"lockTime": 30},
                path={"key": "locked"},
                given=(Given("PUT", "/v1/buckets/default/documents/locked", '{"n":1}'),),
            ),
        ),
    )
    def lock_document(self, request: Request) -> Any:
        """Return the document, and lock it: only the returned ETag allows a change."""
        return self.ask(request, LOCK, _read_lock)

    @endpoint("unlock_document", "POST", "/unlock", on=DOCUMENT, operation=UNLOCK.name, takes=UNLOCK.takes)
    @described(
        "Expiry and locks",
        {200: Answer("The lock was released.", headers=("X-CB-MutationToken",))},
        headers=(ONE_VERSION._replace(text="The `ETag` that the lock returned.", required=True),),
        errors="DocumentNotFound CasMismatch DocumentNotLocked DocumentLocked",
        examples=(
            Example("An unlocked one", 400, headers={"If-Match": "18d2f3a4c5e60000"}, given=(STORED_ALE,)),
        ),
    )
    def unlock_document(self, request: Request) -> Any:
        """Release the lock."""
        return self.ask(request, UNLOCK)


def _read_touch(request: Request, kind: Kind, headers: MutationHeaders) -> dict[str, Any]:
    return json_object(request, kind.body, required=headers.ttl is None)


def _read_lock(request: Request, kind: Kind, headers: MutationHeaders) -> dict[str, Any]:
    return json_object(request, kind.body, required=False)
