"""Views: rows with their documents, and row processors that make objects of the program's own.

python examples/guide/view_rows.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from couchbase import Connection, Couchbase
from couchbase.exceptions import ArgumentError
from couchbase.views.iterator import RowProcessor, View
from couchbase.views.params import Query

DESIGN = "guide_books"
VIEWS = {
    "by_year": {
        "map": "function (doc, meta) { if (doc.book) { emit(doc.year, doc.book); } }",
        "reduce": "_count",
    }
}
BOOKS = (("Emma", 1815), ("Moby-Dick", 1851), ("Walden", 1854), ("Middlemarch", 1871))


class Book(NamedTuple):
    """A row as this program likes it; the fields are those of a row, in their order."""

    year: int
    title: str
    docid: str
    doc: Any


class Titles:
    """A row processor: its one method turns rows into anything."""

    def handle_rows(self, rows: Iterable[Any], connection: Connection, include_docs: bool) -> Iterator[str]:
        """Yield titles, except those of before 1850."""
        return (row["value"].upper() for row in rows if row["key"] >= 1850)


class Shelf(View):
    """A custom view class."""

    def titles(self) -> str:
        """Return all titles in one line."""
        return ", ".join(row.value for row in self)


def queries(cb: Connection) -> None:
    """Ask for rows of several kinds."""
    for row in cb.query(DESIGN, "by_year", reduce=False, stale=False, limit=2):
        print("row:", row)

    # With include_docs each row has the result of reading its document.
    last = Query(reduce=False, descending=True, limit=2, stale="ok")
    for row in cb.query(DESIGN, "by_year", include_docs=True, query=last):
        print("with document:", row.key, row.doc.success, row.doc.value["pages"])
    # The index may be behind: then the document is not there.
    cb.delete("book:Emma")
    for row in cb.query(DESIGN, "by_year", reduce=False, include_docs=True, stale="ok", limit=1):
        print("without document:", row.docid, row.doc.success, hex(row.doc.rc))
    try:
        cb.query(DESIGN, "by_year", group=True, include_docs=True)
    except ArgumentError:
        print("reduced rows have no documents")

    # A class to make each row from, or an object that makes anything from many rows.
    first = Query(reduce=False, limit=1, stale=False)
    for book in cb.query(DESIGN, "by_year", row_processor=RowProcessor(Book), query=first):
        print("a book:", book.title, "of", book.year)
    print("titles:", list(cb.query(DESIGN, "by_year", reduce=False, row_processor=Titles())))
    print("a shelf:", cb.query(DESIGN, "by_year", reduce=False, itercls=Shelf).titles())


def main(connection_string: str) -> None:
    """Store documents and a design, query it, and clean up."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)
    cb.set_multi(
        {
            f"book:{title}": {"book": title, "year": year, "pages": 100 * number}
            for number, (title, year) in enumerate(BOOKS, 1)
        }
    )
    cb.design_create(DESIGN, {"views": VIEWS}, use_devmode=False, syncwait=30)
    try:
        queries(cb)
    finally:
        cb.design_delete(DESIGN, use_devmode=False)
        cb.delete_multi([f"book:{title}" for title, _ in BOOKS], quiet=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
