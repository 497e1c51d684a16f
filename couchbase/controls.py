"""Settings of a connection by libcouchbase's numbers (``Connection._cntl``)."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from couchbase import exceptions
from couchbase.exceptions import ArgumentError, CouchbaseError, error_of

UNSET: Any = object()
"""Marks a value that was not given, so that the setting is read."""

_MICROSECONDS, _BOOL, _INT, _TEXT = "microseconds", "bool", "int", "text"


class Control(NamedTuple):
    """One setting."""

    kind: str
    read: Callable[[Any], Any]
    write: Callable[[Any, Any], None] | None
    untyped: bool
    """Whether the setting can be used without a type."""


def _attribute(path: str) -> tuple[Callable[[Any], Any], Callable[[Any, Any], None]]:
    *parents, name = path.split(".")

    def owner(connection: Any) -> Any:
        for parent in parents:
            connection = getattr(connection, parent)
        return connection

    def read(connection: Any) -> Any:
        return getattr(owner(connection), name)

    def write(connection: Any, value: Any) -> None:
        setattr(owner(connection), name, value)

    return read, write


def _time(path: str, untyped: bool = True) -> Control:
    read, write = _attribute(path)
    return Control(_MICROSECONDS, read, write, untyped)


def _setting(kind: str, path: str, untyped: bool = True, writable: bool = True) -> Control:
    read, write = _attribute(path)
    return Control(kind, read, write if writable else None, untyped)


CONTROLS: dict[int, Control] = {
    0x00: _time("timeout"),
    0x01: _time("views_timeout"),
    0x0D: _time("_durability_timeout"),
    0x0E: _time("_durability_interval"),
    0x0F: _time("_http_timeout"),
    0x12: _time("_cluster.bootstrap_timeout"),
    0x13: _setting(_BOOL, "_skip_configuration_errors"),
    0x14: _setting(_BOOL, "_cluster.shuffle"),
    0x15: _setting(_BOOL, "_cluster.from_cache", writable=False),
    0x17: _setting(_INT, "_http_redirects"),
    0x1B: _time("_cluster.host_timeout", untyped=False),
    0x1F: Control(_TEXT, lambda connection: connection.lcb_version()[0], None, False),
    0x30: Control(_TEXT, lambda connection: connection.bucket, None, False),
}
"""Number -> setting; times are kept in seconds and shown in microseconds."""

_TYPES: dict[str, tuple[str, ...]] = {
    "string": (_TEXT,),
    "str": (_TEXT,),
    "int": (_INT, _BOOL, _MICROSECONDS),
    "uint": (_INT, _BOOL, _MICROSECONDS),
    "unsigned": (_INT, _BOOL, _MICROSECONDS),
    "size_t": (_INT, _BOOL, _MICROSECONDS),
    "uint32_t": (_INT, _BOOL, _MICROSECONDS),
    "float": (_MICROSECONDS,),
    "timeout": (_MICROSECONDS,),
    "interval": (_MICROSECONDS,),
}
_SECONDS_TYPES = ("timeout", "interval", "float")


def control(connection: object, op: object, value: object = UNSET, value_type: str | None = None) -> Any:
    """Read or change a setting; see :meth:`couchbase.connection.Connection._cntl`."""
    if isinstance(op, bool) or not isinstance(op, int):
        raise ArgumentError.pyexc("the number of a setting must be an int", obj=op)
    found = CONTROLS.get(op)
    if value_type is None:
        if found is None or not found.untyped:
            raise ArgumentError.pyexc(f"setting 0x{op:x} needs a value_type, or is unknown", obj=op)
        if value is not UNSET:
            _write(connection, op, found, _checked(found.kind, value, isinstance(value, float)))
        shown = found.read(connection)
        return round(shown * 1_000_000) if found.kind == _MICROSECONDS else shown
    if value_type not in _TYPES:
        raise ArgumentError.pyexc(f"unknown value_type; known: {', '.join(_TYPES)}", obj=value_type)
    if found is None:
        raise _not_supported(f"there is no setting 0x{op:x}")
    if found.kind not in _TYPES[value_type]:
        raise ArgumentError.pyexc(f"setting 0x{op:x} is not of type {value_type}", obj=value_type)
    in_seconds = value_type in _SECONDS_TYPES
    if value is not UNSET:
        if in_seconds and not isinstance(value, (int, float)):
            raise ArgumentError.pyexc(f"a {value_type} must be a number of seconds", obj=value)
        _write(connection, op, found, _checked(found.kind, value, in_seconds))
        return True
    shown = found.read(connection)
    if found.kind == _MICROSECONDS and not in_seconds:
        return round(shown * 1_000_000)
    return shown if found.kind in (_TEXT, _MICROSECONDS) else int(shown)


def _write(connection: object, op: int, found: Control, value: object) -> None:
    if found.write is None:
        raise _not_supported(f"setting 0x{op:x} can only be read")
    found.write(connection, value)


def _checked(kind: str, value: Any, in_seconds: bool) -> Any:
    number = isinstance(value, (int, float) if in_seconds else int)
    if kind == _BOOL and isinstance(value, int):
        return bool(value)
    if kind == _INT and number and not isinstance(value, bool) and value >= 0:
        return int(value)
    if kind == _MICROSECONDS and number and not isinstance(value, bool) and value > 0:
        return float(value) if in_seconds else value / 1_000_000
    if kind == _TEXT and isinstance(value, str):
        return value
    raise ArgumentError.pyexc(f"the value does not fit a setting of kind {kind}", obj=value)


def _not_supported(message: str) -> CouchbaseError:
    return error_of(exceptions.NOT_SUPPORTED, message)
