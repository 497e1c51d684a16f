"""JSON texts as bytes: checks whether a text is JSON (RFC 8259, in UTF-8), and finds its parts.

This module does not build values. All work is done in steps of bounded size, so that one long text does not
block a server: generators yield after each step, and :class:`Checker` takes a text in pieces. :func:`skip`
and :func:`members` take texts that are known to be JSON.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections.abc import Generator, Iterator
from typing import Any, Callable, NoReturn, TypeVar, cast

__all__ = [
    "LEVELS",
    "STEP_BYTES",
    "Checker",
    "NotJson",
    "Steps",
    "TooDeep",
    "at_once",
    "check",
    "is_json",
    "members",
    "past_blanks",
    "skip",
    "value_end",
    "whole_number",
]

LEVELS = 1024
"""Limit on nested arrays and objects; most parsers have one."""

STEP_BYTES = 8 * 1024
"""Number of bytes to examine in one step, which takes some milliseconds at worst, usually far less."""

_BLOCK_LEAST_BYTES = 256
_TRIES = 8
"""How often the fast parser may fail on one piece."""

_EXACT_DIGITS = 4000
"""Largest number of digits with which an integer is parsed exactly. Python refuses more than 4300, because
the time is quadratic."""

Loads = Callable[[bytes], Any]
Steps = Generator[None, None, int]
"""Yields after each step of bounded work; returns a position in the text."""


def whole_number(text: str) -> int | float:
    """Return the value of a whole number in a JSON text: ``parse_int`` for ``json.loads``.

    The value is exact up to some thousand digits and infinite beyond, as in all parsers that use doubles. It
    is never an error, because a number of any length is valid JSON.
    """
    return int(text) if len(text) <= _EXACT_DIGITS else float(text)


class NotJson(ValueError):
    """The text is not JSON.

    :ivar at: the position of the error, in bytes from the start of the text.
    """

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(f"{reason} at byte {at + 1}")
        self.at = at


class TooDeep(NotJson):
    """The text has more than :data:`LEVELS` levels."""


# ---- checking ------------------------------------------------------------------------------------

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = rb'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_SIMPLE = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|true|false|null|\[[ \t\r\n]*\]|\{[ \t\r\n]*\})"
# Complete elements or members without nested values, each with the comma after it.
_ELEMENTS = re.compile(rb"(?:[ \t\r\n]*" + _SIMPLE + rb"[ \t\r\n]*,)*")
_MEMBERS = re.compile(rb"(?:[ \t\r\n]*" + _STRING + rb"[ \t\r\n]*:[ \t\r\n]*" + _SIMPLE + rb"[ \t\r\n]*,)*")
_STRING_PART = re.compile(rb'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*')
_ESCAPE_BEGUN = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_NUMBER_SIGNS = re.compile(rb"[-+.eE0-9]*")
_WHOLE_NUMBER = re.compile(_NUMBER + rb"\Z")
_MORE_DIGITS = re.compile(rb"([0-9]{2})[0-9]+")
_LONGEST_SHAPE = 64
_WORDS = {0x74: b"true", 0x66: b"false", 0x6E: b"null"}

_QUOTE, _COMMA, _COLON_SIGN = b'",:'
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b"{}[]"
_NUMBER_STARTS = frozenset(b"-0123456789")

# The token that is expected next.
_VALUE, _FIRST_ELEMENT, _FIRST_NAME, _NAME, _COLON, _AFTER, _IN_STRING, _IN_NAME, _IN_NUMBER = range(9)
_EXPECTED = (
    "a value is expected",
    "a value or ']' is expected",
    "a member's name or '}' is expected",
    "a member's name is expected",
    "':' is expected",
    "',' or the end of the open array or object is expected",
    "a string has a control character or an invalid escape",
    "a string has a control character or an invalid escape",
    "a number is malformed",
)


class Checker:
    """Checks whether a text is JSON while it arrives in pieces of any size.

    Work is proportional to the piece, memory does not depend on the length of the text.

    :param loads: a fast parser from bytes that accepts only JSON and raises ValueError otherwise (it may
        refuse some JSON); it is tried on pieces of a text, and makes the check ten times as fast.
    """

    def __init__(self, loads: Loads | None = None) -> None:
        self._loads = loads
        self._state = _VALUE
        self._open = bytearray()
        self._rest = b""
        self._shape = b""
        self._seen = 0
        self._tries = 0
        self._failed_level = 0
        self._decoder = getincrementaldecoder("utf-8")()

    def feed(self, data: bytes) -> None:
        """Take the next piece.

        :raises NotJson: the text can no longer become JSON; do not call it again after that.
        """
        try:
            self._decoder.decode(data)
        except UnicodeDecodeError as error:
            raise NotJson("the text is not UTF-8", self._seen + error.start) from None
        text = self._rest + data if self._rest else data
        base = self._seen - len(self._rest)
        self._seen += len(data)
        self._tries = _TRIES
        self._failed_level = LEVELS
        try:
            at = self._run(text)
        except NotJson as error:
            raise type(error)(error.args[0].rpartition(" at byte ")[0], base + error.at) from None
        self._rest = text[at:]

    def finish(self) -> None:
        """End the text.

        :raises NotJson: the text is not complete.
        """
        if self._state == _IN_NUMBER:
            self._end_number(0)
        if self._rest or self._open or self._state != _AFTER or self._decoder.getstate()[0]:
            raise NotJson("the text ends too early", self._seen)

    def _run(self, text: bytes) -> int:
        """Check the complete tokens of ``text``; return the end of the last one."""
        at, end = 0, len(text)
        while True:
            state = self._state
            if state in (_IN_STRING, _IN_NAME):
                at = _STRING_PART.match(text, at).end()  # type: ignore[union-attr]
                if at == end:
                    return at
                if text[at] != _QUOTE:
                    if _ESCAPE_BEGUN.match(text, at):
                        return at
                    self._fail(at)
                at += 1
                self._state = _COLON if state == _IN_NAME else _AFTER
                continue
            if state == _IN_NUMBER:
                signs = _NUMBER_SIGNS.match(text, at).end()  # type: ignore[union-attr]
                # Two digits of each run are kept: the grammar needs no more.
                self._shape = _MORE_DIGITS.sub(rb"\1", self._shape + text[at:signs])
                if len(self._shape) > _LONGEST_SHAPE:
                    self._fail(at)
                at = signs
                if at == end:
                    return at
                self._end_number(at)
                continue
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
            if at == end:
                return at
            sign = text[at]
            if state == _AFTER:
                if not self._open or sign not in b",]}":
                    self._fail(at)
                if sign == _COMMA:
                    self._state = _NAME if self._open[-1] == _OPEN_OBJECT else _VALUE
                    at = self._many(text, at + 1, end)
                else:
                    at = self._close(text, at)
            elif state == _COLON:
                if sign != _COLON_SIGN:
                    self._fail(at)
                self._state = _VALUE
                at += 1
            elif state in (_NAME, _FIRST_NAME):
                if sign == _QUOTE:
                    self._state = _IN_NAME
                    at += 1
                elif sign == _CLOSE_OBJECT and state == _FIRST_NAME:
                    at = self._close(text, at)
                else:
                    self._fail(at)
            else:
                at = self._value(text, at, end, sign)
                if at < 0:
                    return ~at

    def _value(self, text: bytes, at: int, end: int, sign: int) -> int:
        """Begin the value at ``at``; the inverse of it if more of the text is needed."""
        if sign == _QUOTE:
            self._state = _IN_STRING
            return at + 1
        if sign in (_OPEN_OBJECT, _OPEN_ARRAY):
            if len(self._open) >= LEVELS:
                raise TooDeep(f"the text has more than {LEVELS} levels", at)
            self._open.append(sign)
            self._state = _FIRST_NAME if sign == _OPEN_OBJECT else _FIRST_ELEMENT
            return self._many(text, at + 1, end)
        if sign in _NUMBER_STARTS:
            self._state, self._shape = _IN_NUMBER, b""
            return at
        if sign == _CLOSE_ARRAY and self._state == _FIRST_ELEMENT:
            return self._close(text, at)
        word = _WORDS.get(sign)
        if word is None:
            self._fail(at)
        found = text[at : at + len(word)]
        if found == word:
            self._state = _AFTER
            return at + len(word)
        if at + len(found) != end or not word.startswith(found):
            self._fail(at)
        return ~at

    def _many(self, text: bytes, at: int, end: int) -> int:
        """Skip as many complete elements or members as can be matched at once, with the commas after
        them."""
        if len(self._open) >= LEVELS:
            return at
        is_object = self._open[-1] == _OPEN_OBJECT
        start = at
        if (
            self._loads is not None
            and self._tries
            and len(self._open) < self._failed_level
            and end - at >= _BLOCK_LEAST_BYTES
        ):
            at = self._block(self._loads, text, at, end, b"{%b}" if is_object else b"[%b]")
        at = (_MEMBERS if is_object else _ELEMENTS).match(text, at).end()  # type: ignore[union-attr]
        if at != start:
            self._state = _NAME if is_object else _VALUE
        return at

    def _block(self, loads: Loads, text: bytes, at: int, end: int, brackets: bytes) -> int:
        """Skip everything before the last comma if it is JSON when put in brackets, that is, a list of
        values."""
        for mark in (b",", b"},", b"],"):
            comma = text.rfind(mark, at + _BLOCK_LEAST_BYTES, end) + len(mark) - 1
            if comma < at:
                continue
            piece = text[at:comma]
            if piece[0] in b" \t\r\n" and not piece.strip():
                continue
            try:
                loads(brackets % piece)
                levels = len(self._open)
                if levels + piece.count(b"[") + piece.count(b"{") > LEVELS:
                    # The parser has the same limit on levels, but counts them from the level here.
                    outer = b"[" * (levels - 1)
                    loads(outer + brackets % piece + outer.replace(b"[", b"]"))
            except (ValueError, RecursionError):
                continue
            return comma + 1
        # The piece ends in a deeper value: try again closer to the outermost level.
        self._tries -= 1
        self._failed_level = len(self._open)
        return at

    def _close(self, text: bytes, at: int) -> int:
        if not self._open or self._open[-1] + 2 != text[at]:
            self._fail(at)
        self._open.pop()
        self._state = _AFTER
        return at + 1

    def _end_number(self, at: int) -> None:
        if not _WHOLE_NUMBER.match(self._shape):
            raise NotJson(_EXPECTED[_IN_NUMBER], at)
        self._state = _AFTER

    def _fail(self, at: int) -> NoReturn:
        if self._state == _AFTER and not self._open:
            raise NotJson("there is text after the value", at)
        raise NotJson(_EXPECTED[self._state], at)


def check(text: bytes, loads: Loads | None = None) -> Iterator[None]:
    """Check a text, yielding after each step; it is JSON if the generator ends without an error.

    :param loads: see :class:`Checker`.
    :raises NotJson: it is not.
    """
    checker = Checker(loads)
    for at in range(0, len(text), STEP_BYTES):
        checker.feed(text[at : at + STEP_BYTES])
        yield
    checker.finish()


def is_json(text: bytes, loads: Loads | None = None) -> bool:
    """Return whether ``text`` is JSON, in a single step whatever its length.

    :param loads: see :class:`Checker`.
    """
    try:
        for _ in check(text, loads):
            pass
    except NotJson:
        return False
    return True


# ---- walking -------------------------------------------------------------------------------------

_VALID_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_PLAIN = rb'[^"\[\]{}]*(?:' + _VALID_STRING + rb'[^"\[\]{}]*)*'
_SCALAR = re.compile(_VALID_STRING + rb'|[^"\[\]{}, \t\r\n]+', re.DOTALL)
_STRING_REST = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
# Strings, scalars, and containers without nested containers.
_LEVEL = re.compile(
    rb'[^"\[\]{}]*(?:(?:' + _VALID_STRING + rb"|[\[{]" + _PLAIN + rb'[\]}])[^"\[\]{}]*)*', re.DOTALL
)
_MEMBER = re.compile(
    rb"(" + _VALID_STRING + rb")[ \t\r\n]*:[ \t\r\n]*(" + _VALID_STRING + rb'|[^"\[\]{}, \t\r\n]+)?',
    re.DOTALL,
)
_BETWEEN = re.compile(rb"[ \t\r\n,:]*")


def past_blanks(text: bytes, at: int) -> Steps:
    """Find the next character that is not white space, a comma or a colon."""
    while True:
        limit = at + STEP_BYTES
        at = _BETWEEN.match(text, at, limit).end()  # type: ignore[union-attr]
        if at < limit:
            return at
        yield


def skip(text: bytes, at: int) -> Steps:
    """Find the end of the value that begins at ``at``."""
    sign = text[at]
    if sign == _QUOTE:
        return (yield from _string_end(text, at + 1))
    if sign not in (_OPEN_OBJECT, _OPEN_ARRAY):
        while True:
            limit = at + STEP_BYTES
            match = _SCALAR.match(text, at, limit)
            if match is None:
                return at
            at = match.end()
            if at < limit:
                return at
            yield
    at += 1
    depth = 1
    length = len(text)
    limit = at + STEP_BYTES
    while True:
        at = _LEVEL.match(text, at, limit).end()  # type: ignore[union-attr]
        if at >= limit or at >= length:
            limit = at + STEP_BYTES
            yield
            continue
        sign = text[at]
        at += 1
        if sign in (_OPEN_OBJECT, _OPEN_ARRAY):
            depth += 1
        elif sign == _QUOTE:
            # The value does not end before the limit.
            at = yield from _string_end(text, at)
            limit = at + STEP_BYTES
        else:
            depth -= 1
            if not depth:
                return at


def _string_end(text: bytes, at: int) -> Steps:
    """Find the end of the string that is open at ``at``: the position after its closing quote."""
    while True:
        limit = at + STEP_BYTES
        at = _STRING_REST.match(text, at, limit).end()  # type: ignore[union-attr]
        if at < limit and text[at] == _QUOTE:
            return at + 1
        yield


def members(text: bytes, at: int) -> Generator[None, None, list[tuple[bytes, int, int]]]:
    """Find the members of the object that begins at ``at``.

    Returns (name with its quotes, start, end of the value) of each.
    """
    found: list[tuple[bytes, int, int]] = []
    at += 1
    while True:
        at = yield from past_blanks(text, at)
        if text[at] == _CLOSE_OBJECT:
            return found
        limit = at + STEP_BYTES
        match = _MEMBER.match(text, at, limit)
        if match is not None and match[2] is not None and match.end() < limit:
            at = match.end()
            found.append((match[1], match.start(2), at))
            continue
        begin = at
        at = yield from skip(text, at)
        name = text[begin:at]
        start = yield from past_blanks(text, at)
        at = yield from skip(text, start)
        found.append((name, start, at))


_T = TypeVar("_T")


def at_once(steps: Generator[None, None, _T]) -> _T:
    """Run all steps, and return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return cast("_T", done.value)


def value_end(text: bytes, at: int) -> int:
    """Return where the value that begins at ``at`` ends."""
    return at_once(skip(text, at))
