"""``/``: a web page for browsers, links for all other clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from couchbase.protocol.version import VERSION
from gateway.dialect.accept import parse_accept
from gateway.http.endpoints import Endpoint
from gateway.http.request import Request
from gateway.http.response import Response, json_response
from gateway.http.routing import endpoint
from gateway.openapi.description import JSON, Answer, Example, described
from gateway.openapi.headers import FILE_TAG, FILE_TAGS
from gateway.openapi.schemas import TEXT, text, thing

if TYPE_CHECKING:
    from klein import Klein

__all__ = ["Index", "links"]

_LINKS = thing({}, more=TEXT)

_PAGES = (b"text/html", b"application/xhtml+xml")
_DATA = (b"application/json", b"application/*", b"*/*")


class Index:
    """The gateway's entry point, which needs no credentials.

    :ivar page: the page for browsers; ``None`` if no plugin offers one: browsers get the links, too.
    :ivar links: name -> path.
    """

    def __init__(self) -> None:
        self.page: Callable[[Request], Response] | None = None
        self.links: dict[str, str] = {}

    @endpoint("index", "GET", "/", takes=("If-None-Match",))
    @described(
        "Operations",
        {
            200: Answer(
                "Name, version and links; or the page, for a client that prefers HTML.",
                {
                    JSON: thing({"name": text(), "version": text(), "links": _LINKS}, "name version links"),
                    "text/html": TEXT,
                },
                ("Cache-Control", "Vary", FILE_TAG, "Content-Encoding"),
            ),
            304: Answer("The caller has the current page.", headers=("Cache-Control", "Vary", FILE_TAG)),
        },
        headers=("Accept-Encoding", FILE_TAGS),
        credentials=False,
        examples=(Example("For programs"),),
    )
    def show(self, request: Request) -> Response:
        """Return name, version and links as JSON, or the page to browsers."""
        request.query()
        wants_page = prefers_page(b",".join(request.header_values(b"Accept")))
        if self.page is not None and wants_page:
            return self.page(request)
        index = {"name": "couchgateway", "version": VERSION, "links": self.links}
        return json_response(index, headers=((b"Cache-Control", b"no-cache"), (b"Vary", b"Accept")))


def prefers_page(accept: bytes) -> bool:
    """Return whether ``Accept`` names HTML with a higher weight than JSON.

    :raises Refusal: 400 for an invalid weight.
    """
    weights = dict(parse_accept(accept))
    page = max(weights.get(name, 0.0) for name in _PAGES)
    # A wildcard counts only if the type itself is not listed.
    data = next((weights[name] for name in _DATA if name in weights), 0.0)
    named = b"application/json" in weights
    return page > data or (page == data > 0 and not named)


def links(app: Klein) -> dict[str, str]:
    """Return the paths where a client can begin: those without parameters that take GET, by last segment."""
    found = {}
    for declared in _declared(app):
        for path in declared.paths:
            if declared.method == "GET" and "<" not in path and path != "/" and "/v1.alpha" not in path:
                name = path.rpartition("/")[2].removesuffix(".json")
                found[name] = path
    return dict(sorted(found.items(), key=lambda link: link[1]))


def _declared(app: Klein) -> Iterator[Endpoint]:
    for view in app.endpoints.values():
        served: Any = getattr(view, "served", None)
        if served is not None:
            yield served[0]
