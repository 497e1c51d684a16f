"""The gateway's client in the programs that load and export documents."""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import quote

import treq
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, TimeoutError
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from couchbase.protocol.keyspace import DEFAULT_NAME
from gateway.loader.arguments import password_of

__all__ = [
    "ATTEMPTS",
    "LOST",
    "TRANSIENT_HTTP",
    "Client",
    "Gateway",
    "code_and_message",
    "lost",
    "pause_seconds",
    "refusal",
]

ATTEMPTS = 8
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
REQUEST_SECONDS = 120.0
MOST_CONNECTIONS = 2
LINES = "application/x-ndjson"
TRANSIENT_HTTP = frozenset({408, 429, 502, 503, 504})
LOST = (ConnectError, ConnectionDone, ConnectionLost, ResponseFailed, ResponseNeverReceived, TimeoutError)


class Gateway(Protocol):
    """The methods of a gateway's client that a load needs."""

    def post_batch(self, body: bytes) -> Awaitable[tuple[int, bytes]]:
        """Send one batch; fires with the HTTP status and the whole answer."""

    def put_design(self, name: str, text: bytes) -> Awaitable[tuple[int, bytes]]:
        """Store a design document; fires with the HTTP status and the answer."""


@implementer(IAgent)
class _Uncompressed:
    """Requests uncompressed answers: for a nearby gateway, compression costs more than it saves."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Send a request without the header with which treq asks for compression."""
        if headers is not None:
            headers.removeHeader(b"Accept-Encoding")
        return self._agent.request(method, uri, headers, bodyProducer)


class Client:
    """Sends requests about one bucket, over a few persistent connections.

    :param options: options of :func:`gateway.loader.arguments.add_gateway`.
    """

    def __init__(self, options: argparse.Namespace, reactor: Any) -> None:
        self._bucket = f"{options.url.rstrip('/')}/v1/buckets/{quote(options.bucket, safe='')}"
        place = (options.scope or DEFAULT_NAME, options.collection or DEFAULT_NAME)
        self._batches = f"{self.path_of(*place)}/batch"
        self._pool = pool = HTTPConnectionPool(reactor, persistent=True)
        pool.maxPersistentPerHost = MOST_CONNECTIONS
        auth = (options.user, password_of(options.password_file)) if options.user is not None else None
        agent: Any = _Uncompressed(Agent(reactor, pool=pool))
        self._http = HTTPClient(agent)
        self._options: dict[str, Any] = {"auth": auth, "reactor": reactor}

    def close(self) -> Deferred[None]:
        """Close idle connections."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    def path_of(self, scope: str, collection: str) -> str:
        """Return the prefix of the URLs of a collection's resources."""
        if (scope, collection) == (DEFAULT_NAME, DEFAULT_NAME):
            return self._bucket
        return f"{self._bucket}/scopes/{quote(scope, safe='')}/collections/{quote(collection, safe='')}"

    async def get(self, path: str) -> tuple[int, bytes]:
        """Read a resource of the bucket; fires with the HTTP status and the answer."""
        response = await self._http.get(self._bucket + path, timeout=REQUEST_SECONDS, **self._options)
        return response.code, await treq.content(response)

    async def post_batch(self, body: bytes) -> tuple[int, bytes]:
        """Send one batch; fires with the HTTP status and the whole answer."""
        headers = Headers({"Content-Type": [LINES], "Accept": [LINES]})
        response = await self._http.post(
            self._batches, data=body, headers=headers, timeout=REQUEST_SECONDS, **self._options
        )
        return response.code, await treq.content(response)

    async def put_design(self, name: str, text: bytes) -> tuple[int, bytes]:
        """Store a design document; fires with the HTTP status and the answer."""
        url = f"{self._bucket}/designs/{quote(name, safe='')}"
        headers = Headers({"Content-Type": ["application/json"]})
        response = await self._http.put(
            url, data=text, headers=headers, timeout=REQUEST_SECONDS, **self._options
        )
        return response.code, await treq.content(response)

    async def listing(self, place: tuple[str, str], query: str) -> Any:
        """Begin to read a listing; fires with the response, whose body is not read yet."""
        url = f"{self.path_of(*place)}/documents?{query}"
        # A buffered response would hold the whole body.
        accept = Headers({"Accept": [LINES]})
        return await self._http.get(url, headers=accept, unbuffered=True, **self._options)


def pause_seconds(attempt: int, jitter: Callable[[], float]) -> float:
    """Return the seconds to wait before an attempt; attempts are counted from 1."""
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
    return pause * (0.5 + 0.5 * jitter())


def code_and_message(body: bytes) -> tuple[str, str] | None:
    """Return code and message in the body of a refusal, ``None`` if no gateway wrote the body."""
    try:
        decoded = json.loads(body)
        return str(decoded["code"]), str(decoded["message"])
    except (ValueError, KeyError, TypeError):
        return None


def refusal(status: int, body: bytes) -> str:
    """Return the message for an answer that is a refusal."""
    found = code_and_message(body)
    if found is not None:
        return f"the gateway answered {status} {found[0]}: {found[1]}"
    return f"the gateway answered {status}: {body[:200].decode('utf-8', 'replace')}"


def lost(error: BaseException) -> str:
    """Return the message for a lost connection."""
    reasons = getattr(error, "reasons", None)  # ResponseFailed and similar errors wrap the cause
    return f"the gateway cannot be reached: {reasons[0].value if reasons else error}"
