"""Views: one query in three spellings, and what else can be asked.

python examples/guide/view_queries.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from couchbase import Connection, Couchbase
from couchbase.exceptions import ArgumentError, HTTPError
from couchbase.views.iterator import AlreadyQueriedError
from couchbase.views.params import STALE_UPDATE_BEFORE, UNSPEC, Params, Query

DESIGN = "guide_stations"
VIEWS = {
    "by_name": {"map": "function (doc, meta) { if (doc.station) { emit(doc.station, doc.height); } }"},
    "by_country": {
        "map": "function (doc, meta) { if (doc.station) { emit([doc.country, doc.station], doc.height); } }",
        "reduce": "_sum",
    },
}
STATIONS = (
    ("Adelboden", "CH", 1353),
    ("Bad Gastein", "AT", 1083),
    ("Cogne", "IT", 1534),
    ("Davos", "CH", 1560),
    ("Zermatt", "CH", 1608),
    ("Zürs", "AT", 1720),
)


def keys(rows: Iterable[Any]) -> list[Any]:
    """Return the keys of rows."""
    return [row.key for row in rows]


def spellings(cb: Connection) -> None:
    """Ask the same in three ways."""
    # Options as keywords ...
    view = cb.query(DESIGN, "by_name", startkey="B", endkey="D", limit=2, stale=STALE_UPDATE_BEFORE)
    print("keywords:", keys(view))
    # ... as a Query, which can be kept, changed and used again ...
    query: Any = Query(mapkey_range=["B", "D"], limit=2)
    query.stale = False
    print("a Query:", keys(cb.query(DESIGN, "by_name", query=query)), query)
    # ... or as text that is ready to be sent.
    text = 'startkey="B"&endkey="D"&limit=2&stale=false'
    print("text:", keys(cb.query(DESIGN, "by_name", query=Query.from_any(text))))

    # Names of options are constants, too, and a changed copy leaves the original alone.
    wider = query.update(copy=True, **{Params.LIMIT: 10})
    print(
        "a changed copy:",
        keys(cb.query(DESIGN, "by_name", query=wider)),
        "- limits:",
        query.limit,
        wider.limit,
    )


def more(cb: Connection) -> None:
    """Use other options."""
    view = cb.query(DESIGN, "by_name", mapkey_range=["Z", "Z" + Query.STRING_RANGE_END])
    print("begins with Z:", keys(view))
    print("one key:", [(row.key, row.value, row.docid) for row in cb.query(DESIGN, "by_name", key="Davos")])
    print("some keys:", keys(cb.query(DESIGN, "by_name", mapkey_multi=["Davos", "Cogne", "Paris"])))
    print("backwards:", keys(cb.query(DESIGN, "by_name", descending=True, skip=1, limit=2)))
    print("up to C:", keys(cb.query(DESIGN, "by_name", mapkey_range=[UNSPEC, "C"])))

    view = cb.query(DESIGN, "by_country", mapkey_range=[["CH"], ["CH", {}]], reduce=False)
    print("in CH:", [(row.key[1], row.value) for row in view])
    view = cb.query(DESIGN, "by_country", group_level=1)
    print("by country:", [(row.key[0], row.value) for row in view])
    print("in all:", [(row.key, row.value, row.docid) for row in cb.query(DESIGN, "by_country")])


def mistakes(cb: Connection) -> None:
    """Ask for what cannot be had."""
    wrong: list[dict[str, Any]] = [{"limit": "few"}, {"limits": 1}, {"stale": "perhaps"}]
    for options in wrong:
        try:
            cb.query(DESIGN, "by_name", **options)
        except ArgumentError:
            print("refused:", options)
    try:
        list(cb.query(DESIGN, "no_such_view"))
    except HTTPError as error:
        print("no such view: HTTP status", error.objextra.http_status)
    view = cb.query(DESIGN, "by_name", limit=1)
    print("asked once:", keys(view), "rows in the index:", view.indexed_rows)
    try:
        list(view)
    except AlreadyQueriedError:
        print("a view is for one query")


def main(connection_string: str) -> None:
    """Store documents and a design, query it, and clean up."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)
    cb.set_multi(
        {
            f"station:{name}": {"station": name, "country": country, "height": height}
            for name, country, height in STATIONS
        }
    )
    cb.design_create(DESIGN, {"views": VIEWS}, use_devmode=False, syncwait=30)
    try:
        spellings(cb)
        more(cb)
        mistakes(cb)
    finally:
        cb.design_delete(DESIGN, use_devmode=False)
        cb.delete_multi([f"station:{name}" for name, _, _ in STATIONS])


if __name__ == "__main__":
    main(*sys.argv[1:])
