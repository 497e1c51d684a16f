"""The lines of a file of documents, read and turned into operations of a batch.

An ordinary line is ``{"id": key, "doc": document}``. A line of ``couchgateway-export`` has ``export`` instead
of ``doc``, with everything that belongs to the document (see :mod:`gateway.loader.exportlines`). So no line
can be of both kinds.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from couchbase.protocol.jsontext import NotJson, TooDeep, at_once, check
from gateway.dialect.jsontools import fast_loads, is_json
from gateway.dialect.projection import object_members
from gateway.loader.errors import LineError
from gateway.loader.exportlines import EXPORT, plain_line
from gateway.loader.file import LINE_BYTES

__all__ = ["DESIGN_PREFIX", "Line", "LineReader"]

DESIGN_PREFIX = "_design/"
"""Prefix of a design document's id; the name follows."""

SPECS_AT_ONCE = 16
"""Largest number of attributes that one operation writes."""

_DESIGN = b'"' + DESIGN_PREFIX.encode()
_RESTORE = b'{"op":"set",%b"key":%b,"flags":%b,"ttl":%b,"value":%b}'
_SET = b'{"op":"set","key":%b,"value":%b}'

_PLACE = ("scope", "collection")
_MOST = 2**32 - 1


class Line(NamedTuple):
    """One document to send."""

    number: int
    key: str
    operation: bytes
    """Lines of the batch, without the last newline; for a design document, its text."""
    place: str = ""
    """The scope and the collection that the line names, as JSON; empty if it names none."""
    operation_count: int = 1
    """Number of operations; 0 for a design document."""


class LineReader:
    """Reads lines.

    :param seconds: returns the Unix time.
    :param overridden: the names among ``scope`` and ``collection`` that are ignored in a line.
    """

    def __init__(
        self,
        key_field: str = "id",
        value_field: str = "doc",
        *,
        seconds: Callable[[], float],
        overridden: frozenset[str] = frozenset(),
    ) -> None:
        self._key_field = key_field
        self._value_field = value_field
        self._seconds = seconds
        self._place = tuple(name for name in _PLACE if name not in overridden)
        self._usual = (key_field, value_field) == ("id", "doc")

    def read(self, number: int, data: bytes) -> Line | None:
        """Return the document of one line, ``None`` for one that has expired since its export.

        :param number: counts from 1.
        :param data: one JSON object in UTF-8, with a string under the key's field and any JSON under the
            value's; strings under ``scope`` and ``collection`` name the collection. Or an exported line.
        :raises LineError: the line has another form.
        """
        if len(data) > LINE_BYTES:
            raise LineError(f"longer than {LINE_BYTES} bytes")
        match = plain_line(data) if self._usual else None
        if match is not None:
            # If the value is JSON, so is the whole line, and it has no other members.
            key_json, place, flags, expiry = match.groups()
            if flags is None:
                value = data[match.end() : -1].strip(b" \t\r\n")
                if data[-1:] == b"}" and not key_json.startswith(_DESIGN) and is_json(value):
                    return Line(number, key_json[1:-1].decode(), _SET % (key_json, value))
            elif data[-2:] == b"}}" and is_json(value := data[match.end() : -2]):
                if expiry is not None and int(expiry) <= self._seconds():
                    return None
                if place and len(self._place) < len(_PLACE):
                    place = self._place_of(_members(b"{%b}" % place[:-1]))
                operation = _RESTORE % (place, key_json, flags, expiry or b"0", value)
                return Line(number, key_json[1:-1].decode(), operation, place.decode())
        members = _members(data)
        if self._value_field not in members and EXPORT in members:
            return self._exported(number, members)
        return self._ordinary(number, members)

    def _ordinary(self, number: int, members: dict[str, bytes]) -> Line:
        key_field, value_field = self._key_field, self._value_field
        for field in (key_field, value_field):
            if field not in members:
                raise LineError(f"no member {field!r}")
        key = json.loads(members[key_field])
        if not isinstance(key, str):
            raise LineError(f"{key_field!r} is not a string")
        named = {
            name: value for name, value in members.items() if name in _PLACE and name not in self._fields()
        }
        value = members[value_field]
        if key.startswith(DESIGN_PREFIX) and not named:
            return Line(number, key, value, operation_count=0)
        place = self._place_of(named)
        operation = b'{"op":"set",%b"key":%b,"value":%b}' % (place, members[key_field], value)
        return Line(number, key, operation, place.decode())

    def _fields(self) -> tuple[str, str]:
        return self._key_field, self._value_field

    def _exported(self, number: int, members: dict[str, bytes]) -> Line | None:
        _only(members, {"id", "id_base64", EXPORT, *_PLACE}, "the line")
        exported = _object(members[EXPORT], EXPORT)
        _only(exported, {"meta", "json", "base64"}, EXPORT)
        meta = _object(exported.get("meta", b""), f"{EXPORT}.meta")
        _only(meta, {"flags", "expiry", "xattrs"}, f"{EXPORT}.meta")
        key, key_member = _key(members)
        flags, expiry = (_number(meta, name) for name in ("flags", "expiry"))
        value = _value(exported)
        place = self._place_of({name: members[name] for name in _PLACE if name in members})
        attributes = list(_attributes(meta.get("xattrs")))
        if 0 < expiry <= self._seconds():
            return None
        head = place + key_member
        operations = [b'{"op":"set",%b,"flags":%d,"ttl":%d,%b}' % (head, flags, expiry, value)]
        for at in range(0, len(attributes), SPECS_AT_ONCE):
            specs = b",".join(attributes[at : at + SPECS_AT_ONCE])
            operations.append(
                b'{"op":"mutate_in",%b,"preserveExpiry":true,"operations":[%b]}' % (head, specs)
            )
        return Line(number, key, b"\n".join(operations), place.decode(), len(operations))

    def _place_of(self, members: dict[str, bytes]) -> bytes:
        return b"".join(
            b'"%b":%b,' % (name.encode(), json.dumps(_text(members, name)).encode())
            for name in self._place
            if name in members
        )


def _members(data: bytes) -> dict[str, bytes]:
    """Return the members of a JSON object: name -> value, as written.

    :raises LineError: ``data`` is not one JSON object, or names a member twice.
    """
    try:
        fast_loads(data)
    except ValueError:
        try:
            for _ in check(data):
                pass
        except TooDeep:
            raise LineError("nested too deep") from None
        except NotJson as error:
            raise LineError(f"not JSON: {error}") from None
    if not data.lstrip(b" \t\r\n").startswith(b"{"):
        raise LineError("not a JSON object")
    found: dict[str, bytes] = {}
    for written, start, end in at_once(object_members(data)):
        name = json.loads(written)
        if name in found:
            raise LineError(f"the member {name[:80]!r} is given twice")
        found[name] = data[start:end]
    return found


def _object(text: bytes, name: str) -> dict[str, bytes]:
    if not text.startswith(b"{"):
        raise LineError(f"{name!r} is not an object" if text else f"no member {name!r}")
    try:
        return _members(text)
    except LineError as error:
        raise LineError(f"{name}: {error}") from None


def _only(members: dict[str, bytes], known: set[str], where: str) -> None:
    unknown = members.keys() - known
    if unknown:
        raise LineError(f"{where} has the unknown member {min(unknown)[:80]!r}; is it from a newer version?")


def _text(members: dict[str, bytes], name: str) -> str:
    text = json.loads(members[name])
    if not isinstance(text, str):
        raise LineError(f"{name!r} is not a string")
    return text


def _key(members: dict[str, bytes]) -> tuple[str, bytes]:
    """Return the key as text for reports, and as a member of an operation."""
    if ("id" in members) is ("id_base64" in members):
        raise LineError("expected one of 'id' and 'id_base64'")
    if "id" in members:
        return _text(members, "id"), b'"key":%b' % members["id"]
    text = _text(members, "id_base64")
    try:
        b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise LineError("'id_base64' is not base64") from None
    return text, b'"key_base64":"%b"' % text.encode()


def _number(meta: dict[str, bytes], name: str) -> int:
    number: Any = json.loads(meta.get(name, b"0"))
    if type(number) is not int or not 0 <= number <= _MOST:
        raise LineError(f"'{EXPORT}.meta.{name}' is not a whole number from 0 to {_MOST}")
    return number


def _value(exported: dict[str, bytes]) -> bytes:
    if ("json" in exported) is ("base64" in exported):
        raise LineError(f"'{EXPORT}' takes one of 'json' and 'base64'")
    if "json" in exported:
        return b'"value":' + exported["json"]
    text = _text(exported, "base64")
    try:
        b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise LineError(f"'{EXPORT}.base64' is not base64") from None
    return b'"base64":"%b"' % text.encode()


def _attributes(text: bytes | None) -> Iterator[bytes]:
    """Yield the operations of a mutation that write the attributes."""
    if text is None:
        return
    for name, value in _object(text, f"{EXPORT}.meta.xattrs").items():
        path = json.dumps(name).encode()
        yield b'{"operation":"DictSet","xattr":true,"path":%b,"values":[%b]}' % (path, value)
