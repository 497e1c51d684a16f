"""Reduce functions: over the rows of a group, and over their own results.

A *partial* is the result for some of a group's rows, in a form that can be reduced again: a number for
``_count`` and ``_sum``, a tuple for ``_stats``, a JSON text for a function in JavaScript.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

#: Built-in functions that take numbers only.
NUMERIC = frozenset({"_sum", "_stats"})

#: All built-in functions.

CHUNK_ROWS = 1000
CHUNK_BYTES = 1024 * 1024
_PARTIALS = 64
_PARTIALS_BYTES = 1024 * 1024


class ReductionError(Exception):
    """A reduce function failed; the text is for the answer."""


ReduceCall = tuple[str | None, str, bool]
"""(keys or None, values, rereduce) of a call of a function in JavaScript; JSON texts."""

ReduceFunction = Callable[[list[ReduceCall]], list[str]]


class Builtin(Protocol):
    """A built-in reduce function over the column ``num`` of rows."""

    aggregate: str
    """SQL that aggregates rows to the columns for :meth:`from_columns`."""

    def from_columns(self, columns: Sequence[Any]) -> Any:
        """Return the partial of a group from the columns of :attr:`aggregate`; ``None`` if there are no
        rows."""

    def from_numbers(self, numbers: Sequence[float]) -> Any:
        """Return the partial of the values of at least one row."""

    def merge(self, partials: Sequence[Any]) -> Any:
        """Reduce partials of one group again."""

    def text(self, partial: Any) -> bytes:
        """Serialize a partial as JSON."""


class _Count:
    aggregate = "count(*)"

    def from_columns(self, columns: Sequence[Any]) -> Any:
        return columns[0] or None

    def from_numbers(self, numbers: Sequence[float]) -> Any:
        return len(numbers)

    def merge(self, partials: Sequence[Any]) -> Any:
        return sum(partials)

    def text(self, partial: Any) -> bytes:
        return b"%d" % partial


class _Sum:
    aggregate = "count(*), total(num)"

    def from_columns(self, columns: Sequence[Any]) -> Any:
        return _number(columns[1]) if columns[0] else None

    def from_numbers(self, numbers: Sequence[float]) -> Any:
        return sum(numbers)

    def merge(self, partials: Sequence[Any]) -> Any:
        return sum(partials)

    def text(self, partial: Any) -> bytes:
        return number_text(partial)


class _Stats:
    aggregate = "total(num), count(*), min(num), max(num), total(num * num)"

    def from_columns(self, columns: Sequence[Any]) -> Any:
        return tuple(map(_number, columns)) if columns[1] else None

    def from_numbers(self, numbers: Sequence[float]) -> Any:
        squares = sum([number * number for number in numbers])
        return sum(numbers), len(numbers), min(numbers), max(numbers), squares

    def merge(self, partials: Sequence[Any]) -> Any:
        sums, counts, lows, highs, squares = zip(*partials, strict=True)
        return sum(sums), sum(counts), min(lows), max(highs), sum(squares)

    def text(self, partial: Any) -> bytes:
        return b'{"sum":%b,"count":%b,"min":%b,"max":%b,"sumsqr":%b}' % tuple(map(number_text, partial))


def _number(column: float | None) -> float:
    """Return a sum of SQLite, which is NULL for infinity minus infinity."""
    return math.nan if column is None else column


_FUNCTIONS: dict[str, Builtin] = {"_count": _Count(), "_sum": _Sum(), "_stats": _Stats()}


def builtin(source: str) -> Builtin | None:
    """Return the built-in function of that name; ``None`` if the source is JavaScript."""
    return _FUNCTIONS.get(source)


class Group:
    """A group under a reduce function in JavaScript, while its rows come in.

    :ivar key: its group key.
    :ivar text: the key to print, JSON.
    """

    __slots__ = ("key", "keys", "partials", "rows", "text", "values")

    def __init__(self, key: bytes, text: bytes) -> None:
        self.key = key
        self.text = text
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.rows = 0
        self.partials: list[str] = []


class CustomReduction:
    """Groups under a reduce function in JavaScript: rows go in, groups with their partials come out.

    The function is called on chunks of rows and, if a group has more than one row, on its own results, so
    that a wrong handling of those shows with small data too. Calls for many groups go together, because one
    trip into V8 costs more than a call.

    :param call_many: runs calls of (keys or None, values, rereduce), JSON texts, and returns the results.
    """

    def __init__(self, call_many: ReduceFunction) -> None:
        self._call_many = call_many
        self._groups: list[Group] = []
        self._rows = 0
        self._bytes = 0

    @property
    def groups(self) -> int:
        """Number of groups held, including the open one."""
        return len(self._groups)

    def open(self, key: bytes, text: bytes) -> None:
        """Begin a group; the one before is complete."""
        self._groups.append(Group(key, text))

    def add(self, key: bytes, doc_id: bytes, value: bytes) -> bool:
        """Take a row of the open group, all JSON; return whether enough is held to call :meth:`flush`."""
        group = self._groups[-1]
        group.keys.append(b"[%b,%b]" % (key, doc_id))
        group.values.append(value)
        group.rows += 1
        self._rows += 1
        self._bytes += len(key) + len(doc_id) + len(value)
        return self._rows >= CHUNK_ROWS or self._bytes >= CHUNK_BYTES

    def flush(self, keep_open: bool) -> list[tuple[bytes, bytes, str]]:
        """Reduce the held rows; return (group key, key to print, partial) of the complete groups.

        :param keep_open: more rows of the last group may come.
        :raises ReductionError: the function failed.
        """
        waiting = [group for group in self._groups if group.values]
        if waiting:
            calls: list[ReduceCall] = [
                ((b"[%b]" % b",".join(group.keys)).decode(), _array(group.values), False) for group in waiting
            ]
            for group, partial in zip(waiting, self._call_many(calls), strict=True):
                group.partials.append(partial)
                group.keys, group.values = [], []
        self._rows = self._bytes = 0
        complete, self._groups = self._groups, []
        if keep_open and complete:
            self._groups.append(complete.pop())
        again = [group for group in complete if group.rows > 1]
        again += [
            group
            for group in self._groups
            if len(group.partials) >= _PARTIALS or sum(map(len, group.partials)) >= _PARTIALS_BYTES
        ]
        if again:
            merged = self._call_many([(None, f"[{','.join(group.partials)}]", True) for group in again])
            for group, partial in zip(again, merged, strict=True):
                group.partials = [partial]
        return [(group.key, group.text, group.partials[0]) for group in complete]


def _array(values: Sequence[bytes]) -> str:
    return (b"[%b]" % b",".join(values)).decode()


def number_text(number: float) -> bytes:
    """Print a number like JavaScript's JSON: ``6``, ``0.5``, ``1e+21``, ``1e-7``.

    :raises ReductionError: it exceeds the range of doubles.
    """
    if number == 0:
        return b"0"
    if isinstance(number, float) and not math.isfinite(number):
        raise ReductionError("the result is beyond the range of numbers, about 1.8e308")
    if abs(number) < 1e21 and number == int(number):
        return b"%d" % int(float(number)) if abs(number) < 2**53 else _shortest_integer(float(number))
    digits = repr(float(number))
    if "e" not in digits:
        return digits.encode()
    mantissa, exponent = digits.split("e")
    power = int(exponent)
    if -7 < power < 0:
        # Python switches to exponents at 1e-5, JavaScript at 1e-7.
        sign, figures = ("-", mantissa[1:]) if mantissa[0] == "-" else ("", mantissa)
        return f"{sign}0.{'0' * (-power - 1)}{figures.replace('.', '')}".encode()
    return f"{mantissa}e{power:+d}".encode()


def _shortest_integer(number: float) -> bytes:
    """Print a whole number of more than 53 bits: the digits that distinguish it, then zeros."""
    digits = repr(number)
    if "e" not in digits:
        return digits.removesuffix(".0").encode()
    mantissa, exponent = digits.split("e")
    sign, figures = ("-", mantissa[1:]) if mantissa[0] == "-" else ("", mantissa)
    return (sign + figures.replace(".", "").ljust(int(exponent) + 1, "0")).encode()
