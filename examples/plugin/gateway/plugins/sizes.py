"""A plugin of the gateway: sizes of documents, kept documents, a header, counts (docs/howto/plugins.md)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.plugin import IPlugin
from zope.interface import implementer

from gateway.dialect.errors import bad_request
from gateway.http.request import Request
from gateway.http.response import Response, json_response
from gateway.http.routing import endpoint, mount
from gateway.interfaces import IGatewayPlugin
from gateway.openapi.description import JSON, Answer, Parameter, described
from gateway.openapi.schemas import CSV, thing, whole

KEPT = b"keep:"


@implementer(IPlugin, IGatewayPlugin)
class Sizes:
    """Tells how large documents are, and keeps some from being deleted."""

    name = "sizes"

    def __init__(self) -> None:
        self.gateway: Any = None
        self.counts: Counter[str] = Counter()

    def attach(self, gateway: Any) -> None:
        """Keep the gateway, for connections."""
        self.gateway = gateway

    def routes(self, app: Any) -> None:
        """Declare the two routes."""
        mount(app, self, self.gateway.run_under_klein)

    @endpoint("document_sizes", "GET", "/v1/buckets/<bucket>/sizes", operation="get")
    @described(
        "Sizes",
        {200: Answer("Key -> bytes, null if there is no document.", {JSON: thing({}, more=True)})},
        query=(Parameter("keys", "Keys of documents, separated by commas.", CSV, "hello", required=True),),
    )
    def document_sizes(self, request: Request) -> Deferred[Response]:
        """``?keys=a,b`` -> ``{"a": 12, "b": null}``: bytes of each document, null if there is none."""
        keys = request.query(frozenset({"keys"})).get("keys", "")
        if not keys:
            raise bad_request("keys: expected the keys of documents, separated by commas")
        return self._sizes(request, [key.encode() for key in keys.split(",")])

    @inlineCallbacks
    def _sizes(self, request: Request, keys: list[bytes]) -> Any:
        # As the caller of this request, confirmed by the cluster; otherwise the answer is 401, 403 or 404.
        connection = yield self.gateway.connection(request, request.parameters["bucket"].decode())
        found = yield connection.get_multi(keys, quiet=True)
        return json_response(
            {key.decode(): len(one.value) if one.success else None for key, one in found.items()}
        )

    @endpoint("operation_counts", "GET", "/operations")
    @described(
        "Operations",
        {200: Answer("Operation and outcome -> count.", {JSON: thing({}, more=whole(0))})},
        credentials=False,
    )
    def operation_counts(self, request: Request) -> Response:
        """The counts of :meth:`on_operation` in this process."""
        return json_response(dict(self.counts))

    def on_request(self, request: Request) -> Response | None:
        """Refuse to delete documents whose keys begin with ``keep:``."""
        served = request.endpoint
        if served is None or served.name != "delete_document":
            return None
        if not request.parameters["key"].startswith(KEPT):
            return None
        return json_response({"code": "DocumentKept", "message": "This document is kept."}, 403)

    def on_response(self, request: Request, response: Response, seconds: float) -> None:
        """Add a header to every answer."""
        response.headers = [*response.headers, (b"X-Served-In", b"%.6f" % seconds)]

    def on_end(self, request: Request, status: int, seconds: float) -> None:
        """Count requests that were broken off."""
        if request.cut:
            self.counts[f"cut by {request.cut}"] += 1

    def on_operation(self, operation: str, outcome: str, count: int) -> None:
        """Count operations by name and outcome."""
        self.counts[f"{operation} {outcome}"] += count


sizes = Sizes()
