"""The console: web pages at ``/`` that show buckets, documents, views and metrics.

It is a browser program made of static files, and uses only the gateway's own resources: it may do whatever
its user may do.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.plugin import IPlugin
from zope.interface import implementer

import gateway
from couchbase.protocol.version import VERSION
from gateway.http.files import StaticFiles
from gateway.http.prepared import Prepared
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint, mount
from gateway.interfaces import Gateway, IGatewayPlugin
from gateway.openapi.description import Answer, Example, Parameter, described
from gateway.openapi.headers import FILE_TAG, FILE_TAGS
from gateway.openapi.schemas import TEXT, text
from gateway.pages.shared import COLORS, protection

if TYPE_CHECKING:
    from klein import Klein

__all__ = ["FOLDER", "Console", "console"]

FOLDER = Path(gateway.__file__).parent / "console"

_HEADERS = protection(b"same-origin")

_SENT: tuple[str | Parameter, ...] = (
    *(FILE_TAG, "Cache-Control", "Vary", "Content-Encoding"),
    *(Parameter(name.decode("ascii"), "Protects the pages.", TEXT) for name, _ in _HEADERS),
)
_FILES: dict[str, Any] = {"text/javascript": TEXT, "text/css": TEXT, "image/svg+xml": TEXT, "text/html": TEXT}

_HOST = re.compile(r"[A-Za-z0-9._~\[\]:-]{1,255}")
_PAGE = "index.html"


@implementer(IPlugin, IGatewayPlugin)
class Console:
    """Serves the console's files."""

    name = "console"
    on_request = on_response = on_end = on_operation = None

    def __init__(self) -> None:
        self._gateway: Gateway | None = None
        self._files: StaticFiles | None = None
        self._page = ""

    def attach(self, gateway: Gateway) -> None:
        """Read the files, and set the page of ``/``."""
        self._gateway = gateway
        files = self._files = StaticFiles(FOLDER, _HEADERS, [COLORS])
        self._page = files.text(_PAGE).replace("{folder}", f"console/{files.version}")
        self._page = self._page.replace("{version}", escape(VERSION))
        gateway.index.page = self.page

    def routes(self, app: Klein) -> None:
        """Declare the files' route."""
        assert self._gateway is not None
        mount(app, self, self._gateway.run_under_klein)

    def page(self, request: Request) -> Response:
        """Return the page; its sample commands use the gateway's address in the browser."""
        host: Any = request.headers.get(b"host", b"")
        name = host.decode("latin-1") if isinstance(host, bytes) else ""
        if not _HOST.fullmatch(name):
            name = "127.0.0.1:8080"
        origin = f"{'https' if request.is_encrypted else 'http'}://{name}"
        body = self._page.replace("{origin}", escape(origin)).encode("utf-8")
        headers = (*_HEADERS, (b"Vary", b"Accept"))
        return Prepared(body, b"text/html; charset=utf-8", headers).response(request)

    @endpoint("console_file", "GET", "/console/<version>/<name>", takes=("If-None-Match",))
    @described(
        "Operations",
        {
            200: Answer("The file.", _FILES, _SENT),
            304: Answer("The caller has the current version.", headers=_SENT),
        },
        path=(
            Parameter("version", "The version of all files, as in the page's links.", text(), "current"),
            Parameter("name", "The file's name.", text(), "style.css"),
        ),
        headers=("Accept-Encoding", FILE_TAGS),
        errors="RouteNotFound",
        credentials=False,
        examples=(Example("The style sheet"),),
        text="A file that the page at `/` refers to.",
    )
    def file(self, request: Request) -> Response:
        """Return one of the console's files."""
        request.query()
        assert self._files is not None
        parameters = request.parameters
        return self._files.response(request, parameters["name"], parameters["version"])


console: Any = Console()
