"""Optimistic locking: change a document only if its version is the one that was read; else read again.

python examples/guide/optimistic_locking.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

from couchbase import Couchbase
from couchbase.exceptions import KeyExistsError

KEY = "guests"
GUESTS_EACH = 25
DOORS = ("front", "back", "cellar", "window")


def change(cb: Any, key: str, edit: Callable[[Any], Any]) -> int:
    """Edit a document however many others edit it; return how often that took another try."""
    retries = 0
    while True:
        found = cb.get(key)
        try:
            cb.set(key, edit(found.value), cas=found.cas)
        except KeyExistsError:
            retries += 1
        else:
            return retries


def with_guest(name: str, guests: list[str]) -> list[str]:
    """Return the list with one more guest."""
    return [*guests, name]


def let_in(connection_string: str, door: str, together: Barrier) -> tuple[bool, int]:
    """Add guests to the list; return whether the first try was a success, and the number of retries."""
    # Each thread has its own connection: they are coordinated by the server alone.
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)
    found = cb.get(KEY)
    together.wait(30)
    # All have read the same version now, so all but one of them come too late.
    try:
        cb.set(KEY, [*found.value, f"{door} 0"], cas=found.cas)
        first, begin = True, 1
    except KeyExistsError:
        first, begin = False, 0
    retries = 0
    for number in range(begin, GUESTS_EACH):
        retries += change(cb, KEY, partial(with_guest, f"{door} {number}"))
    return first, retries


def main(connection_string: str) -> None:
    """Edit one document in one thread, then in four."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)
    cb.set(KEY, [])

    stale = cb.get(KEY)
    cb.set(KEY, ["an early bird"])
    try:
        cb.set(KEY, [*stale.value, "me"], cas=stale.cas)
    except KeyExistsError:
        print("somebody was faster; the list is", cb.get(KEY).value)
    change(cb, KEY, partial(with_guest, "me"))
    print("after another try it is", cb.get(KEY).value)
    try:
        cb.delete(KEY, cas=stale.cas)
    except KeyExistsError:
        print("delete heeds the CAS, too")

    cb.set(KEY, [])
    together = Barrier(len(DOORS))
    with ThreadPoolExecutor(len(DOORS)) as pool:
        runs = [pool.submit(let_in, connection_string, door, together) for door in DOORS]
        outcomes = [run.result() for run in runs]
    print("first tries that succeeded:", sum(first for first, _ in outcomes), "of", len(DOORS))

    guests = cb.get(KEY).value
    print("guests:", len(guests), "of", GUESTS_EACH * len(DOORS))
    print("each of them once:", len(set(guests)) == len(guests))
    for door in DOORS:
        mine = [name for name in guests if name.startswith(door)]
        print(f"{door}: in order {mine == [f'{door} {number}' for number in range(GUESTS_EACH)]}")
    cb.delete(KEY)


if __name__ == "__main__":
    main(*sys.argv[1:])
