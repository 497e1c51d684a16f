"""Certificates for TLS to the cluster: checked at the start, and read again for each connection."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography import x509

from couchbase.exceptions import ArgumentError, CouchbaseError
from couchbase.protocol.connstr import parse_connection_string
from couchbase.tlsfiles import OPTIONS, TlsFiles, tls_files
from txcouchbase.tls import certificates, check_pair

__all__ = ["check_cluster_files"]

_NAMED = {"cluster_ca": "trust", "cluster_cert": "certificate", "cluster_key": "key"}


def check_cluster_files(values: dict[str, Any], refuse: Callable[[str, str], Exception]) -> None:
    """Check ``cluster``, ``cluster_ca``, ``cluster_cert`` and ``cluster_key`` of a gateway's settings.

    Files named in the connection string are moved into the other three.

    :param values: settings by name; changed.
    :param refuse: makes an error from an option's name and a message.
    :raises Exception: made by ``refuse``.
    """
    cluster = values["cluster"]
    try:
        stripped, files = (None, TlsFiles()) if cluster is None else take_files(cluster)
    except CouchbaseError as error:
        raise refuse("cluster", str(error.message)) from None
    values["cluster"] = stripped
    for name, field in _NAMED.items():
        option, named = name.replace("_", "-"), getattr(files, field)
        if values[name] is None:
            values[name] = named
            continue
        if cluster is None:
            raise refuse(option, "it is about a cluster, and none is given: expected --cluster, too")
        if not parse_connection_string(cluster).tls:
            raise refuse(
                option,
                f"it needs TLS, which {cluster!r} does not ask for: expected couchbases:// or https://",
            )
        if named is not None:
            raise refuse(option, "the connection string names such a file, too: give one of them")
    authorities, certificate, key = (values[name] for name in _NAMED)
    if certificate is None and key is not None:
        raise refuse("cluster-key", "it needs --cluster-cert, the certificate of that key")
    if certificate is not None and values["user"] is not None:
        raise refuse("cluster-cert", "the certificate says who the service account is: leave --user out")
    try:
        if authorities is not None:
            option = "cluster-ca"
            check_authorities(authorities)
        if certificate is not None:
            option = "cluster-cert"
            check_own(certificate)
            if key is not None:
                option = "cluster-key"
            values["cluster_key"] = key or certificate
            check_key(certificate, values["cluster_key"])
    except ArgumentError as error:
        raise refuse(option, str(error.message)) from None


def take_files(connection_string: str) -> tuple[str, TlsFiles]:
    """Return a connection string without the options that name files, and these files, as absolute paths.

    :raises ArgumentError: the options contradict each other, or the string does not ask for TLS.
    """
    files = tls_files(parse_connection_string(connection_string))
    rest, _, query = connection_string.partition("?")
    kept = "&".join(part for part in query.split("&") if part.partition("=")[0] not in OPTIONS)
    absolute = [None if path is None else str(Path(path).absolute()) for path in files]
    return f"{rest}?{kept}" if kept else rest, TlsFiles(*absolute)


def check_authorities(path: str) -> None:
    """Refuse a file that has no certificate to trust, or only ones that are not valid now.

    :raises ArgumentError: it names the file and what was expected.
    """
    reasons = [_invalid(one) for one in certificates(path, "file")]
    if all(reasons):
        raise ArgumentError.pyexc(f"file {path!r}: {reasons[0]}; expected a certificate that is valid now")


def check_own(certificate: str) -> None:
    """Refuse a file whose first certificate is not valid now, or that has none.

    :raises ArgumentError: it names the file and what was expected.
    """
    reason = _invalid(certificates(certificate, "file")[0])
    if reason is not None:
        raise ArgumentError.pyexc(f"file {certificate!r}: {reason}; expected a certificate that is valid now")


def check_key(certificate: str, key: str) -> None:
    """Refuse a file that has no private key, or that of another certificate.

    :raises ArgumentError: it names the files and what was expected.
    """
    check_pair(certificate, key, ("certificate", "file"))


def _invalid(certificate: x509.Certificate) -> str | None:
    """Return why a certificate is not valid now; ``None`` if it is."""
    now = datetime.now(timezone.utc)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if ends < now:
        return f"the certificate expired on {ends:%Y-%m-%d %H:%M} UTC"
    if begins > now:
        return f"the certificate is not valid before {begins:%Y-%m-%d %H:%M} UTC"
    return None
