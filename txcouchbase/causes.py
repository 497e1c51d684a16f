"""Causes of failed connections: as text, and as the SDK's errors."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from twisted.internet import defer
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
)
from twisted.python.failure import Failure

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.strangers import tls_hint
from reactor.tls.contexts import reason_of

__all__ = ["Cause", "cause_text", "connect_error", "network_error"]


# OpenSSL's codes X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_NAME = (62, 64)


class Cause(NamedTuple):
    """The reason why one address of the cluster cannot be used."""

    host: str
    port: int
    text: str
    """In one line, such as ``connection refused`` or ``the host name is unknown``."""

    def __str__(self) -> str:
        if f"{self.host}:{self.port}" in self.text:
            return self.text
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}: {self.text}"


def cause_text(error: BaseException) -> str:
    """Return the cause of a failed connection, in one line for people."""
    reasons = getattr(error, "reasons", None)
    if reasons and isinstance(reasons[-1], Failure) and reasons[-1].value is not None:
        # Twisted's HTTP client wraps the cause in "never received".
        return cause_text(reasons[-1].value)
    if isinstance(error, CouchbaseError):
        return str(error.message or error)
    if isinstance(error, DNSLookupError):
        return "the host name is unknown"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, (defer.TimeoutError, defer.CancelledError, TCPTimedOutError)):
        return "no answer in time"
    if isinstance(error, (ConnectionDone, ConnectionLost)):
        return "the node closed the connection"
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _OTHER_NAME:
        return "the certificate is for another host name"
    if isinstance(error, ssl.SSLError):
        text = reason_of(error) or "the handshake failed"
        return text + tls_hint(text)
    return str(error) or type(error).__name__


def network_error(message: str, inner: BaseException | None = None) -> CouchbaseError:
    """Return the NetworkError for a connection that failed."""
    return error_of(exceptions.NETWORK_ERROR, message, inner_cause=inner)


def connect_error(failure: BaseException, host: str, port: int) -> CouchbaseError:
    """Return the SDK's error for a failed attempt to connect."""
    if isinstance(failure, CouchbaseError):
        return failure
    code = exceptions.NETWORK_ERROR
    if isinstance(failure, DNSLookupError):
        code = exceptions.UNKNOWN_HOST
    elif isinstance(failure, (defer.TimeoutError, defer.CancelledError, TCPTimedOutError)):
        code = exceptions.ETIMEDOUT
    return error_of(code, f"cannot connect to {host}:{port}: {cause_text(failure)}", inner_cause=failure)
