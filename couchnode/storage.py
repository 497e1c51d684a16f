"""Where a bucket's documents are kept: a SQLite file, or nowhere.

The reactor never touches the file. Each :class:`SqliteStore` owns one thread, which opens the
file, reads it during warm-up and writes batches; every method returns a Deferred. A batch is one
transaction in write-ahead mode with ``synchronous=FULL``: when its Deferred fires, the batch
survives a power cut, and a process killed at any point leaves a file that opens without repair.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from couchnode.item import Item
from couchnode.vbucket import VBucketRecord

SCHEMA_VERSION = 1
_LOAD_ROWS = 1000
_LOAD_BYTES = 4 * 2**20
# Rows that one statement carries. SQLite runs a statement without Python's lock but needs it
# again between statements; row by row, a busy reactor would starve the writer.
_STATEMENT_ROWS = (250, 25, 1)
_VACUUM_PAGES = 2000
_COLUMNS = ("vb", "key", "value", "flags", "expiry", "cas", "seqno", "revid")

_SCHEMA = """
CREATE TABLE node (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE vbuckets (
    vb INTEGER PRIMARY KEY, high_seqno INTEGER NOT NULL, max_cas INTEGER NOT NULL,
    max_deleted_revid INTEGER NOT NULL, failover_log TEXT NOT NULL
);
CREATE TABLE documents (
    vb INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, flags INTEGER NOT NULL,
    expiry INTEGER NOT NULL, cas INTEGER NOT NULL, seqno INTEGER NOT NULL, revid INTEGER NOT NULL
);
CREATE UNIQUE INDEX documents_by_key ON documents (vb, key);
"""

_T = TypeVar("_T")


class StoreError(Exception):
    """The store cannot do what it was asked; the message names the file and the cause."""


class StoreVersionError(StoreError):
    """The file was written by another version of this program: use that one, or another folder."""


class StoreDamagedError(StoreError):
    """The file is not a store, or it is damaged: restore it from a copy, or remove it."""


class StoreLockedError(StoreError):
    """Another process has the file open: stop it, or use another folder."""


class StoreFullError(StoreError):
    """The disk is full. What waits stays in memory and is tried again."""


class StoreClosedError(StoreError):
    """The store was closed before this."""


class Opened(NamedTuple):
    """What an opened store holds. ``clean`` is false after a crash: the last changes that were
    acknowledged but not reported as persisted may be missing."""

    records: list[VBucketRecord]
    documents: int
    clean: bool


class Batch(NamedTuple):
    """One transaction: vbuckets to empty first, then documents (tombstones remove theirs), and
    the records that go with them."""

    wipes: list[int]
    changes: list[tuple[int, Iterable[Item]]]
    records: list[VBucketRecord]


class Store(Protocol):
    """What a bucket asks of its store. Calls are carried out one after another, in order."""

    persistent: bool
    """Whether anything ever reaches a disk."""

    @property
    def disk_bytes(self) -> int:
        """Size of the files, in bytes, as of the last write."""

    def open(self, bucket: str, uuid: str) -> Deferred[Opened]:
        """Open or create the store of that bucket; fires with what it holds, or a StoreError."""

    def load(self, consume: Callable[[list[tuple[int, Item]]], None]) -> Deferred[None]:
        """Hand every document to ``consume``, in the reactor's thread, a chunk at a time."""

    def write(self, batch: Batch) -> Deferred[None]:
        """Write a batch; fires once it is on the disk, or fails with nothing of it written."""

    def close(self) -> Deferred[None]:
        """Mark the store as completely written and let go of it."""

    def abandon(self) -> Deferred[None]:
        """Let go of the store without the mark: something could not be written."""


class MemoryStore:
    """A store that keeps nothing, for ephemeral buckets."""

    persistent = False
    disk_bytes = 0

    def open(self, bucket: str, uuid: str) -> Deferred[Opened]:
        """Fire with an empty store."""
        return succeed(Opened([], 0, True))

    def load(self, consume: Callable[[list[tuple[int, Item]]], None]) -> Deferred[None]:
        """Fire at once: there is nothing to load."""
        return succeed(None)

    def write(self, batch: Batch) -> Deferred[None]:
        """Refuse: an ephemeral bucket has nothing to write.

        :raises TypeError: always; a caller that gets here is wrong.
        """
        raise TypeError("an ephemeral bucket is never written")

    def close(self) -> Deferred[None]:
        """Fire at once."""
        return succeed(None)

    def abandon(self) -> Deferred[None]:
        """Fire at once."""
        return succeed(None)


class SqliteStore:
    """One SQLite file, written by one thread.

    The file is held exclusively: a second process gets :class:`StoreLockedError`.

    :param path: the file; its folder must exist.
    :param call_from_thread: how results come back to the reactor's thread; by default
        ``reactor.callFromThread`` of the global reactor.
    """

    persistent = True

    def __init__(
        self, path: str | os.PathLike[str], call_from_thread: Callable[..., object] | None = None
    ) -> None:
        self._path = Path(path)
        if call_from_thread is None:
            from twisted.internet import reactor

            call_from_thread = reactor.callFromThread  # type: ignore[attr-defined]
        self._call_from_thread: Callable[..., object] = call_from_thread
        self._worker: _Worker | None = None
        self._connection: sqlite3.Connection | None = None
        self._disk_bytes = 0

    @property
    def disk_bytes(self) -> int:
        """Size of the file and its log, in bytes, as of the last write."""
        return self._disk_bytes

    def open(self, bucket: str, uuid: str) -> Deferred[Opened]:
        """Open or create the file.

        Fails with :class:`StoreVersionError`, :class:`StoreDamagedError`,
        :class:`StoreLockedError`, :class:`StoreFullError`, or :class:`StoreError` (no such
        folder, no permission, the file belongs to another bucket).
        """
        if self._worker is not None:
            raise ValueError("this store is open already")
        self._worker = _Worker(f"store {self._path.name}", self._call_from_thread)
        opening = self._worker.submit(lambda: self._translated(lambda: self._open(bucket, uuid)))
        return opening.addErrback(self._give_up)

    def load(self, consume: Callable[[list[tuple[int, Item]]], None]) -> Deferred[None]:
        """Hand every document to ``consume``; at most one chunk waits while one is being taken."""
        return self._submit(lambda: self._load(consume))

    def write(self, batch: Batch) -> Deferred[None]:
        """Write a batch as one transaction and sync it."""
        return self._submit(lambda: self._write(batch))

    def close(self) -> Deferred[None]:
        """Mark the file clean and close it; fires when the file is free for another process."""
        return self._finish(True)

    def abandon(self) -> Deferred[None]:
        """Close the file without the mark."""
        return self._finish(False)

    # -- in the reactor's thread -----------------------------------------------------------------

    def _submit(self, work: Callable[[], _T]) -> Deferred[_T]:
        if self._worker is None:
            failed: Deferred[_T] = Deferred()
            failed.errback(StoreClosedError(f"{self._path} is not open"))
            return failed
        return self._worker.submit(lambda: self._translated(work))

    def _finish(self, clean: bool) -> Deferred[None]:
        if self._worker is None:
            return succeed(None)
        closing = self._submit(lambda: self._close(clean))
        self._worker.stop()
        self._worker = None
        return closing

    def _give_up(self, failure: Failure) -> Failure:
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        return failure

    # -- in the worker's thread ------------------------------------------------------------------

    def _translated(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except sqlite3.Error as error:
            raise _translate(self._path, error) from error

    def _open(self, bucket: str, uuid: str) -> Opened:
        if not self._path.parent.is_dir():
            raise StoreError(f"{self._path}: the folder does not exist")
        connection = sqlite3.connect(self._path, timeout=0.5, isolation_level=None, check_same_thread=False)
        try:
            opened = self._prepare(connection, bucket, uuid)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._measure()
        return opened

    def _prepare(self, connection: sqlite3.Connection, bucket: str, uuid: str) -> Opened:
        execute = connection.execute
        # Exclusive: nobody else opens the file, and the log needs no shared memory.
        execute("PRAGMA locking_mode=EXCLUSIVE")
        execute("PRAGMA auto_vacuum=INCREMENTAL")
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        execute("PRAGMA journal_size_limit=67108864")
        execute("BEGIN IMMEDIATE")
        tables = {name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                execute(statement)
            facts = {"schema": str(SCHEMA_VERSION), "bucket": bucket, "uuid": uuid, "clean": "1"}
            connection.executemany("INSERT INTO node VALUES (?, ?)", facts.items())
        elif "node" not in tables:
            raise StoreDamagedError(f"{self._path} is a SQLite file of another program")
        facts = dict(execute("SELECT name, value FROM node"))
        version = facts.get("schema", "none")
        if version != str(SCHEMA_VERSION):
            raise StoreVersionError(f"{self._path} has schema {version}; this program reads {SCHEMA_VERSION}")
        if (facts.get("bucket"), facts.get("uuid")) != (bucket, uuid):
            raise StoreError(
                f"{self._path} belongs to bucket {facts.get('bucket')!r} ({facts.get('uuid')}), "
                f"not to {bucket!r} ({uuid})"
            )
        records = [
            VBucketRecord(vb, seqno, cas, revid, tuple((entry[0], entry[1]) for entry in json.loads(log)))
            for vb, seqno, cas, revid, log in execute("SELECT * FROM vbuckets ORDER BY vb")
        ]
        (documents,) = execute("SELECT count(*) FROM documents").fetchone()
        # Until close() says otherwise, this run may end in a crash.
        execute("UPDATE node SET value = '0' WHERE name = 'clean'")
        execute("COMMIT")
        return Opened(records, documents, facts.get("clean") == "1")

    def _load(self, consume: Callable[[list[tuple[int, Item]]], None]) -> None:
        waiting: _Handover | None = None
        for chunk in self._chunks():
            if waiting is not None:
                waiting.wait()
            waiting = _Handover(consume, chunk)
            self._call_from_thread(waiting.run)
        if waiting is not None:
            waiting.wait()

    def _chunks(self) -> Iterator[list[tuple[int, Item]]]:
        chunk: list[tuple[int, Item]] = []
        held = 0
        for vb, key, value, flags, expiry, cas, seqno, revid in self._db.execute(
            f"SELECT {', '.join(_COLUMNS)} FROM documents"
        ):
            chunk.append((vb, Item(key, value, flags, expiry, cas, seqno, revid)))
            held += len(value)
            if len(chunk) >= _LOAD_ROWS or held >= _LOAD_BYTES:
                yield chunk
                chunk, held = [], 0
        if chunk:
            yield chunk

    def _write(self, batch: Batch) -> None:
        execute = self._db.execute
        execute("BEGIN IMMEDIATE")
        try:
            for vb in batch.wipes:
                execute("DELETE FROM documents WHERE vb = ?", (vb,))
                execute("DELETE FROM vbuckets WHERE vb = ?", (vb,))
            stored: list[Any] = []
            removed: list[Any] = []
            for vb, items in batch.changes:
                for item in items:
                    if item.deleted:
                        removed += (vb, item.key)
                    else:
                        stored += (vb, item.key, item.value, item.flags, item.expiry)
                        stored += (item.cas, item.seqno, item.revid)
            self._run_many(_store_statement, len(_COLUMNS), stored)
            self._run_many(_remove_statement, 2, removed)
            rows: list[Any] = []
            for record in batch.records:
                rows += (*record[:4], json.dumps(record.failover_log))
            self._run_many(_record_statement, 5, rows)
            execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                execute("ROLLBACK")
            raise
        if removed or batch.wipes:
            self._shrink()
        self._measure()

    def _run_many(self, statement: Callable[[int], str], width: int, values: list[Any]) -> None:
        at = 0
        for rows in _STATEMENT_ROWS:
            step = rows * width
            text = statement(rows)
            while len(values) - at >= step:
                self._db.execute(text, values[at : at + step])
                at += step

    def _shrink(self) -> None:
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        if free > _VACUUM_PAGES:
            # execute() takes one step, which frees one page; a script runs to its end.
            self._db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

    def _close(self, clean: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if clean:
                connection.execute("UPDATE node SET value = '1' WHERE name = 'clean'")
        finally:
            connection.close()

    def _measure(self) -> None:
        total = 0
        for suffix in ("", "-wal"):
            try:
                total += os.stat(f"{self._path}{suffix}").st_size
            except FileNotFoundError:
                continue
        self._disk_bytes = total

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreClosedError(f"{self._path} is not open")
        return self._connection


def _rows(count: int, width: int) -> str:
    return ", ".join(["(" + ", ".join("?" * width) + ")"] * count)


@cache
def _store_statement(rows: int) -> str:
    updates = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[2:])
    return (
        f"INSERT INTO documents ({', '.join(_COLUMNS)}) VALUES {_rows(rows, len(_COLUMNS))} "
        f"ON CONFLICT (vb, key) DO UPDATE SET {updates}"
    )


@cache
def _remove_statement(rows: int) -> str:
    return f"DELETE FROM documents WHERE (vb, key) IN (VALUES {_rows(rows, 2)})"


@cache
def _record_statement(rows: int) -> str:
    return f"INSERT OR REPLACE INTO vbuckets VALUES {_rows(rows, 5)}"


def _translate(path: Path, error: sqlite3.Error) -> StoreError:
    text = str(error)
    kinds: tuple[tuple[str, type[StoreError]], ...] = (
        ("locked", StoreLockedError),
        ("full", StoreFullError),
        ("malformed", StoreDamagedError),
        ("not a database", StoreDamagedError),
        ("no such table", StoreDamagedError),
        ("no such column", StoreDamagedError),
    )
    for words, kind in kinds:
        if words in text:
            return kind(f"{path}: {text}")
    return StoreError(f"{path}: {text}")


class _Handover:
    """One chunk on its way from the worker to the reactor's thread."""

    def __init__(
        self, consume: Callable[[list[tuple[int, Item]]], None], chunk: list[tuple[int, Item]]
    ) -> None:
        self._consume = consume
        self._chunk = chunk
        self._taken = Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Take the chunk (in the reactor's thread)."""
        try:
            self._consume(self._chunk)
        except BaseException as error:  # noqa: BLE001  # handed to the worker, which fails the load with it
            self._error = error
        self._taken.set()

    def wait(self) -> None:
        """Wait (in the worker's thread) until the chunk was taken."""
        self._taken.wait()
        if self._error is not None:
            raise self._error


class _Worker:
    """A thread that carries out calls in order. It is a daemon: nothing that is acknowledged as
    persisted depends on its end, so a process that stops without close() need not wait for it."""

    def __init__(self, name: str, call_from_thread: Callable[..., object]) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._call_from_thread = call_from_thread
        Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, work: Callable[[], _T]) -> Deferred[_T]:
        """Carry out ``work`` after everything submitted before; fires with its result."""
        done: Deferred[_T] = Deferred()

        def call() -> None:
            try:
                result = work()
            except BaseException:  # noqa: BLE001  # whoever waits for the result gets it
                self._call_from_thread(done.errback, Failure())
            else:
                self._call_from_thread(done.callback, result)

        self._calls.put(call)
        return done

    def stop(self) -> None:
        """End the thread after what was submitted."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
