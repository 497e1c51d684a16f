"""Detects a client's protocol: negotiated with TLS (ALPN), or known beforehand (RFC 9113 3.3)."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol

from gateway.http.phases import ConnectionPhase

__all__ = ["HTTP1", "HTTP2", "PREFACE", "Opening", "protocol_of"]

HTTP1 = b"http/1.1"
HTTP2 = b"h2"
"""Names of the protocols in TLS (ALPN)."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes from every HTTP/2 client. No HTTP/1.1 request begins with these."""


def protocol_of(transport: Any, data: bytes) -> bytes | None:
    """Return which protocol the client speaks.

    :param data: all bytes that have arrived, at least one.
    :returns: :data:`HTTP1` or :data:`HTTP2`; ``None`` if that is not known yet.
    """
    if ISSLTransport.providedBy(transport):
        # Over TLS without negotiation, the protocol is HTTP/1.1, whatever the bytes look like.
        return HTTP2 if getattr(transport, "negotiatedProtocol", None) == HTTP2 else HTTP1
    if data.startswith(PREFACE):
        return HTTP2
    return None if PREFACE.startswith(data) else HTTP1


class Opening(Protocol):
    """The beginning of a connection: detects the client's protocol from the first bytes.

    Afterwards this costs nothing, as the instance's own ``dataReceived`` is removed then.
    """

    transport: Any
    factory: Any
    phase: ConnectionPhase
    _head = b""
    """Bytes of a head that is not complete yet."""

    def open(self) -> None:
        """Look at the first bytes, if the server speaks more than one protocol."""
        if self.factory.http2 is not None:
            self.dataReceived = self._first_received  # type: ignore[method-assign]

    def _first_received(self, data: bytes) -> None:
        data, self._head = self._head + data, b""
        is_closing = self.phase >= ConnectionPhase.CLOSING
        kind = protocol_of(self.transport, data)
        if kind is None and not is_closing:
            self._head = data
            return
        del self.dataReceived
        if kind == HTTP2 and not is_closing:
            self.phase = ConnectionPhase.CLOSED
            self.factory.http2(self, data)
        else:
            self.dataReceived(data)
