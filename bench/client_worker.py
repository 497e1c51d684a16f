"""One client in a separate process; run by bench.client in either environment, by path.

    python bench/client_worker.py FLAVOUR CONNECTION_STRING USER PASSWORD SCALE

FLAVOUR: ``deferred`` (txcouchbase.Connection), ``async`` (TxAsyncConnection), ``official`` (the 4.x client).
Prints a JSON object: case -> [operations a second, CPU microseconds of this process an operation].
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

VALUE = {"text": "x" * 85, "number": 7}
KEYS = [f"bench-{number}" for number in range(1000)]

# An operation is started with a key and reports its end: (key, done(result), failed(...)). failed is called
# with a Failure, or with the arguments of an AsyncResult's errback, of which the third is the exception.
Operation = Callable[[str, Callable[[Any], Any], Callable[..., Any]], Any]


def official(connection_string: str, user: str, password: str) -> Any:
    """Return a connector of the official client; its Deferred fires with (get, set, get_multi or None)."""
    from twisted.internet.defer import inlineCallbacks

    import txcouchbase  # noqa: F401  # installs the asyncio reactor, so it comes before any other import of Twisted

    # The official packages of these names, not this project's.
    from couchbase.auth import PasswordAuthenticator  # type: ignore[import-not-found]
    from couchbase.options import ClusterOptions  # type: ignore[import-not-found]
    from txcouchbase.cluster import TxCluster  # type: ignore[attr-defined]

    @inlineCallbacks
    def connect() -> Any:
        cluster = TxCluster(connection_string, ClusterOptions(PasswordAuthenticator(user, password)))
        yield cluster.on_connect()
        bucket = cluster.bucket("default")
        yield bucket.on_connect()
        documents = bucket.default_collection()
        return (
            lambda key, done, failed: documents.get(key).addCallbacks(done, failed),
            lambda key, done, failed: documents.upsert(key, VALUE).addCallbacks(done, failed),
            None,
        )

    return connect


def deferred(connection_string: str, user: str, password: str) -> Any:
    """Return a function that connects with Deferreds."""
    from txcouchbase.connection import Connection

    connection = Connection(
        bucket="default", connection_string=connection_string, username=user, password=password
    )
    return lambda: connection.connect().addCallback(
        lambda _: (
            lambda key, done, failed: connection.get(key).addCallbacks(done, failed),
            lambda key, done, failed: connection.set(key, VALUE).addCallbacks(done, failed),
            lambda keys, done, failed: connection.get_multi(keys).addCallbacks(done, failed),
        )
    )


def asynchronous(connection_string: str, user: str, password: str) -> Any:
    """Return a function that connects with AsyncResults."""
    from txcouchbase.connection import TxAsyncConnection

    connection = TxAsyncConnection(
        bucket="default", connection_string=connection_string, username=user, password=password
    )

    return lambda: connection.connect().addCallback(
        lambda _: (
            lambda key, done, failed: connection.get(key).set_callbacks(done, failed),
            lambda key, done, failed: connection.set(key, VALUE).set_callbacks(done, failed),
            lambda keys, done, failed: connection.get_multi(keys).set_callbacks(done, failed),
        )
    )


def cpu_seconds() -> float:
    """Return user and system time of this process, all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run(operation: Operation, under_way: int, count: int) -> Any:
    """Keep ``under_way`` operations going until ``count`` are done; fires with (a second, CPU us each)."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    finished: Deferred[tuple[float, float]] = Deferred()
    keys = itertools.islice(itertools.cycle(KEYS), count)
    left = count
    begun, used = time.perf_counter(), cpu_seconds()

    def start() -> None:
        key = next(keys, None)
        if key is not None:
            operation(key, done, failed)

    def done(result: Any) -> None:
        nonlocal left
        left -= 1
        if left:
            start()
        else:
            seconds = time.perf_counter() - begun
            told = count / seconds, (cpu_seconds() - used) / count * 1e6
            # Not inside an operation's callback: the next steps must not be measured with it.
            reactor.callLater(0, finished.callback, told)

    def failed(reason: Any, *more: Any) -> None:
        if not finished.called:
            finished.errback(more[1] if more else reason.value)

    for _ in range(under_way):
        start()
    return finished


def main() -> None:
    """Measure every case of one flavour."""
    flavour, connection_string, user, password, scale = sys.argv[1:]
    # This imports the driver. The official one installs its reactor then, so no other import may be first.
    connect = {"official": official, "deferred": deferred, "async": asynchronous}[flavour](
        connection_string, user, password
    )
    from twisted.internet import reactor as installed
    from twisted.internet.defer import ensureDeferred

    reactor: Any = installed
    status = 1

    async def measure() -> None:
        nonlocal status
        try:
            get, store, get_multi = await connect()
            await run(store, 64, 2000)  # warm up; every key exists afterwards
            await run(get, 64, 2000)
            # Imported modules are never garbage: a long-running program should freeze them.
            gc.collect()
            if hasattr(gc, "freeze"):
                gc.freeze()
            count = int(scale)
            figures = {
                "get, 1": await run(get, 1, count // 5),
                "set, 1": await run(store, 1, count // 5),
                "get, 64": await run(get, 64, count),
                "set, 64": await run(store, 64, count),
            }
            if get_multi is None:
                # It has no multi operation; a thousand gets at once are the closest.
                figures["get_multi of 1,000"] = await run(get, 1000, count)
            else:
                calls = max(1, count // 1000)
                rate, cost = await run(lambda _, done, failed: get_multi(KEYS, done, failed), 1, calls)
                figures["get_multi of 1,000"] = rate * 1000, cost / 1000
            print(json.dumps(figures))
            status = 0
        finally:
            reactor.stop()

    # Not callWhenRunning: the official client connects only when asyncio's loop is also running.
    reactor.callLater(0, lambda: ensureDeferred(measure()).addErrback(lambda f: f.printTraceback(sys.stderr)))
    reactor.run()
    sys.stdout.flush()
    sys.stderr.flush()
    # The official client may hang while its threads are taken down.
    os._exit(status)


if __name__ == "__main__":
    main()
