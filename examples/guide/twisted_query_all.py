"""Twisted and views: queryAll gives a Deferred of all rows.

python examples/guide/twisted_query_all.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

from couchbase.exceptions import ArgumentError, HTTPError
from couchbase.views.params import UNSPEC, Query
from txcouchbase.connection import Connection

DESIGN = "guide_cheese"
VIEWS = {
    "by_name": {"map": "function (doc, meta) { if (doc.cheese) { emit(doc.cheese, doc.country); } }"},
    "by_country": {
        "map": "function (doc, meta) { if (doc.cheese) { emit(doc.country, 1); } }",
        "reduce": "_count",
    },
}
CHEESES = (("Brie", "FR"), ("Comté", "FR"), ("Edam", "NL"), ("Gouda", "NL"), ("Manchego", "ES"))


async def queries(cb: Connection) -> None:
    """Ask in several ways."""
    view = await cb.queryAll(DESIGN, "by_name", stale=False)
    print("all:", [row.key for row in view], "of", view.indexed_rows)

    view = await cb.queryAll(DESIGN, "by_name", mapkey_range=["C", "E" + Query.STRING_RANGE_END])
    print("a range:", [(row.docid, row.key, row.value) for row in view])
    print("rows returned:", view.rows_returned)
    view = await cb.queryAll(DESIGN, "by_name", query=Query(limit=2, descending=True))
    print("the last two:", [row.key for row in view])
    view = await cb.queryAll(DESIGN, "by_name", mapkey_range=[UNSPEC, "B"])
    print("none:", list(view))

    view = await cb.queryAll(DESIGN, "by_country", group=True)
    print("grouped:", [(row.key, row.value) for row in view])
    view = await cb.queryAll(DESIGN, "by_country")
    print("reduced:", [(row.key, row.value, row.docid) for row in view])

    try:
        await cb.queryAll(DESIGN, "no_such_view")
    except HTTPError as error:
        print("no such view: HTTP status", error.objextra.http_status)
    try:
        await cb.queryAll(DESIGN, "by_name", limit="many")
    except ArgumentError:
        print("no such limit: ArgumentError")


async def run(reactor: Any, connection_string: str) -> None:
    """Store documents and a design, query it, and clean up."""
    cb = Connection(bucket="default", connection_string=connection_string, reactor=reactor)
    await cb.set_multi({f"cheese:{name}": {"cheese": name, "country": country} for name, country in CHEESES})
    await cb.design_create(DESIGN, {"views": VIEWS}, use_devmode=False, syncwait=30)
    try:
        await queries(cb)
    finally:
        await cb.design_delete(DESIGN, use_devmode=False)
        await cb.delete_multi([f"cheese:{name}" for name, _ in CHEESES])
        cb._close()


def main(reactor: Any, connection_string: str) -> Deferred[None]:
    """Run until it is done."""
    return ensureDeferred(run(reactor, connection_string))


if __name__ == "__main__":
    react(main, sys.argv[1:])
