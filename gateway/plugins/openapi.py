"""``/openapi.json``: the description of all endpoints, those of other plugins included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from couchbase.protocol.version import VERSION
from gateway.dialect.jsontools import any_json
from gateway.http.prepared import Prepared
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint, mount
from gateway.interfaces import Gateway, IGatewayPlugin
from gateway.openapi.description import JSON, Answer, Example, described
from gateway.openapi.document import About, document, routes_of
from gateway.openapi.schemas import ANY

if TYPE_CHECKING:
    from klein import Klein

__all__ = ["Reference", "openapi"]


@implementer(IPlugin, IGatewayPlugin)
class Reference:
    """Describes the gateway's endpoints.

    The document is made when it is first asked for: other plugins have declared their routes by then.
    """

    name = "openapi"
    on_request = on_response = on_end = on_operation = None

    def __init__(self) -> None:
        self._gateway: Gateway | None = None
        self._prepared: Prepared | None = None

    def attach(self, gateway: Gateway) -> None:
        """Describe another gateway from now on."""
        self._gateway = gateway
        self._prepared = None

    def routes(self, app: Klein) -> None:
        """Declare ``/openapi.json``."""
        assert self._gateway is not None
        mount(app, self, self._gateway.run_under_klein)

    def document(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        assert self._gateway is not None
        return document(routes_of(self._gateway.app), About(VERSION, self._gateway.security_schemes))

    @endpoint("openapi", "GET", "/openapi.json", takes=("If-None-Match",))
    @described(
        "Operations",
        {
            200: Answer("OpenAPI 3.1.", {JSON: ANY}, ("ETag", "Cache-Control", "Vary", "Content-Encoding")),
            304: Answer("The caller has it.", headers=("ETag", "Cache-Control", "Vary")),
        },
        headers=("Accept-Encoding",),
        credentials=False,
        examples=(Example("Always"),),
    )
    def show(self, request: Request) -> Response:
        """Return this description of all endpoints."""
        request.query()
        if self._prepared is None:
            self._prepared = Prepared(any_json(self.document()), b"application/json")
        return self._prepared.response(request)


openapi: Any = Reference()
