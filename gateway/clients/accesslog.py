"""The access log: one line per request, in one of three forms."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.logger import Logger

from gateway.clients.address import client_address
from gateway.clients.proxies import TrustedProxies
from gateway.http.known import Known
from gateway.http.request import Request
from gateway.http.tracecontext import trace_of

__all__ = ["FORMS", "AccessLog", "escaped", "without_secrets"]

_LONGEST_TARGET = 4096
_LONGEST_TEXT = 512

# Characters that could end the field or the line, or control a terminal.
_UNSAFE_QUOTED = re.compile(rb"[^ !#-\[\]-~]")
_UNSAFE_BARE = re.compile(rb"[^!#-\[\]-~]")
# What JSON shows as it is.
_PLAIN_JSON = re.compile(rb"[ !#-\[\]-~]*")

# Not strftime("%b"), whose words depend on the locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


# Secrets of callers who took the gateway for a service that reads them from the query; in lower case.
_SECRETS = frozenset(
    {
        *(b"access_token", b"id_token", b"refresh_token", b"token", b"jwt", b"auth", b"authorization"),
        *(b"api_key", b"apikey", b"api-key", b"x-api-key", b"secret", b"client_secret"),
        *(b"password", b"passwd", b"pwd", b"sig", b"signature"),
    }
)
_MAYBE_SECRET = re.compile(rb"token|jwt|auth|api|secret|pass|pwd|sig|%", re.IGNORECASE)
_PAIRS = re.compile(rb"([&;]?)([^=&;]*)(=?)([^&;]*)")

_KNOWN_TEXTS = 1024
_LONGEST_KNOWN = 256


Line = Callable[[Request, str, int, float, float], str]
"""Takes a request that is over, the client's address, the status, the seconds that it took, and the Unix time
of its end."""


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
        self._line = FORMS[form]()
        self._is_alone = is_alone
        self._now = now

    def on_end(self, request: Request, status: int, seconds: float) -> None:
        """Write the line of a request that is over."""
        client = client_address(request, self._trusted)
        self._write(self._line(request, client, status, seconds, self._now()))

    def _to_log(self, line: str) -> None:
        self.log.info("{line}", line=line, is_alone=self._is_alone)


def escaped(value: bytes, longest: int, *, quoted: bool = True) -> str:
    r"""Return bytes as text that stays within its field: ``\xHH`` for quotes, backslashes and everything but
    printable ASCII.

    :param longest: bytes of ``value`` to show; ``...`` stands for the rest.
    :param quoted: whether the field is in quotes; if not, blanks are escaped too.
    """
    unsafe = _UNSAFE_QUOTED if quoted else _UNSAFE_BARE
    if len(value) <= longest and unsafe.search(value) is None:
        # The usual case.
        return value.decode("ascii")
    shown = unsafe.sub(lambda found: b"\\x%02x" % found[0][0], value[:longest]).decode("ascii")
    return shown + "..." if len(value) > longest else shown


def without_secrets(query: bytes) -> bytes:
    """Return a query string with ``-`` in the place of passwords and tokens, which the gateway takes from
    headers only."""
    if not _MAYBE_SECRET.search(query):
        return query
    return _PAIRS.sub(_shown_pair, query)


def _shown_pair(pair: re.Match[bytes]) -> bytes:
    before, name, equals, value = pair.groups()
    if value and unquote_to_bytes(name.replace(b"+", b" ")).strip().lower() in _SECRETS:
        value = b"-"
    return b"%b%b%b%b" % (before, name, equals, value)


# ---- the forms -----------------------------------------------------------------------------------


class _Shown(Known[Any, str]):
    """A cache of values as a form has them: clients send the same ones again and again.

    Indexing it returns what is shown for a value: bytes or a text, or ``None`` if there is none.

    :param show: returns a value as the form has it.
    :param missing: stands for no value, and for one of which nothing is shown.
    """

    __slots__ = ("_missing", "_show")

    def __init__(self, show: Callable[[Any], str], missing: str) -> None:
        super().__init__(_KNOWN_TEXTS)
        self._show = show
        self._missing = missing

    def __missing__(self, value: Any) -> str:
        if value is None:
            return self.learn(None, self._missing)
        shown = self._show(value) or self._missing
        return self.learn(value, shown) if len(value) <= _LONGEST_KNOWN else shown


class _Headers:
    """``Referer`` and ``User-Agent`` as a form has them.

    :param show: returns bytes as the form has them.
    :param missing: stands for a missing header.
    """

    def __init__(self, show: Callable[[bytes], str], missing: str) -> None:
        # One for each: the same value is shown in one as it is, in the other without secrets.
        self._referers = _Shown(lambda value: show(_referer(value)), missing)
        self._agents = _Shown(show, missing)

    def of(self, request: Request) -> tuple[str, str]:
        """Return both headers of a request."""
        headers: Any = request.headers
        try:
            return self._referers[headers.get(b"referer")], self._agents[headers.get(b"user-agent")]
        except TypeError:
            # A list: a header that is given more than once.
            referer, agent = (_joined(headers.get(name)) for name in (b"referer", b"user-agent"))
            return self._referers[referer], self._agents[agent]


def _joined(value: Any) -> bytes | None:
    return b", ".join(value) if value.__class__ is list else value


def _referer(value: bytes) -> bytes:
    """Return ``Referer`` without secrets: the address of a page has a query, too."""
    path, mark, query = value.partition(b"?")
    return path + mark + without_secrets(query)


class _Quoted:
    """The common fields of the forms of text."""

    def __init__(self) -> None:
        self._headers = _Headers(lambda value: escaped(value, _LONGEST_TEXT), "-")
        self._methods = _Shown(lambda method: escaped(method.encode("latin-1"), _LONGEST_TEXT), "")

    def _request_and_status(self, request: Request, status: int) -> str:
        return (
            f'"{self._methods[request.method]} {escaped(_target(request), _LONGEST_TARGET) or "-"} '
            f'HTTP/{_version(request)}" {status}'
        )

    def _referer_and_agent(self, request: Request) -> str:
        referer, agent = self._headers.of(request)
        return f'"{referer}" "{agent}"'


class _Extended(_Quoted):
    """The fields of the combined form without the time, then those that only this gateway has."""

    def __call__(self, request: Request, client: str, status: int, seconds: float, ended: float) -> str:
        return (
            f"{client} - {_user_field(request)} {self._request_and_status(request, status)} "
            f"{request.sent_bytes} {self._referer_and_agent(request)} "
            f"{request.received_bytes} {seconds:.4f} {request.id} "
            f"{_route(request) or 'none'} {request.cut or '-'} {trace_of(request).trace_id}"
        )


class _Combined(_Quoted):
    """The combined log format of Apache and nginx, with the time at which the request began."""

    _second = -1
    _time = ""

    def __call__(self, request: Request, client: str, status: int, seconds: float, ended: float) -> str:
        second = int(ended - seconds)
        if second != self._second:
            self._second, self._time = second, _apache_time(second)
        return (
            f"{client} - {_user_field(request)} [{self._time}] "
            f"{self._request_and_status(request, status)} {request.sent_bytes or '-'} "
            f"{self._referer_and_agent(request)}"
        )


class _Json:
    """A JSON object in ASCII; ``null`` for what is missing."""

    _second = -1
    _time = ""

    def __init__(self) -> None:
        self._headers = _Headers(lambda value: _json_text(value, _LONGEST_TEXT), "null")
        self._methods = _Shown(lambda method: _json_text(method.encode("latin-1"), _LONGEST_TEXT), "")
        self._ends: Known[tuple[str, str, str], str] = Known(_KNOWN_TEXTS)

    def __call__(self, request: Request, client: str, status: int, seconds: float, ended: float) -> str:
        second = int(ended)
        if second != self._second:
            self._second = second
            self._time = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        referer, agent = self._headers.of(request)
        endpoint = request.endpoint
        end = "" if endpoint is None else endpoint.name, request.failure_code, request.cut
        user = _user(request)
        # Not json.dumps(): most values need no look at their characters.
        return (
            f'{{"time": "{self._time}.{int(ended % 1 * 1000):03d}Z", "level": "info", "namespace": "access", '
            f'"client": "{client}", "user": {"null" if user is None else _json_text(user, _LONGEST_TEXT)}, '
            f'"method": {self._methods[request.method]}, '
            f'"target": {_json_text(_target(request), _LONGEST_TARGET)}, "version": "{_version(request)}", '
            f'"status": {status}, "received_bytes": {request.received_bytes}, '
            f'"sent_bytes": {request.sent_bytes}, "seconds": {seconds:.6f}, '
            f'"referer": {referer}, "user_agent": {agent}, '
            f'"request_id": "{request.id}", "trace_id": "{trace_of(request).trace_id}", '
            f"{self._ends.get(end) or self._end(*end)}"
        )

    def _end(self, *names: str) -> str:
        """Return the last members, which are names of ours, or of a plugin's."""
        route, error, cut = (json.dumps(name or None) for name in names)
        shown = f'"route": {route}, "error": {error}, "cut": {cut}}}'
        return self._ends.learn(names, shown)  # type: ignore[arg-type]  # of three


FORMS: dict[str, Callable[[], Line]] = {
    "extended": _Extended,
    "combined": _Combined,
    "json": _Json,
}
"""By the name that the option takes, what makes a function that returns lines of this form."""


# ---- fields --------------------------------------------------------------------------------------


def _target(request: Request) -> bytes:
    query = request.query_string
    return b"%b?%b" % (request.path, without_secrets(query)) if query else request.path


def _version(request: Request) -> str:
    version: bytes = getattr(request, "http_version", b"1.1")
    return version.decode("ascii")


def _route(request: Request) -> str | None:
    return None if request.endpoint is None else request.endpoint.name


def _json_text(value: bytes, longest: int) -> str:
    r"""Return bytes as a string of JSON: UTF-8, with ``\xHH`` for what is not."""
    if len(value) <= longest and _PLAIN_JSON.fullmatch(value):
        return f'"{value.decode("ascii")}"'
    shown = value[:longest].decode("utf-8", "backslashreplace")
    return json.dumps(shown + "..." if len(value) > longest else shown)


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
