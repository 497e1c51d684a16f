"""Views: streaming, for more rows than one likes to have in memory.

python examples/guide/view_streaming.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys

from couchbase import Connection, Couchbase

DESIGN = "guide_readings"
VIEWS = {"by_time": {"map": "function (doc, meta) { if (doc.time >= 0) { emit(doc.time, doc.degrees); } }"}}
READINGS = 5000


def queries(cb: Connection) -> None:
    """Read rows while they arrive."""
    view = cb.query(DESIGN, "by_time", streaming=True, stale=False)
    highest = max(row.value for row in view)
    print("highest:", highest, "of", view.rows_returned, "rows; streaming:", bool(view.streaming))

    # Other operations are welcome between two rows.
    corrected = 0
    for row in cb.query(DESIGN, "by_time", streaming=True):
        if row.value > 25:
            cb.set(row.docid, {"time": row.key, "degrees": 25})
            corrected += 1
    print("corrected:", corrected)

    # Leaving the loop early ends the query; the connection can be used again.
    for row in cb.query(DESIGN, "by_time", streaming=True, stale=False, descending=True):
        if row.value < 25:
            print("the last one below 25 degrees:", row.key)
            break
    rows = list(cb.query(DESIGN, "by_time", streaming=True, skip=READINGS - 3))
    print("the last three:", [(row.key, row.value) for row in rows])

    # Without streaming, the complete answer is there before the first row.
    view = cb.query(DESIGN, "by_time", limit=100)
    rows = iter(view)
    next(rows)
    print("at once:", view.rows_returned, "rows returned after the first")


def main(connection_string: str) -> None:
    """Store documents and a design, query it, and clean up."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)
    documents = {
        f"reading:{time}": {"time": time, "degrees": 10 + time % 17 if time % 100 else 31}
        for time in range(READINGS)
    }
    cb.set_multi(documents)
    cb.design_create(DESIGN, {"views": VIEWS}, use_devmode=False, syncwait=30)
    try:
        queries(cb)
    finally:
        cb.design_delete(DESIGN, use_devmode=False)
        cb.delete_multi(list(documents))


if __name__ == "__main__":
    main(*sys.argv[1:])
