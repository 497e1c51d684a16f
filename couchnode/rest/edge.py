"""The HTTP server under the REST interface: limits, and an orderly shutdown.

Twisted limits a request's head (16 KiB, 500 headers). This module limits its body and the number of
connections, and drops idle connections.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Longest request body: design documents, and the keys of a view query; everything else is a short form."""

MAX_CONNECTIONS = 1000
"""Most connections on one REST port, open streams included; further ones are closed at once."""

IDLE_SECONDS = 60
"""How long a connection may stay silent while a request is expected."""

_CLOSING_SECONDS = 2.0


class LimitedRequest(Request):
    """A request whose body is refused, with 413, before it is longer than :data:`MAX_BODY_BYTES`."""

    certificate_user: str | None = None
    """The user of the TLS certificate that the client has presented; the gate sets it."""

    _received = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:
        """Refuse a body whose announced length is too long."""
        super().gotLength(length)
        if length is not None and length > MAX_BODY_BYTES:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """Refuse a body whose length exceeds the limit."""
        self._received += len(data)
        if self._received > MAX_BODY_BYTES:
            self._refuse()
        if not self._refused:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Handle the request, unless it was refused already."""
        if not self._refused:
            super().requestReceived(command, path, version)

    def getRequestHostname(self) -> bytes:
        """Return a fixed name, since some make the router fail; nothing here depends on ``Host``."""
        return b"localhost"

    def _refuse(self) -> None:
        if self._refused:
            return
        self._refused = True
        body = json.dumps({"errors": {"_": f"a request body has at most {MAX_BODY_BYTES} bytes"}}).encode()
        # The request is incomplete, so the response cannot be sent the usual way.
        self.channel.transport.write(  # type: ignore[union-attr]  # it has just delivered this request
            b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.channel.loseConnection()


class _QuietSite(Site):
    def log(self, request: Any) -> None:
        """Write no access log: clients poll so often that it would hide other lines."""


class RestSite(WrappingFactory):
    """The factory for one REST port: serves ``resource``, and keeps track of its connections.

    :param clock: for time limits.
    """

    noisy = False

    def __init__(self, resource: IResource, clock: IReactorTime) -> None:
        site = _QuietSite(resource, requestFactory=LimitedRequest, timeout=IDLE_SECONDS, reactor=clock)
        site.noisy = False
        super().__init__(site)
        self._clock = clock
        self._closed: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None

    def logPrefix(self) -> str:
        """Twisted: return the name of the port's owner, for the log."""
        return "couchnode REST"

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Take a connection if there is room for it."""
        if self._closed is not None or len(self.protocols) >= MAX_CONNECTIONS:
            return None
        return super().buildProtocol(addr)

    def registerProtocol(self, p: ProtocolWrapper) -> None:
        """Enable TCP keep-alive, since streams would otherwise wait forever for vanished clients."""
        super().registerProtocol(p)
        keep_alive: Any = getattr(p.transport, "setTcpKeepAlive", None)
        if keep_alive is not None:
            keep_alive(True)

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        """Note the end of a connection."""
        super().unregisterProtocol(p)
        if not self.protocols and self._closed is not None and not self._closed.called:
            if self._deadline is not None and self._deadline.active():
                self._deadline.cancel()
            self._closed.callback(None)

    def close(self) -> Deferred[None]:
        """End all connections; those that do not read the rest of their data are aborted after two seconds.

        :returns: fires when the last one is gone. No new ones are accepted.
        """
        if self._closed is None:
            if not self.protocols:
                self._closed = succeed(None)
                return succeed(None)
            self._closed = Deferred()
            self._deadline = self._clock.callLater(_CLOSING_SECONDS, self._cut)
            for protocol in list(self.protocols):
                protocol.transport.loseConnection()
        waiter: Deferred[None] = Deferred()

        def closed(result: None) -> None:
            waiter.callback(None)

        self._closed.addCallback(closed)
        return waiter

    def _cut(self) -> None:
        for protocol in list(self.protocols):
            protocol.transport.abortConnection()
