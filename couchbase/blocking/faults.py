"""SDK errors for nodes and clusters that cannot be reached."""

from __future__ import annotations

import ssl

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.strangers import tls_hint


def connection_error(name: str, error: BaseException) -> CouchbaseError:
    """Return the SDK's error for a node that cannot be reached."""
    if isinstance(error, CouchbaseError):
        return error
    return error_of(exceptions.NETWORK_ERROR, f"cannot connect to {name}: {error}", inner_cause=error)


def tls_error(name: str, error: Exception) -> CouchbaseError:
    """Return the SDK's error for a node with which TLS failed."""
    code = exceptions.SSL_CANTVERIFY if isinstance(error, ssl.CertificateError) else exceptions.SSL_ERROR
    text = f"no TLS connection to {name}: {error}{tls_hint(str(error))}"
    return error_of(code, text, inner_cause=error)
