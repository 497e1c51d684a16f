"""The HTTP server under the application: limits on what strangers can send and hold."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

MAX_FORM_BYTES = 64 * 1024
MAX_CONNECTIONS = 500
IDLE_SECONDS = 60

_TOO_LONG = (
    b'<!DOCTYPE html>\n<html lang="en"><head><title>Too much</title></head><body><h1>That is too much</h1>'
    b"<p>A form has at most %d bytes. Go back, shorten the text, and send it again.</p></body></html>"
    % MAX_FORM_BYTES
)


class FormRequest(Request):
    """A request whose body is refused, with 413, before more than :data:`MAX_FORM_BYTES` of it are kept.

    The node has such a class of its own (``couchnode.rest.edge``): an example stands alone.
    """

    _received = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:
        """Refuse a body that says it is too long."""
        super().gotLength(length)
        if length is not None and length > MAX_FORM_BYTES:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """Refuse a body that turns out too long."""
        self._received += len(data)
        if self._received > MAX_FORM_BYTES:
            self._refuse()
        if not self._refused:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Handle the request, unless it was refused."""
        if not self._refused:
            super().requestReceived(command, path, version)

    def _refuse(self) -> None:
        if not self._refused:
            self._refused = True
            # The request is not whole, so the answer cannot go the way of answers.
            self.channel.transport.write(  # type: ignore[union-attr]  # it has just delivered this request
                b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: text/html; charset=utf-8\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_TOO_LONG), _TOO_LONG)
            )
            self.channel.loseConnection()


class _Utf8Paths(Resource):
    """Hands requests on, those with paths that are no text to an address where nothing is."""

    isLeaf = True

    def __init__(self, below: IResource) -> None:
        super().__init__()
        self._below = below

    def render(self, request: Any) -> Any:
        try:
            b"/".join(request.postpath).decode()
        except UnicodeDecodeError:
            request.postpath = [b"no text"]
        return self._below.render(request)


class _Site(Site):
    noisy = False
    access_log = False

    def log(self, request: Any) -> None:
        """Write a line for a request, if wanted."""
        if self.access_log:
            super().log(request)


class BeerSite(WrappingFactory):
    """The factory: serves a resource, to a limited number of connections.

    :param access_log: whether to write a line for each request.
    """

    noisy = False

    def __init__(self, resource: IResource, reactor: Any, access_log: bool = False) -> None:
        site = _Site(_Utf8Paths(resource), requestFactory=FormRequest, timeout=IDLE_SECONDS, reactor=reactor)
        site.access_log = access_log
        super().__init__(site)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Take a connection if there is room for it."""
        return super().buildProtocol(addr) if len(self.protocols) < MAX_CONNECTIONS else None

    def close(self) -> None:
        """Cut all connections."""
        for protocol in list(self.protocols):
            protocol.transport.abortConnection()
