"""The conversion of a store's file from an older version, in one transaction."""

from __future__ import annotations

import sqlite3

from couchnode.data.storeschema import (
    COLUMNS,
    RECORD_COLUMNS,
    SCHEMA_VERSION,
    checksum,
    record_checksum,
)

# The columns of version 1.
_FIRST_COLUMNS = COLUMNS[:8]


def upgrade(connection: sqlite3.Connection, version: str) -> None:
    """Convert a file of that version into the current one, in the open transaction."""
    if version == str(SCHEMA_VERSION):
        return
    if version == "1":
        _add_checksums(connection)
    _add_attributes(connection)
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
