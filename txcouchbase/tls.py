"""Certificates for Twisted's connections, read from files."""

from __future__ import annotations

from typing import Any

from twisted.internet import ssl
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from couchbase.exceptions import ArgumentError
from couchbase.tlsfiles import TlsFiles, mismatch, read_certificates, read_key


@implementer(IPolicyForHTTPS)
class TlsPolicy:
    """TLS settings for connections to the nodes of a cluster.

    :param trust_root: certificates to trust; ``None`` for the platform's.
    :param own: options of ``CertificateOptions`` with the client's certificate; ``None`` if it has none.
    """

    def __init__(self, trust_root: Any = None, own: dict[str, Any] | None = None) -> None:
        self._trust_root = trust_root
        self._own = own

    @property
    def has_certificate(self) -> bool:
        """Whether the client has its own certificate."""
        return self._own is not None

    def options_for(self, host: str) -> Any:
        """Return the options of a TLS connection to a host of the cluster."""
        trust = ssl.platformTrust() if self._trust_root is None else self._trust_root
        # A copy, as Twisted adds to it.
        own = dict(self._own or {})
        return ssl.optionsForClientTLS(host, trustRoot=trust, extraCertificateOptions=own)

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """Return the same for an HTTP client, as its ``IPolicyForHTTPS``."""
        return self.options_for(hostname.decode("ascii"))


def trust_root(path: str) -> Any:
    """Return a trust root of all certificates in a PEM file.

    :raises ArgumentError: it is not such a file.
    """
    return ssl.trustRootFromCertificates([ssl.Certificate(one) for one in certificates(path, "certpath")])


def client_certificate(
    files: TlsFiles, names: tuple[str, str] = ("client_cert", "client_key")
) -> dict[str, Any] | None:
    """Return the options of ``CertificateOptions`` for a client's certificate; ``None`` if it has none.

    :param names: of the arguments with the certificate and the key, for the message.
    :raises ArgumentError: a file does not hold the expected PEM, or the key belongs to another certificate.
    """
    if files.certificate is None or files.key is None:
        return None
    first, *chain = certificates(files.certificate, names[0])
    text = read_key(files.key, names[1])
    try:
        own = ssl.KeyPair.load(text, ssl.SSL.FILETYPE_PEM).original
        options = {"certificate": first, "privateKey": own, "extraCertChain": chain}
        # This checks that they belong together.
        ssl.CertificateOptions(**options).getContext()
    except Exception as error:
        raise mismatch(files.certificate, files.key, _reason(error), names) from error
    return options


def certificates(path: str, name: str) -> list[Any]:
    """Return the certificates of a PEM file as pyOpenSSL's ``X509``, one at least.

    :param name: of the argument, for the message.
    :raises ArgumentError: it is not such a file.
    """
    try:
        return [ssl.Certificate.loadPEM(pem).original for pem in read_certificates(path, name)]
    except ArgumentError:
        raise
    except Exception as error:
        raise ArgumentError.pyexc(
            f"{name} {path!r} does not contain PEM certificates: {_reason(error)}", inner=error
        ) from error


def _reason(error: Exception) -> str:
    """Return OpenSSL's reason."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(entry[-1]) for entry in entries) or str(error)
