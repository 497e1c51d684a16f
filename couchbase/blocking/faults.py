"""Why a node, or a whole cluster, cannot be reached: as errors of the SDK."""

from __future__ import annotations

import ssl

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.strangers import tls_hint


def connection_error(name: str, error: BaseException) -> CouchbaseError:
    """Return why a node cannot be reached as the SDK's error."""
    if isinstance(error, CouchbaseError):
        return error
    return error_of(exceptions.NETWORK_ERROR, f"cannot connect to {name}: {error}", inner_cause=error)


def tls_error(name: str, error: Exception) -> CouchbaseError:
    """Return why there is no TLS with a node as the SDK's error."""
    code = exceptions.SSL_CANTVERIFY if isinstance(error, ssl.CertificateError) else exceptions.SSL_ERROR
    text = f"no TLS connection to {name}: {error}{tls_hint(str(error))}"
    return error_of(code, text, inner_cause=error)
