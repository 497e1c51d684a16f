"""The log as JSON: one object per line."""

from __future__ import annotations

import time
from collections.abc import Callable
from string import Formatter
from typing import Any

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    eventAsJSON,
    eventAsText,
    formatEvent,
)
from zope.interface import implementer

__all__ = ["JsonObserver", "parts_of"]

_MOST_FIELDS = 32
_LONGEST_FIELD = 4096
_LONGEST_TEXT = 64 * 1024

_FIRST = frozenset({"time", "level", "namespace", "message", "worker", "traceback"})

_formatter = Formatter()


@implementer(ILogObserver)
class JsonObserver:
    """Writes log events as JSON objects in ASCII, one per line.

    Members are ``time`` (UTC, RFC 3339), ``level``, ``namespace``, ``message``, ``traceback`` for a failure,
    and the values in the message, by their names in its template. The line of an event with ``is_alone`` is
    JSON already.

    :param write: takes text that ends with a newline.
    :param is_noise: returns whether an event is left out.
    """

    def __init__(self, write: Callable[[str], object], is_noise: Callable[[LogEvent], bool]) -> None:
        self._write = write
        self._is_noise = is_noise

    def __call__(self, event: LogEvent) -> None:
        """Write an event."""
        if self._is_noise(event):
            return
        if event.get("is_alone"):
            self._write(event["line"] + "\n")
            return
        parts = event.get("parts")
        if not isinstance(parts, dict):
            parts = parts_of(event)
        if not parts["message"] and "traceback" not in parts:
            return
        level = event.get("log_level") or LogLevel.info
        namespace = event.get("log_namespace") or event.get("log_system")
        entry = {"time": _time(event), "level": level.name, "namespace": str(namespace), **parts}
        if "worker" in event:
            entry["worker"] = event["worker"]
        # Twisted's serializer, which converts values that JSON cannot express instead of failing.
        self._write(eventAsJSON(entry) + "\n")


def parts_of(event: LogEvent) -> dict[str, Any]:
    """Return the members of an event's object that depend on its content, as values that JSON can express.

    Values that the message does not show are left out, so that JSON logs contain nothing that text logs lack.
    """
    text = formatEvent(event)
    parts: dict[str, Any] = {"message": text[:_LONGEST_TEXT]}
    whole = eventAsText(event, includeTimestamp=False, includeSystem=False)
    if event.get("log_failure") is not None and len(whole) > len(text):
        parts["traceback"] = whole[len(text) :].strip("\n")[:_LONGEST_TEXT]
    for name in _names(event.get("log_format")):
        value = event.get(name)
        if name not in _FIRST and len(parts) < _MOST_FIELDS and type(value) in (str, int, float, bool):
            parts[name] = value[:_LONGEST_FIELD] if isinstance(value, str) else value
    return parts


def _names(template: object) -> list[str]:
    """Return the names of the values in a message's template."""
    if not isinstance(template, str):
        return []
    try:
        return [name for _, name, _, _ in _formatter.parse(template) if name and name.isidentifier()]
    except ValueError:
        return []


def _time(event: LogEvent) -> str:
    when = event.get("log_time")
    if not isinstance(when, (int, float)):
        when = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when)) + f".{int(when % 1 * 1000):03d}Z"
