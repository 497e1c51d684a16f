"""Counters and gauges as plain numbers, which processes can send to each other and sum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["MOST_RETIRED", "MetricValues"]

Key = tuple[str, ...]
"""A metric's name, followed by the values of its labels."""

_MAX_KEYS = 100_000

MOST_RETIRED = 20_000
"""Largest number of counters of ended processes."""


class MetricValues:
    """The metrics of one process, or the sums over several.

    ``counters`` and ``gauges`` map a name with its labels to a list of numbers, whose meaning the plugin
    defines. All lists of one name have the same length.
    """

    __slots__ = ("counters", "gauges")

    def __init__(self) -> None:
        self.counters: dict[Key, list[float]] = {}
        self.gauges: dict[Key, list[float]] = {}

    def add(self, other: MetricValues) -> None:
        """Add the metrics of another process, number by number."""
        _add(self.counters, other.counters)
        _add(self.gauges, other.gauges)

    def retire(self, other: MetricValues) -> None:
        """Add the counters of a process that has ended; its gauges no longer apply.

        At most :data:`MOST_RETIRED` are kept, whatever names clients cause; further ones are dropped.
        """
        room = MOST_RETIRED - len(self.counters)
        known = {key: numbers for key, numbers in other.counters.items() if key in self.counters}
        new = [item for item in other.counters.items() if item[0] not in known]
        _add(self.counters, known | dict(new[: max(room, 0)]))

    def named(self, name: str) -> Iterator[tuple[Key, list[float]]]:
        """Yield (label values, numbers) of the counters of a name."""
        for key, numbers in self.counters.items():
            if key[0] == name:
                yield key[1:], numbers

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as values that JSON can represent."""
        return {
            "counters": [[*key, numbers] for key, numbers in self.counters.items()],
            "gauges": [[*key, numbers] for key, numbers in self.gauges.items()],
        }

    @classmethod
    def from_json(cls, value: object) -> MetricValues:
        """Read what :meth:`to_json` returned.

        :raises ValueError: the value has another form.
        """
        metrics = cls()
        if not isinstance(value, dict):
            raise ValueError("metrics must be an object")
        for name, kept in (("counters", metrics.counters), ("gauges", metrics.gauges)):
            rows = value.get(name)
            if not isinstance(rows, list) or len(rows) > _MAX_KEYS:
                raise ValueError(f"metrics: {name} must be a list of at most {_MAX_KEYS} rows")
            for row in rows:
                if not _is_row(row):
                    raise ValueError(f"metrics: {name} has a row that is not strings and a list of numbers")
                kept[tuple(row[:-1])] = row[-1]
        return metrics


def _is_row(row: object) -> bool:
    return (
        isinstance(row, list)
        and len(row) > 1
        and all(isinstance(label, str) for label in row[:-1])
        and isinstance(row[-1], list)
        and all(type(number) in (int, float) for number in row[-1])
    )


def _add(sums: dict[Key, list[float]], others: dict[Key, list[float]]) -> None:
    for key, numbers in others.items():
        known = sums.get(key)
        if known is None:
            sums[key] = numbers.copy()
        else:
            for at, number in enumerate(numbers[: len(known)]):
                known[at] += number
