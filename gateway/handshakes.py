"""Handles failed TLS handshakes: logs them, and answers clients that speak HTTP without TLS."""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from gateway.http.encoding import dumps
from gateway.http.refusal import bad_request, explain
from reactor.sparselog import SparseLog
from reactor.tls.contexts import reason_of
from reactor.tls.transport import TlsTransport

__all__ = ["HandshakeLog"]


class HandshakeLog:
    """Logs why handshakes fail, at most ten a minute; see :class:`reactor.tls.factory.TlsFactory`.

    :param clock: the reactor.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._sparse = SparseLog(self._log, clock.seconds)

    def __call__(self, transport: TlsTransport, error: BaseException) -> bytes | None:
        """Log a failure; return an answer for a client that has sent HTTP without TLS."""
        if isinstance(error, (ConnectionDone, ConnectionLost)):
            return None
        is_http = isinstance(error, ssl.SSLError) and error.reason == "HTTP_REQUEST"
        reason = "the client spoke HTTP without TLS" if is_http else reason_of(error)
        peer: Any = transport.getPeer()
        self._sparse.info(
            "TLS handshake with {peer} failed: {reason}",
            peer=getattr(peer, "host", None) or "a local client",
            reason=reason,
        )
        return _answer() if is_http else None


def _answer() -> bytes:
    refusal = bad_request("This port speaks TLS: the URL must begin with https://.")
    body = dumps(explain(refusal).members)
    return (
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        b"Connection: close\r\n\r\n%b" % (len(body), body)
    )
