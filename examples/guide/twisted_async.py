"""Twisted: TxAsyncConnection, whose operations return AsyncResults with two callbacks instead of Deferreds.

python examples/guide/twisted_async.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

from couchbase.exceptions import NotFoundError
from couchbase.result import AsyncResult
from txcouchbase.connection import TxAsyncConnection

KEY = "postcard"


def callbacks(cb: TxAsyncConnection, done: Deferred[None]) -> None:
    """Store, read, fail and remove; each callback begins the next step."""

    def failed(
        result: AsyncResult, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        done.errback(error)

    def stored(result: Any) -> None:
        print("stored", result.key)
        cb.get(KEY).set_callbacks(found, failed)

    def found(result: Any) -> None:
        print("found", result.value)
        cb.get_multi([KEY, "nowhere"]).set_callbacks(found, partly)

    def partly(
        result: AsyncResult, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        print(
            "partly:", issubclass(kind, NotFoundError), {key: result[key].success for key in sorted(result)}
        )
        cb.delete(KEY).set_callbacks(deleted, failed)

    def deleted(result: Any) -> None:
        print("deleted:", result.success)
        done.callback(None)

    # Callbacks can be set for as long as the reactor has not had its turn.
    result = cb.set(KEY, "Greetings!")
    print("open:", result.remaining)
    result.callback = stored
    result.errback = failed


async def run(reactor: Any, connection_string: str) -> None:
    """Use callbacks, then Deferreds where they are handy."""
    cb = TxAsyncConnection(bucket="default", connection_string=connection_string, reactor=reactor)
    await cb.connect()
    done: Deferred[None] = Deferred()
    callbacks(cb, done)
    await done

    result = await cb.defer(cb.set(KEY, "Greetings again!"))
    print("deferred:", result.key, result.success)
    try:
        await cb.defer(cb.get("nowhere"))
    except NotFoundError as error:
        print("deferred failure:", error.key)
    await cb.defer(cb.delete(KEY))
    cb._close()


def main(reactor: Any, connection_string: str) -> Deferred[None]:
    """Run until it is done."""
    return ensureDeferred(run(reactor, connection_string))


if __name__ == "__main__":
    react(main, sys.argv[1:])
