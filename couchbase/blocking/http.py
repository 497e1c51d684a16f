"""Requests to cluster managers, and the cluster map over HTTP."""

from __future__ import annotations

import http.client
import socket
import time
from base64 import b64encode
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from couchbase import exceptions as rc
from couchbase.exceptions import CouchbaseError
from couchbase.protocol.handshake import Credentials

CONFIG_PATHS = ("/pools/default/bs/", "/pools/default/bucketsStreaming/")
"""The terse configuration, and the verbose one of servers before 2.5."""
MAX_DOCUMENT_BYTES = 20 * 2**20
MAX_BODY_BYTES = 64 * 2**20
_REDIRECTS = (301, 302, 303, 307, 308)


class Response(NamedTuple):
    """An HTTP answer, whole."""

    status: int
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes


def request(
    host: str,
    port: int,
    method: str,
    path: str,
    *,
    credentials: Credentials | None = None,
    tls_context: Any = None,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 75.0,
    redirects: int = 3,
) -> Response:
    """Send a request and return its answer, also of a bad status.

    :param path: with its query, encoded.
    :param redirects: how many are followed, for as long as they stay with this scheme.
    :raises CouchbaseError: NetworkError, UnknownHostError, TimeoutError, ProtocolError, or rc 0x29.
    """
    deadline = time.monotonic() + timeout
    sent = {"Accept": "*/*", **(headers or {}), **authorization(credentials)}
    for _ in range(redirects + 1):
        connection = _connection(host, port, tls_context, deadline)
        try:
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            location = answer.getheader("Location")
            if answer.status in _REDIRECTS and location:
                host, port, path = _redirected(host, port, location)
                continue
            return Response(
                answer.status,
                {name.lower(): value for name, value in answer.getheaders()},
                _read(answer, connection, deadline),
            )
        except (OSError, http.client.HTTPException) as error:
            raise network_error(f"{host}:{port}", error) from error
        finally:
            connection.close()
    raise _error(rc.TOO_MANY_REDIRECTS, f"more than {redirects} redirects")


def fetch_config(
    host: str,
    port: int,
    bucket: str,
    *,
    credentials: Credentials | None,
    tls_context: Any,
    timeout: float,
) -> bytes:
    """Return the first configuration that a node's streaming address sends.

    :raises CouchbaseError: AuthError (401), BucketNotFoundError (404), or what keeps the node away.
    """
    deadline = time.monotonic() + timeout
    status = 0
    for path in CONFIG_PATHS:
        connection = _connection(host, port, tls_context, deadline)
        try:
            connection.request("GET", path + quote(bucket, safe=""), headers=authorization(credentials))
            answer = connection.getresponse()
            status = answer.status
            if status == 200:
                return _first_document(answer, connection, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise network_error(f"{host}:{port}", error) from error
        finally:
            connection.close()
        if status != 404:
            break
    code = {401: rc.AUTH_ERROR, 404: rc.BUCKET_ENOENT}.get(status, rc.NETWORK_ERROR)
    raise _error(code, f"HTTP status {status} for the configuration of bucket {bucket!r} from {host}:{port}")


def authorization(credentials: Credentials | None) -> dict[str, str]:
    """Return the header that carries credentials, if there are any."""
    if credentials is None:
        return {}
    pair = f"{credentials.user}:{credentials.password}".encode()
    return {"Authorization": "Basic " + b64encode(pair).decode()}


def network_error(name: str, error: Exception) -> CouchbaseError:
    """Return a failure of the network, or of HTTP, as the SDK's error."""
    code = rc.NETWORK_ERROR
    if isinstance(error, socket.gaierror):
        code = rc.UNKNOWN_HOST
    elif isinstance(error, socket.timeout):
        code = rc.ETIMEDOUT
    elif isinstance(error, http.client.HTTPException) and not isinstance(
        error, http.client.RemoteDisconnected
    ):
        code = rc.PROTOCOL_ERROR
    made = _error(code, f"cannot get an answer from {name}: {error or type(error).__name__}")
    made.inner_cause = error
    return made


def _connection(host: str, port: int, tls_context: Any, deadline: float) -> Any:
    # A time that is up is the shortest one: 0 would make the socket non-blocking.
    left = max(deadline - time.monotonic(), 0.001)
    if tls_context is not None:
        return http.client.HTTPSConnection(host, port, timeout=left, context=tls_context)
    return http.client.HTTPConnection(host, port, timeout=left)


def _read(answer: Any, connection: Any, deadline: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        if connection.sock is not None:
            connection.sock.settimeout(max(deadline - time.monotonic(), 0.001))
        chunk = answer.read1(1 << 16)
        if not chunk:
            return b"".join(chunks)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise http.client.HTTPException(f"the answer is larger than {MAX_BODY_BYTES} bytes")
        chunks.append(chunk)


def _first_document(answer: Any, connection: Any, deadline: float) -> bytes:
    buffer = b""
    while True:
        document, separator, _ = buffer.partition(b"\n\n\n\n")
        if separator and document.strip():
            return document
        if connection.sock is not None:
            connection.sock.settimeout(max(deadline - time.monotonic(), 0.001))
        chunk = answer.read1(1 << 16)
        if not chunk:
            raise http.client.HTTPException("the stream of configurations ended before the first one")
        buffer += chunk
        if len(buffer) > MAX_DOCUMENT_BYTES:
            raise http.client.HTTPException(f"a configuration is larger than {MAX_DOCUMENT_BYTES} bytes")


def _redirected(host: str, port: int, location: str) -> tuple[str, int, str]:
    try:
        parts = urlsplit(location)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return parts.hostname or host, parts.port or port, path
    except ValueError as error:
        raise http.client.HTTPException(f"a redirect to {location!r}") from error


def _error(code: int, message: str) -> CouchbaseError:
    return CouchbaseError.rc_to_exctype(code)({"rc": code, "message": message})
