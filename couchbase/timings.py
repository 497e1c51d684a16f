"""Durations of operations: a histogram whose steps double."""

from __future__ import annotations

from typing import Any

_FIRST_MS = 0.064


class Timings:
    """Counts durations in steps from 64 us to over a minute."""

    def __init__(self) -> None:
        self._counts = [0] * 24

    def add(self, seconds: float) -> None:
        """Count one duration."""
        step = int(seconds * 1000 / _FIRST_MS).bit_length()
        self._counts[min(step, len(self._counts) - 1)] += 1

    def histogram(self) -> list[dict[str, Any]]:
        """Return the steps that are not empty: ``min`` and ``max`` in milliseconds, and ``count``."""
        return [
            {"min": _FIRST_MS * 2 ** (step - 1) if step else 0.0, "max": _FIRST_MS * 2**step, "count": count}
            for step, count in enumerate(self._counts)
            if count
        ]
