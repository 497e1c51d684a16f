"""Parser of the JSON bodies of ``lookup`` and ``mutate``, and of the same members in batch lines.

Values keep their text, so numbers keep all their digits: they are cut out of the body, or known to serialize
to the text that they were parsed from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

from couchbase.protocol.jsontext import NotJson, at_once, check, members, past_blanks, skip
from gateway.dialect.errors import bad_request
from gateway.dialect.jsontools import RepeatedName, dumps, fast_loads, loads_unique, without_mark, writer_of

__all__ = ["PathOperation", "only_operations", "operations_of", "parse_body", "parsing_body"]

MAX_PLAIN_BYTES = 64 * 1024
"""Longest text of a member other than a value."""

_OPEN_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b"{[]"


class PathOperation(NamedTuple):
    """One operation on a path, as the request gives it."""

    members: dict[str, Any]
    """The members other than the values; ``null`` counts as missing."""
    value: bytes | None = None
    """The text of ``value``; ``None`` if it is missing or ``null``."""
    values: tuple[bytes, ...] | None = None
    """The texts of the elements of ``values``."""


def parse_body(body: bytes, names: frozenset[str]) -> dict[str, Any]:
    """Do all of :func:`parsing_body` at once, for a body that is not long."""
    found = _parse_plain(body)
    if found is None:
        return at_once(parsing_body(body, names))
    _check_names(found, names)
    return found


def parsing_body(body: bytes, names: frozenset[str]) -> Generator[None, None, dict[str, Any]]:
    """Return the members of a body, with ``operations`` as a list of :class:`PathOperation`, in steps.

    :param names: the members that the body may have.
    :raises Refusal: 400 if the body is not JSON, is not an object, has other members, or repeats one.
    """
    takes = _takes(names)
    body = without_mark(body)
    if not body:
        raise bad_request(f"the request has no body; it takes {takes}")
    try:
        yield from check(body, fast_loads)
    except NotJson:
        raise bad_request(f"the body is not JSON; it takes {takes}") from None
    at = yield from past_blanks(body, 0)
    if body[at] != _OPEN_OBJECT:
        raise bad_request(f"the body is JSON but not an object; it takes {takes}")
    found: dict[str, Any] = {}
    for name, start, end in _named((yield from members(body, at)), found, "the body is invalid: "):
        if name == "operations":
            found[name] = yield from operations_of(body[start:end])
        else:
            found[name] = _plain(body[start:end], name)
    found = {name: given for name, given in found.items() if given is not None}
    _check_names(found, names)
    return found


def operations_of(text: bytes) -> Generator[None, None, list[PathOperation] | None]:
    """Return the operations in a JSON array of objects, ``None`` for ``null``, in steps.

    :param text: text that is known to be JSON, without surrounding blanks.
    :raises Refusal: 400 if it is anything else.
    """
    if text == b"null":
        return None
    if text[0] != _OPEN_ARRAY:
        raise bad_request("operations: expected a list of objects")
    operations: list[PathOperation] = []
    for start, _ in (yield from _elements(text, 0)):
        where = f"operations[{len(operations)}]"
        if text[start] != _OPEN_OBJECT:
            raise bad_request(f"{where}: expected an object")
        plain: dict[str, Any] = {}
        value, values = None, None
        for name, begin, end in _named((yield from members(text, start)), plain, f"{where}: "):
            plain[name] = None
            if name == "value":
                value = text[begin:end]
            elif name == "values" and text[begin] == _OPEN_ARRAY:
                parts = yield from _elements(text, begin)
                values = tuple(text[first:last] for first, last in parts)
            else:
                plain[name] = _plain(text[begin:end], f"{where}.{name[:80]}")
                if name == "values" and plain[name] is not None:
                    raise bad_request(f"{where}.values: expected a list of JSON values")
        given = {name: known for name, known in plain.items() if known is not None}
        operations.append(PathOperation(given, None if value == b"null" else value, values))
        yield
    return operations


def _named(
    found: list[tuple[bytes, int, int]], seen: dict[str, Any], where: str
) -> Iterator[tuple[str, int, int]]:
    """Yield the members of an object with decoded names; raises Refusal (400) for a repeated one."""
    for written, start, end in found:
        name = json.loads(written)
        if name in seen:
            raise bad_request(f"{where}{RepeatedName(name)}")
        yield name, start, end


def _plain(text: bytes, where: str) -> Any:
    """Return the value of a member whose text is not stored."""
    if len(text) > MAX_PLAIN_BYTES:
        raise bad_request(f"{where}: it has more than {MAX_PLAIN_BYTES} bytes")
    try:
        return loads_unique(text)
    except ValueError:
        raise bad_request(f"{where}: expected a string, a number, true or false") from None


def _elements(text: bytes, at: int) -> Generator[None, None, list[tuple[int, int]]]:
    """Return start and end of each element of the array that begins at ``at``."""
    found = []
    at = yield from past_blanks(text, at + 1)
    while text[at] != _CLOSE_ARRAY:
        end = yield from skip(text, at)
        found.append((at, end))
        at = yield from past_blanks(text, end)
    return found


def _check_names(found: dict[str, Any], names: frozenset[str]) -> None:
    for name in found:
        if name not in names:
            raise bad_request(f"the body has an unknown member {name[:80]!r}; it takes {_takes(names)}")


def _takes(names: frozenset[str]) -> str:
    return "a JSON object with " + ", ".join(sorted(names))


# ---- the usual body ------------------------------------------------------------------------------


def only_operations(body: bytes, also: str | None = None) -> tuple[Any, TextOf, Any]:
    """Return the parsed operations of a body that has at most one other member, a function that returns the
    text of a value in them, and the other member.

    The function raises TypeError for a value whose text is not known.

    :param also: name of the other member; ``None`` for none.
    :returns: the members are of any type; the other is ``None`` if it is missing.
    :raises ValueError, TypeError, LookupError: the body is another one, or has to be refused: both are left
        to the general parser.
    """
    found = fast_loads(body)
    operations = found["operations"]
    more = None
    if len(found) != 1:
        if len(found) != 2:
            raise ValueError("there are other members")
        more = found[also]
    if dumps(found) == body:
        return operations, dumps, more
    text_of = _text_of(body, found, operations)
    if text_of is None:
        raise ValueError("the texts of the values are not known")
    return operations, text_of, more


TextOf = Callable[[Any], bytes]


def _text_of(body: bytes, found: Any, operations: Any) -> TextOf | None:
    """Return a function that returns the text of each value in a body, as it is written there.

    :param found: the parsed body; ``operations`` is a member of it.
    """
    body = body.rstrip(b" \r\n")
    text_of = writer_of(body, found)
    if text_of is not None:
        return text_of
    # Otherwise the text of a scalar is known if it has no other form. A body with more colons than members
    # may repeat a member, or have objects as values.
    count = len(found) + sum(map(len, operations))
    if b"\\" in body or b"-0" in body or body.count(b":") != count:
        return None
    return _scalar_text


def _scalar_text(value: Any) -> bytes:
    if type(value) not in _EXACT:
        raise TypeError("the text may have been another one")
    return dumps(value)


def _parse_plain(body: bytes) -> dict[str, Any] | None:
    """Parse a body whose values are known from the parsed ones; ``None`` for any other body, which is left to
    :func:`parsing_body`."""
    try:
        found = fast_loads(body)
        if type(found) is not dict or type(found.get("operations")) is not list or None in found.values():
            return None
        given = found["operations"]
        text_of = _text_of(body, found, given)
        if text_of is None:
            return None
        operations: list[PathOperation] = []
        for members_ in given:
            if type(members_) is not dict or "values" in members_ or None in members_.values():
                return None
            value = members_.pop("value", None)
            operations.append(PathOperation(members_, None if value is None else text_of(value)))
    except (ValueError, TypeError):
        return None
    found["operations"] = operations
    return found


_EXACT = frozenset({int, str, bool})
"""Types whose text does not change by parsing and serializing."""
