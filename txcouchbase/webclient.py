"""A small HTTP/1.1 client for the nodes of a cluster: persistent connections, and requests that are repeated.

Twisted's own does the same in ten times the work, most of it for generality that a driver does not need.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.web.client import URI, ResponseNeverReceived

from couchbase.headers import canonical_name
from reactor.clock import cancel_timer
from reactor.kinds import IReactor
from reactor.shutdown import has_ended
from txcouchbase.quiet import POOLED_CONNECTIONS, connect_quietly
from txcouchbase.tls import WebEndpoints
from txcouchbase.webconnection import Answer, WebConnection

__all__ = ["IDLE_SECONDS", "WebClient"]

IDLE_SECONDS = 240.0
"""Seconds after which an idle connection is closed."""

# They may be repeated, unless they have a body: Twisted's client has the same rule.
_REPEATABLE = ("GET", "HEAD", "OPTIONS", "DELETE", "TRACE")
# They say how long their body is, even if there is none.
_SENDING = ("POST", "PUT")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rf"{_TOKEN.pattern} [\x21-\x7e]+")


class WebClient:
    """Sends requests to the nodes of a cluster.

    :param endpoints: where connections are made.
    """

    def __init__(self, reactor: IReactor, endpoints: WebEndpoints) -> None:
        self._reactor: Any = reactor
        self._endpoints = endpoints
        # Idle connections by base URL, that used last at the end.
        self._idle: dict[str, list[WebConnection]] = {}
        self._timer: Any = None
        self._is_closed = False

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, repeats: bool
    ) -> Deferred[Any]:
        """Send a request; fires with the :class:`txcouchbase.webconnection.Answer` when its head has arrived.

        Failures are those of Twisted's Agent. Cancelling closes the connection.

        :param url: of ``http`` or ``https``, with a port.
        :param headers: by name, in any case; those of the connection and the body are added.
        :param repeats: whether to send it once more, on a new connection, if the connection is closed before
            an answer begins. Otherwise it has a connection of its own, and is sent once.
        :raises ValueError: the URL, the method or a header has characters that HTTP does not allow.
        """
        request = _Request(self, method, url, headers, body, repeats)
        request.start()
        return request.done

    def close(self) -> Deferred[Any]:
        """Close the idle connections, and from now on each other one after its answer; fires when those that
        were idle are closed."""
        self._is_closed = True
        cancel_timer(self._timer)
        self._timer = None
        waiting = []
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                closed: Deferred[None] = Deferred()
                connection.closed = closed
                waiting.append(closed)
                # Not loseConnection, which under TLS waits for the node to agree.
                connection.transport.abortConnection()
        return gatherResults(waiting)

    # ---- for requests ----------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        """Whether the reactor has: then no listener is left to notify."""
        return has_ended(self._reactor)

    def idle(self, origin: str) -> WebConnection | None:
        """Return the idle connection to a node that was used last, if there is one."""
        connections = self._idle.get(origin)
        return connections.pop() if connections else None

    def connect(self, origin: str, persistent: bool) -> Deferred[WebConnection]:
        """Return a Deferred of a new connection.

        :param persistent: keep it for other requests.
        """
        endpoint: IStreamClientEndpoint = self._endpoints.endpointForURI(URI.fromBytes(origin.encode()))
        return connect_quietly(endpoint, WebConnection(origin, self if persistent else None))

    # ---- for connections -------------------------------------------------------------------------

    def keep(self, connection: WebConnection) -> None:
        """Keep a connection for the next request."""
        if self._is_closed:
            connection.transport.loseConnection()
            return
        connections = self._idle.setdefault(connection.origin, [])
        if len(connections) >= POOLED_CONNECTIONS:
            connections.pop(0).transport.loseConnection()
        connection.kept_until = self._reactor.seconds() + IDLE_SECONDS
        connections.append(connection)
        if self._timer is None:
            self._timer = self._reactor.callLater(IDLE_SECONDS, self._expire)

    def lost(self, connection: WebConnection) -> None:
        """Forget a connection that was closed."""
        connections = self._idle.get(connection.origin)
        if connections is not None:
            if connection in connections:
                connections.remove(connection)
            if not connections:
                del self._idle[connection.origin]
        if not self._idle:
            cancel_timer(self._timer)
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        left = []
        for origin, connections in list(self._idle.items()):
            while connections and connections[0].kept_until <= now:
                connections.pop(0).transport.loseConnection()
            if connections:
                left.append(connections[0].kept_until - now)
            else:
                del self._idle[origin]
        if left:
            self._timer = self._reactor.callLater(min(left), self._expire)


class _Request:
    """A request until its answer begins: on an idle connection, then on new ones if it was never answered."""

    def __init__(
        self,
        client: WebClient,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        repeats: bool,
    ) -> None:
        self.done: Deferred[Answer] = Deferred(self._cancelled)
        self.data = b""
        self.is_head = method == "HEAD"
        self._client = client
        self._origin, path = _parts(url)
        if _TARGET.fullmatch(target := f"{method} {path}") is None:
            raise ValueError(f"not allowed in HTTP: {target!r}")
        self._line = f"{target} HTTP/1.1\r\n".encode()
        fields = {_spelled(name): text for name, text in headers.items()}
        length = "" if body is None and method not in _SENDING else f"Content-Length: {len(body or b'')}\r\n"
        lines = [f"{name}: {text}" for name, text in fields.items()]
        if not "".join(lines).isprintable():
            lines = [" ".join(line.splitlines()) for line in lines]
        lines.append(_host_field(self._origin))
        # Encoded here, so that what cannot be encoded is refused here, too.
        self._rest = (length + "\r\n".join(lines)).encode() + (body or b"")
        self._is_repeatable = body is None and method in _REPEATABLE
        # What is under way: a connection that is made, or that was written to.
        self._connecting: Deferred[WebConnection] | None = None
        self._connection: WebConnection | None = None
        # Whether the attempt under way is on a connection that was idle; and whether it is the last.
        self._was_idle = False
        self._is_last = not repeats

    def start(self) -> None:
        """Send the request."""
        connection = None if self._is_last else self._client.idle(self._origin)
        if connection is None:
            self._connect()
        else:
            self._was_idle = True
            self._send(connection)

    def _connect(self) -> None:
        self._connecting = connecting = self._client.connect(self._origin, not self._is_last)
        connecting.addCallbacks(self._connected, self._not_connected)

    def _connected(self, connection: WebConnection) -> None:
        self._connecting = None
        self._send(connection)

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        if not self._client.has_ended:
            self.done.errback(failure)

    def _send(self, connection: WebConnection) -> None:
        self._connection = connection
        closing = b"Connection: close\r\n" if self._is_last else b""
        self.data = self._line + closing + self._rest
        connection.send(self)

    def answered(self, answer: Answer) -> None:
        """Take the head of the answer."""
        self._connection = None
        self.done.callback(answer)

    def failed(self, failure: Failure) -> None:
        """Send the request again if it was never answered, or fail."""
        self._connection = None
        if self._client.has_ended:
            return
        reason = failure.value
        if (
            self._is_last
            or not isinstance(reason, ResponseNeverReceived)
            or any(one.check(CancelledError) for one in reason.reasons)
        ):
            self.done.errback(failure)
            return
        # On a connection that was idle only those are repeated that may be, and then once more.
        self._is_last = not (self._was_idle and self._is_repeatable)
        self._was_idle = False
        self._connect()

    def _cancelled(self, _: object) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        elif self._connection is not None:
            self._connection.cancel(Failure(CancelledError()))


def _parts(url: str) -> tuple[str, str]:
    """Return the base of a URL, and what to ask for there."""
    start = url.find("/", 8)
    if start < 0:
        return url, "/"
    path = url[start:].partition("#")[0]
    if path.endswith("?") and path.index("?") == len(path) - 1:
        path = path[:-1]
    return url[:start], path


@lru_cache(maxsize=64)
def _spelled(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"not a header's name: {name!r}")
    return canonical_name(name)


@lru_cache(maxsize=64)
def _host_field(origin: str) -> str:
    """Return the last header of requests to a node, with the end of the head."""
    uri = URI.fromBytes(origin.encode())
    host = uri.host.decode()
    if ":" in host:
        host = f"[{host}]"
    is_default = uri.port == URI.fromBytes(uri.scheme + b"://host").port
    return f"Host: {host}\r\n\r\n" if is_default else f"Host: {host}:{uri.port}\r\n\r\n"
