"""Endpoint strings, turned into listeners with a backlog that suits many clients."""

from __future__ import annotations

import errno
import re
import sys
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["BACKLOG", "CannotStartError", "give_up", "listen_on", "with_backlog"]


class CannotStartError(RuntimeError):
    """The gateway cannot start, and who started it can do something about it: the text says what."""


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

    :raises CannotStartError: that is not possible (the port is in use, say); the text tells why. So
        twistd, which calls while it starts, ends.
    """
    listening: Deferred[IListeningPort] = maybeDeferred(
        serverFromString(reactor, with_backlog(description)).listen, factory
    )
    result = getattr(listening, "result", None)
    if isinstance(result, Failure):
        listening.addErrback(lambda _: None)
        raise CannotStartError(f"--listen: {description}: {_why(result)}")
    return listening.addCallback(_widened, description)


def _why(failure: Failure) -> str:
    """Return why a listener cannot be had, and what helps."""
    error: Any = failure.value
    fault = getattr(error, "socketError", error)
    number = getattr(fault, "errno", None)
    reason = getattr(fault, "strerror", None) or str(error)
    if number == errno.EADDRINUSE:
        return f"{reason}; another program listens there. Choose another port (make run PORT=8081)"
    if number == errno.EACCES:
        return f"{reason}; ports below 1024 and folders of others need rights that this user does not have"
    return str(reason)


def _widened(port: Any, description: str) -> Any:
    # A socket of systemd's has the backlog that its unit says, and Twisted has put its own in its place.
    adopted = getattr(port, "socket", None)
    if adopted is not None and not _HAS_BACKLOG.match(description):
        adopted.listen(BACKLOG)
    return port


def give_up(log: Logger, error: CannotStartError) -> NoReturn:
    """End a start that twistd is in the middle of: with one line in the log, and status 1.

    :raises CannotStartError: always; twistd cleans up, and tells the parent of a daemon.
    """
    log.critical("couchgateway cannot start: {error}", error=error)
    usual = sys.excepthook

    def hook(kind: Any, value: Any, traceback: Any) -> None:
        # Everything was said; a traceback would bury it.
        if value is not error:
            usual(kind, value, traceback)

    sys.excepthook = hook
    raise error
