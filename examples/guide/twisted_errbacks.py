"""Twisted: failures arrive at errbacks, of operations and of connecting.

python examples/guide/twisted_errbacks.py couchbase://127.0.0.1:11210 USER PASSWORD
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import react
from twisted.python.failure import Failure

from couchbase.exceptions import BucketNotFoundError, CouchbaseError, KeyExistsError, NotFoundError
from txcouchbase.connection import Connection


def missing(failure: Failure) -> str:
    """Tell what was missing; other failures pass."""
    failure.trap(NotFoundError)
    error: Any = failure.value
    return f"no document {error.key}, rc {hex(error.rc)}"


async def operations(cb: Connection) -> None:
    """Let operations fail."""
    print("one:", await cb.get("lost").addErrback(missing))

    await cb.set("present", 1)
    try:
        await cb.add_multi({"present": 2, "new": 2})
    except KeyExistsError as error:
        outcomes = {key: error.all_results[key].success for key in sorted(error.all_results)}
        print("many:", error.key, outcomes)

    # trap lets pass what it does not name, as except does.
    odd = cb.add("present", 3).addErrback(missing)
    odd.addErrback(lambda failure: f"not for that errback: {failure.check(CouchbaseError) is not None}")
    print(await odd)

    given_up = cb.get("present")
    given_up.cancel()
    try:
        await given_up
    except CancelledError:
        print("cancelled")
    await cb.delete_multi(["present", "new"])


async def run(reactor: Any, connection_string: str, user: str, password: str) -> None:
    """Fail in many ways."""
    known = {
        "connection_string": connection_string,
        "username": user,
        "password": password,
        "reactor": reactor,
    }
    cb = Connection(bucket="default", **known)
    await cb.connect()
    print("connected:", cb.connected)
    await operations(cb)
    cb._close()

    # If connecting fails, so does everything that waited for it.
    nowhere = Connection(bucket="no-such-bucket", **known)
    waiting = nowhere.get("key")
    for what, deferred in (("connect", nowhere.connect()), ("get", waiting)):
        try:
            await deferred
        except BucketNotFoundError as error:
            print(f"{what}: BucketNotFoundError, rc {hex(error.rc)}")
    nowhere._close()


def main(reactor: Any, connection_string: str, user: str, password: str) -> Deferred[None]:
    """Run until it is done."""
    return ensureDeferred(run(reactor, connection_string, user, password))


if __name__ == "__main__":
    react(main, sys.argv[1:])
