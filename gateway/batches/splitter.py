"""Splits a batch's body into its operations while it arrives, in chunks of any size.

There are two formats: one JSON text per line, and one JSON array. Elements are found by searching for the few
relevant bytes (quotes, brackets, commas) with compiled expressions. They are not parsed here: an invalid
element does not affect its neighbours if its strings and brackets are closed.
"""

from __future__ import annotations

import re

from gateway.dialect.errors import Refusal, bad_request
from gateway.dialect.jsontools import BYTE_ORDER_MARK

__all__ = ["ArraySplitter", "BodySplitter", "LineSplitter", "SplitError", "TooLong", "element_fault"]


class SplitError(Exception):
    """The body is not a JSON array: no elements can be found after this point."""


class TooLong:
    """Takes the place of an element that is longer than the limit and was skipped.

    ``length`` is the number of its bytes that have arrived.
    """

    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length


class _Splitter:
    """The element that is not complete yet.

    :param limit: longest element, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._held = 0
        self._skipping = False

    @property
    def held(self) -> int:
        """Bytes of the element that is not complete yet."""
        return 0 if self._skipping else self._held

    def skip(self) -> None:
        """Drop the element that is not complete yet; it will come out as :class:`TooLong`."""
        self._skipping = True
        self._parts.clear()


class LineSplitter(_Splitter):
    """Lines that end with LF or CRLF; blank lines are skipped, and the last line needs no end.

    :param limit: longest line in bytes, without its end.
    """

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        """Return the lines that ``data`` completes."""
        end = data.find(b"\n")
        if end < 0:
            self._keep(data)
            return []
        lines: list[bytes | TooLong] = []
        self._keep(data[:end])
        self._complete(lines)
        pieces = data[end + 1 :].split(b"\n")
        rest = pieces.pop()
        limit = self._limit
        for piece in pieces:
            if len(piece) <= limit:
                if piece and not piece.isspace():
                    lines.append(piece)
            else:
                lines.append(TooLong(len(piece)))
        self._keep(rest)
        return lines

    def finish(self) -> list[bytes | TooLong]:
        """Return the last line, if it had no end."""
        lines: list[bytes | TooLong] = []
        self._complete(lines)
        return lines

    def _keep(self, data: bytes) -> None:
        self._held += len(data)
        if self._held > self._limit or self._skipping:
            self.skip()
        elif data:
            self._parts.append(data)

    def _complete(self, lines: list[bytes | TooLong]) -> None:
        if self._skipping:
            lines.append(TooLong(self._held))
        elif self._held:
            line = b"".join(self._parts)
            if not line.isspace():
                lines.append(line)
        self._parts.clear()
        self._held = 0
        self._skipping = False


# Text that can be skipped: whole strings and what is neither quote nor bracket (nor, between elements,
# comma). Strings are written unrolled, so that an open one cannot make the match explode.
_DEEP = re.compile(rb'(?:[^"\[\]{}]+|"[^"\\]*(?:\\.[^"\\]*)*")*', re.DOTALL).match
_FLAT = re.compile(rb'(?:[^"\[\]{},]+|"[^"\\]*(?:\\.[^"\\]*)*")*', re.DOTALL).match
_STRING_END = re.compile(rb'["\\]')
_NOT_SPACE = re.compile(rb"[^ \t\n\r]")

_START, _ELEMENT, _END = range(3)


class ArraySplitter(_Splitter):
    """Elements of one JSON array.

    :param limit: longest element, in bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._state = _START
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._seen_comma = False

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        """Return the elements that ``data`` completes.

        :raises SplitError: the body does not begin with ``[``, or continues after ``]``. Elements
            of this chunk are lost with it; the caller gives up on the rest of the body.
        """
        elements, at = self.feed_part(data)
        if at is not None and _NOT_SPACE.search(data, at):
            raise SplitError("there is more text after the end of the array")
        return elements

    def feed_part(self, data: bytes) -> tuple[list[bytes | TooLong], int | None]:
        """Return the elements that ``data`` completes, and the position after the array's end.

        :returns: the position is ``None`` while the array is open, 0 if it was closed in an earlier chunk.
        :raises SplitError: the array does not begin with ``[``.
        """
        elements: list[bytes | TooLong] = []
        at = 0
        if self._state == _START:
            first = _NOT_SPACE.search(data)
            if first is None:
                return elements, None
            if first[0] != b"[":
                raise SplitError("the body is not a JSON array")
            at = first.end()
            self._state = _ELEMENT
        if self._state == _ELEMENT:
            at = self._scan(data, at, elements)
        return elements, at if self._state == _END else None

    def finish(self) -> list[bytes | TooLong]:
        """Check that the array was closed.

        :raises SplitError: it was not closed.
        """
        if self._state != _END:
            raise SplitError("the body ends before the array does")
        return []

    def _scan(self, data: bytes, at: int, elements: list[bytes | TooLong]) -> int:
        """Scan ``data`` from ``at``; return the end of the array, or the end of ``data``."""
        begin = at
        end = len(data)
        depth = self._depth
        if self._in_string:
            at = self._string(data, at)
        while at < end:
            at = (_DEEP if depth else _FLAT)(data, at).end()  # type: ignore[union-attr]
            if at == end:
                break
            sign = data[at]
            at += 1
            if sign == 0x22:
                at = self._string(data, at)  # not closed in this chunk
            elif sign == 0x2C:
                self._complete(data[begin : at - 1], elements, closing=False)
                begin = at
            elif sign == 0x7B or sign == 0x5B:
                depth += 1
            elif depth:
                depth -= 1
            elif sign == 0x5D:
                self._complete(data[begin : at - 1], elements, closing=True)
                self._state = _END
                return at
        self._depth = depth
        self._keep(data[begin:])
        return end

    def _string(self, data: bytes, at: int) -> int:
        """Find the end of the string that is open at ``at``; return the position after it."""
        end = len(data)
        if self._escaped and at < end:
            self._escaped = False
            at += 1
        while True:
            found = _STRING_END.search(data, at)
            if found is None:
                self._in_string = True
                return end
            at = found.end()
            if data[at - 1] == 0x22:
                self._in_string = False
                return at
            if at == end:
                self._in_string = self._escaped = True
                return end
            at += 1

    def _keep(self, data: bytes) -> None:
        if not self._held:
            data = data.lstrip(b" \t\n\r")
        self._held += len(data)
        if self._held > self._limit or self._skipping:
            self.skip()
        elif data:
            self._parts.append(data)

    def _complete(self, data: bytes, elements: list[bytes | TooLong], *, closing: bool) -> None:
        if self._held:
            self._keep(data)
            element = b"".join(self._parts)
            self._parts.clear()
        else:
            element = data.strip(b" \t\n\r")
            self._held = len(element)
            self._skipping = self._held > self._limit
        if self._skipping:
            elements.append(TooLong(self._held))
        elif element or not closing or self._seen_comma:
            # An empty element ("[1,,2]", "[1,]") is one bad operation, not the end of the batch.
            elements.append(element)
        self._seen_comma = True
        self._held = 0
        self._skipping = False


class BodySplitter:
    """Splits a body of either format; a leading byte order mark is ignored.

    :param limit: longest operation, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inner: LineSplitter | ArraySplitter | None = None
        # What may be the beginning of a byte order mark.
        self._start = b""
        self._may_be_marked = True

    @property
    def is_array(self) -> bool | None:
        """Whether the body is an array; ``None`` until its first byte."""
        return None if self._inner is None else isinstance(self._inner, ArraySplitter)

    @property
    def held(self) -> int:
        """Bytes of the operation that is not complete yet."""
        return 0 if self._inner is None else self._inner.held

    def skip(self) -> None:
        """Drop the operation that is not complete yet; it will come out as :class:`TooLong`."""
        if self._inner is not None:
            self._inner.skip()

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        """Return the operations that ``data`` completes.

        :raises SplitError: see :meth:`ArraySplitter.feed`.
        """
        inner = self._inner
        if inner is None:
            if self._may_be_marked:
                data, self._start = self._start + data, b""
                if data and data in (BYTE_ORDER_MARK[:1], BYTE_ORDER_MARK[:2]):
                    self._start = data
                    return []
                self._may_be_marked = not data
                data = data.removeprefix(BYTE_ORDER_MARK)
            first = _NOT_SPACE.search(data)
            if first is None:
                return []
            inner = self._inner = (ArraySplitter if first[0] == b"[" else LineSplitter)(self._limit)
        return inner.feed(data)

    def finish(self) -> list[bytes | TooLong]:
        """Return the last line, if it had no end.

        :raises SplitError: an array was not closed.
        """
        if self._inner is None:
            return [self._start] if self._start else []
        return self._inner.finish()


def element_fault(element: bytes | TooLong | SplitError, limit: int, no_room: bool) -> Exception:
    """Return the refusal of an element that is not an operation.

    :param limit: largest size of an operation, in bytes.
    :param no_room: whether it was skipped because all requests together hold too much memory.
    """
    if isinstance(element, SplitError):
        return bad_request(f"{element}; nothing after this is read")
    assert isinstance(element, TooLong)
    if no_room and element.length <= limit:
        return Refusal("Overloaded")
    return bad_request(f"the operation has more than {limit} bytes")
