"""TLS for blocking sockets: a context made from a connection's files."""

from __future__ import annotations

from typing import Any, Callable

from couchbase.exceptions import ArgumentError
from couchbase.tlsfiles import TlsFiles, mismatch, read_certificates, read_key


def tls_context(files: TlsFiles, make: Callable[..., Any]) -> Any:
    """Return an ``SSLContext`` that trusts these certificates, and sends the client's own.

    :param make: makes a context; ``cadata`` are the certificates to trust, by default the platform's.
    :raises ArgumentError: a file cannot be used.
    """
    if files.trust is None:
        context = make()
    else:
        text = b"\n".join(read_certificates(files.trust, "certpath")).decode("ascii", "replace")
        try:
            context = make(cadata=text)
        except (OSError, ValueError) as error:
            raise ArgumentError.pyexc(
                f"certpath {files.trust!r} is not a PEM certificate: {error}", inner=error
            ) from error
    if files.certificate is not None and files.key is not None:
        read_certificates(files.certificate, "client_cert")
        read_key(files.key, "client_key")
        try:
            context.load_cert_chain(files.certificate, files.key)
        except (OSError, ValueError) as error:
            raise mismatch(files.certificate, files.key, error) from error
    return context
