"""Endpoint strings with TLS, as Twisted defines them, for this package's TLS."""

from __future__ import annotations

import inspect
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import endpoints
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from zope.interface import implementer

from reactor.tls.contexts import MAXIMUM, MINIMUM, reason_of, server_context
from reactor.tls.factory import LIMITS, ServerSide, TlsFactory, TlsLimits
from reactor.tls.transport import TlsTransport

__all__ = ["EndpointError", "TlsServerEndpoint", "check_authorities", "tls_endpoint"]

_VERSIONS = {
    "TLS_METHOD": (MINIMUM, MAXIMUM),
    "TLS_SERVER_METHOD": (MINIMUM, MAXIMUM),
    "SSLv23_METHOD": (MINIMUM, MAXIMUM),
    "TLSv1_2_METHOD": (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
}
"""Names of ``sslmethod``; the first three mean "the versions that both sides speak"."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----\n.+?\n-----END CERTIFICATE-----", re.DOTALL)


class EndpointError(ValueError):
    """A parameter of an endpoint string cannot be used; the text names it, and says what was expected."""


def tls_endpoint(
    reactor: IReactorTime,
    description: str,
    on_failure: Callable[[TlsTransport, BaseException], bytes | None] | None = None,
    limits: TlsLimits = LIMITS,
    client_ca: str | None = None,
) -> IStreamServerEndpoint | None:
    """Return the endpoint of an ``ssl:`` string, also behind ``haproxy:``; ``None`` for any other string.

    Its parameters are Twisted's: ``port``, ``privateKey`` (``server.pem``), ``certKey`` (as ``privateKey``;
    its further certificates are the chain), ``sslmethod``, ``interface`` (all), ``backlog`` (50),
    ``extraCertChain``, ``dhParameters``. Files are read now.

    :param on_failure: see :class:`reactor.tls.factory.TlsFactory`.
    :param client_ca: see :func:`reactor.tls.contexts.server_context`.
    :raises EndpointError: a file or a method cannot be used.
    :raises TypeError: a parameter is unknown, or the port is missing.
    :raises ValueError: port or backlog is not a number.
    """
    positional, named = endpoints._parse(description)
    wrappers = 0
    while len(positional) > 1 and positional[0].lower() == "haproxy":
        positional = positional[1:]
        wrappers += 1
    if positional[0].lower() != "ssl":
        return None
    bound = inspect.signature(endpoints._parseSSL).bind(None, *positional[1:], **named)
    bound.apply_defaults()
    given = bound.arguments
    port, backlog, interface = int(given["port"]), int(given["backlog"]), given["interface"]
    below = endpoints.TCP4ServerEndpoint(reactor, port, backlog, interface)
    return TlsServerEndpoint(reactor, below, _contexts(given, client_ca), wrappers, on_failure, limits)


def _contexts(given: dict[str, Any], client_ca: str | None) -> Callable[[tuple[str, ...]], ssl.SSLContext]:
    """Return a function that returns the context for the protocols of a factory."""
    key = given["privateKey"]
    certificate = key if given["certKey"] is None else given["certKey"]
    method = given["sslmethod"]
    versions = (MINIMUM, MAXIMUM) if method is None else _VERSIONS.get(method)
    if versions is None:
        raise EndpointError(f"sslmethod={method}: expected one of {', '.join(_VERSIONS)}")
    chain = given["extraCertChain"]
    more = [] if chain is None else _CERTIFICATE.findall(_read(chain, "extraCertChain"))
    if chain is not None and not more:
        raise EndpointError(f"extraCertChain={chain}: it has no certificate; expected PEM")
    parameters = given["dhParameters"]
    if parameters is not None:
        _read(parameters, "dhParameters")
    made: dict[tuple[str, ...], ssl.SSLContext] = {}

    def context_for(protocols: tuple[str, ...]) -> ssl.SSLContext:
        context = made.get(protocols)
        if context is None:
            context = server_context(
                certificate, key, chain=more, protocols=protocols, versions=versions, client_ca=client_ca
            )
            if parameters is not None:
                context.load_dh_params(parameters)
            made[protocols] = context
        return context

    if client_ca is not None:
        check_authorities(client_ca)
    for path, name in ((key, "privateKey"), (certificate, "certKey")):
        _read(path, name)
    try:
        context_for(())
    except (OSError, ValueError) as error:
        raise EndpointError(
            f"privateKey={key}, certKey={certificate}: {reason_of(error)}; expected a private key without a "
            "passphrase, and its certificate, in PEM"
            + ("" if parameters is None else f"; or dhParameters={parameters} are not in PEM")
        ) from error
    return context_for


def check_authorities(path: str) -> None:
    """Check a file of authorities for clients' certificates.

    :raises EndpointError: it cannot be read, or has no certificate.
    """
    _read(path, "client_ca")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except OSError as error:
        raise EndpointError(f"client_ca={path}: {reason_of(error)}; expected certificates in PEM") from error


def _read(path: str, name: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise EndpointError(f"{name}={path}: cannot be read: {error.strerror}") from error


@implementer(IStreamServerEndpoint)
class TlsServerEndpoint:
    """Listens like another endpoint, and speaks TLS.

    :param below: opens the port.
    :param context: see :class:`reactor.tls.factory.ServerSide`.
    :param wrappers: how often the PROXY protocol's header is expected, within TLS.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        below: IStreamServerEndpoint,
        context: Callable[[tuple[str, ...]], ssl.SSLContext],
        wrappers: int = 0,
        on_failure: Callable[[TlsTransport, BaseException], bytes | None] | None = None,
        limits: TlsLimits = LIMITS,
    ) -> None:
        self._reactor = reactor
        self._below = below
        self._context = context
        self._wrappers = wrappers
        self._on_failure = on_failure
        self._limits = limits

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen; fires with the port."""
        factory: Any = protocolFactory
        for _ in range(self._wrappers):
            factory = HAProxyWrappingFactory(factory)
        secure = TlsFactory(ServerSide(self._context), factory, self._reactor, self._limits, self._on_failure)
        listening: Deferred[IListeningPort] = self._below.listen(secure)
        return listening
