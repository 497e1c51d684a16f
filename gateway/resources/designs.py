"""Design documents: create, read, list, remove, publish."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import quote

from twisted.internet.defer import Deferred

from couchbase.asynchronous.view import decode_answer
from couchbase.exceptions import HTTPError
from couchbase.result import HttpResult
from gateway.cluster.connection import GatewayConnection
from gateway.dialect.contenttypes import check_charset
from gateway.dialect.errors import Refusal, bad_request, too_large
from gateway.dialect.jsontools import any_json, dumps, read_body, without_mark
from gateway.dialect.paths import BUCKET
from gateway.http.request import Request
from gateway.http.response import JSON_TYPE, Response
from gateway.http.routing import endpoint
from gateway.openapi.description import JSON, Answer, Body, Example, Given, Parameter, described
from gateway.openapi.schemas import ANY, BOOLEAN, listed, named, text, thing
from gateway.resources.base import ServiceResource
from gateway.resources.views import name_of

__all__ = ["Designs"]

MAX_SYNCWAIT_SECONDS = 300

MAX_DESIGN_BYTES = 2**20
"""Largest design document, in bytes."""

_READ_QUERY = frozenset({"dev"})
_WRITE_QUERY = frozenset({"dev", "syncwait"})
_PUBLISH_QUERY = frozenset({"syncwait"})

_REVALIDATE = (b"Cache-Control", b"private, no-cache")


_DEV = Parameter("dev", "Whether to put `dev_` before the name, unless it has this prefix.", BOOLEAN)
_SYNCWAIT = Parameter(
    "syncwait",
    "How long to wait until every node has the change, in seconds.",
    {"type": "number", "minimum": 0, "maximum": MAX_SYNCWAIT_SECONDS, "multipleOf": 0.001},
)
_OF_VIEW = thing(
    {"map": text("A JavaScript function."), "reduce": text("A function, or a built-in one's name.")},
    "map",
    more=True,
)
_DESIGN = named("DesignDocument", thing({"views": thing({}, more=_OF_VIEW)}, more=True))
_NAMED = thing({"name": text()}, "name")
_BEERS = {"views": {"by_name": {"map": "function (doc, meta) { emit(doc.name, null); }"}}}
STORED_BEERS = Given("PUT", "/v1/buckets/default/designs/beers", dumps(_BEERS).decode())
_STORED = {
    200: Answer("The design document was replaced.", {JSON: _NAMED}, ("Location",)),
    201: Answer("The design document was created.", {JSON: _NAMED}, ("Location",)),
}


class _Change(NamedTuple):
    """The parameters of a request that changes a design document."""

    dev: bool
    syncwait: float
    text: str = ""
    """The document, as it was sent."""


def _read_dev(query: dict[str, str]) -> bool:
    value = query.get("dev", "false").lower()
    if value not in ("true", "false"):
        raise bad_request(f"dev: {query['dev'][:80]!r} is invalid; expected true or false")
    return value == "true"


def _read_syncwait(query: dict[str, str]) -> float:
    value = query.get("syncwait", "0")
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", value) or float(value) > MAX_SYNCWAIT_SECONDS:
        raise bad_request(
            f"syncwait: {value[:80]!r} is invalid; expected a number of seconds from 0 to "
            f"{MAX_SYNCWAIT_SECONDS}"
        )
    return float(value)


def _read_document(request: Request) -> str:
    """Return the body's text.

    :raises Refusal: 400 unless it is a JSON object; the node checks its content.
    """
    body = request.body()
    takes = 'a JSON object such as {"views": {"name": {"map": "function (doc, meta) {...}"}}}'
    if not body:
        raise bad_request(f"the request has no body; it takes {takes}")
    if len(body) > MAX_DESIGN_BYTES:
        raise too_large(f"the request body has more than {MAX_DESIGN_BYTES} bytes")
    check_charset(request.header(b"Content-Type") or b"")
    read_body(body, takes)
    return without_mark(body).decode("utf-8")


class Designs(ServiceResource):
    """Design documents of a bucket."""

    @endpoint("list_designs", "GET", "/designs", on=BUCKET, operation="design_list")
    @described(
        "Design documents",
        {
            200: Answer(
                "All design documents of the bucket.",
                {
                    JSON: thing(
                        {"designs": listed(thing({"name": text(), "design": ANY}, "name design"))}, "designs"
                    )
                },
                ("Cache-Control",),
            )
        },
        examples=(
            Example(
                "A bucket's", answer={"designs": [{"name": "beers", "design": _BEERS}]}, given=(STORED_BEERS,)
            ),
        ),
    )
    def list_designs(self, request: Request) -> Any:
        """List the design documents, including those in development."""
        request.query()
        return self.connected(request, _list, None)

    @endpoint("get_design", "GET", "/designs/<design>", on=BUCKET, operation="design_get")
    @described(
        "Design documents",
        {200: Answer("The design document.", {JSON: _DESIGN}, ("X-CB-Revision", "Cache-Control"))},
        query=(_DEV,),
        errors="DesignDocumentNotFound",
        examples=(Example("A design document", answer=_BEERS, given=(STORED_BEERS,)),),
    )
    def get_design(self, request: Request) -> Any:
        """Return a design document."""
        return self.connected(request, _get, _read_dev(request.query(_READ_QUERY)))

    @endpoint("put_design", "PUT", "/designs/<design>", on=BUCKET, operation="design_create")
    @described(
        "Design documents",
        _STORED,
        query=(_DEV, _SYNCWAIT),
        body=Body({JSON: _DESIGN}),
        errors="InvalidDesignDocument",
        examples=(Example("A view by name", answer={"name": "beers"}, body=_BEERS, given=(STORED_BEERS,)),),
    )
    def put_design(self, request: Request) -> Any:
        """Store a design document, which is created or replaced."""
        query = request.query(_WRITE_QUERY)
        change = _Change(_read_dev(query), _read_syncwait(query), _read_document(request))
        return self.connected(request, _put, change)

    @endpoint("delete_design", "DELETE", "/designs/<design>", on=BUCKET, operation="design_delete")
    @described(
        "Design documents",
        {204: Answer("The design document was removed.")},
        query=(_DEV, _SYNCWAIT),
        errors="DesignDocumentNotFound",
        examples=(Example("A design document", 204, given=(STORED_BEERS,)),),
    )
    def delete_design(self, request: Request) -> Any:
        """Remove a design document and its indexes."""
        query = request.query(_WRITE_QUERY)
        return self.connected(request, _delete, _Change(_read_dev(query), _read_syncwait(query)))

    @endpoint("publish_design", "POST", "/designs/<design>/publish", on=BUCKET, operation="design_publish")
    @described(
        "Design documents",
        _STORED,
        query=(_SYNCWAIT,),
        errors="DesignDocumentNotFound InvalidDesignDocument",
        examples=(
            Example(
                "A tested one",
                201,
                {"name": "ales"},
                path={"design": "ales"},
                given=(Given("PUT", "/v1/buckets/default/designs/dev_ales", dumps(_BEERS).decode()),),
            ),
        ),
    )
    def publish_design(self, request: Request) -> Any:
        """Copy the development form of a design document to its name in production."""
        syncwait = _read_syncwait(request.query(_PUBLISH_QUERY))
        if request.body():
            raise bad_request("publishing takes no body")
        return self.connected(request, _publish, _Change(True, syncwait))


def _list(connection: GatewayConnection, request: Request, _: None) -> Deferred[Response]:
    return connection.design_list().addCallback(_listed)


def _listed(result: HttpResult) -> Response:
    designs = [{"name": name, "design": design} for name, design in sorted(result.value.items())]
    return Response(200, [JSON_TYPE, _REVALIDATE], any_json({"designs": designs}))


def _get(connection: GatewayConnection, request: Request, dev: bool) -> Deferred[Response]:
    found: Deferred[Any] = connection.design_get(name_of(request, "design", dev), use_devmode=False)
    return found.addCallback(_document)


def _document(result: HttpResult) -> Response:
    if not isinstance(result.value, dict):
        raise Refusal("ServerError", "The cluster's design document is not a JSON object.")
    headers = [JSON_TYPE, _REVALIDATE]
    meta = decode_answer((result.headers or {}).get("X-Couchbase-Meta", "").encode())
    revision = meta.get("rev") if isinstance(meta, dict) else None
    if isinstance(revision, str) and re.fullmatch(r"[!-~]+", revision):
        headers.append((b"X-CB-Revision", revision.encode("ascii")))
    return Response(200, headers, any_json(result.value))


def _put(connection: GatewayConnection, request: Request, change: _Change) -> Deferred[Response]:
    name = name_of(request, "design", change.dev)
    there: Deferred[bool] = _is_there(connection, name)
    return there.addCallback(_store, connection, request, name, change)


def _store(
    was_there: bool, connection: GatewayConnection, request: Request, name: str, change: _Change
) -> Any:
    stored = connection.design_create(name, change.text, use_devmode=False, syncwait=change.syncwait)
    return stored.addCallback(lambda _: _stored(request, name, was_there))


def _delete(connection: GatewayConnection, request: Request, change: _Change) -> Deferred[Response]:
    name = name_of(request, "design", change.dev)
    removed: Deferred[Any] = connection.design_delete(name, use_devmode=False, syncwait=change.syncwait)
    return removed.addCallback(lambda _: Response(204))


def _publish(connection: GatewayConnection, request: Request, change: _Change) -> Deferred[Response]:
    # If nothing is there, report the development form as missing.
    name = name_of(request, "design", dev=True)[len("dev_") :]
    if not name:
        raise bad_request("the name of a design document must not be empty after dev_")
    there: Deferred[bool] = _is_there(connection, name)
    return there.addCallback(_copy, connection, request, name, change)


def _copy(
    was_there: bool, connection: GatewayConnection, request: Request, name: str, change: _Change
) -> Any:
    copied = connection.design_publish(name, syncwait=change.syncwait)
    return copied.addCallback(lambda _: _stored(request, name, was_there))


def _is_there(connection: GatewayConnection, name: str) -> Deferred[bool]:
    """Return whether a design document exists, which decides between 200 and 201."""

    def missed(failure: Any) -> bool:
        failure.trap(HTTPError)
        if getattr(failure.value.objextra, "http_status", 0) != 404:
            failure.raiseException()
        return False

    found: Deferred[Any] = connection.design_get(name, use_devmode=False)
    return found.addCallbacks(lambda _: True, missed)


def _stored(request: Request, name: str, was_there: bool) -> Response:
    bucket = request.parameters["bucket"].decode("ascii")
    location = f"/v1/buckets/{quote(bucket, safe='')}/designs/{quote(name, safe='')}"
    return Response(
        200 if was_there else 201,
        [JSON_TYPE, (b"Location", location.encode("ascii"))],
        any_json({"name": name}),
    )
