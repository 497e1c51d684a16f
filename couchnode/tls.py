"""TLS on the ports of a node: its certificate, and the users of clients' certificates."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from reactor.tls.contexts import reason_of, server_context
from reactor.tls.layer import peer_certificate

MAX_FILE_BYTES = 2**20
"""Largest certificate file or key file, in bytes."""

_PATHS = ("subject.cn", "san.uri", "san.dnsname", "san.email")
_BEGINNING = b"-----BEGIN CERTIFICATE-----"
_END = b"-----END CERTIFICATE-----"


class TlsError(Exception):
    """A certificate file cannot be used; the text names the option, the file and the reason."""


class UserRule(NamedTuple):
    """How to find a user's name in a client's certificate.

    :ivar path: ``subject.cn``, ``san.uri``, ``san.dnsname`` or ``san.email``.
    :ivar prefix: a name counts only if it begins with this prefix, which is removed.
    :ivar delimiter: the name ends before the first of these characters.
    """

    path: str
    prefix: str = ""
    delimiter: str = ""

    @classmethod
    def parse(cls, text: str) -> UserRule:
        """Read ``PATH[,PREFIX[,DELIMITER]]``.

        :raises ValueError: the text has another form.
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


class NodeTls:
    """The certificate of a node, and the clients' certificates that it accepts, from PEM files.

    :param certificate: file of the node's certificate, followed by its chain.
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
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}
        self.reload()

    def reload(self) -> None:
        """Read the files again, for new connections; open ones are not affected.

        :raises TlsError: a file cannot be used; the earlier content stays in effect.
        """
        self._contexts = {protocols: self._made(protocols) for protocols in (*self._contexts, ())}

    def context(self, protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
        """Return the context of a new connection.

        :param protocols: for ALPN.
        """
        context = self._contexts.get(protocols)
        if context is None:
            context = self._contexts[protocols] = self._made(protocols)
        return context

    def _made(self, protocols: tuple[str, ...]) -> ssl.SSLContext:
        certificate, key, authorities = self._files
        _check_certificates(certificate, "--tls-cert")
        _check_key(key)
        if authorities is not None:
            _check_certificates(authorities, "--tls-client-ca")
        try:
            return server_context(certificate, key, protocols=protocols, client_ca=authorities)
        except (OSError, ValueError) as fault:
            raise TlsError(
                f"--tls-key {key}: it is not the key of the certificate in {certificate}: {reason_of(fault)}"
            ) from fault

    def authority_pem(self) -> bytes:
        """Return the certificate that clients trust, as PEM: the last of the chain.

        :raises TlsError: the file cannot be used any more.
        """
        _check_certificates(self._files[0], "--tls-cert")
        data = _read(self._files[0], "--tls-cert")
        return _BEGINNING + data.rpartition(_BEGINNING)[2].partition(_END)[0] + _END + b"\n"

    def user_of(self, transport: Any) -> str | None:
        """Return the name of the user whose certificate the peer has presented; ``None`` without one.

        The name is empty if no rule finds one in the certificate. A transport without TLS has no certificate.
        """
        certificate = peer_certificate(transport)
        if certificate is None:
            return None
        for rule in self.rules:
            name = rule.name_in(certificate)
            if name is not None:
                return name
        return ""


def _check_certificates(path: Path, option: str) -> None:
    """Check that a PEM file has at least one certificate, and that all its certificates are valid.

    :raises TlsError: the file cannot be read, or has no certificate, or an invalid one.
    """
    data = _read(path, option)
    found = data.split(_BEGINNING)[1:]
    try:
        for part in found:
            x509.load_pem_x509_certificate(_BEGINNING + part.partition(_END)[0] + _END + b"\n")
    except ValueError as fault:
        raise TlsError(f"{option} {path}: it has a certificate that is not PEM: {fault}") from fault
    if not found:
        raise TlsError(f"{option} {path}: it has no certificate; expected PEM, {_BEGINNING.decode()}")


def _check_key(path: Path) -> None:
    try:
        load_pem_private_key(_read(path, "--tls-key"), None)
    except TypeError as fault:
        raise TlsError(
            f"--tls-key {path}: the key is encrypted; expected one that needs no passphrase"
        ) from fault
    except ValueError as fault:
        raise TlsError(f"--tls-key {path}: it has no private key in PEM: {fault}") from fault


def _read(path: Path, option: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as fault:
        raise TlsError(f"{option} {path}: cannot be read: {fault.strerror or fault}") from fault
    if len(data) > MAX_FILE_BYTES:
        raise TlsError(f"{option} {path}: is longer than {MAX_FILE_BYTES} bytes; expected PEM")
    return data


def _texts(certificate: x509.Certificate, path: str) -> list[str]:
    """Return the names in one part of a certificate."""
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
