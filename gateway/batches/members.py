"""The operations of a batch: one JSON object in, one call of the driver, one JSON object out.

This runs once for every document of a load, so the JSON of a value is never parsed into Python
and printed again: its text is cut out of the line and stored, and spliced into the answer.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from couchbase.protocol.constants import MAX_KEY_BYTES
from couchbase.protocol.jsontext import NotJson, at_once, check, past_blanks
from gateway.cluster.timelimits import TimedConnection, parse_time_limits
from gateway.dialect.contenttypes import FLAGS_BINARY, FLAGS_JSON, FLAGS_TEXT
from gateway.dialect.errors import Fault, bad_request
from gateway.dialect.expiry import expiry_from_expires, expiry_from_ttl
from gateway.dialect.headers import MAX_COPIES, NO_DURABILITY, Durability, parse_cas, parse_durability
from gateway.dialect.jsontools import RepeatedName, dumps, fast_loads, is_json, loads, loads_unique
from gateway.dialect.projection import member_text, object_members
from gateway.dialect.values import BATCH, value_member, value_member_steps
from gateway.fairness.steps import AT_ONCE_BYTES
from gateway.resources.copies import copies, read_waiting
from gateway.resources.counters import MAX_COUNTER, checked_delta, checked_number, count
from gateway.resources.locks import DEFAULT_LOCK_SECONDS

__all__ = ["OPERATIONS", "Kind", "Operation", "failure_line", "read_operation", "success_line"]


class Operation:
    """One operation of a batch, as far as it was read.

    ``key_json`` is the key as the answer shows it, ``null`` while unknown; ``kind`` is ``None``
    until the operation's name was understood.
    """

    __slots__ = ("cas_given", "durable", "key", "key_json", "kind", "members", "raw_value")

    def __init__(self) -> None:
        self.key = b""
        self.key_json = b"null"
        self.kind: Kind | None = None
        self.members: dict[str, Any] = {}
        self.raw_value: bytes | None = None
        self.cas_given = False
        self.durable = False

    @property
    def name(self) -> str:
        """The operation's name; ``""`` while unknown."""
        return self.kind.name if self.kind is not None else ""


class Kind(NamedTuple):
    """One row of :data:`OPERATIONS`."""

    name: str
    members: frozenset[str]
    """The members that its JSON object may have."""
    start: Callable[[Any, Operation, float], Deferred[Any]]
    """(connection, operation, Unix time) -> Deferred of the result."""
    render: Callable[[Any], bytes]
    """Result -> the rest of the answer's object, from a comma on."""
    is_read: bool
    """The answer may be far larger than the operation."""
    success: tuple[str, str]
    """Its name and "ok", as successes are counted."""


# ---- reading -------------------------------------------------------------------------------------

_OPEN_OBJECT, _QUOTE = b'{"'
_NO_OBJECT = 'an operation is a JSON object such as {"op":"get","key":"k"}'


def _read_members(line: bytes) -> tuple[dict[str, Any], bytes | None]:
    """Parse a line; returns its members and the text of ``value`` as it is written there."""
    at = line.find(b'"value":')
    if at > 0:
        # The usual case: "value" comes last. If what is before it and what is after it are both
        # JSON, then so is the line, and nothing had to be parsed twice.
        try:
            head = line[:at] + b'"value":0}'
            members = fast_loads(head)
            text = line[at + 8 :].rstrip()
            if text[-1:] == b"}" and type(members) is dict and "value" in members:
                text = text[:-1].strip(b" \t\r\n")
                # As many colons as members: none is there twice.
                if is_json(text) and (head.count(b":") == len(members) or loads_unique(head)):
                    return members, text
        except RepeatedName as error:
            raise bad_request(str(error)) from None
        except ValueError:
            pass
    return _read_any(line)


def _read_any(line: bytes) -> tuple[dict[str, Any], bytes | None]:
    """Do the same for a line that has ``value`` in the middle, or none."""
    try:
        members = loads(line)
        if type(members) is not dict:
            raise bad_request(_NO_OBJECT)
        if "value" not in members:
            if line.count(b":") != len(members):
                loads_unique(line)
            return members, None
    except RepeatedName as error:
        raise bad_request(str(error)) from None
    except ValueError as error:
        raise bad_request(f"not JSON: {error}") from None
    names = [json.loads(name) for name, _, _ in at_once(object_members(line))]
    if len(names) != len(members):
        twice = next(name for name in names if names.count(name) > 1)
        raise bad_request(str(RepeatedName(twice)))
    return members, member_text(line, "value")


def reading(line: bytes, operation: Operation) -> Generator[None, None, None]:
    """Do what :func:`read_operation` does with a long line; yields after each step of work."""
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
        elif line[start] == _QUOTE:
            members[name] = loads(line[start:end])
        else:
            try:
                # Nothing but a string may be long here.
                members[name] = loads_unique(line[start : min(end, start + AT_ONCE_BYTES)])
            except RepeatedName as error:
                raise bad_request(str(error)) from None
            except ValueError:
                raise bad_request(f"{name[:80]}: the value is too long, or nested too deep") from None
        yield
    _take(members, value, operation)


def read_operation(line: bytes, operation: Operation) -> None:
    """Fill ``operation`` from its JSON text.

    :raises Refusal: 400, with ``operation`` filled as far as possible.
    """
    _take(*_read_members(line), operation)


def _take(members: dict[str, Any], value: bytes | None, operation: Operation) -> None:
    operation.raw_value = value
    if None in members.values():
        # As in all JSON bodies, null counts as missing; but it may be a value.
        members = {name: given for name, given in members.items() if given is not None or name == "value"}
    operation.members = members
    key = members.get("key")
    if type(key) is str:
        try:
            operation.key = key.encode("utf-8")
        except UnicodeEncodeError:
            raise bad_request("key: it contains half of a surrogate pair") from None
        operation.key_json = dumps(key)
    name = members.get("op")
    kind = operation.kind = OPERATIONS.get(name) if type(name) is str else None
    if kind is None:
        raise bad_request(f"op: expected one of {', '.join(OPERATIONS)}")
    if not members.keys() <= kind.members:
        unknown = min(members.keys() - kind.members)
        raise bad_request(
            f"unknown member {unknown[:80]!r}; {kind.name} takes {', '.join(sorted(kind.members))}"
        )
    if type(key) is not str:
        raise bad_request("key: expected a string")
    if not 0 < len(operation.key) <= MAX_KEY_BYTES:
        raise bad_request(f"key: it has {len(operation.key)} bytes; it must have 1 to {MAX_KEY_BYTES}")


def _value(operation: Operation) -> tuple[bytes, int]:
    members = operation.members
    given = [name for name in ("value", "text", "base64") if name in members]
    if len(given) != 1:
        raise bad_request("expected one of value (any JSON), text (a string), base64 (a string)")
    flags = members.get("flags")
    if given[0] == "value":
        assert operation.raw_value is not None
        data, default = operation.raw_value, FLAGS_JSON
    else:
        data, default = _plain(members, given[0])
    return data, default if flags is None else checked_number(flags, "flags", 0, 2**32 - 1)


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


def _addition(operation: Operation) -> bytes:
    given = [name for name in ("text", "base64") if name in operation.members]
    if len(given) != 1:
        raise bad_request("expected one of text (a string), base64 (a string)")
    data = _plain(operation.members, given[0])[0]
    if not data:
        raise bad_request(f"{given[0]}: it is empty, there is nothing to add")
    return data


def _cas(operation: Operation) -> int:
    given = operation.members.get("cas")
    if given is None:
        return 0
    if type(given) is not str:
        raise bad_request("cas: expected a string of hexadecimal digits")
    operation.cas_given = True
    return parse_cas(given.encode("utf-8", "replace"), "cas")


def _ttl(operation: Operation, now: float) -> int | None:
    members = operation.members
    ttl = members.get("ttl")
    expires = members.get("expires")
    if ttl is None:
        if expires is None:
            return None
        if type(expires) is not str:
            raise bad_request("expires: expected a string: a date, a duration as in '90s', or '0' for none")
        return expiry_from_expires(expires, now)
    if expires is not None:
        raise bad_request("expires and ttl both set the expiry; give one of them")
    return expiry_from_ttl(str(checked_number(ttl, "ttl", 0, 2**32 - 1)))


def _durability(operation: Operation) -> Durability:
    members = operation.members
    level = members.get("durabilityLevel")
    if level is not None and type(level) is not str:
        raise bad_request("durabilityLevel: expected a string")
    persist_to = checked_number(members.get("persistTo", 0), "persistTo", -1, MAX_COPIES)
    replicate_to = checked_number(members.get("replicateTo", 0), "replicateTo", -1, MAX_COPIES)
    waits = parse_durability(
        None if level is None else level.encode("utf-8", "replace"),
        b"%d" % persist_to if persist_to else None,
        b"%d" % replicate_to if replicate_to else None,
    )
    operation.durable = waits != NO_DURABILITY
    return waits


_NO_WAITS: dict[str, int] = {}
_DURABILITY_MEMBERS = frozenset({"durabilityLevel", "persistTo", "replicateTo"})


def _waits(operation: Operation) -> dict[str, int]:
    if operation.members.keys().isdisjoint(_DURABILITY_MEMBERS):
        return _NO_WAITS
    waits = _durability(operation)
    if not operation.durable:
        return _NO_WAITS
    return {
        "persist_to": waits.persist_to,
        "replicate_to": waits.replicate_to,
        "durability_level": waits.level,
    }


# ---- running -------------------------------------------------------------------------------------


def _get(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    expiry = _ttl(operation, now)
    if expiry is None:
        return connection.get(operation.key)
    if not expiry:
        raise bad_request("ttl: a get cannot clear the expiry; use touch")
    return connection.get(operation.key, ttl=expiry)


def _get_replica(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    index = operation.members.get("replica", "any")
    if index == "any":
        return connection.rget(operation.key)
    copies_there = connection.configured_replica_count
    index = checked_number(index, "replica", 0, 2)
    if index >= copies_there:
        raise bad_request(f"replica: the bucket has {copies_there} replicas, counted from 0")
    return connection.rget(operation.key, replica_index=index)


def _set(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    value, flags = _value(operation)
    ttl = _ttl(operation, now)
    cas = _cas(operation)
    return connection.set(
        operation.key,
        value,
        cas=cas,
        ttl=ttl or 0,
        format=flags,
        preserve_expiry=ttl is None,
        **_waits(operation),
    )


def _add(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    value, flags = _value(operation)
    ttl = _ttl(operation, now) or 0
    return connection.add(operation.key, value, ttl=ttl, format=flags, **_waits(operation))


def _replace(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    value, flags = _value(operation)
    ttl = _ttl(operation, now)
    return connection.replace(
        operation.key,
        value,
        cas=_cas(operation),
        ttl=ttl or 0,
        format=flags,
        preserve_expiry=ttl is None,
        **_waits(operation),
    )


def _append(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    data = _addition(operation)
    return connection.append(operation.key, data, cas=_cas(operation), **_waits(operation))


def _prepend(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    data = _addition(operation)
    return connection.prepend(operation.key, data, cas=_cas(operation), **_waits(operation))


def _delete(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    return connection.delete(operation.key, cas=_cas(operation), **_waits(operation))


def _count(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    members = operation.members
    delta = checked_delta(members, "incr", "decr")
    initial = members.get("initial")
    if initial is not None:
        initial = checked_number(initial, "initial", 0, MAX_COUNTER)
    ttl = _ttl(operation, now)
    if ttl and initial is None:
        raise bad_request("ttl and expires need 'initial': they count only if the counter is created")
    waits = _durability(operation)
    return count(connection, operation.name, operation.key, delta, initial, ttl or 0, waits)


def _touch(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    ttl = _ttl(operation, now)
    if ttl is None:
        raise bad_request("expected ttl or expires; 0 clears the expiry")
    return connection.touch(operation.key, ttl=ttl)


def _lock(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    seconds = checked_number(operation.members.get("lockTime", 0), "lockTime", 0, 2**32 - 1)
    return connection.lock(operation.key, ttl=seconds or DEFAULT_LOCK_SECONDS)


def _unlock(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    cas = _cas(operation)
    if not cas:
        raise bad_request("cas is missing: it takes what the lock returned")
    return connection.unlock(operation.key, cas)


def _observe(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    master_only = operation.members.get("masterOnly", False)
    if type(master_only) is not bool:
        raise bad_request("masterOnly: expected true or false")
    return (
        connection.observe(operation.key, master_only=True)
        if master_only
        else connection.observe(operation.key)
    )


def _endure(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
    members = operation.members
    timeout, interval = read_waiting(members)
    check_removed = members.get("checkRemoved", False)
    if type(check_removed) is not bool:
        raise bad_request("checkRemoved: expected true or false")
    return connection.endure(
        operation.key,
        persist_to=checked_number(members.get("persistTo", -1), "persistTo", -1, MAX_COPIES),
        replicate_to=checked_number(members.get("replicateTo", -1), "replicateTo", -1, MAX_COPIES),
        cas=_cas(operation),
        check_removed=check_removed,
        timeout=timeout,
        interval=interval,
    )


# ---- rendering -----------------------------------------------------------------------------------


def _with_cas(result: Any) -> bytes:
    return b',"cas":"%08x"}' % result.cas if result.cas else b"}"


class LongValue(Exception):
    """The value of a result is too long to be looked through at once: see :func:`success_steps`."""


def _with_value(result: Any) -> bytes:
    value = result.value
    if len(value) > AT_ONCE_BYTES:
        raise LongValue
    return b',"cas":"%08x","flags":%d,%b}' % (
        result.cas,
        result.flags,
        value_member(BATCH, result.flags, value),
    )


def _with_number(result: Any) -> bytes:
    return b',"cas":"%08x","value":%d}' % (result.cas, result.value)


def _with_copies(result: Any) -> bytes:
    return b',"copies":' + dumps(copies(result)) + b"}"


_CAS = "cas"
_EXPIRY = "ttl expires"
_DURABILITY = "durabilityLevel persistTo replicateTo durabilityTimeout"
_STORE = f"value text base64 flags {_DURABILITY}"
_EXTEND = f"text base64 {_CAS} {_DURABILITY}"


_LIMITS = frozenset({"timeout", "durabilityTimeout"})


def _limited(start: Callable[[Any, Operation, float], Deferred[Any]]) -> Any:
    """Return what starts an operation within the time limits that its members set."""

    def begin(connection: Any, operation: Operation, now: float) -> Deferred[Any]:
        members = operation.members
        if _LIMITS.isdisjoint(members) or operation.name == "endure":
            return start(connection, operation, now)
        for name in _LIMITS & members.keys():
            if type(members[name]) is not str:
                raise bad_request(f"{name}: expected a string: a duration as in '500ms'")
        limits = parse_time_limits(
            members.get("timeout"), members.get("durabilityTimeout"), "timeout", "durabilityTimeout"
        )
        return start(TimedConnection(connection, limits, connection.reactor), operation, now)

    return begin


def _kind(
    name: str,
    members: str,
    start: Callable[[Any, Operation, float], Deferred[Any]],
    render: Callable[[Any], bytes] = _with_cas,
    *,
    is_read: bool = False,
) -> Kind:
    names = ["op", "key", "timeout", *members.split()]
    return Kind(name, frozenset(names), _limited(start), render, is_read, (name, "ok"))


OPERATIONS = {
    kind.name: kind
    for kind in (
        _kind("get", _EXPIRY, _get, _with_value, is_read=True),
        _kind("get_replica", "replica", _get_replica, _with_value, is_read=True),
        _kind("set", f"{_STORE} {_EXPIRY} {_CAS}", _set),
        _kind("add", f"{_STORE} {_EXPIRY}", _add),
        _kind("replace", f"{_STORE} {_EXPIRY} {_CAS}", _replace),
        _kind("append", _EXTEND, _append),
        _kind("prepend", _EXTEND, _prepend),
        _kind("delete", f"{_CAS} {_DURABILITY}", _delete),
        _kind("incr", f"delta initial {_EXPIRY} {_DURABILITY}", _count, _with_number),
        _kind("decr", f"delta initial {_EXPIRY} {_DURABILITY}", _count, _with_number),
        _kind("touch", _EXPIRY, _touch),
        _kind("lock", "lockTime", _lock, _with_value, is_read=True),
        _kind("unlock", _CAS, _unlock),
        _kind("observe", "masterOnly", _observe, _with_copies),
        _kind("endure", "persistTo replicateTo cas checkRemoved timeout interval", _endure),
    )
}
"""Name -> how it is read, run and answered."""


def success_line(index: int, key_json: bytes, kind: Kind, result: Any) -> bytes:
    """Return the answer to an operation that succeeded, one JSON object without a line end.

    :param key_json: the key as JSON.
    """
    return b'{"index":%d,"key":%b,"status":200%b' % (index, key_json, kind.render(result))


def success_steps(index: int, key_json: bytes, kind: Kind, result: Any) -> Generator[None, None, bytes]:
    """Return what :func:`success_line` does, for a long value; yields after each step of work."""
    member = yield from value_member_steps(BATCH, result.flags, result.value)
    head = b'{"index":%d,"key":%b,"status":200,"cas":"%08x","flags":%d,' % (
        index,
        key_json,
        result.cas,
        result.flags,
    )
    return b"".join((head, member, b"}"))


def failure_line(index: int, key_json: bytes, fault: Fault) -> bytes:
    """Return the answer to one that failed."""
    told = dumps(fault.fields())
    return b'{"index":%d,"key":%b,"status":%d,"error":%b}' % (index, key_json, fault.problem.status, told)
