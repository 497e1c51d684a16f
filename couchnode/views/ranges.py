"""Walks over the rows of an index: from one edge to another, in either direction, a page at a time.

A page is found, measured and printed inside SQLite with three statements, however many rows it has: a thread
that steps through rows one by one would wait for Python's lock at each of them. Pages are bounded in bytes
before anything is read, so rows of megabytes need no more memory than their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from couchnode.views.collation import GROUP_END
from couchnode.views.index import IndexReader

PAGE_BYTES = 128 * 1024
_MOST_BYTES = 1024 * 1024
_FIRST_ROWS = 64
_MOST_ROWS = 4096
_COLUMNS = ("key", "doc", "vb", "n")


class Edge(NamedTuple):
    """One end of a walk.

    :ivar values: the first few of key (as sort key), document id, vbucket and number of a row.
    :ivar included: whether rows that begin with exactly these values are included.
    """

    values: tuple[Any, ...]
    included: bool


class Range(NamedTuple):
    """The two edges of a walk; ``None`` for open."""

    start: Edge | None = None
    stop: Edge | None = None


class Walk:
    """A walk over an index, one page after the other; it can continue after the reader's snapshot was
    released.

    :param backwards: from the high end to the low one.
    :ivar fetched: number of rows read or skipped so far.
    """

    def __init__(self, reader: IndexReader, span: Range, backwards: bool) -> None:
        self._reader = reader
        self._start, self._stop = span
        self._backwards = backwards
        self._rows = _FIRST_ROWS
        self.fetched = 0

    def skip(self, count: int) -> int:
        """Skip rows without reading them; return their number, at most ``count``."""
        where, parameters = self._where()
        ((passed,),) = self._reader.fetch(
            f"SELECT count(*) FROM (SELECT 1 FROM rows{where} LIMIT ?)", [*parameters, count]
        )
        if passed:
            self._move(where, parameters, passed)
        self.fetched += passed
        return passed

    def join(self, expression: str, separator: bytes, most: int) -> tuple[bytes, int]:
        """Return a page of at most ``most`` rows, serialized and joined, and their number; 0 at the end.

        After ``most`` rows the walk is over.

        :param expression: SQL that prints a row; without parameters.
        """
        count, where, parameters = self._plan(most)
        if not count:
            return b"", 0
        ((text,),) = self._reader.fetch(
            f"SELECT group_concat(text, ?) FROM (SELECT {expression} AS text FROM rows{where} LIMIT ?)",
            [separator, *parameters, count],
        )
        if count < most:
            self._move(where, parameters, count)
        return text, count

    def page(self, columns: str, most: int) -> list[tuple[Any, ...]]:
        """Return ``columns`` of a page of at most ``most`` rows; empty at the end."""
        count, where, parameters = self._plan(most)
        if not count:
            return []
        found = self._reader.fetch(f"SELECT {columns} FROM rows{where} LIMIT ?", [*parameters, count])
        self._move(where, parameters, count)
        return found

    def aggregate(self, expression: str, prefix: bytes) -> tuple[Any, ...]:
        """Aggregate and skip the next rows of one group; all rows if its group key is empty."""
        where, parameters = self._where()
        if prefix:
            clause, key = ("key >= ?", prefix) if self._backwards else ("key < ?", prefix + GROUP_END)
            where = where.replace(" ORDER", f"{' AND' if parameters else ' WHERE'} {clause} ORDER")
            parameters = [*parameters, key]
            self._start = Edge((key,), not self._backwards)
        where = where[: where.index(" ORDER")]
        return self._reader.fetch(f"SELECT {expression} FROM rows{where}", parameters)[0]

    def pages(self, columns: str) -> Iterator[list[tuple[Any, ...]]]:
        """Yield pages to the end."""
        while found := self.page(columns, _MOST_ROWS):
            yield found

    def _where(self) -> tuple[str, list[Any]]:
        clauses = []
        parameters: list[Any] = []
        for edge, forward, backward in ((self._start, ">", "<"), (self._stop, "<", ">")):
            if edge is not None:
                names = ", ".join(_COLUMNS[: len(edge.values)])
                marks = ", ".join("?" * len(edge.values))
                operator = (backward if self._backwards else forward) + ("=" if edge.included else "")
                clauses.append(f"({names}) {operator} ({marks})")
                parameters += edge.values
        direction = " DESC" if self._backwards else ""
        order = ", ".join(name + direction for name in _COLUMNS)
        return f"{' WHERE ' if clauses else ''}{' AND '.join(clauses)} ORDER BY {order}", parameters

    def _plan(self, most: int) -> tuple[int, str, list[Any]]:
        """Choose the number of rows in the next page."""
        where, parameters = self._where()
        wanted = min(self._rows, most)
        while True:
            ((count, size),) = self._reader.fetch(
                f"SELECT count(*), total(size) FROM (SELECT length(row) AS size FROM rows{where} LIMIT ?)",
                [*parameters, wanted],
            )
            if count <= 1 or size <= _MOST_BYTES:
                break
            wanted = max(1, min(wanted, count) // 4)
        if count:
            fitting = int(PAGE_BYTES * count / max(size, 1))
            self._rows = max(1, min(fitting, self._rows * 4, _MOST_ROWS))
        self.fetched += count
        return count, where, parameters

    def _move(self, where: str, parameters: list[Any], count: int) -> None:
        (last,) = self._reader.fetch(
            f"SELECT key, doc, vb, n FROM rows{where} LIMIT 1 OFFSET ?", [*parameters, count - 1]
        )
        self._start = Edge(last, False)
