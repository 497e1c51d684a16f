"""The names of a store's files: whether they still belong to the open files, and the sizes."""

from __future__ import annotations

import os
from pathlib import Path

from couchnode.data.storeerrors import StoreLostError

__all__ = ["StorePlace"]


class StorePlace:
    """The file of a store and its write-ahead log, by name.

    An open file is still written after it was moved or deleted, and SQLite does not report this: what is
    written then is gone when the node stops.
    """

    def __init__(self, path: Path) -> None:
        self._names = (str(path), f"{path}-wal")
        self._opened: list[tuple[int, int] | None] = []

    def remember(self) -> None:
        """Note which files have the names now; call it when both are open."""
        self._opened = [_identity(name) for name in self._names]

    def check(self) -> None:
        """Check that the names belong to the same files.

        :raises StoreLostError: one was moved, deleted or replaced.
        """
        for name, opened in zip(self._names, self._opened, strict=False):
            if opened is not None and _identity(name) != opened:
                raise StoreLostError(
                    f"{name} was moved, deleted or replaced while the node has it open: put it back, or "
                    "export the documents before the node stops"
                )

    def size(self) -> int:
        """Return the size of both files, in bytes."""
        total = 0
        for name in self._names:
            try:
                total += os.stat(name).st_size
            except FileNotFoundError:
                continue
        return total


def _identity(name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_dev, found.st_ino
