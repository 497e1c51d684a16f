"""TLS on the ports of a node: its certificate, and who a client's certificate stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer

MAX_FILE_BYTES = 2**20
"""Longest file of certificates or of a key."""

_PATHS = ("subject.cn", "san.uri", "san.dnsname", "san.email")
_BEGINNING = b"-----BEGIN CERTIFICATE-----"
_END = b"-----END CERTIFICATE-----"


class TlsError(Exception):
    """A file of certificates cannot be used; the text names the option and the file, and says why."""


class UserRule(NamedTuple):
    """How to find a user's name in a client's certificate.

    :ivar path: ``subject.cn``, ``san.uri``, ``san.dnsname`` or ``san.email``.
    :ivar prefix: only a name that begins with this counts, without it.
    :ivar delimiter: the name ends before the first of these characters.
    """

    path: str
    prefix: str = ""
    delimiter: str = ""

    @classmethod
    def parse(cls, text: str) -> UserRule:
        """Read ``PATH[,PREFIX[,DELIMITER]]``.

        :raises ValueError: it is something else.
        """
        path, _, rest = text.partition(",")
        if path not in _PATHS:
            raise ValueError(f"the part of a certificate is one of {', '.join(_PATHS)}, not {path!r}")
        prefix, _, delimiter = rest.partition(",")
        return cls(path, prefix, delimiter)

    def name_in(self, certificate: x509.Certificate) -> str | None:
        """Return the user's name; ``None`` if this part of the certificate has none."""
        for text in _texts(certificate, self.path):
            if text.startswith(self.prefix):
                name = text[len(self.prefix) :]
                cut = min((at for one in self.delimiter if (at := name.find(one)) >= 0), default=len(name))
                return name[:cut] or None
        return None


BY_COMMON_NAME = (UserRule("subject.cn"),)


@implementer(IOpenSSLContextFactory)
class NodeTls:
    """The certificate of a node, and the clients' certificates that it accepts, from PEM files.

    :param certificate: file of the node's certificate, and its chain behind it.
    :param key: file of its private key.
    :param client_ca: file of the authorities whose certificates clients may present in place of a password;
        ``None``: clients present none.
    :param rules: how to find the user in such a certificate; the first that finds a name counts.
    :param rest_port, kv_port: 0 for any free ones; else node i listens on port + i.
    :raises TlsError: see :meth:`reload`.
    """

    def __init__(
        self,
        certificate: str | Path,
        key: str | Path,
        client_ca: str | Path | None = None,
        rules: Sequence[UserRule] = BY_COMMON_NAME,
        rest_port: int = 0,
        kv_port: int = 0,
    ) -> None:
        self.first_ports = rest_port, kv_port
        self.rules = tuple(rules)
        self.accepts_certificates = client_ca is not None
        self._files = Path(certificate), Path(key), None if client_ca is None else Path(client_ca)
        self._context: SSL.Context
        self.reload()

    def reload(self) -> None:
        """Read the files again, for new connections; open ones are not affected.

        :raises TlsError: a file cannot be used; the earlier content stays in force.
        """
        certificate, key, authorities = self._files
        first, *chain = _certificates(certificate, "--tls-cert")
        private = _private_key(key)
        try:
            options = ssl.CertificateOptions(certificate=first, privateKey=private, extraCertChain=chain)
            context: SSL.Context = options.getContext()
            context.check_privatekey()
        except (SSL.Error, ValueError) as fault:
            raise TlsError(
                f"--tls-key {key}: it is not the key of the certificate in {certificate}: {_reason(fault)}"
            ) from fault
        if authorities is not None:
            _ask_clients(context, _certificates(authorities, "--tls-client-ca"))
        self._context = context

    def getContext(self) -> SSL.Context:
        """Twisted: return the context of a new connection."""
        return self._context

    def user_of(self, transport: Any) -> str | None:
        """Return the name of the user whose certificate the peer has presented; ``None`` without one.

        An empty string is a certificate in which no rule finds a name. A transport without TLS has none.
        """
        certificate = peer_certificate(transport)
        if certificate is None:
            return None
        for rule in self.rules:
            name = rule.name_in(certificate)
            if name is not None:
                return name
        return ""


def peer_certificate(transport: Any) -> x509.Certificate | None:
    """Return the certificate that the peer of a connection has presented; it was verified then."""
    get = getattr(transport, "getPeerCertificate", None)
    certificate = get() if get is not None else None
    return None if certificate is None else certificate.to_cryptography()


def _ask_clients(context: SSL.Context, authorities: list[crypto.X509]) -> None:
    """Accept certificates of these authorities; clients may present none."""

    def verified(connection: Any, certificate: Any, error: int, depth: int, fine: int) -> bool:
        return bool(fine)

    store = context.get_cert_store()
    assert store is not None
    for authority in authorities:
        store.add_cert(authority)
        context.add_client_ca(authority)
    context.set_verify(SSL.VERIFY_PEER, verified)
    # Without a name for its sessions OpenSSL resumes none that has a client's certificate, and fails.
    context.set_session_id(b"couchnode")


def _certificates(path: Path, option: str) -> list[crypto.X509]:
    """Return the certificates of a PEM file, one at least.

    :raises TlsError: it cannot be read, has none, or one that is no certificate.
    """
    data = _read(path, option)
    found = []
    try:
        for part in data.split(_BEGINNING)[1:]:
            pem = _BEGINNING + part.partition(_END)[0] + _END + b"\n"
            found.append(crypto.load_certificate(crypto.FILETYPE_PEM, pem))
    except (crypto.Error, ValueError) as fault:
        raise TlsError(f"{option} {path}: it has a certificate that is not PEM: {_reason(fault)}") from fault
    if not found:
        raise TlsError(f"{option} {path}: it has no certificate; expected PEM, {_BEGINNING.decode()}")
    return found


def _private_key(path: Path) -> crypto.PKey:
    def no_passphrase(*_: object) -> bytes:
        raise TlsError(f"--tls-key {path}: the key is encrypted; expected one that needs no passphrase")

    try:
        return crypto.load_privatekey(crypto.FILETYPE_PEM, _read(path, "--tls-key"), no_passphrase)
    except (crypto.Error, ValueError, TypeError) as fault:
        raise TlsError(f"--tls-key {path}: it has no private key in PEM: {_reason(fault)}") from fault


def _read(path: Path, option: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as fault:
        raise TlsError(f"{option} {path}: cannot be read: {fault.strerror or fault}") from fault
    if len(data) > MAX_FILE_BYTES:
        raise TlsError(f"{option} {path}: is longer than {MAX_FILE_BYTES} bytes; expected PEM")
    return data


def _reason(fault: Exception) -> str:
    """Return OpenSSL's reason, which comes as a list."""
    entries = fault.args[0] if fault.args and isinstance(fault.args[0], list) else []
    return "; ".join(str(entry[-1]) for entry in entries) or str(fault)


def _texts(certificate: x509.Certificate, path: str) -> list[str]:
    """Return what a certificate has in one of its parts."""
    if path == "subject.cn":
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return [str(name.value) for name in names]
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    kinds: dict[str, type[x509.GeneralName]] = {
        "san.uri": x509.UniformResourceIdentifier,
        "san.dnsname": x509.DNSName,
        "san.email": x509.RFC822Name,
    }
    return [str(name.value) for name in found if isinstance(name, kinds[path])]
