"""Open index files: one writer each, and readers that stay open for the next query."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from couchnode.views.index import IndexReader, ViewIndex, identity, is_at, remove_index

_IDLE_READERS = 16
_IDLE_WRITERS = 8


class NotOwnedError(Exception):
    """This connection no longer owns the index for writing."""


class Files:
    """Index files open for writing: each by one connection, the last that opened it.

    Some stay open for the next update: opening a large index, and emptying its log on close, costs more than
    writing a few changes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, File] = {}
        self._idle: dict[str, File] = {}

    def open(self, given: dict[str, Any], owner: object) -> File:
        """Return the file of a request, opened for ``owner``; call :meth:`release` when done.

        :raises sqlite3.Error: it cannot be opened.
        """
        path = given["path"]
        with self._lock:
            file = self._files.get(path)
            if file is None:
                file = self._files[path] = File(path)
            file.users += 1
            self._idle.pop(path, None)
        try:
            with file.lock:
                file.open(given, owner)
        except BaseException:
            self.release(file)
            raise
        return file

    def release(self, file: File) -> None:
        """Release a file that :meth:`open` returned."""
        with self._lock:
            file.users -= 1
            if file.users or self._files.get(file.path) is not file:
                return
            surplus: File | None = file
            self._idle[file.path] = file
            if file.index is not None:
                surplus = next(iter(self._idle.values())) if len(self._idle) > _IDLE_WRITERS else None
        with file.lock:
            if not file.users:
                file.rest()
        if surplus is not None:
            self._close(surplus)

    def _close(self, file: File) -> None:
        """Close a file, unless it is in use again."""
        with file.lock:
            with self._lock:
                if file.users or self._idle.pop(file.path, None) is not file:
                    return
                del self._files[file.path]
            file.close()

    def forget(self, path: str) -> None:
        """Delete a file, even if it is open."""
        with self._lock:
            file = self._files.setdefault(path, File(path))
            file.users += 1
            self._idle.pop(path, None)
        try:
            with file.lock:
                file.close()
                remove_index(path)
        finally:
            self.release(file)


class File:
    """An index file, and its current writer.

    :ivar lock: held while it is used, and during a transaction.
    :ivar owner: the connection that opened it last.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.users = 0
        self.owner: object = None
        self.index: ViewIndex | None = None

    def open(self, given: dict[str, Any], owner: object) -> None:
        """Open the index for an owner; create or recreate it if necessary."""
        index = self.index
        if index is not None and not index.is_for(given["map"], given["reduce"]):
            self.close()
            index = None
        if index is None:
            self.index = ViewIndex(self.path, given["name"], given["map"], given["reduce"])
        else:
            index.name = given["name"]
            index.rollback()
        self.owner = owner

    def rest(self) -> None:
        """Roll back an abandoned transaction, and release memory."""
        self.owner = None
        if self.index is not None:
            self.index.rollback()
            self.index.shrink()

    def of(self, owner: object) -> ViewIndex:
        """Return the index, for its owner.

        :raises NotOwnedError: another connection opened it since, or it was deleted.
        """
        if self.index is None or self.owner is not owner:
            raise NotOwnedError("the index was deleted, or opened by another connection")
        return self.index

    def close(self) -> None:
        """Close the index."""
        if self.index is not None:
            self.index.close()
            self.index = None


class Readers:
    """Open connections for queries, some of which stay open for the next query."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[IndexReader] = []

    @contextmanager
    def lent(self, paths: Sequence[str]) -> Iterator[list[IndexReader | None]]:
        """Lend a reader for each path, ``None`` where there is no file."""
        readers: list[IndexReader | None] = []
        good = False
        try:
            for path in paths:
                readers.append(self._take(path))
            yield readers
            good = True
        finally:
            for reader in readers:
                if reader is not None:
                    self._give_back(reader, good)

    def forget(self, path: str) -> None:
        """Close the open connections to a file."""
        with self._lock:
            gone = [reader for reader in self._idle if reader.path == path]
            self._idle = [reader for reader in self._idle if reader.path != path]
        for reader in gone:
            reader.close()

    def _take(self, path: str) -> IndexReader | None:
        try:
            now = identity(path)
            with self._lock:
                for at in range(len(self._idle) - 1, -1, -1):
                    reader = self._idle[at]
                    if reader.path == path and reader.identity == now:
                        del self._idle[at]
                        return reader
            return IndexReader(path)
        except FileNotFoundError:
            return None
        except sqlite3.Error:
            if is_at(path, now):
                raise
            return None  # it was deleted while it was opened

    def _give_back(self, reader: IndexReader, good: bool) -> None:
        dropped = reader
        try:
            reader.release()
        except sqlite3.Error:
            good = False
        if good:
            with self._lock:
                self._idle.append(reader)
                if len(self._idle) <= _IDLE_READERS:
                    return
                dropped = self._idle.pop(0)
        dropped.close()
