"""The certificate files of a connection: their names in options, and checks of their content."""

from __future__ import annotations

import re
from typing import NamedTuple

from couchbase.exceptions import ArgumentError, CouchbaseError
from couchbase.protocol.connstr import Address

OPTIONS = frozenset({"certpath", "keypath", "truststorepath", "client_cert", "client_key"})
"""Options of a connection string that name files."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: *4, *ENCRYPTED", re.MULTILINE)
# The first bytes of a certificate or key in DER: a long ASN.1 sequence.
_DER = re.compile(rb"\x30[\x81-\x83]")
MAX_FILE_BYTES = 16 * 2**20


class TlsFiles(NamedTuple):
    """Paths of PEM files; ``None`` for files that were not given."""

    trust: str | None = None
    """Certificates to trust; ``None`` for the platform's."""
    certificate: str | None = None
    """The client's own certificate, followed by its chain."""
    key: str | None = None
    """The private key of that certificate, which is required then."""


def tls_files(
    address: Address,
    *,
    certpath: str | None = None,
    client_cert: str | None = None,
    client_key: str | None = None,
    password: str | None = None,
) -> TlsFiles:
    """Return the files of a connection, by its arguments and the options of its connection string.

    Options may have the names of this SDK (``client_cert``, ``client_key``) or those of libcouchbase:
    ``truststorepath`` names the certificates to trust; ``certpath`` with ``keypath`` the client's certificate
    and its key, and without ``keypath`` the certificates to trust. If ``keypath`` is given without
    ``truststorepath``, the certificates in ``certpath`` are also the ones to trust.

    :param address: its options are used if an argument is ``None``.
    :raises ArgumentError: a key without a certificate, two files for the same purpose, files without TLS, or
        both a certificate and a password.
    """
    options = address.options
    trust, keypath = options.get("truststorepath"), options.get("keypath")
    if keypath is None:
        if trust is not None and "certpath" in options:
            raise ArgumentError.pyexc(
                "certpath without keypath has the same meaning as truststorepath: give one of them"
            )
        trust = trust or options.get("certpath")
        certificate, key = options.get("client_cert"), options.get("client_key")
    else:
        certificate, key = options.get("certpath"), keypath
        if certificate is None:
            raise ArgumentError.pyexc("keypath needs certpath, the certificate of that key")
        if "client_cert" in options or "client_key" in options:
            raise ArgumentError.pyexc(
                "certpath and keypath have the same meaning as client_cert and client_key: give one pair"
            )
        trust = trust or certificate
    trust = certpath or trust
    certificate = client_cert or certificate
    key = client_key or key or certificate
    if certificate is None and key is not None:
        raise ArgumentError.pyexc("client_key needs client_cert, the certificate of that key")
    if not address.tls and (trust or certificate):
        name = "client_cert" if certificate else "certpath"
        raise ArgumentError.pyexc(
            f"{name} needs TLS: a connection string that begins with couchbases:// or https://"
        )
    if certificate and password:
        raise ArgumentError.pyexc("client_cert replaces a password: give one of them")
    return TlsFiles(trust, certificate, key)


def read_certificates(path: str, name: str) -> list[bytes]:
    """Return the certificates of a PEM file, at least one, each as PEM.

    :param name: name of the argument, for the message.
    :raises ArgumentError: the file cannot be read, or has none.
    """
    data = _read(path, name, "a PEM file of certificates")
    found = _CERTIFICATE.findall(data)
    if not found:
        hint = ""
        if _DER.match(data):
            hint = "; it looks like DER: convert it with openssl x509 -inform der"
        elif _KEY.search(data):
            hint = "; it holds a private key"
        raise ArgumentError.pyexc(
            f"{name} {path!r} has no certificate: expected PEM, -----BEGIN CERTIFICATE-----{hint}"
        )
    return found


def read_key(path: str, name: str) -> bytes:
    """Return the content of a PEM file with a private key that needs no passphrase.

    :param name: name of the argument, for the message.
    :raises ArgumentError: the file cannot be read, or has none.
    """
    data = _read(path, name, "a PEM file of a private key")
    if not _KEY.search(data):
        hint = "; it looks like DER: convert it with openssl pkey -inform der" if _DER.match(data) else ""
        raise ArgumentError.pyexc(
            f"{name} {path!r} has no private key: expected PEM, such as -----BEGIN PRIVATE KEY-----{hint}"
        )
    if _ENCRYPTED.search(data):
        # OpenSSL would ask for the passphrase at the terminal, and wait.
        raise ArgumentError.pyexc(
            f"{name} {path!r} has an encrypted private key: expected one in PEM that needs no passphrase"
        )
    return data


def mismatch(
    certificate: str, key: str, reason: object, names: tuple[str, str] = ("client_cert", "client_key")
) -> CouchbaseError:
    """Return the error for a certificate and a key that cannot be used together.

    :param names: of their arguments, for the message.
    """
    return ArgumentError.pyexc(
        f"{names[0]} {certificate!r} and {names[1]} {key!r} are not a certificate and its key, in PEM: "
        f"{reason}"
    )


def _read(path: str, name: str, expected: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArgumentError.pyexc(
            f"{name} {path!r} cannot be read: {reason}; expected {expected}", inner=error
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise ArgumentError.pyexc(f"{name} {path!r} is too long: expected {expected}")
    return data
