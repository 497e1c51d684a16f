"""The copies of a document: observe reports their state, and endure waits for them."""

from __future__ import annotations

from typing import Any

from gateway.dialect.bodies import json_object
from gateway.dialect.errors import bad_request
from gateway.dialect.paths import DOCUMENT
from gateway.http.request import Request
from gateway.http.routing import endpoint
from gateway.openapi.description import JSON, Answer, Body, Example, Parameter, described
from gateway.openapi.headers import ONE_VERSION
from gateway.openapi.members import CAS, body_of
from gateway.openapi.schemas import BOOLEAN, choice, listed, named, text, thing
from gateway.operations.copies import ENDURE, OBSERVE
from gateway.operations.kind import Kind
from gateway.resources.documentbase import DocumentResource
from gateway.resources.documents import STORED_ALE
from gateway.resources.headers import NO_HEADERS, MutationHeaders

__all__ = ["COPY", "DurabilityChecks"]


COPY = named(
    "Copy",
    thing(
        {
            "copy": choice("active", "replica"),
            "state": choice("found", "persisted", "notFound", "logicallyDeleted"),
            "cas": {**CAS, "type": ["string", "null"]},
        },
        "copy state",
    ),
)


class DurabilityChecks(DocumentResource):
    """The state of a document's copies."""

    @endpoint("observe_document", "GET", "/observe", on=DOCUMENT, operation=OBSERVE.name, takes=OBSERVE.takes)
    @described(
        "Copies",
        {
            200: Answer(
                "The state of each copy.",
                {JSON: thing({"key": text(), "copies": listed(COPY)}, "key copies")},
            )
        },
        query=(Parameter("masterOnly", "Whether to ask the active copy only.", BOOLEAN),),
        examples=(Example("A document", given=(STORED_ALE,)),),
    )
    def observe_document(self, request: Request) -> Any:
        """Return, for each copy, whether it is in memory, on disk, or gone."""
        master_only = request.query(OBSERVE.body).get("masterOnly", "false").lower()
        if master_only not in ("true", "false"):
            raise bad_request(f"masterOnly: {master_only[:80]!r} is invalid; expected true or false")
        return self.ask_with(request, OBSERVE, NO_HEADERS, {"masterOnly": master_only == "true"})

    @endpoint("endure_document", "POST", "/endure", on=DOCUMENT, operation=ENDURE.name, takes=ENDURE.takes)
    @described(
        "Copies",
        {204: Answer("The requested number of copies have the document, or its removal.", headers=("ETag",))},
        headers=(ONE_VERSION,),
        body=Body({JSON: body_of("EndureBody", ENDURE.body)}, required=False),
        errors="DocumentNotFound CasMismatch DurabilityImpossible",
        examples=(Example("In memory", 204, body={"persistTo": 0, "replicateTo": 0}, given=(STORED_ALE,)),),
    )
    def endure_document(self, request: Request) -> Any:
        """Wait until the requested number of copies have the document, or its removal."""
        return self.ask(request, ENDURE, _read_endure)


def _read_endure(request: Request, kind: Kind, headers: MutationHeaders) -> dict[str, Any]:
    return json_object(request, kind.body, required=False)
