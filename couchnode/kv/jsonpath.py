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
from couchnode.kv.paths import Steps

MAX_LEVELS = 32
"""Most levels of a document that is read or changed by path. The root is one level, and a scalar counts as
one level below its container."""

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_OTHERS = rb'[^"\[\]{}]*'
# A string, another scalar, or a container without containers. Empty for a container with others in it.
_WHOLE = _TEXT + rb'|[^"\[\]{},: \t\r\n]+|[\[{]' + _OTHERS + rb"(?:" + _TEXT + _OTHERS + rb")*[\]}]"
_SIMPLE = rb"(" + _WHOLE + rb"|)"
_NAMED = re.compile(rb"(" + _TEXT + rb")[ \t\r\n]*:[ \t\r\n]*" + _SIMPLE, re.DOTALL)
_UNNAMED = re.compile(rb"()" + _SIMPLE, re.DOTALL)
# Members with simple values and names without escapes, each with the comma after it.
_MEMBERS = re.compile(
    rb'[ \t\r\n]*(?:"[^"\\]*"[ \t\r\n]*:[ \t\r\n]*(?:' + _WHOLE + rb")[ \t\r\n]*,[ \t\r\n]*)*", re.DOTALL
)
_COMMA = re.compile(rb"[ \t\r\n]*,?[ \t\r\n]*")
# Any number of simple values and the text between them.
_FLAT = re.compile(
    _OTHERS
    + rb"(?:(?:"
    + _TEXT
    + rb"|[\[{]"
    + _OTHERS
    + rb"(?:"
    + _TEXT
    + _OTHERS
    + rb")*[\]}])"
    + _OTHERS
    + rb")*",
    re.DOTALL,
)
_STEP_BYTES = 8 * 1024
_SCALARS = re.compile(rb"[^\[\]]+")
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})(?:\\u([dD][c-fC-F][0-9a-fA-F]{2}))?|.)", re.DOTALL)
_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b"{}[]"
_QUOTE, _BLANK = b'" '
_CONTAINERS, _CLOSERS = b"[{", b"]}"


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
    """Return where the next member begins, after the value that ends there."""
    match = _COMMA.match(text, at)
    return match.end() if match is not None else at


def is_empty(text: bytes, container: Span) -> bool:
    """Return whether a container is empty."""
    return skip_space(text, container.start + 1) == container.end - 1


def levels(text: bytes) -> int:
    """Return the number of levels in a text: 1 for scalars and empty containers.

    The text may be part of a container's content: it is treated as one value, and separators are ignored.
    """
    if b"[" not in text and b"{" not in text:
        return 1
    # Each step is one pass in C: remove strings, which may have brackets in them; turn every scalar into an
    # empty container; then remove the innermost containers until none is left.
    left = _STRING.sub(b"0", text).translate(_TO_BRACKETS, b" \t\r\n,:")
    left = _SCALARS.sub(b"[]", left)
    count = 0
    while left:
        left = left.replace(b"[]", b"")
        count += 1
    return count


def _check_levels(part: bytes, above: int) -> None:
    """Refuse a part of a document that is too deep, below ``above`` other levels.

    :raises StatusError: SUBDOC_DOC_E2DEEP.
    """
    if above + 1 + part.count(b"[") + part.count(b"{") <= MAX_LEVELS or not part.strip():
        return
    if above + levels(part) > MAX_LEVELS:
        raise StatusError(Status.SUBDOC_DOC_E2DEEP)


_Entry = tuple[int, "bytes | None", int, int]
"""The position of an entry of a container, its key, the position of its value, and the value's end, or 0 if
that is not known yet. Without such an entry, both positions are that of the closing bracket."""


def _numbered(text: bytes, at: int, index: int, above: int) -> _Entry:
    """Find an element of the array that begins at ``at``.

    :param above: levels down to the container, itself included.
    :raises StatusError: SUBDOC_DOC_E2DEEP for an element before it that is too deep.
    """
    at = skip_space(text, at + 1)
    last = at
    while text[at] != _CLOSE_ARRAY:
        if not index:
            return at, None, at, 0
        last = at
        at = _behind(text, _past(text, at, above))
        index -= 1
    # An index of -1 is counted down too, so it is below 0 at the end.
    return (last, None, last, 0) if index < 0 else (at, None, at, 0)


def _named(text: bytes, at: int, name: bytes, above: int) -> _Entry:
    """Find a member of the object that begins at ``at``; otherwise as :func:`_numbered`."""
    quoted = b'"' + name + b'"'
    at += 1
    # The quoted name does not begin between `at` and `near`.
    near = 0
    while True:
        if at > near:
            limit = at + _STEP_BYTES
            near = text.find(quoted, at, limit)
            if near < 0:
                near = limit - len(quoted)
        if above + 2 <= MAX_LEVELS:
            # The text up to there is examined in one step, as far as values are simple.
            at = _MEMBERS.match(text, at, near).end()  # type: ignore[union-attr]
        if text[at] <= _BLANK:
            at = skip_space(text, at)
        if text[at] == _CLOSE_OBJECT:
            return at, None, at, 0
        match = _NAMED.match(text, at)
        assert match is not None, "the text is JSON"
        key, simple = match.groups()
        end = match.end() if simple and above + 2 <= MAX_LEVELS else 0
        if key == quoted or (b"\\u" in key and _without_codes(key[1:-1]) == name):
            return at, key[1:-1], match.start(2), end
        at = _behind(text, end or _past(text, match.start(2), above))


def _past(text: bytes, at: int, above: int) -> int:
    """Return where the value that begins at ``at`` ends.

    :raises StatusError: SUBDOC_DOC_E2DEEP if it is too deep, below ``above`` other levels.
    """
    match = _UNNAMED.match(text, at, at + _STEP_BYTES)
    if match is not None and match[2] and match.end() < at + _STEP_BYTES:
        end, most = match.end(), 0
    else:
        end, most = _past_container(text, at) if text[at] in _CONTAINERS else (value_end(text, at), 0)
    # A value matched in one piece has at most two levels.
    if above + most + 2 > MAX_LEVELS:
        _check_levels(text[at:end], above)
    return end


def _past_container(text: bytes, at: int) -> tuple[int, int]:
    """Return where a container ends, and its depth, not counting containers without others in them.

    No step examines more than about 10 KiB, since other threads wait meanwhile.
    """
    depth = most = 1
    at += 1
    while depth:
        limit = at + _STEP_BYTES
        match = _FLAT.match(text, at, limit)
        at = match.end() if match is not None else at
        if at >= limit:
            continue
        sign = text[at]
        if sign == _QUOTE:
            at = value_end(text, at)
            continue
        if sign in _CONTAINERS:
            depth += 1
            most = max(most, depth)
        else:
            depth -= 1
        at += 1
    return at, most


def _without_codes(key: bytes) -> bytes:
    """Return a key with ``\\uXXXX`` escapes replaced by their characters; other escapes stay."""

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
    member, left = reach(text, steps)
    if left:
        raise StatusError(Status.SUBDOC_PATH_ENOENT)
    return member.value


def descend(text: bytes, steps: Steps) -> tuple[Span, Steps]:
    """Follow a path as far as it exists; return the value reached, and the remaining steps.

    The text after the value is not examined.

    :raises StatusError: SUBDOC_DOC_NOT_JSON for a document that is a scalar, SUBDOC_PATH_MISMATCH,
        SUBDOC_DOC_E2DEEP.
    """
    member, left = reach(text, steps)
    return member.value, left


def reach(text: bytes, steps: Steps) -> tuple[Member, Steps]:
    """Do the same as :func:`descend`, for the value with its key; the document itself has no key."""
    start = at = 0 if text[0] in _CONTAINERS else skip_space(text, 0)
    if text[at] not in _CONTAINERS:
        raise StatusError(Status.SUBDOC_DOC_NOT_JSON)
    key: bytes | None = None
    above = end = 0
    for step in steps:
        above += 1
        is_name = isinstance(step, bytes)
        if text[at] != (_OPEN_OBJECT if is_name else _OPEN_ARRAY):
            raise StatusError(Status.SUBDOC_PATH_MISMATCH)
        entry = _named(text, at, step, above) if isinstance(step, bytes) else _numbered(text, at, step, above)
        if text[entry[2]] in _CLOSERS:
            return Member(start, key, Span(at, entry[2] + 1)), steps[above - 1 :]
        start, key, at, end = entry
    # As in _past: a value matched in one piece has at most two levels.
    return Member(start, key, Span(at, end if end else _past(text, at, above))), ()


def splice(text: bytes, span: Span, replacement: bytes) -> bytes:
    """Return the text with a span replaced."""
    return text[: span.start] + replacement + text[span.end :]


def insert_last(text: bytes, container: Span, entry: bytes) -> bytes:
    """Return the text with ``entry`` before the bracket that closes the container."""
    last = container.end - 1
    if is_empty(text, container):
        # White space in an empty object stays, and in an empty array it is removed, as on the server.
        begin = container.start + 1 if text[last] == _CLOSE_ARRAY else last
        return text[:begin] + entry + text[last:]
    return text[:last] + b"," + entry + text[last:]


def insert_before(text: bytes, member: Member, entry: bytes) -> bytes:
    """Return the text with ``entry`` before that element."""
    return text[: member.start] + entry + b"," + text[member.start :]


def remove(text: bytes, member: Member) -> bytes:
    """Return the text without that member, and without one adjacent comma: the next, or else the previous
    one."""
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
