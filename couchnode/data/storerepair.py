"""Repair of a damaged store: damaged documents are set aside, missing records are created."""

from __future__ import annotations

from collections.abc import Iterable

from couchnode.data.helditems import VBucketRecord, new_vbucket_uuid
from couchnode.data.storefile import StoreFile, Transaction
from couchnode.data.storeschema import COLUMNS, SCHEMA


def set_damaged_aside(file: StoreFile) -> list[tuple[int, bytes]]:
    """Move damaged documents to the table ``damaged``.

    :returns: (vbucket, key) of each damaged document.
    :raises StoreDamagedError: the file is damaged beyond its documents.
    """
    found = [(rowid, row) for rowid, row, is_whole in file.rows() if not is_whole]
    execute = file.db.execute
    if found:
        columns = ", ".join(COLUMNS)
        execute("BEGIN IMMEDIATE")
        execute(f"CREATE TABLE IF NOT EXISTS damaged ({columns})")
        # The index still has the original key, so it does not match a row whose key is damaged.
        execute("DROP INDEX documents_by_key")
        for rowid, _ in found:
            execute(f"INSERT INTO damaged SELECT {columns} FROM documents WHERE rowid = ?", (rowid,))
            execute("DELETE FROM documents WHERE rowid = ?", (rowid,))
        execute(SCHEMA["documents_by_key"])
        execute("COMMIT")
    return [(row[0], row[1]) for _, row in found]


def renew_records(file: StoreFile, known: Iterable[VBucketRecord]) -> int:
    """Create records from the documents for vbuckets without one, or with an older one; return their number.

    :param known: the undamaged records.
    """
    level = {record.vbid: record.high_seqno for record in known}
    found = file.db.execute(
        "SELECT vb, max(seqno), max(cas), max(revid) FROM documents NOT INDEXED GROUP BY vb"
    ).fetchall()
    renewed = [
        VBucketRecord(vb, seqno, cas, revid, ((new_vbucket_uuid(), 0),))
        for vb, seqno, cas, revid in found
        if level.get(vb, -1) < seqno
    ]
    damaged = file.db.execute("SELECT vb FROM vbuckets").fetchall()
    for (vb,) in damaged:
        if vb not in level:
            file.db.execute("DELETE FROM vbuckets WHERE vb = ?", (vb,))
    file.write(Transaction([], [], renewed))
    return len(renewed)
