"""The formats of an answer to a statement: the same as for views, with the members of the query service.

Members and rows are written as the service sent them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gateway.dialect.contenttypes import JSON
from gateway.dialect.jsontools import any_json
from gateway.views.forms import EVENTS, LINES, EventForm, JsonForm, LineForm, preferred_form

__all__ = ["StatementForm", "statement_form_for"]

Members = Mapping[str, bytes]


class StatementForm(Protocol):
    """One format; each answer has an object of its own."""

    content_type: bytes
    by_lines: bool
    """Whether rows must be free of newlines."""

    def begin(self, members: Members) -> bytes:
        """Return the text before the rows."""

    def rows(self, rows: list[bytes]) -> bytes:
        """Return the text of one or more rows."""

    def end(self, members: Members, errors: list[Any], count: int | None) -> bytes:
        """Return the text after the rows.

        :param errors: the failures to report.
        :param count: number of rows sent; ``None`` if rows are missing.
        """


def _written(members: Members) -> list[bytes]:
    return [b"%b:%b" % (any_json(name), text) for name, text in members.items()]


class _Json(JsonForm):
    """``{"requestID", "signature", ..., "rows": [...], "status", "metrics", "errors", ...}``."""

    def __init__(self) -> None:
        super().__init__()
        self._told: frozenset[str] = frozenset()

    def begin(self, members: Members) -> bytes:
        """Return the members that came before the rows, and the beginning of the list."""
        self._told = frozenset(members)
        return b"{" + b",".join([*_written(members), b'"rows":['])

    def end(self, members: Members, errors: list[Any], count: int | None) -> bytes:
        """Return the end of the list, and the other members."""
        left = {name: text for name, text in members.items() if name not in self._told}
        parts = [b"\n]", *_written(left)]
        if errors:
            parts.append(b'"errors":' + any_json(errors))
        return b",".join(parts) + b"}\n"


class _Lines(LineForm):
    """One row per line, then a line ``{"error": ...}`` for each error, and one ``{"meta": {...}}``."""

    def begin(self, members: Members) -> bytes:
        """Return nothing: the first line is a row."""
        return b""

    def end(self, members: Members, errors: list[Any], count: int | None) -> bytes:
        """Return the lines after the rows."""
        lines = [b'{"error":%b}\n' % any_json(error) for error in errors]
        return b"".join([*lines, b'{"meta":{%b}}\n' % b",".join(_one_line(members))])


class _Events(EventForm):
    """Events ``row``, then ``error`` for each error, then ``done`` if no row is missing."""

    def begin(self, members: Members) -> bytes:
        """Return nothing: the first event is a row."""
        return b""

    def end(self, members: Members, errors: list[Any], count: int | None) -> bytes:
        """Return the last events."""
        events = [b"event: error\ndata: %b\n\n" % any_json(error) for error in errors]
        if count is not None:
            done = b",".join([b'"rows":%d' % count, *_one_line(members)])
            events.append(b"event: done\ndata: {%b}\n\n" % done)
        return b"".join(events)


def _one_line(members: Members) -> list[bytes]:
    return [part.replace(b"\n", b" ").replace(b"\r", b" ") for part in _written(members)]


_FORMS: dict[bytes, type[_Json] | type[_Lines] | type[_Events]] = {
    JSON: _Json,
    LINES: _Lines,
    EVENTS: _Events,
}


def statement_form_for(accept: bytes | None) -> StatementForm:
    """Return the format that ``Accept`` prefers; JSON if it names none.

    :raises Refusal: 400 for an invalid weight.
    """
    return _FORMS[preferred_form(accept)]()
