"""Many keys in one call: set_multi, get_multi, delete_multi.

python examples/guide/multi_get.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
from typing import Any

from couchbase import Couchbase
from couchbase.exceptions import ArgumentError, KeyExistsError

PLANETS = {
    "planet:mercury": {"moons": 0},
    "planet:earth": {"moons": 1},
    "planet:mars": {"moons": 2},
}


def main(connection_string: str) -> None:
    """Store, read and remove three documents at a time."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)

    stored = cb.set_multi(PLANETS)
    print("all stored:", bool(stored.all_ok), "of", len(stored))

    # Requests leave for all nodes at once; the answers are in a dict by key.
    found = cb.get_multi(list(PLANETS))
    for key in sorted(found):
        print(key, found[key].value["moons"])

    # A dict says for each key when it is to expire, instead of one ttl for all.
    print("read with expiry:", len(cb.get_multi({"planet:earth": 600, "planet:mars": {"ttl": 900}})))

    some = cb.get_multi(["planet:mars", "planet:vulcan"], quiet=True)
    print("one is missing: all_ok", bool(some.all_ok))
    for key in sorted(some):
        print(key, "found" if some[key].success else "missing")

    not_collections: list[Any] = [[], "planet:mars", (key for key in PLANETS)]
    for keys in not_collections:
        try:
            cb.get_multi(keys)
        except ArgumentError:
            print("no collection of keys:", type(keys).__name__)

    # Results carry the versions that were seen, and delete_multi removes these and no others.
    found = cb.get_multi(list(PLANETS))
    cb.set("planet:mars", {"moons": 3})
    try:
        cb.delete_multi(found)
    except KeyExistsError as error:
        print("not deleted, because it was changed:", error.key)
    print("all deleted:", bool(cb.delete_multi(["planet:mars"]).all_ok))


if __name__ == "__main__":
    main(*sys.argv[1:])
