"""A tour of views: define, publish and query, with rows as they arrive.

python examples/beer_views.py couchbase://127.0.0.1:11210 [USER PASSWORD_FILE [DOCUMENTS.jsonl[.gz]]]

Stores the documents (examples/sample-breweries.jsonl unless others are named) in the bucket ``default``.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

from couchbase.asynchronous.view import AsyncViewBase
from couchbase.exceptions import HTTPError
from couchbase.views.params import Query
from txcouchbase.connection import Connection

HERE = Path(__file__).resolve().parent
DOCUMENTS_AT_ONCE = 500


class Counted(AsyncViewBase):
    """Counts rows while they arrive; ``done`` fires with the number."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.done: Deferred[int] = Deferred()
        self.count = 0

    def on_rows(self, rowiter: Iterable[Any]) -> None:
        """Take some rows."""
        self.count += sum(1 for _ in rowiter)

    def on_error(self, ex: BaseException) -> None:
        """Something went wrong; nothing follows."""
        self.done.errback(ex)

    def on_done(self) -> None:
        """These were all."""
        self.done.callback(self.count)


def documents(path: Path) -> Iterator[dict[str, Any]]:
    """Yield some documents at a time, by key."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        some: dict[str, Any] = {}
        for line in lines:
            entry = json.loads(line)
            some[entry["id"]] = entry["doc"]
            if len(some) == DOCUMENTS_AT_ONCE:
                yield some
                some = {}
        yield some


async def show(connection: Connection, title: str, view: str, **options: Any) -> None:
    """Print the rows of one query."""
    print(f"{title}:")
    for row in await connection.queryAll("beer", view, stale=False, **options):
        print("   ", json.dumps(row.key, ensure_ascii=False), json.dumps(row.value), row.docid or "")


async def tour(
    reactor: Any, connection_string: str, user: str | None, password: str | None, path: Path
) -> None:
    """Store, define, publish, ask."""
    connection = Connection(
        bucket="default",
        connection_string=connection_string,
        username=user,
        password=password,
        reactor=reactor,
    )
    try:
        for some in documents(path):
            if some:
                await connection.set_multi(some)
        design = json.loads((HERE / "beer-design.json").read_text())
        await connection.design_create("beer", design, use_devmode=True)
        await connection.design_publish("beer", syncwait=30)

        view = connection.queryEx(Counted, "beer", "brewery_beers", stale=False)
        print("rows counted as they arrived:", await view.done, "of", view.indexed_rows)

        await show(connection, "one brewery and its beers", "brewery_beers",
                   mapkey_range=[["amber_lock_brewpub"], ["amber_lock_brewpub", {}]])  # fmt: skip
        await show(connection, "names that begin with Q", "by_name",
                   mapkey_range=["Q", "Q" + Query.STRING_RANGE_END], limit=4)  # fmt: skip
        await show(connection, "the last names, two left out", "by_name", descending=True, skip=2, limit=3)
        await show(connection, "some names", "by_name", mapkey_multi=["Honest Weaver Porter", "No such beer"])
        await show(connection, "breweries", "by_location")
        await show(connection, "breweries by country", "by_location", group_level=1)
        await show(connection, "breweries by state", "by_location", group_level=2, limit=3)

        try:
            await connection.queryAll("beer", "by_colour")
        except HTTPError as error:
            print("no such view:", error.objextra.http_status)
    finally:
        connection._close()


def main(
    reactor: Any,
    connection_string: str,
    user: str | None = None,
    password_file: str | None = None,
    path: str = str(HERE / "sample-breweries.jsonl"),
) -> Any:
    """Run the tour."""
    password = None if password_file is None else Path(password_file).read_text().splitlines()[0]
    return ensureDeferred(tour(reactor, connection_string, user, password, Path(path)))


if __name__ == "__main__":
    react(main, sys.argv[1:])
