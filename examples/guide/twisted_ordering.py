"""Twisted: operations on one key take effect in the order in which they were given.

python examples/guide/twisted_ordering.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import react

from couchbase import FMT_UTF8
from txcouchbase.connection import Connection

KEY = "sequence"
COUNT = 500


async def run(reactor: Any, connection_string: str) -> None:
    """Give many operations at once."""
    cb = Connection(bucket="default", connection_string=connection_string, reactor=reactor)

    # Started before the connection is up: the first set, the appends and the get keep this order.
    waiting = [cb.set(KEY, "a", format=FMT_UTF8)]
    waiting += [cb.append(KEY, letter) for letter in "bcdef"]
    waiting.append(cb.get(KEY))
    waiting.append(cb.delete(KEY))
    results = await gatherResults(waiting)
    print("before connecting:", results[-2].value)

    # And the same afterwards.
    cb.set(KEY, 0)
    answers = await gatherResults([cb.incr(KEY) for _ in range(COUNT)])
    numbers = [answer.value for answer in answers]
    print("in order:", numbers == list(range(1, COUNT + 1)))

    # Each get sees what was stored just before it.
    seen = []
    for number in range(COUNT):
        cb.set(KEY, number)
        seen.append(cb.get(KEY))
    print("reads follow writes:", [one.value for one in await gatherResults(seen)] == list(range(COUNT)))

    # Operations on different keys have no order among each other; who needs one waits.
    await cb.set(KEY, "first")
    await cb.set(f"{KEY}:2", "second")
    print("one after the other:", (await cb.get(KEY)).value, (await cb.get(f"{KEY}:2")).value)
    await cb.delete_multi([KEY, f"{KEY}:2"])
    cb._close()


def main(reactor: Any, connection_string: str) -> Deferred[None]:
    """Run until it is done."""
    return ensureDeferred(run(reactor, connection_string))


if __name__ == "__main__":
    react(main, sys.argv[1:])
