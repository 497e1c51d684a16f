"""Exceptions: their fields, and their categories.

python examples/guide/exception_fields.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys

from couchbase import Couchbase
from couchbase.exceptions import (
    ArgumentError,
    CouchbaseDataError,
    CouchbaseError,
    CouchbaseInputError,
    CouchbaseNetworkError,
    CouchbaseTransientError,
    NotFoundError,
    TemporaryFailError,
    ValueFormatError,
)

KEY = "trouble"
CATEGORIES = (CouchbaseDataError, CouchbaseInputError, CouchbaseNetworkError, CouchbaseTransientError)


def show(error: CouchbaseError) -> None:
    """Print what does not change from run to run."""
    print("  rc:", hex(error.rc))
    print("  key:", error.key)
    print("  has a message:", bool(error.message))
    print("  result:", None if error.result is None else (error.result.key, error.result.success))
    print("  all_results:", sorted(error.all_results))
    print("  inner_cause:", None if error.inner_cause is None else type(error.inner_cause).__name__)
    print("  objextra:", error.objextra)
    print("  categories:", [one.__name__ for one in CATEGORIES if isinstance(error, one)])
    flags = {"data": error.is_data, "network": error.is_network, "transient": error.is_transient}
    print("  is_*:", [name for name, flag in flags.items() if flag])


def main(connection_string: str) -> None:
    """Provoke some errors."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)

    try:
        cb.get(KEY)
    except NotFoundError as error:
        print("NotFoundError, because the server has no such document")
        show(error)
        print("  begins with:", str(error)[: str(error).index("[")])
        print("  the class for its rc:", CouchbaseError.rc_to_exctype(error.rc) is type(error))

    cb.set(KEY, "value")
    locked = cb.lock(KEY, ttl=10)
    try:
        cb.lock(KEY, ttl=10)
    except TemporaryFailError as error:
        print("TemporaryFailError, because somebody has a lock")
        show(error)
    cb.unlock(KEY, locked.cas)

    try:
        cb.set(KEY, {"a set"})
    except ValueFormatError as error:
        print("ValueFormatError, found before anything was sent")
        show(error)

    try:
        cb.set(KEY, "value", ttl="soon")
    except ArgumentError as error:
        print("ArgumentError, found before anything was sent")
        show(error)

    # A category catches errors of many kinds, CouchbaseError all of them.
    cb.delete(KEY)
    for attempt in (lambda: cb.get(KEY), lambda: cb.append(KEY, "more"), lambda: cb.incr(KEY)):
        try:
            attempt()
        except CouchbaseDataError as error:
            print("a data error:", hex(error.rc))
    cb._close()
    try:
        cb.get(KEY)
    except CouchbaseTransientError as error:
        print("a closed connection:", hex(error.rc))


if __name__ == "__main__":
    main(*sys.argv[1:])
