"""Twisted and views: queryEx hands rows to methods of yours as they arrive; here they are counted.

python examples/guide/twisted_query_ex.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

from couchbase.asynchronous.view import AsyncViewBase
from couchbase.exceptions import HTTPError
from txcouchbase.connection import Connection

DESIGN = "guide_numbers"
VIEWS = {"by_number": {"map": "function (doc, meta) { if (doc.number >= 0) { emit(doc.number, null); } }"}}
DOCUMENTS = 5000


class RowCounter(AsyncViewBase):
    """Counts rows, and keeps none; ``done`` fires with their number."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.done: Deferred[int] = Deferred()
        self.count = 0
        self.sum = 0

    def on_rows(self, rowiter: Iterable[Any]) -> None:
        """Take some rows."""
        for row in rowiter:
            self.count += 1
            self.sum += row.key

    def on_error(self, ex: BaseException) -> None:
        """Learn that it failed; nothing follows."""
        self.done.errback(ex)

    def on_done(self) -> None:
        """Learn that these were all."""
        self.done.callback(self.count)


async def queries(cb: Connection) -> None:
    """Count."""
    counter = cb.queryEx(RowCounter, DESIGN, "by_number", stale=False)
    print("started:", counter.count, "rows so far")
    print("rows:", await counter.done)
    print("their sum:", counter.sum)
    print("in the index:", counter.indexed_rows)

    counter = cb.queryEx(RowCounter, DESIGN, "by_number", limit=10, skip=4990)
    print("the last ten:", await counter.done, "with the sum", counter.sum)

    # At least so many rows in a call; -1 for all in one.
    counter = cb.queryEx(RowCounter, DESIGN, "by_number")
    counter.raw.rows_per_call = 1000
    print("in large pieces:", await counter.done)

    counter = cb.queryEx(RowCounter, DESIGN, "no_such_view")
    try:
        await counter.done
    except HTTPError as error:
        print("no such view: HTTP status", error.objextra.http_status)


async def run(reactor: Any, connection_string: str) -> None:
    """Store numbers and a design, count rows, and clean up."""
    cb = Connection(bucket="default", connection_string=connection_string, reactor=reactor)
    documents = {f"number:{number}": {"number": number} for number in range(DOCUMENTS)}
    await cb.set_multi(documents)
    await cb.design_create(DESIGN, {"views": VIEWS}, use_devmode=False, syncwait=30)
    try:
        await queries(cb)
    finally:
        await cb.design_delete(DESIGN, use_devmode=False)
        await cb.delete_multi(list(documents))
        cb._close()


def main(reactor: Any, connection_string: str) -> Deferred[None]:
    """Run until it is done."""
    return ensureDeferred(run(reactor, connection_string))


if __name__ == "__main__":
    react(main, sys.argv[1:])
