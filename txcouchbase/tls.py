"""TLS of Twisted's connections to a cluster: contexts read from files, endpoints, and sessions to resume."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from couchbase.exceptions import ArgumentError
from couchbase.tlsfiles import TlsFiles, mismatch, read_certificates, read_key
from reactor.kinds import IReactor
from reactor.tls.contexts import client_context, reason_of
from reactor.tls.factory import ClientSide, TlsClientEndpoint
from txcouchbase.quiet import node_endpoint

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["TlsPolicy", "WebEndpoints", "certificates", "check_pair"]


class TlsPolicy:
    """TLS settings for connections to the nodes of a cluster.

    :param files: certificates to trust, and the client's own. They are read now; the platform's certificates,
        which stand in for those to trust, when they are needed.
    :raises ArgumentError: a file does not hold the expected PEM, or the key belongs to another certificate.
    """

    def __init__(self, files: TlsFiles = TlsFiles()) -> None:  # noqa: B008  # an immutable tuple
        self._context: ssl.SSLContext | None = None
        # Tickets of a server are for the context that they were issued to.
        self._sessions: dict[tuple[str, int], ssl.SSLSession] = {}
        self.has_certificate = files.certificate is not None
        """Whether the client has its own certificate."""
        if files.trust is not None or self.has_certificate:
            self._context = _context_of(files)

    def wrap(
        self, endpoint: IStreamClientEndpoint, host: str, port: int, reactor: IReactor
    ) -> IStreamClientEndpoint:
        """Return an endpoint that speaks TLS to a host of the cluster.

        :param endpoint: connects to it.
        :param host: name or address, for which its certificate must be.
        """
        if self._context is None:
            self._context = _context_of(TlsFiles())
        side = ClientSide(self._context, host, self._sessions, port)
        return TlsClientEndpoint(endpoint, side, reactor)


@implementer(IAgentEndpointFactory)
class WebEndpoints:
    """Endpoints for HTTP clients, with TLS where the URL says so.

    :param timeout: seconds for a connection to be made.
    """

    def __init__(self, reactor: IReactor, policy: TlsPolicy, timeout: float) -> None:
        self._reactor = reactor
        self._policy = policy
        self._timeout = timeout

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return the endpoint of a URL's server."""
        return _WhenConnecting(partial(self._endpoint, uri.scheme, uri.host, uri.port))

    def _endpoint(self, scheme: bytes, host: bytes, port: int) -> IStreamClientEndpoint:
        endpoint = node_endpoint(self._reactor, host, port, self._timeout)
        if scheme != b"https":
            return endpoint
        return self._policy.wrap(endpoint, host.decode("ascii"), port, self._reactor)


@implementer(IStreamClientEndpoint)
class _WhenConnecting:
    """An endpoint that is made when it is used: most requests have a connection already."""

    def __init__(self, make: Callable[[], IStreamClientEndpoint]) -> None:
        self._make = make

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect."""
        return self._make().connect(protocolFactory)


def _context_of(files: TlsFiles) -> ssl.SSLContext:
    trust = None
    if files.trust is not None:
        certificates(files.trust, "certpath")
        trust = b"\n".join(read_certificates(files.trust, "certpath")).decode("ascii")
    context = client_context(trust)
    if files.certificate is not None and files.key is not None:
        _load_pair(context, files.certificate, files.key)
    return context


def check_pair(certificate: str, key: str, names: tuple[str, str]) -> None:
    """Check that two files are a certificate and its key.

    :param names: of the arguments with them, for the message.
    :raises ArgumentError: a file does not hold the expected PEM, or the key belongs to another certificate.
    """
    _load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, key, names)


def _load_pair(
    context: ssl.SSLContext,
    certificate: str,
    key: str,
    names: tuple[str, str] = ("client_cert", "client_key"),
) -> None:
    certificates(certificate, names[0])
    read_key(key, names[1])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise mismatch(certificate, key, reason_of(error), names) from error


def certificates(path: str, name: str) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, one at least.

    :param name: name of the argument, for the message.
    :raises ArgumentError: it is not such a file.
    """
    # Here, because the driver also runs where cryptography cannot be installed.
    from cryptography import x509

    try:
        return [x509.load_pem_x509_certificate(pem) for pem in read_certificates(path, name)]
    except ValueError as error:
        raise ArgumentError.pyexc(
            f"{name} {path!r} does not contain PEM certificates: {error}", inner=error
        ) from error
