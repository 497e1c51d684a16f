"""Contexts of the standard library: which certificates and versions TLS connections have."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["MAXIMUM", "MINIMUM", "client_context", "reason_of", "server_context"]

MINIMUM, MAXIMUM = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.MAXIMUM_SUPPORTED
"""Versions that both sides speak by default."""


def server_context(
    certificate: str | Path,
    key: str | Path,
    *,
    chain: Iterable[bytes] = (),
    protocols: Iterable[str] = (),
    versions: tuple[ssl.TLSVersion, ssl.TLSVersion] = (MINIMUM, MAXIMUM),
    client_ca: str | Path | None = None,
) -> ssl.SSLContext:
    """Return the context of a server.

    It gives tickets, with which clients resume their sessions while the context lives, and refuses
    renegotiation.

    :param certificate: PEM file of its certificate, followed by its chain.
    :param key: PEM file of the private key.
    :param chain: more certificates of the chain, as PEM.
    :param protocols: names for ALPN, in order of preference.
    :param versions: the lowest and the highest version.
    :param client_ca: PEM file of authorities: clients are asked for a certificate, which is optional; a
        certificate of another authority ends the handshake. ``None``: they are not asked.
    :raises OSError: a file cannot be read.
    :raises ssl.SSLError: a file has other content, or the key belongs to another certificate.
    :raises ValueError: the key is encrypted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = versions
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_SINGLE_ECDH_USE
    more = list(chain)
    if more:
        # The module takes files only.
        whole = b"\n".join([Path(certificate).read_bytes(), *more])
        descriptor, path = tempfile.mkstemp(suffix=".pem")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(whole)
            context.load_cert_chain(path, key, _no_passphrase)
        finally:
            os.unlink(path)
    else:
        context.load_cert_chain(certificate, key, _no_passphrase)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    names = list(protocols)
    if names:
        context.set_alpn_protocols(names)
    return context


def _no_passphrase() -> str:
    # Without this OpenSSL asks for it at the terminal, and waits.
    raise ValueError("the private key is encrypted; expected one that needs no passphrase")


def client_context(trust: str | None = None) -> ssl.SSLContext:
    """Return the context of a client that verifies certificate and name of each server.

    :param trust: certificates of the authorities to trust, as PEM; ``None`` for the platform's.
    :raises ssl.SSLError: it has no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = MINIMUM
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.hostname_checks_common_name = False
    if trust is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(cadata=trust)
    return context


def reason_of(error: BaseException) -> str:
    """Return OpenSSL's reason for an error, in words, without its place in OpenSSL's source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    reason = getattr(error, "reason", None)
    if isinstance(error, ssl.SSLError) and reason:
        return str(reason).replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
