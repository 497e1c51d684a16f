"""``/openapi.json`` and ``/docs``: the description of all endpoints, including those of other plugins, for
programs and for readers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

import gateway.openapi.page
from couchbase.protocol.version import VERSION
from gateway.dialect.jsontools import any_json
from gateway.fairness.steps import StepRunner
from gateway.http.files import TYPES
from gateway.http.prepared import Prepared, preparing
from gateway.http.refusal import no_route
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint, mount
from gateway.interfaces import Gateway, IGatewayPlugin
from gateway.openapi.description import JSON, Answer, Example, Parameter, described
from gateway.openapi.document import About, document, routes_of
from gateway.openapi.headers import FILE_TAG, FILE_TAGS
from gateway.openapi.page import parts
from gateway.openapi.schemas import ANY, TEXT, choice
from gateway.pages.shared import COLORS, protection
from reactor.deferreds import own

if TYPE_CHECKING:
    from klein import Klein

__all__ = ["Reference", "openapi"]

_FOLDER = Path(gateway.openapi.page.__file__).parent / "static"
_FILES = {
    path.name.encode("ascii"): path
    for path in (COLORS, *(_FOLDER / name for name in ("icon.svg", "page.css", "page.mjs")))
}
Preparing = Generator[None, None, Prepared]

_HTML = b"text/html; charset=utf-8"
_PROTECTION = protection(b"no-referrer")
_SENT: tuple[str | Parameter, ...] = (
    FILE_TAG,
    "Cache-Control",
    "Vary",
)
_TAKEN = ("Accept-Encoding", FILE_TAGS)
_PROTECTED = (
    *_SENT,
    "Content-Encoding",
    *(Parameter(name.decode("ascii"), "Protects the page.") for name, _ in _PROTECTION),
)
_KNOWN = Answer("The caller has the current version.", headers=_SENT)


@implementer(IPlugin, IGatewayPlugin)
class Reference:
    """Describes the gateway's endpoints.

    The document is made at its first request, when other plugins have declared their routes.
    """

    name = "openapi"
    on_request = on_response = on_end = on_operation = None

    def __init__(self) -> None:
        self._gateway: Gateway | None = None
        self._prepared: dict[bytes, Prepared] = {}
        self._making: dict[bytes, Deferred[Prepared]] = {}
        self._steps: StepRunner | None = None

    def attach(self, gateway: Gateway) -> None:
        """Attach to a gateway, which is described from now on."""
        self._gateway = gateway
        self._prepared = {}
        self._making = {}
        self._steps = StepRunner(gateway.clock)

    def routes(self, app: Klein) -> None:
        """Declare ``/openapi.json``, and the page with its files."""
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
            200: Answer("OpenAPI 3.1.", {JSON: ANY}, (*_SENT, "Content-Encoding")),
            304: _KNOWN,
        },
        headers=_TAKEN,
        credentials=False,
        examples=(Example("Always"),),
    )
    def show(self, request: Request) -> Response | Deferred[Response]:
        """Return the OpenAPI description of all endpoints."""
        request.query()
        return self._answer(request, b"", self._json)

    @endpoint("docs", "GET", "/docs", takes=("If-None-Match",))
    @described(
        "Operations",
        {200: Answer("A page.", {"text/html": TEXT}, _PROTECTED), 304: _KNOWN},
        headers=_TAKEN,
        credentials=False,
        examples=(Example("Always"),),
    )
    def docs(self, request: Request) -> Response | Deferred[Response]:
        """Return the description as a web page, with a form to try requests."""
        request.query()
        return self._answer(request, b"docs", self._page)

    @endpoint("docs_file", "GET", "/docs/<file>", takes=("If-None-Match",))
    @described(
        "Operations",
        {
            200: Answer(
                "A file.", dict.fromkeys(("text/css", "text/javascript", "image/svg+xml"), TEXT), _PROTECTED
            ),
            304: _KNOWN,
        },
        path=(
            Parameter("file", "Its name.", choice(*(name.decode("ascii") for name in _FILES)), "page.css"),
        ),
        headers=_TAKEN,
        errors="RouteNotFound",
        credentials=False,
        examples=(Example("Its style"),),
    )
    def docs_file(self, request: Request) -> Response | Deferred[Response]:
        """Return a file of the page."""
        request.query()
        name = request.parameters["file"]
        path = _FILES.get(name)
        if path is None:
            raise no_route(request.path)
        return self._answer(request, name, lambda: _file(path))

    def _json(self) -> Preparing:
        yield
        return (yield from preparing([any_json(self.document())], b"application/json"))

    def _page(self) -> Preparing:
        yield
        made = self.document()
        yield
        return (yield from preparing((part.encode("utf-8") for part in parts(made)), _HTML, _PROTECTION))

    def _answer(
        self, request: Request, name: bytes, prepare: Callable[[], Preparing]
    ) -> Response | Deferred[Response]:
        """Return a body, which is made once, in steps, at its first request."""
        known = self._prepared.get(name)
        if known is not None:
            return known.response(request)
        making = self._making.get(name)
        if making is None:
            assert self._steps is not None
            making = self._making[name] = self._steps.run(prepare())
            making.addBoth(self._made, name)
        mine: Deferred[Any] = own(making)
        return mine.addCallback(lambda prepared: prepared.response(request))

    def _made(self, result: Prepared | Failure, name: bytes) -> Prepared | Failure:
        self._making.pop(name, None)
        if isinstance(result, Prepared):
            self._prepared[name] = result
        return result


def _file(path: Path) -> Preparing:
    return (yield from preparing([path.read_bytes()], TYPES[path.suffix], _PROTECTION))


openapi: Any = Reference()
