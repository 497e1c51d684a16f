"""Find and change parts of a JSON text without rebuilding the rest of it.

A document is never decoded and encoded again: lookups return the original bytes, and a change splices bytes,
so numbers keep their digits and members their order and spacing. Every function here takes texts that are
known to be valid JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from couchbase.protocol.constants import Status
from couchbase.protocol.jsontext import value_end
from couchnode.data.item import StatusError
from couchnode.kv.paths import Component, Steps

MAX_LEVELS = 32
"""Levels of a document that is read or changed by path: the root is one, and a scalar counts as one below its
container."""

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_OTHERS = rb'[^"\[\]{}]*'
# A string, another scalar, a container without containers; else empty: a container with others in it.
_SIMPLE = (
    rb"(" + _TEXT + rb'|[^"\[\]{},: \t\r\n]+|[\[{]' + _OTHERS + rb"(?:" + _TEXT + _OTHERS + rb")*[\]}]|)"
)
_NAMED = re.compile(rb"(" + _TEXT + rb")[ \t\r\n]*:[ \t\r\n]*" + _SIMPLE, re.DOTALL)
_UNNAMED = re.compile(rb"()" + _SIMPLE, re.DOTALL)
_COMMA = re.compile(rb"[ \t\r\n]*,?[ \t\r\n]*")
_SPACES = b" \t\r\n"
_SCALARS = re.compile(rb"[^\[\]]+")
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})(?:\\u([dD][c-fC-F][0-9a-fA-F]{2}))?|.)", re.DOTALL)
_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OPEN_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b"{[]"
_CONTAINERS = b"[{"


class Span(NamedTuple):
    """The position of a value in the text: from ``start`` up to but not including ``end``."""

    start: int
    end: int


class Member(NamedTuple):
    """One member of an object or element of an array. ``start`` is where its key, if any, begins."""

    start: int
    key: bytes | None
    value: Span


def skip_space(text: bytes, at: int) -> int:
    """Return the position of the next character that is not white space."""
    match = _SPACE.match(text, at)
    return match.end() if match is not None else at


def value_at(text: bytes, at: int) -> Span:
    """Return the span of the value that begins at ``at`` (white space before it is skipped)."""
    start = skip_space(text, at)
    return Span(start, value_end(text, start))


def members(text: bytes, container: Span) -> Iterator[Member]:
    """Walk through the members of an object or the elements of an array."""
    entry = (_NAMED if text[container.start] == _OPEN_OBJECT else _UNNAMED).match
    last = container.end - 1
    at = skip_space(text, container.start + 1)
    while at < last:
        match = entry(text, at)
        assert match is not None, "the text is JSON"
        name, start = match[1], match.start(2)
        # Containers within containers are left to the general case.
        value = Span(start, match.end() if match[2] else value_end(text, start))
        yield Member(at, name[1:-1] if name else None, value)
        at = _behind(text, value.end)


def _behind(text: bytes, at: int) -> int:
    """Return where the next member begins, behind the value that ends there."""
    match = _COMMA.match(text, at)
    return match.end() if match is not None else at


def _named(text: bytes, container: Span, name: bytes) -> Member | None:
    """Return the first member of an object with that name, or ``None``."""
    last = container.end - 1
    at = skip_space(text, container.start + 1)
    match_entry = _NAMED.match
    quoted = b'"' + name + b'"'
    while at < last:
        match = match_entry(text, at)
        assert match is not None, "the text is JSON"
        key, simple = match.groups()
        end = match.end() if simple else value_end(text, match.start(2))
        if key == quoted or (b"\\u" in key and _without_codes(key[1:-1]) == name):
            return Member(at, key[1:-1], Span(match.start(2), end))
        at = _behind(text, end)
    return None


def is_empty(text: bytes, container: Span) -> bool:
    """Return whether a container has nothing in it."""
    return skip_space(text, container.start + 1) == container.end - 1


def levels(text: bytes) -> int:
    """Return how many levels the values of a text have: 1 for scalars and empty containers.

    The text may be a part of a container between its brackets: it is taken for one value, of which the
    separators do not matter.
    """
    if b"[" not in text and b"{" not in text:
        return 1
    # In steps that each are one pass in C: strings away, which may have brackets in them; every scalar an
    # empty container; then the innermost containers away, until none is left.
    left = _STRING.sub(b"0", text).translate(_TO_BRACKETS, b" \t\r\n,:")
    left = _SCALARS.sub(b"[]", left)
    count = 0
    while left:
        left = left.replace(b"[]", b"")
        count += 1
    return count


def _check_levels(part: bytes, above: int) -> None:
    """Refuse a part of a document that is too deep, below so many levels.

    :raises StatusError: SUBDOC_DOC_E2DEEP.
    """
    if above + 1 + part.count(b"[") + part.count(b"{") <= MAX_LEVELS or not part.strip():
        return
    if above + levels(part) > MAX_LEVELS:
        raise StatusError(Status.SUBDOC_DOC_E2DEEP)


def child(text: bytes, container: Span, step: Component) -> Member | None:
    """Return one member of a container, or ``None`` if it has no such member.

    :raises StatusError: SUBDOC_PATH_MISMATCH if the container is of another kind than the step needs.
    """
    opener = text[container.start]
    if isinstance(step, bytes):
        if opener != _OPEN_OBJECT:
            raise StatusError(Status.SUBDOC_PATH_MISMATCH)
        return _named(text, container, step)
    if opener != _OPEN_ARRAY:
        raise StatusError(Status.SUBDOC_PATH_MISMATCH)
    found = None
    for index, member in enumerate(members(text, container)):
        found = member
        if index == step:
            return member
    return found if step == -1 else None


def _without_codes(key: bytes) -> bytes:
    """Return a key with the characters that it has as ``\\uXXXX``; other escapes stay."""

    def character(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            return match[0]
        code = int(match[1], 16)
        if match[2] is None:
            return chr(code).encode("utf-8", "surrogatepass")
        if not 0xD800 <= code < 0xDC00:
            return (chr(code) + chr(int(match[2], 16))).encode("utf-8", "surrogatepass")
        return chr(0x10000 + ((code - 0xD800) << 10) + int(match[2], 16) - 0xDC00).encode()

    return _ESCAPE.sub(character, key)


def find(text: bytes, steps: Steps) -> Span:
    """Return the span of the value at a path.

    :raises StatusError: SUBDOC_PATH_ENOENT, SUBDOC_PATH_MISMATCH, SUBDOC_DOC_E2DEEP, SUBDOC_DOC_NOT_JSON.
    """
    span, left = descend(text, steps)
    if left:
        raise StatusError(Status.SUBDOC_PATH_ENOENT)
    return span


def descend(text: bytes, steps: Steps) -> tuple[Span, Steps]:
    """Follow a path as far as it exists: the value reached, and the steps that are left.

    What is behind the value is not looked at.

    :raises StatusError: SUBDOC_DOC_NOT_JSON for a document that is a scalar, SUBDOC_PATH_MISMATCH,
        SUBDOC_DOC_E2DEEP.
    """
    member, left = reach(text, steps)
    return member.value, left


def reach(text: bytes, steps: Steps) -> tuple[Member, Steps]:
    """Do as :func:`descend` for the value with its key; the document itself counts as a member without."""
    # The text is one value: its end need not be searched for.
    span = Span(skip_space(text, 0), len(text.rstrip(_SPACES)))
    reached = Member(span.start, None, span)
    if text[span.start] not in _CONTAINERS:
        raise StatusError(Status.SUBDOC_DOC_NOT_JSON)
    for at, step in enumerate(steps):
        member = child(text, span, step)
        passed = span.end - 1 if member is None else member.start
        _check_levels(text[span.start + 1 : passed], at + 1)
        if member is None:
            return reached, steps[at:]
        reached, span = member, member.value
    _check_levels(text[span.start : span.end], len(steps))
    return reached, ()


def splice(text: bytes, span: Span, replacement: bytes) -> bytes:
    """Return the text with a span replaced."""
    return text[: span.start] + replacement + text[span.end :]


def insert_last(text: bytes, container: Span, entry: bytes) -> bytes:
    """Return the text with ``entry`` before the bracket that closes the container."""
    last = container.end - 1
    if is_empty(text, container):
        # White space of an empty object stays, that of an empty array does not, as on the server.
        begin = container.start + 1 if text[last] == _CLOSE_ARRAY else last
        return text[:begin] + entry + text[last:]
    return text[:last] + b"," + entry + text[last:]


def insert_before(text: bytes, member: Member, entry: bytes) -> bytes:
    """Return the text with ``entry`` before that element."""
    return text[: member.start] + entry + b"," + text[member.start :]


def remove(text: bytes, member: Member) -> bytes:
    """Return the text without that member, and without one comma beside it: the one behind it, or else the
    one before."""
    before, after = text[: member.start], text[member.value.end :]
    at = skip_space(after, 0)
    if after[at] == b","[0]:
        return before + after[at + 1 :]
    stripped = before.rstrip(b" \t\r\n")
    return (stripped[:-1] if stripped.endswith(b",") else before) + after


def wrap(steps: Steps, value: bytes) -> bytes:
    """Return ``value`` inside new objects, one for each key.

    :raises StatusError: SUBDOC_PATH_ENOENT for an index: arrays are not created.
    """
    for step in reversed(steps):
        if not isinstance(step, bytes):
            raise StatusError(Status.SUBDOC_PATH_ENOENT)
        value = b'{"' + step + b'":' + value + b"}"
    return value
