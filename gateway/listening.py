"""Endpoint strings, turned into listeners with a backlog that suits many clients."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

__all__ = ["BACKLOG", "listen_on", "with_backlog"]

BACKLOG = 1024
"""Connections that may wait to be accepted, of an endpoint that names no number. The kernel caps it
(``net.core.somaxconn``). Twisted's own default of 50 is too small for a burst: connect() to a Unix socket
whose backlog is full does not wait, it fails."""

# Twisted's own kinds that have a backlog, also behind the PROXY protocol's wrapper.
_HAS_BACKLOG = re.compile(r"(?:haproxy:)*(?:tcp6?|ssl|unix):")
# A colon or '=' that belongs to a value has a backslash before it.
_NAMES_BACKLOG = re.compile(r"(?:[^\\]|\\.)*?:backlog=", re.DOTALL)


def with_backlog(description: str) -> str:
    """Return an endpoint string that names a backlog, if its kind has one."""
    if not _HAS_BACKLOG.match(description) or _NAMES_BACKLOG.match(description):
        return description
    return f"{description}:backlog={BACKLOG}"


def listen_on(reactor: Any, description: str, factory: ServerFactory) -> Deferred[IListeningPort]:
    """Listen on an endpoint.

    :raises RuntimeError: that is not possible (the port is in use, say); the text tells why. So
        twistd, which calls while it starts, ends.
    """
    listening: Deferred[IListeningPort] = maybeDeferred(
        serverFromString(reactor, with_backlog(description)).listen, factory
    )
    result = getattr(listening, "result", None)
    if isinstance(result, Failure):
        listening.addErrback(lambda _: None)
        raise RuntimeError(f"--listen: {description}: {result.getErrorMessage()}")
    return listening.addCallback(_widened, description)


def _widened(port: Any, description: str) -> Any:
    # A socket of systemd's has the backlog that its unit says, and Twisted has put its own in its place.
    adopted = getattr(port, "socket", None)
    if adopted is not None and not _HAS_BACKLOG.match(description):
        adopted.listen(BACKLOG)
    return port
