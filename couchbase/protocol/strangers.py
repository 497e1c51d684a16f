"""Detects peers that speak another protocol than Couchbase's key-value protocol."""

from __future__ import annotations

import re

_GREETINGS: tuple[tuple[bytes, str], ...] = (
    (b"HTTP/", "an HTTP server"),
    (b"<", "an HTTP server"),
    (b"\x15\x03", "a TLS port, use couchbases://"),
    (b"\x16\x03", "a TLS port, use couchbases://"),
    (b"SSH-", "an SSH server"),
    (b"220", "a mail or FTP server"),
    (b"* OK", "a mail server"),
    (b"+OK", "a mail server"),
    (b"-ERR", "a Redis server"),
    (b"-NOAUTH", "a Redis server"),
    (b"ERROR\r\n", "a memcached server without the binary protocol"),
    (b"GET ", "an HTTP client"),
    (b"POST ", "an HTTP client"),
    (b"PUT ", "an HTTP client"),
)


MAYBE_TLS = "if it is a TLS port, use couchbases://"
"""Hint for a peer that closes a plain connection before it sends anything."""
NOT_TLS = "the port does not speak TLS; without it, use couchbase://"
"""Hint for a TLS handshake that fails as with a peer that does not support TLS."""
_REFUSED_CERTIFICATE = re.compile(
    "alert.(unknown.ca|bad.certificate|certificate.(expired|revoked|unknown|required)|unsupported.certificate)"
    "|certificate.required",
    re.IGNORECASE,
)
_NOT_TLS_SIGNS = re.compile(
    "wrong.version.number|packet.length.too.long|eof|reset by peer|closed", re.IGNORECASE
)


def tls_hint(reason: str) -> str:
    """Return a hint about a failed TLS handshake, to be appended to ``reason``; usually empty.

    :param reason: the error text of the TLS library or the network.
    """
    if _REFUSED_CERTIFICATE.search(reason):
        return ": the node refused the client certificate, or requires one"
    return f": {NOT_TLS}" if _NOT_TLS_SIGNS.search(reason) else ""


def looks_like(first: bytes) -> str | None:
    """Return the probable protocol of a peer whose stream begins with these bytes; ``None`` if unknown.

    :param first: the bytes received so far, at least one.
    """
    for greeting, name in _GREETINGS:
        if first.startswith(greeting) or greeting.startswith(first):
            return name
    return None
