"""The access log: one line per request, beginning with the fields of the combined log format."""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.logger import Logger

from gateway.clients.address import client_address
from gateway.clients.proxies import TrustedProxies
from gateway.http.request import Request

__all__ = ["AccessLog", "escaped"]

_LONGEST_TARGET = 4096
_LONGEST_TEXT = 512

# Characters that could end the field or the line, or control a terminal.
_UNSAFE_QUOTED = re.compile(rb"[^ !#-\[\]-~]")
_UNSAFE_BARE = re.compile(rb"[^!#-\[\]-~]")


class AccessLog:
    """Writes a line when a request is over; :meth:`on_end` is the hook for it.

    The fields, separated by blanks::

        CLIENT - USER "METHOD TARGET HTTP/VERSION" STATUS SENT "REFERER" "AGENT" RECEIVED SECONDS ID ROUTE CUT

    :param trusted: proxies trusted to report the client's address.
    :param write: takes a line; ``None`` for the log.
    """

    log = Logger()

    def __init__(self, trusted: TrustedProxies, write: Callable[[str], None] | None = None) -> None:
        self._trusted = trusted
        self._write = write or self._to_log

    def on_end(self, request: Request, status: int, seconds: float) -> None:
        """Write the line of a request that is over."""
        served = request.endpoint
        target = request.path + b"?" + request.query_string if request.query_string else request.path
        line = (
            f"{escaped(request.method.encode('latin-1'), _LONGEST_TEXT)} "
            f"{escaped(target, _LONGEST_TARGET) or '-'} "
            f"HTTP/{'1.1' if getattr(request, 'is_1_1', True) else '1.0'}"
        )
        self._write(
            f'{client_address(request, self._trusted)} - {_user(request)} "{line}" {status} '
            f'{request.sent_bytes} "{_header(request, b"referer")}" "{_header(request, b"user-agent")}" '
            f"{request.received_bytes} {seconds:.4f} {request.id} "
            f"{'none' if served is None else served.name} {request.cut or '-'}"
        )

    def _to_log(self, line: str) -> None:
        self.log.info("{line}", line=line)


def escaped(value: bytes, longest: int, *, quoted: bool = True) -> str:
    r"""Return bytes as text that stays within its field: ``\xHH`` for quotes, backslashes and everything but
    printable ASCII.

    :param longest: bytes of ``value`` to show; ``...`` stands for the rest.
    :param quoted: whether the field is in quotes; if not, blanks are escaped too.
    """
    unsafe = _UNSAFE_QUOTED if quoted else _UNSAFE_BARE
    shown = unsafe.sub(lambda found: b"\\x%02x" % found[0][0], value[:longest]).decode("ascii")
    return shown + "..." if len(value) > longest else shown


def _header(request: Request, name: bytes) -> str:
    value = request.headers.get(name)
    if not value:
        return "-"
    return escaped(b", ".join(value) if isinstance(value, list) else value, _LONGEST_TEXT)


def _user(request: Request) -> str:
    caller = request.caller
    if caller is None or caller.stands_for_anyone:
        return "-"
    name = caller.user.encode("utf-8")
    # A user of that name must not look like a missing user.
    return "\\x2d" if name == b"-" else escaped(name, _LONGEST_TEXT, quoted=False)
