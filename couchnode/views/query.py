"""Answers of queries: from indexes to the bytes of the HTTP body, block by block.

The plan of a query is a dict that the node has checked (:mod:`couchnode.views.parameters`): ``startkey``,
``endkey``, ``startkey_docid``, ``endkey_docid``, ``keys``, ``limit`` (each only if given), ``inclusive_end``,
``descending``, ``skip``, ``reduce``, ``group`` (0 none, N levels, -1 whole keys), ``debug``, ``on_error``,
and ``errors``: parts that the node already knows to be missing.

Rows of one index are sent as they are stored. Rows of several are merged by key and document id, and groups
of several are reduced again.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from time import monotonic
from typing import Any

from couchnode.views.collation import KeyEncoder, group_length
from couchnode.views.errors import INDEX_MISSING, QueryError
from couchnode.views.index import IndexReader, is_damage
from couchnode.views.ranges import Edge, Range, Walk
from couchnode.views.reducers import Builtin, CustomReduction, ReduceCall, ReductionError, builtin
from couchnode.views.sources import IndexMissing, Source, SourceError

BLOCK_BYTES = 32 * 1024
_BLOCK_SECONDS = 0.1
_SEPARATOR = b",\r\n"
_NO_LIMIT = 2**62
_PROBE_ROWS = 32
_MOST_PROBE_ROWS = 512
_MOST_GROUPS = 512

_KEY_TEXT = "substr(row, key_at + 1, value_at - 9 - key_at)"
_TOKEN = re.compile(rb'[^][{},"]+|"(?:[^"\\]|\\.)*"|[][{},]')


ReduceMany = Callable[[str, str, "list[ReduceCall]"], "list[str]"]
"""``SandboxPool.reduce_many``, which raises :class:`ReductionError` for a function that fails."""


class IndexQuery:
    """One running query.

    :param indexes: the request's members about each index, and a reader, ``None`` if there is no file yet.
    :param reduce_many: calls functions in JavaScript.
    :param on_damage: called with the path of a damaged file.
    :raises QueryError: it cannot be answered.
    """

    def __init__(
        self,
        indexes: Sequence[tuple[dict[str, Any], IndexReader | None]],
        plan: dict[str, Any],
        reduce_many: ReduceMany,
        encoder: KeyEncoder,
        on_damage: Callable[[str], object] = lambda path: None,
    ) -> None:
        self._plan = plan
        self._encoder = encoder
        self._on_damage = on_damage
        self._backwards: bool = plan.get("descending", False)
        self._left: int = plan.get("limit", _NO_LIMIT)
        self._skip: int = plan.get("skip", 0)
        self._group: int = plan.get("group", 0)
        self._errors: list[dict[str, str]] = list(plan.get("errors", ()))
        self._alone = len(indexes) == 1 and not self._errors
        self._stops = plan.get("on_error") == "stop"
        self._has_rows = False
        self._sent = False
        self.fetched = 0
        self._ranges = self._find_ranges()
        if plan.get("reduce"):
            given = indexes[0][0] if indexes else {"design": "", "reduce": "_count"}
            self._builtin = builtin(given["reduce"])
            design, source = given["design"], given["reduce"]
            self._call_many = lambda calls: reduce_many(design, source, calls)
        self._sources: list[Source] = []
        for given, reader in indexes:
            self._add_source(given, reader)

    def release(self) -> None:
        """Release the snapshots; the query continues after its last row, on the data of that time."""
        for source in self._sources:
            if source.reader is not None:
                source.reader.release()

    def blocks(self) -> Iterator[bytes]:
        """Yield the body, in blocks of at least :data:`BLOCK_BYTES`, or smaller ones if rows come slowly.

        :raises QueryError: an error before the first block, if there is only one index.
        """
        block = [self._head()]
        size = 0
        since = monotonic()
        for text in self._texts():
            block.append(_SEPARATOR if self._has_rows else b"")
            block.append(text)
            self._has_rows = True
            size += len(text)
            if size >= BLOCK_BYTES or monotonic() - since >= _BLOCK_SECONDS:
                self._sent = True
                yield b"".join(block)
                block, size, since = [], 0, monotonic()
        block.append(self._tail())
        yield b"".join(block)

    # ---- head and tail ---------------------------------------------------------------------------

    def _head(self) -> bytes:
        parts = []
        if self._plan.get("debug"):
            debug_info = json.dumps({source.name: source.debug() for source in self._sources})
            parts.append(f'"debug_info":{debug_info},\r\n')
        if not self._plan.get("reduce"):
            total = 0 if self._is_over() else sum(source.facts.rows for source in self._sources)
            parts.append(f'"total_rows":{total},')
        return f'{{{"".join(parts)}"rows":[\r\n'.encode()

    def _tail(self) -> bytes:
        lines = ["\r\n" if self._has_rows else "", "]"]
        if self._errors:
            entries = ",\r\n".join(
                f'{{"from":{json.dumps(entry["from"])},"reason":{json.dumps(entry["reason"])}}}'
                for entry in self._errors
            )
            lines.append(f',\r\n"errors":[\r\n{entries}\r\n]')
        lines.append("\r\n}")
        return "".join(lines).encode()

    # ---- errors and failures ---------------------------------------------------------------------

    def _add_source(self, given: dict[str, Any], reader: IndexReader | None) -> None:
        try:
            source = Source(given, reader)
            if source.facts.error is not None:
                raise SourceError(source.facts.error)
        except IndexMissing as error:
            raise QueryError(503, INDEX_MISSING, str(error)) from error
        except (sqlite3.Error, SourceError) as error:
            self._fail(given["from"], given["path"], error)
        else:
            self._sources.append(source)

    def _fail(self, name: str, path: str | None, error: Exception) -> None:
        """Record that a source has failed.

        :raises QueryError: it is the only one, and nothing was sent.
        """
        reason = str(error)
        if isinstance(error, sqlite3.Error):
            reason = f"the index cannot be read: {error}"
            if path is not None and is_damage(error):
                self._on_damage(path)
        if self._alone and not self._sent:
            raise QueryError(500, "error", reason) from error
        self._errors.append({"from": name, "reason": reason})

    def _is_over(self) -> bool:
        return bool(self._errors) and self._stops

    def _guarded(self, source: Source, items: Iterator[Any]) -> Iterator[Any]:
        """Yield a source's items until it fails."""
        try:
            while not self._is_over():
                item = next(items, None)
                if item is None:
                    return
                yield item
        except (sqlite3.Error, ReductionError) as error:
            self._fail(source.name, source.reader.path if source.reader is not None else None, error)

    # ---- which rows ------------------------------------------------------------------------------

    def _find_ranges(self) -> list[Range]:
        plan = self._plan
        if "keys" in plan:
            keys = [self._encoder.from_json(json.dumps(key)) for key in plan["keys"]]
            return [self._range(key, key) for key in keys]
        ends = [
            self._encoder.from_json(json.dumps(plan[name])) if name in plan else None
            for name in ("startkey", "endkey")
        ]
        start, end = ends
        if start is not None and end is not None and (start < end if self._backwards else start > end):
            raise QueryError(
                400,
                "query_parse_error",
                "No rows can match your key range, reverse your start_key and end_key or set"
                f" descending={'false' if self._backwards else 'true'}",
            )
        return [self._range(start, end)]

    def _range(self, start: bytes | None, end: bytes | None) -> Range:
        edges: list[Edge | None] = []
        for key, name, included in (
            (start, "startkey_docid", True),
            (end, "endkey_docid", self._plan.get("inclusive_end", True)),
        ):
            doc = self._plan.get(name)
            if key is None:
                edges.append(None)
            else:
                edges.append(Edge((key,) if doc is None else (key, _bytes(doc)), included))
        return Range(*edges)

    def _readers(self) -> list[tuple[Source, IndexReader]]:
        return [(source, source.reader) for source in self._sources if source.reader is not None]

    # ---- rows of a map ---------------------------------------------------------------------------

    def _texts(self) -> Iterator[bytes]:
        readers = self._readers()
        for span in self._ranges:
            if self._left <= 0 or self._is_over():
                return
            if self._plan.get("reduce"):
                yield from self._group_texts(readers, span)
            elif len(readers) == 1:
                yield from self._guarded(readers[0][0], self._own_rows(*readers[0], span))
            else:
                yield from self._merged_rows(readers, span)

    def _printed(self, source: Source) -> str:
        if not self._plan.get("debug"):
            return "row"
        # Inserted between key and value; a node's name in JSON has no quotes of SQL.
        node = json.dumps(source.name).replace("'", "\\u0027")
        return (
            f"CAST(substr(row, 1, value_at - 9) AS TEXT) || ',\"partition\":' || vb || ',\"node\":{node}'"
            " || CAST(substr(row, value_at - 8) AS TEXT)"
        )

    def _own_rows(self, source: Source, reader: IndexReader, span: Range) -> Iterator[bytes]:
        walk = Walk(reader, span, self._backwards)
        if self._skip:
            self._skip -= walk.skip(self._skip)
            self.fetched += walk.fetched
            if self._skip:
                return
        expression = self._printed(source)
        while self._left > 0:
            text, count = walk.join(expression, _SEPARATOR, self._left)
            if not count:
                return
            self.fetched += count
            self._left -= count
            yield text

    def _merged_rows(self, readers: list[tuple[Source, IndexReader]], span: Range) -> Iterator[bytes]:
        streams = [self._guarded(source, self._rows_of(source, reader, span)) for source, reader in readers]
        merged = merge(*streams, key=_first_two, reverse=self._backwards)
        for row in merged:
            if self._is_over():
                return
            if self._skip:
                self._skip -= 1
                continue
            self._left -= 1
            yield row[4]
            if self._left <= 0:
                return

    def _rows_of(self, source: Source, reader: IndexReader, span: Range) -> Iterator[tuple[Any, ...]]:
        walk = Walk(reader, span, self._backwards)
        columns = f"key, doc, vb, n, {self._printed(source)}"
        left = self._left + self._skip
        while left > 0 and (rows := walk.page(columns, left)):
            self.fetched += len(rows)
            left -= len(rows)
            yield from rows

    # ---- groups of a reduce ----------------------------------------------------------------------

    def _group_texts(self, readers: list[tuple[Source, IndexReader]], span: Range) -> Iterator[bytes]:
        reduce = self._builtin
        streams = []
        for source, reader in readers:
            walk = Walk(reader, span, self._backwards)
            groups = self._custom_groups(walk) if reduce is None else self._builtin_groups(walk, reduce)
            streams.append(self._guarded(source, groups))
        if len(streams) == 1:
            groups = streams[0]
        else:
            groups = self._reduced_again(merge(*streams, key=_first, reverse=self._backwards))
        for _, key_text, partial in groups:
            if self._skip:
                self._skip -= 1
                continue
            self._left -= 1
            try:
                value = partial.encode() if reduce is None else reduce.text(partial)
            except ReductionError as error:
                self._fail("local", None, error)
                return
            yield b'{"key":%b,"value":%b}' % (key_text, value)
            if self._left <= 0:
                return

    def _reduced_again(self, groups: Iterator[Any]) -> Iterator[Any]:
        """Yield one group for consecutive equal groups of several indexes."""
        same: list[Any] = []
        try:
            for group in groups:
                if same and group[0] != same[0][0]:
                    yield self._one(same)
                    same = []
                if self._is_over():
                    return
                same.append(group)
            if same and not self._is_over():
                yield self._one(same)
        except ReductionError as error:
            self._fail("local", None, error)

    def _one(self, same: list[Any]) -> Any:
        if len(same) == 1:
            return same[0]
        partials = [group[2] for group in same]
        if self._builtin is not None:
            partial = self._builtin.merge(partials)
        else:
            (partial,) = self._call_many([(None, f"[{','.join(partials)}]", True)])
        return same[0][0], same[0][1], partial

    def _builtin_groups(self, walk: Walk, reduce: Builtin) -> Iterator[tuple[bytes, bytes, Any]]:
        """Yield (group key, key to print, partial).

        Small groups are reduced here from a page of rows; the group at the page's end is left to SQLite.
        """
        if self._group == 0:
            partial = reduce.from_columns(walk.aggregate(reduce.aggregate, b""))
            if partial is not None:
                yield b"", b"null", partial
            return
        probe = _PROBE_ROWS
        while rows := walk.page(f"key, num, {_KEY_TEXT}", probe):
            self.fetched += len(rows)
            groups = 0
            group, text = b"", b""
            numbers: list[float] = []
            for key, number, key_text in rows:
                if not numbers or not key.startswith(group):
                    if numbers:
                        groups += 1
                        yield group, text, reduce.from_numbers(numbers)
                    group, text = self._group_of(key, key_text)
                    numbers = []
                numbers.append(number)
            rest = reduce.from_columns(walk.aggregate(reduce.aggregate, group))
            partials = [reduce.from_numbers(numbers)]
            if rest is not None:
                partials.append(rest)
            yield group, text, reduce.merge(partials)
            probe = min(probe * 2, _MOST_PROBE_ROWS) if groups else _PROBE_ROWS

    def _group_of(self, key: bytes, text: bytes) -> tuple[bytes, bytes]:
        length = group_length(key, self._group)
        return (key, text) if length == len(key) else (key[:length], _cut(text, self._group))

    def _custom_groups(self, walk: Walk) -> Iterator[tuple[bytes, bytes, Any]]:
        reduction = CustomReduction(self._call_many)
        group: bytes | None = None
        most = 1
        for rows in walk.pages("key, row, key_at, value_at"):
            self.fetched += len(rows)
            for key, row, key_at, value_at in rows:
                key_text = row[key_at : value_at - 9]
                if group is None or not key.startswith(group):
                    if reduction.groups >= min(most, self._left + self._skip):
                        most = min(most * 4, _MOST_GROUPS)
                        yield from reduction.flush(False)
                        if self._left <= 0:
                            return
                    group, text = self._group_of(key, key_text) if self._group else (b"", b"null")
                    reduction.open(group, text)
                if reduction.add(key_text, row[6 : key_at - 7], row[value_at:-1]):
                    yield from reduction.flush(True)
        yield from reduction.flush(False)


def _first(group: Sequence[Any]) -> Any:
    return group[0]


def _first_two(row: Sequence[Any]) -> Any:
    return row[:2]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _cut(text: bytes, level: int) -> bytes:
    """Cut the JSON text of an array to its first elements; it has more of them."""
    depth = 0
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
        elif mark == b"," and depth == 1:
            level -= 1
            if level == 0:
                return text[: token.start()] + b"]"
    return text
