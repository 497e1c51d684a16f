"""A program that reads all rows of a view, in a separate process.

    python -m bench.viewclient READER CONNECTION_STRING DESIGN VIEW

READER: ``queryEx`` or ``queryAll`` of txcouchbase; for comparison ``bytes`` (treq, without parsing),
``lines`` (treq, cut at line ends, each line given to orjson; right only for as long as the view engine
prints one row a line) and, where it is installed, ``ijson`` (treq, parsed by ijson as it comes). Prints a
JSON object: rows (0 for ``bytes``), seconds, the CPU seconds of this process, and by how many bytes its
largest resident size exceeds the one before the query.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import orjson
import treq
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

from bench.processes import largest_resident_bytes, resident_bytes
from bench.serve import PASSWORD, USER
from bench.viewload import cpu_seconds
from couchbase.asynchronous.view import AsyncViewBase
from txcouchbase.connection import Connection
from txcouchbase.http import VIEWS

Take = Callable[[bytes], int]
"""Takes some bytes of an answer, and returns how many rows they completed."""


class Counting(AsyncViewBase):
    """Counts rows, one by one, as they come."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rows = 0
        self.finished: Deferred[int] = Deferred()

    def on_rows(self, rowiter: Any) -> None:
        """Touch each row."""
        count = 0
        for _ in rowiter:
            count += 1
        self.rows += count

    def on_error(self, ex: BaseException) -> None:
        """Fail."""
        self.finished.errback(ex)

    def on_done(self) -> None:
        """Fire with the number of rows."""
        self.finished.callback(self.rows)


async def query_ex(connection: Connection, design: str, view: str) -> int:
    """Return the number of rows from queryEx."""
    return int(await connection.queryEx(Counting, design, view, stale="ok").finished)


async def query_all(connection: Connection, design: str, view: str) -> int:
    """Return the number of rows from queryAll."""
    count = 0
    for _ in await connection.queryAll(design, view, stale="ok"):
        count += 1
    return count


def ignored(data: bytes) -> int:
    """Ignore the bytes, which are not counted as rows."""
    return 0


def lines() -> Take:
    """Return a function that splits at line ends and parses each line."""
    rest = b""

    def take(data: bytes) -> int:
        nonlocal rest
        *complete, rest = (rest + data).split(b"\r\n")
        count = 0
        for line in complete:
            if line.startswith(b'{"id"'):
                orjson.loads(line.rstrip(b","))
                count += 1
        return count

    return take


def with_ijson() -> Take:
    """Return a function that parses with ijson."""
    import ijson  # type: ignore[import-not-found]

    events = ijson.sendable_list()
    parser = ijson.items_coro(events, "rows.item")

    def take(data: bytes) -> int:
        parser.send(data)
        count = len(events)
        events.clear()
        return count

    return take


def view_url(connection: Connection, design: str, view: str) -> str:
    """Return where the node of a connection answers this query."""
    (base,) = connection._http.addresses(VIEWS)
    return f"{base}/default/_design/{design}/_view/{view}?stale=ok"


async def read(url: str, take: Take) -> int:
    """Return how many rows ``take`` found in the answer.

    :raises RuntimeError: the answer is not the rows of a view.
    """
    count = 0
    end = b""

    def taken(data: bytes) -> None:
        nonlocal count, end
        count += take(data)
        end = data

    response = await treq.get(url, auth=(USER, PASSWORD), unbuffered=True)
    await treq.collect(response, taken)
    if response.code != 200 or not end.rstrip().endswith(b"}"):
        raise RuntimeError(f"{url} answered {response.code} {end[-200:]!r}")
    return count


async def run(reader: str, connection_string: str, design: str, view: str) -> dict[str, Any]:
    """Read all rows, and return what was used for it."""
    connection = Connection(
        bucket="default", connection_string=connection_string, username=USER, password=PASSWORD
    )
    await connection.connect()
    url = view_url(connection, design, view)
    before = resident_bytes(os.getpid())
    begun, used = time.perf_counter(), cpu_seconds()
    if reader == "queryEx":
        rows = await query_ex(connection, design, view)
    elif reader == "queryAll":
        rows = await query_all(connection, design, view)
    else:
        take = {"bytes": lambda: ignored, "lines": lines, "ijson": with_ijson}[reader]()
        rows = await read(url, take)
    return {
        "rows": rows,
        "seconds": time.perf_counter() - begun,
        "cpu": cpu_seconds() - used,
        "growth": max(0, largest_resident_bytes() - before),
    }


async def main(reader: str, connection_string: str, design: str, view: str) -> None:
    """Print what :func:`run` returns."""
    print(json.dumps(await run(reader, connection_string, design, view)))


if __name__ == "__main__":
    react(lambda reactor: ensureDeferred(main(*sys.argv[1:])))
