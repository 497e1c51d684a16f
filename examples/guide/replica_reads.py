"""Replicas: read a copy when the node that has the document does not answer in time.

Needs a bucket with one replica on two nodes.

python examples/guide/replica_reads.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
from typing import Any

from couchbase import Couchbase
from couchbase.exceptions import CouchbaseError, CouchbaseNetworkError, CouchbaseTransientError, NotFoundError

KEY = "timetable"
DEPARTURES = 500_000


def get_somewhere(cb: Any, key: str, patience: float) -> tuple[Any, str]:
    """Read a document from its node or, if that takes too long, a copy; say which.

    A copy may be a little older than the document.
    """
    usual, cb.timeout = cb.timeout, patience
    try:
        return cb.get(key), "master"
    except (CouchbaseNetworkError, CouchbaseTransientError):
        cb.timeout = usual
        return cb.get(key, replica=True), "replica"
    finally:
        cb.timeout = usual


def main(connection_string: str) -> None:
    """Read from master and replica."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string, timeout=20)
    cb.set(KEY, {"line": 1, "departures": ["8:15"] * DEPARTURES}, replicate_to=1)

    result, source = get_somewhere(cb, KEY, patience=20)
    print(source, len(result.value["departures"]))
    # So large a document does not arrive in so short a time; this reads the copy.
    result, source = get_somewhere(cb, KEY, patience=0.0001)
    print(source, len(result.value["departures"]))
    # The answer that arrives too late is dropped.
    result, source = get_somewhere(cb, KEY, patience=20)
    print(source, len(result.value["departures"]))

    cb.set(KEY, ["8:15", "9:45"], replicate_to=1)
    # From any replica, or from a certain one.
    print("rget:", cb.rget(KEY).value)
    print("replica 0:", cb.rget(KEY, replica_index=0).value)
    print("many:", cb.get_multi([KEY], replica=True)[KEY].value)
    try:
        cb.rget(KEY, replica_index=1)
    except CouchbaseError as error:
        print("there is no replica 1:", hex(error.rc))

    cb.delete(KEY, replicate_to=1)
    try:
        cb.rget(KEY)
    except NotFoundError:
        print("the copy is gone, too")
    print("quiet:", cb.rget(KEY, quiet=True).success)


if __name__ == "__main__":
    main(*sys.argv[1:])
