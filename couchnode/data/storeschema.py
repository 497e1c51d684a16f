"""The tables of a store's file, the statements that read and write them, and the checksums of their rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache, lru_cache
from struct import Struct
from zlib import crc32

from couchnode.data.helditems import VBucketRecord

SCHEMA_VERSION = 3
"""Version 2 added checksums; version 3 added attributes, tombstones (which can have attributes), and the
collection id at the beginning of each key."""

READABLE_VERSIONS = ("3", "2", "1")
"""Versions of files that can be opened; an older one is converted."""

COLUMNS = ("vb", "key", "value", "flags", "expiry", "cas", "seqno", "revid", "deleted", "xattrs", "crc")
RECORD_COLUMNS = ("vb", "high_seqno", "max_cas", "max_deleted_revid", "failover_log", "crc")
_NUMBERS, _MORE_NUMBERS = Struct(">7q"), Struct(">2q")

SCHEMA = {
    "node": "CREATE TABLE node (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "vbuckets": """CREATE TABLE vbuckets (
    vb INTEGER PRIMARY KEY, high_seqno INTEGER NOT NULL, max_cas INTEGER NOT NULL,
    max_deleted_revid INTEGER NOT NULL, failover_log TEXT NOT NULL
, crc INTEGER NOT NULL DEFAULT 0)""",
    "documents": """CREATE TABLE documents (
    vb INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, flags INTEGER NOT NULL,
    expiry INTEGER NOT NULL, cas INTEGER NOT NULL, seqno INTEGER NOT NULL, revid INTEGER NOT NULL
, crc INTEGER NOT NULL DEFAULT 0
, deleted INTEGER NOT NULL DEFAULT 0, xattrs BLOB NOT NULL DEFAULT x'')""",
    "documents_by_key": "CREATE UNIQUE INDEX documents_by_key ON documents (vb, key)",
}
"""Name -> the statement as SQLite keeps it; later versions' columns stand where ``ALTER TABLE`` puts them."""


# Many parameters: the columns of a row.
def checksum(
    vb: int,
    key: bytes,
    value: bytes,
    flags: int,
    expiry: int,
    cas: int,
    seqno: int,
    revid: int,
    deleted: int = 0,
    xattrs: bytes = b"",
) -> int:
    """Return the CRC-32 over all members of a document; without attributes, the same as in version 2.

    :raises TypeError, struct.error: a member has the wrong type.
    """
    numbers = _NUMBERS.pack(vb, flags, expiry, cas, seqno, revid, len(key))
    crc = crc32(value, crc32(numbers + key))
    if deleted or xattrs:
        crc = crc32(_MORE_NUMBERS.pack(deleted, len(value)) + xattrs, crc)
    return crc


@lru_cache(maxsize=4096)
def log_text(log: tuple[tuple[int, int], ...]) -> str:
    """Return a failover log as it is stored.

    Logs change when copies are promoted, while each batch stores those of all vbuckets that it touches.
    """
    return json.dumps(log)


def record_checksum(vb: int, high_seqno: int, max_cas: int, max_deleted_revid: int, log: str) -> int:
    """Return the CRC-32 of the record of a vbucket."""
    return crc32(repr((vb, high_seqno, max_cas, max_deleted_revid, log)).encode())


def record_of(vb: int, seqno: int, cas: int, revid: int, log: str) -> VBucketRecord:
    """Return the record that a row holds, without its checksum."""
    return VBucketRecord(vb, seqno, cas, revid, tuple((entry[0], entry[1]) for entry in json.loads(log)))


def select(table: str, columns: Iterable[str]) -> str:
    """Return the statement that reads columns of a table."""
    return f"SELECT {', '.join(columns)} FROM {table}"


DROP_STATEMENT = "DELETE FROM documents WHERE vb = ? AND key >= ? AND key < ?"
"""Removes the documents of a vbucket in a range of keys (the end excluded): those of a collection."""


def _places(count: int, width: int) -> str:
    return ", ".join(["(" + ", ".join("?" * width) + ")"] * count)


@cache
def store_statement(rows: int) -> str:
    """Return the statement that stores so many documents, each given by its columns."""
    updates = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[2:])
    return (
        f"INSERT INTO documents ({', '.join(COLUMNS)}) VALUES {_places(rows, len(COLUMNS))} "
        f"ON CONFLICT (vb, key) DO UPDATE SET {updates}"
    )


@cache
def remove_statement(rows: int) -> str:
    """Return the statement that removes so many documents, each given by vbucket and key."""
    return f"DELETE FROM documents WHERE (vb, key) IN (VALUES {_places(rows, 2)})"


@cache
def record_statement(rows: int) -> str:
    """Return the statement that stores so many records, each given by its columns."""
    columns = ", ".join(RECORD_COLUMNS)
    return f"INSERT OR REPLACE INTO vbuckets ({columns}) VALUES {_places(rows, len(RECORD_COLUMNS))}"
