"""Counters: incr and decr, with a start value, for many keys, and a document that is not a counter.

python examples/guide/counters.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys

from couchbase import Couchbase
from couchbase.exceptions import DeltaBadvalError, NotFoundError

KEY = "visits"


def main(connection_string: str) -> None:
    """Count up and down."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)

    try:
        cb.incr(KEY)
    except NotFoundError:
        print("no counter yet")
    # The first call makes the counter with the start value; it adds nothing.
    print("initial:", cb.incr(KEY, initial=100).value)
    print("by 1:", cb.incr(KEY, initial=100).value)
    print("by 10:", cb.incr(KEY, amount=10).value)
    print("down by 1:", cb.decr(KEY).value)
    print("by -10:", cb.incr(KEY, amount=-10).value)
    print("never below zero:", cb.decr(KEY, amount=1000).value)

    # A counter is a document of digits, so it can be read and stored like any other.
    cb.set(KEY, 7)
    print("stored 7, then:", cb.incr(KEY).value)
    print("read:", repr(cb.get(KEY).value), "as stored:", cb.get(KEY, no_format=True).value)

    both = cb.incr_multi({"visits:monday": 3, "visits:tuesday": {"delta": 1, "initial": 20}}, initial=10)
    print("many:", {key: both[key].value for key in sorted(both)})
    both = cb.decr_multi(["visits:monday", "visits:tuesday"], amount=4)
    print("many, down:", {key: both[key].value for key in sorted(both)})

    cb.set(KEY, "seven")
    try:
        cb.incr(KEY)
    except DeltaBadvalError as error:
        print("no number in", error.key)

    cb.delete_multi([KEY, *both])


if __name__ == "__main__":
    main(*sys.argv[1:])
