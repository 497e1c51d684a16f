"""A copy of a store's file, made while the store is in use."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

from couchnode.data.storeerrors import StoreClosedError, StoreDamagedError, translate

PAGES = 256
"""Pages of 4 KiB copied at a time; writes wait until a step is done."""

_OF_READING = frozenset({"SQLITE_IOERR_READ", "SQLITE_IOERR_SHORT_READ"})


class Copying:
    """One copy: the store's thread makes it, and executes writes between two steps.

    From before the copy begins until the store knows that it has ended, the store puts its writes into
    :attr:`writes`. The copy, and afterwards the store, take them in order, so none is lost.

    :param path: a file that does not exist, in a folder that does.
    """

    def __init__(self, path: Path) -> None:
        self.writes: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.is_stopped = False
        """Set to end the copy early; it then fails with StoreClosedError."""
        self._path = path

    def take(self) -> Iterator[Callable[[], None]]:
        """Yield the waiting writes, each once."""
        while True:
            try:
                yield self.writes.get_nowait()
            except Empty:
                return

    def run(self, connection: sqlite3.Connection) -> int:
        """Make the copy, and sync it; it has the content of the store at the end of the copying.

        :returns: the size of the copy, in bytes.
        :raises StoreClosedError: the copy was stopped.
        :raises StoreError: the copy could not be written; the message names the copy, not the store.
        :raises OSError: the same, at the end.
        :raises sqlite3.Error: the store could not be read. In each case nothing is left of the copy.
        """
        try:
            # Closed by hand: as a context manager, a connection ends transactions only.
            target = sqlite3.connect(self._path, isolation_level=None)
            try:
                connection.backup(target, pages=PAGES, progress=self._between)
            finally:
                target.close()
            with open(self._path, "rb+") as file:
                os.fsync(file.fileno())
            return self._path.stat().st_size
        except BaseException as error:
            for suffix in ("", "-journal"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            if isinstance(error, sqlite3.Error):
                raise self._blamed(error) from error
            raise
        finally:
            self._write()

    def _blamed(self, error: sqlite3.Error) -> Exception:
        """Return the error with the name of the copy, unless the store cannot be read."""
        found = translate(self._path, "", error)
        # The copy is new, so the damaged file is the store. Python 3.10 has no names of SQLite errors.
        if isinstance(found, StoreDamagedError) or getattr(error, "sqlite_errorname", "") in _OF_READING:
            return error
        return found

    def _between(self, status: int, remaining: int, total: int) -> None:
        if self.is_stopped:
            raise StoreClosedError(f"{self._path}: the copy was stopped")
        # SQLite applies changes made by the same connection to the copy, too.
        self._write()

    def _write(self) -> None:
        for call in self.take():
            call()
