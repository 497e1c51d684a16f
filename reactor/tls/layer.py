"""The properties of a TLS connection: the peer's certificate, the negotiated protocol, and the stream
below."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Protocol

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["TlsLayer", "peer_certificate"]


def peer_certificate(transport: object) -> x509.Certificate | None:
    """Return the certificate that the peer of a connection has shown, and that was verified.

    :param transport: of any kind: this package's TLS, Twisted's, or one without TLS, which has none. It may
        be a wrapper that passes ``getPeerCertificate`` on.
    :returns: ``None`` without a certificate, or before the end of the handshake.
    """
    get = getattr(transport, "getPeerCertificate", None)
    certificate: Any = get() if get is not None else None
    if certificate is None:
        return None
    # Here, because the driver also runs where cryptography cannot be installed.
    from cryptography import x509

    if isinstance(certificate, x509.Certificate):
        return certificate
    found: x509.Certificate = certificate.to_cryptography()
    return found


class TlsLayer(Protocol):
    """The part of a transport that only returns properties."""

    transport: Any
    _tls: ssl.SSLObject

    def getPeerCertificate(self) -> x509.Certificate | None:
        """Return the peer's certificate, ``None`` if it has shown none, or not yet.

        It is one of ``cryptography``, not of pyOpenSSL as that of Twisted's TLS, and was verified. Use
        :func:`peer_certificate` for transports of either kind.
        """
        try:
            der = self._tls.getpeercert(binary_form=True)
        except ValueError:
            # The handshake is not done.
            return None
        if der is None:
            return None
        from cryptography import x509

        return x509.load_der_x509_certificate(der)

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """The protocol that both sides have agreed on by ALPN; ``None`` for none, or before that."""
        name = self._tls.selected_alpn_protocol()
        return None if name is None else name.encode()

    @property
    def session(self) -> ssl.SSLObject:
        """The standard library's object: version, cipher, certificates and so on. Only to look at."""
        return self._tls

    def getPeer(self) -> Any:
        """Return the address of the stream's peer."""
        return self.transport.getPeer()

    def getHost(self) -> Any:
        """Return the address of the stream's own end."""
        return self.transport.getHost()

    def getTcpNoDelay(self) -> bool:
        """Return whether small packets are sent at once."""
        return bool(self.transport.getTcpNoDelay())

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Set whether small packets are sent at once, if the stream has such a delay."""
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(enabled)

    def getTcpKeepAlive(self) -> bool:
        """Return whether the kernel looks for a lost peer."""
        return bool(self.transport.getTcpKeepAlive())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Set whether the kernel looks for a lost peer."""
        self.transport.setTcpKeepAlive(enabled)
