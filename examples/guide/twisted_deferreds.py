"""Twisted: operations return Deferreds, for callbacks and for await.

python examples/guide/twisted_deferreds.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, inlineCallbacks
from twisted.internet.task import react

from txcouchbase.connection import Connection

KEY = "parcel"


def with_callbacks(cb: Connection) -> Deferred[Any]:
    """Store and read, step by step."""
    stored = cb.set(KEY, {"weight": 3})
    stored.addCallback(lambda result: cb.get(result.key))
    stored.addCallback(lambda result: print("callbacks:", result.value))
    return stored


@inlineCallbacks
def with_yield(cb: Connection) -> Any:
    """Do the same in a generator."""
    yield cb.set(KEY, {"weight": 4})
    result = yield cb.get(KEY)
    print("yield:", result.value)


async def with_await(cb: Any) -> None:
    """Do the same in a coroutine, and a little more."""
    await cb.set(KEY, {"weight": 5})
    print("await:", (await cb.get(KEY)).value)
    many = await cb.setMulti({f"{KEY}:{number}": number for number in range(3)})
    print("setMulti:", sorted(many), bool(many.all_ok))
    counted = await cb.incr_multi(list(many), amount=10)
    print("incr_multi:", sorted(result.value for result in counted.values()))
    await cb.delete_multi([KEY, *many])


async def run(reactor: Any, connection_string: str) -> None:
    """Do it in all three ways."""
    # Nothing waits here: operations that are given before the connection is up are sent when it is.
    cb = Connection(bucket="default", connection_string=connection_string, reactor=reactor)
    print("connected at once:", cb.connected)
    await with_callbacks(cb)
    print("connected now:", cb.connected)
    await with_yield(cb)
    await with_await(cb)
    cb._close()


def main(reactor: Any, connection_string: str) -> Deferred[None]:
    """Run until it is done."""
    return ensureDeferred(run(reactor, connection_string))


if __name__ == "__main__":
    react(main, sys.argv[1:])
