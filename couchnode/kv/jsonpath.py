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

MAX_PATH_BYTES = 1024
MAX_DEPTH = 32

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_INDEX = re.compile(rb"\[(-1|0|[1-9][0-9]{0,9})\]")
_PLAIN_KEY = re.compile(rb"[^.\[\]`]+")
_QUOTED_KEY = re.compile(rb"`((?:[^`]|``)*)`")
_OPEN_OBJECT, _OPEN_ARRAY = b"{["


class Span(NamedTuple):
    """The position of a value in the text: from ``start`` up to but not including ``end``."""

    start: int
    end: int


class Member(NamedTuple):
    """One member of an object or element of an array. ``start`` is where its key, if any, begins."""

    start: int
    key: bytes | None
    value: Span


Component = bytes | int
"""One step of a path: a member's key as JSON escapes it, or an index (-1 is the last)."""


def parse_path(path: bytes) -> list[Component]:
    """Split a path into its steps; an empty path has none.

    Steps are separated by dots; ``[n]`` steps into an array and ``[-1]`` to its last element; back
    quotes around a key make dots and brackets part of it (doubled for a back quote).

    :raises StatusError: SUBDOC_PATH_E2BIG over 1024 bytes or 32 steps, SUBDOC_PATH_EINVAL.
    """
    if len(path) > MAX_PATH_BYTES:
        raise StatusError(Status.SUBDOC_PATH_E2BIG)
    steps: list[Component] = []
    at, end = 0, len(path)
    expects_key = True
    while at < end:
        if path[at] == _OPEN_ARRAY:
            match = _INDEX.match(path, at)
            if match is None or (expects_key and steps):
                raise StatusError(Status.SUBDOC_PATH_EINVAL)
            steps.append(int(match[1]))
        else:
            quoted = _QUOTED_KEY.match(path, at)
            match = quoted or _PLAIN_KEY.match(path, at)
            if match is None or not expects_key:
                raise StatusError(Status.SUBDOC_PATH_EINVAL)
            steps.append(quoted[1].replace(b"``", b"`") if quoted else match[0])
        at = match.end()
        expects_key = False
        if at < end and path[at] == b"."[0]:
            at += 1
            expects_key = True
            if at == end:
                raise StatusError(Status.SUBDOC_PATH_EINVAL)
    if len(steps) > MAX_DEPTH:
        raise StatusError(Status.SUBDOC_PATH_E2BIG)
    for step in steps:
        if isinstance(step, bytes) and not _is_json_string(step):
            raise StatusError(Status.SUBDOC_PATH_EINVAL)
    return steps


def _is_json_string(key: bytes) -> bool:
    """Whether the key can stand between quotes as it is: clients escape it themselves."""
    match = _STRING.fullmatch(b'"' + key + b'"')
    return match is not None and min(key, default=32) >= 32


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
    is_object = text[container.start] == _OPEN_OBJECT
    last = container.end - 1
    at = skip_space(text, container.start + 1)
    while at < last:
        start, key = at, None
        if is_object:
            name = value_at(text, at)
            key = text[name.start + 1 : name.end - 1]
            at = skip_space(text, name.end) + 1
        value = value_at(text, at)
        yield Member(start, key, value)
        at = skip_space(text, skip_space(text, value.end) + 1)


def child(text: bytes, container: Span, step: Component) -> Member | None:
    """Return one member of a container, or ``None`` if it has no such member.

    :raises StatusError: SUBDOC_PATH_MISMATCH if the container is of another kind than the step needs.
    """
    opener = text[container.start]
    if isinstance(step, bytes):
        if opener != _OPEN_OBJECT:
            raise StatusError(Status.SUBDOC_PATH_MISMATCH)
        return next((member for member in members(text, container) if member.key == step), None)
    if opener != _OPEN_ARRAY:
        raise StatusError(Status.SUBDOC_PATH_MISMATCH)
    found = None
    for index, member in enumerate(members(text, container)):
        found = member
        if index == step:
            return member
    return found if step == -1 else None


def find(text: bytes, steps: list[Component]) -> Span:
    """Return the span of the value at a path.

    :raises StatusError: SUBDOC_PATH_ENOENT, SUBDOC_PATH_MISMATCH.
    """
    span, left = descend(text, steps)
    if left:
        raise StatusError(Status.SUBDOC_PATH_ENOENT)
    return span


def descend(text: bytes, steps: list[Component]) -> tuple[Span, list[Component]]:
    """Follow a path as far as it exists: the value reached, and the steps that are left."""
    span = value_at(text, 0)
    for at, step in enumerate(steps):
        member = child(text, span, step)
        if member is None:
            return span, steps[at:]
        span = member.value
    return span, []


def splice(text: bytes, span: Span, replacement: bytes) -> bytes:
    """Return the text with a span replaced."""
    return text[: span.start] + replacement + text[span.end :]


def insert_first(text: bytes, container: Span, entry: bytes) -> bytes:
    """Return the text with ``entry`` before everything in the container."""
    first = next(members(text, container), None)
    at = container.start + 1
    return text[:at] + entry + (b"," if first is not None else b"") + text[at:]


def insert_last(text: bytes, container: Span, entry: bytes) -> bytes:
    """Return the text with ``entry`` after everything in the container."""
    ends = [member.value.end for member in members(text, container)]
    if not ends:
        return insert_first(text, container, entry)
    return text[: ends[-1]] + b"," + entry + text[ends[-1] :]


def insert_before(text: bytes, member: Member, entry: bytes) -> bytes:
    """Return the text with ``entry`` before that element."""
    return text[: member.start] + entry + b"," + text[member.start :]


def remove(text: bytes, container: Span, member: Member) -> bytes:
    """Return the text without that member, and without the comma that it leaves behind."""
    after = skip_space(text, member.value.end)
    if text[after] == b","[0]:
        return text[: member.start] + text[skip_space(text, after + 1) :]
    before = member.start
    for other in members(text, container):
        if other.start == member.start:
            break
        before = other.value.end
    return text[:before] + text[member.value.end :]


def wrap(steps: list[Component], value: bytes) -> bytes:
    """Return ``value`` inside new objects, one for each key.

    :raises StatusError: SUBDOC_PATH_ENOENT for an index: arrays are not created.
    """
    for step in reversed(steps):
        if not isinstance(step, bytes):
            raise StatusError(Status.SUBDOC_PATH_ENOENT)
        value = b'{"' + step + b'":' + value + b"}"
    return value
