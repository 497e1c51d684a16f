"""Splits the answer of the query service into rows and members while it arrives.

Neither is parsed: rows are passed on as the bytes that the service sent, so numbers of any size are kept. An
invalid row does not affect its neighbours if its strings and brackets are closed.
"""

from __future__ import annotations

import json
import re
from enum import IntEnum

from gateway.batches.splitter import ArraySplitter, SplitError, TooLong

__all__ = ["MOST_MEMBER_BYTES", "ROWS", "AnswerScanner", "BadAnswer"]

MOST_MEMBER_BYTES = 4 * 2**20
"""Largest size of everything except the rows (signature, errors, metrics, profile), in bytes."""

ROWS = "results"

_DEEP = re.compile(rb'(?:[^"\[\]{}]+|"[^"\\]*(?:\\.[^"\\]*)*")*', re.DOTALL).match
_FLAT = re.compile(rb'(?:[^"\[\]{},]+|"[^"\\]*(?:\\.[^"\\]*)*")*', re.DOTALL).match
_STRING_END = re.compile(rb'["\\]')
_NAME = re.compile(rb'[ \t\n\r]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\n\r]*:[ \t\n\r]*(?=[^ \t\n\r])', re.DOTALL)
_NAME_BEGUN = re.compile(
    rb'[ \t\n\r]*(?:"[^"\\]*(?:\\.[^"\\]*)*(?:"[ \t\n\r]*(?::[ \t\n\r]*)?|\\)?)?', re.DOTALL
)
_LONGEST_NAME = 1024
_SPACE = b" \t\n\r"


class BadAnswer(Exception):
    """The bytes are not an answer of the query service; the text says why."""


class _Phase(IntEnum):
    START = 0
    NAME = 1
    VALUE = 2
    ROWS = 3
    AFTER = 4
    END = 5


class AnswerScanner:
    """Rows and members of one answer.

    :param row_limit: largest row, in bytes.
    :ivar members: name -> JSON text of all complete members except the rows.
    """

    def __init__(self, row_limit: int) -> None:
        self._limit = row_limit
        self._rows = ArraySplitter(row_limit)
        self._phase = _Phase.START
        self.members: dict[str, bytes] = {}
        self._seen: set[str] = set()
        self._name = ""
        self._begun = b""
        self._parts: list[bytes] = []
        self._member_bytes = 0
        self._depth = 0
        # Within a string of a member's value: 1, or 2 if the last character was a backslash.
        self._string = 0

    @property
    def held(self) -> int:
        """Bytes of the row that is not complete yet."""
        return self._rows.held

    def feed(self, data: bytes) -> list[bytes]:
        """Return the rows that ``data`` completes.

        :raises BadAnswer: the bytes are not an answer, or too large.
        """
        rows: list[bytes] = []
        while data:
            data = self._step(data, rows)
        return rows

    def finish(self) -> None:
        """Check that the answer is complete; raises BadAnswer."""
        if self._phase is not _Phase.END:
            raise BadAnswer("the answer ends too early")

    def _step(self, data: bytes, rows: list[bytes]) -> bytes:
        """Take the bytes of the current phase; return the rest."""
        phase = self._phase
        if phase is _Phase.ROWS:
            return self._take_rows(data, rows)
        if phase is _Phase.VALUE:
            return self._take_value(data)
        if phase is _Phase.NAME:
            return self._take_name(data)
        data = data.lstrip(_SPACE)
        if not data:
            return data
        sign = data[:1]
        if phase is _Phase.START and sign == b"{":
            self._phase = _Phase.NAME
        elif phase is _Phase.AFTER and sign in b",}":
            self._phase = _Phase.NAME if sign == b"," else _Phase.END
        elif phase is _Phase.END:
            raise BadAnswer("there is more data after the answer")
        else:
            raise BadAnswer("the answer is not a JSON object")
        return data[1:]

    def _take_name(self, data: bytes) -> bytes:
        data, self._begun = self._begun + data, b""
        found = _NAME.match(data)
        if found is None:
            if not self._seen and data.lstrip(_SPACE)[:1] == b"}":
                self._phase = _Phase.AFTER
                return data.lstrip(_SPACE)
            if _NAME_BEGUN.fullmatch(data) is None or len(data.strip(_SPACE)) > _LONGEST_NAME:
                raise BadAnswer("the answer is not a JSON object")
            self._begun = data.lstrip(_SPACE)
            return b""
        try:
            self._name = json.loads(str(found[1], "utf-8"))
        except ValueError:
            raise BadAnswer("the answer is not JSON") from None
        rest = data[found.end() :]
        if self._name in self._seen:
            raise BadAnswer(f"the answer has the member {self._name[:80]!r} twice")
        self._seen.add(self._name)
        self._phase = _Phase.ROWS if self._name == ROWS and rest[:1] == b"[" else _Phase.VALUE
        return rest

    def _take_rows(self, data: bytes, rows: list[bytes]) -> bytes:
        try:
            elements, end = self._rows.feed_part(data)
        except SplitError as error:
            raise BadAnswer(str(error)) from None
        for row in elements:
            if isinstance(row, TooLong):
                raise BadAnswer(f"a row has more than {self._limit} bytes")
            if not row or row.isspace():
                raise BadAnswer("a row is empty")
            rows.append(row)
        if end is None:
            return b""
        self._phase = _Phase.AFTER
        return data[end:]

    def _take_value(self, data: bytes) -> bytes:
        end = self._value_end(data)
        part = data if end is None else data[:end]
        self._parts.append(part)
        self._member_bytes += len(part)
        if self._member_bytes > MOST_MEMBER_BYTES:
            raise BadAnswer(f"the answer has more than {MOST_MEMBER_BYTES} bytes without its rows")
        if end is None:
            return b""
        self.members[self._name] = b"".join(self._parts).strip(_SPACE)
        self._parts.clear()
        self._phase = _Phase.AFTER
        return data[end:]

    def _value_end(self, data: bytes) -> int | None:
        """Return the position of the comma or brace after the value; ``None`` if it has not arrived yet."""
        at = self._string_end(data, 0) if self._string else 0
        end = len(data)
        while at < end:
            found = (_DEEP if self._depth else _FLAT)(data, at)
            assert found is not None
            at = found.end()
            if at == end:
                break
            sign = data[at]
            if sign == 0x22:
                at = self._string_end(data, at + 1)
                continue
            if not self._depth and sign in b",}":
                return at
            at += 1
            self._depth += 1 if sign in b"[{" else -1
            if self._depth < 0:
                raise BadAnswer("the answer is not JSON")
        return None

    def _string_end(self, data: bytes, at: int) -> int:
        """Return the position after the end of the string that is open at ``at``."""
        if self._string == 2:
            at += 1
        self._string = 1
        while True:
            found = _STRING_END.search(data, at)
            if found is None:
                return len(data)
            at = found.end()
            if found[0] == b'"':
                self._string = 0
                return at
            if at == len(data):
                self._string = 2
                return at
            at += 1
