"""Reads the answer to a view query incrementally, without a socket, a clock or a copy of the whole.

An answer is one JSON object whose ``rows`` member may have millions of rows. The view engine prints one row
per line, which makes reading fast but is never trusted: many rows are taken at once, up to the last newline
that looks like the end of a row, and then this is verified. Either the piece between two brackets is a JSON
array (then it is a list of complete rows: a prefix of JSON text has only one reading), or its brackets
balance on every line. The rest is read bracket by bracket. Each byte is inspected a fixed number of times,
and only an unfinished row, or member, is kept.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, NoReturn

from couchbase import exceptions
from couchbase.exceptions import ArgumentError, CouchbaseError, error_of
from couchbase.views.lines import is_object_a_line

FORMS = ("rows", "lines", "blocks")
MAX_VALUE_BYTES = 64 * 2**20
"""Largest accepted size in bytes of a row, and of all other members together."""

_WHITESPACE = re.compile(rb"[ \t\n\r]*")
# A whole string, or the beginning of one (then the last group is empty), or a bracket.
_STRUCTURE = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*("?)|([{\[])|([}\]])', re.DOTALL)
_STRING_REST = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*("?)', re.DOTALL)
# How answers usually begin and, after the last row, end; in between each row has a line.
_USUAL_HEAD = re.compile(rb'\{(?:"total_rows":(0|[1-9][0-9]{0,17}),)?"rows":\[')
_USUAL_TAIL = re.compile(rb"\}[\r\n]{1,2}\][\r\n]{0,2}\}[\r\n]{0,2}\Z")
_LONGEST_TAIL = 9
_SCALAR_END = re.compile(rb"[ \t\n\r,\]}]")

_DIGITS_TO_ZERO = bytes(0x30 if code in b"0123456789" else code for code in range(256))
# The shortest run of digits that can be more than 64 bits.
_LONG_NUMBER = b"0" * 19

# The element expected next. The first member, or row, follows an opening bracket, and the closing one may
# follow at once; the others follow a comma.
_START, _FIRST_MEMBER, _MEMBER, _COLON, _VALUE, _AFTER_MEMBER, _FIRST_ROW, _ROW, _AFTER_ROW, _END = range(10)
_EXPECTED = (
    "an object", "a member", "a member", "a colon", "a value", "',' or '}'", "a row", "a row", "',' or ']'",
    "nothing more",
)  # fmt: skip
_A_MEMBER, _A_ROW = (_MEMBER, _FIRST_MEMBER), (_ROW, _FIRST_ROW)

# What the current value is: between brackets, in a string (a nested one, or the value itself), or neither.
_BRACKETS, _STRING, _SCALAR = range(3)

# Cutting at newlines has still to be tried on the buffer; was tried; does not work with this answer.
_UNTRIED, _TRIED, _GIVEN_UP = range(3)

_OPEN_BRACE, _CLOSE_BRACE, _OPEN_BRACKET, _CLOSE_BRACKET = b"{}[]"
_COMMA, _COLON_CODE, _QUOTE = b',:"'


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Python's own takes NaN and Infinity, too, which JSON does not have.
_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def exact_loads(data: bytes) -> Any:
    """Parse a JSON text in UTF-8, with exact integers of any size.

    :raises ValueError: not JSON, or nested deeper than Python can follow.
    """
    try:
        # Decoded here, because json.loads would also take UTF-16 and UTF-32.
        return _DECODER.decode(str(data, "utf-8"))
    except RecursionError:
        raise ValueError("too many levels") from None
    except json.JSONDecodeError as error:
        # Not the error's own message: PyPy's may contain half a character, and then cannot be printed.
        raise ValueError(f"damaged at character {error.pos}") from None


class RowReader:
    """Takes an answer in pieces of any size and returns its rows as soon as each is complete.

    ``form`` defines what :meth:`feed` returns:

    ``"rows"``
        one decoded value a row (a dict from any view engine).
    ``"lines"``
        one ``bytes`` per row: its text exactly as received, without surrounding characters.
    ``"blocks"``
        ``bytes`` objects of one or more whole rows with the commas between them, exactly as received; there
        is no comma at either end. The cheapest, for passing rows on.

    For ``"lines"`` and ``"blocks"`` strings and brackets are checked, but not every token inside of rows.

    :param form: one of :data:`FORMS`.
    :param loads: a fast JSON parser from bytes (orjson's); texts that it refuses or would round go to the
        standard library's.
    :param max_value_bytes: see :data:`MAX_VALUE_BYTES`.
    :raises ArgumentError: another form.
    """

    def __init__(
        self,
        form: str = "rows",
        loads: Callable[[bytes], Any] | None = None,
        max_value_bytes: int = MAX_VALUE_BYTES,
    ) -> None:
        if form not in FORMS:
            raise ArgumentError.pyexc(f"form must be one of {FORMS}", obj=form)
        self.form = form
        self.meta: dict[str, Any] = {}
        """Every complete member except the array ``rows``."""
        self.count = 0
        """Number of rows returned."""
        self._loads = loads
        self._limit = max_value_bytes
        self._buffer = bytearray()
        self._spans: list[tuple[int, int]] = []

    # Each reader begins with these.
    _at = 0
    _state = _START
    _name = ""
    _rows_done = False
    # Start of the current value, -1 between values; the depth of `_at` in it, and inside of what.
    _begin = -1
    _depth = 0
    _inside = _BRACKETS
    _cutting = _UNTRIED
    _meta_bytes = 0
    _error: CouchbaseError | None = None

    @property
    def is_new(self) -> bool:
        """Whether nothing was fed yet."""
        return self._state == _START and not self._buffer and self._error is None

    @property
    def rows_seen(self) -> bool:
        """Whether the array ``rows`` was found, even if empty."""
        return self._rows_done or self._state in (_FIRST_ROW, _ROW, _AFTER_ROW)

    @property
    def total_rows(self) -> int | None:
        """The answer's ``total_rows``: ``None`` until it arrives, and for reduced rows."""
        total = self.meta.get("total_rows")
        return total if isinstance(total, int) and not isinstance(total, bool) else None

    def feed(self, data: bytes) -> list[Any]:
        """Take the next bytes, and return the rows that they complete.

        :returns: see the class; often empty.
        :raises CouchbaseError: ProtocolError, this is not the JSON of an answer. Rows before the error
            were returned: if they came in the same piece, the next call (or :meth:`finish`) raises.
        """
        if self._error is not None:
            raise self._error
        self._buffer += data
        if self._cutting == _TRIED:
            self._cutting = _UNTRIED
        out: list[Any] = []
        try:
            try:
                self._run(out)
            finally:
                if self._spans:
                    self._flush(out)
        except CouchbaseError as error:
            self._error = error
            self._buffer.clear()
            if not out:
                raise
            return out
        kept = self._begin if self._begin >= 0 else self._at
        if kept:
            del self._buffer[:kept]
            self._at -= kept
            if self._begin >= 0:
                self._begin = 0
        return out

    def finish(self) -> None:
        """End the input.

        :raises CouchbaseError: NetworkError, the answer is not complete; ProtocolError, see :meth:`feed`.
        """
        if self._error is None and self._state != _END:
            self._error = error_of(
                exceptions.NETWORK_ERROR,
                f"the answer ended early, after {self.count} rows, where {_EXPECTED[self._state]} "
                "should follow",
            )
        if self._error is not None:
            raise self._error

    # ---- the object around the rows --------------------------------------------------------------

    def _run(self, out: list[Any]) -> None:
        buffer = self._buffer
        while True:
            if self._begin >= 0:
                end = self._skip()
                if end < 0:
                    if len(buffer) - self._begin > self._limit:
                        self._fail(f"one value is longer than {self._limit} bytes")
                    return
                begin, self._begin, self._at = self._begin, -1, end
                self._complete(begin, end)
                continue
            at = self._at = _WHITESPACE.match(buffer, self._at).end()  # type: ignore[union-attr]
            if at == len(buffer):
                return
            code = buffer[at]
            state = self._state
            if state == _START and self._usual_head(at):
                pass
            elif state in _A_ROW:
                if code == _CLOSE_BRACKET and state == _FIRST_ROW:
                    self._end_of_rows(at)
                elif not (self._cutting == _UNTRIED and code == _OPEN_BRACE and self._block(at, out)):
                    self._enter(at, code)
            elif state == _AFTER_ROW:
                if code == _COMMA:
                    self._at, self._state = at + 1, _ROW
                elif code == _CLOSE_BRACKET:
                    self._end_of_rows(at)
                else:
                    self._unexpected(code)
            elif state == _VALUE:
                if self._name != "rows":
                    self._enter(at, code)
                elif code != _OPEN_BRACKET:
                    self._fail(f"the member 'rows' begins with {bytes([code])!r}; expected an array")
                elif self._rows_done:
                    self._fail("the answer has two members 'rows'")
                else:
                    self._at, self._state = at + 1, _FIRST_ROW
            elif state in _A_MEMBER and code == _QUOTE:
                self._enter(at, code)
            else:
                self._punctuation(state, at, code)

    def _usual_head(self, at: int) -> bool:
        """Take all up to the first row, if it is there and as usual; return whether it is."""
        head = _USUAL_HEAD.match(self._buffer, at)
        if head is None:
            return False
        total = head[1]
        size = len(b'"rows"') + (0 if total is None else len(b'"total_rows"') + len(total))
        if size > self._limit:
            return False
        if total is not None:
            self.meta["total_rows"] = int(total)
        self._meta_bytes = size
        self._at, self._state = head.end(), _FIRST_ROW
        return True

    def _punctuation(self, state: int, at: int, code: int) -> None:
        following = {
            (_START, _OPEN_BRACE): _FIRST_MEMBER,
            (_FIRST_MEMBER, _CLOSE_BRACE): _END,
            (_COLON, _COLON_CODE): _VALUE,
            (_AFTER_MEMBER, _COMMA): _MEMBER,
            (_AFTER_MEMBER, _CLOSE_BRACE): _END,
        }.get((state, code))
        if following is None:
            self._unexpected(code)
        self._at, self._state = at + 1, following

    def _end_of_rows(self, at: int) -> None:
        self._at, self._state, self._rows_done = at + 1, _AFTER_MEMBER, True

    def _complete(self, begin: int, end: int) -> None:
        """Take the value (or the member's name) that ends here."""
        state = self._state
        if state in _A_ROW:
            if self._inside == _SCALAR and self.form != "rows":
                # Nothing else would look at it.
                self._check_row(begin, end, self.count + len(self._spans))
            self._spans.append((begin, end))
            self._state = _AFTER_ROW
            return
        self._meta_bytes += end - begin
        if self._meta_bytes > self._limit:
            self._fail(f"the members beside 'rows' are longer than {self._limit} bytes")
        try:
            value = exact_loads(bytes(self._buffer[begin:end]))
        except ValueError as error:
            self._fail(f"not JSON: {error}")
        if state in _A_MEMBER:
            self._name, self._state = value, _COLON
        else:
            self.meta[self._name] = value
            self._state = _AFTER_MEMBER

    # ---- many rows at once -----------------------------------------------------------------------

    def _block(self, at: int, out: list[Any]) -> bool:
        """Take all rows up to the last newline that may end a row, or all of them; return whether it
        succeeded."""
        self._cutting = _TRIED
        buffer = self._buffer
        tail = _USUAL_TAIL.search(buffer, max(at, len(buffer) - _LONGEST_TAIL))
        if tail is not None and self._take(at, tail.start() + 1, out):
            self._at, self._state, self._rows_done = tail.end(), _END, True
            return True
        end = buffer.rfind(b"},\r\n", at)
        if end < 0:
            end = buffer.rfind(b"},\n", at)
            if end < 0:
                return False
        if self._take(at, end + 1, out):
            return True
        self._cutting = _GIVEN_UP
        return False

    def _take(self, at: int, end: int, out: list[Any]) -> bool:
        """Take a text of rows and commas; return whether it is one."""
        with memoryview(self._buffer) as view:
            block = bytes(view[at:end])
        if self.form == "rows":
            taken = self._rows_of(block)
            count = 0 if taken is None else len(taken)
        else:
            taken, count = self._raw_rows_of(block)
        if taken is None:
            return False
        if self._spans:
            self._flush(out)
        out += taken
        self.count += count
        self._at, self._state = end, _AFTER_ROW
        return True

    def _rows_of(self, block: bytes) -> list[Any] | None:
        """Return the rows in a text of rows and commas; ``None`` if it is not that."""
        text = b"[" + block + b"]"
        if self._loads is not None and block.translate(_DIGITS_TO_ZERO).find(_LONG_NUMBER) < 0:
            try:
                rows: list[Any] = self._loads(text)
                return rows
            except (ValueError, RecursionError):
                # Perhaps only a lone surrogate, or levels beyond what this parser takes.
                pass
        try:
            rows = exact_loads(text)
        except ValueError:
            return None
        return rows

    def _raw_rows_of(self, block: bytes) -> tuple[list[bytes] | None, int]:
        """Return the output for a text of rows and commas, and its number of rows.

        ``None`` if it is not, or is not proved to be, such a text; for lines also if rows and lines differ.
        """
        separator = b",\r\n" if b"\r\n" in block else b",\n"
        count = block.count(b"\n") + 1
        a_line_each = block.count(b"}" + separator + b"{") == count - 1
        proved = a_line_each and is_object_a_line(block, count)
        if self.form == "blocks":
            if not proved:
                # A bracket or a quote in a string hides the structure; parsing shows it.
                rows = self._rows_of(block)
                return (None, 0) if rows is None else ([block], len(rows))
            return [block], count
        lines = block.split(separator)
        if not proved:
            loads = self._loads or exact_loads
            try:
                for line in lines if a_line_each else (b"",):
                    loads(line)
            except ValueError:
                return None, 0
        return lines, count

    # ---- bracket by bracket ----------------------------------------------------------------------

    def _enter(self, at: int, code: int) -> None:
        if code in b"}],:":
            self._unexpected(code)
        self._begin = self._at = at
        self._depth = 0
        self._inside = _BRACKETS if code in b'{["' else _SCALAR

    def _skip(self) -> int:
        """Return the end of the current value, or -1 if it is not known yet."""
        buffer, depth = self._buffer, self._depth
        if self._inside == _SCALAR:
            found = _SCALAR_END.search(buffer, self._at)
            self._at = len(buffer)
            return found.start() if found else -1
        if self._inside == _STRING:
            rest = _STRING_REST.match(buffer, self._at)
            self._at = rest.end()  # type: ignore[union-attr]
            if not rest[1]:  # type: ignore[index]
                return -1
            self._inside = _BRACKETS
            if not depth:
                return self._at
        for match in _STRUCTURE.finditer(buffer, self._at):
            kind = match.lastindex
            if kind == 1:
                if not match[1]:
                    self._at, self._depth, self._inside = match.end(), depth, _STRING
                    return -1
            elif kind == 2:
                depth += 1
                continue
            else:
                depth -= 1
            if not depth:
                return match.end()
        self._at, self._depth = len(buffer), depth
        return -1

    def _flush(self, out: list[Any]) -> None:
        """Return the rows that were found bracket by bracket."""
        spans, self._spans = self._spans, []
        buffer = self._buffer
        if self.form == "lines":
            taken: list[Any] | None = [bytes(buffer[begin:end]) for begin, end in spans]
        else:
            block = bytes(buffer[spans[0][0] : spans[-1][1]])
            taken = [block] if self.form == "blocks" else self._rows_of(block)
        if taken is not None:
            out += taken
            self.count += len(spans)
            return
        # One of them is wrong; those before it are not.
        for begin, end in spans:
            out.append(self._check_row(begin, end, self.count))
            self.count += 1

    def _check_row(self, begin: int, end: int, before: int) -> Any:
        """Return the value of a row; ``before`` it are so many others."""
        try:
            return exact_loads(bytes(self._buffer[begin:end]))
        except ValueError as error:
            self._fail(f"row {before + 1} is not JSON: {error}")

    # ---- refusals --------------------------------------------------------------------------------

    def _unexpected(self, code: int) -> NoReturn:
        self._fail(f"not the JSON of an answer: {bytes([code])!r} where {_EXPECTED[self._state]} should be")

    def _fail(self, message: str) -> NoReturn:
        raise error_of(exceptions.PROTOCOL_ERROR, message)
