"""One driver of the guide's benchmark, alone in a process; run by bench.guide in either environment, by path.

    python bench/guide_worker.py < SETTINGS

SETTINGS is a JSON object: ``driver``, ``connection_string``, ``user``, ``password``, ``bucket``,
``key_size``, ``value_size``, ``batch``, ``sets``, ``gets``, ``under_way``, and ``seconds`` or ``operations``,
the other of which is null. Prints the figures as a JSON object.

The official client's environment has neither this project nor Twisted, so nothing of either is imported here
before a driver asks for it.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from copy import copy
from itertools import cycle, islice
from operator import getitem
from time import perf_counter
from typing import Any

KEYS = 1000
PREFIX = "guide-"
WARM_SECONDS = 0.3

Call = tuple[Callable[..., Any], tuple[Any, ...]]
# The methods of a connection: get, set, get_multi, set_multi.
Methods = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any], Callable[..., Any]]


class Load:
    """The load of a measurement on a connection."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.batch: int = settings["batch"]
        self.under_way: int = settings["under_way"]
        self.seconds: float | None = settings["seconds"]
        self.operations: int = settings["operations"] or 0
        self.sets: int = settings["sets"]
        self.gets: int = settings["gets"]
        digits = settings["key_size"] - len(PREFIX)
        count = max(KEYS // self.batch, 1) * self.batch
        self.keys = [f"{PREFIX}{number:0{digits}d}" for number in range(count)]
        # Its JSON has the requested length.
        self.value = "x" * (settings["value_size"] - 2)

    def parts(self) -> tuple[Load, Load]:
        """Return the measurement, preceded by a short warm-up whose figures are dropped."""
        warming = copy(self)
        warming.seconds = WARM_SECONDS
        return warming, self

    def limit(self, chains: int) -> int | None:
        """Return the number of calls of each of the chains; ``None`` if a time limit ends the measurement."""
        return None if self.seconds is not None else math.ceil(self.operations / self.batch / chains)

    def deadline(self, meter: Meter) -> float:
        """Return the time of the end, on the clock of a meter."""
        return math.inf if self.seconds is None else meter.begun + self.seconds

    def start(self, number: int) -> int:
        """Return the batch of keys that one of several chains begins with."""
        batches = len(self.keys) // self.batch
        return number * batches // self.under_way

    def calls(self, methods: Methods, start: int = 0) -> Iterator[Call]:
        """Return calls without end: the keys in turn, sets spread evenly among gets.

        :param start: the batch of keys to begin with, for several chains.
        """
        get, store, get_multi, set_multi = methods
        units: list[tuple[Call, Call]] = []
        for first in range(0, len(self.keys), self.batch):
            keys = self.keys[first : first + self.batch]
            if self.batch == 1:
                units.append(((get, (keys[0],)), (store, (keys[0], self.value))))
            else:
                units.append(((get_multi, (keys,)), (set_multi, (dict.fromkeys(keys, self.value),))))
        total = self.sets + self.gets
        turns = [(turn + 1) * self.sets // total != turn * self.sets // total for turn in range(total)]
        return map(getitem, cycle(units[start:] + units[:start]), cycle(turns))


class Meter:
    """Measures the time since its creation and the duration of calls; make the list of calls before it.

    :param batch: operations in a call.
    """

    def __init__(self, batch: int) -> None:
        self.latencies = array("d")
        self._batch = batch
        self.seconds = 0.0
        self.used = cpu_seconds()
        self.begun = perf_counter()

    def stop(self) -> None:
        """The calls are over."""
        self.seconds = perf_counter() - self.begun
        self.used = cpu_seconds() - self.used

    def figures(self) -> dict[str, float]:
        """Return what was measured; times in microseconds, latencies are those of calls."""
        latencies = sorted(self.latencies)
        operations = len(latencies) * self._batch
        return {
            "operations a second": operations / self.seconds,
            "median": latencies[len(latencies) // 2] * 1e6,
            "99th": latencies[min(math.ceil(len(latencies) * 0.99), len(latencies)) - 1] * 1e6,
            "cpu": self.used / operations * 1e6,
        }


def cpu_seconds() -> float:
    """Return user and system time of this process, all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def follow(load: Load, calls: Iterator[Call], limit: int | None, meter: Meter) -> None:
    """Make one call after the other, each of which waits for its answer."""
    note = meter.latencies.append
    deadline = load.deadline(meter)
    for method, arguments in islice(calls, limit):
        begun = perf_counter()
        method(*arguments)
        ended = perf_counter()
        note(ended - begun)
        if ended >= deadline:
            return


def check(load: Load, methods: Methods) -> None:
    """Store the documents, and see that they are read back; also by many at once.

    :raises RuntimeError: they are not.
    """
    get, store, get_multi, set_multi = methods
    store(load.keys[0], load.value)
    set_multi(dict.fromkeys(load.keys, load.value))
    found = get_multi(load.keys[:2])
    results = [get(load.keys[-1]), *(found[key] for key in load.keys[:2])]
    wrong = [result for result in results if value_of(result) != load.value]
    if wrong:
        raise RuntimeError(f"another value was read than written: {wrong[0]!r}")


def value_of(result: Any) -> Any:
    """Return the value of a result, of SDK 1.2 or of the official client."""
    return result.value if hasattr(result, "value") else result.content_as[str]


def one_after_the_other(connect: Callable[[], Methods], load: Load) -> Meter:
    """Measure one connection in one thread."""
    methods = connect()
    check(load, methods)
    for part in load.parts():
        calls = part.calls(methods)
        meter = Meter(load.batch)
        follow(part, calls, part.limit(1), meter)
        meter.stop()
    return meter


def in_threads(connect: Callable[[], Methods], load: Load) -> Meter:
    """Measure as many threads as there are operations under way; ``connect`` is called for each."""
    connections = [connect() for _ in range(load.under_way)]
    check(load, connections[0])
    for part in load.parts():
        meter = threaded(part, connections)
    return meter


def threaded(load: Load, connections: list[Methods]) -> Meter:
    """Run each connection in its own thread until all are done."""
    failures: list[BaseException] = []
    ready = threading.Barrier(len(connections) + 1)

    def run(number: int, methods: Methods) -> None:
        calls = load.calls(methods, load.start(number))
        ready.wait()
        ready.wait()
        try:
            follow(load, calls, load.limit(len(connections)), meter)
        except BaseException as error:  # noqa: BLE001  # reported where the threads are joined
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=(number, methods)) for number, methods in enumerate(connections)
    ]
    for thread in threads:
        thread.start()
    # All threads are ready; the clock starts before any of them runs.
    ready.wait()
    meter = Meter(load.batch)
    ready.wait()
    for thread in threads:
        thread.join()
    meter.stop()
    if failures:
        raise failures[0]
    return meter


def in_greenlets(connect: Callable[[], Methods], load: Load) -> Meter:
    """Measure as many greenlets as there are operations under way, on one connection."""
    import gevent

    methods = connect()
    check(load, methods)
    for part in load.parts():
        limit = part.limit(load.under_way)
        calls = [part.calls(methods, load.start(number)) for number in range(load.under_way)]
        meter = Meter(load.batch)
        spawned = [gevent.spawn(follow, part, each, limit, meter) for each in calls]
        gevent.joinall(spawned, raise_error=True)
        meter.stop()
    return meter


class Chain:
    """Operations of Twisted one after the other, each begun by the callback of the one before.

    :param attach: called with what a method returned and two callbacks.
    :param left: the chains that are not over; the last one fires ``finished``.
    """

    __slots__ = ("attach", "begun", "calls", "callbacks", "deadline", "finished", "left", "note")

    def __init__(
        self, calls: Iterator[Call], deadline: float, meter: Meter, attach: Any, left: set[Any], finished: Any
    ) -> None:
        self.calls = calls
        self.deadline = deadline
        self.note = meter.latencies.append
        self.attach = attach
        self.left = left
        self.finished = finished
        self.begun = 0.0
        # Bound once: the load itself must cost little compared with the measured operations.
        self.callbacks = self.done, self.failed

    def start(self, now: float) -> None:
        """Begin the next operation."""
        for method, arguments in self.calls:
            self.begun = now
            self.attach(method(*arguments), *self.callbacks)
            return
        self.end()

    def done(self, result: Any) -> None:
        """Record the duration, and begin the next operation."""
        now = perf_counter()
        self.note(now - self.begun)
        if now >= self.deadline:
            self.end()
            return
        # start(), by hand.
        for method, arguments in self.calls:
            self.begun = now
            self.attach(method(*arguments), *self.callbacks)
            return
        self.end()

    def end(self) -> None:
        """End a chain; the last one fires ``finished``."""
        self.left.discard(self)
        if not self.left and not self.finished.called:
            self.finished.callback(None)

    def failed(self, *reason: Any) -> None:
        """Give up: a Failure from a Deferred; result, kind, error and traceback from an AsyncResult."""
        if not self.finished.called:
            self.finished.errback(reason[0] if len(reason) == 1 else reason[2])


def in_reactor(load: Load, settings: dict[str, Any]) -> Meter:
    """Measure one connection of txcouchbase, with Deferreds or AsyncResults."""
    from twisted.internet import reactor as installed
    from twisted.internet.defer import Deferred, ensureDeferred
    from twisted.python.failure import Failure

    from couchbase.result import AsyncResult
    from txcouchbase.connection import Connection, TxAsyncConnection

    reactor: Any = installed
    deferreds = settings["driver"] == "deferreds"
    attach: Any = Deferred.addCallbacks if deferreds else AsyncResult.set_callbacks

    async def run(part: Load, methods: Methods) -> Meter:
        finished: Deferred[None] = Deferred()
        calls = islice(part.calls(methods), part.limit(1))
        meter = Meter(part.batch)
        left: set[Chain] = set()
        deadline = part.deadline(meter)
        chains = [Chain(calls, deadline, meter, attach, left, finished) for _ in range(part.under_way)]
        left.update(chains)
        for chain in chains:
            chain.start(perf_counter())
        await finished
        meter.stop()
        return meter

    async def measure() -> Meter:
        connection: Any = (Connection if deferreds else TxAsyncConnection)(**ours(settings))
        await connection.connect()
        stored: Deferred[None] = Deferred()
        attach(
            connection.set_multi(dict.fromkeys(load.keys, load.value)),
            stored.callback,
            lambda *reason: stored.errback(reason[0] if len(reason) == 1 else reason[2]),
        )
        await stored
        for part in load.parts():
            meter = await run(part, methods_of(connection))
        return meter

    outcome: list[Any] = []

    def begin() -> None:
        ensureDeferred(measure()).addBoth(outcome.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    meter: Meter = outcome[0]
    return meter


def ours(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords with which a connection of this project is made."""
    return {
        "bucket": settings["bucket"],
        "connection_string": settings["connection_string"],
        "username": settings["user"],
        "password": settings["password"],
    }


def blocking(settings: dict[str, Any]) -> Callable[[], Methods]:
    """Return a function that connects as SDK 1.2 does."""
    from couchbase.connection import Connection

    return lambda: methods_of(Connection(**ours(settings)))


def greenlets(settings: dict[str, Any]) -> Callable[[], Methods]:
    """Return a function that connects for greenlets."""
    from gcouchbase.connection import GConnection

    return lambda: methods_of(GConnection(**ours(settings)))


def methods_of(connection: Any) -> Methods:
    """Return the methods of a connection of this project."""
    return connection.get, connection.set, connection.get_multi, connection.set_multi


def official(settings: dict[str, Any]) -> Callable[[], Methods]:
    """Return a function that gives the methods of the official client's connection, shared by all threads."""
    from datetime import timedelta

    from couchbase.auth import PasswordAuthenticator  # type: ignore[import-not-found]
    from couchbase.cluster import Cluster  # type: ignore[import-not-found]
    from couchbase.options import ClusterOptions, GetMultiOptions, UpsertMultiOptions  # type: ignore[import-not-found]

    cluster = Cluster(
        settings["connection_string"],
        ClusterOptions(PasswordAuthenticator(settings["user"], settings["password"])),
    )
    cluster.wait_until_ready(timedelta(seconds=10))
    documents = cluster.bucket(settings["bucket"]).default_collection()
    # A failure is an exception, as it is with the others.
    get_options = GetMultiOptions(return_exceptions=False)
    set_options = UpsertMultiOptions(return_exceptions=False)

    def get_multi(keys: Any) -> Any:
        return documents.get_multi(keys, get_options).results

    def set_multi(values: Any) -> Any:
        return documents.upsert_multi(values, set_options)

    return lambda: (documents.get, documents.upsert, get_multi, set_multi)


def measure(settings: dict[str, Any]) -> Meter:
    """Run the measurement that the settings describe."""
    load = Load(settings)
    driver = settings["driver"]
    if driver == "blocking":
        return one_after_the_other(blocking(settings), load)
    if driver == "threads":
        return in_threads(blocking(settings), load)
    if driver == "gevent":
        return in_greenlets(greenlets(settings), load)
    if driver == "official":
        return (one_after_the_other if load.under_way == 1 else in_threads)(official(settings), load)
    return in_reactor(load, settings)


def main() -> None:
    """Run the measurement that standard input describes."""
    print(json.dumps(measure(json.load(sys.stdin)).figures()))
    sys.stdout.flush()
    # The official client may hang while its threads are taken down.
    os._exit(0)


if __name__ == "__main__":
    main()
