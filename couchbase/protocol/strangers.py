"""What listens on a port where Couchbase's key-value protocol was expected."""

from __future__ import annotations

_GREETINGS: tuple[tuple[bytes, str], ...] = (
    (b"HTTP/", "an HTTP server"),
    (b"<", "an HTTP server"),
    (b"\x15\x03", "a TLS server (couchbases:// connects with TLS)"),
    (b"\x16\x03", "a TLS server (couchbases:// connects with TLS)"),
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


def looks_like(first: bytes) -> str | None:
    """Return what a peer probably is whose stream begins with these bytes; ``None`` if they say nothing."""
    for greeting, name in _GREETINGS:
        if first.startswith(greeting):
            return name
    return None
