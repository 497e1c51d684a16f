"""Parser of a batch's lines: one JSON object each, for one operation.

The parser runs once for every document of a bulk load, so the JSON of a value is never parsed and serialized
again: its text is cut out of the line and stored.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Generator
from typing import Any

from couchbase.protocol.constants import MAX_COLLECTION_KEY_BYTES, MAX_KEY_BYTES
from couchbase.protocol.jsonparsing import first_repeated
from couchbase.protocol.jsontext import NotJson, at_once, check, past_blanks
from gateway.cluster.credentials import LineCheck
from gateway.cluster.timelimits import NO_LIMITS, TimedConnection, TimeLimits, parse_time_limits
from gateway.dialect.conditions import NO_CONDITION, Condition, Versions
from gateway.dialect.contenttypes import FLAGS_BINARY, FLAGS_JSON, FLAGS_TEXT
from gateway.dialect.errors import bad_request
from gateway.dialect.expiry import expiry_from_expires, expiry_from_ttl
from gateway.dialect.headers import MAX_COPIES, NO_DURABILITY, Durability, parse_cas, parse_durability
from gateway.dialect.jsontools import RepeatedName, dumps, fast_loads, is_json, loads, loads_unique
from gateway.dialect.numbers import checked_number
from gateway.dialect.places import DEFAULT_PLACE, Place, place_of
from gateway.dialect.projection import member_text, object_members
from gateway.dialect.subdocuments import operations_of
from gateway.fairness.steps import AT_ONCE_BYTES, is_dense
from gateway.operations.kind import Kind, Plan, Words
from gateway.operations.table import OPERATIONS

__all__ = ["DenseLine", "LineOperation", "limits_of", "plan_of", "read_operation", "reading", "start"]

_WORDS = Words(
    version="cas",
    told_as="what",
    expiry="ttl and expires need",
    add="incr",
    subtract="decr",
)

_DURABILITY = frozenset({"durabilityLevel", "persistTo", "replicateTo"})
_LIMITS = frozenset({"timeout", "durabilityTimeout"})


class LineOperation:
    """One operation of a batch, as far as it was parsed; the source of its parameters.

    See :class:`gateway.operations.kind.Source` and :class:`gateway.operations.kind.Explained` for its methods
    and for ``operation``, ``cas_given`` and ``durable``. ``key_json`` is the key as the answer shows it,
    ``null`` while unknown; ``kind`` is ``None`` until the operation's name is known.
    """

    __slots__ = ("cas_given", "durable", "key", "key_json", "kind", "members", "operation", "raw_value")

    words = _WORDS

    def __init__(self) -> None:
        self.key = b""
        self.key_json = b"null"
        self.kind: Kind | None = None
        self.members: dict[str, Any] = {}
        self.raw_value: bytes | None = None
        self.operation = ""
        self.cas_given = False
        self.durable = False

    @property
    def name(self) -> str:
        """The operation's name; ``""`` while unknown."""
        return self.kind.name if self.kind is not None else ""

    def condition(self) -> Condition:
        """Return ``cas`` as a condition."""
        cas = self.version()
        return Condition(Versions(frozenset((cas,)))) if cas else NO_CONDITION

    def version(self) -> int:
        """Return ``cas``."""
        given = self.members.get("cas")
        if given is None:
            return 0
        if type(given) is not str:
            raise bad_request("cas: expected a string of hexadecimal digits")
        return parse_cas(given.encode("utf-8", "replace"), "cas")

    def expiry(self, now: float) -> int | None:
        """Return the expiry in ``ttl`` or ``expires``."""
        ttl = self.members.get("ttl")
        expires = self.members.get("expires")
        if ttl is None:
            if expires is None:
                return None
            if type(expires) is not str:
                raise bad_request(
                    "expires: expected a string: a date, a duration as in '90s', or '0' for none"
                )
            return expiry_from_expires(expires, now)
        if expires is not None:
            raise bad_request("expires and ttl both set the expiry; give one of them")
        return expiry_from_ttl(str(checked_number(ttl, "ttl", 0, 2**32 - 1)))

    def touched_expiry(self, now: float) -> int:
        """Return the expiry, which is required for a touch."""
        expiry = self.expiry(now)
        if expiry is None:
            raise bad_request("expected ttl or expires; 0 clears the expiry")
        return expiry

    def durability(self) -> Durability:
        """Return the durability in ``durabilityLevel``, ``persistTo`` and ``replicateTo``."""
        members = self.members
        if members.keys().isdisjoint(_DURABILITY):
            return NO_DURABILITY
        level = members.get("durabilityLevel")
        if level is not None and type(level) is not str:
            raise bad_request("durabilityLevel: expected a string")
        persist_to = checked_number(members.get("persistTo", 0), "persistTo", -1, MAX_COPIES)
        replicate_to = checked_number(members.get("replicateTo", 0), "replicateTo", -1, MAX_COPIES)
        return parse_durability(
            None if level is None else level.encode("utf-8", "replace"),
            b"%d" % persist_to if persist_to else None,
            b"%d" % replicate_to if replicate_to else None,
        )

    def look_at_value(self) -> None:
        """Do nothing: the whole line has arrived."""

    def value(self) -> tuple[bytes, int]:
        """Return the value in ``value``, ``text`` or ``base64``, with ``flags``."""
        members = self.members
        given = [name for name in ("value", "text", "base64") if name in members]
        if len(given) != 1:
            raise bad_request("expected one of value (any JSON), text (a string), base64 (a string)")
        flags = members.get("flags")
        if given[0] == "value":
            assert self.raw_value is not None
            data, default = self.raw_value, FLAGS_JSON
        else:
            data, default = _plain(members, given[0])
        return data, default if flags is None else checked_number(flags, "flags", 0, 2**32 - 1)

    def addition(self, how: str) -> bytes:
        """Return the bytes in ``text`` or ``base64``."""
        given = [name for name in ("text", "base64") if name in self.members]
        if len(given) != 1:
            raise bad_request("expected one of text (a string), base64 (a string)")
        data = _plain(self.members, given[0])[0]
        if not data:
            raise bad_request(f"{given[0]}: it is empty; expected something to add")
        return data


def _plain(members: dict[str, Any], name: str) -> tuple[bytes, int]:
    given = members[name]
    if type(given) is not str:
        raise bad_request(f"{name}: expected a string")
    try:
        if name == "text":
            return given.encode("utf-8"), FLAGS_TEXT
        return b64decode(given, validate=True), FLAGS_BINARY
    except (binascii.Error, ValueError):
        raise bad_request(f"{name}: the string is not {'UTF-8' if name == 'text' else 'base64'}") from None


def limits_of(operation: LineOperation) -> TimeLimits:
    """Return the time limits that an operation's members set; raises Refusal (400)."""
    members = operation.members
    if _LIMITS.isdisjoint(members) or operation.kind is None or not operation.kind.takes_timeout:
        return NO_LIMITS
    for name in _LIMITS & members.keys():
        if type(members[name]) is not str:
            raise bad_request(f"{name}: expected a string: a duration as in '500ms'")
    return parse_time_limits(
        members.get("timeout"), members.get("durabilityTimeout"), "timeout", "durabilityTimeout"
    )


def plan_of(operation: LineOperation, now: float) -> Plan:
    """Return the plan of an operation; raises Refusal (400).

    :param now: Unix time in seconds.
    """
    assert operation.kind is not None
    return operation.kind.plan(operation.kind.read(operation.members, _WORDS), operation, now)


def start(
    connection: Any,
    operation: LineOperation,
    now: float,
    place: Place = DEFAULT_PLACE,
    check: LineCheck | None = None,
) -> Any:
    """Start an operation, within the time limits that its members set.

    :param now: Unix time in seconds.
    :param place: the collection for lines that name none.
    :param check: checks whether the caller may do it; ``None`` if the caller may do everything.
    :returns: Deferred of the result.
    :raises Refusal: 400, or that of ``check``.
    """
    row = operation.kind
    assert row is not None
    members = operation.members
    limits = limits_of(operation)
    if limits is not NO_LIMITS:
        connection = TimedConnection(connection, limits, connection.reactor)
    plan = plan_of(operation, now)
    if "scope" in members or "collection" in members:
        place = place_of(members.get("scope", place[0]), members.get("collection", place[1]))
    if check is not None:
        check(row.name, place)
    if place != DEFAULT_PLACE:
        most = MAX_COLLECTION_KEY_BYTES
        if len(operation.key) > most:
            raise bad_request(f"key: it has {len(operation.key)} bytes; it must have 1 to {most}")
        connection = connection.within(*place)
    return plan.start(connection, operation.key, operation)


class DenseLine(Exception):
    """The line has so many parts that :func:`reading` has to read it, in steps."""


# ---- reading -------------------------------------------------------------------------------------

_OPEN_OBJECT, _QUOTE = b'{"'
_NO_OBJECT = 'an operation is a JSON object such as {"op":"get","key":"k"}'


def _read_members(line: bytes) -> tuple[dict[str, Any], bytes | None]:
    """Parse a line; returns its members and the original text of ``value``."""
    at = line.find(b'"value":')
    if at > 0:
        # The usual case: "value" comes last. If the text before it and the value are both JSON, so is the
        # line, and nothing is parsed twice.
        try:
            head = line[:at] + b'"value":0}'
            members = fast_loads(head)
            text = line[at + 8 :].rstrip()
            if text[-1:] == b"}" and type(members) is dict and "value" in members:
                text = text[:-1].strip(b" \t\r\n")
                # There are as many colons as members, so no member is repeated.
                if is_json(text) and (head.count(b":") == len(members) or loads_unique(head)):
                    return members, text
        except RepeatedName as error:
            raise bad_request(str(error)) from None
        except ValueError:
            pass
    return _read_any(line)


def _read_any(line: bytes) -> tuple[dict[str, Any], bytes | None]:
    """Do the same for a line with ``value`` in the middle, or without it."""
    if is_dense(line):
        raise DenseLine
    try:
        members = loads(line)
        if type(members) is not dict:
            raise bad_request(_NO_OBJECT)
        if "operations" in members:
            members["operations"] = at_once(operations_of(member_text(line, "operations")))
        elif "value" not in members:
            if line.count(b":") != len(members):
                loads_unique(line)
            return members, None
    except RepeatedName as error:
        raise bad_request(str(error)) from None
    except ValueError as error:
        raise bad_request(f"not JSON: {error}") from None
    names = [json.loads(name) for name, _, _ in at_once(object_members(line))]
    if len(names) != len(members):
        raise bad_request(str(RepeatedName(first_repeated(names))))
    return members, member_text(line, "value") if "value" in members else None


def reading(line: bytes, operation: LineOperation) -> Generator[None, None, None]:
    """Do the same as :func:`read_operation`, for a long line; yields after each step of work."""
    try:
        yield from check(line, fast_loads)
        start = yield from past_blanks(line, 0)
        if line[start] != _OPEN_OBJECT:
            raise bad_request(_NO_OBJECT)
        found = yield from object_members(line)
    except NotJson as error:
        raise bad_request(f"not JSON: {error}") from None
    members: dict[str, Any] = {}
    value = None
    for written, start, end in found:
        name = json.loads(written)
        if name in members:
            raise bad_request(str(RepeatedName(name)))
        if name == "value":
            value = line[start:end]
            members[name] = 0
        elif name == "operations":
            members[name] = yield from operations_of(line[start:end])
        elif line[start] == _QUOTE:
            members[name] = loads(line[start:end])
        else:
            try:
                # Only a string may be long here.
                members[name] = loads_unique(line[start : min(end, start + AT_ONCE_BYTES)])
            except RepeatedName as error:
                raise bad_request(str(error)) from None
            except ValueError:
                raise bad_request(f"{name[:80]}: the value is too long, or nested too deep") from None
        yield
    _take(members, value, operation)


def read_operation(line: bytes, operation: LineOperation) -> None:
    """Fill ``operation`` from its JSON text.

    :raises Refusal: 400, with ``operation`` filled as far as possible.
    :raises DenseLine: it has to be read in steps; ``operation`` is unchanged.
    """
    _take(*_read_members(line), operation)


def _take(members: dict[str, Any], value: bytes | None, operation: LineOperation) -> None:
    operation.raw_value = value
    if None in members.values():
        # As in all JSON bodies, null counts as missing, except for the value.
        members = {name: given for name, given in members.items() if given is not None or name == "value"}
    operation.members = members
    key = members.get("key")
    if type(key) is str:
        try:
            operation.key = key.encode("utf-8")
        except UnicodeEncodeError:
            raise bad_request("key: it contains half of a surrogate pair") from None
        operation.key_json = dumps(key)
    elif "key_base64" in members and key is None:
        operation.key = _plain(members, "key_base64")[0]
        operation.key_json = b'null,"key_base64":' + dumps(members["key_base64"])
        key = ""
    name = members.get("op")
    kind = operation.kind = OPERATIONS.get(name) if type(name) is str else None
    if kind is None:
        raise bad_request(f"op: expected one of {', '.join(OPERATIONS)}")
    if not members.keys() <= kind.members:
        unknown = min(members.keys() - kind.members)
        raise bad_request(
            f"unknown member {unknown[:80]!r}; {kind.name} takes {', '.join(sorted(kind.members))}"
        )
    operation.operation = kind.name
    if type(key) is not str:
        raise bad_request("key: expected a string")
    if "key" in members and "key_base64" in members:
        raise bad_request("key and key_base64 both name the document; give one of them")
    for name in ("scope", "collection"):
        if type(members.get(name, "")) is not str:
            raise bad_request(f"{name}: expected a string")
    if not 0 < len(operation.key) <= MAX_KEY_BYTES:
        raise bad_request(f"key: it has {len(operation.key)} bytes; it must have 1 to {MAX_KEY_BYTES}")
