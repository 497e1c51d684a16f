"""The conversion of a store's file from an older version, in one transaction."""

from __future__ import annotations

import sqlite3
from struct import error as StructError
from typing import Any

from couchnode.data.keys import DEFAULT_PREFIX
from couchnode.data.storeschema import (
    COLUMNS,
    RECORD_COLUMNS,
    SCHEMA,
    SCHEMA_VERSION,
    checksum,
    record_checksum,
)

# The columns of version 1.
_FIRST_COLUMNS = COLUMNS[:8]


def upgrade(connection: sqlite3.Connection, version: str) -> None:
    """Convert a file of that version into the current one, in the open transaction.

    :raises ValueError: table and index have different numbers of documents, which the conversion would hide.
    """
    if version == str(SCHEMA_VERSION):
        return
    if version == "1":
        _add_checksums(connection)
    _add_attributes(connection)
    _add_collections(connection)
    connection.execute("UPDATE node SET value = ? WHERE name = 'schema'", (str(SCHEMA_VERSION),))


def _add_checksums(connection: sqlite3.Connection) -> None:
    """Version 1 to 2: documents and records have checksums."""
    execute = connection.execute
    connection.create_function("document_crc", len(_FIRST_COLUMNS), checksum, deterministic=True)
    connection.create_function("record_crc", 5, record_checksum, deterministic=True)
    for table in ("documents", "vbuckets"):
        execute(f"ALTER TABLE {table} ADD COLUMN crc INTEGER NOT NULL DEFAULT 0")
    execute(f"UPDATE documents SET crc = document_crc({', '.join(_FIRST_COLUMNS)})")
    execute(f"UPDATE vbuckets SET crc = record_crc({', '.join(RECORD_COLUMNS[:-1])})")


def _add_attributes(connection: sqlite3.Connection) -> None:
    """Version 2 to 3: documents may have attributes, and be tombstones. Checksums stay as they are."""
    execute = connection.execute
    tables = [name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in ("documents", "damaged"):
        if table in tables:
            execute(f"ALTER TABLE {table} ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0")
            execute(f"ALTER TABLE {table} ADD COLUMN xattrs BLOB NOT NULL DEFAULT x''")


def _add_collections(connection: sqlite3.Connection) -> None:
    """Version 2 to 3: keys begin with the id of their collection. Damaged documents stay damaged."""
    execute = connection.execute
    counts = [
        execute(f"SELECT count(*) FROM documents {how}").fetchone()[0]
        for how in ("NOT INDEXED", "INDEXED BY documents_by_key")
    ]
    if counts[0] != counts[1]:
        raise ValueError(f"{counts[1]} documents, but {counts[0]} can be read")
    connection.create_function("held_key", 1, _held_key, deterministic=True)
    connection.create_function("held_crc", len(COLUMNS), _held_crc, deterministic=True)
    # During the conversion, a new key may equal one that is not converted yet.
    execute("DROP INDEX documents_by_key")
    execute(f"UPDATE documents SET crc = held_crc({', '.join(COLUMNS)}), key = held_key(key)")
    execute(SCHEMA["documents_by_key"])


def _held_key(key: Any) -> Any:
    return DEFAULT_PREFIX + key if isinstance(key, bytes) else key


def _held_crc(vb: int, key: bytes, *row: Any) -> int:
    *rest, crc = row
    try:
        is_whole = checksum(vb, key, *rest) == crc
        return checksum(vb, DEFAULT_PREFIX + key, *rest) ^ (not is_whole)
    except (TypeError, StructError):  # a wrong type: the row is recognised as damaged anyway
        return crc if isinstance(crc, int) else 0
