"""Storing, reading and removing: set, add, replace, get, delete, and the same as a mapping.

python examples/guide/crud.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys

from couchbase import Couchbase
from couchbase.exceptions import KeyExistsError, NotFoundError

KEY = "airport:VIE"


def main(connection_string: str) -> None:
    """Take one document through its life."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)

    # replace wants a document that exists, add one that does not, and set does not mind.
    try:
        cb.replace(KEY, {"city": "Vienna"})
    except NotFoundError:
        print("replace: nothing there yet")
    cb.add(KEY, {"city": "Vienna"})
    print("added:", cb.get(KEY).value)
    try:
        cb.add(KEY, {"city": "Vienna"})
    except KeyExistsError:
        print("add: it is there already")
    cb.replace(KEY, {"city": "Vienna", "runways": 2})
    print("replaced:", cb.get(KEY).value)
    cb.set(KEY, {"city": "Wien", "runways": 2})
    print("set:", cb.get(KEY).value)

    print("deleted:", cb.delete(KEY).success)
    try:
        cb.delete(KEY)
    except NotFoundError as error:
        print("delete: no document", error.key)

    # A connection also answers to the syntax of a dict.
    cb[KEY] = ["Vienna", 2]
    print("by index:", cb[KEY].value)
    del cb[KEY]
    print("still there:", cb.get(KEY, quiet=True).success)


if __name__ == "__main__":
    main(*sys.argv[1:])
