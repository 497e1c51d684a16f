"""One SQLite file of documents, and the checks of its integrity.

Everything here blocks and belongs to one thread (see :mod:`couchnode.data.storage`). Three checks ensure that
data is read as it was written:

- Each document and each vbucket's record has a checksum (CRC-32 over all its members), stored with it and
  checked when it is read. SQLite has none, and does not notice a flipped bit in a value.
- The schema's text, the order of row ids and the number of rows in table and index are compared, so that a
  flipped bit in SQLite's own pages does not make documents vanish or come twice.
- The file records the start of its cluster in which it was opened last, and a file beside it, ``*-open``,
  exists while it is open. So a file is detected that is missing, empty, older than its cluster, or has lost
  the log of a crash (:class:`History`).

A damaged end of the write-ahead log after a crash is not detected: SQLite treats it as an unfinished
transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from struct import error as StructError
from types import MappingProxyType
from typing import Any, NamedTuple

from couchnode.data.helditems import VBucketRecord
from couchnode.data.item import Item
from couchnode.data.keys import described, end_of
from couchnode.data.storeerrors import (
    StoreClosedError,
    StoreDamagedError,
    StoreError,
    StoreLostError,
    StoreVersionError,
    translate,
)
from couchnode.data.storeplace import StorePlace
from couchnode.data.storeschema import (
    COLUMNS,
    DROP_STATEMENT,
    READABLE_VERSIONS,
    RECORD_COLUMNS,
    SCHEMA,
    SCHEMA_VERSION,
    checksum,
    log_text,
    record_checksum,
    record_of,
    record_statement,
    remove_statement,
    select,
    store_statement,
)
from couchnode.data.storeupgrade import upgrade
from reactor.files import sync_folder

_LOAD_ROWS = 1000
_LOAD_BYTES = 4 * 2**20
# Rows in one statement. SQLite runs a statement without Python's lock but needs the lock again
# between statements; with one row each, a busy reactor would starve the writer.
_STATEMENT_ROWS = (250, 25, 1)
_VACUUM_PAGES = 2000
_NAMED_DAMAGES = 5


class Opened(NamedTuple):
    """The content of an opened store. ``clean`` is false after a crash: the last changes that were
    acknowledged but not reported as persisted may be missing."""

    records: list[VBucketRecord]
    documents: int
    clean: bool


class Transaction(NamedTuple):
    """One transaction: vbuckets to empty first, then documents (tombstones without attributes remove theirs),
    and their vbuckets' records; last, dropped collections: (vbucket, key prefix) -> approximate number of
    documents."""

    wipes: list[int]
    changes: list[tuple[int, Iterable[Item]]]
    records: list[VBucketRecord]
    drops: Mapping[tuple[int, bytes], int] = MappingProxyType({})


class History(NamedTuple):
    """A cluster's record of a store from an earlier run.

    :ivar starts: the start of the cluster in which the store was opened last; a store with a lower number is
        an older copy.
    :ivar clean: whether the store was closed properly; if so, a file without the mark of a clean close is a
        copy taken while it was open.
    """

    starts: int
    clean: bool


class StoreFile:
    """One file, opened and closed once.

    :param path: the file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.disk_bytes = 0
        self._marker = Path(f"{path}-open")
        self._place = StorePlace(path)
        self._connection: sqlite3.Connection | None = None

    @property
    def db(self) -> sqlite3.Connection:
        """The open connection.

        :raises StoreClosedError: the file is not open.
        """
        if self._connection is None:
            raise StoreClosedError(f"{self.path} is not open")
        return self._connection

    # ---- life ------------------------------------------------------------------------------------

    def open(
        self, bucket: str, uuid: str, history: History | None, starts: int, *, repairing: bool = False
    ) -> Opened:
        """Open or create the file, and check that it is the expected one.

        :param history: the cluster's record of it; ``None`` for a new store, or to accept any.
        :param starts: number of this start of the cluster.
        :param repairing: leave out damaged records.
        :raises StoreError: one of its subclasses; the file is closed again, unchanged.
        """
        if history is not None:
            self._check_presence()
        elif not self.path.parent.is_dir():
            raise StoreError(f"{self.path}: the folder does not exist")
        connection = sqlite3.connect(self.path, timeout=0.5, isolation_level=None, check_same_thread=False)
        # A damaged text must not prevent reading other rows; its checksum will not match.
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        try:
            try:
                opened = self._prepare(connection, bucket, uuid, history, starts, repairing)
            except (ValueError, TypeError, LookupError, StructError) as fault:
                raise StoreDamagedError(f"{self.path} is damaged ({fault!r}): {self.remedy}") from fault
            self._mark()
        except BaseException:
            self._give_back(connection)
            raise
        self._connection = connection
        self._place.remember()
        self.disk_bytes = self._place.size()
        return opened

    def close(self, clean: bool) -> None:
        """Close the file; ``clean`` marks it as complete."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if clean:
                connection.execute("UPDATE node SET value = '1' WHERE name = 'clean'")
            self._unmark()
        finally:
            connection.close()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        """Close the connection after a failed open. SQLite may then apply and remove the log of an earlier
        crash, so the mark of the log must be removed, too."""
        is_marked = self._marker.exists()
        with suppress(OSError):
            if is_marked:
                self._unmark()
        connection.close()
        if is_marked and Path(f"{self.path}-wal").exists():
            with suppress(OSError):
                self._marker.touch(mode=0o600)

    def _check_presence(self) -> None:
        if not self.path.exists():
            raise StoreLostError(f"{self.path} is gone, although documents were kept there: {self.remedy}")
        if not self.path.stat().st_size:
            # SQLite would treat it as a new file, and discard its log.
            raise StoreLostError(f"{self.path} is empty, although documents were kept there: {self.remedy}")
        self.check_log()

    def check_log(self) -> None:
        """Refuse a file that a crash left open and whose write-ahead log is missing.

        :raises StoreLostError: the log is missing.
        """
        if self._marker.exists() and not Path(f"{self.path}-wal").exists():
            raise StoreLostError(
                f"{self.path}-wal is gone, with the last changes before a crash: {self.remedy}"
            )

    def forget_log(self) -> None:
        """Make :meth:`check_log` pass, and accept the loss of the log's content."""
        self._marker.unlink(missing_ok=True)

    def _sync_folder(self) -> None:
        sync_folder(self.path.parent)

    def _unmark(self) -> None:
        # The mark is removed, on disk too, before SQLite removes the log. Removing works on a full disk.
        self._marker.unlink(missing_ok=True)
        self._sync_folder()

    def _mark(self) -> None:
        # The log exists now; its directory entry must be on disk before the mark.
        self._sync_folder()
        try:
            self._marker.touch(mode=0o600)
        except OSError as error:
            raise translate(self.path, self.remedy, sqlite3.OperationalError(error.strerror)) from error

    @property
    def remedy(self) -> str:
        """The remedy for a damaged file."""
        return (
            "restore the data directory from a copy, or run "
            f"`python -m couchnode.repair {self.path.parent.parent}`, which goes on with what is left"
        )

    def _prepare(
        self,
        connection: sqlite3.Connection,
        bucket: str,
        uuid: str,
        history: History | None,
        starts: int,
        repairing: bool,
    ) -> Opened:
        execute = connection.execute
        # Exclusive: no other process opens the file, and the log needs no shared memory.
        execute("PRAGMA locking_mode=EXCLUSIVE")
        execute("PRAGMA auto_vacuum=INCREMENTAL")
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        execute("PRAGMA journal_size_limit=67108864")
        execute("BEGIN IMMEDIATE")
        schema = dict(execute("SELECT name, sql FROM sqlite_master"))
        if not schema:
            if history is not None:
                raise StoreLostError(
                    f"{self.path} is empty, although documents were kept there: {self.remedy}"
                )
            for statement in SCHEMA.values():
                execute(statement)
            facts = {"schema": str(SCHEMA_VERSION), "bucket": bucket, "uuid": uuid, "clean": "1"}
            facts["starts"] = str(starts)
            connection.executemany("INSERT INTO node VALUES (?, ?)", facts.items())
        elif "node" not in schema:
            raise StoreDamagedError(f"{self.path} is a SQLite file of another program: {self.remedy}")
        facts = dict(execute("SELECT name, value FROM node"))
        self._check_facts(facts, bucket, uuid, history)
        upgrade(connection, facts["schema"])
        self._check_schema(execute)
        records = []
        for *columns, crc in execute(select("vbuckets", RECORD_COLUMNS)):
            if record_checksum(*columns) == crc:
                records.append(record_of(*columns))
            elif not repairing:
                raise StoreDamagedError(
                    f"{self.path} is damaged: the record of vbucket {columns[0]!r} has a wrong checksum: "
                    f"{self.remedy}"
                )
        (documents,) = execute("SELECT count(*) FROM documents INDEXED BY documents_by_key").fetchone()
        # Until close() changes it, this run may end in a crash.
        execute("UPDATE node SET value = '0' WHERE name = 'clean'")
        execute(
            "INSERT OR REPLACE INTO node VALUES ('starts', ?), ('node', ?)",
            (str(starts), self.path.parent.name),
        )
        execute("COMMIT")
        return Opened(sorted(records), documents, facts.get("clean") == "1")

    def _check_facts(self, facts: dict[str, str], bucket: str, uuid: str, history: History | None) -> None:
        version = facts.get("schema", "none")
        if version not in READABLE_VERSIONS:
            raise StoreVersionError(
                f"{self.path} has schema {version}; this program reads {', '.join(READABLE_VERSIONS)}"
            )
        if (facts.get("bucket"), facts.get("uuid")) != (bucket, uuid):
            raise StoreError(
                f"{self.path} belongs to bucket {facts.get('bucket')!r} ({facts.get('uuid')}), "
                f"not to {bucket!r} ({uuid})"
            )
        # A file of another node would be treated as holding vbuckets that moved away, and emptied.
        node = self.path.parent.name
        if facts.get("node", node) != node:
            raise StoreError(
                f"{self.path} belongs to {facts['node']}, not to {node}: move the directories of the nodes "
                "back to where they were"
            )
        if history is None:
            return
        known = int(facts.get("starts", "0"))
        # A higher number comes from a start that was interrupted.
        was_open = known == history.starts and history.clean and facts.get("clean") != "1"
        if known < history.starts or was_open:
            raise StoreLostError(
                f"{self.path} is older than cluster.json: changes of its documents are missing: {self.remedy}"
            )

    def _check_schema(self, execute: Callable[[str], sqlite3.Cursor]) -> None:
        schema = dict(execute("SELECT name, sql FROM sqlite_master"))
        for name, text in SCHEMA.items():
            if "".join((schema.get(name) or "").split()) != "".join(text.split()):
                raise StoreDamagedError(f"{self.path} is damaged: {name} is another: {self.remedy}")

    # ---- reading and writing ---------------------------------------------------------------------

    def chunks(self) -> Iterator[list[tuple[int, Item]]]:
        """Read every undamaged document.

        :raises StoreDamagedError: at the end, if documents are damaged or rows are missing; the message has
            their number and names the first ones.
        """
        damaged: list[str] = []
        count = 0
        chunk: list[tuple[int, Item]] = []
        held = 0
        for _, row, is_whole in self.rows():
            if not is_whole:
                count += 1
                if len(damaged) < _NAMED_DAMAGES:
                    damaged.append(f"vbucket {row[0]!r} key {described(row[1]):.100}")
                continue
            vb, key, value, flags, expiry, cas, seqno, revid, deleted, xattrs, _ = row
            item = Item(key, value, flags, expiry, cas, seqno, revid, deleted=bool(deleted))
            chunk.append((vb, item.with_xattrs(xattrs) if xattrs else item))
            held += len(value) + len(xattrs)
            if len(chunk) >= _LOAD_ROWS or held >= _LOAD_BYTES:
                yield chunk
                chunk, held = [], 0
        if chunk:
            yield chunk
        if count:
            more = ", ..." if count > len(damaged) else ""
            raise StoreDamagedError(
                f"{self.path}: {count} document(s) are damaged (wrong checksum): {', '.join(damaged)}{more}: "
                f"{self.remedy}"
            )

    def rows(self) -> Iterator[tuple[int, tuple[Any, ...], bool]]:
        """Yield (row id, columns, whether the checksum matches)."""
        last, count = 0, 0
        for rowid, *columns in self.db.execute(f"{select('documents', ('rowid', *COLUMNS))} NOT INDEXED"):
            if rowid <= last:
                break
            last, count = rowid, count + 1
            try:
                is_whole = checksum(*columns[:-1]) == columns[-1]
            except (TypeError, StructError):  # not even of the type that was written
                is_whole = False
            yield rowid, tuple(columns), is_whole
        (indexed,) = self.db.execute("SELECT count(*) FROM documents INDEXED BY documents_by_key").fetchone()
        if count != indexed:
            raise StoreDamagedError(
                f"{self.path} is damaged: {indexed} documents, but {count} can be read: {self.remedy}"
            )

    def write(self, transaction: Transaction) -> None:
        """Write a batch as one transaction and sync it; nothing is written if it fails.

        :raises StoreLostError: it is written, but to a file that was moved or deleted.
        """
        execute = self.db.execute
        execute("BEGIN IMMEDIATE")
        try:
            for vb in transaction.wipes:
                execute("DELETE FROM documents WHERE vb = ?", (vb,))
                execute("DELETE FROM vbuckets WHERE vb = ?", (vb,))
            stored: list[Any] = []
            removed: list[Any] = []
            # In the order of the index, so that its pages are found and changed in turn.
            for vb, items in sorted(transaction.changes, key=itemgetter(0)):
                for item in items:
                    key = item.key
                    if item.deleted and not item.xattrs:
                        removed += (vb, key)
                        continue
                    row = (
                        vb, key, item.value, item.flags, item.expiry, item.cas, item.seqno, item.revid,
                        int(item.deleted), item.xattrs,
                    )  # fmt: skip
                    stored += row
                    stored.append(checksum(*row))
            self._run_many(store_statement, len(COLUMNS), stored)
            self._run_many(remove_statement, 2, removed)
            rows: list[Any] = []
            for record in sorted(transaction.records):
                log = log_text(record.failover_log)
                rows += (*record[:4], log, record_checksum(*record[:4], log))
            self._run_many(record_statement, len(RECORD_COLUMNS), rows)
            for vb, prefix in transaction.drops:
                # These need a look-up each, whether or not there is anything.
                execute(DROP_STATEMENT, (vb, prefix, end_of(prefix)))
            execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                execute("ROLLBACK")
            raise
        if removed or transaction.wipes or transaction.drops:
            self._shrink()
        self.disk_bytes = self._place.size()
        self._place.check()

    def _run_many(self, statement: Callable[[int], str], width: int, values: list[Any]) -> None:
        at = 0
        for rows in _STATEMENT_ROWS:
            step = rows * width
            text = statement(rows)
            while len(values) - at >= step:
                self.db.execute(text, values[at : at + step])
                at += step

    def _shrink(self) -> None:
        (free,) = self.db.execute("PRAGMA freelist_count").fetchone()
        if free > _VACUUM_PAGES:
            # execute() takes one step, which frees one page; a script runs to its end.
            self.db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

    # ---- errors ----------------------------------------------------------------------------------

    def translated(self, work: Callable[[], Any]) -> Any:
        """Call ``work``; errors of SQLite or of a damaged row become a :class:`StoreError`."""
        try:
            return work()
        except sqlite3.Error as error:
            raise translate(self.path, self.remedy, error) from error
        except MemoryError as error:
            raise StoreError(f"{self.path}: no memory for a row; it may be damaged: {self.remedy}") from error
