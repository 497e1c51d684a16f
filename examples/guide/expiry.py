"""Expiry: ttl of a store, touch, and get with a ttl.

python examples/guide/expiry.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
import time

from couchbase import Connection, Couchbase
from couchbase.exceptions import ArgumentError, NotFoundError

PATIENCE_SECONDS = 20


def wait_until_gone(cb: Connection, key: str) -> bool:
    """Return true once there is no such document; false if that takes too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while cb.get(key, quiet=True).success:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def main(connection_string: str) -> None:
    """Store documents that last for a while, and let some of them last for longer."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)

    cb.set_multi({f"session:{name}": name for name in ("ann", "bob", "cy", "dee")}, ttl=2)
    # A new length of life, without sending the document ...
    print("touch:", cb.touch("session:bob", ttl=600).success)
    # ... or together with reading it; 0 means forever.
    print("get with a ttl:", cb.get("session:cy", ttl=600).value)
    print("touch_multi:", bool(cb.touch_multi({"session:dee": 0}).all_ok))

    print("ann is gone:", wait_until_gone(cb, "session:ann"))
    left = cb.get_multi([f"session:{name}" for name in ("ann", "bob", "cy", "dee")], quiet=True)
    print("left:", sorted(key for key, result in left.items() if result.success))

    # Storing again without a ttl also means forever; with a ttl the time starts again.
    cb.set("session:bob", "bob", ttl=1)
    print("bob is gone:", wait_until_gone(cb, "session:bob"))
    try:
        cb.touch("session:bob", ttl=10)
    except NotFoundError:
        print("too late for bob")
    try:
        cb.set("session:bob", "bob", ttl=-1)
    except ArgumentError:
        print("no negative ttl")

    cb.delete_multi(["session:cy", "session:dee"])


if __name__ == "__main__":
    main(*sys.argv[1:])
