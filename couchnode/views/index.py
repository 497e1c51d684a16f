"""The index of one view on one node: a SQLite file of rows in Couchbase's order, each ready to send.

Rows, the count of them, the marks (how far each vbucket is indexed) and a build error change in one
transaction, in write-ahead mode with ``synchronous=NORMAL``: a process killed at any point leaves a
consistent file, and after a power failure the last transactions are missing as a whole, so their changes are
indexed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, NamedTuple

from couchnode.views.collation import KeyEncoder
from couchnode.views.reducers import NUMERIC

# Version of the file's content and order: a new number rebuilds every index.
FORMAT = 1

BUSY_SECONDS = 30.0
_WRITER_CACHE_KIB = 32 * 1024
_READER_CACHE_KIB = 4 * 1024
_CHECKPOINT_PAGES = 8000
_JOURNAL_BYTES = 64 * 1024 * 1024

_SCHEMA = """
CREATE TABLE rows (
    key BLOB NOT NULL, doc BLOB NOT NULL, vb INTEGER NOT NULL, n INTEGER NOT NULL,
    row BLOB NOT NULL, key_at INTEGER NOT NULL, value_at INTEGER NOT NULL, num REAL,
    PRIMARY KEY (key, doc, vb, n)
) WITHOUT ROWID;
CREATE INDEX rows_by_document ON rows (vb, doc);
CREATE TABLE marks (vb INTEGER PRIMARY KEY, uuid TEXT NOT NULL, seqno INTEGER NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
# Vbuckets that have rows, one seek each, however many rows there are.
_VBUCKETS = """
WITH RECURSIVE found (vb) AS (
    SELECT min(vb) FROM rows
    UNION ALL
    SELECT (SELECT min(vb) FROM rows WHERE vb > found.vb) FROM found WHERE found.vb IS NOT NULL
) SELECT vb FROM found WHERE vb IS NOT NULL
"""
_INSERT = "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM rows WHERE vb = ? AND doc = ?"

_DAMAGED = ("malformed", "not a database", "file is encrypted")

Mark = tuple[int, int]
Marks = dict[int, Mark]
Emitted = tuple[int, str, str]
"""One row of a map function: (position of the change, key as JSON, value as JSON)."""


class DamagedError(Exception):
    """The file is not an index, or it is damaged: it has to be rebuilt."""


class Facts(NamedTuple):
    """The state of an index.

    :ivar rows: number of rows.
    :ivar error: why its build failed, ``None`` if it succeeded.
    """

    rows: int
    error: str | None


def signature(map_source: str, reduce_source: str | None) -> str:
    """Return the functions and versions that an index must have been built with to serve these functions."""
    try:
        from icu import ICU_VERSION, UNICODE_VERSION  # type: ignore[import-untyped]
    except ImportError:
        ICU_VERSION = UNICODE_VERSION = ""
    identity = json.dumps([FORMAT, ICU_VERSION, UNICODE_VERSION, map_source, reduce_source])
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()


def remove_index(path: str) -> None:
    """Delete an index file with its companions; a missing file is no error."""
    for suffix in ("", "-wal", "-shm"):
        Path(path + suffix).unlink(missing_ok=True)


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error of SQLite means that the file itself is bad."""
    return isinstance(error, sqlite3.DatabaseError) and any(word in str(error) for word in _DAMAGED)


class ViewIndex:
    """The writing side of an index. Not for two threads at once.

    The file is created if missing, and rebuilt if it is damaged or belongs to other functions.

    :param name: the view's, for error texts.
    :raises sqlite3.Error: the file cannot be created.
    """

    def __init__(self, path: str, name: str, map_source: str, reduce_source: str | None) -> None:
        self.path = path
        self.name = name
        self.signature = signature(map_source, reduce_source)
        self._numeric = reduce_source if reduce_source in NUMERIC else None
        self._encoder = KeyEncoder()
        self._error: str | None = None
        # Whether memory may be ahead of the file; on some errors SQLite itself ends transactions.
        self._changed = False
        try:
            self._connection = self._open()
            self._read()
        except DamagedError:
            remove_index(path)
            self._connection = self._open()
            self._read()
        self._identity = identity(path)

    @property
    def error(self) -> str | None:
        """Why the build failed; ``None`` if it did not."""
        return self._error

    @property
    def rows(self) -> int:
        """Number of rows, including those of the open transaction."""
        return self._rows

    @property
    def marks(self) -> Marks:
        """The mark of each vbucket, including those of the open transaction."""
        return dict(self._marks)

    def apply(
        self, changes: Sequence[tuple[Any, ...]], emitted: Iterable[Emitted], marks: Marks
    ) -> str | None:
        """Replace the rows of documents and set marks, in the open transaction.

        If a row is invalid (a value that is not a number under ``_sum``), nothing changes but :attr:`error`,
        which is returned.

        :param changes: tuples that begin with vbucket and key, each document once.
        :param emitted: the rows of these documents, those of one document together.
        :raises sqlite3.Error: the file cannot be written; roll back.
        """
        rows = self._rows_of(changes, emitted)
        self.begin()
        if isinstance(rows, tuple):
            vb, reason = rows
            self.fail(reason, [vb])
            return reason
        stale = [(change[0], change[1]) for change in changes if change[0] in self._filled]
        if stale:
            self._rows -= self._connection.executemany(_DELETE, stale).rowcount
        if rows:
            rows.sort()
            self._connection.executemany(_INSERT, rows)
            self._rows += len(rows)
            self._filled.update({row[2] for row in rows})
        if marks:
            self._set_marks(marks)
        return None

    def fail(self, reason: str, vbs: Iterable[int]) -> None:
        """Store why the build failed, until all of ``vbs`` have been indexed up to a mark or are dropped."""
        self.begin()
        self._error = reason
        self._owed.update(vbs)

    def reconcile(self, vb: int, keys: Collection[bytes]) -> None:
        """Remove the rows of a vbucket's documents that are not among ``keys``."""
        self.begin()
        live = set(keys)
        known = {doc for (doc,) in self._connection.execute("SELECT doc FROM rows WHERE vb = ?", (vb,))}
        gone = [(vb, doc) for doc in known - live]
        if gone:
            self._rows -= self._connection.executemany(_DELETE, gone).rowcount

    def drop(self, vbs: Iterable[int]) -> None:
        """Remove vbuckets: rows and marks."""
        self.begin()
        for vb in vbs:
            if vb in self._filled:
                self._rows -= self._connection.execute("DELETE FROM rows WHERE vb = ?", (vb,)).rowcount
                self._filled.discard(vb)
            self._connection.execute("DELETE FROM marks WHERE vb = ?", (vb,))
            self._marks.pop(vb, None)
            self._settle([vb])

    def begin(self) -> None:
        """Begin a transaction, if none is open."""
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
            self._changed = True

    def commit(self) -> None:
        """Commit the open transaction: its changes are visible to readers and survive a crash."""
        if self._connection.in_transaction:
            self._write_facts()
            self._connection.execute("COMMIT")
            self._changed = False

    def rollback(self) -> None:
        """Roll back the open transaction."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if self._changed:
            self._read()
            self._changed = False

    def is_for(self, map_source: str, reduce_source: str | None) -> bool:
        """Return whether this is the index of these functions, and its path still leads to its file."""
        if self.signature != signature(map_source, reduce_source):
            return False
        return is_at(self.path, self._identity)

    def shrink(self) -> None:
        """Release the memory of the page cache."""
        self._connection.execute("PRAGMA shrink_memory")

    def close(self) -> None:
        """Close the file; an open transaction is rolled back."""
        self._connection.close()

    # ---- inside ----------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA page_size = 8192")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
                connection.executescript(f"BEGIN;{_SCHEMA}")
                connection.execute("INSERT INTO facts VALUES ('signature', ?)", (self.signature,))
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            connection.close()
            if is_damage(error):
                raise DamagedError(str(error)) from error
            raise
        return connection

    def _read(self) -> None:
        """Read the parts that are also kept in memory.

        :raises DamagedError: it cannot be read, or belongs to another view.
        """
        try:
            facts = dict(self._connection.execute("SELECT name, value FROM facts"))
            if facts.get("signature") != self.signature:
                raise DamagedError("made for other functions")
            self._rows = int(facts.get("rows", "0"))
            self._error = facts.get("error")
            self._owed: set[int] = set(json.loads(facts.get("owed", "[]")))
            self._marks: Marks = {
                vb: (json.loads(uuid), seqno)
                for vb, uuid, seqno in self._connection.execute("SELECT vb, uuid, seqno FROM marks")
            }
            self._filled = {vb for (vb,) in self._connection.execute(_VBUCKETS)}
        except DamagedError:
            self._connection.close()
            raise
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            strange = not isinstance(error, sqlite3.Error) or is_damage(error) or "no such" in str(error)
            if not strange:
                raise
            self._connection.close()
            raise DamagedError(str(error)) from error

    def _rows_of(
        self, changes: Sequence[tuple[Any, ...]], emitted: Iterable[Emitted]
    ) -> list[tuple[Any, ...]] | tuple[int, str]:
        """Return rows to store, or (vbucket, reason) if one is invalid."""
        encode = self._encoder.from_json
        rows = []
        last, n, vb, doc, head = -1, 0, 0, b"", b""
        number: float | None = None
        for at, key_text, value_text in emitted:
            if at == last:
                n += 1
            else:
                last, n = at, 0
                vb, doc = changes[at][:2]
                head = b'{"id":%b,"key":' % encode_basestring(doc.decode()).encode()
            if self._numeric:
                try:
                    number = float(value_text)
                except ValueError:
                    return vb, self._not_a_number(key_text)
            key, value = key_text.encode(), value_text.encode()
            key_at = len(head)
            rows.append(
                (
                    encode(key_text),
                    doc,
                    vb,
                    n,
                    b'%b%b,"value":%b}' % (head, key, value),
                    key_at,
                    key_at + len(key) + 9,
                    number,
                )
            )
        return rows

    def _not_a_number(self, key_text: str) -> str:
        return (
            f"Reducer: Error building index for view `{self.name}`,"
            f" reason: Value is not a number (key {key_text})"
        )

    def _set_marks(self, marks: Marks) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO marks VALUES (?, ?, ?)",
            [(vb, json.dumps(uuid), seqno) for vb, (uuid, seqno) in marks.items()],
        )
        self._marks.update(marks)
        self._settle(marks)

    def _settle(self, vbs: Iterable[int]) -> None:
        if self._error is not None:
            self._owed.difference_update(vbs)
            if not self._owed:
                self._error = None

    def _write_facts(self) -> None:
        facts = [("rows", str(self._rows)), ("owed", json.dumps(sorted(self._owed)))]
        if self._error is None:
            self._connection.execute("DELETE FROM facts WHERE name = 'error'")
        else:
            facts.append(("error", self._error))
        self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts)


class IndexReader:
    """The reading side of an index: one connection, whose text columns come as bytes.

    :raises FileNotFoundError: the file does not exist (yet).
    :raises sqlite3.Error: it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.identity = identity(path)
        self.statements = 0
        self._connection = sqlite3.connect(
            f"{Path(path).absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._connection.text_factory = bytes
            self._connection.execute("PRAGMA query_only = 1")
            self._connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
        except sqlite3.Error:
            self._connection.close()
            raise

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection itself."""
        return self._connection

    def facts(self, wanted_signature: str) -> Facts:
        """Return the state of the index.

        :raises FileNotFoundError: it is the index of other functions, or is being created.
        """
        try:
            facts = dict(self.fetch("SELECT name, value FROM facts", ()))
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            raise FileNotFoundError(f"{self.path} is just being made") from None
        if facts.get(b"signature") != wanted_signature.encode():
            raise FileNotFoundError(f"{self.path} is the index of other functions")
        failure = facts.get(b"error")
        return Facts(int(facts.get(b"rows", 0)), None if failure is None else failure.decode())

    def marks(self) -> Marks:
        """Return the mark of each vbucket."""
        found = self.fetch("SELECT vb, uuid, seqno FROM marks ORDER BY vb", ())
        return {vb: (json.loads(uuid), seqno) for vb, uuid, seqno in found}

    def fetch(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a statement in the snapshot, which the first statement after :meth:`release` takes."""
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN")
        self.statements += 1
        with closing(self._connection.execute(statement, parameters)) as cursor:
            return cursor.fetchall()

    def release(self) -> None:
        """Release the snapshot, so that the write-ahead log can be emptied."""
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def identity(path: str) -> tuple[int, int]:
    """Return an identity that distinguishes this file from a later one of the same name.

    :raises FileNotFoundError: there is no such file.
    """
    status = os.stat(path)
    return status.st_dev, status.st_ino


def is_at(path: str, known: tuple[int, int]) -> bool:
    """Return whether the file with a known identity is still at this path."""
    try:
        return identity(path) == known
    except FileNotFoundError:
        return False
