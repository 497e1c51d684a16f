"""The access log: one line per request, in one of three forms."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from twisted.logger import Logger

from gateway.clients.address import client_address
from gateway.clients.proxies import TrustedProxies
from gateway.http.request import Request
from gateway.http.tracecontext import trace_of

__all__ = ["FORMS", "AccessLog", "escaped"]

_LONGEST_TARGET = 4096
_LONGEST_TEXT = 512

# Characters that could end the field or the line, or control a terminal.
_UNSAFE_QUOTED = re.compile(rb"[^ !#-\[\]-~]")
_UNSAFE_BARE = re.compile(rb"[^!#-\[\]-~]")

# Not strftime("%b"), whose words depend on the locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class _Access(NamedTuple):
    """A request that is over."""

    request: Request
    client: str
    status: int
    seconds: float
    ended: float
    """Unix time in seconds."""


class AccessLog:
    """Writes a line when a request is over; :meth:`on_end` is the hook for it.

    :param trusted: proxies trusted to report the client's address.
    :param write: takes a line; ``None`` for the log.
    :param form: one of :data:`FORMS`.
    :param is_alone: whether the line stands alone in the log, without its time and system.
    :param now: gives the Unix time in seconds.
    """

    log = Logger()

    def __init__(
        self,
        trusted: TrustedProxies,
        write: Callable[[str], object] | None = None,
        form: str = "extended",
        *,
        is_alone: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._trusted = trusted
        self._write = write or self._to_log
        self._line = FORMS[form]
        self._is_alone = is_alone
        self._now = now

    def on_end(self, request: Request, status: int, seconds: float) -> None:
        """Write the line of a request that is over."""
        client = client_address(request, self._trusted)
        self._write(self._line(_Access(request, client, status, seconds, self._now())))

    def _to_log(self, line: str) -> None:
        self.log.info("{line}", line=line, is_alone=self._is_alone)


def escaped(value: bytes, longest: int, *, quoted: bool = True) -> str:
    r"""Return bytes as text that stays within its field: ``\xHH`` for quotes, backslashes and everything but
    printable ASCII.

    :param longest: bytes of ``value`` to show; ``...`` stands for the rest.
    :param quoted: whether the field is in quotes; if not, blanks are escaped too.
    """
    unsafe = _UNSAFE_QUOTED if quoted else _UNSAFE_BARE
    shown = unsafe.sub(lambda found: b"\\x%02x" % found[0][0], value[:longest]).decode("ascii")
    return shown + "..." if len(value) > longest else shown


# ---- the forms -----------------------------------------------------------------------------------


def _extended(access: _Access) -> str:
    """Return the fields of the combined form without the time, then those that only this gateway has."""
    request = access.request
    return (
        f"{access.client} - {_user_field(request)} {_request_and_status(access)} {request.sent_bytes} "
        f"{_referer_and_agent(request)} "
        f"{request.received_bytes} {access.seconds:.4f} {request.id} "
        f"{_route(request) or 'none'} {request.cut or '-'} {trace_of(request).trace_id}"
    )


def _combined(access: _Access) -> str:
    """Return the combined log format of Apache and nginx, with the time at which the request began."""
    request = access.request
    return (
        f"{access.client} - {_user_field(request)} [{_apache_time(access.ended - access.seconds)}] "
        f"{_request_and_status(access)} {request.sent_bytes or '-'} {_referer_and_agent(request)}"
    )


def _json(access: _Access) -> str:
    """Return a JSON object in ASCII; ``null`` for what is missing."""
    request = access.request
    ended = access.ended
    user = _user(request)
    return json.dumps(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ended)) + f".{int(ended % 1 * 1000):03d}Z",
            "level": "info",
            "namespace": "access",
            "client": access.client,
            "user": None if user is None else _text(user, _LONGEST_TEXT),
            "method": _text(request.method.encode("latin-1"), _LONGEST_TEXT),
            "target": _text(_target(request), _LONGEST_TARGET),
            "version": _version(request),
            "status": access.status,
            "received_bytes": request.received_bytes,
            "sent_bytes": request.sent_bytes,
            "seconds": round(access.seconds, 6),
            "referer": _header_text(request, b"referer"),
            "user_agent": _header_text(request, b"user-agent"),
            "request_id": request.id,
            "trace_id": trace_of(request).trace_id,
            "route": _route(request),
            "error": request.failure_code or None,
            "cut": request.cut or None,
        }
    )


FORMS: dict[str, Callable[[_Access], str]] = {
    "extended": _extended,
    "combined": _combined,
    "json": _json,
}
"""The forms of a line, by the name that the option takes."""


# ---- fields --------------------------------------------------------------------------------------


def _request_and_status(access: _Access) -> str:
    request = access.request
    return (
        f'"{escaped(request.method.encode("latin-1"), _LONGEST_TEXT)} '
        f"{escaped(_target(request), _LONGEST_TARGET) or '-'} "
        f'HTTP/{_version(request)}" {access.status}'
    )


def _referer_and_agent(request: Request) -> str:
    return f'"{_header(request, b"referer")}" "{_header(request, b"user-agent")}"'


def _target(request: Request) -> bytes:
    return request.path + b"?" + request.query_string if request.query_string else request.path


def _version(request: Request) -> str:
    version: bytes = getattr(request, "http_version", b"1.1")
    return version.decode("ascii")


def _route(request: Request) -> str | None:
    return None if request.endpoint is None else request.endpoint.name


def _header_value(request: Request, name: bytes) -> bytes | None:
    value = request.headers.get(name)
    return b", ".join(value) if isinstance(value, list) else value


def _header(request: Request, name: bytes) -> str:
    return escaped(_header_value(request, name) or b"", _LONGEST_TEXT) or "-"


def _header_text(request: Request, name: bytes) -> str | None:
    value = _header_value(request, name)
    return None if value is None else _text(value, _LONGEST_TEXT)


def _text(value: bytes, longest: int) -> str:
    r"""Return bytes as text for JSON: UTF-8, with ``\xHH`` for what is not."""
    shown = value[:longest].decode("utf-8", "backslashreplace")
    return shown + "..." if len(value) > longest else shown


def _user(request: Request) -> bytes | None:
    """Return the caller's name; ``None`` if it is not known, or stands for everybody."""
    caller = request.caller
    return None if caller is None or caller.stands_for_anyone else caller.name.encode("utf-8")


def _user_field(request: Request) -> str:
    name = _user(request)
    if name is None:
        return "-"
    # A user of that name must not look like a missing user.
    return "\\x2d" if name == b"-" else escaped(name, _LONGEST_TEXT, quoted=False)


def _apache_time(when: float) -> str:
    """Return a time as Apache's ``%t`` shows it, in the machine's time zone."""
    local = time.localtime(when)
    month = _MONTHS[local.tm_mon - 1]
    return time.strftime(f"%d/{month}/%Y:%H:%M:%S %z", local)
