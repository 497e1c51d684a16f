"""Client certificates: the identity of the peer of a TLS connection.

A transport gives its peer's certificate with ``getPeerCertificate()``, as Twisted's transports do. The
listener asks for certificates and checks their chains; see :mod:`gateway.access.clientcerts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

from gateway.access.rights import Identity

__all__ = ["certificate_identity", "peer_certificate"]

_PARTS = (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME)
_KINDS = ((x509.DNSName, "DNS"), (x509.RFC822Name, "email"), (x509.UniformResourceIdentifier, "URI"))


def peer_certificate(transport: Any) -> x509.Certificate | None:
    """Return the peer's certificate, whose chain the listener has checked; ``None`` if it sent none.

    :param transport: its ``getPeerCertificate()`` returns ``None``, DER bytes, a certificate of
        ``cryptography``, or one of pyOpenSSL.
    """
    ask = getattr(transport, "getPeerCertificate", None)
    found = None if ask is None else ask()
    if found is None or isinstance(found, x509.Certificate):
        return found
    if isinstance(found, bytes):
        return x509.load_der_x509_certificate(found)
    converted: x509.Certificate = found.to_cryptography()
    return converted


def certificate_identity(certificate: x509.Certificate) -> Identity:
    """Return a certificate's subject and its alternative names."""
    facts = {("certificate", name) for name in _names(certificate)}
    subject = certificate.subject.rfc4514_string()
    facts.add(("certificate", subject))
    common = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    name = common[0] if len(common) == 1 else subject
    return Identity(
        "certificate", name or f"serial {certificate.serial_number:x}", frozenset(facts), {"name": name}
    )


def _names(certificate: x509.Certificate) -> Iterator[str]:
    for attribute in certificate.subject:
        if attribute.oid in _PARTS:
            # Commas are escaped: otherwise one part could look like a whole subject.
            yield attribute.rfc4514_string()
    try:
        extension = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except (x509.ExtensionNotFound, ValueError):
        return
    assert isinstance(extension.value, x509.SubjectAlternativeName)
    for kind, prefix in _KINDS:
        for value in extension.value.get_values_for_type(kind):
            yield f"{prefix}:{value}"
