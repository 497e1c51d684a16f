"""The cluster map over HTTP, for clusters that do not send it over the key-value protocol."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Generator
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.clustermap import split_stream
from reactor.clock import cancel_timer
from txcouchbase.http import abort
from txcouchbase.quiet import QuietPool
from txcouchbase.tls import WebEndpoints

MAX_DOCUMENT_BYTES = 20 * 2**20
PATHS = ("/pools/default/bs/", "/pools/default/bucketsStreaming/")
"""Paths of the terse configuration, and of the verbose one of servers before 2.5."""
CLUSTER_PATHS = (
    "/pools/default/nodeServicesStreaming",
    "/pools/default/nodeServices",
    "/pools/default",
)
"""Paths without a bucket: the nodes of the cluster, streamed or once, and the one that every server has."""
AGAIN_SECONDS = 1.0
"""Seconds after which a stream that ended is opened again."""
ONCE_SECONDS = 10.0
"""Seconds between two requests for the nodes if they are not streamed."""


class ForbiddenError(Exception):
    """The user may not see the nodes of the cluster, but may use it."""


class ConfigStream:
    """Listens to the streamed configuration of a bucket, or of the cluster if the client has none, on one
    node.

    :param client: the :class:`txcouchbase.cluster.ClusterClient` to connect for.
    :param received: called with each document and the host that sent it.
    """

    def __init__(self, client: Any, host: str, port: int, received: Callable[[bytes, str], None]) -> None:
        self._client = client
        self._host = host
        self._port = port
        self._received = received
        self._stopped = False
        self._pause = AGAIN_SECONDS
        self._timer: Any = None
        self._reader: _StreamReader | None = None

    @inlineCallbacks
    def start(self) -> Generator[Any, Any, None]:
        """Connect; fires when the first document was received.

        :raises CouchbaseError: AuthError (401), BucketNotFoundError (404), NetworkError.
        :raises ForbiddenError: without a bucket, the user may not see the nodes (HTTP 403).
        """
        try:
            yield self._open()
        except BaseException:
            self.stop()
            raise

    @inlineCallbacks
    def _open(self) -> Generator[Any, Any, None]:
        bucket = self._client.bucket
        for path in CLUSTER_PATHS if bucket is None else PATHS:
            response = yield self._agent().request(b"GET", self._url(path), Headers(self._headers()))
            if response.code == 200:
                if bucket is None and path != CLUSTER_PATHS[0]:
                    self._pause = ONCE_SECONDS
                self._reader = _StreamReader(self._deliver)
                self._reader.ended.addCallback(self._ended)
                response.deliverBody(self._reader)
                yield self._reader.first
                return
            response.deliverBody(_Discarded())
            if response.code != 404:
                break
        if bucket is None:
            if response.code == 403:
                raise ForbiddenError
            code = exceptions.AUTH_ERROR if response.code == 401 else exceptions.NETWORK_ERROR
            raise error_of(code, f"HTTP {response.code} for the nodes of the cluster")
        code = {401: exceptions.AUTH_ERROR, 404: exceptions.BUCKET_ENOENT}.get(
            response.code, exceptions.NETWORK_ERROR
        )
        raise error_of(code, f"HTTP {response.code} for bucket {bucket!r}")

    def stop(self) -> None:
        """Close the stream."""
        self._stopped = True
        cancel_timer(self._timer)
        self._timer = None
        if self._reader is not None and self._reader.transport is not None:
            self._reader.transport.loseConnection()

    def _agent(self) -> Any:
        pool = QuietPool(self._client.reactor, False)
        client = self._client
        endpoints = WebEndpoints(client.reactor, client.tls_policy, 2.0)
        return Agent.usingEndpointFactory(client.reactor, endpoints, pool)

    def _url(self, path: str) -> bytes:
        scheme = "https" if self._client.tls else "http"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self._port}{path}{quote(self._client.bucket or '', safe='')}".encode()

    def _headers(self) -> dict[str, list[str]]:
        credentials = self._client.credentials
        if credentials is None:
            return {}
        pair = b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()
        return {"Authorization": [f"Basic {pair}"]}

    def _deliver(self, document: bytes) -> None:
        self._received(document, self._host)

    def _ended(self, _: object) -> None:
        # Another node may still stream: the client asks its seeds again.
        if not self._stopped and not self._client.closed:
            self._timer = self._client.reactor.callLater(self._pause, self._again)

    def _again(self) -> None:
        self._timer = None
        if not self._stopped and not self._client.closed:
            self._client.bootstrap().addErrback(self._ended)


class _Discarded(Protocol):
    """A body that is discarded."""

    def connectionMade(self) -> None:
        abort(self.transport)


class _StreamReader(Protocol):
    def __init__(self, deliver: Callable[[bytes], None]) -> None:
        self._deliver = deliver
        self._rest = b""
        self.first: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        documents, self._rest = split_stream(self._rest + data)
        if len(self._rest) > MAX_DOCUMENT_BYTES:
            assert self.transport is not None
            self.transport.loseConnection()
            return
        for document in documents:
            self._take(document)

    def _take(self, document: bytes) -> None:
        try:
            self._deliver(document)
        except CouchbaseError as error:
            if not self.first.called:
                self.first.errback(error)
        else:
            if not self.first.called:
                self.first.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.first.called and reason.check(ResponseDone, PotentialDataLoss) and self._rest.strip():
            # The answer is not a stream, but the document itself.
            self._take(self._rest)
        if not self.first.called:
            self.first.errback(reason)
        self.ended.callback(None)
