"""Requests to cluster managers, and the cluster map over HTTP."""

from __future__ import annotations

import http.client
import socket
import time
from base64 import b64encode
from typing import Any, Callable, NamedTuple
from urllib.parse import quote, urlsplit

from couchbase import exceptions, transcoder
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.headers import Headers
from couchbase.protocol.handshake import Credentials
from couchbase.protocol.version import VERSION
from couchbase.user_constants import FMT_BYTES, FMT_UTF8

CONFIG_PATHS = ("/pools/default/bs/", "/pools/default/bucketsStreaming/")
"""Paths of the terse configuration, and of the verbose one of servers before 2.5."""
MAX_DOCUMENT_BYTES = 20 * 2**20
MAX_BODY_BYTES = 64 * 2**20
READ_BYTES = 1 << 18
# Shortest timeout in seconds, used when no time is left: 0 would make a socket non-blocking.
_SHORTEST = 0.001
_REDIRECTS = (301, 302, 303, 307, 308)


class Target(NamedTuple):
    """Address and credentials of a request."""

    host: str
    port: int
    credentials: Credentials | None = None
    tls_context: Any = None
    connector: Callable[[Target, float], http.client.HTTPConnection] | None = None
    """Opens the connection, given the target and a timeout in seconds; by default with plain sockets."""

    @property
    def name(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"


class Response(NamedTuple):
    """A complete HTTP answer."""

    status: int
    headers: Headers
    body: bytes


class Stream:
    """An HTTP answer whose body is read piece by piece. Its creator must close it.

    :param target: address and credentials.
    :param method: ``"GET"``, ``"POST"`` ...
    :param path: with its query, encoded.
    :param timeout: seconds until the answer begins.
    :raises CouchbaseError: NetworkError, UnknownHostError, TimeoutError or ProtocolError.
    """

    def __init__(
        self,
        target: Target,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 75.0,
    ) -> None:
        self._target = target
        deadline = time.monotonic() + timeout
        self._connection = _connection(target, deadline)
        sent = {
            "Accept": "*/*",
            "Connection": "close",
            "User-Agent": f"couchbase-blocking/{VERSION}",
            **(headers or {}),
            **authorization(target.credentials),
        }
        try:
            self._connection.request(method, path, body=body, headers=sent)
            # Keep the socket: the connection drops it if the answer ends with the socket.
            self._sock = self._connection.sock
            self._answer = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise network_error(target, error) from error
        except BaseException:
            self.close()
            raise
        self.status: int = self._answer.status
        # Remaining bytes, if known: before Python 3.12 read1 does not count them.
        self._left: int | None = self._answer.length
        self.headers = Headers(self._answer.getheaders())

    def read(self, deadline: float) -> bytes:
        """Return some bytes of the body; empty at its end.

        :param deadline: a time of ``time.monotonic``.
        :raises CouchbaseError: TimeoutError, NetworkError or ProtocolError.
        """
        try:
            if self._sock.fileno() >= 0:
                self._sock.settimeout(max(deadline - time.monotonic(), _SHORTEST))
            if self._left == 0:
                return b""
            chunk = bytes(self._answer.read1(READ_BYTES))
        except (OSError, http.client.HTTPException) as error:
            raise network_error(self._target, error) from error
        if self._left is not None:
            if not chunk:
                raise network_error(
                    self._target, OSError(f"the answer was cut off; {self._left} bytes are missing")
                )
            self._left -= len(chunk)
        return chunk

    def rest(self, deadline: float) -> bytes:
        """Return the rest of the body.

        :raises CouchbaseError: like :meth:`read`; also ProtocolError if the body is too long.
        """
        chunks: list[bytes] = []
        size = 0
        while True:
            chunk = self.read(deadline)
            if not chunk:
                return b"".join(chunks)
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise error_of(exceptions.PROTOCOL_ERROR, f"an answer is larger than {MAX_BODY_BYTES} bytes")
            chunks.append(chunk)

    def close(self) -> None:
        """Close the connection; the unread rest is dropped."""
        answer = getattr(self, "_answer", None)
        if answer is not None:
            answer.close()
        self._connection.close()


def request(
    target: Target,
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 75.0,
    redirects: int = 3,
) -> Response:
    """Send a request and return its answer, whatever its status.

    :param path: with its query, encoded.
    :param redirects: largest number of redirects to follow, with the same scheme and credentials.
    :raises CouchbaseError: NetworkError, UnknownHostError, TimeoutError, ProtocolError, or rc 0x29.
    """
    deadline = time.monotonic() + timeout
    for _ in range(redirects + 1):
        left = max(deadline - time.monotonic(), _SHORTEST)
        stream = Stream(target, method, path, body=body, headers=headers, timeout=left)
        try:
            location = stream.headers.get("Location")
            if stream.status in _REDIRECTS and location:
                target, path = _redirected(target, location)
                continue
            return Response(stream.status, stream.headers, stream.rest(deadline))
        finally:
            stream.close()
    raise error_of(exceptions.TOO_MANY_REDIRECTS, f"more than {redirects} redirects")


def fetch_config(target: Target, bucket: str, timeout: float) -> bytes:
    """Return the first configuration that a node's streaming URL sends.

    :raises CouchbaseError: AuthError (401), BucketNotFoundError (404), or the reason why the node cannot be
        reached.
    """
    deadline = time.monotonic() + timeout
    status = 0
    for path in CONFIG_PATHS:
        left = max(deadline - time.monotonic(), _SHORTEST)
        stream = Stream(target, "GET", path + quote(bucket, safe=""), timeout=left)
        try:
            status = stream.status
            if status == 200:
                return _first_document(stream, deadline)
        finally:
            stream.close()
        if status != 404:
            break
    code = {401: exceptions.AUTH_ERROR, 404: exceptions.BUCKET_ENOENT}.get(status, exceptions.NETWORK_ERROR)
    raise error_of(
        code, f"HTTP status {status} for the configuration of bucket {bucket!r} from {target.name}"
    )


def authorization(credentials: Credentials | None) -> dict[str, str]:
    """Return the header with the credentials, if there are any."""
    if credentials is None:
        return {}
    pair = f"{credentials.user}:{credentials.password}".encode()
    return {"Authorization": "Basic " + b64encode(pair).decode()}


def decode_body(body: bytes, response_format: int) -> Any:
    """Return the body of an answer as the value of an HttpResult.

    :param response_format: ``FMT_JSON``, ``FMT_UTF8`` or ``FMT_BYTES``.
    """
    if response_format == FMT_BYTES:
        return body
    text = body.decode("utf-8", "replace")
    if response_format == FMT_UTF8:
        return text
    try:
        return transcoder.decode_json(text)
    except (ValueError, RecursionError):
        return text


def network_error(target: Target, error: Exception) -> CouchbaseError:
    """Return the SDK's error for a failure of the network or of HTTP."""
    code = exceptions.NETWORK_ERROR
    if isinstance(error, socket.gaierror):
        code = exceptions.UNKNOWN_HOST
    elif isinstance(error, socket.timeout):
        code = exceptions.ETIMEDOUT
    elif isinstance(error, http.client.HTTPException) and not isinstance(
        error, (http.client.RemoteDisconnected, http.client.IncompleteRead)
    ):
        code = exceptions.PROTOCOL_ERROR
    made = error_of(code, f"cannot get an answer from {target.name}: {error or type(error).__name__}")
    made.inner_cause = error
    return made


def _connection(target: Target, deadline: float) -> Any:
    left = max(deadline - time.monotonic(), _SHORTEST)
    if target.connector is not None:
        return target.connector(target, left)
    if target.tls_context is not None:
        return http.client.HTTPSConnection(target.host, target.port, timeout=left, context=target.tls_context)
    return http.client.HTTPConnection(target.host, target.port, timeout=left)


def _first_document(stream: Stream, deadline: float) -> bytes:
    buffer = b""
    while True:
        document, separator, _ = buffer.partition(b"\n\n\n\n")
        if separator and document.strip():
            return document
        chunk = stream.read(deadline)
        if not chunk:
            raise error_of(
                exceptions.PROTOCOL_ERROR, "the stream of configurations ended before the first one"
            )
        buffer += chunk
        if len(buffer) > MAX_DOCUMENT_BYTES:
            raise error_of(
                exceptions.PROTOCOL_ERROR, f"a configuration is larger than {MAX_DOCUMENT_BYTES} bytes"
            )


def _redirected(target: Target, location: str) -> tuple[Target, str]:
    try:
        parts = urlsplit(location)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return target._replace(host=parts.hostname or target.host, port=parts.port or target.port), path
    except ValueError as error:
        raise error_of(exceptions.PROTOCOL_ERROR, f"a redirect to {location!r}") from error
