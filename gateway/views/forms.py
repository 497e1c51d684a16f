"""The formats of an answer to a view query: JSON, lines of JSON, server-sent events.

Rows are passed on as the bytes that the node sent. Only whole rows are sent, so that every format can report
a failure, and still be well-formed, at any time.
"""

from __future__ import annotations

from typing import Any, Protocol

from gateway.dialect.accept import parse_accept
from gateway.dialect.contenttypes import JSON
from gateway.dialect.jsontools import any_json
from gateway.http.response import UNBUFFERED

__all__ = [
    "EVENTS",
    "LINES",
    "EventForm",
    "Form",
    "JsonForm",
    "LineForm",
    "form_for",
    "one_line_each",
    "preferred_form",
    "streamed",
]

LINES = b"application/x-ndjson"
EVENTS = b"text/event-stream"

_NOT_CACHED = (b"Cache-Control", b"private, no-cache")
_BY_ACCEPT = (b"Vary", b"Accept, Accept-Encoding")


class Form(Protocol):
    """One format; each answer has an object of its own."""

    content_type: bytes
    by_lines: bool
    """Whether :meth:`rows` takes rows one by one, each without a newline; else blocks with commas in
    between."""

    def head(self, total: int | None) -> bytes:
        """Return the text before the rows.

        :param total: number of rows in the index; ``None`` for reduced rows, or if it is not known yet.
        """

    def rows(self, rows: list[bytes]) -> bytes:
        """Return the text of one or more rows."""

    def tail(self, meta: dict[str, Any], errors: list[Any], count: int | None) -> bytes:
        """Return the text after the rows.

        :param meta: the other members of the node's answer.
        :param errors: the failures to report.
        :param count: number of rows sent; ``None`` if rows are missing.
        """


def streamed(form: Any) -> list[tuple[bytes, bytes]]:
    """Return the headers of a streamed answer in a format.

    :param form: has ``content_type`` and ``by_lines``.
    """
    headers = [(b"Content-Type", form.content_type), _NOT_CACHED, _BY_ACCEPT]
    if form.by_lines:
        headers.append(UNBUFFERED)
    return headers


class JsonForm:
    """One object, as the server sends it: ``{"total_rows", "rows", "errors", "debug_info"}``."""

    content_type = JSON
    by_lines = False

    def __init__(self) -> None:
        self._separator = b"\n"
        self._told_total = False

    def head(self, total: int | None) -> bytes:
        """Return the beginning of the object."""
        if total is None:
            return b'{"rows":['
        self._told_total = True
        return b'{"total_rows":%d,"rows":[' % total

    def rows(self, rows: list[bytes]) -> bytes:
        """Return some rows, after a comma if needed."""
        separator, self._separator = self._separator, b",\n"
        # A node may end lines with CR LF, which cannot be a part of a string; a block may end anywhere.
        return separator + b",\n".join(rows).replace(b"\r", b"")

    def tail(self, meta: dict[str, Any], errors: list[Any], count: int | None) -> bytes:
        """Return the rest of the object."""
        members = [b"\n]"]
        total = meta.get("total_rows")
        if total is not None and not self._told_total:
            members.append(b'"total_rows":' + any_json(total))
        if errors:
            members.append(b'"errors":' + any_json(errors))
        for name in ("debug_info", "cursor"):
            if name in meta:
                members.append(b'"%b":%b' % (name.encode(), any_json(meta[name])))
        return b",".join(members) + b"}\n"


class LineForm:
    """One row per line, then a line ``{"error": ...}`` for each error."""

    content_type = LINES
    by_lines = True

    def head(self, total: int | None) -> bytes:
        """Return nothing: the first line is a row."""
        return b""

    def rows(self, rows: list[bytes]) -> bytes:
        """Return some lines."""
        return b"\n".join(rows) + b"\n"

    def tail(self, meta: dict[str, Any], errors: list[Any], count: int | None) -> bytes:
        """Return the lines after the rows."""
        lines = [b'{"error":%b}\n' % any_json(error) for error in errors]
        for name in ("debug_info", "cursor"):
            if name in meta:
                lines.append(b'{"%b":%b}\n' % (name.encode(), any_json(meta[name])))
        return b"".join(lines)


class EventForm:
    """Events ``row``, then ``error`` for each error, then ``done`` if no row is missing."""

    content_type = EVENTS
    by_lines = True

    def head(self, total: int | None) -> bytes:
        """Return nothing: the first event is a row."""
        return b""

    def rows(self, rows: list[bytes]) -> bytes:
        """Return some events."""
        return b"event: row\ndata: " + b"\n\nevent: row\ndata: ".join(rows) + b"\n\n"

    def tail(self, meta: dict[str, Any], errors: list[Any], count: int | None) -> bytes:
        """Return the last events."""
        events = [b"event: error\ndata: %b\n\n" % any_json(error) for error in errors]
        if count is not None:
            done: dict[str, Any] = {"rows": count}
            done.update((name, meta[name]) for name in ("total_rows", "debug_info", "cursor") if name in meta)
            events.append(b"event: done\ndata: %b\n\n" % any_json(done))
        return b"".join(events)


_FORMS: dict[bytes, type[JsonForm] | type[LineForm] | type[EventForm]] = {
    JSON: JsonForm,
    LINES: LineForm,
    EVENTS: EventForm,
}


def form_for(accept: bytes | None) -> JsonForm | LineForm | EventForm:
    """Return the format that ``Accept`` prefers; JSON if it names none of them.

    :raises Refusal: 400 for an invalid weight.
    """
    return _FORMS[preferred_form(accept)]()


def preferred_form(accept: bytes | None) -> bytes:
    """Return the content type of the format that ``Accept`` prefers; JSON if it names none of them.

    :raises Refusal: 400 for an invalid weight.
    """
    best: bytes | None = None
    best_quality = 0.0
    for name, quality in parse_accept(accept or b""):
        if name in _FORMS and quality > best_quality:
            best, best_quality = name, quality
    return best or JSON


def one_line_each(rows: list[bytes]) -> list[bytes]:
    """Return rows without newlines; in JSON these are whitespace, never part of a string."""
    text = b"".join(rows)
    if b"\n" not in text and b"\r" not in text:
        return rows
    return [row.replace(b"\r", b" ").replace(b"\n", b" ") for row in rows]
