"""Threads: the lock modes of a connection that two of them use at once.

python examples/guide/thread_modes.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from couchbase import LOCKMODE_EXC, LOCKMODE_NONE, LOCKMODE_WAIT, Couchbase
from couchbase.exceptions import ObjectThreadError

KEY = "shared"
THREADS = 4
ROUNDS = 100


def count(cb: Any) -> None:
    """Increment the counter some times."""
    for _ in range(ROUNDS):
        cb.incr(KEY)


def count_until_refused(cb: Any, refused: threading.Event) -> None:
    """Increment the counter until a thread is refused."""
    while not refused.is_set():
        try:
            cb.incr(KEY)
        except ObjectThreadError:
            refused.set()


def count_on_own(connection_string: str) -> None:
    """Increment the counter on a connection of this thread's own."""
    count(Couchbase.connect(bucket="default", connection_string=connection_string, lockmode=LOCKMODE_NONE))


def main(connection_string: str) -> None:
    """Share connections in every way."""
    # LOCKMODE_WAIT is the default: threads may share a connection.
    print(
        "default mode:",
        Couchbase.connect(bucket="default", connection_string=connection_string).lockmode == LOCKMODE_WAIT,
    )

    # LOCKMODE_EXC: sharing a connection by mistake shows, and harms nothing.
    cb = Couchbase.connect(bucket="default", connection_string=connection_string, lockmode=LOCKMODE_EXC)
    cb.set(KEY, 0)
    refused = threading.Event()
    with ThreadPoolExecutor(THREADS) as pool:
        for run in [pool.submit(count_until_refused, cb, refused) for _ in range(THREADS)]:
            run.result(60)
    print("EXC: a second thread was refused:", refused.is_set())
    print("EXC: the connection is fine:", cb.set(KEY, 0).success)

    # LOCKMODE_WAIT: one after the other.
    waiting = Couchbase.connect(
        bucket="default", connection_string=connection_string, lockmode=LOCKMODE_WAIT, timeout=30
    )
    with ThreadPoolExecutor(THREADS) as pool:
        for run in [pool.submit(count, waiting) for _ in range(THREADS)]:
            run.result(60)
    print("WAIT: counted", cb.get(KEY).value, "of", THREADS * ROUNDS)

    # LOCKMODE_NONE checks nothing, so each thread needs its own connection.
    cb.set(KEY, 0)
    with ThreadPoolExecutor(THREADS) as pool:
        for run in [pool.submit(count_on_own, connection_string) for _ in range(THREADS)]:
            run.result(60)
    print("NONE: counted", cb.get(KEY).value, "of", THREADS * ROUNDS)

    cb.delete(KEY)


if __name__ == "__main__":
    main(*sys.argv[1:])
